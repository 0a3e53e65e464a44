package dispatch

import (
	"context"
	"net/http"
	"testing"
	"time"

	"wagate/internal/store"
)

// closedFor makes the rig check windows, and take those of the recipients for closed; asked counts.
func (r *rig) closedFor(t *testing.T, recipients ...string) (asked *int) {
	t.Helper()
	asked = new(int)
	r.cfg.WindowsClosed = func(_ context.Context, asks []store.WindowAsk) ([]bool, error) {
		closed := make([]bool, len(asks))
		for i, a := range asks {
			*asked++
			for _, to := range recipients {
				closed[i] = closed[i] || (a.Recipient == to && a.PhoneNumberID == testPhone)
			}
		}
		return closed, nil
	}
	exec(t, r.pool, `UPDATE phone_numbers SET window_check = 'enforce'`)
	r.reread(t)
	return asked
}

func withFallback(category string) func(*store.NewMessage) {
	return func(m *store.NewMessage) {
		m.FallbackTemplate, m.FallbackLanguage, m.FallbackCategory = "hello", "en", category
		m.Body = []byte(`{"to":"` + m.Recipient + `","type":"text","text":{"body":"hello"},"gateway":{"fallback_template":{"name":"hello","language":{"code":"en"}}}}`)
	}
}

func TestAClosedWindowCostsNoCall(t *testing.T) {
	server := newAPI(t, false)
	r := newRig(t, newPool(t), "worker-a", server.URL)
	r.own(t)
	id := r.accept(t)
	asked := r.closedFor(t, "+12025550101")
	exec(t, r.pool, `UPDATE phone_numbers SET window_check = 'off'`)
	r.reread(t)
	r.run(t, id)
	if m := read(t, r.pool, id); m.Status != "accepted" || *asked != 0 {
		t.Errorf("off: %+v, asked %d times", m, *asked)
	}

	r.closedFor(t, "+12025550101")
	id = r.accept(t)
	r.run(t, id)
	var scope, details string
	scan(t, r.pool, &scope, `SELECT error_scope FROM messages WHERE id = $1`, id)
	scan(t, r.pool, &details, `SELECT error_details FROM messages WHERE id = $1`, id)
	if m := read(t, r.pool, id); m.Status != "failed" || m.ErrorCode != 131047 || m.ErrorTitle != "Re-engagement message" || m.Try != 0 || scope != "gateway" || details == "" {
		t.Errorf("%+v, scope %q, %q", m, scope, details)
	}
	wantEvents(t, r.pool, id, "failed")
	for name, change := range map[string]func(*store.NewMessage){
		"another recipient": func(m *store.NewMessage) { m.Recipient = "+12025550102" },
		"a template":        func(m *store.NewMessage) { m.Type, m.TemplateName = "template", "hello" },
		"an unknown type":   func(m *store.NewMessage) { m.Type = "pin" },
	} {
		id := r.accept(t, change)
		r.run(t, id)
		if m := read(t, r.pool, id); m.Status != "accepted" {
			t.Errorf("%s: %+v", name, m)
		}
	}
	exec(t, r.pool, `INSERT INTO service_windows (phone_number_id, wa_id, until) VALUES ($1, '12025550101', now() + interval '1 hour')`, testPhone)
	id = r.accept(t)
	r.run(t, id)
	if m := read(t, r.pool, id); m.Status != "accepted" {
		t.Errorf("open: %+v", m)
	}
	if n := len(server.seen()); n != 5 {
		t.Errorf("%d POSTs, want 5", n)
	}
}

func TestTheFallbackGoesWhereTheWindowIsClosed(t *testing.T) {
	server := newAPI(t, false)
	r := newRig(t, newPool(t), "worker-a", server.URL)
	r.own(t)
	r.closedFor(t, "+12025550101")
	id := r.accept(t, withFallback("utility"))
	r.run(t, id)
	wantGivenBack(t, r.pool, id)
	r.run(t, id)
	if m := read(t, r.pool, id); m.Status != "accepted" || m.Try != 1 {
		t.Errorf("%+v", m)
	}
	wantEvents(t, r.pool, id, "fallback", "try.accepted")

	// What the template is decides what it may: a marketing one does not go to who wants none.
	exec(t, r.pool, `INSERT INTO suppressions (waba_id, wa_id, category, reason, source) VALUES ($1, '12025550101', 'marketing', 'stop', 'keyword')`, testWABA)
	id = r.accept(t, withFallback("marketing"))
	r.run(t, id)
	r.run(t, id)
	if m := read(t, r.pool, id); m.Status != "failed" || m.ErrorCode != CodeSuppressed {
		t.Errorf("%+v", m)
	}
	var details string
	if scan(t, r.pool, &details, `SELECT error_details FROM messages WHERE id = $1`, id); details != "Suppressed by: keyword" {
		t.Errorf("%q", details)
	}
	if n := len(server.seen()); n != 1 {
		t.Errorf("%d POSTs, want 1", n)
	}
}

// Without a check Meta's answer says that the window is closed.
func TestTheFallbackGoesWhereMetaRefuses(t *testing.T) {
	server := newAPI(t, false)
	server.status, server.answer = http.StatusBadRequest, `{"error":{"message":"m","code":131047,"error_data":{"details":"d"}}}`
	r := newRig(t, newPool(t), "worker-a", server.URL)
	r.own(t)
	id, plain := r.accept(t, withFallback("utility")), r.accept(t)
	r.run(t, plain)
	if m := read(t, r.pool, plain); m.Status != "failed" || m.ErrorCode != 131047 {
		t.Errorf("without a fallback: %+v", m)
	}
	r.run(t, id)
	wantGivenBack(t, r.pool, id)
	wantQueued(t, r.pool, id)
	wantEvents(t, r.pool, id, "try.refused", "fallback")
	r.run(t, id) // refused again: that is the end
	if m := read(t, r.pool, id); m.Status != "failed" || m.Try != 2 || m.ErrorCode != 131047 {
		t.Errorf("%+v", m)
	}
	if n := len(server.seen()); n != 3 {
		t.Errorf("%d POSTs, want 3", n)
	}
}

// A message that was accepted and of which nothing is heard for minutes ends the span in which all was heard.
func TestSilenceAfterAnAcceptBreaksTheSpan(t *testing.T) {
	r := newRig(t, newPool(t), "worker-a", nowhere)
	r.hold(t, testWABA)
	exec(t, r.pool, `INSERT INTO phone_spans (phone_number_id, since, at) VALUES ($1, now() - interval '2 days', now() - interval '1 hour')`, testPhone)
	goesOn := func() (yes bool) {
		t.Helper()
		if err := r.breakSpans(t.Context()); err != nil {
			t.Fatal(err)
		}
		scan(t, r.pool, &yes, `SELECT since < now() - interval '1 day' FROM phone_spans`)
		return yes
	}
	ln := r.laneOf(testPhone)
	long := time.Now().Add(-30 * time.Minute)
	ln.unheard.add(long, store.HeardLate)
	if !goesOn() {
		t.Error("a span was broken of a phone number that is not checked")
	}
	r.closedFor(t)
	if goesOn() {
		t.Error("the span goes on")
	}
	exec(t, r.pool, `UPDATE phone_spans SET since = now() - interval '2 days', at = now()`)
	if !goesOn() {
		t.Error("it was heard since")
	}
}
