package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/message"
	"wagate/internal/pgtest"
)

// raw is how a notification stands: attempts and error of one that is processed, or that waits.
type raw struct {
	waits    bool
	attempts int
	err      string
}

var (
	rawNew       = raw{waits: true}
	rawRetried   = raw{waits: true, attempts: 2, err: "database error P0001"}
	rawPatient   = raw{waits: true, attempts: 1, err: ProblemUnmatched + "1 of 1 statuses"}
	rawAside     = raw{attempts: 5, err: "database error 23514"}
	rawUnmatched = raw{attempts: 3, err: ProblemUnmatched + "1 of 2 statuses"}
	rawApplied   = raw{attempts: 1}
)

func putRaw(t *testing.T, pool *pgxpool.Pool, at time.Time, is raw) uuid.UUID {
	t.Helper()
	id := message.NewID(at)
	_, err := pool.Exec(t.Context(), `INSERT INTO webhook_raw (id, app_id, body, received_at, processed_at, attempts, error)
		VALUES ($1, 'app1', '{"a":1}', $2, CASE WHEN NOT $3::boolean THEN now() END, $4, nullif($5, ''))`, id, at, is.waits, is.attempts, is.err)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// days of which the oldest has no partition of its own.
func sometimes() []time.Time {
	now := time.Now().UTC()
	return []time.Time{now.AddDate(0, 0, -10), now.AddDate(0, 0, -1), now.Add(-time.Minute), now}
}

func idsOf(page []Notification) []uuid.UUID {
	ids := make([]uuid.UUID, len(page))
	for i, n := range page {
		ids[i] = n.ID
	}
	return ids
}

func TestNotificationsByState(t *testing.T) {
	pool := pgtest.New(t)
	s := New(pool)
	want := map[NotificationState][]uuid.UUID{}
	var all []uuid.UUID
	for _, at := range sometimes() {
		for _, is := range []struct {
			state NotificationState
			raw   raw
		}{
			{NotificationWaiting, rawNew}, {NotificationWaiting, rawRetried}, {NotificationWaiting, rawPatient}, {NotificationSetAside, rawAside},
			{NotificationUnmatched, rawUnmatched}, {NotificationApplied, rawApplied},
		} {
			id := putRaw(t, pool, at, is.raw)
			all, want[is.state] = append([]uuid.UUID{id}, all...), append([]uuid.UUID{id}, want[is.state]...) // newest first
		}
	}
	want[""] = all
	for state, ids := range want {
		page, next, err := s.ListNotifications(t.Context(), NotificationFilter{State: state, Limit: 100})
		if err != nil || next != uuid.Nil || !slices.Equal(idsOf(page), ids) {
			t.Errorf("%q: %v, next %v, %v; want %v", state, idsOf(page), next, err, ids)
		}
		for _, n := range page {
			if !slices.Contains(want[n.State], n.ID) || n.AppID != "app1" || n.Size != 7 || (n.ProcessedAt == nil) != (n.State == NotificationWaiting) {
				t.Errorf("%+v", n)
			}
			got, body, err := s.GetNotification(t.Context(), n.ID)
			if err != nil || string(body) != `{"a":1}` || got.State != n.State || got.Attempts != n.Attempts || (got.Error == nil) != (n.Error == nil) {
				t.Errorf("%+v %s, %v; listed as %+v", got, body, err, n)
			}
		}

		// In pages, and with few rows looked at for each: nothing is missed or told twice.
		for _, examine := range []int{1, 5, 6, 1000} {
			var paged []uuid.UUID
			f := NotificationFilter{State: state, Limit: 2}
			for pages := 0; ; pages++ {
				page, next, err := s.listNotifications(t.Context(), f, examine)
				if err != nil || len(page) > 2 || pages > 2*len(all) {
					t.Fatalf("%q: page %d, %d notifications, %v", state, pages, len(page), err)
				}
				paged = append(paged, idsOf(page)...)
				if f.Before = next; next == uuid.Nil {
					break
				}
			}
			if !slices.Equal(paged, ids) {
				t.Errorf("%q by %d in pages: %v, want %v", state, examine, paged, ids)
			}
		}
	}

	// A span: the day before today's, and what is younger than it.
	yesterday := sometimes()[1]
	f := NotificationFilter{State: NotificationSetAside, Since: yesterday.Add(-time.Hour), Until: yesterday.Add(time.Hour), Limit: 9}
	if page, _, err := s.ListNotifications(t.Context(), f); err != nil || !slices.Equal(idsOf(page), want[NotificationSetAside][2:3]) {
		t.Errorf("a span: %v, %v", idsOf(page), err)
	}
	f = NotificationFilter{State: NotificationWaiting, Since: yesterday.Add(time.Hour), Limit: 9}
	if page, _, err := s.ListNotifications(t.Context(), f); err != nil || !slices.Equal(idsOf(page), want[NotificationWaiting][:6]) {
		t.Errorf("since: %v, %v", idsOf(page), err)
	}
	if _, _, err := s.GetNotification(t.Context(), message.NewID(time.Now())); !errors.Is(err, ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}

	for _, c := range []struct {
		since, until time.Time
		examine      int
		want         NotificationCounts
	}{
		{examine: 1000, want: NotificationCounts{Waiting: 12, SetAside: 4, Unmatched: 4, Applied: 4}},
		{examine: 24, want: NotificationCounts{Waiting: 12, SetAside: 4, Unmatched: 4, Applied: 4}},
		{examine: 7, want: NotificationCounts{Waiting: 3, SetAside: 1, Unmatched: 1, Applied: 2, Oldest: all[6]}},
		{since: yesterday.Add(-time.Hour), until: yesterday.Add(time.Hour), examine: 1000, want: NotificationCounts{Waiting: 3, SetAside: 1, Unmatched: 1, Applied: 1}},
	} {
		if got, err := s.countNotifications(t.Context(), c.since, c.until, c.examine); err != nil || got != c.want {
			t.Errorf("%v to %v by %d: %+v, %v; want %+v", c.since, c.until, c.examine, got, err, c.want)
		}
	}
}

func TestTheFloorOfIDsIsThatOfPartitions(t *testing.T) {
	pool := pgtest.New(t)
	for _, at := range []time.Time{time.Unix(0, 0), time.Now().Truncate(time.Millisecond), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)} {
		if want := scalar[uuid.UUID](t, pool, `SELECT wagate_uuid_floor($1::timestamptz)`, at); floorID(at) != want {
			t.Errorf("%v: %v, want %v", at, floorID(at), want)
		}
		if id := message.NewID(at); !less(floorID(at), id) || !less(id, floorID(at.Add(time.Millisecond))) {
			t.Errorf("%v does not lie in its millisecond", id)
		}
	}
	if floorID(time.Unix(-5, 0)) != uuid.Nil {
		t.Error("a time before 1970 is not its beginning")
	}
}

