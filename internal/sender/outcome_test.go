package sender

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"wagate/internal/cloudapi"
)

func graphBody(code int) string {
	return `{"error":{"message":"m","type":"OAuthException","code":` + strconv.Itoa(code) + `,"error_data":{"details":"d"},"fbtrace_id":"A"}}`
}

func TestClassify(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	usage := `{"7001":[{"type":"whatsapp","estimated_time_to_regain_access":4}]}`
	type want struct {
		kind   Kind
		scope  cloudapi.Scope
		action cloudapi.Action
		reason string
		wait   time.Duration
	}
	const (
		phone, waba, app, pair, token = cloudapi.ScopePhone, cloudapi.ScopeWABA, cloudapi.ScopeApp, cloudapi.ScopePair, cloudapi.ScopeToken
		message, platform             = cloudapi.ScopeMessage, cloudapi.ScopePlatform
		backoff, window               = cloudapi.ActionRetryBackoff, cloudapi.ActionRetryAfterWindow
		permanent, config             = cloudapi.ActionFailPermanent, cloudapi.ActionFailConfig
		unknown                       = cloudapi.ActionUnknownOutcome
	)
	for _, c := range []struct {
		name   string
		status int
		body   string
		header map[string]string
		want   want
	}{
		// Throttles come as 400, and sometimes as 429.
		{"app limit", 400, graphBody(4), map[string]string{"X-Business-Use-Case-Usage": usage}, want{Throttled, app, window, "retry_after_window", 4 * time.Minute}},
		{"WABA limit", 400, graphBody(80007), map[string]string{"X-Business-Use-Case-Usage": usage, "Retry-After": "30"}, want{Throttled, waba, window, "retry_after_window", 4 * time.Minute}},
		{"WABA limit, Retry-After is longer", 400, graphBody(80007), map[string]string{"X-Business-Use-Case-Usage": usage, "Retry-After": "300"}, want{Throttled, waba, window, "retry_after_window", 5 * time.Minute}},
		{"management limit", 400, graphBody(80008), nil, want{Throttled, waba, window, "retry_after_window", 0}},
		{"phone limit", 400, graphBody(130429), map[string]string{"X-Business-Use-Case-Usage": usage}, want{Throttled, phone, backoff, "retry_backoff", 0}},
		{"phone limit as 429", 429, graphBody(130429), map[string]string{"Retry-After": "2"}, want{Throttled, phone, backoff, "retry_backoff", 2 * time.Second}},
		{"spam limit", 400, graphBody(131048), nil, want{Throttled, phone, cloudapi.ActionPausePhone, "pause_phone", 0}},
		{"pair limit", 400, graphBody(131056), nil, want{Throttled, pair, cloudapi.ActionPausePair, "pause_pair", 0}},
		{"maintenance", 500, graphBody(131057), nil, want{Throttled, phone, backoff, "retry_backoff", 0}},
		{"register limit", 400, graphBody(133016), nil, want{Refused, phone, window, "retry_after_window", 0}},
		{"custom limit", 400, graphBody(613), nil, want{Throttled, app, window, "retry_after_window", 0}},
		{"application limit", 400, graphBody(341), nil, want{Throttled, app, window, "retry_after_window", 0}},
		{"flow limit", 400, graphBody(132069), nil, want{Throttled, cloudapi.ScopeFlow, window, "retry_after_window", 0}},
		{"user token limit", 400, graphBody(17), nil, want{Throttled, token, window, "retry_after_window", 0}},
		{"template still syncing", 400, graphBody(134101), nil, want{Refused, message, window, "retry_after_window", 0}},
		{"429 without body", 429, "", map[string]string{"Retry-After": "7"}, want{Throttled, phone, backoff, "http_429", 7 * time.Second}},
		{"429 with a page", 429, "<html>", nil, want{Throttled, phone, backoff, "http_429", 0}},
		{"429 with a code that is no limit", 429, graphBody(100), nil, want{Throttled, phone, backoff, "http_429", 0}},
		{"429 with an unknown code", 429, graphBody(999999), nil, want{Throttled, phone, backoff, "http_429", 0}},
		{"429 with a code of unknown outcome", 429, graphBody(2), nil, want{Throttled, phone, backoff, "http_429", 0}},
		{"429 for a locked account", 429, graphBody(131031), nil, want{Refused, waba, cloudapi.ActionPauseWABA, "pause_waba", 0}},
		// Proof that it was not taken, and Meta's own trouble.
		{"platform away", 503, graphBody(133004), map[string]string{"Retry-After": "3"}, want{Transient, platform, backoff, "retry_backoff", 3 * time.Second}},
		{"408 of a proxy", 408, "", nil, want{Transient, platform, backoff, "http_4xx", 0}},
		{"425 of a proxy", 425, "", nil, want{Transient, platform, backoff, "http_4xx", 0}},
		// Refusals, whatever the status.
		{"bad parameter", 400, graphBody(100), map[string]string{"Retry-After": "9"}, want{Refused, message, permanent, "fail_permanent", 0}},
		{"token", 401, graphBody(190), nil, want{Refused, token, config, "fail_config", 0}},
		{"code 0", 401, graphBody(0), nil, want{Refused, token, config, "fail_config", 0}},
		{"permission", 403, graphBody(210), nil, want{Refused, token, config, "fail_config", 0}},
		{"policy", 403, graphBody(368), nil, want{Refused, waba, cloudapi.ActionPauseWABA, "pause_waba", 0}},
		{"certificate, as 500", 500, graphBody(131045), nil, want{Refused, phone, cloudapi.ActionPausePhone, "pause_phone", 0}},
		{"method, as 500", 500, graphBody(3), nil, want{Refused, token, config, "fail_config", 0}},
		{"template paused", 400, graphBody(132015), nil, want{Throttled, cloudapi.ScopeTemplate, permanent, "fail_permanent", 0}},
		{"window closed", 400, graphBody(131047), nil, want{Refused, cloudapi.ScopeRecipient, permanent, "fail_permanent", 0}},
		{"media", 400, graphBody(131053), nil, want{Refused, message, cloudapi.ActionRefreshMedia, "refresh_media", 0}},
		{"refusal with status 200", 200, graphBody(131026), nil, want{Refused, cloudapi.ScopeRecipient, permanent, "fail_permanent", 0}},
		{"unknown code", 400, graphBody(999999), nil, want{Refused, message, permanent, "unknown_code", 0}},
		{"403 of a proxy", 403, "<html>", nil, want{Refused, platform, permanent, "http_4xx", 0}},
		{"404 with JSON of another shape", 404, `{"error":"no route"}`, nil, want{Refused, platform, permanent, "http_4xx", 0}},
		{"redirect", 302, "", nil, want{Refused, platform, permanent, "redirect", 0}},
		// Nothing is proved.
		{"code 1", 400, graphBody(1), nil, want{Unknown, platform, unknown, "unknown_outcome", 0}},
		{"code 1, transient", 500, `{"error":{"code":1,"is_transient":true}}`, nil, want{Unknown, platform, unknown, "unknown_outcome", 0}},
		{"code 2", 503, graphBody(2), map[string]string{"Retry-After": "9"}, want{Unknown, platform, unknown, "unknown_outcome", 0}},
		{"131000", 500, graphBody(131000), nil, want{Unknown, message, unknown, "unknown_outcome", 0}},
		{"131016", 500, graphBody(131016), nil, want{Unknown, platform, unknown, "unknown_outcome", 0}},
		{"unknown code with 500", 500, graphBody(999999), nil, want{Unknown, platform, unknown, "unknown_code", 0}},
		{"unknown code with 200", 200, graphBody(999999), nil, want{Unknown, platform, unknown, "unknown_code", 0}},
		{"502 of a proxy", 502, "<html>Bad Gateway</html>", nil, want{Unknown, platform, unknown, "http_5xx", 0}},
		{"504 without body", 504, "", nil, want{Unknown, platform, unknown, "http_5xx", 0}},
		{"200 without an id", 200, `{"messages":[]}`, nil, want{Unknown, platform, unknown, "no_id", 0}},
		{"200 without a body", 200, "", nil, want{Unknown, platform, unknown, "no_id", 0}},
		{"200 with a page", 200, "<html>sign in</html>", nil, want{Unknown, platform, unknown, "no_id", 0}},
		{"200 that has no end", 200, strings.Repeat(" ", maxAnswer+1), nil, want{Unknown, platform, unknown, "too_large", 0}},
		{"400 that has no end", 400, graphBody(100) + strings.Repeat(" ", maxAnswer), nil, want{Refused, platform, permanent, "http_4xx", 0}},
	} {
		h := http.Header{}
		for k, v := range c.header {
			h.Set(k, v)
		}
		out := classify(c.status, h, []byte(c.body), "7001", now)
		if got := (want{out.Kind, out.Scope, out.Action, out.Reason, out.Wait}); got != c.want {
			t.Errorf("%s:\n got %v\nwant %v", c.name, got, c.want)
		}
		if out.HTTPStatus != c.status || out.WAMID != "" {
			t.Errorf("%s: status %d, wamid %q", c.name, out.HTTPStatus, out.WAMID)
		}
		if isGraph := strings.Contains(c.body, `"code"`) && len(c.body) < maxAnswer; isGraph != (out.Err != nil) {
			t.Errorf("%s: Err = %v", c.name, out.Err)
		}
	}
}

