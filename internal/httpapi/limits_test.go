package httpapi_test

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"wagate/internal/queue"
	"wagate/internal/seal"
	"wagate/internal/store"
)

const laneStateDoc = `{
	"phone":{"configured":80,"in_force":38,"tokens":0.4,"slowed":{"ceiling":76,"at":"2026-11-24T09:00:00Z","code":0},"inbound_per_second":1.2,"usage_factor":0.7},
	"waba":{"configured":50,"in_force":50,"tokens":1},"waba_hour":{"configured":180000,"in_force":180000,"tokens":12},
	"app":{"share":47.5,"until":"2026-11-24T09:00:03Z","usage_factor":0.8},
	"owner":"w1","lane":"open","waiting_in_memory":3,"last_error":{"code":130429,"title":"Rate limit hit","at":"2026-11-24T09:00:00Z"}}`

func (g *gateway) exec(sql string, args ...any) {
	g.t.Helper()
	if _, err := g.pool.Exec(g.t.Context(), sql, args...); err != nil {
		g.t.Fatal(err)
	}
}

// publish says what the owner of a lane would: counts by priority and a rate, 0 for none.
func (g *gateway) publish(phone string, waiting [4]int64, perSecond float64, state string) {
	g.t.Helper()
	if err := g.store.PublishLanes(g.t.Context(), "w1", []store.LaneNews{{PhoneNumberID: phone, PerSecond: perSecond, State: []byte(state)}}); err != nil {
		g.t.Fatal(err)
	}
	if err := g.store.SetBacklog(g.t.Context(), phone, waiting); err != nil {
		g.t.Fatal(err)
	}
}

// hold holds a message that need not be there.
func (g *gateway) hold(id uuid.UUID, kind, value string, until *time.Time) {
	g.t.Helper()
	g.exec(`INSERT INTO holds (message_id, phone_number_id, waba_id, kind, value, until, priority, place) VALUES ($1, $2, '100', $3, $4, $5, 3, now())`, id, phone, kind, value, until)
}

// at walks into an answer.
func at(v any, path ...any) any {
	for _, step := range path {
		switch s := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[s]
		case int:
			l, _ := v.([]any)
			if s >= len(l) {
				return nil
			}
			v = l[s]
		}
	}
	return v
}

