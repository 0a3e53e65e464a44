package owner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"wagate/internal/pgtest"
)

func TestPreferredMovesOnlyTheShareOfWhoComesOrGoes(t *testing.T) {
	var wabas, workers []string
	for i := range 3000 {
		wabas = append(wabas, fmt.Sprint(102540000000+i))
	}
	for i := range 4 {
		workers = append(workers, fmt.Sprintf("host-%d-abcd", i))
	}
	if got := spread(wabas, nil); len(got) != 0 {
		t.Errorf("no workers own %d WABAs", len(got))
	}
	before, after := spread(wabas, workers[:3]), spread(wabas, workers)
	reversed, shuffled := slices.Clone(workers), slices.Clone(wabas)
	slices.Reverse(reversed)
	slices.Reverse(shuffled)
	if !maps.Equal(after, spread(shuffled, reversed)) {
		t.Error("the order of workers or WABAs counts")
	}
	count, moved := map[string]int{}, 0
	for _, w := range wabas {
		count[after[w]]++
		if after[w] != before[w] {
			moved++
		}
	}
	for w, n := range count {
		if n > 750 {
			t.Errorf("worker %s has %d of %d WABAs, more than its even share", w, n, len(wabas))
		}
	}
	if moved > 1200 { // 750 have to
		t.Errorf("%d of %d WABAs moved when a fourth worker came", moved, len(wabas))
	}
	for i, w := range spread([]string{"1", "2", "3", "4"}, []string{"a", "b"}) {
		count[w]++
		if count[w] > 2 {
			t.Errorf("WABA %s: worker %s has more than two of four", i, w)
		}
	}
}

func TestOneOwnerTakesAll(t *testing.T) {
	pool := pgtest.New(t)
	wabas := addWABAs(t, pool, 5)
	a := startWorker(t, pool, "a", calm, true)
	settled(t, wabas, a)
	for _, l := range a.Leases() {
		if l.Epoch != 1 || l.Yielding() || l.Lost() {
			t.Errorf("%s: epoch %d, yielding %v, lost %v", l.WABAID, l.Epoch, l.Yielding(), l.Lost())
		}
		if r := readLease(t, pool, l.WABAID); r.WorkerID != "a" || r.Epoch != 1 || r.Over {
			t.Errorf("%s: %+v", l.WABAID, r)
		}
	}
	// A WABA that comes later is taken too.
	exec(t, pool, `INSERT INTO wabas (waba_id) VALUES ('999')`)
	settled(t, append(wabas, "999"), a)
	if a.WorkerID() != "a" || a.HeartbeatTTL() != calm.TTL {
		t.Errorf("worker %s, TTL %v", a.WorkerID(), a.HeartbeatTTL())
	}
}

// The first take waits for a second heartbeat, so that workers that start together see each other: nothing has to be
// handed over.
func TestWorkersThatStartTogetherShareAtOnce(t *testing.T) {
	pool := pgtest.New(t)
	wabas := addWABAs(t, pool, 20)
	slow := calm
	slow.TTL, slow.Renew = time.Minute, time.Hour // heartbeats come when the test asks for them
	start := func(id string) *worker {
		w := startWorker(t, pool, id, slow, true)
		eventually(t, id+" beats for the first time", func() bool { return beats(t, pool, id) })
		return w
	}
	a, b := start("a"), start("b")
	for _, w := range []*worker{a, b} {
		w.hurry <- struct{}{}
	}
	settled(t, wabas, a, b)
	for _, w := range wabas {
		if r := readLease(t, pool, w); r.Epoch != 1 {
			t.Errorf("%s has epoch %d: it was handed over", w, r.Epoch)
		}
	}
}