// The kind of every code is the table's, whatever the status that it comes with.
func TestEveryCodeHasItsKind(t *testing.T) {
	kinds := map[cloudapi.End]Kind{
		cloudapi.EndThrottled: Throttled, cloudapi.EndTransient: Transient, cloudapi.EndRefused: Refused, cloudapi.EndUnknown: Unknown,
	}
	known := 0
	for code := range 201_000 {
		rule, ok := cloudapi.Lookup(code, 0)
		if !ok {
			continue
		}
		known++
		for _, status := range []int{400, 403, 500} {
			if out := classify(status, http.Header{}, []byte(graphBody(code)), "", time.Time{}); out.Kind != kinds[rule.End] || out.Kind == 0 {
				t.Errorf("code %d with status %d: %s, want %s", code, status, out.Kind, rule.End)
			}
		}
	}
	if known < 200 {
		t.Errorf("only %d codes are known", known)
	}
}

func TestClassifyAccepted(t *testing.T) {
	body := `{"messaging_product":"whatsapp","contacts":[{"input":"+12025550101","wa_id":"12025550101","user_id":"US.1"}],"messages":[{"id":"wamid.1","message_status":"accepted"}]}`
	out := classify(200, http.Header{}, []byte(body), "", time.Time{})
	if out != (Outcome{Kind: Accepted, WAMID: "wamid.1", WAID: "12025550101", UserID: "US.1", MessageStatus: "accepted", HTTPStatus: 200, Reason: "accepted"}) {
		t.Errorf("%+v", out)
	}
}

