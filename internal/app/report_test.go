package app_test

import (
	"testing"
	"time"

	"wagate/internal/message"
	"wagate/internal/simulator"
)

// A worker keeps the reports' roll-ups up to date.
func TestAWorkerRollsUp(t *testing.T) {
	r := newRig(t, simulator.Config{})
	at := time.Now().Add(-5 * time.Hour)
	if _, err := r.pool.Exec(t.Context(), `INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, status, created_at)
		VALUES ($1, '200', '100', '+1', 'text', 3, 'sent', $2)`, message.NewID(at), at); err != nil {
		t.Fatal(err)
	}
	r.worker(t)
	r.until(t, "a roll-up", func() bool {
		return r.count(t, `SELECT count(*) FROM report_delivery WHERE phone_number_id = '200' AND sent = 1`) == 3 // a quarter hour, an hour, a day
	})
}
