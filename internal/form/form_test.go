package form

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"wagate/internal/cloudapi"
)

func TestValues(t *testing.T) {
	var faults []cloudapi.Fault
	o := Parse([]byte(`{"s":"x","yes":true,"n":1.5,"i":7,"none":null,"o":{"a":1},"list":["a","b"],"days":[1,7],"m":{"k":"v"},"t":"2026-12-01T10:00:00+01:00"}`), "", &faults)
	preset := 80.0
	if o.Text("s", 5) != "x" || *o.Number("n", nil, 0, 2) != 1.5 || *o.Integer("i", nil, 0, 9) != 7 || o.Number("none", &preset, 0, 1) != nil ||
		*o.Number("absent", &preset, 0, 1) != 80 || o.Count("absent", 3, 1, 5) != 3 || o.Object("o").Count("a", 0, 0, 5) != 1 ||
		!slices.Equal(o.Texts("list", 2, 1), []string{"a", "b"}) || !slices.Equal(o.Integers("days", 7, 1, 7), []int{1, 7}) || o.Map("m", 1, 1, 1)["k"] != "v" ||
		!o.Bool("yes", false) || !o.Bool("none", true) || o.Bool("absent", false) ||
		!slices.Equal(Words(o, "list", 2, func(s string) (string, error) { return s + s, nil }), []string{"aa", "bb"}) ||
		o.Time("t").Format("15:04Z07:00") != "09:00Z" {
		t.Error("a value was read wrong")
	}
	o.End()
	if len(faults) != 0 {
		t.Errorf("faults: %v", faults)
	}
}

func TestFaults(t *testing.T) {
	no := func(string) (int, error) { return 0, errors.New("is no word") }
	for _, c := range []struct {
		body    string
		read    func(*Object)
		pointer string
		detail  string
	}{
		{`[]`, func(*Object) {}, "", "object"},
		{`null`, func(*Object) {}, "", "object"},
		{`{"a~/b":1}`, func(*Object) {}, "/a~0~1b", "known field"},
		{`{"":1}`, func(*Object) {}, "/", "known field"},
		{`{"a":{"":1}}`, func(o *Object) { o.Object("a").End() }, "/a/", "known field"},
		{`{"` + strings.Repeat("é", maxName+1) + `":1}`, func(*Object) {}, "", "81 characters: is not a known field"},
		{`{"a":1}`, func(o *Object) { o.Text("a", 3) }, "/a", "string"},
		{`{"a":""}`, func(o *Object) { o.Text("a", 3) }, "/a", "empty"},
		{`{"a":"éééé"}`, func(o *Object) { o.Text("a", 3) }, "/a", "at most 3"},
		{`{"a":"x\u0000"}`, func(o *Object) { o.Text("a", 3) }, "/a", "NUL"},
		{`{"a":"x"}`, func(o *Object) { Word(o, "a", no) }, "/a", "no word"},
		{`{"a":1}`, func(o *Object) { Word(o, "a", no) }, "/a", "string"},
		{`{"a":1}`, func(o *Object) { o.Bool("a", true) }, "/a", "true or false"},
		{`{"a":"true"}`, func(o *Object) { o.Bool("a", true) }, "/a", "true or false"},
		{`{"a":["x"]}`, func(o *Object) { Words(o, "a", 3, no) }, "/a/0", "no word"},
		{`{"a":[1]}`, func(o *Object) { Words(o, "a", 3, no) }, "/a/0", "string"},
		{`{"a":["x","x"]}`, func(o *Object) { Words(o, "a", 1, no) }, "/a", "at most 1"},
		{`{"a":"yesterday"}`, func(o *Object) { o.Time("a") }, "/a", "RFC 3339"},
		{`{"a":0}`, func(o *Object) { o.Number("a", nil, 0.001, 1) }, "/a", "0.001"},
		{`{"a":"NaN"}`, func(o *Object) { o.Number("a", nil, 0.001, 1) }, "/a", "number"},
		{`{"a":1e999}`, func(o *Object) { o.Number("a", nil, 0.001, 1) }, "/a", "number"},
		{`{"a":1.5}`, func(o *Object) { o.Integer("a", nil, 0, 9) }, "/a", "whole"},
		{`{"a":null}`, func(o *Object) { o.Count("a", 1, 1, 9) }, "/a", "whole"},
		{`{"a":{"b":1}}`, func(o *Object) { o.Object("a").End() }, "/a/b", "known field"},
		{`{"a":"x"}`, func(o *Object) { o.Object("a").End() }, "/a", "object"},
		{`{"a":[1]}`, func(o *Object) { o.Texts("a", 3, 3) }, "/a/0", "string"},
		{`{"a":["x","y"]}`, func(o *Object) { o.Texts("a", 1, 3) }, "/a", "at most 1"},
		{`{"a":[1,8]}`, func(o *Object) { o.Integers("a", 7, 1, 7) }, "/a/1", "whole"},
		{`{"a":{}}`, func(o *Object) { o.Integers("a", 7, 1, 7) }, "/a", "array"},
		{`{"a":{"k":1}}`, func(o *Object) { o.Map("a", 2, 2, 2) }, "/a/k", "string"},
		{`{"a":{"kkk":"v"}}`, func(o *Object) { o.Map("a", 2, 2, 2) }, "/a/kkk", "name"},
		{`{"a":{"":"v"}}`, func(o *Object) { o.Map("a", 2, 2, 2) }, "/a/", "name"},
		{`{"a":{"\u0000":"v"}}`, func(o *Object) { o.Map("a", 2, 2, 2) }, "/a/\x00", "NUL"},
		{`{"a":{"` + strings.Repeat("k", maxName+1) + `":"v"}}`, func(o *Object) { o.Map("a", 2, 2, 2) }, "/a", "81 characters: its name"},
		{`{"a":{"k":"v","l":"v"}}`, func(o *Object) { o.Map("a", 1, 2, 2) }, "/a", "at most 1"},
	} {
		var faults []cloudapi.Fault
		o := Parse([]byte(c.body), "", &faults)
		c.read(o)
		o.End()
		if len(faults) != 1 || faults[0].Pointer != c.pointer || !strings.Contains(faults[0].Detail, c.detail) {
			t.Errorf("%s: faults %+v, want one at %q with %q", c.body, faults, c.pointer, c.detail)
		}
	}
}

func TestUnknownFieldsAreBounded(t *testing.T) {
	var fields []string
	for i := range 1000 {
		fields = append(fields, fmt.Sprintf(`"%03d":0`, i))
	}
	var faults []cloudapi.Fault
	o := Parse([]byte(`{`+strings.Join(fields, ",")+`}`), "/gateway", &faults)
	o.Raw("000")
	o.End()
	if n := len(faults); n != maxUnknown+1 || faults[0].Pointer != "/gateway/001" || faults[n-1] != (cloudapi.Fault{Pointer: "/gateway", Detail: "has 979 more unknown fields"}) {
		t.Errorf("%d faults: %+v", n, faults)
	}
}