func TestClassifyReadsUsage(t *testing.T) {
	h := http.Header{}
	h.Set("X-App-Usage", `{"call_count":41,"total_cputime":3,"total_time":7}`)
	h.Set("X-Business-Use-Case-Usage", `{"7001":[{"type":"whatsapp","call_count":62,"estimated_time_to_regain_access":5}]}`)
	for status, body := range map[int]string{200: okAnswer, 400: graphBody(130429), 502: "<html>"} {
		out := classify(status, h, []byte(body), "7001", time.Time{})
		if out.AppUsage != 41 || out.WABAUsage != 62 || out.Wait != 0 {
			t.Errorf("status %d: %v, %v, wait %v", status, out.AppUsage, out.WABAUsage, out.Wait)
		}
	}
}

func TestKindWords(t *testing.T) {
	seen := map[string]bool{}
	for k := Accepted; k <= NotBegun; k++ {
		seen[k.String()] = true
	}
	if len(seen) != 6 || seen["invalid"] || Kind(0).String() != "invalid" {
		t.Errorf("%v", seen)
	}
}

func TestNewRefusesWrongSettings(t *testing.T) {
	good := Config{BaseURL: "https://graph.facebook.com", Version: "v23.0"}
	for name, change := range map[string]func(*Config){
		"no URL":              func(c *Config) { c.BaseURL = "" },
		"no scheme":           func(c *Config) { c.BaseURL = "graph.facebook.com" },
		"other scheme":        func(c *Config) { c.BaseURL = "ftp://graph.facebook.com" },
		"password":            func(c *Config) { c.BaseURL = "https://user:secret-word@graph.facebook.com" },
		"query":               func(c *Config) { c.BaseURL = "https://graph.facebook.com?a=1" },
		"no version":          func(c *Config) { c.Version = "" },
		"version with a path": func(c *Config) { c.Version = "v23.0/x" },
		"negative timeout":    func(c *Config) { c.Timeout = -1 },
		"negative conns":      func(c *Config) { c.MaxConns = -1 },
		"worker id":           func(c *Config) { c.WorkerID = "a\nb" },
	} {
		c := good
		change(&c)
		s, err := New(c)
		if err == nil {
			s.Close()
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "secret-word") {
			t.Errorf("%s: the error repeats the URL: %v", name, err)
		}
	}
	s, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.timeout != 30*time.Second || s.transport.MaxIdleConnsPerHost != defaultMaxConns {
		t.Errorf("presets: %v, %d", s.timeout, s.transport.MaxIdleConnsPerHost)
	}
}

func TestCheckTryRefuses(t *testing.T) {
	for reason, tries := range map[string][]Try{
		"bad_phone_number_id": {
			{Token: "t", Body: []byte("{}")}, {PhoneNumberID: "../x", Token: "t", Body: []byte("{}")},
			{PhoneNumberID: "1/2", Token: "t", Body: []byte("{}")}, {PhoneNumberID: strings.Repeat("1", 65), Token: "t", Body: []byte("{}")},
		},
		"bad_token": {
			{PhoneNumberID: "1", Body: []byte("{}")}, {PhoneNumberID: "1", Token: "a\r\nX: y", Body: []byte("{}")},
			{PhoneNumberID: "1", Token: strings.Repeat("t", maxToken+1), Body: []byte("{}")},
		},
		"bad_api":  {{PhoneNumberID: "1", API: "media", Token: "t", Body: []byte("{}")}, {PhoneNumberID: "1", API: "../2/messages", Token: "t", Body: []byte("{}")}},
		"bad_body": {{PhoneNumberID: "1", Token: "t"}, {PhoneNumberID: "1", Token: "t", Body: make([]byte, maxBody+1)}},
	} {
		for _, try := range tries {
			out, ok := checkTry(try)
			if ok || out.Kind != Refused || out.Reason != reason || out.Cause == nil {
				t.Errorf("%s: %+v, %v", reason, out, ok)
				continue
			}
			if strings.Contains(out.Cause.Error(), "X: y") {
				t.Errorf("%s: cause %v", reason, out.Cause)
			}
		}
	}
}
