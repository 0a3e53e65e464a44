package graphproxy

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func testRewriter(t testing.TB, graph string) *rewriter {
	t.Helper()
	u, err := url.Parse(graph)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{graph: *u}
	return &rewriter{
		secrets: spellings("900|s/e+c"), graph: u, base: "http://gw:8080", version: "v23.0",
		seal: func(raw string) (string, bool) { return "SEAL(" + raw + ")", p.address(raw) != nil },
	}
}

func TestRewrite(t *testing.T) {
	rw := testRewriter(t, "https://graph.facebook.com")
	base := testRewriter(t, "http://egress:81/meta")
	media := testRewriter(t, "https://graph.facebook.com")
	baseMedia := testRewriter(t, "http://egress:81/meta")
	media.media, baseMedia.media = true, true
	for _, c := range []struct {
		rw        *rewriter
		name      string
		body, out string // out "": as it was
	}{
		{rw, "nothing of its business", ` {"a" : [1.50, -2e10,true,null ,"x\u00e9\/\"",{"b\n":"\ud83d"}], "url":"https:\/\/wa.me\/x" }` + "\n", ""},
		{rw, "a bare value", `"x"`, ""},
		{rw, "a page", `{"next":"https:\/\/graph.facebook.com\/v23.0\/1\/x?access_token=900%7Cs%2Fe%2Bc&limit=2"}`, `{"next":"http://gw:8080/v23.0/1/x?limit=2"}`},
		{rw, "a page without a version", `{"next":"https://graph.facebook.com/1/x"}`, `{"next":"http://gw:8080/v23.0/1/x"}`},
		{rw, "upper case, a port", `{"next":"HTTPS://Graph.Facebook.com:443/v19.0/1?pretty=0"}`, `{"next":"http://gw:8080/v19.0/1?pretty=0"}`},
		{rw, "the other name", `["https://graph.whatsapp.com/v23.0/1"]`, `["http://gw:8080/v23.0/1"]`},
		{rw, "somebody else's, with a token", `["https://cdn.example/x?a=1&access_token=abc&b"]`, `["https://cdn.example/x?a=1&b"]`},
		{rw, "not Meta's name", `["https://graph.facebook.com.evil.example/v23.0/1"]`, ""},
		{rw, "media host, anywhere", `{"data":[{"u":"https:\/\/lookaside.fbsbx.com\/a?mid=1&hash=x"}]}`, `{"data":[{"u":"SEAL(https://lookaside.fbsbx.com/a?mid=1&hash=x)"}]}`},
		{rw, "an address that is none", `["http://[x","https://"]`, ""},
		{rw, "a secret in a text, a key, a URL", `{"m":"Malformed access token 900|s\/e+c","900|s/e+c":1,"u":"https://x.example/900%7Cs%2Fe%2Bc"}`, `{"m":"Malformed access token [removed]","[removed]":1,"u":"https://x.example/[removed]"}`},
		{rw, "a token of another", `{"access_token":"anything","data":[{"access_token":""},"EAAnew0123456789abcdefghij"],"h":"4::EAAnew0123456789abcdefghij"}`, `{"access_token":"[removed]","data":[{"access_token":""},"[removed]"],"h":"4::EAAnew0123456789abcdefghij"}`},
		{rw, "a media's url is another's thing", `{"url":"https://files.example/1","mime_type":"x"}`, ""},
		{media, "a media's url", `{"url":"https://lookaside.fbsbx.com/1","id":"1","x":{"url":"https://files.example/2"}}`, `{"url":"SEAL(https://lookaside.fbsbx.com/1)","id":"1","x":{"url":"https://files.example/2"}}`},
		{media, "a url that is not Meta's", `{"url":"https://files.example/1","id":"1"}`, ""},
		{media, "a url in clear", `{"url":"http://lookaside.fbsbx.com/1"}`, ""},
		{media, "a url that looks like Meta's", `{"url":"https://lookaside.fbsbx.com.evil.example/1"}`, ""},
		{media, "a call of the Graph API's stays one", `{"url":"https://graph.facebook.com/v23.0/1/file"}`, `{"url":"http://gw:8080/v23.0/1/file"}`},
		{baseMedia, "a media's url beside a stand-in's API", `{"url":"http://egress:81/file?a=b"}`, `{"url":"SEAL(http://egress:81/file?a=b)"}`},
		{baseMedia, "another of its ports", `{"url":"http://egress:82/file"}`, ""},
		{base, "a base path", `["http://egress:81/meta/v23.0/1/x?a=b","https://graph.facebook.com/v23.0/2","http://egress:82/meta/v23.0/1"]`, `["http://gw:8080/v23.0/1/x?a=b","http://gw:8080/v23.0/2","http://egress:82/meta/v23.0/1"]`},
	} {
		if !json.Valid([]byte(c.body)) {
			t.Fatalf("%s: no JSON", c.name)
		}
		want := c.out
		if want == "" {
			want = c.body
		}
		if got := string(c.rw.json([]byte(c.body))); got != want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, want)
		}
	}
	h := http.Header{}
	rw.headers(h, http.Header{"Www-Authenticate": {`OAuth "x" "Malformed access token 900|s/e+c"`}, "Set-Cookie": {"a"}}, answerHeaders)
	if len(h) != 1 || h.Get("Www-Authenticate") != `OAuth "x" "Malformed access token [removed]"` {
		t.Errorf("headers %v", h)
	}
}

// Whatever an answer holds, it stays JSON of the same shape, and no secret and no link with a token is left in it.
func FuzzRewrite(f *testing.F) {
	for _, row := range rows {
		f.Add(row.answer)
	}
	f.Add(`{"a":"900|s/e+c","b":"https://graph.facebook.com/?access_token=x","c":"\u0039\u0030\u0030|s/e+c"}`)
	f.Fuzz(func(t *testing.T, body string) {
		if !json.Valid([]byte(body)) {
			return
		}
		rw := testRewriter(t, "https://graph.facebook.com")
		out := rw.json([]byte(body))
		same(t, parsed(t, body), parsed(t, string(out)))
	})
}

// parsed reads JSON with its numbers as they are written.
func parsed(t *testing.T, text string) (v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return v
}

// same says that two values have one shape, and looks at the strings of the second.
func same(t *testing.T, a, b any) {
	t.Helper()
	switch a := a.(type) {
	case map[string]any:
		if m, ok := b.(map[string]any); !ok || len(m) > len(a) { // keys that were a secret become one
			t.Fatalf("%v became %v", a, b)
		}
		for _, v := range b.(map[string]any) {
			if s, ok := v.(string); ok {
				free(t, s)
			}
		}
	case []any:
		list, ok := b.([]any)
		if !ok || len(list) != len(a) {
			t.Fatalf("%v became %v", a, b)
		}
		for i := range a {
			same(t, a[i], list[i])
		}
	case string:
		s, ok := b.(string)
		if !ok {
			t.Fatalf("%v became %v", a, b)
		}
		free(t, s)
	default:
		if a != b {
			t.Fatalf("%v became %v", a, b)
		}
	}
}

func free(t *testing.T, s string) {
	t.Helper()
	if strings.Contains(s, "900|s/e+c") && !strings.HasPrefix(s, "SEAL(") {
		t.Fatalf("the secret is in %q", s)
	}
	if u, err := url.Parse(s); err == nil && u.Host == "graph.facebook.com" && (u.Scheme == "https" || u.Scheme == "http") {
		t.Fatalf("%q leads to the Graph API", s)
	}
}
