package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/app"
	"wagate/internal/config"
	"wagate/internal/simulator"
)

// api is a gateway that the simulator tells of statuses and messages.
type api struct {
	t      *testing.T
	url    string
	client *http.Client
	wrote  int64 // the second in which a user wrote last
}

const apiKey = "an-admin-key-for-tests"

func (r *rig) gateway(t *testing.T) *api {
	t.Helper()
	r.cfg.Listen, r.cfg.AdminKey = "127.0.0.1:0", config.NewSecret(apiKey)
	g, err := app.StartGateway(t.Context(), r.cfg, r.pool, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	a := &api{t: t, url: g.URL(), client: &http.Client{Timeout: 30 * time.Second}}
	t.Cleanup(func() {
		r.sim.SetWebhook("", "")
		a.client.CloseIdleConnections()
		if err := g.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	a.do(http.StatusOK, "PUT", "/v1/apps/1", `{"app_secret":"shared"}`)
	r.sim.SetWebhook(g.URL()+"/webhooks/whatsapp", "shared")
	return a
}

func (a *api) do(want int, method, path, body string) map[string]any {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	resp, err := a.client.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		a.t.Fatalf("%s %s: %d %s, %v, want %d", method, path, resp.StatusCode, raw, err, want)
	}
	var m map[string]any
	_ = json.Unmarshal(raw, &m) // 204 has none
	return m
}

// send sends a message and gives it when it has ended, or was accepted.
func (a *api) send(r *rig, message string) map[string]any {
	a.t.Helper()
	id, _ := a.do(http.StatusAccepted, "POST", "/v1/messages", message)["id"].(string)
	var m map[string]any
	r.until(a.t, "the message sent or ended", func() bool {
		m = a.do(http.StatusOK, "GET", "/v1/messages/"+id, "")
		switch m["status"] {
		case "queued", "sending":
			return false
		}
		return true
	})
	return m
}

func ended(m map[string]any) string {
	code := ""
	if e, ok := m["error"].(map[string]any); ok {
		code = fmt.Sprintf(" %.0f", e["code"])
	}
	return fmt.Sprint(m["status"], code)
}

// writes has a user write, in another second than before: Meta's times have no parts of one, and of two words in one the stop
// counts.
func (a *api) writes(r *rig, phone, from, text string) {
	a.t.Helper()
	r.until(a.t, "another second", func() bool { return time.Now().Unix() > a.wrote })
	a.wrote = time.Now().Unix()
	const applied = `SELECT count(*) FROM webhook_raw WHERE processed_at IS NOT NULL AND convert_from(body, 'UTF8') LIKE '%"type":"text"%'`
	before := r.count(a.t, applied)
	if err := r.sim.Inbound(simulator.InboundMessages{Phone: phone, From: from, Text: text, Count: 1}); err != nil {
		a.t.Fatal(err)
	}
	r.until(a.t, "the message of the user applied", func() bool {
		return r.count(a.t, applied) > before
	})
}

// A user writes STOP: marketing ends, utility goes on. START, or an operator, takes it up again.
func TestAnOptOutByKeyword(t *testing.T) {
	r := newRig(t, simulator.Config{})
	rate := 200.0
	r.phone(t, "100", "101", &rate)
	r.sim.SetPhone("101", simulator.PhoneConfig{WABAID: "100", PerSecond: -1})
	a := r.gateway(t)
	a.do(http.StatusOK, "PATCH", "/v1/wabas/100", `{"opt_out_keywords":{"en":["STOP"],"pt_BR":["PARAR"]},"opt_in_keywords":{"en":["START"]}}`)
	r.worker(t)
	const user = "+55 11 98765-4321" // Meta knows it without the 9
	template := func(to, category string) string {
		return `{"from":"101","to":"` + to + `","type":"template","template":{"name":"offer","language":{"code":"en"}},"gateway":{"category":"` + category + `"}}`
	}
	posts := func() int { l := r.sim.Ledger().Totals; return int(l.Accepted + l.Refused) }
	if got := ended(a.send(r, template(user, "marketing"))); !strings.HasPrefix(got, "accepted") && got != "sent" && got != "delivered" {
		t.Fatalf("before: %s", got)
	}
	a.writes(r, "101", "+5511987654321", "Parar!")
	before := posts()
	for _, to := range []string{user, "+551187654321", "+5511987654321"} {
		if got := ended(a.send(r, template(to, "marketing"))); got != "failed 900000002" {
			t.Errorf("to %s: %s", to, got)
		}
	}
	if n := posts() - before; n != 0 {
		t.Errorf("%d calls for what is suppressed", n)
	}
	if got := ended(a.send(r, template(user, "utility"))); strings.HasPrefix(got, "failed") {
		t.Errorf("utility: %s", got)
	}
	a.writes(r, "101", "+5511987654321", "START")
	if got := ended(a.send(r, template(user, "marketing"))); strings.HasPrefix(got, "failed") {
		t.Errorf("after START: %s", got)
	}
	a.writes(r, "101", "+5511987654321", "stop")
	if got := ended(a.send(r, template(user, "marketing"))); got != "failed 900000002" {
		t.Errorf("after stop: %s", got)
	}
	if m := a.do(http.StatusOK, "DELETE", "/v1/suppressions?waba_id=100&user=%2B551187654321", ""); m["lifted"] != 1.0 {
		t.Errorf("%v", m)
	}
	if got := ended(a.send(r, template(user, "marketing"))); strings.HasPrefix(got, "failed") {
		t.Errorf("after an operator has lifted it: %s", got)
	}
}

// What is known to be closed is refused, or its fallback goes; with a gap in what was heard everything goes.
func TestAClosedServiceWindow(t *testing.T) {
	r := newRig(t, simulator.Config{})
	rate := 200.0
	r.phone(t, "100", "101", &rate)
	r.sim.SetPhone("101", simulator.PhoneConfig{WABAID: "100", PerSecond: -1})
	a := r.gateway(t)
	a.do(http.StatusOK, "PATCH", "/v1/phone-numbers/101", `{"window_check":"enforce"}`)
	r.worker(t)
	const user = "+5511987654321"
	text := func(gateway string) string {
		return `{"from":"101","to":"` + user + `","type":"text","text":{"body":"hello"},"gateway":{` + gateway + `}}`
	}
	const fallback = `"fallback_template":{"name":"write_to_us","language":{"code":"en"},"category":"utility"}`
	if got := ended(a.send(r, text(""))); strings.HasPrefix(got, "failed") {
		t.Errorf("without evidence: %s", got)
	}
	heard := func(since string) {
		t.Helper()
		for _, sql := range []string{`UPDATE listening SET since = now() - $1::text::interval`,
			`INSERT INTO phone_spans (phone_number_id, since, at) VALUES ('101', now() - $1::text::interval, now()) ON CONFLICT (phone_number_id) DO UPDATE SET since = excluded.since`} {
			if _, err := r.pool.Exec(t.Context(), sql, since); err != nil {
				t.Fatal(err)
			}
		}
	}
	heard("23 hours")
	if got := ended(a.send(r, text(""))); strings.HasPrefix(got, "failed") {
		t.Errorf("heard for 23 hours: %s", got)
	}
	heard("25 hours")
	a.do(http.StatusUnprocessableEntity, "POST", "/v1/messages", text(""))
	before := r.sim.Ledger().Totals.Accepted
	m := a.send(r, text(fallback))
	if got := ended(m); strings.HasPrefix(got, "failed") || m["type"] != "template" || m["category"] != "utility" {
		t.Errorf("with a fallback: %v", m)
	}
	if f, ok := m["fallback"].(map[string]any); !ok || f["instead_of"] != "text" || f["used_at"] == nil || f["name"] != "write_to_us" {
		t.Errorf("%v", m["fallback"])
	}
	if all := r.sim.Accepts(before, 10); len(all) != 1 || all[0].Template != "write_to_us" {
		t.Errorf("Meta got %+v", all)
	}
	if m := a.do(http.StatusOK, "GET", "/v1/windows?phone_number_id=101&user=%2B5511987654321", ""); m["state"] != "closed" {
		t.Errorf("%v", m)
	}
	a.writes(r, "101", user, "hello?")
	if m := a.do(http.StatusOK, "GET", "/v1/windows?phone_number_id=101&user=%2B5511987654321", ""); m["state"] != "open" || m["window_expires_at"] == nil {
		t.Errorf("%v", m)
	}
	if m := a.send(r, text(fallback)); m["type"] != "text" || strings.HasPrefix(ended(m), "failed") {
		t.Errorf("open: %v", m)
	}
	// Meta knows better: by webhook it refuses the text, and the template goes.
	if _, err := r.sim.SetError(simulator.ErrorRule{Phone: "101", Code: 131047, By: simulator.ByWebhook, Times: 1}); err != nil {
		t.Fatal(err)
	}
	id, _ := a.do(http.StatusAccepted, "POST", "/v1/messages", text(fallback))["id"].(string)
	r.until(t, "the template delivered", func() bool {
		m = a.do(http.StatusOK, "GET", "/v1/messages/"+id, "")
		return m["status"] == "delivered"
	})
	if m["type"] != "template" || m["tries"] != 2.0 {
		t.Errorf("%v", m)
	}
}
