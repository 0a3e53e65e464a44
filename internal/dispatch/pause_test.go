package dispatch

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/policy"
	"wagate/internal/sender"
	"wagate/internal/store"
)

var (
	phoneKey = scopeKey{"phone", testPhone}
	wabaKey  = scopeKey{"waba", testWABA}
	appKey   = scopeKey{"app", testApp}
)

// second is the pause of a throughput that was refused.
var second = policy.Pause{Base: time.Second, Limit: time.Minute}

func newPauseRig(t *testing.T) (*rig, *lane) {
	t.Helper()
	r := newRig(t, newPool(t), "worker-a", nowhere)
	r.hold(t, testWABA, otherWABA)
	return r, r.laneOf(testPhone)
}

// hit is a throttle answer of now that asks for at least wait.
func (r *rig) hit(t *testing.T, ln *lane, key scopeKey, wait time.Duration) time.Time {
	t.Helper()
	return r.pause(t.Context(), ln, key, second, sender.Outcome{Wait: wait}, time.Now())
}

func wantPaused(t *testing.T, ln *lane, until time.Time) {
	t.Helper()
	got, paused := ln.waba.line.Blocked(ln.phone, time.Now())
	// The database keeps microseconds.
	if !paused || got.Sub(until).Abs() > time.Millisecond {
		t.Fatalf("paused %v until %v, want until %v", paused, got, until)
	}
}

func wantFree(t *testing.T, ln *lane) {
	t.Helper()
	if until, paused := ln.waba.line.Blocked(ln.phone, time.Now()); paused {
		t.Fatalf("paused until %v, want no pause", until)
	}
}

// over lets the pause of a scope end, here and in the database.
func (r *rig) over(t *testing.T, key scopeKey) {
	t.Helper()
	r.mu.Lock()
	r.backoffs[key].until = time.Now().Add(-time.Millisecond)
	r.reblock()
	r.mu.Unlock()
	exec(t, r.pool, `UPDATE pauses SET until = clock_timestamp() - interval '1 second' WHERE scope = $1::text AND value = $2::text`, key.scope, key.value)
}

func (r *rig) rows(t *testing.T, key scopeKey) (n int) {
	t.Helper()
	scan(t, r.pool, &n, `SELECT count(*) FROM pauses WHERE scope = $1::text AND value = $2::text`, key.scope, key.value)
	return n
}

func (r *rig) lift(t *testing.T, key scopeKey) {
	t.Helper()
	exec(t, r.pool, `DELETE FROM pauses WHERE scope = $1::text AND value = $2::text`, key.scope, key.value)
}

func TestAShorterPauseShortensNoOther(t *testing.T) {
	r, ln := newPauseRig(t)
	long := r.hit(t, ln, wabaKey, time.Hour)
	wantPaused(t, ln, long)
	r.hit(t, ln, appKey, time.Minute)
	wantPaused(t, ln, long)
	r.hit(t, ln, phoneKey, time.Minute)
	wantPaused(t, ln, long)
	for range 3 {
		r.reread(t)
		wantPaused(t, ln, long)
	}
}

func TestLiftingOnePauseLeavesTheOther(t *testing.T) {
	r, ln := newPauseRig(t)
	waba, app := r.hit(t, ln, wabaKey, time.Minute), r.hit(t, ln, appKey, time.Hour)
	wantPaused(t, ln, app)
	r.lift(t, appKey)
	r.reread(t)
	wantPaused(t, ln, waba)
	r.lift(t, wabaKey)
	r.reread(t)
	wantFree(t, ln)
}

func TestAListReadBeforeAPauseDoesNotLiftIt(t *testing.T) {
	r, ln := newPauseRig(t)
	readAt := time.Now()
	list, err := r.store.Pauses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	until := r.hit(t, ln, phoneKey, time.Minute)
	r.mu.Lock()
	r.applyPauses(list, readAt)
	r.mu.Unlock()
	wantPaused(t, ln, until)

	// Nor does a list that has the scope's earlier pause shorten it.
	r.mu.Lock()
	r.applyPauses([]store.Pause{{Scope: "phone", Value: testPhone, Source: store.ThrottleSource, Level: 1, Until: time.Now().Add(time.Second)}}, readAt)
	r.mu.Unlock()
	wantPaused(t, ln, until)

	r.reread(t)
	wantPaused(t, ln, until)
	r.lift(t, phoneKey)
	r.reread(t)
	wantFree(t, ln)
}

