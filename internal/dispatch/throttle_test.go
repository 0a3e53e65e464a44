package dispatch

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"wagate/internal/cloudapi"
	"wagate/internal/sender"
	"wagate/internal/store"
)

func TestKeyOf(t *testing.T) {
	app, none := testApp, ""
	msg := store.Outbound{
		WABAID: testWABA, TemplateName: "order", TemplateLanguage: "en_US",
		Body: []byte(`{"type":"interactive","interactive":{"type":"flow","action":{"name":"flow","parameters":{"flow_id":"123"}}}}`),
	}
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
		{cloudapi.ScopeTemplate, &app, scopeKey{"template", testWABA + ":order/en_US"}},
		{cloudapi.ScopeFlow, &app, scopeKey{"flow", testWABA + ":123"}},
	} {
		w := &waba{id: testWABA}
		w.appID.Store(c.app)
		key, pauses := keyOf(&lane{phone: testPhone, waba: w}, &msg, c.scope)
		if key != c.want || pauses != (c.want != scopeKey{}) {
			t.Errorf("%s: %v, %v; want %v", c.scope, key, pauses, c.want)
		}
	}
}

// A throttled pair holds back the messages to one recipient alone: 4^n seconds, as Meta advises.
func TestAThrottledPairWaitsAlone(t *testing.T) {
	r, ln := newPauseRig(t)
	for throttles, seconds := range []int{1, 4, 16, 64, 256, 256, 256} {
		want := time.Duration(seconds) * time.Second
		one := &run{ln: ln, msg: store.Outbound{ID: uuid.New(), User: "12025550101", Throttles: throttles}}
		out := answer(sender.Throttled, 131056, cloudapi.ScopePair)
		before := r.cfg.Owner.DBTime(time.Now())
		h := r.throttled(t.Context(), one, out, r.reaction(one, out, time.Now(), false), time.Now())
		if h == nil || h.Kind != store.HoldPair || h.Value != "12025550101" || h.Until.Before(before.Add(want)) || h.Until.After(before.Add(want+patience)) {
			t.Errorf("after %d throttles: held %+v, want for %v", throttles, h, want)
		}
	}
	one := &run{ln: ln, msg: store.Outbound{ID: uuid.New(), User: "12025550102"}}
	out := answer(sender.Throttled, 131056, cloudapi.ScopePair)
	out.Wait = time.Hour
	if h := r.throttled(t.Context(), one, out, r.reaction(one, out, time.Now(), false), time.Now()); time.Until(h.Until) < 59*time.Minute {
		t.Errorf("held until %v, want the hour that Meta asks for", h.Until)
	}
	wantFree(t, ln)
}

// answer is an answer of Meta's with an error code.
func answer(kind sender.Kind, code int, scope cloudapi.Scope) sender.Outcome {
	return sender.Outcome{Kind: kind, Scope: scope, HTTPStatus: 400, Err: &cloudapi.Error{Code: code, Title: "title"}}
}

func TestRefusalsThatPause(t *testing.T) {
	r, ln := newPauseRig(t)
	template := scopeKey{"template", testWABA + ":order/en_US"}
	for _, c := range []struct {
		name   string
		code   int
		want   scopeKey
		lifted bool // lasts until it is lifted
	}{
		{"locked account", 131031, wabaKey, true},
		{"policy violation", 368, wabaKey, true},
		{"unpaid", 131042, wabaKey, true},
		{"unregistered phone", 133010, phoneKey, true},
		{"certificate", 131045, phoneKey, true},
		{"display name", 131037, phoneKey, true},
		{"ended token", 190, wabaKey, false},
		{"missing permission", 10, wabaKey, false},
		{"phone that is not there", 33, phoneKey, false},
		{"recipient not in a test number's list", 131030, scopeKey{}, false},
		{"template that is not there", 132001, template, false},
		{"disabled template", 132016, template, true},
		{"message", 131026, scopeKey{}, false},
		{"a code nobody knows", 987654, scopeKey{}, false},
	} {
		one := &run{ln: ln, msg: store.Outbound{WABAID: testWABA, TemplateName: "order", TemplateLanguage: "en_US"}}
		out := answer(sender.Refused, c.code, "")
		r.refused(t.Context(), one, out, r.reaction(one, out, time.Now(), false), time.Now())
		if c.want == (scopeKey{}) {
			if len(r.backoffs) != 0 {
				t.Errorf("%s: paused %v", c.name, r.backoffs)
			}
			wantFree(t, ln)
			continue
		}
		b := r.backoffs[c.want]
		if b == nil || len(r.backoffs) != 1 {
			t.Fatalf("%s: paused %v, want %v", c.name, r.backoffs, c.want)
		}
		if c.want == template {
			wantFree(t, ln)
			if _, code, found := r.selection.Load().of(&one.msg, nil, time.Now()); !found || code != c.code {
				t.Errorf("%s: its messages go on", c.name)
			}
		} else {
			wantPaused(t, ln, b.until)
		}
		var code int
		var endless bool
		scan(t, r.pool, &code, `SELECT code FROM pauses`)
		scan(t, r.pool, &endless, `SELECT until IS NULL FROM pauses`)
		if code != c.code || endless != c.lifted {
			t.Errorf("%s: kept under code %d, until lifted: %v", c.name, code, endless)
		}
		r.lift(t, c.want)
		r.reread(t)
	}
	wantFree(t, ln)
}

// A pause that only an operator ends is not lost behind a short one that runs.
func TestAGraverPauseCounts(t *testing.T) {
	r, ln := newPauseRig(t)
	r.hit(t, ln, phoneKey, time.Minute)
	one := &run{ln: ln}
	out := answer(sender.Refused, 131045, cloudapi.ScopePhone)
	r.refused(t.Context(), one, out, r.reaction(one, out, time.Now(), false), time.Now())
	if until, _ := ln.waba.line.Blocked(ln.phone, time.Now()); time.Until(until) < farAhead/2 {
		t.Errorf("paused until %v, want until it is lifted", until)
	}
	for range 2 {
		r.reread(t)
		var endless bool
		scan(t, r.pool, &endless, `SELECT until IS NULL FROM pauses`)
		if until, _ := ln.waba.line.Blocked(ln.phone, time.Now()); time.Until(until) < farAhead/2 || !endless {
			t.Errorf("paused until %v after a look at the pauses, want until it is lifted", until)
		}
	}
}

func TestNoConnectionPausesTheWABA(t *testing.T) {
	r, ln := newPauseRig(t)
	for _, reason := range []string{"dns", "dial", "tls"} {
		ok := r.disconnected(t.Context(), ln, sender.Outcome{Kind: sender.Transient, Reason: reason, Wait: closeForPause}, time.Time{})
		if b := r.backoffs[wabaKey]; !ok || b == nil {
			t.Fatalf("%s: %v, paused %v", reason, ok, r.backoffs)
		} else {
			wantPaused(t, ln, b.until)
		}
		r.lift(t, wabaKey)
		r.reread(t)
		wantFree(t, ln)
	}
	for _, reason := range []string{"stale", "timeout", "http_4xx", ""} {
		if ok := r.disconnected(t.Context(), ln, sender.Outcome{Kind: sender.Transient, Reason: reason}, time.Time{}); ok {
			t.Errorf("%q pauses the WABA", reason)
		}
	}
	wantFree(t, ln)
}
