package callback

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"wagate/internal/reach"
)

// listening is a server on the loopback interface that says whether anybody reached it.
func listening(t *testing.T) (port string, reached *atomic.Int64) {
	t.Helper()
	reached = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port(), reached
}

// names has a client look names up in a table; each look-up of a name takes the next of its answers.
func names(c *Client, table map[string][]string) {
	asked := map[string]int{}
	c.lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
		answers := table[host]
		if len(answers) == 0 {
			return nil, errors.New("no such host")
		}
		n := min(asked[host], len(answers)-1)
		asked[host]++
		var addrs []netip.Addr
		for _, s := range strings.Fields(answers[n]) {
			addrs = append(addrs, netip.MustParseAddr(s))
		}
		return addrs, nil
	}
}

func TestNamesThatResolveToForbiddenAddresses(t *testing.T) {
	port, reached := listening(t)
	c := NewClient(reach.New([]string{"app.internal", "10.9.0.0/16"}, false))
	t.Cleanup(c.Close)
	names(c, map[string][]string{
		"app.internal":          {"127.0.0.1"},
		"loopback.example.com":  {"127.0.0.1"},
		"six.example.com":       {"::1"},
		"mapped.example.com":    {"::ffff:127.0.0.1"},
		"metadata.example.com":  {"169.254.169.254"},
		"metadata6.example.com": {"fd00:ec2::254"},
		"nat64.example.com":     {"64:ff9b::7f00:1"},
		"zero.example.com":      {"0.0.0.0"},
		"private.example.com":   {"192.168.7.7"},
		"several.example.com":   {"127.0.0.1 ::1 169.254.169.254"},
	})
	for _, host := range []string{
		"app.internal", "loopback.example.com", "six.example.com", "mapped.example.com", "metadata.example.com", "metadata6.example.com", "nat64.example.com",
		"zero.example.com", "private.example.com", "several.example.com",
	} {
		for _, scheme := range []string{"https", "http"} {
			a := c.post(t.Context(), scheme+"://"+host+":"+port+"/", http.Header{}, []byte(`{}`))
			if a.status != 0 || !strings.Contains(a.err, "not allowed") {
				t.Errorf("%s://%s: %+v", scheme, host, a)
			}
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d requests got through", n)
	}
}

// A name that was good when it was looked at is looked at again when it is dialled, and what it gave is what is dialled.
func TestRebinding(t *testing.T) {
	port, reached := listening(t)
	c := NewClient(reach.New([]string{"10.9.0.0/16"}, false))
	t.Cleanup(c.Close)
	names(c, map[string][]string{"rebind.example.com": {"10.9.0.1", "127.0.0.1"}})
	if addrs, err := c.lookup(t.Context(), "rebind.example.com"); err != nil || c.allowed("rebind.example.com", addrs[0], false) != nil {
		t.Fatalf("the first answer is %v, %v: it has to be one that is allowed", addrs, err)
	}
	if a := c.post(t.Context(), "https://rebind.example.com:"+port+"/", http.Header{}, nil); !strings.Contains(a.err, "not allowed") {
		t.Errorf("the second answer: %+v", a)
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d requests got through", n)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	port, reached := listening(t)
	from := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.1:"+port+"/", http.StatusTemporaryRedirect)
	}))
	t.Cleanup(from.Close)
	c := NewClient(reach.New(nil, true))
	t.Cleanup(c.Close)
	if a := c.post(t.Context(), from.URL, http.Header{}, []byte(`{}`)); a.status != http.StatusTemporaryRedirect || a.err == "" {
		t.Errorf("a redirect: %+v", a)
	}
	if n := reached.Load(); n != 0 {
		t.Error("the redirect was followed")
	}
}