// stand gives how a notification stands, in one word: waits or done, attempts, error.
func stand(t *testing.T, pool *pgxpool.Pool, id uuid.UUID) string {
	t.Helper()
	return scalar[string](t, pool, `SELECT CASE WHEN processed_at IS NULL THEN 'waits ' ELSE 'done ' END || attempts || ' ' || coalesce(error, '') FROM webhook_raw WHERE id = $1`, id)
}

// What was set aside is new again; what was applied, or applied in part, comes back for its statuses alone unless more is
// asked for.
func TestReplayedNotificationsWaitAgain(t *testing.T) {
	for _, c := range []struct {
		is           raw
		plain, asked string // how it stands after a replay without and with notices
		applied      bool   // without notices
	}{
		{rawNew, "waits 0 ", "waits 0 ", false},
		{rawRetried, "waits 0 ", "waits 0 ", false},
		{rawPatient, "waits 1 ", "waits 0 ", true},
		{rawAside, "waits 0 ", "waits 0 ", false},
		{rawUnmatched, "waits 1 ", "waits 0 ", true},
		{rawApplied, "waits 1 ", "waits 0 ", true},
		{raw{attempts: 4}, "waits 1 ", "waits 0 ", true},
	} {
		for notices, want := range map[bool]string{false: c.plain, true: c.asked} {
			pool := pgtest.New(t)
			s := New(pool)
			old := time.Now().AddDate(0, 0, -10)
			id, other := putRaw(t, pool, old, c.is), putRaw(t, pool, old, c.is)
			before := stand(t, pool, other)
			n, missing, err := s.ReplayNotifications(t.Context(), []uuid.UUID{id, id}, notices)
			if err != nil || n != 1 || len(missing) != 0 {
				t.Errorf("%+v: %d replayed, missing %v, %v", c.is, n, missing, err)
			}
			if got := stand(t, pool, id); got != want {
				t.Errorf("%+v, notices %v: stands as %q, want %q", c.is, notices, got, want)
			}
			if got := stand(t, pool, other); got != before {
				t.Errorf("another one stands as %q", got)
			}
			err = s.InTx(t.Context(), func(tx pgx.Tx) error {
				set, _, err := s.TakeRaw(t.Context(), tx, 10, 1<<20)
				for _, w := range set {
					if w.ID == id && w.Applied != (c.applied && !notices) {
						t.Errorf("%+v, notices %v: taken as applied: %v", c.is, notices, w.Applied)
					}
				}
				if !slices.ContainsFunc(set, func(w WaitingWebhook) bool { return w.ID == id }) {
					t.Errorf("%+v: not taken", c.is)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestReplayOfWhatIsNotThereChangesNothing(t *testing.T) {
	pool := pgtest.New(t)
	s := New(pool)
	id, gone := putRaw(t, pool, time.Now(), rawAside), message.NewID(time.Now())
	n, missing, err := s.ReplayNotifications(t.Context(), []uuid.UUID{gone, id}, false)
	if err != nil || n != 0 || !slices.Equal(missing, []uuid.UUID{gone}) {
		t.Errorf("%d replayed, missing %v, %v", n, missing, err)
	}
	if got := stand(t, pool, id); got != "done 5 database error 23514" {
		t.Errorf("the other stands as %q", got)
	}
	if n, missing, err := s.ReplayNotifications(t.Context(), nil, false); n != 0 || missing != nil || err != nil {
		t.Errorf("none: %d, %v, %v", n, missing, err)
	}
}

// Whatever the bounds of a call are, going on with Next comes to each once, also when what was replayed comes to the same end
// at once.
func TestReplayByStateComesToEachOnce(t *testing.T) {
	for _, bound := range []struct{ examine, limit int }{{1000, 1000}, {1000, 2}, {5, 1000}, {7, 1}, {1, 1}} {
		t.Run(fmt.Sprintf("%+v", bound), func(t *testing.T) {
			pool := pgtest.New(t)
			s := New(pool)
			want := map[NotificationState][]uuid.UUID{}
			for _, at := range sometimes() {
				putRaw(t, pool, at, rawNew)
				want[NotificationSetAside] = append(want[NotificationSetAside], putRaw(t, pool, at, rawAside))
				want[NotificationUnmatched] = append(want[NotificationUnmatched], putRaw(t, pool, at, rawUnmatched))
				want[NotificationApplied] = append(want[NotificationApplied], putRaw(t, pool, at, rawApplied), putRaw(t, pool, at, rawApplied))
			}
			for state, ids := range want {
				var got []uuid.UUID
				f := ReplayFilter{State: state}
				for calls := 0; ; calls++ {
					before := scalar[int](t, pool, `SELECT count(*) FROM webhook_raw WHERE processed_at IS NULL`)
					done, err := s.replayByState(t.Context(), f, bound.examine, bound.limit)
					if err != nil || done.N > bound.limit || calls > 60 {
						t.Fatalf("call %d: %+v, %v", calls, done, err)
					}
					waiting := scalar[[]uuid.UUID](t, pool, `SELECT coalesce(array_agg(id ORDER BY id), '{}') FROM webhook_raw WHERE processed_at IS NULL AND id = ANY($1)`, ids)
					if len(waiting) != done.N || scalar[int](t, pool, `SELECT count(*) FROM webhook_raw WHERE processed_at IS NULL`) != before+done.N {
						t.Fatalf("%s: %d replayed, %d wait", state, done.N, len(waiting))
					}
					got = append(got, waiting...)
					again := map[NotificationState]string{NotificationSetAside: rawAside.err, NotificationUnmatched: rawUnmatched.err}[state]
					if _, err := pool.Exec(t.Context(), `UPDATE webhook_raw SET processed_at = now(), attempts = 1, error = nullif($2, '') WHERE id = ANY($1)`, waiting, again); err != nil {
						t.Fatal(err)
					}
					if f.After = done.Next; done.Next == uuid.Nil {
						break
					}
				}
				if !slices.Equal(got, ids) {
					t.Errorf("%s: replayed %v, want %v", state, got, ids)
				}
			}

			// Only what was received in the span.
			yesterday := sometimes()[1]
			f := ReplayFilter{State: NotificationApplied, Since: yesterday.Add(-time.Hour), Until: yesterday.Add(time.Hour)}
			n := 0
			for {
				done, err := s.replayByState(t.Context(), f, bound.examine, bound.limit)
				if err != nil {
					t.Fatal(err)
				}
				n += done.N
				if f.After = done.Next; done.Next == uuid.Nil {
					break
				}
			}
			if n != 2 {
				t.Errorf("%d replayed in the span of a day, want 2", n)
			}
		})
	}
}

// What another transaction has in hand is passed over, not waited for.
func TestReplayByStateWaitsForNobody(t *testing.T) {
	pool := pgtest.New(t)
	s := New(pool)
	held, free := putRaw(t, pool, time.Now(), rawAside), putRaw(t, pool, time.Now(), rawAside)
	err := s.InTx(t.Context(), func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `SELECT 1 FROM webhook_raw WHERE id = $1 FOR UPDATE`, held); err != nil {
			return err
		}
		done, err := s.ReplayByState(t.Context(), ReplayFilter{State: NotificationSetAside})
		if done != (ReplayResult{N: 1}) {
			t.Errorf("%+v", done)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := stand(t, pool, held) + ", " + stand(t, pool, free); got != "done 5 database error 23514, waits 0 " {
		t.Error(got)
	}
}
