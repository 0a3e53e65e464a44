package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/message"
)

// lopsided fills 30 days with messages of every kind of rarity: a number, a reference, a tag and a phone number that nearly all
// have, and others that a few have, far back.
func lopsided(t *testing.T, pool *pgxpool.Pool, perDay int) (start time.Time) {
	t.Helper()
	const days = 30
	start = time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, 1-days)
	for d := range days {
		if _, err := pool.Exec(t.Context(), `SELECT wagate_ensure_partitions(0, $1::date)`, start.AddDate(0, 0, d)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := pool.Exec(t.Context(), `
		INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, reference, tags, status, failed_at, wamid, body)
		SELECT overlay(overlay(wagate_uuid_floor($1::timestamptz + d * interval '1 day' + i * interval '20 s')::text placing '7' from 15) placing lpad(to_hex(i), 12, '0') from 25)::uuid,
			CASE WHEN d = 2 AND i % 100 = 0 THEN '201' ELSE '200' END, '100',
			CASE WHEN i % 10 = 0 THEN '+16505550001' WHEN d = 1 AND i % 200 = 7 THEN '+55 (31) 98888-7777' ELSE '+1650' || (1000000 + d * 5000 + i) END, 'text', 3,
			CASE WHEN i % 2 = 0 THEN 'order' WHEN d = 1 AND i = 77 THEN 'rare' WHEN i % 7 = 0 THEN NULL ELSE 'r' || d || '-' || i END,
			CASE WHEN d = 20 AND i % 3 = 0 THEN '{"campaign":"flood","x":"y"}'::jsonb WHEN d = 1 AND i % 150 = 3 THEN '{"campaign":"rare"}'::jsonb WHEN i % 2 = 1 THEN '{"campaign":"all"}'::jsonb END,
			CASE WHEN d = 1 AND i % 100 = 5 THEN 'failed' WHEN d = 3 AND i = 9 THEN 'cancelled' ELSE 'delivered' END,
			CASE WHEN d = 1 AND i % 100 = 5 THEN now() END, 'wamid.' || d || '.' || i, '{}'
		FROM generate_series(0, 29) d, generate_series(1, $2::integer) i`, start, perDay)
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		`INSERT INTO wamids SELECT wamid, id FROM messages WHERE wamid LIKE 'wamid.1.%'`,
		`INSERT INTO wa_ids (input, wa_id) VALUES ('5531988887777', '553188887777')`,
		`ANALYZE messages`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	return start
}

// all reads every page.
func all(t *testing.T, s *Store, f Filter, examine int) (ids []uuid.UUID, pages int) {
	t.Helper()
	for n := 0; ; n++ {
		page, next, err := s.listMessages(t.Context(), f, examine)
		if err != nil || len(page) > f.Limit || n > 5000 {
			t.Fatalf("page %d of %+v: %d messages, %v", n, f, len(page), err)
		}
		for _, m := range page {
			ids = append(ids, m.ID)
		}
		if next == uuid.Nil {
			return ids, n + 1
		}
		if f.Before != uuid.Nil && !less(next, f.Before) {
			t.Fatalf("%+v does not get on: %s after %s", f, next, f.Before)
		}
		f.Before = next
	}
}

func TestSearchFindsWhatIsThere(t *testing.T) {
	s, pool := decidable(t)
	start := lopsided(t, pool, 700)
	for _, tt := range []struct {
		name  string
		f     Filter
		where string
	}{
		{"all", Filter{}, `true`},
		{"common recipient", Filter{To: "1 (650) 555-0001"}, `recipient = '+16505550001'`},
		{"rare recipient", Filter{To: "+5531988887777"}, `recipient LIKE '+55%'`},
		{"rare recipient by its wa_id", Filter{To: "553188887777"}, `recipient LIKE '+55%'`},
		{"recipient and status", Filter{To: "16505550001", Status: "failed"}, `recipient = '+16505550001' AND status = 'failed'`},
		{"nobody", Filter{To: "+4912345678"}, `false`},
		{"reference", Filter{Reference: "rare"}, `reference = 'rare'`},
		{"common reference", Filter{Reference: "order"}, `reference = 'order'`},
		{"no reference", Filter{Reference: "none"}, `false`},
		{"tag", Filter{Tags: map[string]string{"campaign": "rare"}}, `tags ->> 'campaign' = 'rare'`},
		{"common tag", Filter{Tags: map[string]string{"campaign": "all"}}, `tags ->> 'campaign' = 'all'`},
		{"tag that floods a day", Filter{Tags: map[string]string{"campaign": "flood", "x": "y"}}, `tags ->> 'campaign' = 'flood'`},
		{"tag and reference", Filter{Tags: map[string]string{"x": "y"}, Reference: "order"}, `tags ? 'x' AND reference = 'order'`},
		{"no tag", Filter{Tags: map[string]string{"campaign": "none"}}, `false`},
		{"tag and status", Filter{Tags: map[string]string{"campaign": "all"}, Status: "failed"}, `tags ->> 'campaign' = 'all' AND status = 'failed'`},
		{"failed", Filter{Status: "failed"}, `status = 'failed'`},
		{"unknown", Filter{Status: "unknown"}, `false`},
		{"cancelled", Filter{Status: "cancelled"}, `status = 'cancelled'`},
		{"wamid", Filter{WAMID: "wamid.1.77"}, `wamid = 'wamid.1.77'`},
		{"wamid of another phone", Filter{WAMID: "wamid.1.77", From: "201"}, `false`},
		{"no wamid", Filter{WAMID: "wamid.none"}, `false`},
		{"small phone", Filter{From: "201"}, `phone_number_id = '201'`},
		{"small phone and status", Filter{From: "201", Status: "delivered"}, `phone_number_id = '201' AND status = 'delivered'`},
		{"phones of a key", Filter{PhoneNumberIDs: []string{"201", "202"}}, `phone_number_id = '201'`},
		{"phones of a key and status", Filter{PhoneNumberIDs: []string{"201", "202"}, Status: "delivered"}, `phone_number_id = '201'`},
		{"not a phone of the key", Filter{From: "200", PhoneNumberIDs: []string{"201"}}, `false`},
		{"days", Filter{CreatedAfter: start.AddDate(0, 0, 1), CreatedBefore: start.AddDate(0, 0, 2), Tags: map[string]string{"campaign": "rare"}},
			`id >= wagate_uuid_floor('` + start.AddDate(0, 0, 1).Format(time.RFC3339) + `') AND id < wagate_uuid_floor('` + start.AddDate(0, 0, 2).Format(time.RFC3339) + `') AND tags ->> 'campaign' = 'rare'`},
		{"no time", Filter{CreatedAfter: start, CreatedBefore: start}, `false`},
		{"years ago", Filter{CreatedBefore: start.AddDate(-3, 0, 0)}, `false`},
	} {
		want := scalarList(t, pool, `SELECT id::text FROM messages WHERE `+tt.where+` ORDER BY id DESC`)
		for _, size := range []struct{ limit, examine int }{{200, searchAtOnce}, {50, 150}} {
			f := tt.f
			f.Limit = size.limit
			got, pages := all(t, s, f, size.examine)
			if !slices.EqualFunc(got, want, func(a uuid.UUID, b string) bool { return a.String() == b }) {
				t.Errorf("%s, pages of %d, looking at %d: %d messages, want %d", tt.name, size.limit, size.examine, len(got), len(want))
			}
			// What an index finds takes no walk over 30 days: that is 140 pages of 150.
			if walked := tt.f.Status != "" && (tt.f.To != "" || (tt.f.Status != "failed" && tt.f.Status != "unknown")); len(want) < 50 && !walked && (pages > 5 || (size.examine == searchAtOnce && pages > 1)) {
				t.Errorf("%s takes %d pages for %d messages", tt.name, pages, len(want))
			}
		}
	}
	if !s.indexed.complete.Load() {
		t.Error("the search did not go by its indexes")
	}
}

// A page reads no more rows than it may, however rare what it looks for is: this is what keeps it quick over any number.
func TestSearchReadsNoMoreThanItMay(t *testing.T) {
	_, pool := decidable(t)
	lopsided(t, pool, 700)
	const examine = 500
	read := func(w way, q query, setup func(pgx.Tx) error) (rows float64, plan string) {
		t.Helper()
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(t.Context()) }()
		if err := setup(tx); err != nil {
			t.Fatal(err)
		}
		var raw []byte
		err = tx.QueryRow(t.Context(), `EXPLAIN (ANALYZE, FORMAT JSON) `+w.sql, pgx.QueryExecModeCacheDescribe,
			q.status, q.phones, q.keys, q.reference, q.lo, q.hi, q.examine, q.tags, q.limit).Scan(&raw)
		if err != nil {
			t.Fatal(err)
		}
		var plans []struct{ Plan scanNode }
		if err := json.Unmarshal(raw, &plans); err != nil {
			t.Fatal(err)
		}
		plans[0].Plan.walk(func(n scanNode) {
			if n.Relation != "" {
				rows += (n.Rows + n.Removed) * n.Loops
			}
		})
		return rows, string(raw)
	}
	ordered := func(tx pgx.Tx) error {
		_, err := walk(t.Context(), tx, byID, query{hi: uuid.Max, phones: []string{}, limit: 1, examine: 1}, new(uuid.UUID))
		return err
	}
	base := query{phones: []string{}, hi: uuid.Max, examine: examine, limit: 51}
	with := func(change func(*query)) query { q := base; change(&q); return q }
	for _, tt := range []struct {
		name  string
		w     way
		q     query
		most  float64
		index string
	}{
		{"status far back", byID, with(func(q *query) { q.status = "cancelled" }), examine + 40, "_pkey"},
		{"failed far back", byFailure, with(func(q *query) { q.status = "failed" }), 60, "_id_idx"},
		{"nothing unknown", byUnknown, with(func(q *query) { q.status = "unknown" }), 0, "_id_idx"},
		{"reference far back", byReference, with(func(q *query) { q.reference = "rare" }), 10, "_reference_"},
		{"common reference, rare status", byReference, with(func(q *query) { q.reference, q.status = "order", "failed" }), examine + 40, "_reference_"},
		{"common recipient", byRecipient, with(func(q *query) { q.keys, q.examine = []string{"16505550001", "x"}, 51 }), 51 + 40, "_recipient_key_"},
		{"nobody", byRecipient, with(func(q *query) { q.keys = []string{"4912345678", "0123"} }), 10, "_recipient_key_"},
		{"small phone", byPhone, with(func(q *query) { q.phones = []string{"201"} }), 60, "_phone_number_id_"},
	} {
		if got, plan := read(tt.w, tt.q, ordered); got > tt.most || !strings.Contains(plan, tt.index) {
			t.Errorf("%s reads %v rows, want %v at most, by an index …%s…\n%s", tt.name, got, tt.most, tt.index, plan)
		}
	}
	// Tags: a span where nearly none has the tag reads these alone.
	tags := `{"campaign":"rare"}`
	got, plan := read(way{sql: tagsSQL},
		with(func(q *query) { q.tags, q.examine = &tags, examine+1 }), func(tx pgx.Tx) error {
			_, _, err := tagged(t.Context(), tx, with(func(q *query) { q.tags = &tags }), examine)
			return err
		})
	if got > 40 { // bitmaps of the index count, too
		t.Errorf("a rare tag reads %v rows\n%s", got, plan)
	}
}

