package content

import (
	"bytes"
	"fmt"
	"strconv"

	"wagate/internal/cloudapi"
)

// need says whether a field has to be there.
type need uint8

const (
	unsaid   need = iota // no rule is known: it is not looked at
	never                // must not be there
	optional             // may be left out, null or empty
	required             // must be there and not be empty
)

// unlimited is the limit of a string for which none is documented.
const unlimited = 0

// fault adds a fault at a value.
func (c *checker) fault(v value, format string, args ...any) {
	if c.room() {
		c.add(v.pointer(), fmt.Sprintf(format, args...))
	}
}

// faultAt adds a fault at a member of a value, which need not be there. Where there is no such value it says nothing: that has
// been told.
func (c *checker) faultAt(parent value, name, format string, args ...any) {
	if parent.there() && c.room() {
		c.add(parent.pointer()+"/"+escapeToken(name), fmt.Sprintf(format, args...))
	}
}

// room says whether another fault is told; what is beyond is only counted.
func (c *checker) room() bool {
	if len(c.faults) < maxFaults {
		return true
	}
	c.untold++
	return false
}

func (c *checker) add(pointer, detail string) {
	c.faults = append(c.faults, cloudapi.Fault{Pointer: pointer, Detail: detail})
}

// object reads a member that is an object; where it has to be one and is not, there is a fault and no value.
func (c *checker) object(parent value, name string, n need) value {
	return c.of(parent, name, n, object, "must be an object")
}

// list reads a member that is an array.
func (c *checker) list(parent value, name string, n need) value {
	return c.of(parent, name, n, array, "must be an array")
}

func (c *checker) of(parent value, name string, n need, k kind, wrong string) value {
	v := parent.get(name)
	switch {
	case !v.there():
		if n == required {
			c.faultAt(parent, name, "is required")
		}
	case v.kind() == k:
		return v
	case n == required || v.filled():
		c.fault(v, "%s", wrong)
	}
	return value{}
}

// counted reads an array of low to high elements. It is given also with too many or too few, so that what is in it is checked.
func (c *checker) counted(parent value, name string, low, high int, things string) value {
	v := c.list(parent, name, required)
	if n := v.count(); v.there() && (n < low || n > high) {
		c.fault(v, "must have %s, not %d", span(low, high, things), n)
	}
	return v
}

// span says how many things there may be.
func span(low, high int, things string) string {
	switch {
	case low == 0:
		return "at most " + strconv.Itoa(high) + " " + things
	case low == high:
		return "exactly " + strconv.Itoa(high) + " " + things
	}
	return strconv.Itoa(low) + " to " + strconv.Itoa(high) + " " + things
}

// text reads a string of at most so many characters. It is given only where it is there, not empty and without fault.
func (c *checker) text(parent value, name string, n need, limit int) value {
	v := parent.get(name)
	switch {
	case !v.there():
		if n == required {
			c.faultAt(parent, name, "is required")
		}
		return value{}
	case v.kind() != text:
		c.fault(v, "must be a string")
		return value{}
	case !v.filled():
		if n == required {
			c.fault(v, "must not be empty")
		}
		return value{}
	}
	// A string has no more characters than bytes.
	if limit != unlimited && len(v.raw())-2 > limit {
		if length := v.length(); length > limit {
			c.fault(v, "must have at most %d characters, not %d", limit, length)
			return value{}
		}
	}
	return v
}

// texts checks members that are optional strings without a documented limit.
func (c *checker) texts(parent value, names ...string) {
	for _, name := range names {
		c.text(parent, name, optional, unlimited)
	}
}

// ids checks members that are optional ids of Meta's: strings, or the whole numbers that clients make of them which read ids
// as numbers.
func (c *checker) ids(parent value, names ...string) {
	for _, name := range names {
		if v := parent.get(name); v.kind() != number || !isDigits(v.raw()) {
			c.text(parent, name, optional, unlimited)
		}
	}
}