func TestAPhoneNumberShowsItsLimits(t *testing.T) {
	g := start(t)
	g.must(http.StatusOK, "PUT", "/v1/apps/900", `{"calls_per_hour":570000}`)
	g.must(http.StatusOK, "PUT", "/v1/wabas/100", `{"app_id":"900","messages_per_second":50,"messages_per_hour":180000}`)
	p := g.must(http.StatusOK, "GET", "/v1/phone-numbers/"+phone, "")
	if at(p.json, "limits", "configured") != 80.0 || at(p.json, "limits", "in_force") != 80.0 || p.json["per_second"] != 50.0 || p.json["owner"] != nil ||
		at(p.json, "limits", "waba_hour", "in_force") != 180000.0 || p.json["tokens"] != nil || at(p.json, "limits", "source") != "operator" || at(p.json, "limits", "changed_at") == nil || at(p.json, "limits", "meta_per_second") != 80.0 ||
		at(p.json, "drain_seconds") != 2/50.0 || p.json["published_at"] != nil {
		t.Errorf("before anybody published: %s", p.body)
	}

	g.publish(phone, [4]int64{0, 1, 5, 100}, 40, laneStateDoc)
	for i, kind := range []string{"pair", "pair", "window"} {
		g.hold(uuid.New(), kind, fmt.Sprint(i), nil)
	}
	g.exec(`INSERT INTO rates VALUES ('phone', $1, 76, 130429, now())`, phone)
	g.exec(`UPDATE phone_numbers SET throughput_level = 'STANDARD', quality_rating = 'GREEN'`)
	g.must(http.StatusOK, "PUT", "/v1/wabas/101", `{"app_id":"900"}`)
	for _, pause := range []string{`"scope":"app","value":"900"`, `"scope":"waba","value":"100"`, `"scope":"waba","value":"101"`, `"scope":"tag","value":"x"`, `"scope":"all"`} {
		g.must(http.StatusCreated, "POST", "/v1/pauses", `{`+pause+`,"reason":"told to"}`)
	}
	if err := g.store.Throttled(t.Context(), store.Pause{Scope: "phone", Value: phone, Reason: "spam", Source: "throttle", Code: 131048, Level: 1, Until: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	p = g.must(http.StatusOK, "GET", "/v1/phone-numbers/"+phone, "")
	for path, want := range map[string]any{
		"limits configured": 80.0, "limits in_force": 38.0, "limits tokens": 0.4, "limits slowed ceiling": 76.0, "limits slowed code": 130429.0,
		"limits inbound_per_second": 1.2, "limits usage_factor": 0.7, "limits throughput_level": "STANDARD", "limits quality_rating": "GREEN",
		"limits waba configured": 50.0, "limits waba in_force": 50.0, "limits waba_hour configured": 180000.0, "limits waba_hour tokens": 12.0,
		"limits app app_id": "900", "limits app share": 47.5, "limits app usage_factor": 0.8, "limits pair burst": 45.0,
		"tokens": 0.4, "per_second": 40.0, "owner": "w1", "lane": "open", "last_error code": 130429.0, "last_error title": "Rate limit hit",
		"held pair": 2.0, "held window": 1.0, "backlog normal": 5.0, "drain_seconds": 5 / 40.0, "messages_per_second": 80.0,
	} {
		var steps []any
		for _, s := range strings.Fields(path) {
			steps = append(steps, s)
		}
		if got := at(p.json, steps...); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	var scopes []string
	pauses, _ := p.json["pauses"].([]any)
	for _, x := range pauses {
		scopes = append(scopes, fmt.Sprint(at(x, "scope"), " ", at(x, "source")))
	}
	slices.Sort(scopes)
	if want := []string{"all operator", "app operator", "phone throttle", "waba operator"}; !slices.Equal(scopes, want) {
		t.Errorf("pauses %q, want %q", scopes, want)
	}

	// What is too much to count is as the owner keeps count; the rest is counted.
	g.backlog = map[int]int64{1: 3, 4: queue.BacklogBound}
	g.publish(phone, [4]int64{9, 9, 9, 250_000}, 40, laneStateDoc)
	p = g.must(http.StatusOK, "GET", "/v1/phone-numbers/"+phone, "")
	if at(p.json, "backlog", "urgent") != 3.0 || at(p.json, "backlog", "high") != 0.0 || at(p.json, "backlog", "normal") != 3.0 || at(p.json, "backlog", "low") != 250_000.0 {
		t.Errorf("backlog: %s", p.body)
	}

	// What nobody has said for a while is not shown as in force, and that a throttle came is not forgotten.
	g.exec(`UPDATE lane_stats SET published_at = clock_timestamp() - interval '1 minute'`)
	p = g.must(http.StatusOK, "GET", "/v1/phone-numbers/"+phone, "")
	if at(p.json, "limits", "in_force") != nil || p.json["tokens"] != nil || p.json["owner"] != nil || p.json["per_second"] != 50.0 || p.json["published_at"] == nil {
		t.Errorf("old news: %s", p.body)
	}
	if at(p.json, "limits", "waba", "in_force") != 50.0 {
		t.Errorf("a budget that nothing has lowered: %s", p.body)
	}
}

func TestWABAsAppsAndPortfoliosShowTheirLimits(t *testing.T) {
	g := start(t)
	g.must(http.StatusOK, "PUT", "/v1/apps/900", `{"calls_per_hour":36000}`)
	g.must(http.StatusOK, "PUT", "/v1/portfolios/p1", `{"unique_recipients_per_day":2}`)
	g.must(http.StatusOK, "PUT", "/v1/wabas/100", `{"app_id":"900","portfolio_id":"p1","messages_per_second":50}`)
	g.must(http.StatusOK, "PUT", "/v1/phone-numbers/201", `{"waba_id":"100"}`)
	// The app's share of 47.5/s is for both: the one takes 20 and leaves the other 27.5.
	g.publish(phone, [4]int64{1, 0, 0, 199}, 20, laneStateDoc)
	g.publish("201", [4]int64{0, 0, 60, 0}, 50, `{"waba":{"configured":50,"in_force":50,"tokens":0.5},"last_error":{"code":131026,"title":"Undeliverable","at":"2026-11-24T10:00:00Z"}}`)
	g.hold(uuid.New(), "template", "order", nil)
	g.exec(`INSERT INTO management_calls VALUES ('100', now() - interval '10 minutes', 3), ('100', now() - interval '59 minutes', 4), ('100', now() - interval '61 minutes', 100)`)
	w := g.must(http.StatusOK, "GET", "/v1/wabas/100", "")
	if at(w.json, "limits", "messages_per_second", "tokens") != 0.5 || at(w.json, "limits", "management_calls_per_hour", "used") != 7.0 ||
		at(w.json, "limits", "management_calls_per_hour", "limit") != 5000.0 || at(w.json, "backlog", "low") != 199.0 || at(w.json, "backlog", "normal") != 60.0 ||
		w.json["per_second"] != 47.5 || w.json["drain_seconds"] != 10.0 || at(w.json, "last_error", "code") != 131026.0 || at(w.json, "held", "template") != 1.0 || w.str("owner") != "w1" {
		t.Errorf("WABA: %s", w.body)
	}

	if p := g.must(http.StatusOK, "GET", "/v1/phone-numbers/201", ""); p.json["per_second"] != 27.5 {
		t.Errorf("the other number's share: %s", p.body)
	}
	g.publish(phone, [4]int64{1, 0, 0, 199}, 50, laneStateDoc)
	for _, id := range []string{phone, "201"} {
		if p := g.must(http.StatusOK, "GET", "/v1/phone-numbers/"+id, ""); p.json["per_second"] != 23.75 {
			t.Errorf("half of the app's share each: %s", p.body)
		}
	}

	g.exec(`INSERT INTO shares VALUES ('app', '900', '100', 6, 80, now() + interval '3 s'), ('app', '900', '101', 4, 4, now() - interval '1 s'), ('app-ending', '900', '100', 9, 0, now() + interval '3 s')`)
	a := g.must(http.StatusOK, "GET", "/v1/apps/900", "")
	if a.json["calls_per_hour"] != 36000.0 || at(a.json, "shares", 0, "waba_id") != "100" || at(a.json, "shares", 0, "per_second") != 6.0 || at(a.json, "shares", 1) != nil {
		t.Errorf("app: %s", a.body)
	}

	p := g.must(http.StatusOK, "GET", "/v1/portfolios/p1", "")
	if p.json["used"] != 0.0 || p.json["next_free_at"] != nil || p.json["limit_source"] != "operator" {
		t.Errorf("portfolio, unused: %s", p.body)
	}
	oldest := time.Now().Add(-23 * time.Hour).UTC().Truncate(time.Second)
	g.exec(`INSERT INTO portfolio_recipients VALUES ('p1', '1', $1::timestamptz), ('p1', '2', now()), ('p2', '1', now() - interval '24 hours')`, oldest)
	g.exec(`INSERT INTO portfolio_usage (portfolio_id, used) VALUES ('p1', 2)`)
	g.exec(`UPDATE portfolios SET tier = 'TIER_250', limit_source = 'webhook'`)
	p = g.must(http.StatusOK, "GET", "/v1/portfolios/p1", "")
	if p.json["used"] != 2.0 || p.str("tier") != "TIER_250" || p.str("limit_source") != "webhook" || p.str("next_free_at") != oldest.Add(24*time.Hour).Format(time.RFC3339) {
		t.Errorf("portfolio: %s", p.body)
	}
	if p = g.must(http.StatusOK, "PUT", "/v1/portfolios/p1", `{"unique_recipients_per_day":3}`); p.json["next_free_at"] != nil || p.str("limit_source") != "operator" {
		t.Errorf("portfolio with room: %s", p.body)
	}
}

func TestLimitsInOneDocument(t *testing.T) {
	g := start(t)
	l := g.must(http.StatusOK, "GET", "/v1/limits", "")
	if l.json["desired_workers"] != 1.0 || at(l.json, "totals", "waiting") != 0.0 || at(l.json, "phone_numbers", 0, "drain_seconds") != 0.0 {
		t.Errorf("nothing waits: %s", l.body)
	}
	g.must(http.StatusOK, "PUT", "/v1/wabas/101", `{}`)
	g.must(http.StatusOK, "PUT", "/v1/phone-numbers/201", `{"waba_id":"101","messages_per_second":null}`)
	g.must(http.StatusOK, "PUT", "/v1/phone-numbers/202", `{"waba_id":"101","messages_per_second":1000}`)
	g.publish(phone, [4]int64{1, 2, 3, 4}, 38, laneStateDoc)
	g.publish("201", [4]int64{0, 0, 1000, 0}, 0, `{}`)
	g.hold(uuid.New(), "pair", "1", nil)
	g.must(http.StatusCreated, "POST", "/v1/pauses", `{"scope":"phone","value":"201","until":"`+time.Now().Add(30*time.Second).UTC().Format(time.RFC3339)+`"}`)
	l = g.must(http.StatusOK, "GET", "/v1/limits", "")
	if at(l.json, "phone_numbers", 0, "in_force") != 38.0 || at(l.json, "phone_numbers", 0, "held") != 1.0 || at(l.json, "phone_numbers", 0, "backlog", "low") != 4.0 ||
		at(l.json, "phone_numbers", 0, "slowed", "ceiling") != 76.0 || at(l.json, "phone_numbers", 1, "paused", "scope") != "phone" ||
		at(l.json, "phone_numbers", 1, "configured") != nil || at(l.json, "phone_numbers", 1, "drain_seconds") != nil ||
		at(l.json, "totals", "phone_numbers") != 3.0 || at(l.json, "totals", "waiting") != 1010.0 || at(l.json, "totals", "per_second") != nil ||
		at(l.json, "wabas", 1, "waiting") != 1000.0 {
		t.Errorf("limits: %s", l.body)
	}
	// 38/s and one without a limit need two workers, and there are two WABAs with work.
	if l.json["desired_workers"] != 2.0 {
		t.Errorf("desired workers %v, want 2", l.json["desired_workers"])
	}
	// A lane that rests for long needs none.
	g.must(http.StatusOK, "POST", "/v1/pauses", `{"scope":"phone","value":"201"}`)
	if l = g.must(http.StatusOK, "GET", "/v1/limits", ""); l.json["desired_workers"] != 1.0 {
		t.Errorf("desired workers %v, want 1: the other lane is paused", l.json["desired_workers"])
	}
	bound := []string{"Authorization", "Bearer " + g.key(`{"name":"bound","scopes":["manage"],"phone_numbers":["`+phone+`"]}`)}
	g.must(http.StatusForbidden, "GET", "/v1/limits", "", bound...)

	metrics := g.must(http.StatusOK, "GET", "/metrics", "").body
	for _, line := range []string{"wagate_desired_workers 1\n", `wagate_backlog{phone_number_id="` + phone + `",priority="low"} 4` + "\n", `wagate_backlog{phone_number_id="202",priority="urgent"} 0` + "\n"} {
		if !strings.Contains(metrics, line) {
			t.Errorf("metrics lack %q", line)
		}
	}
}

func TestWhatHoldsAMessage(t *testing.T) {
	g := start(t)
	g.must(http.StatusOK, "PUT", "/v1/apps/900", `{}`)
	g.must(http.StatusOK, "PUT", "/v1/wabas/100", `{"app_id":"900"}`)
	id := g.must(http.StatusAccepted, "POST", "/v1/messages", text("")).str("id")
	held := func() map[string]any {
		t.Helper()
		h, _ := g.must(http.StatusOK, "GET", "/v1/messages/"+id, "").json["held_by"].(map[string]any)
		return h
	}
	if h := held(); h != nil {
		t.Errorf("a new message is held by %v", h)
	}
	g.must(http.StatusOK, "PUT", "/v1/phone-numbers/201", `{"waba_id":"100"}`)
	g.publish("201", [4]int64{0, 0, 0, 0}, 80, `{}`)
	for _, c := range []struct {
		name        string
		waiting     [4]int64
		state       string
		kind, scope string
		value       string
		seconds     float64
	}{
		{"others go first", [4]int64{10, 0, 391, 5000}, `{"phone":{"in_force":80}}`, "backlog", "phone", phone, 401. / 80},
		{"soon", [4]int64{0, 0, 20, 5000}, `{"phone":{"in_force":80}}`, "", "", "", 0},
		{"the WABA's rate", [4]int64{0, 0, 100, 0}, `{"phone":{"in_force":80},"waba":{"in_force":20}}`, "backlog", "waba", "100", 5},
		{"the WABA's hour", [4]int64{0, 0, 1, 0}, `{"phone":{"in_force":80},"waba":{"in_force":20},"waba_hour":{"in_force":200}}`, "rate", "waba_hour", "100", 18},
		{"the app's share", [4]int64{0, 0, 9, 0}, `{"phone":{"in_force":80},"app":{"share":2}}`, "backlog", "app", "900", 4.5},
		{"no limit", [4]int64{0, 0, 900, 0}, `{}`, "", "", "", 0},
	} {
		g.publish(phone, c.waiting, 80, c.state)
		h := held()
		if c.kind == "" {
			if h != nil {
				t.Errorf("%s: held by %v", c.name, h)
			}
			continue
		}
		until, err := time.Parse(time.RFC3339Nano, fmt.Sprint(h["until"]))
		if err != nil || h["kind"] != c.kind || h["scope"] != c.scope || h["value"] != c.value || math.Abs(time.Until(until).Seconds()-c.seconds) > 30 {
			t.Errorf("%s: held by %v, %v; want %s of %s %s for %.1f s", c.name, h, err, c.kind, c.scope, c.value, c.seconds)
		}
	}
	// Two lanes with a backlog share the WABA's rate.
	g.publish("201", [4]int64{0, 0, 0, 7}, 80, `{}`)
	g.publish(phone, [4]int64{0, 0, 1000, 0}, 80, `{"phone":{"in_force":80},"waba":{"in_force":100}}`)
	if h := held(); h["scope"] != "waba" {
		t.Errorf("held by %v, want the WABA's rate", h)
	}
	g.publish(phone, [4]int64{0, 0, 1000, 0}, 80, `{"phone":{"in_force":80},"app":{"share":0}}`)
	if h := held(); h["scope"] != "app" || h["until"] != nil {
		t.Errorf("held by %v, want the app, as it has no share", h)
	}
	g.publish(phone, [4]int64{0, 0, 1000, 0}, 1, `{"phone":{"in_force":1}}`)
	g.exec(`UPDATE lane_stats SET published_at = published_at - interval '1 minute'`)
	if h := held(); h != nil {
		t.Errorf("by old news, held by %v", h)
	}

	// Its own hold comes before its lane, a pause before both.
	g.publish(phone, [4]int64{0, 0, 1000, 0}, 1, `{"phone":{"in_force":1}}`)
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	g.hold(uuid.MustParse(id), "pair", "16505551234", &until)
	if h := held(); h["kind"] != "pair" || h["value"] != "16505551234" || h["until"] != until.Format(time.RFC3339) || h["since"] == nil {
		t.Errorf("held by %v, want its pair", h)
	}
	g.must(http.StatusCreated, "POST", "/v1/pauses", `{"scope":"all"}`)
	if h := held(); h["kind"] != "pause" {
		t.Errorf("held by %v, want the pause", h)
	}
	g.must(http.StatusOK, "POST", "/v1/messages/"+id+"/cancel", "")
	if h := held(); h != nil {
		t.Errorf("a cancelled message is held by %v", h)
	}
}

func TestPatchChangesOneLimit(t *testing.T) {
	g := start(t)
	g.must(http.StatusOK, "PUT", "/v1/apps/900", `{"app_secret":"hunter2","calls_per_hour":10}`)
	g.must(http.StatusOK, "PUT", "/v1/portfolios/p1", `{"unique_recipients_per_day":250}`)
	g.must(http.StatusOK, "PUT", "/v1/wabas/100", `{"name":"Shop","app_id":"900","portfolio_id":"p1","access_token":"hunter3","messages_per_hour":200,"burst":7}`)
	g.must(http.StatusOK, "PUT", "/v1/phone-numbers/"+phone, `{"waba_id":"100","display_phone_number":"+1 650","messages_per_second":80,"burst":8,"max_backlog":5,"pair":{"seconds":3,"burst":9}}`)
	g.exec(`UPDATE phone_numbers SET limit_source = 'webhook', limit_changed_at = '2026-01-01Z'`)

	p := g.must(http.StatusOK, "PATCH", "/v1/phone-numbers/"+phone, `{"pair":{"seconds":0.06},"max_backlog":null}`)
	if p.json["max_backlog"] != nil || !strings.Contains(p.body, `"pair":{"seconds":0.06,"burst":9}`) || p.json["messages_per_second"] != 80.0 || p.json["burst"] != 8.0 ||
		p.str("display_phone_number") != "+1 650" || at(p.json, "limits", "source") != "webhook" || at(p.json, "limits", "changed_at") != "2026-01-01T00:00:00Z" {
		t.Errorf("phone number: %s", p.body)
	}
	if p = g.must(http.StatusOK, "PATCH", "/v1/phone-numbers/"+phone, `{"messages_per_second":40}`); p.json["messages_per_second"] != 40.0 || at(p.json, "limits", "source") != "operator" || at(p.json, "limits", "changed_at") == "2026-01-01T00:00:00Z" {
		t.Errorf("phone number: %s", p.body)
	}
	if p = g.must(http.StatusOK, "PATCH", "/v1/phone-numbers/"+phone, `{"pair":null,"messages_per_second":null}`); p.json["pair"] != nil || p.json["messages_per_second"] != nil {
		t.Errorf("null is none: %s", p.body)
	}
	w := g.must(http.StatusOK, "PATCH", "/v1/wabas/100", `{"messages_per_second":50}`)
	if w.json["messages_per_second"] != 50.0 || w.json["messages_per_hour"] != 200.0 || w.str("name") != "Shop" || w.str("app_id") != "900" || w.str("portfolio_id") != "p1" || w.json["burst"] != 7.0 || w.json["access_token_set"] != true {
		t.Errorf("WABA: %s", w.body)
	}
	if a := g.must(http.StatusOK, "PATCH", "/v1/apps/900", `{"calls_per_hour":20}`); a.json["calls_per_hour"] != 20.0 || a.json["app_secret_set"] != true {
		t.Errorf("app: %s", a.body)
	}
	app, err := g.store.App(t.Context(), "900")
	if err != nil {
		t.Fatal(err)
	}
	if secret, err := g.sealer.Open(app.Secret, seal.AppSecret("900")); string(secret) != "hunter2" || err != nil {
		t.Errorf("app secret %q, %v", secret, err)
	}
	if p := g.must(http.StatusOK, "PATCH", "/v1/portfolios/p1", `{"unique_recipients_per_day":null}`); p.json["unique_recipients_per_day"] != nil {
		t.Errorf("portfolio: %s", p.body)
	}
	g.must(http.StatusOK, "PATCH", "/v1/portfolios/p1", `{}`)

	for body, pointers := range map[string][]string{
		`{"messages_per_second":0}`: {"/messages_per_second"}, `{"messages_per_second":6}`: {"/burst"}, `{"speed":1}`: {"/speed"}, `{"burst":null}`: {"/burst"}, `[]`: {""}, `5`: {""}, `null`: {""},
	} {
		if a := g.must(http.StatusUnprocessableEntity, "PATCH", "/v1/wabas/100", body); !slices.Equal(a.pointers(), pointers) {
			t.Errorf("%s: %q, want %q", body, a.pointers(), pointers)
		}
	}
	g.must(http.StatusBadRequest, "PATCH", "/v1/wabas/100", `{"burst":`)
	for _, path := range []string{"/v1/apps/404", "/v1/portfolios/404", "/v1/wabas/404", "/v1/phone-numbers/404", "/v1/wabas/%20"} {
		g.must(http.StatusNotFound, "PATCH", path, `{}`)
	}
	g.must(http.StatusForbidden, "PATCH", "/v1/wabas/100", `{}`, "Authorization", "Bearer "+g.key(`{"name":"app","scopes":["send"]}`))
}

func TestDeletingTakesAlongWhatIsKeptAboutIt(t *testing.T) {
	g := start(t)
	g.must(http.StatusOK, "PUT", "/v1/apps/900", `{}`)
	g.must(http.StatusOK, "PUT", "/v1/portfolios/p1", `{}`)
	g.must(http.StatusOK, "PUT", "/v1/wabas/101", `{"app_id":"900","portfolio_id":"p1"}`)
	g.must(http.StatusOK, "PUT", "/v1/phone-numbers/201", `{"waba_id":"101"}`)
	for _, p := range [][2]string{{"app", "900"}, {"waba", "101"}, {"phone", "201"}, {"template", "101:order"}, {"flow", "101:1"}, {"template", "order"}, {"waba", "100"}} {
		g.must(http.StatusCreated, "POST", "/v1/pauses", fmt.Sprintf(`{"scope":%q,"value":%q}`, p[0], p[1]))
	}
	g.publish("201", [4]int64{}, 80, `{}`)
	g.exec(`INSERT INTO rates VALUES ('phone', '201', 80, 130429, now()), ('waba', '101', 80, 80007, now())`)
	g.exec(`INSERT INTO shares VALUES ('app', '900', '101', 6, 80, now())`)
	g.exec(`INSERT INTO pair_states VALUES ('201', '1650', now())`)
	g.exec(`INSERT INTO management_calls VALUES ('101', now(), 3)`)
	g.exec(`INSERT INTO portfolio_usage VALUES ('p1', 1)`)
	g.exec(`INSERT INTO portfolio_recipients VALUES ('p1', '1', now())`)
	g.exec(`INSERT INTO holds (message_id, phone_number_id, waba_id, kind, value, priority, place) VALUES (gen_random_uuid(), '201', '101', 'pair', '1', 3, now())`)
	g.backlog = map[int]int64{}
	if a := g.must(http.StatusConflict, "DELETE", "/v1/phone-numbers/201", ""); !strings.Contains(a.body, "held") {
		t.Errorf("a held message: %s", a.body)
	}
	g.exec(`DELETE FROM holds`)
	g.must(http.StatusConflict, "DELETE", "/v1/wabas/101", "")
	for _, path := range []string{"/v1/phone-numbers/201", "/v1/wabas/101", "/v1/apps/900", "/v1/portfolios/p1"} {
		g.must(http.StatusNoContent, "DELETE", path, "")
	}
	left := g.pauses()
	if len(left) != 2 || left["template order operator"] == nil || left["waba 100 operator"] == nil {
		t.Errorf("pauses left: %v", left)
	}
	for _, table := range []string{"rates", "shares", "pair_states", "management_calls", "lane_stats", "portfolio_usage", "portfolio_recipients"} {
		var n int
		if err := g.pool.QueryRow(t.Context(), `SELECT count(*) FROM `+table).Scan(&n); err != nil || n != 0 {
			t.Errorf("%s: %d rows left, %v", table, n, err)
		}
	}
}

func TestANewTokenLiftsWhatTheOldOneBrought(t *testing.T) {
	g := start(t)
	throttle := func(code int) {
		t.Helper()
		if err := g.store.Throttled(t.Context(), store.Pause{Scope: "waba", Value: "100", Source: "throttle", Code: code, Until: time.Now().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, code := range []int{0, 3, 10, 102, 104, 190, 200, 299, 131005} {
		throttle(code)
		g.must(http.StatusOK, "PATCH", "/v1/wabas/100", `{"name":"same token"}`)
		if len(g.pauses()) != 1 {
			t.Errorf("%d: lifted without a new token", code)
		}
		g.must(http.StatusOK, "PATCH", "/v1/wabas/100", `{"access_token":"renewed"}`)
		if left := g.pauses(); len(left) != 0 {
			t.Errorf("%d: left %v", code, left)
		}
	}
	throttle(80007)
	g.must(http.StatusOK, "PATCH", "/v1/wabas/100", `{"access_token":"renewed"}`)
	if len(g.pauses()) != 1 {
		t.Error("a new token lifted a rate limit's pause")
	}
}
