package dispatch

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"wagate/internal/queue"
	"wagate/internal/store"
)

// heldBy gives what a message is held by, "" when it is not.
func (r *rig) heldBy(t *testing.T, id uuid.UUID) (kind, value string) {
	t.Helper()
	scan(t, r.pool, &kind, `SELECT coalesce((SELECT kind FROM holds WHERE message_id = $1::uuid), '')`, id)
	scan(t, r.pool, &value, `SELECT coalesce((SELECT value FROM holds WHERE message_id = $1::uuid), '')`, id)
	return kind, value
}

// wantHeld says that a message waits without a job.
func (r *rig) wantHeld(t *testing.T, id uuid.UUID, kind, value string) {
	t.Helper()
	if k, v := r.heldBy(t, id); k != kind || v != value {
		t.Errorf("held by %s %q, want %s %q", k, v, kind, value)
	}
	wantQueued(t, r.pool, id)
	for _, j := range jobsOf(t, r.pool, id) {
		if j.State == "available" || j.State == "running" {
			t.Errorf("a held message has a job that is %s", j.State)
		}
	}
}

// wantBack says that a message has a job again, at its place.
func (r *rig) wantBack(t *testing.T, id uuid.UUID) {
	t.Helper()
	if kind, _ := r.heldBy(t, id); kind != "" {
		t.Errorf("still held by %s", kind)
	}
	j := wantJobs(t, r.pool, id, "completed", "available")
	if !j[1].ScheduledAt.Equal(j[0].ScheduledAt) || j[1].Priority != j[0].Priority {
		t.Errorf("back at %v, priority %d; its place was %v, %d", j[1].ScheduledAt, j[1].Priority, j[0].ScheduledAt, j[0].Priority)
	}
}

