package graphproxy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"hash"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"wagate/internal/store"
)

// noise is n bytes of a pattern, with their hash.
type noise struct {
	left int64
	sum  hash.Hash
	at   byte
}

func newNoise(n int64) *noise { return &noise{left: n, sum: sha256.New()} }

func (n *noise) Read(p []byte) (int, error) {
	if n.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), n.left)]
	for i := range p {
		n.at = n.at*5 + 3
		p[i] = n.at
	}
	n.left -= int64(len(p))
	_, _ = n.sum.Write(p)
	return len(p), nil
}

func (n *noise) hash() string { return hex.EncodeToString(n.sum.Sum(nil)) }

// link gets a media and gives the gateway's link to its file.
func (r *rig) link(url string) string {
	r.t.Helper()
	r.says(http.StatusOK, `{"messaging_product":"whatsapp","url":"`+url+`","mime_type":"image/png","sha256":"a","id":"5001"}`)
	a := r.must(http.StatusOK, "GET", "/v23.0/5001", "")
	var media struct{ URL string }
	if err := json.Unmarshal([]byte(a.body), &media); err != nil || !strings.HasPrefix(media.URL, r.gw.URL+"/v23.0/"+downloads+"/") {
		r.t.Fatalf("%s: %v", a.body, err)
	}
	r.requests()
	return media.URL
}

func (r *rig) knowMedia() {
	r.t.Helper()
	if err := r.store.SeeGraphIDs(r.t.Context(), []store.GraphID{{ID: "5001", WABAID: waba, PhoneNumberID: ptr(phone), Kind: "media"}}); err != nil {
		r.t.Fatal(err)
	}
}

// A media is got by its link at the gateway, with the token that its caller never sees.
func TestDownload(t *testing.T) {
	r := newRig(t)
	r.knowMedia()
	link := r.link(r.meta.URL + "/attachments/?mid=1&hash=x")
	file := strings.Repeat("\x89PNG", 50_000)
	r.on(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "image/png")
		w.Header().Set("Content-Disposition", `attachment; filename="a.png"`)
		w.Header().Set("Set-Cookie", "a=b")
		http.ServeContent(w, req, "", time.Unix(1, 0), strings.NewReader(file))
	})
	a := r.must(http.StatusOK, "GET", link, "")
	h := a.header
	if a.body != file || h.Get("Content-Type") != "image/png" || h.Get("Content-Length") != "200000" || h.Get("Content-Disposition") != `attachment; filename="a.png"` ||
		h.Get("Set-Cookie") != "" || h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("%d bytes, %v", len(a.body), h)
	}
	a = r.must(http.StatusPartialContent, "GET", link, "", "Range", "bytes=4-7")
	if a.body != "\x89PNG" || a.header.Get("Content-Range") != "bytes 4-7/200000" {
		t.Errorf("%q, %v", a.body, a.header)
	}
	seen := r.requests()
	if len(seen) != 2 || seen[0].path != "/attachments/" || seen[0].query != "mid=1&hash=x" || seen[0].header.Get("Authorization") != "Bearer "+token {
		t.Errorf("%+v", seen)
	}
	r.wantError("a range that is none", r.do("GET", link, "", "Range", "bytes=900000-"), http.StatusRequestedRangeNotSatisfiable, codeParameter)
	r.wantError("a POST", r.do("POST", link, ""), http.StatusMethodNotAllowed, codeParameter)
	if n := r.calls(waba); n != 1 {
		t.Errorf("%d calls of the hour: the file itself is none", n)
	}
}

