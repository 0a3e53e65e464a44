package intake_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/intake"
	"wagate/internal/message"
)

// hands is a clock that a test moves.
type hands struct {
	mu  sync.Mutex
	now time.Time
}

func (h *hands) Now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *hands) move(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

// clocked is setup with a clock that stands.
func clocked(t *testing.T) (*intake.Intake, *pgxpool.Pool, *hands) {
	t.Helper()
	h := &hands{now: time.Now().UTC().Truncate(time.Microsecond)}
	in, pool := setupAt(t, h.Now)
	return in, pool, h
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// wantBusy checks that an error is Busy, for a code, at a pointer.
func wantBusy(t *testing.T, what string, err error, code, pointer string) time.Duration {
	t.Helper()
	e, ok := errors.AsType[*intake.Error](err)
	if !ok || e.Kind != intake.Busy || e.Code != code || len(e.Faults) != 1 || e.Faults[0].Pointer != pointer || e.RetryAfter <= 0 {
		t.Errorf("%s: %+v (%v), want %s at %q", what, e, err, code, pointer)
		return 0
	}
	return e.RetryAfter
}

func TestMaxBacklogOfThePhone(t *testing.T) {
	in, pool, _ := clocked(t)
	exec(t, pool, `UPDATE phone_numbers SET max_backlog = 10`)
	var mu sync.Mutex
	var taken []string
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			key := fmt.Sprint(i)
			_, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: text(""), IdempotencyKey: key})
			if err == nil {
				mu.Lock()
				taken = append(taken, key)
				mu.Unlock()
				return
			}
			wantBusy(t, "one too many", err, "phone_backlog_full", "/from")
		})
	}
	wg.Wait()
	if len(taken) != 10 {
		t.Fatalf("%d were accepted", len(taken))
	}
	wantRows(t, pool, 10, 10)
	// A repetition gets its first answer, alone and in a batch, also of a message of the same batch.
	if a, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: text(""), IdempotencyKey: taken[0]}); err != nil || !a.Replayed {
		t.Errorf("a repetition: %+v, %v", a, err)
	}
	if err := in.Check(t.Context(), intake.Request{Caller: caller, Body: text("")}); kindOf(err) != intake.Busy {
		t.Errorf("Check says %v", err)
	}
	exec(t, pool, `UPDATE phone_numbers SET max_backlog = 12`) // in a batch a repetition keeps a seat until it is known as one
	in.Count(t.Context())
	batch := []intake.Request{{Caller: caller, Body: text(""), IdempotencyKey: taken[1]}, {Caller: caller, Body: text(""), IdempotencyKey: "new"},
		{Caller: caller, Body: text(""), IdempotencyKey: "new"}, {Caller: caller, Body: text("")}}
	r := in.AcceptMany(t.Context(), batch)
	if r[0].Err != nil || !r[0].Accepted.Replayed || r[1].Err != nil || r[1].Accepted.Replayed || r[2].Err != nil || r[2].Accepted.ID != r[1].Accepted.ID {
		t.Errorf("batch: %+v", r)
	}
	wantBusy(t, "batch", r[3].Err, "phone_backlog_full", "/from")
	// What the owner takes off the count is room.
	exec(t, pool, `UPDATE phone_numbers SET max_backlog = 10`)
	in.Count(t.Context())
	exec(t, pool, `UPDATE lane_stats SET normal = 14, per_second = 0.5, published_at = now()`)
	_, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: text("")})
	wantBusy(t, "before the look", err, "phone_backlog_full", "/from")
	in.Count(t.Context())
	_, err = in.Accept(t.Context(), intake.Request{Caller: caller, Body: text("")})
	if wait := wantBusy(t, "five too many at one in two seconds", err, "phone_backlog_full", "/from"); wait != 10*time.Second {
		t.Errorf("retry after %v", wait)
	}
	exec(t, pool, `UPDATE lane_stats SET normal = 9`)
	in.Count(t.Context())
	if _, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: text("")}); err != nil {
		t.Errorf("with room: %v", err)
	}
}

func TestCountsReachTheDatabase(t *testing.T) {
	in, pool, h := clocked(t)
	bounded := caller
	bounded.MaxBacklog, bounded.MessagesPerDay = 100, 100
	for i, gateway := range []string{`{"priority":"urgent"}`, `{"priority":"low"}`, `{"priority":"low"}`, `{"idempotency_key":"k"}`, `{"idempotency_key":"k"}`} {
		if _, err := in.Accept(t.Context(), intake.Request{Caller: bounded, Body: text(`,"gateway":` + gateway)}); err != nil {
			t.Fatal(i, err)
		}
	}
	if _, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: text("")}); err != nil { // without limits of its own
		t.Fatal(err)
	}
	in.Count(t.Context())
	in.Count(t.Context()) // adds nothing again
	var got string
	err := pool.QueryRow(t.Context(), `
		SELECT concat_ws(' ', l.urgent, l.high, l.normal, l.low, k.waiting, d.accepted, d.day = $1::date)
		FROM lane_stats l JOIN key_backlogs k USING (phone_number_id) JOIN key_days d USING (key_id)`, h.Now()).Scan(&got)
	if err != nil || got != "1 0 2 2 4 4 t" {
		t.Errorf("counted %q, %v", got, err)
	}
	// Close counts what is left.
	if _, err := in.Accept(t.Context(), intake.Request{Caller: bounded, Body: text("")}); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if err := pool.QueryRow(t.Context(), `SELECT normal FROM lane_stats`).Scan(&got); err != nil || got != "3" {
		t.Errorf("after the end %q, %v", got, err)
	}
}

