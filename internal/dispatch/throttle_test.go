package dispatch

import (
	"testing"
	"time"

	"wagate/internal/cloudapi"
	"wagate/internal/sender"
	"wagate/internal/store"
)

func TestJitter(t *testing.T) {
	const base, limit = time.Second, time.Minute
	for level := range 70 {
		top := limit
		if level < 6 {
			top = base << level
		}
		var longest time.Duration
		for range 300 {
			d := jitter(base, limit, level)
			if d < base/20 || d >= base/20+top {
				t.Fatalf("level %d: %v, want from %v to less than %v", level, d, base/20, base/20+top)
			}
			longest = max(longest, d)
		}
		if longest < top/2 {
			t.Errorf("level %d: of 300 none over %v", level, longest)
		}
	}
}

func TestBackoffOf(t *testing.T) {
	for action, want := range map[cloudapi.Action][2]time.Duration{
		cloudapi.ActionRetryBackoff:     {time.Second, time.Minute},
		cloudapi.ActionPausePair:        {time.Second, time.Minute},
		cloudapi.ActionRetryAfterWindow: {time.Minute, time.Hour},
		cloudapi.ActionPausePhone:       {time.Hour, 24 * time.Hour},
		cloudapi.ActionPauseWABA:        {time.Minute, time.Hour},
		cloudapi.ActionFailConfig:       {time.Minute, time.Hour},
	} {
		if base, limit := backoffOf(action); base != want[0] || limit != want[1] {
			t.Errorf("%s: %v up to %v, want %v up to %v", action, base, limit, want[0], want[1])
		}
	}
}

func TestKeyOf(t *testing.T) {
	app, none := testApp, ""
	for _, c := range []struct {
		scope cloudapi.Scope
		app   *string
		want  scopeKey
	}{
		{cloudapi.ScopePhone, &app, phoneKey},
		{cloudapi.ScopeWABA, &app, wabaKey},
		{cloudapi.ScopeToken, &app, wabaKey},
		{cloudapi.ScopePlatform, &app, wabaKey},
		{cloudapi.ScopeApp, &app, appKey},
		{cloudapi.ScopeApp, &none, wabaKey},
		{cloudapi.ScopeApp, nil, wabaKey},
		{cloudapi.ScopePair, &app, scopeKey{}},
		{cloudapi.ScopeRecipient, &app, scopeKey{}},
		{cloudapi.ScopeMessage, &app, scopeKey{}},
		{cloudapi.ScopeTemplate, &app, scopeKey{}},
		{cloudapi.ScopeFlow, &app, scopeKey{}},
	} {
		w := &waba{id: testWABA}
		w.appID.Store(c.app)
		key, pauses := keyOf(&lane{phone: testPhone, waba: w}, c.scope)
		if key != c.want || pauses != (c.want != scopeKey{}) {
			t.Errorf("%s: %v, %v; want %v", c.scope, key, pauses, c.want)
		}
	}
}

func TestBehindPause(t *testing.T) {
	for left, want := range map[time.Duration]time.Duration{
		-time.Second: 0, 0: 0, time.Second: time.Second, closeForPause: closeForPause, closeForPause + 1: 0, time.Hour: 0,
	} {
		if got := behindPause(left); got != want {
			t.Errorf("%v left: %v, want %v", left, got, want)
		}
	}
}

// A throttled pair holds back its own message alone: 4^n seconds, as Meta advises.
func TestAThrottledPairWaitsAlone(t *testing.T) {
	r, ln := newPauseRig(t)
	pair := sender.Outcome{Scope: cloudapi.ScopePair, Action: cloudapi.ActionPausePair}
	for throttles, seconds := range []int{1, 4, 16, 64, 256, 1024, 1024} {
		want := time.Duration(seconds) * time.Second
		if got := r.throttled(t.Context(), ln, store.Outbound{Throttles: throttles}, pair, time.Now()); got != want {
			t.Errorf("after %d throttles: %v, want %v", throttles, got, want)
		}
	}
	pair.Wait = time.Minute
	if got := r.throttled(t.Context(), ln, store.Outbound{}, pair, time.Now()); got != time.Minute {
		t.Errorf("%v, want the wait that Meta asks for", got)
	}
	wantFree(t, ln)
}

func TestRefusalsThatPause(t *testing.T) {
	r, ln := newPauseRig(t)
	for _, c := range []struct {
		name   string
		code   int
		scope  cloudapi.Scope
		action cloudapi.Action
		want   scopeKey
	}{
		{"locked account", 131031, cloudapi.ScopeWABA, cloudapi.ActionPauseWABA, wabaKey},
		{"unregistered phone", 133010, cloudapi.ScopePhone, cloudapi.ActionPausePhone, phoneKey},
		{"ended token", 190, cloudapi.ScopeToken, cloudapi.ActionFailConfig, wabaKey},
		{"phone's setting", 131009, cloudapi.ScopePhone, cloudapi.ActionFailConfig, phoneKey},
		{"recipient not in a test number's list", 131030, cloudapi.ScopePhone, cloudapi.ActionFailConfig, scopeKey{}},
		{"template", 132001, cloudapi.ScopeTemplate, cloudapi.ActionFailConfig, scopeKey{}},
		{"message", 131026, cloudapi.ScopeRecipient, cloudapi.ActionFailPermanent, scopeKey{}},
	} {
		r.refused(t.Context(), ln, sender.Outcome{
			Kind: sender.Refused, Scope: c.scope, Action: c.action, Wait: time.Minute, Err: &cloudapi.Error{Code: c.code, Title: c.name},
		}, time.Now())
		if c.want == (scopeKey{}) {
			if len(r.backoffs) != 0 {
				t.Errorf("%s: paused %v", c.name, r.backoffs)
			}
			wantFree(t, ln)
			continue
		}
		if b := r.backoffs[c.want]; b == nil || len(r.backoffs) != 1 {
			t.Fatalf("%s: paused %v, want %v", c.name, r.backoffs, c.want)
		} else {
			wantPaused(t, ln, b.until)
		}
		var code int
		scan(t, r.pool, &code, `SELECT code FROM pauses`)
		if code != c.code {
			t.Errorf("%s: kept under code %d", c.name, code)
		}
		r.lift(t, c.want)
		r.reread(t)
	}
	r.refused(t.Context(), ln, sender.Outcome{Kind: sender.Refused, Scope: cloudapi.ScopePlatform, Action: cloudapi.ActionPauseWABA}, time.Now())
	wantFree(t, ln) // without an error of Meta's nothing is known of the account
}

func TestNoConnectionPausesTheWABA(t *testing.T) {
	r, ln := newPauseRig(t)
	for _, reason := range []string{"dns", "dial", "tls"} {
		wait, ok := r.disconnected(t.Context(), ln, sender.Outcome{Kind: sender.Transient, Reason: reason, Wait: closeForPause}, time.Time{})
		if b := r.backoffs[wabaKey]; !ok || b == nil || wait <= 0 || wait > closeForPause {
			t.Fatalf("%s: %v, %v, paused %v", reason, wait, ok, r.backoffs)
		} else {
			wantPaused(t, ln, b.until)
		}
		r.lift(t, wabaKey)
		r.reread(t)
		wantFree(t, ln)
	}
	for _, reason := range []string{"stale", "timeout", "http_4xx", ""} {
		if _, ok := r.disconnected(t.Context(), ln, sender.Outcome{Kind: sender.Transient, Reason: reason}, time.Time{}); ok {
			t.Errorf("%q pauses the WABA", reason)
		}
	}
	wantFree(t, ln)
}