func TestShareFollowsTheWorkers(t *testing.T) {
	pool := pgtest.New(t, pgtest.MaxConns(20))
	wabas := addWABAs(t, pool, 24)
	a := startWorker(t, pool, "a", calm, true)
	settled(t, wabas, a)
	b := startWorker(t, pool, "b", calm, true)
	settled(t, wabas, a, b)
	c := startWorker(t, pool, "c", calm, true)
	settled(t, wabas, a, b, c)
	if len(c.fresh()) == 0 {
		t.Fatal("the third worker's share is empty")
	}
	epochs := map[string]int64{}
	for _, w := range wabas {
		r := readLease(t, pool, w)
		epochs[w] = r.Epoch
		if c.lease(w) != nil && (r.Epoch < 3 || r.Prev == nil || (*r.Prev != "a" && *r.Prev != "b") || r.PrevEnd == nil) {
			t.Errorf("%s was handed over to c: %+v", w, r)
		}
	}
	// A clean stop: everything of c goes back, well before a lease of 10 s runs out.
	gone := c.fresh()
	c.Drain()
	settled(t, wabas, a, b)
	if n := len(c.Leases()); n != 0 {
		t.Errorf("a drained worker still has %d leases", n)
	}
	for _, w := range gone {
		if r := readLease(t, pool, w); r.Epoch != epochs[w]+2 || r.Prev == nil || *r.Prev != "c" {
			t.Errorf("%s came back from c with epoch %d (was %d), previous owner %v", w, r.Epoch, epochs[w], r.Prev)
		}
	}
}

