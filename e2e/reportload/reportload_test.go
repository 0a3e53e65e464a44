package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// What the command does with ten million messages, with 200,000: every report equals the messages, none reads old ones, and a day
// is dropped while messages are written. How fast is for the command to say.
func TestReportsOverTwoHundredThousandMessages(t *testing.T) {
	dsn := pgtest.DSN(t)
	var out bytes.Buffer
	opt := options{messages: 200_000, days: 30, eventDays: 2, seed: 1, compare: true}
	if err := run(t.Context(), opt, dsn, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	t.Log(out.String())
	for _, line := range []string{
		"put in: 200000 messages over 30 days, events for 2", "rolled up: 19", "report.delivery_hourly equals the messages", "report.delivery_daily equals the messages",
		"report.errors_daily equals the messages", "report.cost_daily equals the messages", "report.latency_hourly equals the messages",
		"messages of the newest hours only", "retention: a day dropped", "the reports count as before",
	} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("it does not say %q", line)
		}
	}
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	var messages, events, days int
	if err := conn.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM messages), (SELECT count(DISTINCT message_id) FROM message_events),
		(SELECT count(DISTINCT day) FROM report.delivery_daily)`).Scan(&messages, &events, &days); err != nil {
		t.Fatal(err)
	}
	if messages < 193_000 || messages > 194_500 || events < 12_000 || events > 13_400 || days != 30 {
		t.Errorf("%d messages are left, %d have events, %d days are in the report", messages, events, days)
	}
	if err := run(t.Context(), opt, dsn, &out); err == nil || !strings.Contains(err.Error(), "holds messages already") {
		t.Errorf("a database with messages: %v", err)
	}
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	// The comparison finds a count that is one too many. The oldest day has no messages to compare with any more.
	if wrong, err := differing(t.Context(), pool, exacts()[1]); err != nil || wrong != 0 {
		t.Errorf("%d rows differ, %v", wrong, err)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE report_delivery SET read = read + 1 WHERE ctid = (SELECT ctid FROM report_delivery WHERE span = 60 ORDER BY bucket LIMIT 1)`); err != nil {
		t.Fatal(err)
	}
	if wrong, err := differing(t.Context(), pool, exacts()[1]); err != nil || wrong != 2 {
		t.Errorf("after a change of one row %d rows differ, %v", wrong, err)
	}
}

func TestTheCommandLine(t *testing.T) {
	for _, args := range [][]string{{"-messages", "10"}, {"-days", "2"}, {"-days", "5", "-event-days", "6"}, {"more"}, {"-x"}} {
		var stdout, stderr bytes.Buffer
		if code := command(args, func(string) (string, bool) { return "", false }, &stdout, &stderr); code != 2 || stderr.Len() == 0 {
			t.Errorf("%v: exit %d, %s", args, code, stderr.String())
		}
	}
}
