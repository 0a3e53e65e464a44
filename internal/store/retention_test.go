package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"wagate/internal/message"
	"wagate/internal/pgtest"
	"wagate/internal/store"
)

func TestRetentionDropsWholeDaysAndNothingThatIsOpen(t *testing.T) {
	pool := pgtest.New(t)
	st := store.New(pool)
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	today := time.Now().UTC().Truncate(24 * time.Hour)
	name := func(parent string, ago int) string {
		return fmt.Sprintf("%s_p%s", parent, today.AddDate(0, 0, -ago).Format("20060102"))
	}
	// Ten days back, a message, an event and a notification a day; the one of the eighth day back still waits.
	for ago := 10; ago >= 3; ago-- {
		exec(`SELECT wagate_ensure_partitions(0, $1::date)`, today.AddDate(0, 0, -ago))
		at := today.AddDate(0, 0, -ago).Add(time.Hour)
		status := "delivered"
		if ago == 8 {
			status = "queued"
		}
		id := message.NewID(at)
		exec(`INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, status, created_at) VALUES ($1, '1', '1', '+1', 'text', 3, $2, $3)`, id, status, at)
		exec(`INSERT INTO wamids (wamid, message_id) VALUES ($1, $2)`, fmt.Sprint("wamid.", ago), id)
		exec(`INSERT INTO message_events (id, message_id, kind, at) VALUES ($1, $1, 'try.accepted', $2)`, id, at)
		exec(`INSERT INTO webhook_raw (id, app_id, body, processed_at) VALUES ($1, 'a', '{}', now())`, id)
	}
	// The day six days back is being read.
	reader, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Exec(t.Context(), `SELECT count(*) FROM `+name("message_events", 6)); err != nil {
		t.Fatal(err)
	}
	got, err := st.DropBefore(t.Context(), time.Now().AddDate(0, 0, -5))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Kept, []string{name("messages", 8)}) || !slices.Equal(got.Busy, []string{name("message_events", 6)}) {
		t.Errorf("kept %v, busy %v", got.Kept, got.Busy)
	}
	for _, p := range got.Partitions {
		if day := p[strings.LastIndex(p, "_p")+2:]; day >= today.AddDate(0, 0, -5).Format("20060102") {
			t.Errorf("%s was dropped, five days are kept", p)
		}
	}
	left := func(sql string) (n int) {
		t.Helper()
		if err := pool.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if m, e, r := left(`SELECT count(*) FROM messages`), left(`SELECT count(*) FROM message_events`), left(`SELECT count(*) FROM webhook_raw`); m != 4 || e != 4 || r != 3 {
		t.Errorf("%d messages, %d events, %d notifications are left; want 4, 4, 3", m, e, r)
	}
	// Wamids go with their messages, up to the oldest day that stayed.
	if n := left(`SELECT count(*) FROM wamids`); n != 6 || got.WAMIDs != 2 {
		t.Errorf("%d wamids are left, %d went; want 6 and 2", n, got.WAMIDs)
	}
	if err := reader.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(`UPDATE messages SET status = 'failed' WHERE status = 'queued'`)
	if got, err = st.DropBefore(t.Context(), time.Now().AddDate(0, 0, -5)); err != nil || len(got.Partitions) != 2 || got.WAMIDs != 3 {
		t.Errorf("the second run: %+v, %v", got, err)
	}
	if got, err = st.DropBefore(t.Context(), time.Now().AddDate(0, 0, -5)); err != nil || len(got.Partitions)+len(got.Kept)+len(got.Busy) != 0 {
		t.Errorf("the third run: %+v, %v", got, err)
	}
}
