package content

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxPointer bounds a pointer, in bytes; beyond it the nearest value around is named.
const maxPointer = 1024

// value is a value of a doc, or the lack of one (the zero value).
type value struct {
	d  *doc
	at int32
}

func (v value) node() *node { return &v.d.nodes[v.at] }

// there says whether there is a value.
func (v value) there() bool { return v.d != nil }

func (v value) kind() kind {
	if v.d == nil {
		return absent
	}
	return v.node().kind
}

// member gives a member of an object, also where it is null.
func (v value) member(name string) value {
	if v.kind() != object {
		return value{}
	}
	for m := v.first(); m.there(); m = m.next() {
		if string(m.node().key) == name {
			return m
		}
	}
	return value{}
}

// get gives a member of an object; null counts as absent.
func (v value) get(name string) value {
	if m := v.member(name); m.kind() != null {
		return m
	}
	return value{}
}

// first gives the first element or member; next the one after it.
func (v value) first() value {
	if v.d == nil || v.node().count == 0 {
		return value{}
	}
	return value{v.d, v.at + 1}
}

func (v value) next() value {
	n := v.node()
	if n.parent < 0 || n.next >= v.d.nodes[n.parent].next {
		return value{}
	}
	return value{v.d, n.next}
}

// count is how many elements or members there are.
func (v value) count() int {
	if v.d == nil {
		return 0
	}
	return int(v.node().count)
}

// raw is the value as it stands.
func (v value) raw() []byte {
	if v.d == nil {
		return nil
	}
	return v.d.text[v.node().start:v.node().end]
}

// quoted is what stands between the quotes of a string.
func (v value) quoted() []byte { b := v.raw(); return b[1 : len(b)-1] }

// str is a string's text: a part of the body unless something in it is escaped. It is nil for other values.
func (v value) str() []byte {
	if v.kind() != text {
		return nil
	}
	if !v.node().escaped {
		return v.quoted()
	}
	return unquote(v.quoted())
}

// filled says whether there is a value other than an empty string, which some clients write for what they leave out.
func (v value) filled() bool {
	return v.there() && (v.kind() != text || len(v.raw()) > 2)
}

// length is a string's number of characters (Unicode code points): the fewest that any way of counting gives, so that
// nothing is refused that Meta may take.
func (v value) length() int {
	b := v.quoted()
	if !v.node().escaped {
		return utf8.RuneCount(b)
	}
	n := 0
	for len(b) > 0 {
		if i := bytes.IndexByte(b, '\\'); i != 0 {
			if i < 0 {
				i = len(b)
			}
			n += utf8.RuneCount(b[:i])
			b = b[i:]
			continue
		}
		_, size := escape(b)
		n++
		b = b[size:]
	}
	return n
}

// is says whether a string is a word, in any case: clients differ in it and Meta takes both.
func (v value) is(word string) bool {
	b := v.str()
	if len(b) != len(word) {
		return false
	}
	for i := range b {
		if lower(b[i]) != lower(word[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// pick gives the word that a string is; "" for none of them.
func (v value) pick(words ...string) string {
	for _, w := range words {
		if v.is(w) {
			return w
		}
	}
	return ""
}

// whole reads a whole number, which may be written as 1.0 or 1e3.
func (v value) whole() (int64, bool) {
	b := v.raw()
	if v.kind() != number || len(b) > 40 {
		return 0, false
	}
	if n, err := strconv.ParseInt(string(b), 10, 64); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if n := int64(f); err == nil && f > -1<<53 && f < 1<<53 && float64(n) == f {
		return n, true
	}
	return 0, false
}

// pointer is the JSON Pointer (RFC 6901) of a value.
func (v value) pointer() string {
	var tokens []string
	for at := v.at; at >= 0; at = v.d.nodes[at].parent {
		tokens = append(tokens, v.d.token(at))
	}
	p := ""
	for i := len(tokens) - 2; i >= 0; i-- { // the last one is the body's
		if tokens[i] == "" || len(p)+len(tokens[i]) > maxPointer {
			break
		}
		p += tokens[i]
	}
	return p
}

// token is the last part of a value's pointer, with its slash; "" where the name cannot be written.
func (d *doc) token(at int32) string {
	n := &d.nodes[at]
	if n.parent < 0 || n.badKey {
		return ""
	}
	if d.nodes[n.parent].kind == object {
		return "/" + escapeToken(string(n.key))
	}
	i := 0
	for e := n.parent + 1; e != at; e = d.nodes[e].next {
		i++
	}
	return "/" + strconv.Itoa(i)
}

// escapeToken writes a name for a pointer.
func escapeToken(s string) string {
	if !strings.ContainsAny(s, "~/") {
		return s
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "~", "~0"), "/", "~1")
}
