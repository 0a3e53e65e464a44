// Package form reads a JSON object field by field and gathers everything that is wrong with it, each fault with its
// JSON Pointer, so that a caller learns of all faults at once. A field that was never asked for is a fault too.
package form

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"wagate/internal/cloudapi"
)

// Object is a JSON object that is being read.
type Object struct {
	base   string
	fields map[string]json.RawMessage
	asked  map[string]bool
	faults *[]cloudapi.Fault
}

// Parse takes a JSON text that must be an object. base is the pointer of the object itself. Faults are added to faults;
// without an object the answer is nil, and every method of a nil Object finds nothing.
func Parse(raw []byte, base string, faults *[]cloudapi.Fault) *Object {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil || fields == nil {
		*faults = append(*faults, cloudapi.Fault{Pointer: base, Detail: "must be a JSON object"})
		return nil
	}
	return &Object{base: base, fields: fields, asked: make(map[string]bool, len(fields)), faults: faults}
}

// Fault adds a fault at a field; at the object itself when name is empty.
func (o *Object) Fault(name, format string, args ...any) {
	if o == nil {
		return
	}
	pointer := o.base
	if name != "" {
		pointer += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
	}
	*o.faults = append(*o.faults, cloudapi.Fault{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
}

// Bounds of what is said of names that a caller made up.
const (
	// maxName is how long a name may be, in characters, to stand in a pointer.
	maxName = 80
	// maxUnknown is how many unknown fields of one object are named.
	maxUnknown = 20
)

// End adds a fault for each field that was not asked for: up to 20, and then one for all the others.
func (o *Object) End() {
	if o == nil {
		return
	}
	unknown := slices.Sorted(maps.Keys(o.fields))
	unknown = slices.DeleteFunc(unknown, func(name string) bool { return o.asked[name] })
	for _, name := range unknown[:min(len(unknown), maxUnknown)] {
		o.faultAt(name, "is not a known field")
	}
	if more := len(unknown) - maxUnknown; more > 0 {
		o.Fault("", "has %d more unknown fields", more)
	}
}

// faultAt adds a fault at a field whose name the caller made up: it may be empty, and one that is too long for a pointer is
// told of at the object.
func (o *Object) faultAt(name, detail string) {
	switch n := utf8.RuneCountInString(name); {
	case n == 0:
		*o.faults = append(*o.faults, cloudapi.Fault{Pointer: o.base + "/", Detail: detail})
	case n > maxName:
		o.Fault("", "a field with a name of %d characters: %s", n, detail)
	default:
		o.Fault(name, "%s", detail)
	}
}

// Raw gives a field as it stands; nil when it is absent or null.
func (o *Object) Raw(name string) json.RawMessage {
	if o == nil {
		return nil
	}
	o.asked[name] = true
	if v := o.fields[name]; string(v) != "null" {
		return v
	}
	return nil
}

// IsNull says whether the field is there and null.
func (o *Object) IsNull(name string) bool {
	if o == nil {
		return false
	}
	o.asked[name] = true
	return string(o.fields[name]) == "null"
}

// Text reads a string of at most limit characters. Absent and null are "", as is what is at fault; an empty string is a
// fault.
func (o *Object) Text(name string, limit int) string {
	raw := o.Raw(name)
	if raw == nil {
		return ""
	}
	return o.text(raw, name, limit)
}

func (o *Object) text(raw json.RawMessage, name string, limit int) string {
	var s string
	switch err := json.Unmarshal(raw, &s); {
	case err != nil:
		o.Fault(name, "must be a string")
	case s == "":
		o.Fault(name, "must not be empty")
	case utf8.RuneCountInString(s) > limit:
		o.Fault(name, "must have at most %d characters", limit)
	case strings.IndexByte(s, 0) >= 0:
		o.Fault(name, "must not contain a NUL character")
	default:
		return s
	}
	return ""
}

// Word reads a string that parse takes; its error is the fault.
func Word[T any](o *Object, name string, parse func(string) (T, error)) T {
	var zero T
	raw := o.Raw(name)
	if raw == nil {
		return zero
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		o.Fault(name, "must be a string")
		return zero
	}
	v, err := parse(s)
	if err != nil {
		o.Fault(name, "%s", err.Error())
		return zero
	}
	return v
}

// Bool reads true or false; absent and null are preset.
func (o *Object) Bool(name string, preset bool) bool {
	raw := o.Raw(name)
	if raw == nil {
		return preset
	}
	var b bool
	if json.Unmarshal(raw, &b) != nil {
		o.Fault(name, "must be true or false")
		return preset
	}
	return b
}

// Time reads an RFC 3339 time; zero when absent, null or at fault. A zone other than UTC is taken and given as UTC.
func (o *Object) Time(name string) time.Time {
	return Word(o, name, func(s string) (time.Time, error) {
		t, err := time.Parse(time.RFC3339, s)
		if err != nil || t.Year() < 1970 {
			return time.Time{}, fmt.Errorf("must be an RFC 3339 time such as 2026-12-01T09:00:00Z")
		}
		return t.UTC().Truncate(time.Microsecond), nil // Postgres keeps microseconds
	})
}

// Number reads a number from low to high. Absent is preset, null is nil.
func (o *Object) Number(name string, preset *float64, low, high float64) *float64 {
	if o.IsNull(name) {
		return nil
	}
	raw := o.Raw(name)
	if raw == nil {
		return preset
	}
	var f float64
	if json.Unmarshal(raw, &f) != nil || math.IsNaN(f) || f < low || f > high {
		o.Fault(name, "must be a number from %s to %s", plain(low), plain(high))
		return preset
	}
	return &f
}

func plain(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// Integer reads a whole number from low to high. Absent is preset, null is nil.
func (o *Object) Integer(name string, preset *int, low, high int) *int {
	if o.IsNull(name) {
		return nil
	}
	raw := o.Raw(name)
	if raw == nil {
		return preset
	}
	var n int
	if json.Unmarshal(raw, &n) != nil || n < low || n > high {
		o.Fault(name, "must be a whole number from %d to %d", low, high)
		return preset
	}
	return &n
}

// Count is Integer for a field that cannot be without a value: null is a fault.
func (o *Object) Count(name string, preset, low, high int) int {
	if o.IsNull(name) {
		o.Fault(name, "must be a whole number from %d to %d", low, high)
		return preset
	}
	return *o.Integer(name, &preset, low, high)
}

// Object reads an object; nil when absent, null or at fault. The caller ends it.
func (o *Object) Object(name string) *Object {
	raw := o.Raw(name)
	if raw == nil {
		return nil
	}
	return Parse(raw, o.base+"/"+name, o.faults)
}

// Map reads an object of strings: at most limit of them, with names and values of at most so many characters.
func (o *Object) Map(name string, limit, nameLength, valueLength int) map[string]string {
	inner := o.Object(name)
	if inner == nil || len(inner.fields) == 0 {
		return nil
	}
	if len(inner.fields) > limit {
		o.Fault(name, "must have at most %d members", limit)
		return nil
	}
	values := make(map[string]string, len(inner.fields))
	for _, key := range slices.Sorted(maps.Keys(inner.fields)) {
		raw := inner.fields[key]
		switch n := utf8.RuneCountInString(key); {
		case n == 0 || n > nameLength:
			inner.faultAt(key, fmt.Sprintf("its name must have 1 to %d characters", nameLength))
		case strings.IndexByte(key, 0) >= 0:
			inner.faultAt(key, "its name must not contain a NUL character")
		default:
			values[key] = inner.text(raw, key, valueLength)
		}
	}
	return values
}

// elements reads an array of at most limit elements.
func (o *Object) elements(name string, limit int) []json.RawMessage {
	raw := o.Raw(name)
	if raw == nil {
		return nil
	}
	var all []json.RawMessage
	if json.Unmarshal(raw, &all) != nil {
		o.Fault(name, "must be an array")
		return nil
	}
	if len(all) > limit {
		o.Fault(name, "must have at most %d elements", limit)
		return nil
	}
	return all
}

// element is the object over an array's elements, for faults at one of them.
func (o *Object) element(name string) *Object {
	return &Object{base: o.base + "/" + name, faults: o.faults}
}

// Texts reads an array of strings.
func (o *Object) Texts(name string, limit, length int) []string {
	var texts []string
	for i, raw := range o.elements(name, limit) {
		if s := o.element(name).text(raw, strconv.Itoa(i), length); s != "" {
			texts = append(texts, s)
		}
	}
	return texts
}

// Integers reads an array of whole numbers from low to high.
func (o *Object) Integers(name string, limit, low, high int) []int {
	var numbers []int
	for i, raw := range o.elements(name, limit) {
		var n int
		if json.Unmarshal(raw, &n) != nil || n < low || n > high {
			o.element(name).Fault(strconv.Itoa(i), "must be a whole number from %d to %d", low, high)
			continue
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// Words reads an array of strings that parse takes; its error is the fault of an element.
func Words[T any](o *Object, name string, limit int, parse func(string) (T, error)) []T {
	var words []T
	for i, raw := range o.elements(name, limit) {
		var s string
		if json.Unmarshal(raw, &s) != nil {
			o.element(name).Fault(strconv.Itoa(i), "must be a string")
			continue
		}
		v, err := parse(s)
		if err != nil {
			o.element(name).Fault(strconv.Itoa(i), "%s", err.Error())
			continue
		}
		words = append(words, v)
	}
	return words
}
