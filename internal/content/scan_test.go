package content_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"wagate/internal/content"
)

const goodText = `"to":"+12025550101","type":"text","text":{"body":"hi"}`

func TestNotJSON(t *testing.T) {
	for body, offset := range map[string]int{
		"": 0, " \n": 0, "hello": 1, `{"a":1`: 7, `{"a":1,}`: 8, `{"a" 1}`: 6, `{a:1}`: 2, `[1,]`: 4, `[1 2]`: 4, `{"a":01}`: 7, `{"a":1.}`: 6, `{"a":-}`: 6,
		`{"a":1e}`: 6, `{"a":+1}`: 6, `{"a":tru}`: 6, `{"a":nul`: 6, `{"a":"x}`: 9, `{"a":"\x"}`: 7, `{"a":"\u12g4"}`: 7, "{\"a\":\"\n\"}": 7, `{} {}`: 4, `{"a":1]`: 7,
		"\ufeff{}": 1, "{\"a\":\x00}": 6, `{`: 2, `[`: 2, `"`: 2, `{"a"`: 5, `{"a":`: 6, `{"\ud8`: 3, `{"a":"\`: 7, "{\"\x01\":1}": 3, `1e`: 1, `[-`: 2, `[1.`: 2,
	} {
		_, _, err := content.Check([]byte(body), content.Options{})
		e, ok := errors.AsType[*content.SyntaxError](err)
		if !ok || e.Offset != offset || json.Valid([]byte(body)) {
			t.Errorf("%q: %v, want it to break at %d", body, err, offset)
			continue
		}
		if offset > 0 != strings.Contains(e.Error(), strconv.Itoa(offset)) {
			t.Errorf("%q: %q", body, e)
		}
	}
}

func TestFlawsOfJSON(t *testing.T) {
	many := repeat(20, `"k#":1`)
	for _, c := range []struct {
		body   string
		faults []string
		detail string
	}{
		{`7`, []string{""}, "object"},
		{`null`, []string{""}, "object"},
		{`[{}]`, []string{""}, "object"},
		{`"{}"`, []string{""}, "object"},
		{`{` + goodText + `,"x":{"a":1,"b":{"a":1},"a":2}}`, []string{"/x/a"}, "twice"},
		{`{` + goodText + `,"x":{"a":1,"\u0061":2,"a":3}}`, []string{"/x/a", "/x/a"}, "twice"},
		{`{` + goodText + `,"x":{"a/~b":1,"a/~b":2}}`, []string{"/x/a~1~0b"}, "twice"},
		{`{` + goodText + `,"to":"+12025550102"}`, []string{"/to"}, "twice"},
		{`{` + goodText + `,"x":[0,{` + many + `,"k007":2}]}`, []string{"/x/1/k007"}, "twice"},
		{`{` + goodText + `,"x":{` + many + `}}`, nil, ""},
		{`{` + goodText + `,"x":["` + "\xff" + `"]}`, []string{"/x/0"}, "UTF-8"},
		{`{` + goodText + `,"x":{"` + "\xff" + `":1}}`, []string{"/x"}, "name"},
		{`{` + goodText + `,"x":{"` + "\xff" + `":{"a":"\ud800"}}}`, []string{"/x", "/x"}, "pair"},
		{`{` + goodText + `,"` + "\xff" + `":1}`, []string{""}, "name"},
		{`{` + goodText + `,"x":"\ud83d"}`, []string{"/x"}, "pair"},
		{`{` + goodText + `,"x":"\udfff"}`, []string{"/x"}, "pair"},
		{`{` + goodText + `,"x":"\ud7ff\ue000\uDBFF\uDFFF\ud800\udc00\uABCD\uefaF\ufeff"}`, nil, ""},
		{`{` + goodText + `,"x":{"\uabcd":1,"\uABCD":2,"ꯍ":3}}`, []string{"/x/ꯍ", "/x/ꯍ"}, "twice"},
		{`{` + goodText + `,"x":"\ude00\ud83d"}`, []string{"/x"}, "pair"},
		{`{` + goodText + `,"x":"\ud83d\u0041"}`, []string{"/x"}, "pair"},
		{`{` + goodText + `,"x":"\ud83d\ude00 \uD83D\uDE00 \u0000 \/"}`, nil, ""},
		{`{` + goodText + `,"x":1` + strings.Repeat("0", 100_000) + `e99999999}`, nil, ""},
		{`{` + goodText + `,"x":` + strings.Repeat("[", 127) + strings.Repeat("]", 127) + `}`, nil, ""},
		{`{` + goodText + `,"x":` + strings.Repeat("[", 128) + strings.Repeat("]", 128) + `}`, []string{""}, "128 levels"},
		{strings.Repeat(`{"a":`, 500_000), []string{""}, "128 levels"},
		{`{` + goodText + `,"x":[` + strings.Repeat("1,", 1<<16-8) + `1]}`, nil, ""},
		{`{` + goodText + `,"x":[` + strings.Repeat("1,", 1<<16) + `1]}`, []string{""}, "65536 values"},
		// Of a pointer that would be long the beginning is named.
		{`{` + goodText + `,"x":{"` + strings.Repeat("k", 2000) + `":{"a":"\ud800"}}}`, []string{"/x"}, "pair"},
	} {
		_, faults, err := content.Check([]byte(c.body), content.Options{})
		if err != nil || !slices.Equal(pointers(faults), c.faults) {
			t.Errorf("%.100q: %v, %v, want %q", c.body, faults, err, c.faults)
			continue
		}
		if len(faults) > 0 && !strings.Contains(faults[0].Detail, c.detail) {
			t.Errorf("%.100q: %q does not say %q", c.body, faults[0].Detail, c.detail)
		}
	}
}

func TestFaultsAreBounded(t *testing.T) {
	_, faults, err := content.Check([]byte(part(message("contacts"), "$", `[`+repeat(150, `1`)+`]`)), content.Options{})
	if err != nil || len(faults) != 101 || faults[0].Pointer != "/contacts/0" || faults[100].Pointer != "" || !strings.Contains(faults[100].Detail, "50 more") {
		t.Errorf("%d faults, the last %v, %v", len(faults), faults[len(faults)-1], err)
	}
}

// What is kept has no white space between tokens, is in memory of its own, and one checker serves another body.
func TestBodyIsKept(t *testing.T) {
	for range 3 {
		body := []byte(" { " + strings.ReplaceAll(goodText, ":", " :\t") + ",\r\n \"x\" : [ \" a \\\" b \" , { } ] } ")
		m, faults, err := content.Check(body, content.Options{})
		clear(body)
		if want := `{` + goodText + `,"x":[" a \" b ",{}]}`; err != nil || len(faults) > 0 || string(m.Body) != want {
			t.Errorf("%q, %v, %v, want %q", m.Body, faults, err, want)
		}
		plain := []byte(`{` + goodText + `}`)
		m, _, _ = content.Check(plain, content.Options{})
		clear(plain)
		if string(m.Body) != `{`+goodText+`}` || m.To != "+12025550101" {
			t.Errorf("%q to %s", m.Body, m.To)
		}
	}
}