type scanNode struct {
	Type     string     `json:"Node Type"`
	Relation string     `json:"Relation Name"`
	Rows     float64    `json:"Actual Rows"`
	Removed  float64    `json:"Rows Removed by Filter"`
	Loops    float64    `json:"Actual Loops"`
	Plans    []scanNode `json:"Plans"`
}

func (n scanNode) walk(f func(scanNode)) {
	f(n)
	for _, p := range n.Plans {
		p.walk(f)
	}
}

// After an upgrade the large partitions have no indexes yet: the search finds the same without them, and a gateway builds them.
func TestSearchIndexesAreBuiltAfterwards(t *testing.T) {
	s, pool := decidable(t)
	lopsided(t, pool, 50)
	// As it is where partitions were large, and one build had broken off.
	for _, sql := range []string{
		`DROP INDEX wa_ids_wa_id`,
		`DROP INDEX messages_to`, `CREATE INDEX messages_to ON ONLY messages (wagate_recipient_key(recipient, recipient_hash), id)`,
		`DROP INDEX messages_tags`, `CREATE INDEX messages_tags ON ONLY messages USING gin (tags jsonb_path_ops) WITH (fastupdate = off) WHERE tags IS NOT NULL`,
		`CREATE INDEX messages_default_to ON messages_default (id)`,
		`UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'messages_default_to'::regclass`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	partitions := scalar[int](t, pool, `SELECT count(*) FROM pg_inherits WHERE inhparent = 'messages'::regclass`)
	rare := Filter{To: "+16505550001", Limit: 100}
	found, _ := all(t, s, rare, 100)
	want := len(found)
	if s.indexed.complete.Load() || want != 30*5 {
		t.Errorf("%d messages found without indexes, complete %v", want, s.indexed.complete.Load())
	}
	built, left, err := s.BuildSearchIndexes(t.Context())
	if err != nil || built != 2*partitions || left != 0 {
		t.Fatalf("built %d, left %d, %v; want %d and 0", built, left, err, 2*partitions)
	}
	if again, left, err := s.BuildSearchIndexes(t.Context()); err != nil || again != 0 || left != 0 {
		t.Errorf("a second run: %d, %d, %v", again, left, err)
	}
	fresh := New(pool)
	if found, _ = all(t, fresh, rare, 100); len(found) != want || !fresh.indexed.complete.Load() {
		t.Errorf("%d messages found by the indexes, want %d; complete %v", len(found), want, fresh.indexed.complete.Load())
	}
	// A partition made later has them from the start.
	if _, err := pool.Exec(t.Context(), `SELECT wagate_ensure_partitions(30)`); err != nil {
		t.Fatal(err)
	}
	if _, left, err := s.BuildSearchIndexes(t.Context()); err != nil || left != 0 {
		t.Errorf("new partitions lack %d indexes, %v", left, err)
	}
	if defs := scalarList(t, pool, `SELECT DISTINCT regexp_replace(pg_get_indexdef(k.inhrelid), '^.* USING', k.inhparent::regclass::text) FROM pg_inherits k
		WHERE k.inhparent IN ('messages_to'::regclass, 'messages_tags'::regclass)`); len(defs) != 2 {
		t.Errorf("the parts differ: %q", defs)
	}
}

func TestFollow(t *testing.T) {
	for _, n := range []int{0, 255, 65535} {
		a := uuid.MustParse(fmt.Sprintf("01997b32-8a00-7000-8000-%012x", n))
		if b := uuid.MustParse(fmt.Sprintf("01997b32-8a00-7000-8000-%012x", n+1)); follow(a) != b {
			t.Errorf("after %s comes %s", a, follow(a))
		}
	}
	if at := time.UnixMilli(1764500000123); !message.TimeOf(floorID(at)).Equal(at) {
		t.Errorf("the time of an id is %s", message.TimeOf(floorID(at)))
	}
}