func TestAnswers(t *testing.T) {
	var code int
	var header http.Header
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for name, v := range header {
			w.Header()[name] = v
		}
		w.WriteHeader(code)
		_, _ = w.Write([]byte(strings.Repeat("x", 3*maxAnswer)))
	}))
	t.Cleanup(s.Close)
	c := NewClient(reach.New(nil, true))
	t.Cleanup(c.Close)
	for _, want := range []struct {
		code  int
		after string
		ok    bool
		wait  time.Duration
	}{
		{200, "", true, 0}, {299, "", true, 0}, {304, "", false, 0}, {400, "7", false, 0}, {429, "7", false, 7 * time.Second}, {503, "86400", false, maxRetryAfter},
		{503, "soon", false, 0}, {429, "-1", false, 0}, {500, "", false, 0},
	} {
		code, header = want.code, http.Header{}
		if want.after != "" {
			header.Set("Retry-After", want.after)
		}
		a := c.post(t.Context(), s.URL, http.Header{}, []byte(`{}`))
		if (a.err == "") != want.ok || a.status != want.code || a.retryAfter != want.wait {
			t.Errorf("%d, Retry-After %q: %+v", want.code, want.after, a)
		}
	}
	s.Close()
	if a := c.post(t.Context(), s.URL+"/?token=secret", http.Header{}, nil); a.err != "connection refused" {
		t.Errorf("a closed port: %+v", a)
	}
	now := time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)
	if d := retryAfter(now.Add(90*time.Second).Format(http.TimeFormat), now); d != 90*time.Second {
		t.Errorf("a date: %v", d)
	}
}

func TestTLSNamesTheHost(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug) // of the handshakes that are to fail
	s.StartTLS()
	t.Cleanup(s.Close)
	c := NewClient(reach.New(nil, true))
	t.Cleanup(c.Close)
	if a := c.post(t.Context(), s.URL, http.Header{}, nil); !strings.Contains(a.err, "certificate") {
		t.Errorf("a certificate that nobody signed: %+v", a)
	}
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	c.roots = pool
	u, _ := url.Parse(s.URL)
	names(c, map[string][]string{"example.com": {"127.0.0.1"}, "other.example.org": {"127.0.0.1"}})
	if a := c.post(t.Context(), "https://example.com:"+u.Port(), http.Header{}, nil); a.err != "" { // httptest's certificate has that name
		t.Errorf("its own name: %+v", a)
	}
	if a := c.post(t.Context(), "https://other.example.org:"+u.Port(), http.Header{}, nil); !strings.Contains(a.err, "certificate") {
		t.Errorf("another name: %+v", a)
	}
}

func TestHandshake(t *testing.T) {
	answers := map[string]http.HandlerFunc{
		"/good": func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			if q.Get("hub.mode") == "subscribe" && q.Get("hub.verify_token") == "the token" && q.Get("tenant") == "7" {
				fmt.Fprint(w, q.Get("hub.challenge"))
			}
		},
		"/refuses":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"/anything": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") },
		"/away":     func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/good?tenant=7", http.StatusFound) },
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answers[r.URL.Path](w, r) }))
	t.Cleanup(s.Close)
	c := NewClient(reach.New(nil, true))
	t.Cleanup(c.Close)
	if err := c.Handshake(t.Context(), s.URL+"/good?tenant=7", "the token"); err != nil {
		t.Errorf("a receiver that answers: %v", err)
	}
	for _, to := range []string{s.URL + "/good?tenant=7", s.URL + "/refuses", s.URL + "/anything", s.URL + "/away", "https://169.254.169.254/"} {
		if err := c.Handshake(t.Context(), to, "another token"); err == nil {
			t.Errorf("%s passed the handshake", to)
		} else if strings.Contains(err.Error(), "another token") {
			t.Errorf("%s: the error shows the token: %v", to, err)
		}
	}
}

// What is no HTTP is not repeated: a client must not read by last_error what another server says.
func TestAnotherProtocolIsNotRepeated(t *testing.T) {
	c := NewClient(reach.New(nil, true))
	t.Cleanup(c.Close)
	for name, answer := range map[string]string{
		"a banner": "SSH-2.0-OpenSSH_s3cret\r\n", "a header": "HTTP/1.1 200 OK\r\ns3cret\r\n\r\n", "a status": "HTTP/1.1 s3cret\r\n\r\n",
		"a place":  "HTTP/1.1 302 Found\r\nLocation: http://s3cret%zz/\r\n\r\n",
		"a length": "HTTP/1.1 200 OK\r\nContent-Length: s3cret\r\n\r\n",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = conn.Write([]byte(answer))
			_ = conn.Close()
		}()
		a := c.post(t.Context(), "http://"+l.Addr().String()+"/", http.Header{}, []byte(`{}`))
		if a.err == "" || strings.Contains(a.err, "s3cret") {
			t.Errorf("%s: %q", name, a.err)
		}
		_ = l.Close()
		<-done
	}
}
