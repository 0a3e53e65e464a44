// Package search measures the search over messages and what its indexes cost where messages are accepted.
//
//	go test -v -run '^$' -bench . -benchtime 200x -timeout 2h ./e2e/search
//
// WAGATE_BENCH_MESSAGES is how many messages are made for it over 30 days (1,000,000 without it). With DATABASE_URL the
// messages of that database are searched instead, as they are.
package search

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/message"
	"wagate/internal/pgtest"
	"wagate/internal/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const days = 30

// fill makes messages as they come: recipients that get a few each and one that gets many, orders, campaigns that fill a day,
// and what is rare far back.
func fill(b *testing.B, pool *pgxpool.Pool, total int) {
	b.Helper()
	exec := func(sql string, args ...any) {
		if _, err := pool.Exec(b.Context(), sql, args...); err != nil {
			b.Fatal(err)
		}
	}
	today := time.Now().UTC().Truncate(24 * time.Hour)
	for d := range days {
		day := today.AddDate(0, 0, d+1-days)
		exec(`SELECT wagate_ensure_partitions(0, $1::date)`, day)
		exec(`
			INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, category, reference, tags, status, try, wamid, created_at,
				accepted_at, sent_at, delivered_at, failed_at, body)
			SELECT overlay(overlay(wagate_uuid_floor(at)::text placing '7' from 15) placing lpad(to_hex(i), 12, '0') from 25)::uuid,
				CASE WHEN $2::integer = 2 AND i % 5000 = 0 THEN '209' ELSE '20' || (i % 5) END, '100',
				CASE WHEN i % 50 = 0 THEN '+16505550001' ELSE '+1650' || (1000000 + hashint8(i::bigint * 31 + $2::integer)::bigint % 500000) END, 'text', 3, 'utility',
				CASE WHEN i % 2 = 0 THEN 'order-' || $2::integer || '-' || i END,
				CASE WHEN $2::integer = 20 AND i % 3 = 0 THEN '{"campaign":"one-day"}'::jsonb WHEN $2::integer = 2 AND i % 5000 = 1 THEN '{"campaign":"rare"}'::jsonb
				     WHEN i % 2 = 1 THEN '{"campaign":"always","shop":"a"}'::jsonb END,
				CASE WHEN i % 40 = 3 THEN 'failed' WHEN $2::integer = 2 AND i = 9 THEN 'cancelled' ELSE 'delivered' END, 1, 'wamid.' || $2::integer || '.' || i, at,
				at, at, at, CASE WHEN i % 40 = 3 THEN at END, convert_to(repeat('b', 250), 'UTF8')
			FROM (SELECT i, $1::timestamptz + i * interval '86000 s' / $3::integer AS at FROM generate_series(1, $3::integer) i) g`, day, d, total/days)
		exec(`INSERT INTO wamids SELECT wamid, id FROM messages WHERE id >= wagate_uuid_floor($1::timestamptz) AND wamid LIKE '%000'`, day)
	}
	exec(`VACUUM ANALYZE messages`)
}

// existing finds in a database that is there what a search can look for.
func existing(b *testing.B, pool *pgxpool.Pool) map[string]store.Filter {
	b.Helper()
	var m struct {
		to, from         string
		reference, wamid *string
		tags             map[string]string
	}
	var n int64
	err := pool.QueryRow(b.Context(), `
		SELECT recipient, phone_number_id, reference, wamid, tags, (SELECT sum(greatest(reltuples, 0))::bigint FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid WHERE i.inhparent = 'messages'::regclass)
		FROM messages ORDER BY id LIMIT 1`).Scan(&m.to, &m.from, &m.reference, &m.wamid, &m.tags, &n)
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("about %d messages", n)
	f := map[string]store.Filter{"recipient of the oldest": {To: m.to}, "its number": {From: m.from}, "its number, failed": {From: m.from, Status: "failed"}}
	if m.reference != nil {
		f["its reference"] = store.Filter{Reference: *m.reference}
	}
	if m.wamid != nil {
		f["its wamid"] = store.Filter{WAMID: *m.wamid}
	}
	if len(m.tags) > 0 {
		f["its tags"] = store.Filter{Tags: m.tags}
	}
	return f
}