// stored is text for what the gateway keeps in a column of its own, in at most so many bytes.
func (c *checker) stored(parent value, name string, n need, limit, bytesLimit int) string {
	v := c.text(parent, name, n, limit)
	if !v.there() {
		return ""
	}
	s := v.str()
	switch {
	case len(s) > bytesLimit:
		c.fault(v, "must have at most %d bytes", bytesLimit)
	case bytes.IndexByte(s, 0) >= 0:
		c.fault(v, "must not contain a NUL character")
	default:
		return string(s)
	}
	return ""
}

// word reads a string that is one of some words, in any case; "" where it is not.
func (c *checker) word(parent value, name string, n need, words ...string) string {
	v := c.text(parent, name, n, unlimited)
	if !v.there() {
		return ""
	}
	w := v.pick(words...)
	if w == "" {
		c.fault(v, "must be %s", either(words))
	}
	return w
}

// either lists words: a, b or c.
func either(words []string) string {
	var b bytes.Buffer
	for i, w := range words {
		switch {
		case i > 0 && i == len(words)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(w)
	}
	return b.String()
}

// flag checks an optional boolean.
func (c *checker) flag(parent value, name string) {
	if v := parent.get(name); v.filled() && v.kind() != boolean {
		c.fault(v, "must be true or false")
	}
}

// integer reads a whole number from low to high; false where there is none.
func (c *checker) integer(parent value, name string, n need, low, high int64) (int64, bool) {
	v := parent.get(name)
	if !v.there() {
		if n == required {
			c.faultAt(parent, name, "is required")
		}
		return 0, false
	}
	i, ok := v.whole()
	if !ok || i < low || i > high {
		if low <= -maxWhole && high >= maxWhole {
			c.fault(v, "must be a whole number")
		} else {
			c.fault(v, "must be a whole number from %d to %d", low, high)
		}
		return 0, false
	}
	return i, true
}

// maxWhole is the largest whole number that every reader of JSON keeps.
const maxWhole = 1<<53 - 1

// decimal checks a number, or a string with one: Meta's pages show numbers, its OpenAPI description strings.
func (c *checker) decimal(parent value, name string) {
	v := parent.get(name)
	if !v.there() {
		c.faultAt(parent, name, "is required")
		return
	}
	b := v.raw()
	if v.kind() == text {
		b = bytes.TrimPrefix(bytes.TrimSpace(v.str()), []byte("+"))
	}
	if len(b) == 0 || len(b) > 64 || numberEnd(b) != len(b) {
		c.fault(v, "must be a number")
		return
	}
	if _, err := strconv.ParseFloat(string(b), 64); err != nil {
		c.fault(v, "must be a number")
	}
}

// link checks an optional URL that Meta fetches; false where there is none.
func (c *checker) link(parent value, name string) bool {
	v := c.text(parent, name, optional, unlimited)
	if v.there() && !isWebURL(v.str()) {
		c.fault(v, "must be a URL that begins with https:// or http:// and names a host")
	}
	return parent.get(name).filled()
}

// isWebURL is generous: spaces and characters that ought to be escaped are Meta's to judge.
func isWebURL(b []byte) bool {
	for _, scheme := range []string{"https://", "http://"} {
		if len(b) > len(scheme) && bytes.EqualFold(b[:len(scheme)], []byte(scheme)) {
			first := b[len(scheme)]
			return first > ' ' && first != '/' && first != '?' && first != '#' && first != ':'
		}
	}
	return false
}

// distinct adds a fault at whole unless all of the ids are different. Only the first high are looked at: there is a fault
// already where there are more.
type distinct struct {
	seen [30]value
	n    int
	told bool
}

func (d *distinct) add(c *checker, whole, v value, what string) {
	if d.told || !v.there() || d.n == len(d.seen) {
		return
	}
	for _, s := range d.seen[:d.n] {
		if bytes.Equal(s.str(), v.str()) {
			c.fault(whole, "must have a different %s each", what)
			d.told = true
			return
		}
	}
	d.seen[d.n] = v
	d.n++
}

// elements calls f for each element of an array that is an object; of others there is a fault.
func (c *checker) elements(list value, f func(e value)) {
	for e := list.first(); e.there(); e = e.next() {
		if e.kind() != object {
			c.fault(e, "must be an object")
			continue
		}
		f(e)
	}
}
