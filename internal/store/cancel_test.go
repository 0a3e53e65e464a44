package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/message"
)

// bulk makes n waiting messages, spread over days from start on.
func bulk(t *testing.T, pool *pgxpool.Pool, start time.Time, days, n int) {
	t.Helper()
	_, err := pool.Exec(t.Context(), `
		INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, reference, tags, body)
		SELECT overlay(overlay(wagate_uuid_floor($1::timestamptz + (i % $2::integer) * interval '1 day' + i * interval '0.1 s')::text placing '7' from 15) placing lpad(to_hex(i), 12, '0') from 25)::uuid,
			'200', '100', '+1650' || (i % 1000), 'text', 3, 'r' || (i % 100), '{"campaign":"x"}', convert_to(repeat('b', 300), 'UTF8')
		FROM generate_series(1, $3::integer) AS i`, start, days, n)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `ANALYZE messages`); err != nil {
		t.Fatal(err)
	}
}

func TestCancelManyPicks(t *testing.T) {
	s, pool := decidable(t)
	now := time.Now()
	yesterday := now.Add(-24 * time.Hour)
	none := map[string]string{}
	kept := []uuid.UUID{ // whatever the filter
		putAt(t, pool, now, map[string]string{"status": "'sending'", "try": "1", "slot_at": "now()"}),
		putAt(t, pool, now, map[string]string{"slot_at": "now()"}),
		putAt(t, pool, now, map[string]string{"status": "'unknown'"}),
		putAt(t, pool, now, map[string]string{"status": "'failed'"}),
		putAt(t, pool, now, map[string]string{"status": "'delivered'"}),
	}
	for _, c := range []struct {
		name        string
		filter      CancelFilter
		hit, missed map[string]string
		hitAt       time.Time
		missedAt    time.Time
	}{
		{"priority", CancelFilter{Priority: 4}, map[string]string{"priority": "4"}, none, now, now},
		{"from", CancelFilter{From: "201"}, map[string]string{"phone_number_id": "'201'"}, none, now, now},
		{"to", CancelFilter{To: "+1"}, map[string]string{"recipient": "'+1'"}, none, now, now},
		{"reference", CancelFilter{Reference: "r"}, map[string]string{"reference": "'r'"}, map[string]string{"reference": "'s'"}, now, now},
		{"tag", CancelFilter{Tags: map[string]string{"a": "b", "c": "d"}}, map[string]string{"tags": `'{"a":"b","c":"d","e":"f"}'`}, map[string]string{"tags": `'{"a":"b"}'`}, now, now},
		{"waits again", CancelFilter{Reference: "w"}, map[string]string{"reference": "'w'", "try": "2", "throttles": "2"}, none, now, now},
		{"after", CancelFilter{CreatedAfter: now.Add(-time.Hour), Reference: "t"}, map[string]string{"reference": "'t'"}, map[string]string{"reference": "'t'"}, now, yesterday},
		{"before", CancelFilter{CreatedBefore: now.Add(-time.Hour), Reference: "u"}, map[string]string{"reference": "'u'"}, map[string]string{"reference": "'u'"}, yesterday, now},
		{"the key's phones", CancelFilter{PhoneNumberIDs: []string{"202", "203"}, CreatedAfter: yesterday.Add(-time.Hour)}, map[string]string{"phone_number_id": "'203'"}, none, now, now},
		{"one not the key's", CancelFilter{From: "200", PhoneNumberIDs: []string{"204"}}, nil, none, now, now},
	} {
		var hit uuid.UUID
		if c.hit != nil {
			hit = putAt(t, pool, c.hitAt, c.hit)
		}
		missed := putAt(t, pool, c.missedAt, c.missed)
		n, more, err := s.CancelMany(t.Context(), c.filter, now, time.Minute, noJobs)
		if want := map[bool]int{true: 1}[c.hit != nil]; err != nil || more || n != want {
			t.Errorf("%s: %d cancelled, more %v, %v; want %d", c.name, n, more, err, want)
		}
		if c.hit != nil {
			if got := scalar[string](t, pool, `SELECT status FROM messages WHERE id = $1`, hit) + " " + events(t, pool, hit); got != `cancelled cancelled {"by": "filter"}` {
				t.Errorf("%s: %s", c.name, got)
			}
		}
		if got := scalar[string](t, pool, `SELECT status FROM messages WHERE id = $1`, missed) + events(t, pool, missed); got != "queued" {
			t.Errorf("%s: another message is %s", c.name, got)
		}
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM messages WHERE id = ANY($1) AND status <> 'cancelled'`, kept); n != len(kept) {
		t.Errorf("%d of %d that do not wait are left as they are", n, len(kept))
	}
}

// putAt makes a message of a moment; extra sets further columns, or others than usual, as name → SQL.
func putAt(t *testing.T, pool *pgxpool.Pool, at time.Time, extra map[string]string) uuid.UUID {
	t.Helper()
	id := message.NewID(at)
	all := map[string]string{"phone_number_id": "'200'", "waba_id": "'100'", "recipient": "'+16505551234'", "type": "'text'", "priority": "3"}
	maps.Copy(all, extra)
	columns, values := "id", "$1"
	for name, value := range all {
		columns, values = columns+", "+name, values+", "+value
	}
	if _, err := pool.Exec(t.Context(), "INSERT INTO messages ("+columns+") VALUES ("+values+")", id); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestCancelManyInSteps(t *testing.T) {
	s, pool := decidable(t)
	today := time.Now().UTC().Truncate(24 * time.Hour)
	const n = 3*cancelAtOnce + 7
	bulk(t, pool, today.Add(-24*time.Hour), 2, n) // yesterday's partition and today's
	// A row that a worker is marking is left to it, and not waited for.
	busy := scalar[uuid.UUID](t, pool, `SELECT id FROM messages ORDER BY id OFFSET 100 LIMIT 1`)
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `UPDATE messages SET status = 'sending', slot_at = now(), try = 1 WHERE id = $1`, busy); err != nil {
		t.Fatal(err)
	}
	f := CancelFilter{Tags: map[string]string{"campaign": "x"}}
	late := today.Add(23 * time.Hour)
	if c, more, err := s.CancelMany(t.Context(), f, late, 0, noJobs); c != 0 || !more || err != nil {
		t.Errorf("without any time: %d cancelled, more %v, %v", c, more, err)
	}
	if c, more, err := s.CancelMany(t.Context(), f, late, time.Minute, noJobs); c != n-1 || more || err != nil {
		t.Errorf("%d cancelled, more %v, %v; want %d", c, more, err, n-1)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := scalar[int](t, pool, `SELECT count(DISTINCT message_id) FROM message_events WHERE kind = 'cancelled'`); e != n-1 {
		t.Errorf("%d messages have the event, want %d", e, n-1)
	}
	if st := scalar[string](t, pool, `SELECT status FROM messages WHERE id = $1`, busy); st != "sending" {
		t.Errorf("the message that was being marked is %s", st)
	}
}

// The statement that picks reads the partitions of the filter's span only, in the order of the primary key, without a sort:
// so a day of millions is walked once.
func TestCancelManyPlan(t *testing.T) {
	_, pool := decidable(t)
	today := time.Now().UTC().Truncate(24 * time.Hour)
	bulk(t, pool, today, 7, 20_000)
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	if err := planByIndex(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `PREPARE pick AS `+pickWaitingSQL); err != nil {
		t.Fatal(err)
	}
	day := today.Add(48 * time.Hour)
	for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
		if _, err := tx.Exec(t.Context(), `SELECT set_config('plan_cache_mode', $1, true)`, mode); err != nil {
			t.Fatal(err)
		}
		var raw []byte
		err := tx.QueryRow(t.Context(), fmt.Sprintf(`EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE pick('', '', 'r7', NULL, 0, '{}', '%s', '%s', '%s', %d)`,
			uuid.Nil, day.Format(time.RFC3339), day.Add(24*time.Hour).Format(time.RFC3339), cancelAtOnce), pgx.QueryExecModeSimpleProtocol).Scan(&raw)
		if err != nil {
			t.Fatal(err)
		}
		var plans []struct{ Plan planNode }
		if err := json.Unmarshal(raw, &plans); err != nil {
			t.Fatal(err)
		}
		var scans, sorts []string
		plans[0].Plan.walk(func(n planNode) {
			if n.Relation != "" && n.Loops > 0 {
				scans = append(scans, n.Type+" "+n.Relation)
			}
			if strings.Contains(n.Type, "Sort") {
				sorts = append(sorts, n.Type)
			}
		})
		if want := []string{"Index Scan messages_p" + day.Format("20060102")}; !slices.Equal(scans, want) || len(sorts) > 0 {
			t.Errorf("%s: scans %v, want %v; sorts %v", mode, scans, want, sorts)
		}
	}
}

type planNode struct {
	Type     string     `json:"Node Type"`
	Relation string     `json:"Relation Name"`
	Loops    float64    `json:"Actual Loops"`
	Plans    []planNode `json:"Plans"`
}

func (n planNode) walk(f func(planNode)) {
	f(n)
	for _, p := range n.Plans {
		p.walk(f)
	}
}

func noJobs(context.Context, pgx.Tx, []Again) error { return nil }
