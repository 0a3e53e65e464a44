package graphproxy

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Meta's errors come back with their status, their body and the headers that tell of limits, and without its token.
func TestGraphErrorsPass(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		status int
		body   string
	}{
		{400, `{"error":{"message":"(#100) Invalid parameter","type":"OAuthException","code":100,"error_subcode":2388023,"error_data":{"details":"d"},"error_user_msg":"m","fbtrace_id":"A"}}`},
		{401, `{"error":{"message":"Malformed access token TOKEN","type":"OAuthException","code":190,"fbtrace_id":"A"}}`},
		{403, `{"error":{"message":"(#200) no","type":"OAuthException","code":200}}`},
		{404, `{"error":{"message":"Unsupported","type":"GraphMethodException","code":100,"error_subcode":33}}`},
		{400, `{"messaging_product":"whatsapp","block_users":{"added_users":[],"failed_users":[{"input":"1"}]},"error":{"message":"(#139100) x","code":139100}}`},
		{500, `{"error":{"message":"(#131000) x","code":131000}}`},
	} {
		r.on(func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h.Set("Content-Type", "application/json")
			h.Set("X-Business-Use-Case-Usage", `{"100":[{"type":"whatsapp_business_management","call_count":1}]}`)
			h.Set("X-App-Usage", `{"call_count":28}`)
			h.Set("Www-Authenticate", `OAuth "Facebook Platform" "invalid_token" "Malformed access token `+token+`"`)
			h.Set("Set-Cookie", "a=b")
			h.Set("Retry-After", "7")
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, strings.ReplaceAll(c.body, "TOKEN", token))
		})
		a := r.do("POST", "/v23.0/101/block_users", "{}")
		if a.status != c.status || a.body != strings.ReplaceAll(c.body, "TOKEN", removed) {
			t.Errorf("%d %s, want %d %s", a.status, a.body, c.status, c.body)
		}
		if a.header.Get("X-Business-Use-Case-Usage") == "" || a.header.Get("X-App-Usage") != `{"call_count":28}` || a.header.Get("Retry-After") != "7" ||
			a.header.Get("Www-Authenticate") != `OAuth "Facebook Platform" "invalid_token" "Malformed access token [removed]"` || a.header.Get("Set-Cookie") != "" {
			t.Errorf("headers %v", a.header)
		}
	}
}

// What is no answer of the Graph API's is told in its envelope all the same, and its text is not passed on.
func TestAnswersThatAreNotGraphs(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		method, kind, body string
		status, want, code int
	}{
		{"POST", "text/html", "<h1>https://evil.example</h1>", 502, 502, codeUnknown}, {"GET", "text/html", "<h1>Sorry</h1>", 503, 503, codeService},
		{"GET", "", "", 500, 500, codeService}, {"GET", "text/html", "", 404, 404, codeUnknown}, {"GET", "application/json", `{"data":[`, 200, 502, codeService},
		{"GET", "text/html", "slow down", 429, 429, codeTooMany}, {"POST", "image/png", "x", 500, 500, codeUnknown}, {"GET", "application/json", `{}`, 302, 502, codeService},
	} {
		r.on(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			w.Header().Set("Location", "https://evil.example/")
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		})
		a := r.do(c.method, "/v23.0/101/settings", "")
		r.wantError(c.method+" "+c.body, a, c.want, c.code)
		if a.header.Get("Location") != "" || c.status == http.StatusTooManyRequests && a.header.Get("Retry-After") == "" {
			t.Errorf("headers %v", a.header)
		}
	}
	// A file that is no JSON passes as it is.
	file := strings.Repeat("\x00\xff", 100_000)
	r.on(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "image/png")
		_, _ = io.WriteString(w, file)
	})
	if a := r.must(http.StatusOK, "GET", "/v23.0/101/picture", ""); a.body != file || a.header.Get("Content-Type") != "image/png" ||
		a.header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(a.header.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("%d bytes, %v", len(a.body), a.header)
	}
	// An answer without a body too.
	r.says(http.StatusOK, "")
	r.must(http.StatusOK, "POST", "/v23.0/101/settings", "")
	// A long list passes, a longer one does not.
	r.says(http.StatusOK, `{"data":["`+strings.Repeat("x", maxAnswer-100)+`"]}`)
	if a := r.must(http.StatusOK, "GET", "/v23.0/100/flows", ""); len(a.body) < maxAnswer-100 {
		t.Errorf("%d bytes", len(a.body))
	}
	r.says(http.StatusOK, `{"data":["`+strings.Repeat("x", maxAnswer)+`"]}`)
	r.requests()
	r.wantError("a list over the bound", r.do("POST", "/v23.0/100/flows", ""), http.StatusBadGateway, codeUnknown)
	if len(r.proxy.large) != 0 || len(r.proxy.slots) != 0 || len(r.proxy.streams) != 0 {
		t.Errorf("places are still taken: %d %d %d", len(r.proxy.large), len(r.proxy.slots), len(r.proxy.streams))
	}
}

