package content_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"wagate/internal/cloudapi"
	"wagate/internal/content"
)

func decode(t testing.TB, b []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	return v
}

func equal(a, b any) bool { return reflect.DeepEqual(a, b) }

func pointers(faults []cloudapi.Fault) []string {
	var p []string
	for _, f := range faults {
		p = append(p, f.Pointer)
	}
	return p
}

// x is a string of so many characters, which have two bytes each.
func x(n int) string { return strings.Repeat("é", n) }

// repeat joins n times the element, with each # in it replaced by its number.
func repeat(n int, element string) string {
	var all []string
	for i := range n {
		all = append(all, strings.ReplaceAll(element, "#", string(rune('0'+i/100%10))+string(rune('0'+i/10%10))+string(rune('0'+i%10))))
	}
	return strings.Join(all, ",")
}

// rule is a part of a message and the faults it has.
type rule struct {
	part   string
	faults string // pointers below the part's own, in order, with blanks between; "" for none, "." for the part itself
	detail string // a piece of the first fault's text
}

// check puts each part into a frame, in the place of its $, and looks at the faults below base.
func check(t *testing.T, frame, base string, rules []rule) {
	t.Helper()
	for _, r := range rules {
		body := strings.Replace(frame, "$", r.part, 1)
		m, faults, err := content.Check([]byte(body), content.Options{Strict: true})
		if err != nil {
			t.Errorf("%.200s: %v", r.part, err)
			continue
		}
		var want []string
		for p := range strings.FieldsSeq(r.faults) {
			want = append(want, base+strings.TrimPrefix(p, "."))
		}
		if got := pointers(faults); !slices.Equal(got, want) {
			t.Errorf("%.300s:\nfaults %v\nwant at %q", r.part, faults, want)
			continue
		}
		for _, f := range faults {
			if f.Detail == "" {
				t.Errorf("%.200s: no detail at %s", r.part, f.Pointer)
			}
		}
		switch {
		case len(want) == 0 && !equal(decode(t, m.Body), decode(t, []byte(body))):
			t.Errorf("%.200s: kept as %.200s", r.part, m.Body)
		case len(want) > 0 && m.Body != nil:
			t.Errorf("%.200s: kept in spite of its faults", r.part)
		case r.detail != "" && !strings.Contains(faults[0].Detail, r.detail):
			t.Errorf("%.200s: %q does not say %q", r.part, faults[0].Detail, r.detail)
		}
	}
}

// message is a frame for the object of a type.
func message(kind string) string {
	return `{"to":"+12025550101","type":"` + kind + `","` + kind + `":$}`
}