// A link opens for those who may use the phone number, and says itself where it leads: nobody can make another.
func TestDownloadFence(t *testing.T) {
	r := newRig(t)
	r.knowMedia()
	link := r.link(r.meta.URL + "/file")
	r.says(http.StatusOK, "file")
	for _, c := range []struct {
		phones []string
		right  Right
		status int
	}{
		{nil, Send, 200}, {nil, Read, 200}, {nil, Manage, 403}, {[]string{phone}, Send, 200}, {[]string{phone2}, Send, 400}, {[]string{otherPhone}, Admin, 400},
	} {
		r.as(c.phones, c.right)
		if a := r.do("GET", link, ""); a.status != c.status {
			t.Errorf("%v with %s: %d %s", c.phones, c.right, a.status, a.body)
		}
	}
	r.as(nil, Admin)
	r.requests()
	at := strings.LastIndex(link, "/") + 1
	elsewhere := newSealer(t).Seal([]byte(`{"w":"100","u":"http://127.0.0.1:1/"}`), linkPlace)
	notALink := r.proxy.Links.Seal([]byte(`{"w":"100","u":"`+r.meta.URL+`"}`), []byte("another place"))
	for name, last := range map[string]string{
		"nothing": "x", "changed": link[at:len(link)-2] + "xx", "cut": link[at : len(link)-8], "sealed elsewhere": b64(elsewhere), "sealed for another place": b64(notALink),
		"an address in clear": "http:~~127.0.0.1", "a scheme": b64(r.proxy.Links.Seal([]byte(`{"w":"100","u":"file:///etc/passwd"}`), linkPlace)),
	} {
		r.wantError(name, r.do("GET", link[:at]+last, ""), http.StatusBadRequest, codeParameter)
	}
	r.wantError("no link", r.do("GET", link[:at], ""), http.StatusBadRequest, codeParameter)
	if seen := r.requests(); len(seen) != 0 {
		t.Errorf("%+v", seen)
	}
	// A link of a media whose phone number is not known is the account's.
	sealed, ok := r.proxy.linkTo(r.gw.URL, "v23.0", &target{waba: waba}, r.meta.URL+"/file")
	if !ok {
		t.Fatal("no link")
	}
	for phones, status := range map[string]int{phone: 200, otherPhone: 400} {
		r.as([]string{phones}, Send)
		if a := r.do("GET", sealed, ""); a.status != status {
			t.Errorf("%s: %d", phones, a.status)
		}
	}
	// No token goes out in clear, to an address with a name and password, or to a host that is not Meta's.
	for graph, addresses := range map[string]map[string]bool{
		"https://graph.facebook.com": {
			"https://lookaside.fbsbx.com/x": true, "https://LOOKASIDE.fbsbx.com:443/x": true, "http://lookaside.fbsbx.com/x": false, "https://lookaside.fbsbx.com:444/x": false,
			"https://u:p@lookaside.fbsbx.com/": false, "ftp://lookaside.fbsbx.com/": false, "https:///x": false, "x": false, "https://a.example/x": false, "https://fbsbx.com/x": false,
			"https://evilfbsbx.com/x": false, "https://a.example/?x=.fbsbx.com": false, "https://a.example\\.fbsbx.com/": false, "https://graph.facebook.com/v23.0/1?x": false, "https://graph.whatsapp.com/1": false,
		},
		"http://egress:81/meta": {
			"http://egress:81/x?a=b": true, "http://EGRESS:81/": true, "https://egress:81/x": false, "http://egress/x": false, "http://egress:82/x": false, "http://egress:81/meta/v23.0/1?a&Method=DELETE": false,
			"https://lookaside.fbsbx.com/x": true, "http://lookaside.fbsbx.com/x": false, "http://a.example/x": false, "https://graph.facebook.com/v23.0/1": false,
		},
	} {
		u, err := url.Parse(graph)
		if err != nil {
			t.Fatal(err)
		}
		r.proxy.graph = *u
		for address, good := range addresses {
			if _, ok := r.proxy.linkTo("", "v23.0", &target{waba: waba}, address); ok != good {
				t.Errorf("%s, where the Graph API is %s: %v", address, graph, ok)
			}
		}
	}
}

// Whatever an answer calls an address, the token does not go to one that a caller has chosen: not by a field that was given
// the name url, not by a node that has such a field itself, and not by a link that was sealed before.
func TestTokenGoesToMetaAlone(t *testing.T) {
	r := newRig(t)
	var strayed atomic.Int64
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strayed.Add(1) }))
	defer evil.Close()
	if err := r.store.SeeGraphIDs(t.Context(), []store.GraphID{{ID: "8001", WABAID: waba, Kind: "flow"}}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/8001?fields=endpoint_uri.as(url)", "/8001?fields=endpoint_uri.as+(url)", "/8001?fields=[\"endpoint_uri.as\\u0028url)\"]", "/8001", "/77777"} {
		if r.as(nil, Admin); path == "/77777" {
			r.as([]string{phone}, Send)
		}
		for _, host := range []string{evil.URL, r.meta.URL} {
			if host == r.meta.URL && !strings.Contains(path, "fields") {
				continue // which is where media are
			}
			r.on(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, `{"url":"`+host+`/data","id":"`+strings.Trim(strings.SplitN(path, "?", 2)[0], "/")+`","sha256":"a"}`)
			})
			resp, err := r.client.Get(r.gw.URL + "/v23.0" + path) //nolint:noctx // the client has a time
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK || strings.Contains(string(b), downloads) {
				t.Errorf("%s: %d %s, %v", path, resp.StatusCode, b, err)
			}
		}
	}
	sealed := b64(r.proxy.Links.Seal([]byte(`{"w":"100","u":"`+evil.URL+`"}`), linkPlace))
	r.wantError("a link from before", r.do("GET", "/v23.0/"+downloads+"/"+sealed, ""), http.StatusBadRequest, codeParameter)
	if strayed.Load() != 0 {
		t.Errorf("%d requests went astray", strayed.Load())
	}
}