// calls counts the management calls of a WABA in its hour.
func (r *rig) calls(id string) (n int) {
	r.t.Helper()
	if err := r.pool.QueryRow(r.t.Context(), `SELECT coalesce(sum(calls), 0) FROM management_calls WHERE waba_id = $1::text`, id).Scan(&n); err != nil {
		r.t.Fatal(err)
	}
	return n
}

// Reads that fail on Meta's side or on the way are made again, each for a call of the hour; writes never are.
func TestRetries(t *testing.T) {
	r := newRig(t)
	var n atomic.Int64
	failing := func(times int64, fail http.HandlerFunc) {
		n.Store(0)
		r.on(func(w http.ResponseWriter, req *http.Request) {
			if n.Add(1) <= times {
				fail(w, req)
				return
			}
			_, _ = io.WriteString(w, `{"id":"101"}`)
		})
	}
	status := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); _, _ = io.WriteString(w, body) }
	}
	reset := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	half := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"id":`)
	}
	for _, c := range []struct {
		name  string
		fail  http.HandlerFunc
		times int64
		read  int // the status a read ends with
		made  int // its tries
		write int // the status a write ends with
	}{
		{"503 twice", status(503, ""), 2, 200, 3, 503},
		{"503 always", status(503, `{"error":{"message":"(#2) x","code":2}}`), 9, 503, 3, 503},
		{"500 of a transient kind", status(500, `{"error":{"message":"x","code":131000}}`), 1, 200, 2, 500},
		{"500 of a lasting kind", status(500, `{"error":{"message":"x","code":133000}}`), 1, 500, 1, 500},
		{"500 that says it is transient", status(500, `{"error":{"message":"x","code":3,"is_transient":true}}`), 1, 200, 2, 500},
		{"reset", reset, 2, 200, 3, 502}, {"reset always", reset, 9, 502, 3, 502}, {"cut", half, 1, 200, 2, 502},
		{"400", status(400, `{"error":{"message":"x","code":100}}`), 1, 400, 1, 400}, {"429", status(429, `{"error":{"message":"x","code":130429}}`), 1, 429, 1, 429},
	} {
		before := r.calls(waba)
		failing(c.times, c.fail)
		a := r.do("GET", "/v23.0/101", "")
		if a.status != c.read || int(n.Load()) != c.made || r.calls(waba)-before != c.made {
			t.Errorf("%s, a read: %d after %d tries and %d calls, want %d after %d: %s", c.name, a.status, n.Load(), r.calls(waba)-before, c.read, c.made, a.body)
		}
		for _, method := range []string{"POST", "DELETE"} {
			failing(c.times, c.fail)
			if a := r.do(method, "/v23.0/101/settings", ""); a.status != c.write || n.Load() != 1 {
				t.Errorf("%s, a %s: %d after %d tries: %s", c.name, method, a.status, n.Load(), a.body)
			}
		}
	}
	// The hour has one call left: there is no second try.
	if _, err := r.pool.Exec(t.Context(), `UPDATE wabas SET management_calls_per_hour = $1::integer`, r.calls(waba)+1); err != nil {
		t.Fatal(err)
	}
	failing(9, status(503, ""))
	if a := r.do("GET", "/v23.0/101", ""); a.status != http.StatusServiceUnavailable || n.Load() != 1 {
		t.Errorf("%d after %d tries", a.status, n.Load())
	}
}

// Nobody listens: reads and writes are told that nothing was sent.
func TestMetaAway(t *testing.T) {
	r := newRig(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	r.proxy.graph.Host = strings.TrimPrefix(gone.URL, "http://")
	gone.Close()
	for _, method := range []string{"GET", "POST"} {
		a := r.do(method, "/v23.0/101/settings", "")
		r.wantError(method, a, http.StatusServiceUnavailable, codeService)
		if !strings.Contains(a.body, `"is_transient":true`) || a.header.Get("Retry-After") == "" {
			t.Errorf("%s: %s", method, a.body)
		}
	}
}

// An answer that does not come is not waited for, and of a write nobody can say what became of it.
func TestMetaSilent(t *testing.T) {
	r := newRig(t)
	r.proxy.callTime = 50 * time.Millisecond
	r.on(func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() })
	r.wantError("a read", r.do("GET", "/v23.0/101", ""), http.StatusGatewayTimeout, codeService)
	a := r.do("POST", "/v23.0/101/settings", "{}")
	r.wantError("a write", a, http.StatusGatewayTimeout, codeUnknown)
	if !strings.Contains(a.body, "not known") || strings.Contains(a.body, "is_transient") {
		t.Errorf("%s", a.body)
	}
}

// The bucket of the hour: every call counts, one more is refused with the time to wait, and nothing goes out.
func TestBucketEmpty(t *testing.T) {
	r := newRig(t)
	if _, err := r.pool.Exec(t.Context(), `UPDATE wabas SET management_calls_per_hour = 3`); err != nil {
		t.Fatal(err)
	}
	r.says(http.StatusOK, `{"id":"5001"}`)
	for _, c := range [][2]string{{"POST", "/v23.0/101/media"}, {"GET", "/v23.0/100/message_templates"}, {"POST", "/v23.0/102/whatsapp_business_profile"}} {
		r.must(http.StatusOK, c[0], c[1], "")
	}
	r.requests()
	for _, path := range []string{"/v23.0/101", "/v23.0/5001", "/v23.0/900/uploads"} {
		a := r.do("POST", path, "{}")
		r.wantError(path, a, http.StatusTooManyRequests, codeManagement)
		if s := a.header.Get("Retry-After"); len(s) != 4 { // an hour, about
			t.Errorf("Retry-After %q", s)
		}
	}
	if seen := r.requests(); len(seen) != 0 {
		t.Errorf("%d requests went out", len(seen))
	}
	r.must(http.StatusOK, "GET", "/v23.0/201", "") // another WABA's hour
	registry := prometheus.NewRegistry()
	registry.MustRegister(r.proxy.calls)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	refused := 0.0
	for _, m := range families[0].GetMetric() {
		if m.GetLabel()[0].GetValue() == "throttled" {
			refused += m.GetCounter().GetValue()
		}
	}
	if refused != 3 {
		t.Errorf("%v calls are counted as throttled", refused)
	}
}

// A call waits for the bucket as long as its caller does, and no longer; the end of the gateway ends the wait.
func TestWaitingForTheBucket(t *testing.T) {
	r := newRig(t)
	var asked atomic.Int64
	free := time.Now().Add(30 * time.Millisecond)
	r.proxy.take = func(_ context.Context, id string) (bool, time.Time, error) {
		asked.Add(1)
		return id == waba && !time.Now().Before(free), free, nil
	}
	r.must(http.StatusOK, "GET", "/v23.0/101", "")
	if asked.Load() < 2 {
		t.Error("the bucket was not asked again")
	}
	// It would be longer than the caller waits: no wait at all.
	asked.Store(0)
	free = time.Now().Add(time.Hour)
	a := r.do("GET", "/v23.0/101", "")
	r.wantError("an hour", a, http.StatusTooManyRequests, codeManagement)
	if asked.Load() != 1 || a.header.Get("Retry-After") != "3600" {
		t.Errorf("asked %d times, Retry-After %q", asked.Load(), a.header.Get("Retry-After"))
	}
	r.who.Wait = 2 * time.Hour
	stop := make(chan struct{})
	r.who.GiveUp = stop
	close(stop)
	r.wantError("the end", r.do("GET", "/v23.0/101", ""), http.StatusTooManyRequests, codeManagement)
}

// Calls that wait for their WABA take no place from others, and are not too many; where the wait was for nothing no other
// begins.
func TestWaitingTakesNoPlace(t *testing.T) {
	r := newRig(t)
	r.proxy.slots = make(chan struct{}, 1)
	stop, waits := make(chan struct{}), make(chan struct{}, 2*maxWaiting)
	r.who.Wait, r.who.GiveUp = time.Hour, stop
	r.proxy.take = func(_ context.Context, id string) (bool, time.Time, error) {
		if id == other {
			return true, time.Time{}, nil
		}
		waits <- struct{}{}
		return false, time.Now().Add(time.Minute), nil
	}
	done := make(chan reply, maxWaiting)
	for range maxWaiting {
		go func() { done <- r.do("GET", "/v23.0/101", "") }()
	}
	for range maxWaiting {
		<-waits
	}
	r.must(http.StatusOK, "GET", "/v23.0/201", "")
	for full := false; !full; { // until the last of them has begun to wait
		r.proxy.waiting.mu.Lock()
		full = r.proxy.waiting.calls[waba] == maxWaiting
		r.proxy.waiting.mu.Unlock()
		runtime.Gosched()
	}
	r.wantError("one more", r.do("GET", "/v23.0/101", ""), http.StatusTooManyRequests, codeManagement)
	close(stop)
	for range maxWaiting {
		r.wantError("a waiting call", <-done, http.StatusTooManyRequests, codeManagement)
	}
	if len(r.proxy.slots) != 0 || len(r.proxy.waiting.calls) != 0 {
		t.Errorf("places are still taken: %d, %v", len(r.proxy.slots), r.proxy.waiting.calls)
	}

	// What the bucket has taken of a caller's wait is not there for a place.
	r.who.GiveUp = nil
	r.proxy.slots <- struct{}{}
	var late atomic.Bool
	r.proxy.Now = func() time.Time {
		if late.Load() {
			return time.Now().Add(time.Hour)
		}
		return time.Now()
	}
	r.proxy.take = func(context.Context, string) (bool, time.Time, error) {
		late.Store(true) // an hour has passed
		return true, time.Time{}, nil
	}
	r.wantError("no place", r.do("GET", "/v23.0/101", ""), http.StatusServiceUnavailable, codeService)
	<-r.proxy.slots
}

// After a throttle of Meta's the WABA's calls rest as long as it says, on this gateway: each would prolong it.
func TestMetasThrottleIsHeeded(t *testing.T) {
	r := newRig(t)
	throttle := func(code, subcode string) {
		r.on(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Business-Use-Case-Usage", `{"100":[{"type":"whatsapp","estimated_time_to_regain_access":0},{"type":"whatsapp_business_management","estimated_time_to_regain_access":9}]}`)
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error":{"message":"x","code":`+code+`,"error_subcode":`+subcode+`}}`)
		})
	}
	for _, c := range []struct {
		code, subcode string
		rests         bool
	}{
		{"100", "0", false}, {"130429", "0", false}, {"133016", "0", false}, {"4", "2390008", false}, {"4", "0", true}, {"80007", "0", true}, {"80008", "0", true},
	} {
		throttle(c.code, c.subcode)
		if a := r.do("GET", "/v23.0/101", ""); a.status != http.StatusBadRequest || !strings.Contains(a.body, `"code":`+c.code) {
			t.Errorf("%s: %d %s", c.code, a.status, a.body)
		}
		r.says(http.StatusOK, `{}`)
		r.requests()
		a := r.do("GET", "/v23.0/100/flows", "")
		if c.rests {
			r.wantError("after "+c.code, a, http.StatusTooManyRequests, codeManagement)
			if s := a.header.Get("Retry-After"); s != "540" || len(r.requests()) != 0 {
				t.Errorf("after %s: Retry-After %q", c.code, s)
			}
		} else if a.status != http.StatusOK {
			t.Errorf("after %s: %d %s", c.code, a.status, a.body)
		}
		r.must(http.StatusOK, "GET", "/v23.0/201", "")
		r.proxy.held.until = nil
	}
}

// With the database away a call is told so at once, and nothing goes out.
func TestDatabaseAway(t *testing.T) {
	r := newRig(t)
	r.pool.Close()
	for _, c := range [][2]string{{"GET", "/v23.0/101"}, {"POST", "/v23.0/101/media"}, {"POST", "/v23.0/900/subscriptions"}} {
		a := r.do(c[0], c[1], "")
		r.wantError(c[1], a, http.StatusServiceUnavailable, codeService)
		if a.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	if seen := r.requests(); len(seen) != 0 {
		t.Errorf("%d requests went out", len(seen))
	}
}
