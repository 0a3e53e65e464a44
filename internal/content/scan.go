package content

import (
	"bytes"
	"fmt"
	"slices"
	"unicode/utf8"
)

// Bounds of a JSON text, so that no body costs more than its size. Both are far beyond any message.
const (
	maxDepth  = 128
	maxValues = 1 << 16
)

// SyntaxError says that a body is no JSON.
type SyntaxError struct {
	// Offset is the byte, counted from 1, at which it breaks; 0 for a body without anything in it.
	Offset int
}

// Error implements error, without showing the body.
func (e *SyntaxError) Error() string {
	if e.Offset == 0 {
		return "the body is empty"
	}
	return fmt.Sprintf("is not JSON: it breaks at byte %d", e.Offset)
}

type kind uint8

const (
	absent kind = iota // or null
	null
	boolean
	number
	text
	array
	object
)

// node is one value of a JSON text.
type node struct {
	key          []byte // a member's name, decoded
	start, end   int    // the value in the text, a string with its quotes
	parent, next int32  // the array or object it is in, -1 for none; the first value after it and what it holds
	count        int32  // elements or members
	kind         kind
	escaped      bool // a string with escapes
	badKey       bool // the name is not Unicode
}

// flaw is what is wrong with a value as JSON, although a parser may take it.
type flaw struct {
	at     int32
	detail string
}

const (
	flawUTF8      = "is not valid UTF-8"
	flawSurrogate = `holds half of a surrogate pair (\ud800 to \udfff)`
	flawTwice     = "occurs twice in its object"
	flawName      = "holds a name that is not Unicode"
)

// doc is a JSON text as the list of its values, in order: an array or object stands before what it holds.
type doc struct {
	text   []byte
	nodes  []node
	flaws  []flaw
	order  []int32 // scratch of repeated
	pos    int
	spaces bool   // there is white space between tokens
	bound  string // which bound ended the scan
}

// scan reads a text. It gives a *SyntaxError for what is no JSON, and leaves bound set where it stopped at a bound.
func (d *doc) scan(body []byte) error {
	d.text, d.nodes, d.flaws, d.pos, d.spaces, d.bound = body, d.nodes[:0], d.flaws[:0], 0, false, ""
	d.skip()
	if d.pos == len(body) {
		return &SyntaxError{}
	}
	if d.value(-1, nil, false, 0) {
		if d.skip(); d.pos == len(body) {
			return nil
		}
	}
	if d.bound != "" {
		return nil
	}
	return &SyntaxError{Offset: d.pos + 1}
}

func (d *doc) skip() {
	for d.pos < len(d.text) {
		switch d.text[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.spaces = true
			d.pos++
		default:
			return
		}
	}
}

// peek is the next byte; 0, which is never right, at the end.
func (d *doc) peek() byte {
	if d.pos < len(d.text) {
		return d.text[d.pos]
	}
	return 0
}

// value reads the value that begins here. Where it gives false, pos is the byte at which it breaks.
func (d *doc) value(parent int32, key []byte, badKey bool, depth int) bool {
	if len(d.nodes) == maxValues {
		d.bound = fmt.Sprintf("must have at most %d values", maxValues)
		return false
	}
	at := int32(len(d.nodes)) //nolint:gosec // G115: at most maxValues
	d.nodes = append(d.nodes, node{key: key, start: d.pos, parent: parent, badKey: badKey})
	var ok bool
	switch c := d.peek(); {
	case c == '"':
		d.nodes[at].kind = text
		var detail string
		ok, d.nodes[at].escaped, detail = d.str()
		if detail != "" {
			d.flaw(at, detail)
		}
	case c == '{' || c == '[':
		if depth == maxDepth {
			d.bound = fmt.Sprintf("must be nested at most %d levels deep", maxDepth)
			return false
		}
		ok = d.container(at, c == '{', depth+1)
	case c == 't':
		d.nodes[at].kind = boolean
		ok = d.literal("true")
	case c == 'f':
		d.nodes[at].kind = boolean
		ok = d.literal("false")
	case c == 'n':
		d.nodes[at].kind = null
		ok = d.literal("null")
	default:
		d.nodes[at].kind = number
		n := numberEnd(d.text[d.pos:])
		d.pos += n
		ok = n > 0
	}
	d.nodes[at].end = d.pos
	d.nodes[at].next = int32(len(d.nodes)) //nolint:gosec // G115: at most maxValues
	return ok
}

// container reads an array or object from its bracket to the other.
func (d *doc) container(at int32, isObject bool, depth int) bool {
	d.nodes[at].kind = array
	closing := byte(']')
	if isObject {
		d.nodes[at].kind = object
		closing = '}'
	}
	d.pos++
	if d.skip(); d.peek() == closing {
		d.pos++
		return true
	}
	for {
		var key []byte
		var badKey bool
		if isObject {
			var ok bool
			if key, badKey, ok = d.name(); !ok {
				return false
			}
		}
		if !d.value(at, key, badKey, depth) {
			return false
		}
		d.nodes[at].count++
		if badKey {
			d.flaw(at, flawName)
		}
		d.skip()
		switch d.peek() {
		case ',':
			d.pos++
			d.skip()
		case closing:
			d.pos++
			if isObject {
				d.repeated(at)
			}
			return true
		default:
			return false
		}
	}
}