// What stands in the way of a file is told in Graph's envelope; its token goes where Meta's answer said and nowhere else.
func TestDownloadThatFails(t *testing.T) {
	r := newRig(t)
	r.knowMedia()
	var strayed atomic.Int64
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strayed.Add(1) }))
	defer evil.Close()
	link := r.link(r.meta.URL + "/file")
	for _, c := range []struct{ meta, status, code, tries int }{
		{404, 404, codeParameter, 1}, {403, 403, codeAccess, 1}, {401, 401, codeAccess, 1}, {302, 502, codeService, 1}, {429, 429, codeTooMany, 1}, {500, 502, codeService, 3},
	} {
		r.on(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", evil.URL)
			w.WriteHeader(c.meta)
			_, _ = io.WriteString(w, "<a href=https://evil.example/>"+token)
		})
		r.wantError(itoa(c.meta), r.do("GET", link, ""), c.status, c.code)
		if n := len(r.requests()); n != c.tries {
			t.Errorf("%d: %d tries", c.meta, n)
		}
	}
	if strayed.Load() != 0 {
		t.Error("a redirect was followed")
	}
	// What breaks off is no whole file for the caller either.
	for _, length := range []string{"100000", ""} {
		r.on(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "image/png")
			if length != "" {
				w.Header().Set("Content-Length", length)
			}
			_, _ = w.Write(make([]byte, 70_000))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, link, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err == nil {
			t.Error("a part was taken for the whole")
		}
	}
}

// Bodies go through as they come: with their length or in chunks, and at most as long as a document may be.
func TestUploads(t *testing.T) {
	r := newRig(t)
	type arrived struct {
		length int64
		coding []string
		bytes  int64
		sum    string
		err    error
	}
	came := make(chan arrived, 1)
	r.on(func(w http.ResponseWriter, req *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, req.Body)
		came <- arrived{req.ContentLength, req.TransferEncoding, n, hex.EncodeToString(sum.Sum(nil)), err}
		_, _ = io.WriteString(w, `{"id":"5001"}`)
	})
	const size = 5 << 20
	for _, chunked := range []bool{false, true} {
		for _, c := range [][]string{{"/v23.0/101/media", "Content-Type", form}, {"/v23.0/upload:abc", "file_offset", "0", "Authorization", "OAuth KEY"}} {
			if strings.HasPrefix(c[0], "/v23.0/upload:") {
				if err := r.store.SeeGraphIDs(t.Context(), []store.GraphID{{ID: "upload:abc", WABAID: other, Kind: "upload"}}); err != nil {
					t.Fatal(err)
				}
			}
			body := newNoise(size)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.gw.URL+c[0], body)
			if err != nil {
				t.Fatal(err)
			}
			if !chunked {
				req.ContentLength = size
			}
			for i := 1; i < len(c); i += 2 {
				req.Header.Set(c[i], c[i+1])
			}
			r.requests()
			resp, err := r.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			a, want := <-came, int64(size)
			if chunked {
				want = -1
			}
			if resp.StatusCode != http.StatusOK || a.err != nil || a.bytes != size || a.sum != body.hash() || a.length != want || (len(a.coding) > 0) != chunked {
				t.Errorf("%s, chunked %v: %d, %+v", c[0], chunked, resp.StatusCode, a)
			}
			g := r.requests()[0]
			if c[1] == "file_offset" && (g.header.Get("file_offset") != "0" || g.header.Get("Authorization") != "OAuth "+otherToken) || c[1] == "Content-Type" && g.header.Get("Content-Type") != form {
				t.Errorf("%s: headers %v", c[0], g.header)
			}
		}
	}
	// Too large: said before a byte goes out where the length is known, else when it shows.
	for _, c := range []struct {
		path    string
		size    int64
		chunked bool
	}{{"/v23.0/101/media", maxUpload + 1, false}, {"/v23.0/101/settings", maxWrite + 1, false}, {"/v23.0/101/settings", maxWrite + 1, true}} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.gw.URL+c.path, newNoise(c.size))
		if err != nil {
			t.Fatal(err)
		}
		if !c.chunked {
			req.ContentLength = c.size
			req.Header.Set("Expect", "100-continue") // so that the answer is read, however early it comes
		}
		r.requests()
		resp, err := r.client.Do(req)
		if c.chunked {
			if a := <-came; a.err == nil {
				t.Errorf("%s: Meta got a whole body", c.path)
			}
			if err == nil {
				_ = resp.Body.Close()
			}
			if err == nil && resp.StatusCode != http.StatusRequestEntityTooLarge {
				t.Errorf("%s: %d", c.path, resp.StatusCode)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge || len(r.requests()) != 0 {
			t.Errorf("%s with %d bytes: %d", c.path, c.size, resp.StatusCode)
		}
	}
}