// sizes logs the room that the indexes of the search take.
func sizes(b *testing.B, pool *pgxpool.Pool, total int) {
	b.Helper()
	rows, err := pool.Query(b.Context(), `
		SELECT h.inhparent::regclass::text, sum(pg_relation_size(h.inhrelid))::bigint FROM pg_inherits h JOIN pg_index x ON x.indexrelid = h.inhparent
		WHERE x.indrelid = 'messages'::regclass GROUP BY 1 ORDER BY 1`)
	if err != nil {
		b.Fatal(err)
	}
	var name string
	var bytes int64
	if _, err := pgx.ForEachRow(rows, []any{&name, &bytes}, func() error {
		b.Logf("%s: %d bytes a message", name, bytes/int64(total))
		return nil
	}); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRedact measures the removal of content and the masking of recipients, step by step and without the rests between
// them: a run is a step of 2,000 messages.
func BenchmarkRedact(b *testing.B) {
	for _, what := range []store.Redaction{store.RedactContent, store.RedactRecipient} {
		b.Run(string(what), func(b *testing.B) {
			pool := pgtest.New(b)
			fill(b, pool, 300_000)
			st := store.New(pool)
			n := int64(0)
			for b.Loop() {
				done, err := st.Redact(b.Context(), what, time.Now(), 2000)
				if err != nil {
					b.Fatal(err)
				}
				n += done.Redacted
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

// BenchmarkSearch measures pages of 50: the first ones, and each that follows until 20 were read or the end is reached.
func BenchmarkSearch(b *testing.B) {
	var filters map[string]store.Filter
	var pool *pgxpool.Pool
	if dsn := os.Getenv("DATABASE_URL"); dsn != "" {
		var err error
		if pool, err = pgxpool.New(b.Context(), dsn); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(pool.Close)
		filters = existing(b, pool)
	} else {
		total := 1_000_000
		if v := os.Getenv("WAGATE_BENCH_MESSAGES"); v != "" {
			var err error
			if total, err = strconv.Atoi(v); err != nil || total < days {
				b.Fatalf("WAGATE_BENCH_MESSAGES: %q", v)
			}
		}
		pool = pgtest.New(b)
		begun := time.Now()
		fill(b, pool, total)
		b.Logf("%d messages made in %s", total, time.Since(begun).Round(time.Second))
		sizes(b, pool, total)
		day := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, 20+1-days)
		filters = map[string]store.Filter{
			"a recipient":             {To: "1 (650) 1000-042"},
			"rare reference":          {Reference: "order-2-4444"},
			"wamid":                   {WAMID: "wamid.2.5000"},
			"rare tag":                {Tags: map[string]string{"campaign": "rare"}},
			"tag of one day":          {Tags: map[string]string{"campaign": "one-day"}},
			"tags of always":          {Tags: map[string]string{"campaign": "always", "shop": "a"}},
			"small phone number":      {From: "209"},
			"a day, failed":           {CreatedAfter: day, CreatedBefore: day.AddDate(0, 0, 1), Status: "failed"},
			"rare status":             {Status: "cancelled"},
			"phone numbers of a key":  {PhoneNumberIDs: []string{"209", "208", "201"}},
			"phone number and status": {From: "209", Status: "failed"},
		}
	}
	for name, f := range map[string]store.Filter{
		"all": {}, "failed": {Status: "failed"}, "delivered": {Status: "delivered"}, "unknown": {Status: "unknown"},
		"common recipient": {To: "+16505550001"}, "common recipient, failed": {To: "+16505550001", Status: "failed"},
		"nobody": {To: "+4930123456"}, "no reference": {Reference: "none"}, "no tag": {Tags: map[string]string{"campaign": "none"}},
		"no wamid": {WAMID: "wamid.none"}, "no phone number": {From: "999"},
	} {
		filters[name] = f
	}
	names := make([]string, 0, len(filters))
	for name := range filters {
		names = append(names, name)
	}
	slices.Sort(names)
	st := store.New(pool)
	if _, left, err := st.BuildSearchIndexes(b.Context()); err != nil || left > 0 {
		b.Fatalf("%d indexes are missing, %v", left, err)
	}
	for _, name := range names {
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			var rows int
			f := filters[name]
			f.Limit = 50
			at, pages := uuid.Nil, 0
			for b.Loop() {
				f.Before = at
				begun := time.Now()
				page, next, err := st.ListMessages(b.Context(), f)
				if err != nil {
					b.Fatal(err)
				}
				took, rows = append(took, time.Since(begun)), rows+len(page)
				if pages++; pages == 20 || next == uuid.Nil {
					next, pages = uuid.Nil, 0
				}
				at = next
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(rows)/float64(len(took)), "rows/page")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkAccept measures what the indexes of the search cost where messages are stored: 50 in a transaction, into a day that
// has 200,000, on one connection.
func BenchmarkAccept(b *testing.B) {
	indexes := []string{"messages_to", "messages_from", "messages_reference", "messages_tags", "messages_failed", "messages_unknown"}
	drop := map[string][]string{"all": nil, "none": indexes}
	for _, name := range indexes[:4] {
		drop["without "+name] = []string{name}
	}
	names := []string{"all", "none", "without messages_to", "without messages_from", "without messages_reference", "without messages_tags"}
	for _, name := range names {
		b.Run(name, func(b *testing.B) {
			pool := pgtest.New(b)
			st := store.New(pool)
			for _, index := range drop[name] {
				if _, err := pool.Exec(b.Context(), `DROP INDEX `+pgx.Identifier{index}.Sanitize()+` CASCADE`); err != nil {
					b.Fatal(err)
				}
			}
			if err := st.PutWABA(b.Context(), store.WABA{ID: "100", Burst: 1, ManagementCallsPerHour: 5000}, nil); err != nil {
				b.Fatal(err)
			}
			if err := st.PutPhoneNumber(b.Context(), store.PhoneNumber{ID: "200", WABAID: "100", Burst: 1, PairBurst: 1, WindowCheck: "off"}); err != nil {
				b.Fatal(err)
			}
			n := 0
			accept := func() {
				n++
				now := time.Now()
				set := make([]store.NewMessage, 50)
				for i := range set {
					set[i] = store.NewMessage{
						ID: message.NewID(now), PhoneNumberID: "200", Recipient: fmt.Sprintf("+1650%07d", (n*50+i)*7919%5_000_000), Type: "text", Priority: 3, Category: "utility",
						OnUnknown: "hold", Reference: fmt.Sprintf("order-%d-%d", n, i), Tags: fmt.Sprintf(`{"campaign":"c%d"}`, i%10), Body: make([]byte, 250), CreatedAt: now,
					}
				}
				if err := st.InTx(b.Context(), func(tx pgx.Tx) error {
					_, err := st.Accept(b.Context(), tx, set)
					return err
				}); err != nil {
					b.Fatal(err)
				}
			}
			for range 4000 {
				accept()
			}
			for b.Loop() {
				accept()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/50, "µs/message")
		})
	}
}
