package store

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"wagate/internal/pgtest"
)

// again lets every failure have one new try, as the code table does for 131000.
func again(f Failure) NewTry { return NewTry{Again: f.Redos == 0, Wait: time.Minute} }

func applyAgain(ctx context.Context, t rapid.TB, pool *pgxpool.Pool, set ...Status) (applied Applied) {
	t.Helper()
	s := New(pool)
	err := s.InTx(ctx, func(tx pgx.Tx) (err error) {
		applied, err = s.ApplyStatuses(ctx, tx, set, again)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return applied
}

func tookPart(t *testing.T, pool *pgxpool.Pool, status string) uuid.UUID {
	t.Helper()
	id := putMessage(t, pool, map[string]string{"status": "'" + status + "'", "try": "1", "accepted_at": "now()"})
	if _, err := pool.Exec(t.Context(), `INSERT INTO wamids SELECT 'wamid.' || id, id FROM messages WHERE id = $1`, id); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE messages SET wamid = 'wamid.' || id WHERE id = $1`, id); err != nil {
		t.Fatal(err)
	}
	return id
}

// Whatever the order of a try's statuses, how often they come and how they are cut into sets: without a delivery the message
// waits for its one new try and looks the same; with one it is delivered, and never waits again.
func TestRedosInAnyOrderAndAnySets(t *testing.T) {
	pool := pgtest.New(t)
	after := map[string]time.Duration{"sent": time.Second, "delivered": 2 * time.Second, "read": 3 * time.Second, "failed": 4 * time.Second}
	waiting := ""
	rapid.Check(t, func(rt *rapid.T) {
		words := rapid.SliceOfN(rapid.SampledFrom([]string{"sent", "failed", "failed", "delivered", "read"}), 1, 7).Draw(rt, "words")
		if !slices.Contains(words, "failed") {
			words = append(words, "failed")
		}
		cuts := rapid.SliceOfN(rapid.Bool(), len(words), len(words)).Draw(rt, "cuts")
		byToken := rapid.SliceOfN(rapid.Bool(), len(words), len(words)).Draw(rt, "by token")
		id := tookPart(t, pool, "accepted")
		redos, delivered := 0, false
		var set []Status
		flush := func() {
			redos += len(applyAgain(t.Context(), rt, pool, set...).Redos)
			set = nil
		}
		for i, word := range words {
			st := token(id, 1, word, after[word])
			if !byToken[i] {
				st.MessageID, st.Try = uuid.Nil, 0
			}
			set = append(set, st)
			delivered = delivered || word == "delivered" || word == "read"
			if cuts[i] {
				flush()
			}
		}
		flush()
		got := scalar[string](t, pool, `SELECT status FROM messages WHERE id = $1`, id)
		switch {
		case delivered && got != "delivered" && got != "read":
			rt.Fatalf("%v: %s", words, got)
		case delivered && redos > 1:
			rt.Fatalf("%v: %d redos", words, redos)
		case !delivered && (redos != 1 || got != "queued"):
			rt.Fatalf("%v: %d redos, %s", words, redos, got)
		case !delivered:
			is := scalar[string](t, pool, `SELECT jsonb_strip_nulls(to_jsonb(m) - 'id' - 'created_at')::text FROM messages m WHERE id = $1`, id)
			if waiting == "" {
				waiting = is
			}
			if is != waiting {
				rt.Fatalf("%v gives\n%s\nnot\n%s", words, is, waiting)
			}
		}
		events := scalar[int](t, pool, `SELECT count(*) FILTER (WHERE kind LIKE 'status.%') * 100 + count(*) FILTER (WHERE kind = 'redo') FROM message_events WHERE message_id = $1`, id)
		if events != 100*len(words)+redos {
			rt.Fatalf("%d events and redos for %v", events, words)
		}
	})
}

// An accepted try whose answer is not recorded would, when that is, take a message that waits again for accepted.
func TestARedoWaitsForTheAnswerToBeRecorded(t *testing.T) {
	pool := pgtest.New(t)
	for _, c := range []struct {
		name    string
		row     map[string]string
		patient bool
		early   bool
	}{
		{"being sent", map[string]string{"status": "'sending'", "slot_at": "now()"}, false, true},
		{"moved on by sent", map[string]string{"status": "'sent'"}, true, true},
		{"moved on by sent, too long ago", map[string]string{"status": "'sent'"}, false, false},
		{"recorded", map[string]string{"status": "'sent'", "accepted_at": "now()"}, true, false},
		{"settled from unknown", map[string]string{"status": "'sent'", "unknown_at": "now()"}, true, false},
		{"unknown", map[string]string{"status": "'unknown'", "unknown_at": "now()", "settle_by": "now()"}, true, false},
	} {
		c.row["try"] = "1"
		id := putMessage(t, pool, c.row)
		sent, failed := token(id, 1, "sent", 0), token(id, 1, "failed", time.Second)
		failed.Patient = c.patient
		other := putMessage(t, pool, map[string]string{"status": "'accepted'", "try": "1"})
		got := applyAgain(t.Context(), t, pool, sent, token(other, 1, "delivered", 0), failed)
		if c.early {
			if len(got.Redos) != 0 || !slices.Equal(got.Early, []int{0, 2}) || scalar[int](t, pool, `SELECT redos FROM messages WHERE id = $1`, id) != 0 {
				t.Errorf("%s: %+v", c.name, got)
			}
		} else if len(got.Redos) != 1 || len(got.Early) != 0 || !scalar[bool](t, pool, `SELECT status = 'queued' AND redos = 1 AND settle_by IS NULL AND slot_at IS NULL FROM messages WHERE id = $1`, id) {
			t.Errorf("%s: %+v, %s", c.name, got, row(t, pool, id))
		}
		if n := scalar[int](t, pool, `SELECT count(*) FROM messages WHERE id = $1 AND status = 'delivered'`, other); n != 1 {
			t.Errorf("%s: the other message of the set was left out", c.name)
		}
	}
}

// A message that waits for another try already, as a deadline or an operator let it, goes on waiting: the failure is proof that
// the earlier try did nothing. It has its job.
func TestAFailureOfATryThatAnotherIsToFollow(t *testing.T) {
	pool := pgtest.New(t)
	id := tookPart(t, pool, "queued")
	got := applyAgain(t.Context(), t, pool, token(id, 1, "failed", 0))
	if len(got.Redos) != 1 || !got.Redos[0].Waits || len(got.Failures) != 1 {
		t.Errorf("%+v", got)
	}
	if !scalar[bool](t, pool, `SELECT status = 'queued' AND redos = 1 AND failed_try = 1 AND NOT failed_by_meta FROM messages WHERE id = $1`, id) {
		t.Errorf("it is %s", row(t, pool, id))
	}
	// Of a message that may not be tried again it is the end.
	never := tookPart(t, pool, "queued")
	if got := apply(t, pool, token(never, 1, "failed", 0)); len(got.Redos) != 0 {
		t.Errorf("%+v", got)
	}
	if status := scalar[string](t, pool, `SELECT status FROM messages WHERE id = $1`, never); status != "failed" {
		t.Errorf("without another try it is %s", status)
	}
}

// Messages that have ended otherwise are not sent again by a failure.
func TestWhatHasEndedIsNotSentAgain(t *testing.T) {
	pool := pgtest.New(t)
	for _, status := range []string{"cancelled", "expired", "failed", "delivered", "read"} {
		id := tookPart(t, pool, status)
		got := applyAgain(t.Context(), t, pool, token(id, 1, "failed", 0))
		if len(got.Redos) != 0 || scalar[int](t, pool, `SELECT redos FROM messages WHERE id = $1`, id) != 0 {
			t.Errorf("%s: %+v", status, got)
		}
	}
	older := putMessage(t, pool, map[string]string{"status": "'accepted'", "try": "2", "wamid": "'wamid.two'"})
	if got := applyAgain(t.Context(), t, pool, token(older, 1, "failed", 0)); len(got.Redos)+len(got.Failures) != 0 {
		t.Errorf("the failure of an older try: %+v", got)
	}
}

func TestWhatAStatusTeachesOfItsRecipient(t *testing.T) {
	pool := pgtest.New(t)
	for i, c := range []struct{ to, says, want string }{
		{"+55 11 98765-4321", "551187654321", "551187654321"},
		{"+16505551234", "16505551234", ""},
		{"+16505551235", "", ""},
		{"+16505551236", "US.13491208655302741918", ""}, // no number
		{"Y2FwaV9ncm91cDox", "16505551237", ""},         // a group
	} {
		id := putMessage(t, pool, map[string]string{"status": "'accepted'", "try": "1"})
		if _, err := pool.Exec(t.Context(), `UPDATE messages SET recipient = $2 WHERE id = $1`, id, c.to); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			st := token(id, 1, "sent", 0)
			st.RecipientID = c.says
			apply(t, pool, st)
		}
		got := scalar[string](t, pool, `SELECT coalesce(string_agg(input || ' ' || wa_id, ','), '') FROM wa_ids`)
		if want := "5511987654321 551187654321"; got != want {
			t.Errorf("%d, %s: %q, want %q", i, c.to, got, want)
		}
		if n := scalar[int](t, pool, `SELECT count(*) FROM wa_ids WHERE xmax <> '0'::xid`); n != 0 {
			t.Errorf("%d, %s: what is known was written again", i, c.to)
		}
	}
	s := New(pool)
	err := s.InTx(t.Context(), func(tx pgx.Tx) error {
		return s.LearnWAIDs(t.Context(), tx, []LearnedWAID{{"1", "1"}, {"5511987654321", "1"}, {"5511987654321", "5511"}})
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := scalar[string](t, pool, `SELECT string_agg(input || ' ' || wa_id, ',') FROM wa_ids`); got != "5511987654321 5511" {
		t.Errorf("learned anew: %s", got)
	}
}

// The suppression of a failed message is of the recipient's wa_id, also where the same set teaches it.
func TestAFailureNamesItsUser(t *testing.T) {
	pool := pgtest.New(t)
	id := putMessage(t, pool, map[string]string{"status": "'accepted'", "try": "1"})
	if _, err := pool.Exec(t.Context(), `UPDATE messages SET recipient = '+52 1 55 1234 5678' WHERE id = $1`, id); err != nil {
		t.Fatal(err)
	}
	st := token(id, 1, "failed", 0)
	st.RecipientID = "525512345678"
	got := apply(t, pool, st)
	if len(got.Failures) != 1 || got.Failures[0].User != "525512345678" || fmt.Sprint(got.Failures[0].At) != fmt.Sprint(st.At) {
		t.Errorf("%+v", got.Failures)
	}
}