// The keeper's own look: a pause that is set while it waits for the list holds.
func TestAPauseSetWhileTheListIsReadHolds(t *testing.T) {
	r, ln := newPauseRig(t)
	until := time.Now().Add(time.Minute)
	read := make(chan error, 1)
	err := r.store.InTx(t.Context(), func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `LOCK TABLE pauses IN ACCESS EXCLUSIVE MODE`); err != nil {
			return err
		}
		go func() { read <- r.refresh(t.Context()) }()
		waitsForLock(t, r.pool, "SELECT")
		r.mu.Lock()
		defer r.mu.Unlock()
		r.backoffs[phoneKey] = &backoff{since: time.Now(), until: until, kept: true, level: 1}
		r.reblock()
		return nil
	})
	if err := errors.Join(err, <-read); err != nil {
		t.Fatal(err)
	}
	wantPaused(t, ln, until)
}

// waitsForLock waits until a statement about pauses waits for a lock.
func waitsForLock(t *testing.T, pool *pgxpool.Pool, verb string) {
	t.Helper()
	eventually(t, verb+" waits for a lock", func() (waiting bool) {
		scan(t, pool, &waiting, `
			SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
				AND wait_event_type = 'Lock' AND ltrim(query, E' \n\t') LIKE $1::text || '%FROM pauses%')`, verb)
		return waiting
	})
}

// A pause that could not be written must not be lifted for want of its row.
func TestAPauseThatIsNotInTheDatabaseHolds(t *testing.T) {
	r, ln := newPauseRig(t)
	unwritten := func(wait time.Duration) time.Time {
		exec(t, r.pool, `ALTER TABLE pauses RENAME TO away`)
		defer exec(t, r.pool, `ALTER TABLE away RENAME TO pauses`)
		return r.hit(t, ln, phoneKey, wait)
	}
	until := unwritten(time.Minute)
	r.reread(t)
	wantPaused(t, ln, until)

	// Nor for the row of the scope's earlier pause, or for the want of that.
	r.over(t, phoneKey)
	r.hit(t, ln, phoneKey, time.Minute)
	r.over(t, phoneKey)
	until = unwritten(time.Hour)
	r.reread(t)
	wantPaused(t, ln, until)
	r.lift(t, phoneKey)
	r.reread(t)
	wantPaused(t, ln, until)
}

func TestASuccessLeavesANewerPause(t *testing.T) {
	r, ln := newPauseRig(t)
	r.hit(t, ln, phoneKey, time.Minute)
	r.over(t, phoneKey)
	wantFree(t, ln)
	newer := time.Now().Add(time.Minute)
	var wg sync.WaitGroup
	// The newer pause is written, but not yet committed, when the success removes the row of the ended one.
	err := r.store.InTx(t.Context(), func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `UPDATE pauses SET until = $1::timestamptz`, newer); err != nil {
			return err
		}
		wg.Go(func() { r.succeeded(t.Context(), &run{ln: ln}, time.Now()) })
		waitsForLock(t, r.pool, "DELETE")
		return nil
	})
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	r.reread(t)
	wantPaused(t, ln, newer)
}

func TestASuccessAndAThrottleAtOnce(t *testing.T) {
	r, ln := newPauseRig(t)
	for range 20 {
		began := time.Now()
		r.mu.Lock()
		r.backoffs[phoneKey] = &backoff{since: began.Add(-time.Second), until: began.Add(-time.Millisecond), kept: true, level: 1}
		r.mu.Unlock()
		var wg sync.WaitGroup
		wg.Go(func() { r.succeeded(t.Context(), &run{ln: ln}, began) })
		wg.Go(func() {
			r.pause(context.WithoutCancel(t.Context()), ln, phoneKey, second, sender.Outcome{Wait: time.Minute}, began)
		})
		wg.Wait()
		r.reread(t)
		if _, paused := ln.waba.line.Blocked(testPhone, time.Now()); !paused {
			t.Fatal("the pause was lost")
		}
		r.lift(t, phoneKey)
		r.reread(t)
		wantFree(t, ln)
	}
}

func TestAPauseOfAnotherWorker(t *testing.T) {
	r, ln := newPauseRig(t)
	until := time.Now().Add(time.Hour)
	err := r.store.Throttled(t.Context(), store.Pause{Scope: "app", Value: testApp, Source: store.ThrottleSource, Level: 4, Until: until, Reason: "hourly"})
	if err != nil {
		t.Fatal(err)
	}
	r.reread(t)
	wantPaused(t, ln, until)

	// It is lengthened, and its level goes on from there.
	until = until.Add(time.Hour)
	exec(t, r.pool, `UPDATE pauses SET until = $1::timestamptz`, until)
	r.reread(t)
	wantPaused(t, ln, until)
	r.over(t, appKey)
	r.hit(t, ln, appKey, time.Minute)
	if level := r.backoffs[appKey].level; level != 5 {
		t.Errorf("level %d after the fifth throttle", level)
	}
	r.lift(t, appKey)
	r.reread(t)
	wantFree(t, ln)
}

