package dispatch

import (
	"testing"
	"time"

	"wagate/internal/message"
	"wagate/internal/pgtest"
)

// The reports count suppressed messages by their code.
func TestTheReportsKnowTheCodeOfSuppressedMessages(t *testing.T) {
	pool := pgtest.New(t)
	for i, code := range []int{CodeSuppressed, CodeSuppressed, 131026} {
		at := time.Now().Add(-time.Duration(i) * time.Second)
		if _, err := pool.Exec(t.Context(), `INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, status, error_code, created_at)
			VALUES ($1, '200', '100', '+1', 'template', 4, 'failed', $2, $3)`, message.NewID(at), code, at); err != nil {
			t.Fatal(err)
		}
	}
	var failed, suppressed int
	if err := pool.QueryRow(t.Context(), `SELECT sum(failed), sum(suppressed) FROM report.delivery_daily`).Scan(&failed, &suppressed); err != nil {
		t.Fatal(err)
	}
	if failed != 3 || suppressed != 2 {
		t.Errorf("%d failed, %d of them suppressed", failed, suppressed)
	}
}