// name reads a member's name and its colon.
func (d *doc) name() (key []byte, bad, ok bool) {
	if d.peek() != '"' {
		return nil, false, false
	}
	start := d.pos
	ok, escaped, detail := d.str()
	if !ok {
		return nil, false, false
	}
	key = d.text[start+1 : d.pos-1]
	if escaped {
		key = unquote(key)
	}
	if d.skip(); d.peek() != ':' {
		return nil, false, false
	}
	d.pos++
	d.skip()
	return key, detail != "", true
}

// str reads a string. detail says what is wrong with it although it is one.
func (d *doc) str() (ok, escaped bool, detail string) {
	start := d.pos + 1
	foreign := false
	for d.pos = start; d.pos < len(d.text); {
		switch c := d.text[d.pos]; {
		case c == '"':
			if foreign && !utf8.Valid(d.text[start:d.pos]) {
				detail = flawUTF8
			}
			d.pos++
			return true, escaped, detail
		case c == '\\':
			escaped = true
			whole, n := escape(d.text[d.pos:])
			if n == 0 {
				return false, escaped, detail
			}
			if !whole {
				detail = flawSurrogate
			}
			d.pos += n
		case c < ' ':
			return false, escaped, detail
		default:
			foreign = foreign || c >= utf8.RuneSelf
			d.pos++
		}
	}
	return false, escaped, detail
}

func (d *doc) literal(word string) bool {
	if !bytes.HasPrefix(d.text[d.pos:], []byte(word)) {
		return false
	}
	d.pos += len(word)
	return true
}

func (d *doc) flaw(at int32, detail string) {
	if len(d.flaws) < maxFaults {
		d.flaws = append(d.flaws, flaw{at, detail})
	}
}

// repeated looks for names that an object has twice: readers differ in which one they take, so what was checked here might
// not be what is sent to a user.
func (d *doc) repeated(at int32) {
	n := int(d.nodes[at].count)
	if n < 2 {
		return
	}
	d.order = d.order[:0]
	for m := at + 1; len(d.order) < n; m = d.nodes[m].next {
		d.order = append(d.order, m)
	}
	same := func(a, b int32) bool { return bytes.Equal(d.nodes[a].key, d.nodes[b].key) }
	if n <= 12 { // nearly every object; comparing each with each is the fastest then
		for i, a := range d.order {
			if slices.ContainsFunc(d.order[:i], func(b int32) bool { return same(a, b) }) {
				d.flaw(a, flawTwice)
			}
		}
		return
	}
	slices.SortStableFunc(d.order, func(a, b int32) int { return bytes.Compare(d.nodes[a].key, d.nodes[b].key) })
	for i := 1; i < n; i++ {
		if same(d.order[i], d.order[i-1]) {
			d.flaw(d.order[i], flawTwice)
		}
	}
}

// numberEnd gives the length of the JSON number at the start of b; 0 where there is none.
func numberEnd(b []byte) int {
	i := 0
	digits := func() bool {
		from := i
		for i < len(b) && b[i] >= '0' && b[i] <= '9' {
			i++
		}
		return i > from
	}
	if i < len(b) && b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if !digits() {
		return 0
	}
	if i < len(b) && b[i] == '.' {
		if i++; !digits() {
			return 0
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			return 0
		}
	}
	return i
}

// escape gives the length of the escape at the start of b, of both halves of a pair; 0 where it is none. whole is false for
// half a pair.
func escape(b []byte) (whole bool, n int) {
	if len(b) < 2 {
		return false, 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true, 2
	case 'u':
		first, ok := hex4(b)
		switch {
		case !ok:
			return false, 0
		case first < 0xd800 || first > 0xdfff:
			return true, 6
		case first > 0xdbff:
			return false, 6
		}
		if second, ok := hex4(b[6:]); ok && second >= 0xdc00 && second <= 0xdfff {
			return true, 12
		}
		return false, 6
	}
	return false, 0
}

// hex4 reads the \uXXXX at the start of b.
func hex4(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range b[2:6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// unquote decodes what stands between the quotes of a string that str has passed. Half a pair becomes U+FFFD.
func unquote(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		if b[i] != '\\' {
			out = append(out, b[i])
			i++
			continue
		}
		whole, n := escape(b[i:])
		switch c := b[i+1]; {
		case c == 'b':
			out = append(out, '\b')
		case c == 'f':
			out = append(out, '\f')
		case c == 'n':
			out = append(out, '\n')
		case c == 'r':
			out = append(out, '\r')
		case c == 't':
			out = append(out, '\t')
		case c != 'u':
			out = append(out, c)
		case !whole:
			out = utf8.AppendRune(out, utf8.RuneError)
		default:
			r, _ := hex4(b[i:])
			if n == 12 {
				low, _ := hex4(b[i+6:])
				r = (r-0xd800)<<10 + (low - 0xdc00) + 0x10000
			}
			out = utf8.AppendRune(out, r)
		}
		i += n
	}
	return out
}

// compact gives the text without the white space between tokens, in memory of its own.
func (d *doc) compact() []byte {
	if !d.spaces {
		return bytes.Clone(d.text)
	}
	out := make([]byte, 0, len(d.text))
	for i := 0; i < len(d.text); i++ {
		switch c := d.text[i]; c {
		case ' ', '\t', '\n', '\r':
		case '"':
			from := i
			for i++; d.text[i] != '"'; i++ {
				if d.text[i] == '\\' {
					i++
				}
			}
			out = append(out, d.text[from:i+1]...)
		default:
			out = append(out, c)
		}
	}
	return out
}
