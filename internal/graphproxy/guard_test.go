package graphproxy

import (
	"errors"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"wagate/internal/cloudapi"
)

// part is a form with one more part, its headers and value as given.
func part(headers string) string {
	return "--b\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\nimage/png\r\n--b\r\n" + headers + "\r\n\r\n[]\r\n--b--\r\n"
}

// bodies are what may go out and what may not.
var bodies = []struct {
	kind, body string
	refused    bool
}{
	{"application/json", `{"components":[{"method":"x","batch":[{"ids":1}]}],"a":"method","b":"\"batch\":", "name" : "access_token"}`, false},
	{"application/json", `{"method":"delete"}`, true}, {"application/json; charset=utf-8", ` { "a" : [1,{"x":"}"}] , "batch" : [] }`, true}, {"application/json", `{"\u0062\u0061tch":[]}`, true},
	{"application/json", `{"a":"\\","batch":[]}`, true}, {"application/json", `{"a":"\\\"","b":{"c":"\\"},"ids":"1"}`, true}, {"application/json", `{"access_token":"x"}`, true},
	{"application/json", `{"batch[0]":1}`, true}, {"application/json", `{} {"batch":1}`, true}, {"application/json", `{"` + strings.Repeat("x", 2000) + `":1}`, true}, {"application/json", `["batch","method"]`, false},
	{"application/json", `{"` + strings.Repeat("x", 200) + `":"` + strings.Repeat("batch:", 2000) + `"}`, false},
	{"application/x-www-form-urlencoded", "object=x&callback_url=https%3A%2F%2Fa%2F%3Fmethod%3Dx&field=method&b=batch=", false},
	{"application/x-www-form-urlencoded", "a=1&method=delete", true}, {"application/x-www-form-urlencoded", "%62atch=[]", true}, {"application/x-www-form-urlencoded", "a&+batch[]=x", true},
	{"application/x-www-form-urlencoded", "access.token=x", true}, {"application/x-www-form-urlencoded", strings.Repeat("+", 300) + "batch=x", true},
	{"", `{"batch":[]}`, true}, {"text/plain", "a=1&batch=[]", true}, {"text/plain", "hello", false}, {"application/graph", `{"a":1}`, false},
	{form, part(`Content-Disposition: form-data; name="file"; filename="a; b=c.png"` + "\r\nContent-Type: image/png"), false},
	{form, part("content-disposition:form-data;filename=x;name=file\nContent-Length: 2"), false},
	{form, part(`Content-Disposition: form-data; name="batch"`), true}, {form, part(`content-disposition: form-data; NAME=batch`), true}, {form, part(`Content-Disposition: form-data; name='batch'`), true},
	{form, part(`Content-Disposition: form-data; name="bat\ch"`), true}, {form, part(`Content-Disposition: form-data; name="x"; name="batch"`), true}, {form, part(`Content-Disposition: form-data; name*=utf-8''batch`), true},
	{form, part("Content-Disposition: form-data;\r\n name=\"batch\""), true}, {form, part("Content-Disposition: form-data; name=x;\r\n content-type: x; name=batch"), true}, {form, part(`Content-Disposition: form-data; name="x"` + "\r\n" + `Content-Disposition: form-data; name="batch"`), true},
	{form, part("X-Other: 1\r\n" + `Content-Disposition: form-data; name="x"`), true}, {form, part(`Content-Type: image/png`), true}, {form, part("Content-Disposition: form-data; name=\"x\"\rX: y"), true},
	{form, part(`Content-Disposition: form-data; name="method[]"`), true}, {form, part(`Content-Disposition: form-data; name="` + strings.Repeat("x", 5000) + `"`), true},
	{form, "--b--\r\nepilogue --b\r\nContent-Disposition: form-data; name=\"batch\"\r\n\r\n1\r\n--b--", true}, {form, "preamble\n--b\nContent-Disposition: form-data; name=batch\n\n1\n--b--", true},
	{form, "--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n" + strings.Repeat("-", 99) + "\r\nContent-Disposition: form-data; name=\"batch\"\r\n\r\n\r\n--b--\r\n", false}, // within a file
	{"multipart/form-data", "x", true}, {`multipart/form-data; boundary="a b"`, "x", true}, {"multipart/form-data; boundary=b; boundary=c", "x", true}, {"a/b; =", "x", true},
	{"application/json; charset=utf-16", "x", true}, {"application/json; charset=utf-7", "x", true},
}