func TestCountsSurviveALapse(t *testing.T) {
	in, pool, _ := clocked(t)
	bounded := caller
	bounded.MaxBacklog, bounded.MessagesPerDay = 3, 100
	accept := func() error {
		_, err := in.Accept(t.Context(), intake.Request{Caller: bounded, Body: text("")})
		return err
	}
	for range 3 {
		if err := accept(); err != nil {
			t.Fatal(err)
		}
	}
	for _, sql := range []string{`ALTER TABLE key_days RENAME TO away`, `ALTER TABLE away RENAME TO key_days`} {
		exec(t, pool, sql)
		in.Count(t.Context())
		wantBusy(t, sql, accept(), "key_backlog_full", "")
	}
	var got string
	if err := pool.QueryRow(t.Context(), `SELECT concat_ws(' ', l.normal, k.waiting, d.accepted) FROM lane_stats l, key_backlogs k, key_days d`).Scan(&got); err != nil || got != "3 3 3" {
		t.Errorf("counted %q, %v", got, err)
	}
}

func TestMaxBacklogOfTheKey(t *testing.T) {
	in, pool, _ := clocked(t)
	bounded := caller
	bounded.MaxBacklog = 5
	// It has three waiting at another phone number.
	exec(t, pool, `INSERT INTO key_backlogs VALUES ($1, '200000000000002', 3)`, bounded.KeyID)
	requests := make([]intake.Request, 4)
	for i := range requests {
		requests[i] = intake.Request{Caller: bounded, Body: text("")}
	}
	for i, r := range in.AcceptMany(t.Context(), requests) {
		if i < 2 && r.Err != nil {
			t.Errorf("%d: %v", i, r.Err)
		}
		if i >= 2 {
			wantBusy(t, fmt.Sprint(i), r.Err, "key_backlog_full", "")
		}
	}
	wantRows(t, pool, 2, 0)
	if _, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: text("")}); err != nil {
		t.Errorf("the same key without a limit: %v", err)
	}
	exec(t, pool, `DELETE FROM key_backlogs WHERE phone_number_id = '200000000000002'`)
	in.Count(t.Context())
	for i := range 4 {
		_, err := in.Accept(t.Context(), intake.Request{Caller: bounded, Body: text("")})
		if i < 3 && err != nil {
			t.Errorf("with room again: %v", err)
		}
		if i == 3 {
			wantBusy(t, "the sixth", err, "key_backlog_full", "")
		}
		in.Count(t.Context()) // counts none twice
	}
}

func TestMessagesPerDay(t *testing.T) {
	in, pool, h := clocked(t)
	bounded := caller
	bounded.MessagesPerDay = 5
	exec(t, pool, `INSERT INTO key_days VALUES ($1, $2::date, 4)`, bounded.KeyID, h.Now())
	accept := func(key string) (intake.Accepted, error) {
		return in.Accept(t.Context(), intake.Request{Caller: bounded, Body: text(""), IdempotencyKey: key})
	}
	if _, err := accept("fifth"); err != nil {
		t.Fatal(err)
	}
	_, err := accept("sixth")
	midnight := h.Now().Truncate(24 * time.Hour).Add(24 * time.Hour)
	if wait := wantBusy(t, "the sixth", err, "day_limit_reached", ""); wait != midnight.Sub(h.Now()) {
		t.Errorf("retry after %v", wait)
	}
	if a, err := accept("fifth"); err != nil || !a.Replayed {
		t.Errorf("the fifth again: %+v, %v", a, err)
	}
	h.move(midnight.Sub(h.Now()))
	if _, err := accept("sixth"); err != nil {
		t.Errorf("on the next day: %v", err)
	}
	in.Count(t.Context())
	if n := count(t, pool, "key_days WHERE accepted IN (5, 1)"); n != 2 {
		t.Errorf("%d days counted", n)
	}
}

