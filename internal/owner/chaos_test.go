package owner

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wagate/internal/pgtest"
)

// watch looks at the leases of all workers all the time, and reports a WABA for which two may send at one instant.
type watch struct {
	mu      sync.Mutex
	workers []*worker
	looks   atomic.Int64
	sights  atomic.Int64
}

func (w *watch) add(n *worker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.workers = append(w.workers, n)
}

func (w *watch) run(t *testing.T, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		w.look(t)
	}
}

// look goes over the workers twice: a lease that is fresh in both passes was so while the first one ended, so two of
// them were fresh at the same instant.
func (w *watch) look(t *testing.T) {
	w.mu.Lock()
	workers := slices.Clone(w.workers)
	w.mu.Unlock()
	type sight struct {
		by    string
		lease *Lease
	}
	var first []sight
	for _, o := range workers {
		for _, l := range o.Leases() {
			if l.Fresh(time.Now()) {
				first = append(first, sight{o.WorkerID(), l})
			}
		}
	}
	owners := map[string]sight{}
	now := time.Now()
	for _, s := range first {
		if !s.lease.Fresh(now) {
			continue
		}
		w.sights.Add(1)
		if other, two := owners[s.lease.WABAID]; two {
			t.Errorf("WABA %s is owned by %s (epoch %d) and %s (epoch %d)", s.lease.WABAID, other.by, other.lease.Epoch, s.by, s.lease.Epoch)
		}
		owners[s.lease.WABAID] = s
	}
	w.looks.Add(1)
}

// Workers come, are slow to let go, stop cleanly, die, freeze and lose their connection: at no instant do two own the same WABA, and after
// each of these everything is owned again.
func TestAtMostOneOwner(t *testing.T) {
	pool := pgtest.New(t, pgtest.MaxConns(20))
	wabas := addWABAs(t, pool, 10)
	var w watch
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { w.run(t, stop) })
	defer wg.Wait()
	defer close(stop)

	n := 0
	start := func() *worker {
		n++
		o := startWorker(t, pool, fmt.Sprintf("worker-%d", n), hasty, true)
		w.add(o)
		return o
	}
	a, b := start(), start()
	settled(t, wabas, a, b)
	for range 2 {
		// One more comes, and what is to go to it is not let go for a while. Another loses its connection.
		a.busy <- struct{}{}
		b.busy <- struct{}{}
		c := start()
		beatsOn(t, pool, c.WorkerID(), 5)
		if got := c.fresh(); len(got) != 0 {
			t.Errorf("%s owns %v before they were released", c.WorkerID(), got)
		}
		<-a.busy
		<-b.busy
		terminate(t, pool, a.WorkerID())
		settled(t, wabas, a, b, c)

		// One freezes: its renewals hang until others have what it had.
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `SELECT FROM workers WHERE worker_id = $1::text FOR UPDATE`, b.WorkerID()); err != nil {
			t.Fatal(err)
		}
		settled(t, wabas, a, c)
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		settled(t, wabas, a, b, c)

		// One dies while another stops cleanly and a third comes.
		d := start()
		b.Drain()
		a.stop()
		settled(t, wabas, c, d)
		b.stop()
		a, b = c, d
	}
	a.stop()
	settled(t, wabas, b)
	if w.looks.Load() == 0 || w.sights.Load() == 0 {
		t.Errorf("looked %d times and saw %d leases", w.looks.Load(), w.sights.Load())
	}
}
