package upkeep

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"wagate/internal/message"
	"wagate/internal/pgtest"
	"wagate/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }

func TestRules(t *testing.T) {
	for _, tt := range []struct {
		rules            Rules
		webhooks, events int
	}{
		{Rules{}, 0, 0},
		{Rules{RetentionDays: 90}, 90, 90},
		{Rules{RetentionDays: 90, RecipientDays: 30}, 30, 30},
		{Rules{RetentionDays: 90, RecipientDays: 365}, 90, 90},
		{Rules{RetentionDays: 90, WebhookDays: 7}, 7, 90},
		{Rules{RecipientDays: 3, WebhookDays: 7}, 3, 3},
		{Rules{AtFinal: true}, 1, 0},
		{Rules{AtFinal: true, WebhookDays: 7}, 7, 0},
		{Rules{Content: 12 * time.Hour}, 1, 0},
		{Rules{Content: 49 * time.Hour, RetentionDays: 90}, 3, 90},
	} {
		if w, e := tt.rules.Webhooks(), tt.rules.Events(); w != tt.webhooks || e != tt.events {
			t.Errorf("%+v: notifications %d days, events %d; want %d and %d", tt.rules, w, e, tt.webhooks, tt.events)
		}
	}
}

// What each rule removes, and what it leaves.
func TestPass(t *testing.T) {
	pool := pgtest.New(t)
	now := time.Now()
	put := func(daysAgo int, category, status string) {
		t.Helper()
		at := now.AddDate(0, 0, -daysAgo).Add(-time.Minute)
		if _, err := pool.Exec(t.Context(), `INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, category, status, created_at, accepted_at, body)
			VALUES ($1, '1', '1', '+16505551234', 'text', 3, $2, $3, $4, $4, '{}')`, message.NewID(at), category, status, at); err != nil {
			t.Fatal(err)
		}
	}
	const left = `SELECT count(*) FILTER (WHERE body IS NOT NULL) || ' ' || count(*) FILTER (WHERE recipient LIKE '+%') || ' ' || count(*) FROM messages`
	for _, tt := range []struct {
		rules Rules
		want  string // bodies, numbers, messages
	}{
		{Rules{}, "7 9 9"},              // authentication goes in any case
		{Rules{AtFinal: true}, "3 9 9"}, // one still waits, two are younger than a day and have no word of an end
		{Rules{Content: 5 * 24 * time.Hour}, "6 9 9"},
		{Rules{RecipientDays: 5}, "6 7 9"},
		{Rules{RetentionDays: 5, Content: 1}, "3 7 7"}, // days are dropped elsewhere
		{Rules{RecipientDays: 1, AtFinal: true}, "3 3 9"},
	} {
		if _, err := pool.Exec(t.Context(), `TRUNCATE messages, redactions, redactions_open`); err != nil {
			t.Fatal(err)
		}
		put(6, "utility", "delivered")
		put(6, "authentication", "accepted")
		put(3, "authentication", "sent")
		put(3, "utility", "accepted")
		put(3, "utility", "read")
		put(2, "marketing", "failed")
		put(2, "utility", "queued")
		put(0, "utility", "accepted")
		put(0, "authentication", "accepted")
		k := New(Config{Store: store.New(pool), Rules: tt.rules, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Registerer: prometheus.NewRegistry()})
		for range 2 { // the second has nothing left to do
			if !k.Pass(t.Context(), now) {
				t.Fatal("a pass failed")
			}
		}
		var got string
		if err := pool.QueryRow(t.Context(), left).Scan(&got); err != nil || got != tt.want {
			t.Errorf("%+v leaves %s, want %s; %v", tt.rules, got, tt.want, err)
		}
	}
}

func TestAPassThatFailsSaysSo(t *testing.T) {
	pool := pgtest.New(t)
	closed, err := pgxpool.NewWithConfig(t.Context(), pool.Config())
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	k := New(Config{Store: store.New(closed), Logger: slog.New(slog.DiscardHandler)})
	if k.Pass(t.Context(), time.Now()) {
		t.Error("a pass without a database went well")
	}
}

func TestIndexBuildsWhatIsMissingAndEnds(t *testing.T) {
	pool := pgtest.New(t)
	if _, err := pool.Exec(t.Context(), `DROP INDEX wa_ids_wa_id`); err != nil {
		t.Fatal(err)
	}
	k := New(Config{Store: store.New(pool), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	k.Index(t.Context())
	var built bool
	if err := pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('wa_ids_wa_id') AND indisvalid)`).Scan(&built); err != nil || !built {
		t.Errorf("it ended without the index: %v", err)
	}
	// Another database's worth of work is not begun once the context has ended.
	if _, err := pool.Exec(t.Context(), `DROP INDEX wa_ids_wa_id`); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	k.Index(ended)
	if err := pool.QueryRow(t.Context(), `SELECT to_regclass('wa_ids_wa_id') IS NOT NULL`).Scan(&built); err != nil || built {
		t.Errorf("it built an index after its context had ended: %v", err)
	}
}
