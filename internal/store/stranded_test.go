package store

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

func TestStranded(t *testing.T) {
	s, pool := decidable(t)
	job := func(id uuid.UUID, state string) {
		t.Helper()
		at := "NULL"
		if state == "completed" || state == "cancelled" || state == "discarded" {
			at = "now()"
		}
		if _, err := pool.Exec(t.Context(), `
			INSERT INTO river_job (args, kind, max_attempts, queue, state, finalized_at)
			VALUES (jsonb_build_object('id', $1::text), 'send', 1000, 'lane-200', $2::river_job_state, `+at+`)`, id.String(), state); err != nil {
			t.Fatal(err)
		}
	}
	old := func(status string) map[string]string {
		c := map[string]string{"status": "'" + status + "'", "created_at": "now() - interval '1 hour'", "try": "0"}
		if status == "sending" {
			c["try"], c["slot_at"] = "3", "now()"
		}
		return c
	}
	lost, cancelled, sending := putMessage(t, pool, old("queued")), putMessage(t, pool, old("queued")), putMessage(t, pool, old("sending"))
	job(cancelled, "cancelled")
	job(sending, "discarded")
	for _, state := range []string{"available", "running", "retryable", "scheduled"} {
		id := putMessage(t, pool, old("queued"))
		job(id, "completed")
		job(id, state)
	}
	held := putMessage(t, pool, old("queued"))
	if _, err := pool.Exec(t.Context(), `INSERT INTO holds VALUES ($1::uuid, '200', '100', 'tag', 'x', NULL, 3, now())`, held); err != nil {
		t.Fatal(err)
	}
	young := putMessage(t, pool, map[string]string{"status": "'queued'", "created_at": "now()"})
	for _, status := range []string{"accepted", "unknown", "failed", "expired", "cancelled", "delivered"} {
		putMessage(t, pool, old(status))
	}

	later := old("queued")
	later["send_at"] = "now() + interval '7 days'"
	scheduled := putMessage(t, pool, later)
	find := func() (ids map[uuid.UUID]bool, unknown int) {
		t.Helper()
		ids = map[uuid.UUID]bool{}
		// Ids are of now; the day before has none.
		for _, day := range []time.Time{time.Now(), time.Now().AddDate(0, 0, -1)} {
			err := s.InTx(t.Context(), func(tx pgx.Tx) error {
				waiting, n, err := s.Stranded(t.Context(), tx, day, time.Minute, time.Minute, 100)
				unknown += n
				for _, m := range waiting {
					if m.PhoneNumberID != "200" || m.Priority != 3 || m.SendAt.IsZero() == (m.ID == scheduled) {
						t.Errorf("%+v", m)
					}
					ids[m.ID] = true
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		return ids, unknown
	}
	ids, unknown := find()
	if len(ids) != 3 || !ids[lost] || !ids[cancelled] || !ids[scheduled] || ids[young] || unknown != 1 {
		t.Errorf("stranded are %v and %d, want %s and %s and one", ids, unknown, lost, cancelled)
	}
	if state := scalar[string](t, pool, `SELECT concat_ws('|', status, unknown_reason, settle_by > clock_timestamp(), slot_at IS NULL) FROM messages WHERE id = $1`, sending); state != "unknown|job_lost|t|t" {
		t.Errorf("what was being sent is %s", state)
	}
	if got := events(t, pool, lost); got != "job_lost" {
		t.Errorf("the events are %s", got)
	}
	for id := range ids {
		job(id, "available")
	}
	if ids, unknown := find(); len(ids)+unknown != 0 {
		t.Errorf("found again: %v, %d", ids, unknown)
	}
}

func TestOneClaimsAChore(t *testing.T) {
	s, pool := decidable(t)
	claim := func() bool {
		t.Helper()
		mine, err := s.ClaimChore(t.Context(), "stranded", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return mine
	}
	if !claim() || claim() {
		t.Error("not the first one alone claims it")
	}
	if _, err := pool.Exec(t.Context(), `UPDATE chores SET done_at = done_at - interval '61 seconds'`); err != nil {
		t.Fatal(err)
	}
	if !claim() || claim() {
		t.Error("when its time is over, not the first one alone claims it")
	}
}
