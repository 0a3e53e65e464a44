package graphproxy

import (
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"wagate/internal/pgtest"
	"wagate/internal/seal"
	"wagate/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }

// The accounts of every rig: two WABAs, each with a token of its own.
const (
	waba, phone, phone2 = "100", "101", "102"
	other, otherPhone   = "200", "201"
	app                 = "900"
	token               = "EAAxTokenOfOne0123456789abcdef"
	otherToken          = "EAAyTokenOfTwo0123456789abcdef"
	appSecret           = "5ecret0f/the+app"
)

// got is a request that reached Meta.
type got struct {
	method, path, query, body string
	header                    http.Header
	length                    int64
}

// rig is a Proxy between a caller and a stand-in for Meta.
type rig struct {
	t      *testing.T
	pool   *pgxpool.Pool
	store  *store.Store
	proxy  *Proxy
	meta   *httptest.Server
	gw     *httptest.Server
	client *http.Client

	mu     sync.Mutex
	who    Caller
	answer http.HandlerFunc
	seen   []got
}

func may(rights ...Right) func(Right) bool {
	return func(r Right) bool { return slices.Contains(rights, r) || slices.Contains(rights, Admin) }
}

// newRig starts one. What the stand-in answers is set by rig.says or rig.on.
func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, pool: pgtest.New(t), who: Caller{May: may(Admin)}, client: &http.Client{Timeout: 60 * time.Second}}
	r.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	r.store = store.New(r.pool)
	r.says(http.StatusOK, `{"success":true}`)
	r.meta = httptest.NewServer(http.HandlerFunc(r.serveMeta))
	sealer, links := newSealer(t), newSealer(t)
	var err error
	r.proxy, err = New(Deps{Store: r.store, Sealer: sealer, Links: links, GraphURL: r.meta.URL, Logger: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	r.proxy.firstWait = time.Millisecond
	r.gw = httptest.NewServer(http.HandlerFunc(r.serveGateway))
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		r.gw.Close()
		r.proxy.Close()
		r.meta.Close()
	})
	ctx := t.Context()
	for _, err := range []error{
		r.store.PutApp(ctx, store.App{ID: app, Secret: sealer.Seal([]byte(appSecret), seal.AppSecret(app))}),
		r.store.PutWABA(ctx, store.WABA{ID: waba, AppID: ptr(app), Burst: 1, ManagementCallsPerHour: 1000, AccessToken: sealer.Seal([]byte(token), seal.AccessToken(waba))}, nil),
		r.store.PutWABA(ctx, store.WABA{ID: other, Burst: 1, ManagementCallsPerHour: 1000, AccessToken: sealer.Seal([]byte(otherToken), seal.AccessToken(other))}, nil),
		r.store.PutPhoneNumber(ctx, store.PhoneNumber{ID: phone, WABAID: waba, Burst: 1, WindowCheck: "off"}),
		r.store.PutPhoneNumber(ctx, store.PhoneNumber{ID: phone2, WABAID: waba, Burst: 1, WindowCheck: "off"}),
		r.store.PutPhoneNumber(ctx, store.PhoneNumber{ID: otherPhone, WABAID: other, Burst: 1, WindowCheck: "off"}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func ptr[T any](v T) *T { return &v }

func newSealer(t *testing.T) *seal.Sealer {
	t.Helper()
	s, err := seal.New(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (r *rig) serveGateway(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	who := r.who
	r.mu.Unlock()
	if err := r.proxy.Serve(w, req, who); err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			e = Failed(err)
		}
		e.Write(w, "trace-1")
	}
}

func (r *rig) serveMeta(w http.ResponseWriter, req *http.Request) {
	g := got{method: req.Method, path: req.URL.Path, query: req.URL.RawQuery, header: req.Header.Clone(), length: req.ContentLength}
	r.mu.Lock()
	answer := r.answer
	r.seen = append(r.seen, g)
	at := len(r.seen) - 1
	r.mu.Unlock()
	if req.ContentLength >= 0 && req.ContentLength < 1<<20 {
		b, _ := io.ReadAll(io.LimitReader(req.Body, 1<<20))
		r.mu.Lock()
		r.seen[at].body = string(b)
		r.mu.Unlock()
	}
	answer(w, req)
}

// on sets how Meta answers.
func (r *rig) on(h http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = h
}

func (r *rig) says(status int, body string) {
	r.on(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// as sets who calls.
func (r *rig) as(phones []string, rights ...Right) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.who = Caller{PhoneNumbers: phones, May: may(rights...), Wait: r.who.Wait}
}

// requests gives what has reached Meta since the last time.
func (r *rig) requests() []got {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.seen
	r.seen = nil
	return seen
}

// reply is what a caller got.
type reply struct {
	status int
	header http.Header
	body   string
}

// do makes a call; headers come as name, value, ….
func (r *rig) do(method, path, body string, headers ...string) reply {
	r.t.Helper()
	return r.send(method, path, strings.NewReader(body), headers...)
}

func (r *rig) send(method, path string, body io.Reader, headers ...string) reply {
	r.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = r.gw.URL + path
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	a := reply{resp.StatusCode, resp.Header, string(b)}
	r.clean(method+" "+path, a)
	return a
}

// must is do with the status it has to have.
func (r *rig) must(status int, method, path, body string, headers ...string) reply {
	r.t.Helper()
	a := r.do(method, path, body, headers...)
	if a.status != status {
		r.t.Fatalf("%s %s: %d %s, want %d", method, path, a.status, a.body, status)
	}
	return a
}

var hostInText = regexp.MustCompile(`https?:(?:\\?/){2}([^/"\\?\s]+)`)

// publicHosts are those whose links need no token, and stay.
var publicHosts = []string{"wa.me", "scontent.whatsapp.net", "pps.whatsapp.net", "business.facebook.com", "www.facebook.com", "shop.example", "app.example", "developers.facebook.com"}

// clean greps an answer for what must not be in it.
func (r *rig) clean(call string, a reply) {
	r.t.Helper()
	text := a.body
	for name, values := range a.header {
		text += "\n" + name + ": " + strings.Join(values, ",")
	}
	for _, secret := range []string{token, otherToken, appSecret, url.QueryEscape(appSecret), "EAAnew", "access_token="} {
		if strings.Contains(text, secret) {
			r.t.Errorf("%s: the answer holds %q: %s", call, secret, text)
		}
	}
	own, _ := url.Parse(r.gw.URL)
	for _, m := range hostInText.FindAllStringSubmatch(text, -1) {
		if m[1] != own.Host && !slices.Contains(publicHosts, m[1]) {
			r.t.Errorf("%s: the answer points to %s: %s", call, m[1], text)
		}
	}
}

// wantError says that an answer is an error of the gateway's with this code.
func (r *rig) wantError(what string, a reply, status, code int) {
	r.t.Helper()
	want := `"code":` + itoa(code)
	if a.status != status || !strings.Contains(a.body, want) || !strings.Contains(a.body, `"fbtrace_id":"trace-1"`) || a.header.Get("Content-Type") != "application/json" {
		r.t.Errorf("%s: %d %s, want %d with %s", what, a.status, a.body, status, want)
	}
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
