package dispatch

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/message"
	"wagate/internal/queue"
	"wagate/internal/store"
)

// decide settles what is due, of a phone number whose webhooks arrive.
func (r *rig) decide(t *testing.T) {
	t.Helper()
	exec(t, r.pool, `
		INSERT INTO phone_hearings (phone_number_id, heard_at) VALUES ($1::text, clock_timestamp())
		ON CONFLICT (phone_number_id) DO UPDATE SET heard_at = excluded.heard_at`, testPhone)
	if err := r.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// tried is a message whose first try worker-a has begun, and the run of its job.
func (r *rig) tried(t *testing.T, change ...func(*store.NewMessage)) queue.Job {
	t.Helper()
	id := r.accept(t, change...)
	job := claim(t, r.pool, id, "worker-a")
	begun(t, r.pool, id, "worker-a", time.Now())
	return job
}

// say records an outcome of a message's first try.
func (r *rig) say(t *testing.T, job queue.Job, o *store.Outcome) {
	t.Helper()
	if v := r.finish(bounded(t), ending{ref: job.Ref(), outcome: o}); v != queue.Settled() {
		t.Fatalf("verdict %+v", v)
	}
}

func accepted(id uuid.UUID, try int, wamid string) *store.Outcome {
	return &store.Outcome{ID: id, Try: try, Status: "accepted", Event: "try.accepted", At: time.Now(), WAMID: wamid}
}

// hear applies a status webhook of a message's first try.
func (r *rig) hear(t *testing.T, id uuid.UUID, status string) {
	t.Helper()
	err := r.store.InTx(t.Context(), func(tx pgx.Tx) error {
		_, err := r.store.ApplyStatuses(t.Context(), tx, []store.Status{{
			EventID: message.NewID(time.Now()), MessageID: id, Try: 1, WAMID: "wamid.heard", Status: status, At: time.Now(),
		}}, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestASecondUnknownKeepsTheDeadline(t *testing.T) {
	r := newRig(t, newPool(t), "worker-a", nowhere)
	job := r.tried(t, func(m *store.NewMessage) { m.OnUnknown = "resend" })
	id := job.MessageID
	r.say(t, job, r.unknown(store.Outbound{ID: id}, 1, "timeout", time.Now()))
	first := read(t, r.pool, id)
	if first.Status != "unknown" || first.SettleBy == nil || first.UnknownReason != "timeout" {
		t.Fatalf("%+v", first)
	}
	r.say(t, job, r.unknown(store.Outbound{ID: id}, 1, "worker_gone", time.Now().Add(time.Minute)))
	if m := read(t, r.pool, id); m.SettleBy == nil || !m.SettleBy.Equal(*first.SettleBy) || m.UnknownReason != "timeout" {
		t.Errorf("the second unknown made %+v of %+v", m, first)
	}
	exec(t, r.pool, `UPDATE messages SET settle_by = clock_timestamp() - interval '1 second'`)
	r.decide(t)
	wantQueued(t, r.pool, id)
	wantJobs(t, r.pool, id, "completed", "available")
}

func TestALateUnknownLeavesAReopenedMessage(t *testing.T) {
	r := newRig(t, newPool(t), "worker-a", nowhere)
	job := r.tried(t)
	id := job.MessageID
	r.unsent(bounded(t), aRun(job, id), "paused", 0)
	wantQueued(t, r.pool, id)
	late := ending{ref: job.Ref(), outcome: r.unknown(store.Outbound{ID: id}, 1, "worker_gone", time.Now())}
	if v := r.finish(bounded(t), late); v != queue.Snooze(100*time.Millisecond) {
		t.Errorf("verdict %+v", v)
	}
	wantQueued(t, r.pool, id)
	wantGivenBack(t, r.pool, id)

	// Nor does it touch the next try.
	job = claim(t, r.pool, id, "worker-a")
	exec(t, r.pool, `UPDATE messages SET status = 'sending', try = 2, slot_at = clock_timestamp()`)
	r.say(t, queue.Job{}, r.unknown(store.Outbound{ID: id}, 1, "worker_gone", time.Now()))
	if m := read(t, r.pool, id); m.Status != "sending" || m.SlotAt == nil || m.SettleBy != nil {
		t.Errorf("an unknown of try 1 made of try 2 %+v", m)
	}
	r.say(t, job, accepted(id, 2, "wamid.two"))
	if m := read(t, r.pool, id); m.Status != "accepted" || m.WAMID != "wamid.two" {
		t.Errorf("%+v", m)
	}
}

func TestAWebhookThatWasFasterStays(t *testing.T) {
	failure := func(id uuid.UUID) *store.Outcome {
		return &store.Outcome{ID: id, Try: 1, Status: "failed", Event: "try.refused", At: time.Now(), ErrorCode: 131026, ErrorTitle: "Undeliverable", ErrorScope: "recipient"}
	}
	r := newRig(t, newPool(t), "worker-a", nowhere)
	for _, c := range []struct {
		name  string
		say   func(uuid.UUID) *store.Outcome
		event string
	}{
		{"accepted", func(id uuid.UUID) *store.Outcome { return accepted(id, 1, "wamid.heard") }, "try.accepted"},
		{"refused", failure, "try.refused"},
		{"unknown", func(id uuid.UUID) *store.Outcome {
			return r.unknown(store.Outbound{ID: id}, 1, "timeout", time.Now())
		}, "try.unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			job := r.tried(t)
			id := job.MessageID
			r.hear(t, id, "delivered")
			r.say(t, job, c.say(id))
			m := read(t, r.pool, id)
			if m.Status != "delivered" || m.WAMID != "wamid.heard" || m.ErrorCode != 0 || m.ErrorTitle != "" || m.SettleBy != nil || m.SlotAt != nil {
				t.Errorf("%+v", m)
			}
			if (m.AcceptedAt != nil) != (c.name == "accepted") {
				t.Errorf("accepted at %v", m.AcceptedAt)
			}
			wantEvents(t, r.pool, id, "status.delivered", c.event)
			wantJobs(t, r.pool, id, "completed")
			exec(t, r.pool, `DELETE FROM wamids`)
		})
	}
	t.Run("a refusal is proved wrong", func(t *testing.T) {
		job := r.tried(t)
		id := job.MessageID
		r.say(t, job, failure(id))
		if m := read(t, r.pool, id); m.Status != "failed" || m.ErrorCode != 131026 || m.ErrorTitle != "Undeliverable" {
			t.Fatalf("%+v", m)
		}
		r.hear(t, id, "delivered")
		if m := read(t, r.pool, id); m.Status != "delivered" || m.ErrorCode != 0 || m.ErrorTitle != "" {
			t.Errorf("%+v", m)
		}
	})
}

func TestASecondWAMIDIsADuplicate(t *testing.T) {
	r := newRig(t, newPool(t), "worker-a", nowhere)
	job := r.tried(t)
	id := job.MessageID
	r.say(t, job, r.unknown(store.Outbound{ID: id}, 1, "timeout", time.Now()))
	exec(t, r.pool, `UPDATE messages SET status = 'sending', try = 2, slot_at = clock_timestamp(), settle_by = NULL`)
	r.say(t, job, accepted(id, 2, "wamid.two"))
	r.say(t, job, accepted(id, 2, "wamid.two")) // the same again, after a commit whose answer was lost
	wantEvents(t, r.pool, id, "try.unknown", "try.accepted", "try.accepted")

	r.say(t, job, accepted(id, 1, "wamid.one"))
	if m := read(t, r.pool, id); m.Status != "accepted" || m.WAMID != "wamid.two" {
		t.Errorf("%+v", m)
	}
	wantEvents(t, r.pool, id, "try.unknown", "try.accepted", "try.accepted", "try.accepted", "duplicate_detected")
	var wamid string
	scan(t, r.pool, &wamid, `SELECT wamid FROM message_events WHERE kind = 'duplicate_detected'`)
	var known []string
	scan(t, r.pool, &known, `SELECT array_agg(wamid ORDER BY wamid) FROM wamids WHERE message_id = $1::uuid`, id)
	if wamid != "wamid.one" || len(known) != 2 || known[0] != "wamid.one" || known[1] != "wamid.two" {
		t.Errorf("the duplicate is %s, the message's wamids are %v", wamid, known)
	}
}

func TestSettle(t *testing.T) {
	r := newRig(t, newPool(t), "worker-a", nowhere)
	unknown := func(onUnknown string, due bool) uuid.UUID {
		job := r.tried(t, func(m *store.NewMessage) { m.OnUnknown = onUnknown })
		r.say(t, job, r.unknown(store.Outbound{ID: job.MessageID}, 1, "timeout", time.Now()))
		if due {
			exec(t, r.pool, `UPDATE messages SET settle_by = clock_timestamp() - interval '1 second' WHERE id = $1::uuid`, job.MessageID)
		}
		return job.MessageID
	}
	hold, resend, fail, early := unknown("hold", true), unknown("resend", true), unknown("fail", true), unknown("fail", false)
	heard := unknown("resend", false)
	r.hear(t, heard, "sent")
	exec(t, r.pool, `UPDATE messages SET settle_by = clock_timestamp() - interval '1 second' WHERE id = $1::uuid`, heard)
	for range 2 { // the second time there is nothing left to decide
		r.decide(t)
		if m := read(t, r.pool, hold); m.Status != "unknown" || m.SettleBy != nil || m.UnknownReason != "timeout" {
			t.Errorf("hold: %+v", m)
		}
		wantJobs(t, r.pool, hold, "completed")
		wantEvents(t, r.pool, hold, "try.unknown", "settled")

		wantQueued(t, r.pool, resend)
		if m := read(t, r.pool, resend); m.Try != 1 {
			t.Errorf("resend: %+v", m)
		}
		if j := wantJobs(t, r.pool, resend, "completed", "available"); j[1].Priority != j[0].Priority {
			t.Errorf("resend at priority %d, was %d", j[1].Priority, j[0].Priority)
		}
		wantEvents(t, r.pool, resend, "try.unknown", "settled")

		if m := read(t, r.pool, fail); m.Status != "failed" || m.ErrorTitle == "" || m.SettleBy != nil {
			t.Errorf("fail: %+v", m)
		}
		wantJobs(t, r.pool, fail, "completed")
		wantEvents(t, r.pool, fail, "try.unknown", "settled")

		if m := read(t, r.pool, early); m.Status != "unknown" || m.SettleBy == nil {
			t.Errorf("before its deadline: %+v", m)
		}
		if m := read(t, r.pool, heard); m.Status != "sent" || m.SettleBy != nil {
			t.Errorf("settled by a webhook: %+v", m)
		}
		wantJobs(t, r.pool, heard, "completed")
	}
}

// A worker that had hung says late that Meta took an earlier try, when a later one has ended without a wamid: no more are made.
func TestALateAcceptOfAnOlderTry(t *testing.T) {
	for _, c := range []struct {
		set, want string
		twice     bool
	}{
		{`status = 'queued', try = 2, slot_at = NULL`, "accepted wamid.one", false},
		{`status = 'unknown', try = 2, slot_at = NULL, settle_by = clock_timestamp()`, "accepted wamid.one", false},
		{`status = 'sending', try = 2, slot_at = clock_timestamp()`, "sending ", true},
		{`status = 'accepted', try = 2, slot_at = NULL, wamid = 'wamid.two'`, "accepted wamid.two", true},
		{`status = 'queued', try = 2, failed_try = 1, slot_at = NULL`, "queued ", true},
	} {
		r := newRig(t, newPool(t), "worker-a", nowhere)
		job := r.tried(t)
		id := job.MessageID
		exec(t, r.pool, `UPDATE messages SET `+c.set)
		r.say(t, queue.Job{}, accepted(id, 1, "wamid.one"))
		m := read(t, r.pool, id)
		if got := m.Status + " " + m.WAMID; got != c.want || (m.Status == "accepted" && m.SettleBy != nil) {
			t.Errorf("%s: %s, want %s; %+v", c.set, got, c.want, m)
		}
		var twice bool
		scan(t, r.pool, &twice, `SELECT EXISTS (SELECT FROM message_events WHERE kind = 'duplicate_detected')`)
		if twice != c.twice {
			t.Errorf("%s: duplicate_detected is %v", c.set, twice)
		}
	}
}