func TestEstimate(t *testing.T) {
	in, pool, h := clocked(t)
	exec(t, pool, `INSERT INTO lane_stats (phone_number_id, urgent, high, normal, low, per_second, published_at) VALUES ($1, 10, 20, 30, 1000, 5, now())`, phone)
	sendAt := h.Now().Add(time.Hour).Truncate(time.Second)
	later := `,"send_at":"` + sendAt.Format(time.RFC3339) + `"`
	for gateway, want := range map[string]time.Duration{
		`"priority":"urgent"`: 2 * time.Second, `"priority":"high"`: 6 * time.Second, `"priority":"normal"`: 12 * time.Second,
		`"priority":"low"`: 212 * time.Second, `"priority":"low"` + later: sendAt.Sub(h.Now()),
	} {
		exec(t, pool, `UPDATE lane_stats SET urgent = 10, high = 20, normal = 30, low = 1000`)
		h.move(time.Millisecond) // and so far from now
		want -= map[bool]time.Duration{true: time.Millisecond}[want > 30*time.Minute]
		sent := intake.Request{Caller: intake.Caller{KeyID: message.NewID(h.Now())}, Body: text(`,"gateway":{` + gateway + `}`)}
		in.Count(t.Context())
		before := h.Now()
		a, err := in.Accept(t.Context(), sent)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.EstimatedSendAt.Sub(before); (got - want).Abs() > 2*time.Second {
			t.Errorf("%s: in %v, want %v", gateway, got, want)
		}
	}
	exec(t, pool, `UPDATE lane_stats SET per_second = NULL`)
	in.Count(t.Context())
	if a, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: text("")}); err != nil || !a.EstimatedSendAt.Equal(a.CreatedAt) {
		t.Errorf("without a limit: %+v, %v", a, err)
	}
}

func TestBacklogPastExpiry(t *testing.T) {
	in, pool, h := clocked(t)
	body := func(gateway string, in time.Duration) intake.Request {
		return intake.Request{Caller: caller, Body: text(`,"gateway":{` + gateway + `,"expires_at":"` + h.Now().Add(in).Format(time.RFC3339Nano) + `"}`)}
	}
	accept := func(r intake.Request) error {
		_, err := in.Accept(t.Context(), r)
		return err
	}
	first := body(`"idempotency_key":"first"`, 10*time.Second)
	if err := accept(first); err != nil {
		t.Fatal(err)
	}
	for _, r := range in.AcceptMany(t.Context(), slices.Repeat([]intake.Request{{Caller: caller, Body: text("")}}, 99)) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if err := accept(body(`"reference":"x"`, 10*time.Second)); err != nil {
		t.Errorf("without a known rate: %v", err)
	}
	in.Count(t.Context())
	exec(t, pool, `UPDATE lane_stats SET per_second = 5, published_at = now()`)
	in.Count(t.Context())
	if _, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: text("")}); err != nil {
		t.Fatal(err)
	}
	in.Count(t.Context())
	late := body(`"reference":"x"`, 10*time.Second) // 102 wait, which takes 20 s
	err := accept(late)
	if wait := wantBusy(t, "too late", err, "would_expire", "/gateway/expires_at"); wait < 10*time.Second || wait > 11*time.Second {
		t.Errorf("retry after %v", wait)
	}
	if err := in.Check(t.Context(), late); kindOf(err) != intake.Busy {
		t.Errorf("Check says %v", err)
	}
	if err := accept(first); err != nil {
		t.Errorf("a repetition: %v", err)
	}
	for what, r := range map[string]intake.Request{"in time": body(`"reference":"x"`, time.Minute), "first of all": body(`"priority":"urgent"`, 10*time.Second)} {
		if err := accept(r); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Another key takes turns with this one, whose messages do not delay it.
	other := late
	other.Caller.KeyID = message.NewID(time.Now())
	if err := accept(other); err != nil {
		t.Errorf("another key: %v", err)
	}
	// What waits for later counts, and delays nobody.
	exec(t, pool, `UPDATE river_job SET state = 'scheduled', scheduled_at = now() + interval '1 day'`)
	h.move(2 * time.Second)
	if err := accept(body(`"reference":"y"`, 5*time.Second)); err != nil {
		t.Errorf("with a backlog for tomorrow: %v", err)
	}
}

// Jobs of two keys in the lane, in the order in which they go out.
func order(t *testing.T, pool *pgxpool.Pool) (keys []string) {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		SELECT m.reference FROM river_job j JOIN messages m ON m.id = (j.args->>'id')::uuid
		WHERE j.state = 'available' ORDER BY j.priority, j.scheduled_at, j.id`)
	if err != nil {
		t.Fatal(err)
	}
	keys, err = pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestKeysTakeTurnsInTheLane(t *testing.T) {
	in, pool, h := clocked(t)
	put := func(key byte, reference string, n int) {
		t.Helper()
		c := intake.Caller{KeyID: [16]byte{key}, Owner: "shop"}
		requests := make([]intake.Request, n)
		for i := range requests {
			requests[i] = intake.Request{Caller: c, Body: text(fmt.Sprintf(`,"gateway":{"reference":"%s%d"}`, reference, i))}
		}
		for _, r := range in.AcceptMany(t.Context(), requests) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
	put(1, "a", 700)
	put(2, "b", 3) // within what is believed of the head
	h.move(time.Second)
	put(3, "c", 2) // after another look
	put(1, "d", 1)
	got := order(t, pool)
	want := []string{"a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "a3", "a4"}
	if len(got) != 706 || !slices.Equal(got[:len(want)], want) || got[705] != "d0" {
		t.Errorf("%d wait: %v … %v", len(got), got[:min(len(got), 12)], got[len(got)-2:])
	}
	if n := count(t, pool, "river_job WHERE scheduled_at > now()"); n != 0 {
		t.Errorf("%d have a place in the future", n)
	}
}