func (r *rig) turn(t *testing.T) {
	t.Helper()
	r.reread(t)
	if err := r.releaseCauses(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.releaseDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.releaseNext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.releaseOrdered(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// An operator's pause of some messages of a lane holds these and no others, and lets them go when it is lifted.
func TestPausesOfSomeMessages(t *testing.T) {
	key := uuid.New()
	template := func(m *store.NewMessage) { m.TemplateName, m.TemplateLanguage = "order", "en_US" }
	for _, c := range []struct {
		scope, value string
		message      func(*store.NewMessage)
	}{
		{"template", "order", template},
		{"template", "order/en_US", template},
		{"template", testWABA + ":order", template},
		{"template", testWABA + ":order/en_US", template},
		{"tag", "campaign", func(m *store.NewMessage) { m.Tags = `{"campaign":"black-friday"}` }},
		{"tag", "campaign=black-friday", func(m *store.NewMessage) { m.Tags = `{"campaign":"black-friday"}` }},
		{"key", key.String(), func(m *store.NewMessage) { m.KeyID = key }},
		{"priority", "low", func(m *store.NewMessage) { m.Priority = 4 }},
		{"flow", "123", func(m *store.NewMessage) {
			m.Type = "interactive"
			m.Body = []byte(`{"to":"+12025550101","type":"interactive","interactive":{"type":"flow","action":{"name":"flow","parameters":{"flow_id":"123"}}}}`)
		}},
	} {
		t.Run(c.scope+" "+c.value, func(t *testing.T) {
			server := newAPI(t, false)
			r := newRig(t, newPool(t), "worker-a", server.URL)
			r.own(t)
			if _, _, err := r.store.PutPause(t.Context(), store.KeptPause{Scope: c.scope, Value: c.value, Reason: "test"}); err != nil {
				t.Fatal(err)
			}
			r.reread(t)
			id, other := r.accept(t, c.message), r.accept(t, func(m *store.NewMessage) {
				m.TemplateName, m.TemplateLanguage, m.Tags, m.KeyID = "other", "en_US", `{"campaign":"other"}`, uuid.New()
				if c.value == "campaign" {
					m.Tags = `{"another":"tag"}`
				}
			})
			r.run(t, id)
			r.run(t, other)
			r.wantHeld(t, id, c.scope, c.value)
			if m := read(t, r.pool, other); m.Status != "accepted" {
				t.Errorf("the other message is %s", m.Status)
			}
			r.turn(t)
			r.wantHeld(t, id, c.scope, c.value)
			exec(t, r.pool, `DELETE FROM pauses`)
			r.turn(t)
			r.wantBack(t, id)
			r.run(t, id)
			if m := read(t, r.pool, id); m.Status != "accepted" {
				t.Errorf("after the pause it is %s", m.Status)
			}
		})
	}
}

// What a pause of its template held fails when the template is disabled meanwhile.
func TestAPausedTemplateThatIsDisabled(t *testing.T) {
	server := newAPI(t, false)
	server.status, server.answer = 400, graphError(132015)
	r := newRig(t, newPool(t), "worker-a", server.URL)
	r.own(t)
	id := r.accept(t, func(m *store.NewMessage) { m.TemplateName, m.TemplateLanguage = "order", "en_US" })
	r.run(t, id)
	value := testWABA + ":order/en_US"
	r.wantHeld(t, id, "template", value)
	err := r.store.Throttled(t.Context(), store.Pause{Scope: "template", Value: value, Source: store.ThrottleSource, Level: 2, Code: 132016, Reason: "off"})
	if err != nil {
		t.Fatal(err)
	}
	r.turn(t)
	r.run(t, id)
	if m := read(t, r.pool, id); m.Status != "failed" || m.ErrorCode != 132016 {
		t.Errorf("%+v, want failed by 132016", m)
	}
}

// A job that the next owner was given meanwhile is not held beside it.
func TestAHoldDoesNotComeBesideAJob(t *testing.T) {
	r := newRig(t, newPool(t), "worker-a", nowhere)
	r.own(t)
	id := r.accept(t, func(m *store.NewMessage) { m.Tags = `{"campaign":"x"}` })
	if _, _, err := r.store.PutPause(t.Context(), store.KeptPause{Scope: "tag", Value: "campaign", Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	r.reread(t)
	job := claim(t, r.pool, id, "worker-a")
	if _, err := r.client.GiveBack(t.Context(), r.pool, []queue.Ref{job.Ref()}); err != nil {
		t.Fatal(err)
	}
	r.Handle(bounded(t), job)
	if kind, _ := r.heldBy(t, id); kind != "" {
		t.Errorf("held by %s although it has a job", kind)
	}
	wantJobs(t, r.pool, id, "cancelled", "available")
}

func TestADisabledTemplateFailsWhatWaits(t *testing.T) {
	server := newAPI(t, false)
	server.status, server.answer = 400, graphError(132016)
	r := newRig(t, newPool(t), "worker-a", server.URL)
	r.own(t)
	template := func(m *store.NewMessage) { m.TemplateName, m.TemplateLanguage = "order", "en_US" }
	for range 3 {
		id := r.accept(t, template)
		r.run(t, id)
		if m := read(t, r.pool, id); m.Status != "failed" || m.ErrorCode != 132016 {
			t.Errorf("%+v, want failed by 132016", m)
		}
	}
	if n := len(server.seen()); n != 1 {
		t.Errorf("%d POSTs, want one: the template is known to be off", n)
	}
}

// One message of an ordering key is under way at a time; the next one follows when the one before is settled.
func TestOrderingKey(t *testing.T) {
	server := newAPI(t, false)
	r := newRig(t, newPool(t), "worker-a", server.URL)
	r.own(t)
	ordered := func(m *store.NewMessage) { m.OrderingKey = "chat-17" }
	a, b, c := r.accept(t, ordered), r.accept(t, ordered), r.accept(t, ordered)
	other := r.accept(t, func(m *store.NewMessage) { m.OrderingKey = "chat-18" })
	r.run(t, c)
	r.run(t, b)
	r.wantHeld(t, b, "ordering", "chat-17")
	r.wantHeld(t, c, "ordering", "chat-17")
	r.run(t, other)
	if m := read(t, r.pool, other); m.Status != "accepted" {
		t.Errorf("a message of another key is %s", m.Status)
	}
	r.turn(t)
	r.wantHeld(t, b, "ordering", "chat-17")
	r.run(t, a)
	if err := r.releaseNext(t.Context()); err != nil { // its end lets the next one go, and that one only
		t.Fatal(err)
	}
	r.wantBack(t, b)
	r.wantHeld(t, c, "ordering", "chat-17")
	// A parked message parks its successors; what ends it elsewhere lets them go.
	exec(t, r.pool, `UPDATE messages SET status = 'unknown' WHERE id = $1::uuid`, b)
	r.turn(t)
	r.wantHeld(t, c, "ordering", "chat-17")
	exec(t, r.pool, `UPDATE messages SET status = 'failed' WHERE id = $1::uuid`, b)
	r.turn(t)
	r.wantBack(t, c)
}

func TestOrderingAfterDelivery(t *testing.T) {
	server := newAPI(t, false)
	r := newRig(t, newPool(t), "worker-a", server.URL)
	r.own(t)
	ordered := func(m *store.NewMessage) { m.OrderingKey = "chat-17" }
	a, b := r.accept(t, ordered), r.accept(t, ordered)
	exec(t, r.pool, `UPDATE messages SET ordering_after = 'delivered', ordering_seconds = 300 WHERE id = $1::uuid`, a)
	r.run(t, a)
	r.turn(t)
	r.run(t, b)
	r.turn(t)
	r.wantHeld(t, b, "ordering", "chat-17")
	exec(t, r.pool, `UPDATE messages SET accepted_at = accepted_at - interval '301 seconds' WHERE id = $1::uuid`, a)
	r.turn(t)
	r.wantBack(t, b) // its time is over
	claim(t, r.pool, b, "worker-a")
	exec(t, r.pool, `UPDATE river_job SET state = 'completed', finalized_at = now() WHERE state = 'running'`)
	exec(t, r.pool, `UPDATE messages SET accepted_at = clock_timestamp() WHERE id = $1::uuid`, a)
	c := r.accept(t, ordered)
	exec(t, r.pool, `UPDATE messages SET status = 'delivered' WHERE id IN ($1::uuid, $2::uuid)`, a, b)
	r.run(t, c)
	if m := read(t, r.pool, c); m.Status != "accepted" {
		t.Errorf("after a delivery the next one is %s", m.Status)
	}
}

func TestMarketingToOneWhoWantsNone(t *testing.T) {
	server := newAPI(t, false)
	r := newRig(t, newPool(t), "worker-a", server.URL)
	r.own(t)
	exec(t, r.pool, `INSERT INTO wa_ids (input, wa_id) VALUES ('5511987654321', '551187654321')`)
	suppress := func(until any) {
		exec(t, r.pool, `DELETE FROM suppressions`)
		exec(t, r.pool, `INSERT INTO suppressions (waba_id, wa_id, category, until, reason) VALUES ($1::text, '551187654321', 'marketing', $2::timestamptz, 'test')`, testWABA, until)
	}
	marketing := func(to, category string, expires time.Duration) func(*store.NewMessage) {
		return func(m *store.NewMessage) {
			m.Recipient, m.Category = to, category
			if expires > 0 {
				m.ExpiresAt = time.Now().Add(expires)
			}
		}
	}
	for _, c := range []struct {
		name, to, category, want string
		until                    any
		expires                  time.Duration
	}{
		{"for good", "+551187654321", "marketing", "failed", nil, 0},
		{"under another spelling", "+55 11 98765-4321", "marketing", "failed", nil, 0},
		{"not marketing", "+551187654321", "utility", "accepted", nil, 0},
		{"another user", "+12025550177", "marketing", "accepted", nil, 0},
		{"for a day", "+5511987654321", "marketing", "held", time.Now().Add(24 * time.Hour), 48 * time.Hour},
		{"longer than the message lives", "+5511987654321", "marketing", "failed", time.Now().Add(24 * time.Hour), time.Hour},
		{"over", "+5511987654321", "marketing", "accepted", time.Now().Add(-time.Second), 0},
	} {
		suppress(c.until)
		id := r.accept(t, marketing(c.to, c.category, c.expires))
		r.run(t, id)
		m := read(t, r.pool, id)
		if c.want == "held" {
			r.wantHeld(t, id, "recipient", "551187654321")
			continue
		}
		if m.Status != c.want || (c.want == "failed") != (m.ErrorCode == CodeSuppressed) {
			t.Errorf("%s: %+v, want %s", c.name, m, c.want)
		}
	}
	if n := len(server.seen()); n != 3 {
		t.Errorf("%d POSTs, want none for the suppressed", n)
	}
}

func TestAClosedSendWindowHolds(t *testing.T) {
	server := newAPI(t, false)
	r := newRig(t, newPool(t), "worker-a", server.URL)
	r.own(t)
	now := time.Now().UTC()
	window := func(from, to time.Time) func(*store.NewMessage) {
		return func(m *store.NewMessage) {
			m.SendWindow = fmt.Sprintf(`{"from":%q,"to":%q,"timezone":"UTC"}`, from.Format("15:04"), to.Format("15:04"))
		}
	}
	closed := r.accept(t, window(now.Add(2*time.Hour), now.Add(4*time.Hour)))
	open := r.accept(t, window(now.Add(-2*time.Hour), now.Add(2*time.Hour)))
	r.run(t, closed)
	r.run(t, open)
	r.wantHeld(t, closed, "window", "send_window")
	var left time.Duration
	var until time.Time
	scan(t, r.pool, &until, `SELECT until FROM holds`)
	if left = time.Until(until); left < time.Hour || left > 2*time.Hour+time.Minute {
		t.Errorf("held for %v, want until the window opens in about two hours", left)
	}
	if m := read(t, r.pool, open); m.Status != "accepted" {
		t.Errorf("in an open window it is %s", m.Status)
	}
	exec(t, r.pool, `UPDATE holds SET until = clock_timestamp() - interval '1 second'`)
	r.turn(t)
	r.wantBack(t, closed)
}

// The portfolio's unique recipients: one more is held, one already counted and one in a service window go out, and a
// refusal gives its place back.
func TestUniqueRecipientsOfAPortfolio(t *testing.T) {
	server := newAPI(t, false)
	pool := newPool(t)
	exec(t, pool, `INSERT INTO portfolios (portfolio_id, unique_recipients_per_day) VALUES ('p1', 2)`)
	exec(t, pool, `UPDATE wabas SET portfolio_id = 'p1'`)
	r := newRig(t, pool, "worker-a", server.URL)
	r.own(t)
	to := func(n int) func(*store.NewMessage) {
		return func(m *store.NewMessage) { m.Recipient = fmt.Sprintf("+1202555%04d", n) }
	}
	send := func(n int, want string) uuid.UUID {
		t.Helper()
		id := r.accept(t, to(n))
		r.run(t, id)
		if m := read(t, r.pool, id); m.Status != want {
			t.Errorf("to recipient %d: %s, want %s", n, m.Status, want)
		}
		return id
	}
	server.answer = `{"messaging_product":"whatsapp","messages":[{"id":"wamid.same"}]}` // says nothing of the recipient's wa_id
	accepting := server.answer
	send(1, "accepted")
	server.status, server.answer = 400, graphError(131026)
	send(2, "failed")
	server.status, server.answer = 200, accepting
	send(3, "accepted")
	send(1, "accepted")
	r.wantHeld(t, send(4, "queued"), "recipients", "p1")
	exec(t, pool, `INSERT INTO service_windows (phone_number_id, wa_id, until) VALUES ($1::text, '12025550005', now() + interval '1 hour')`, testPhone)
	send(5, "accepted")
	var used int
	scan(t, pool, &used, `SELECT used FROM portfolio_usage`)
	if used != 2 {
		t.Errorf("%d places are used, want 2", used)
	}
}

// One recipient's messages wait for its pair limit without holding the lane's others back.
func TestABusyRecipientIsHeld(t *testing.T) {
	server := newAPI(t, false)
	pool := newPool(t)
	exec(t, pool, `UPDATE phone_numbers SET pair_seconds = 3600, pair_burst = 4`)
	r := newRig(t, pool, "worker-a", server.URL)
	r.own(t)
	r.laneOf(testPhone).waba.since = time.Now().Add(-24 * time.Hour) // long ago: nothing is presumed
	r.reread(t)
	for n := range 6 {
		id := r.accept(t)
		r.run(t, id)
		if n < 2 {
			if m := read(t, r.pool, id); m.Status != "accepted" {
				t.Errorf("message %d is %s", n, m.Status)
			}
			continue
		}
		if m := read(t, r.pool, id); m.Status == "queued" {
			r.wantHeld(t, id, "pair", "12025550101")
		}
	}
	var held, rows int
	scan(t, pool, &held, `SELECT count(*) FROM holds WHERE kind = 'pair'`)
	scan(t, pool, &rows, `SELECT count(*) FROM pair_states`)
	if held < 2 || rows != 1 {
		t.Errorf("%d held and %d rows of busy recipients, want at least 2 and 1", held, rows)
	}
	var spread int
	scan(t, pool, &spread, `SELECT count(DISTINCT date_trunc('minute', until)) FROM holds`)
	if spread != held {
		t.Errorf("%d messages come back at %d times, want each at its own", held, spread)
	}
	other := r.accept(t, func(m *store.NewMessage) { m.Recipient = "+12025550999" })
	r.run(t, other)
	if m := read(t, r.pool, other); m.Status != "accepted" {
		t.Errorf("to another recipient: %s", m.Status)
	}
}