func TestAPauseOfAnOperator(t *testing.T) {
	r, ln := newPauseRig(t)
	operator := func(key scopeKey, until *time.Time) {
		exec(t, r.pool, `INSERT INTO pauses (id, scope, value, reason, source, until) VALUES (gen_random_uuid(), $1::text, $2::text, 'told to', 'operator', $3::timestamptz)`,
			key.scope, key.value, until)
	}
	operator(wabaKey, nil) // until it is lifted
	r.reread(t)
	until, paused := ln.waba.line.Blocked(testPhone, time.Now())
	if !paused || time.Until(until) < 300*24*time.Hour {
		t.Fatalf("paused %v until %v", paused, until)
	}
	// Neither an answer that was under way nor a shorter throttle ends it.
	r.succeeded(t.Context(), &run{ln: ln}, time.Now())
	r.hit(t, ln, wabaKey, time.Minute)
	r.reread(t)
	if now, paused := ln.waba.line.Blocked(testPhone, time.Now()); !paused || now.Before(until) {
		t.Fatalf("paused %v until %v, was until %v", paused, now, until)
	}
	r.lift(t, wabaKey)
	r.reread(t)
	wantFree(t, ln)

	// Of two sources the later end counts, and lifting one leaves the other.
	soon, late := time.Now().Add(time.Minute), time.Now().Add(time.Hour)
	operator(phoneKey, &late)
	if err := r.store.Throttled(t.Context(), store.Pause{Scope: "phone", Value: testPhone, Source: store.ThrottleSource, Level: 1, Until: soon}); err != nil {
		t.Fatal(err)
	}
	r.reread(t)
	wantPaused(t, ln, late)
	exec(t, r.pool, `DELETE FROM pauses WHERE source = 'operator'`)
	r.reread(t)
	wantPaused(t, ln, soon)
	r.lift(t, phoneKey)

	everything := scopeKey{"all", ""}
	operator(everything, &late)
	r.reread(t)
	wantPaused(t, ln, late)
	r.lift(t, everything)
	r.reread(t)
	wantFree(t, ln)
}

func TestLevelsGrowAndReset(t *testing.T) {
	r, ln := newPauseRig(t)
	level := func() (here, kept int) {
		scan(t, r.pool, &kept, `SELECT level FROM pauses`)
		return r.backoffs[phoneKey].level, kept
	}
	for n := 1; n <= 4; n++ {
		r.hit(t, ln, phoneKey, time.Minute)
		if here, kept := level(); here != n || kept != n {
			t.Fatalf("throttle %d: level %d here, %d in the database", n, here, kept)
		}
		r.reread(t)
		r.over(t, phoneKey)
	}
	// An ended pause of an operator is the operator's to remove.
	exec(t, r.pool, `INSERT INTO pauses (id, scope, value, reason, source, until)
		VALUES (gen_random_uuid(), 'phone', $1::text, 'told to', 'operator', clock_timestamp() - interval '1 minute')`, testPhone)
	r.succeeded(t.Context(), &run{ln: ln}, time.Now())
	var source string
	scan(t, r.pool, &source, `DELETE FROM pauses WHERE source = 'operator' RETURNING source`)
	if b, n := r.backoffs[phoneKey], r.rows(t, phoneKey); b == nil || b.level != 0 || b.until.After(time.Now()) || n != 0 {
		t.Fatalf("after a success: %+v, %d rows", b, n)
	}
	r.hit(t, ln, phoneKey, time.Minute)
	if here, kept := level(); here != 1 || kept != 1 {
		t.Errorf("the first throttle after a success: level %d here, %d in the database", here, kept)
	}
	// A try that began before the end of the pause says nothing about what comes after.
	r.succeeded(t.Context(), &run{ln: ln}, time.Now())
	if b, n := r.backoffs[phoneKey], r.rows(t, phoneKey); b == nil || n != 1 {
		t.Errorf("a success during the pause left %+v, %d rows", b, n)
	}
}

func TestAnswersToEarlierTriesRaiseNothing(t *testing.T) {
	r, ln := newPauseRig(t)
	began := time.Now()
	until := r.hit(t, ln, phoneKey, time.Minute)
	answer := sender.Outcome{Wait: time.Hour}
	if got := r.pause(t.Context(), ln, phoneKey, second, answer, time.Now()); !got.Equal(until) {
		t.Errorf("an answer during the pause moved its end from %v to %v", until, got)
	}
	r.over(t, phoneKey)
	r.pause(t.Context(), ln, phoneKey, second, answer, began)
	wantFree(t, ln)
	if level := r.backoffs[phoneKey].level; level != 1 {
		t.Errorf("level %d, want 1", level)
	}
	r.pause(t.Context(), ln, phoneKey, second, answer, time.Now())
	if level := r.backoffs[phoneKey].level; level != 2 {
		t.Errorf("level %d after a try that began after the pause, want 2", level)
	}
}
