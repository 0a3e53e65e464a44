package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/message"
	"wagate/internal/pgtest"
)

// What a message costs to load, with 100,000 suppressions, user ids and open windows beside: those of marketing are looked at
// under everything their recipients are known by.
func BenchmarkLoadOutbound(b *testing.B) {
	const set = 500
	pool := pgtest.New(b)
	s := New(pool)
	for _, sql := range []string{
		`INSERT INTO suppressions (waba_id, wa_id, category, reason, source) SELECT '100', (12020000000 + n)::text, 'marketing', 'stop', 'keyword' FROM generate_series(1, 100000) n`,
		`INSERT INTO user_ids (user_id, wa_id) SELECT 'US.' || n, (12020000000 + n)::text FROM generate_series(1, 100000) n`,
		`INSERT INTO service_windows (phone_number_id, wa_id, until) SELECT '200', (12020000000 + n)::text, now() + interval '1 hour' FROM generate_series(1, 100000) n`,
		`ANALYZE suppressions, user_ids, service_windows`,
	} {
		if _, err := pool.Exec(b.Context(), sql); err != nil {
			b.Fatal(err)
		}
	}
	for _, category := range []string{"service", "marketing"} {
		ids := make([]uuid.UUID, set)
		for i := range ids {
			ids[i] = message.NewID(time.Now())
		}
		_, err := pool.Exec(b.Context(), `INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, category)
			SELECT id, '200', '100', '+' || (13020000000 + n), 'text', 3, $2 FROM unnest($1::uuid[]) WITH ORDINALITY AS u(id, n)`, ids, category)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(category, func(b *testing.B) {
			for b.Loop() {
				if found, err := s.LoadOutbound(b.Context(), ids); err != nil || len(found) != set {
					b.Fatal(len(found), err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*set), "µs/message")
		})
	}
	asks := make([]WindowAsk, set)
	for i := range asks {
		asks[i] = WindowAsk{"200", fmt.Sprintf("+%d", 12020000001+i)}
	}
	b.Run("windows", func(b *testing.B) {
		for b.Loop() {
			if found, err := s.WindowEvidence(b.Context(), asks); err != nil || len(found) != set || found[0].Until.IsZero() {
				b.Fatal(len(found), err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*set), "µs/window")
	})
	b.Run("heard", func(b *testing.B) {
		if _, err := pool.Exec(b.Context(), `INSERT INTO wabas (waba_id) VALUES ('100') ON CONFLICT DO NOTHING; INSERT INTO phone_numbers (phone_number_id, waba_id) VALUES ('200', '100') ON CONFLICT DO NOTHING`); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			now := time.Now()
			err := s.InTx(b.Context(), func(tx pgx.Tx) error {
				return s.HearPhones(b.Context(), tx, map[string]PhoneHearing{"200": {First: now, Last: now}})
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