func TestFreshEndsAMarginBeforeTheLease(t *testing.T) {
	pool := pgtest.New(t)
	waba := addWABAs(t, pool, 1)[0]
	a := startWorker(t, pool, "a", hasty, true)
	settled(t, []string{waba}, a)
	l := a.lease(waba)
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), `SELECT FROM workers FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	// No renewal ends from here on.
	eventually(t, "the lease is not fresh", func() bool { return !l.Fresh(time.Now()) })
	end := l.base.Add(time.Duration(l.fresh.Load()))
	if !l.Lost() && (l.Fresh(end) || !l.Fresh(end.Add(-1))) {
		t.Errorf("fresh before %v: %v, from then on: %v", end, l.Fresh(end.Add(-1)), l.Fresh(end))
	}
	// Half the margin is left to the doubt between the clocks.
	if r := readLease(t, pool, waba); r.ExpiresAt.Sub(a.DBTime(end)) < hasty.Margin/2 {
		t.Errorf("fresh until %v, and the lease runs out at %v", a.DBTime(end), r.ExpiresAt)
	}
	eventually(t, "the lease is lost", l.Lost)
	eventually(t, "nothing is owned", func() bool { return len(a.Leases()) == 0 })
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	settled(t, []string{waba}, a)
	if again := a.lease(waba); again.Epoch <= l.Epoch || l.Fresh(time.Now()) {
		t.Errorf("taken again with epoch %d after %d; the old lease is fresh: %v", again.Epoch, l.Epoch, l.Fresh(time.Now()))
	}
}

// The server ends the connection that holds the lock: the others may count this worker as dead at once, so it owns
// nothing from then on, long before any lease runs out, and comes back.
func TestALostLockLosesEverything(t *testing.T) {
	pool := pgtest.New(t)
	wabas := addWABAs(t, pool, 4)
	a := startWorker(t, pool, "a", calm, true)
	settled(t, wabas, a)
	old := a.Leases()
	terminate(t, pool, "a")
	rows := map[string]leaseRow{}
	for _, l := range old {
		eventually(t, "the lease is lost", l.Lost)
		rows[l.WABAID] = readLease(t, pool, l.WABAID)
		if rows[l.WABAID].Over {
			t.Errorf("%s was lost only when its lease had run out", l.WABAID)
		}
	}
	settled(t, wabas, a)
	for _, l := range old {
		// Its own leases it takes again without waiting for their end.
		was, now := rows[l.WABAID], readLease(t, pool, l.WABAID)
		if a.lease(l.WABAID).Epoch != l.Epoch+1 || now.Epoch != l.Epoch+1 || now.PrevEnd == nil || !now.PrevEnd.Before(was.ExpiresAt) {
			t.Errorf("%s: taken again as %+v; it was %+v", l.WABAID, now, was)
		}
	}
}

// A worker that ended without a word: its death is written down, nothing is taken before its leases ran out, and then
// everything is.
func TestADeadWorkersLeasesRunOut(t *testing.T) {
	pool := pgtest.New(t)
	wabas := addWABAs(t, pool, 6)
	a := startWorker(t, pool, "a", hasty, true)
	settled(t, wabas, a)
	b := startWorker(t, pool, "b", hasty, true)
	settled(t, wabas, a, b)
	leases := a.Leases()
	a.stop()
	for _, l := range leases {
		if !l.Lost() {
			t.Errorf("%s is not lost after the end of Run", l.WABAID)
		}
	}
	ends := map[string]leaseRow{}
	for _, l := range leases {
		r := readLease(t, pool, l.WABAID)
		if ends[l.WABAID] = r; r.WorkerID != "a" {
			t.Errorf("%s: %+v right after its owner's end", l.WABAID, r)
		}
	}
	eventually(t, "the death of a is written down", func() bool { return deadAt(t, pool, "a") != nil })
	settled(t, wabas, b)
	for waba, was := range ends {
		now := readLease(t, pool, waba)
		if now.Epoch != was.Epoch+1 || now.Prev == nil || *now.Prev != "a" || now.PrevEnd == nil || !now.PrevEnd.Equal(was.ExpiresAt) {
			t.Errorf("%s: taken as %+v; it was %+v", waba, now, was)
		}
		if now.ExpiresAt.Before(was.ExpiresAt.Add(hasty.TTL)) {
			t.Errorf("%s: taken before the lease ran out at %v: the new one ends at %v", waba, was.ExpiresAt, now.ExpiresAt)
		}
	}
	if at := deadAt(t, pool, "b"); at != nil {
		t.Errorf("the living worker counts as dead since %v", at)
	}
}

func TestOnlyTheDeadAreCountedAsDead(t *testing.T) {
	pool := pgtest.New(t)
	a := startWorker(t, pool, "a", calm, true)
	b := startWorker(t, pool, "b", calm, true)
	c := startWorker(t, pool, "c", calm, true)
	for _, w := range []*worker{a, b, c} {
		eventually(t, w.WorkerID()+" beats", func() bool { return beats(t, pool, w.WorkerID()) })
	}
	var before time.Time
	if err := pool.QueryRow(t.Context(), `SELECT clock_timestamp()`).Scan(&before); err != nil {
		t.Fatal(err)
	}
	c.stop()
	eventually(t, "the death of c is written down", func() bool { return deadAt(t, pool, "c") != nil })
	first := *deadAt(t, pool, "c")
	if first.Before(before) {
		t.Errorf("dead at %v, and alive at %v", first, before)
	}
	// A second death: by the time it is known, the watch has gone over all of them again.
	d := startWorker(t, pool, "d", calm, true)
	eventually(t, "d beats", func() bool { return beats(t, pool, "d") })
	d.stop()
	eventually(t, "the death of d is written down", func() bool { return deadAt(t, pool, "d") != nil })
	for _, w := range []*worker{a, b} {
		if at := deadAt(t, pool, w.WorkerID()); at != nil {
			t.Errorf("worker %s lives and counts as dead since %v", w.WorkerID(), at)
		}
	}
	if again := *deadAt(t, pool, "c"); !again.Equal(first) {
		t.Errorf("the death of c moved from %v to %v", first, again)
	}
}

func TestDrainYieldsAndTakesNoMore(t *testing.T) {
	pool := pgtest.New(t)
	wabas := addWABAs(t, pool, 6)
	a := startWorker(t, pool, "a", hasty, false)
	settled(t, wabas, a)
	a.Drain()
	for _, l := range a.Leases() {
		if !l.Yielding() || l.Lost() || !l.Fresh(time.Now()) {
			t.Errorf("%s: yielding %v, lost %v; begun tries need the lease until they end", l.WABAID, l.Yielding(), l.Lost())
		}
	}
	l := a.lease(wabas[0])
	if err := a.Release(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	if r := readLease(t, pool, wabas[0]); r.WorkerID != "" || !r.Over || r.Epoch != l.Epoch+1 || r.Prev == nil || *r.Prev != "a" || r.PrevEnd == nil {
		t.Errorf("after its release: %+v", r)
	}
	if l.Fresh(time.Now()) || !l.Lost() {
		t.Error("a released lease is fresh")
	}
	if err := a.Release(t.Context(), l); err != nil { // once more: of no effect
		t.Fatal(err)
	}
	// What it did not release stays its own as long as it runs, and alone it takes nothing back.
	b := startWorker(t, pool, "b", hasty, true)
	eventually(t, "the released WABA goes to b", func() bool { return b.lease(wabas[0]) != nil })
	if got := b.fresh(); !slices.Equal(got, wabas[:1]) {
		t.Errorf("b owns %v, and a has not released them", got)
	}
	if got := a.fresh(); !slices.Equal(got, wabas[1:]) {
		t.Errorf("a owns %v, want all but the released one", got)
	}
	a.stop()
	settled(t, wabas, b)
}

// A take that was under way when the drain began yields what it got.
func TestATakeDuringTheDrainYields(t *testing.T) {
	pool := pgtest.New(t)
	wabas := addWABAs(t, pool, 2)
	cfg := calm
	cfg.Pool, cfg.WorkerID, cfg.Logger = pool, "a", slog.New(slog.DiscardHandler)
	o := New(cfg)
	s, err := o.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close(context.Background())
	o.Drain()
	if _, err := o.take(t.Context(), s, wabas); err != nil {
		t.Fatal(err)
	}
	if n := len(o.Leases()); n != len(wabas) {
		t.Fatalf("%d leases, want %d", n, len(wabas))
	}
	for _, l := range o.Leases() {
		if !l.Yielding() {
			t.Errorf("%s does not yield", l.WABAID)
		}
	}
}

// A release that did not reach the database, or a lease of a session that broke, must not stay with a worker that does
// nothing for it: it runs out, and whoever should own the WABA takes it.
func TestAFailedReleaseRunsOut(t *testing.T) {
	pool := pgtest.New(t)
	wabas := addWABAs(t, pool, 12)
	a := startWorker(t, pool, "a", hasty, false)
	settled(t, wabas, a)
	b := startWorker(t, pool, "b", hasty, true)
	theirs := share("b", []string{"a", "b"}, wabas)
	if len(theirs) == 0 {
		t.Fatal("the second worker's share is empty")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, waba := range theirs {
		eventually(t, "a yields", func() bool { l := a.lease(waba); return l != nil && l.Yielding() })
		if err := a.Release(cancelled, a.lease(waba)); !errors.Is(err, context.Canceled) {
			t.Fatalf("a release with a context that is over: %v", err)
		}
	}
	settled(t, wabas, a, b)
}

func TestDeletedRows(t *testing.T) {
	pool := pgtest.New(t)
	wabas := addWABAs(t, pool, 3)
	a := startWorker(t, pool, "a", calm, true)
	settled(t, wabas, a)
	gone := a.lease(wabas[0])
	exec(t, pool, `DELETE FROM wabas WHERE waba_id = $1::text`, wabas[0])
	eventually(t, "the deleted WABA is given up", func() bool { return gone.Lost() && readLease(t, pool, wabas[0]).WorkerID == "" })
	settled(t, wabas[1:], a)

	kept := a.lease(wabas[1])
	exec(t, pool, `DELETE FROM workers WHERE worker_id = 'a'`)
	eventually(t, "the worker whose row was deleted begins anew", kept.Lost)
	settled(t, wabas[1:], a)
	if now := a.lease(wabas[1]); now.Epoch <= kept.Epoch {
		t.Errorf("epoch %d after %d", now.Epoch, kept.Epoch)
	}

	kept = a.lease(wabas[2])
	exec(t, pool, `UPDATE leases SET worker_id = 'stranger', epoch = epoch + 1 WHERE waba_id = $1::text`, wabas[2])
	eventually(t, "a lease that went to another is lost", kept.Lost)
	if l := a.lease(wabas[1]); l == nil || l.Lost() {
		t.Error("with one lease the others were lost")
	}
}

// A try marked by a slow renewal's clock would look as if it lay after its worker's death.
func TestSlowRoundTripsDoNotMoveTheClock(t *testing.T) {
	o := New(Config{WorkerID: "a"})
	at := time.Now()
	trip := func(length time.Duration, ahead time.Duration) {
		o.compareClocks(at, at.Add(length), at.Add(length/2+ahead))
	}
	check := func(want time.Duration) {
		t.Helper()
		if got := o.DBTime(at).Sub(at.Round(0)); got != want {
			t.Errorf("the database's clock is taken to be %v ahead, want %v", got, want)
		}
	}
	trip(time.Second, 500*time.Millisecond) // better than nothing
	check(500 * time.Millisecond)
	trip(time.Millisecond, 20*time.Millisecond)
	check(20 * time.Millisecond)
	trip(time.Second, 500*time.Millisecond)
	check(20 * time.Millisecond)
	trip(3*time.Millisecond, 21*time.Millisecond)
	check(21 * time.Millisecond)
	at = at.Add(2 * time.Minute)
	trip(50*time.Millisecond, 30*time.Millisecond) // nothing better for long
	check(30 * time.Millisecond)
}