// What a body asks for beside its request is refused, however it is cut on its way.
func TestBodiesThatAskForMore(t *testing.T) {
	for _, c := range bodies {
		for _, step := range []int{1, 2, 3, 7, 1 << 20} {
			r := &http.Request{Header: http.Header{"Content-Type": {c.kind}}}
			g, _, e := guardOf(r, Caller{}, &call{})
			refused := e != nil
			for rest := []byte(c.body); !refused && len(rest) > 0; {
				n := min(step, len(rest))
				refused = g.feed(slices.Clone(rest[:n])) != nil
				rest = rest[n:]
			}
			if refused != c.refused {
				t.Errorf("%s in steps of %d: refused %v\n%s", c.kind, step, refused, c.body)
			}
		}
	}
}

// Of a body that is refused Meta never has a whole request, and the caller is told why.
func TestRefusedBodiesDoNotArrive(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex
	whole := map[string]int{}
	meta := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if b, err := io.ReadAll(req.Body); err == nil {
			mu.Lock()
			whole[string(b)]++
			mu.Unlock()
		}
		_, _ = io.WriteString(w, `{}`)
	}))
	r.proxy.graph.Host = strings.TrimPrefix(meta.URL, "http://")
	want := map[string]int{}
	for _, c := range bodies {
		for _, chunked := range []bool{false, true} {
			for _, path := range []string{"/v23.0/101/media", "/v23.0/101/block_users"} {
				var from io.Reader = strings.NewReader(c.body)
				if chunked {
					from = io.MultiReader(from) // of a length that is not known
				}
				a := r.send("POST", path, from, "Content-Type", c.kind)
				if c.refused {
					r.wantError(c.body, a, http.StatusBadRequest, codeParameter)
					continue
				}
				want[c.body]++
				if a.status != http.StatusOK {
					t.Errorf("%s %s: %d %s", c.kind, c.body, a.status, a.body)
				}
			}
		}
	}
	a := r.do("POST", "/v23.0/101/block_users", "x", "Content-Encoding", "gzip")
	r.wantError("a compressed body", a, http.StatusUnsupportedMediaType, codeParameter)
	r.proxy.Close()
	meta.Close() // waits for what is under way
	if !maps.Equal(whole, want) {
		t.Errorf("whole requests:\n%v\nwant\n%v", whole, want)
	}
}

// A file that goes up in pieces is never read as a form, whatever a client calls it.
func TestUploadedFilesAreNoForms(t *testing.T) {
	r := newRig(t)
	r.as([]string{phone}, Send)
	for _, c := range [][2]string{
		{"application/x-www-form-urlencoded", "application/octet-stream"}, {"multipart/form-data; boundary=b", "application/octet-stream"}, {"application/json", "application/octet-stream"},
		{"image/png", "image/png"}, {"", ""},
	} {
		r.must(http.StatusOK, "POST", "/v23.0/upload:abc", "batch=[]&method=delete", "Content-Type", c[0])
		g := r.requests()[0]
		if g.header.Get("Content-Type") != c[1] || g.body != "batch=[]&method=delete" {
			t.Errorf("%s went out as %q %q", c[0], g.header.Get("Content-Type"), g.body)
		}
	}
}

// FuzzGuard: no form that Go's own reader takes a refused name from gets by.
func FuzzGuard(f *testing.F) {
	for _, c := range bodies {
		f.Add(c.body, 3)
	}
	f.Fuzz(func(t *testing.T, body string, step int) {
		step = max(step, 1)
		refused := false
		g := &partGuard{delimiter: []byte("--b")}
		for rest := []byte(body); len(rest) > 0 && !refused; {
			n := min(step, len(rest))
			err := g.feed(rest[:n])
			if refused = err != nil; refused {
				if _, ok := asRefused(err); !ok {
					t.Fatal(errors.Unwrap(err))
				}
			}
			rest = rest[n:]
		}
		if name := nameByGo(body); !refused && name != "" {
			t.Fatalf("%q got by: %q", name, body)
		}
	})
}

// nameByGo gives the refused name that Go reads out of a form.
func nameByGo(body string) string {
	form := multipart.NewReader(strings.NewReader(body), "b")
	for {
		p, err := form.NextRawPart()
		if err != nil {
			return ""
		}
		if name := cloudapi.FoldParameter(p.FormName()); names(nil).check(name) != nil {
			return name
		}
	}
}
