package intake_test

import (
	"slices"
	"testing"
	"time"

	"wagate/internal/intake"
	"wagate/internal/store"
)

func TestOrderingIsStored(t *testing.T) {
	in, pool := setup(t)
	for gateway, want := range map[string]string{
		`{"ordering_key":"k"}`:                                                          "",
		`{"ordering_key":"k","ordering":{"after":"accepted"}}`:                          "accepted",
		`{"ordering_key":"k","ordering":{"after":"delivered"}}`:                         "delivered 300",
		`{"ordering_key":"k","ordering":{"after":"delivered","timeout_seconds":86400}}`: "delivered 86400",
		`{"ordering_key":"k","ordering":null}`:                                          "",
		`{"ordering_key":"k","ordering":{"after":"delivered","timeout_seconds":null}}`:  "delivered 300",
	} {
		a, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: text(`,"gateway":` + gateway)})
		if err != nil {
			t.Errorf("%s: %v", gateway, err)
			continue
		}
		var got string
		if err := pool.QueryRow(t.Context(), `SELECT concat_ws(' ', ordering_after, ordering_seconds) FROM messages WHERE id = $1`, a.ID).Scan(&got); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", gateway, got, err, want)
		}
		// A new message of it keeps them.
		exec(t, pool, `UPDATE messages SET status = 'failed' WHERE id = $1`, a.ID)
		b, err := in.Resend(t.Context(), caller, a.ID, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := pool.QueryRow(t.Context(), `SELECT concat_ws(' ', ordering_after, ordering_seconds) FROM messages WHERE id = $1`, b.ID).Scan(&got); err != nil || got != want {
			t.Errorf("%s, resent: %q, %v, want %q", gateway, got, err, want)
		}
	}
}

func TestSendWindow(t *testing.T) {
	in, pool, h := clocked(t)
	rome, err := time.LoadLocation("Europe/Rome")
	if err != nil {
		t.Fatal(err)
	}
	local := h.Now().In(rome)
	span := func(from, to time.Duration) string {
		return `"send_window":{"from":"` + local.Add(from).Format("15:04") + `","to":"` + local.Add(to).Format("15:04") + `"}`
	}
	body := func(gateway string) []byte {
		return []byte(`{"from":"` + phone + `","to":"+390612345678","type":"text","text":{"body":"hello"},"gateway":{` + gateway + `}}`)
	}
	opens := local.Add(2 * time.Hour).Truncate(time.Minute)
	for gateway, want := range map[string]time.Time{
		span(2*time.Hour, 3*time.Hour): opens,
		span(-time.Hour, time.Hour):    {},
		span(-time.Hour, 3*time.Hour) + `,"send_at":"` + opens.Format(time.RFC3339) + `"`:                      opens,
		span(2*time.Hour, 3*time.Hour) + `,"send_at":"` + opens.Add(time.Minute).Format(time.RFC3339) + `"`:    opens.Add(time.Minute),
		span(2*time.Hour, 3*time.Hour) + `,"send_at":"` + local.Add(time.Hour).Format(time.RFC3339) + `"`:      opens,
		span(2*time.Hour, 3*time.Hour) + `,"expires_at":"` + opens.Add(time.Minute).Format(time.RFC3339) + `"`: opens,
	} {
		a, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: body(gateway)})
		if err != nil {
			t.Errorf("%s: %v", gateway, err)
			continue
		}
		var zones, state string
		var at time.Time
		err = pool.QueryRow(t.Context(), `SELECT m.send_window->>'zones', j.state, j.scheduled_at FROM messages m JOIN river_job j ON j.args->>'id' = m.id::text WHERE m.id = $1`,
			a.ID).Scan(&zones, &state, &at)
		if err != nil || zones != `["Europe/Rome"]` {
			t.Errorf("%s: zones %s, %v", gateway, zones, err)
		}
		if want.IsZero() {
			if state != "available" || !a.EstimatedSendAt.Equal(a.CreatedAt) {
				t.Errorf("%s: an open window gives %s at %s", gateway, state, at)
			}
			continue
		}
		if after := at.Sub(want); state != "scheduled" || after < 0 || after >= 132*time.Millisecond || !a.EstimatedSendAt.Equal(want) {
			t.Errorf("%s: %s at %s, estimated %s, want %s", gateway, state, at, a.EstimatedSendAt, want)
		}
		// Cancelled, it leaves the lane at once.
		if ok, err := in.Cancel(t.Context(), a.ID); err != nil || !ok {
			t.Errorf("%s: cancelled %t, %v", gateway, ok, err)
		}
		if n := count(t, pool, `river_job WHERE state = 'scheduled'`); n != 0 {
			t.Errorf("%s: %d jobs are left", gateway, n)
		}
	}
}

// A request that was taken while its window was open gets its answer again when the window has closed.
func TestRepetitionInAClosedWindow(t *testing.T) {
	in, _, h := clocked(t)
	now := h.Now()
	r := intake.Request{Caller: caller, IdempotencyKey: "k", Body: text(`,"gateway":{"expires_at":"` + now.Add(4*time.Hour).Format(time.RFC3339) +
		`","send_window":{"from":"` + now.Add(-time.Hour).Format("15:04") + `","to":"` + now.Add(time.Hour).Format("15:04") + `","timezone":"UTC"}}`)}
	first, err := in.Accept(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	h.move(2 * time.Hour)
	if again, err := in.Accept(t.Context(), r); err != nil || !again.Replayed || again.ID != first.ID {
		t.Errorf("the same request: %+v, %v", again, err)
	}
	r.IdempotencyKey = "new"
	if _, err := in.Accept(t.Context(), r); kindOf(err) != intake.Invalid {
		t.Errorf("a new one: %v", err)
	}
}

// A burst for one instant lies side by side, and all of it leaves the lane when it is cancelled.
func TestABurstIsSpreadAndWithdrawn(t *testing.T) {
	in, pool, h := clocked(t)
	sendAt := h.Now().Add(time.Hour).Truncate(time.Second)
	requests := slices.Repeat([]intake.Request{{Caller: caller, Body: text(`,"gateway":{"send_at":"` + sendAt.Format(time.RFC3339) + `"}`)}}, 200)
	for _, r := range in.AcceptMany(t.Context(), requests) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	var places int
	var first, last time.Time
	if err := pool.QueryRow(t.Context(), `SELECT count(DISTINCT scheduled_at), min(scheduled_at), max(scheduled_at) FROM river_job WHERE state = 'scheduled'`).
		Scan(&places, &first, &last); err != nil {
		t.Fatal(err)
	}
	if places < 150 || first.Before(sendAt) || last.Sub(sendAt) >= 132*time.Millisecond {
		t.Errorf("%d places from %s to %s", places, first, last)
	}
	n, more, err := in.CancelMany(t.Context(), store.CancelFilter{From: phone}, time.Minute)
	if left := count(t, pool, `river_job WHERE state = 'scheduled'`); n != 200 || more || err != nil || left != 0 {
		t.Errorf("cancelled %d, %t, %v; %d jobs are left", n, more, err, left)
	}
}
