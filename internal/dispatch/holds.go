package dispatch

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"wagate/internal/queue"
	"wagate/internal/store"
)

const (
	// releaseAtOnce bounds what one statement releases, releaseRounds how many of them one turn of the keeper makes.
	releaseAtOnce = 1000
	releaseRounds = 5
	// releaseFor bounds how long one turn of the keeper releases what pauses held: pauses and limits are looked at between.
	releaseFor = 200 * time.Millisecond
	// followEvery is the least time between two looks at the ordering keys of which a message has ended.
	followEvery = 20 * time.Millisecond
	// orderingKeysAtOnce bounds the ordering keys of one WABA that are looked at in one turn.
	orderingKeysAtOnce = 200
)

// pairTails spreads the messages that are held for the pair limit of one recipient: each comes back when its turn is.
type pairTails struct {
	mu    sync.Mutex
	tails map[tail]time.Time
}

// tail names the messages that wait behind each other: of one user and one priority.
type tail struct {
	user     string
	priority int
}

// next gives when the next message of a user is to be looked at again, whose pair limit lets it go in delay.
func (p *pairTails) next(of tail, now time.Time, delay, every time.Duration) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tails == nil {
		p.tails = map[tail]time.Time{}
	}
	if len(p.tails) > 10_000 { // of users whose turn has come
		for u, at := range p.tails {
			if at.Before(now) {
				delete(p.tails, u)
			}
		}
	}
	at := latest(now.Add(delay), p.tails[of])
	p.tails[of] = at.Add(every)
	return at
}

// ordering collects the ordering keys of a WABA of which a message has ended, so that the next one follows soon.
type ordering struct {
	mu   sync.Mutex
	keys map[string]map[string]struct{} // by phone number
}

func (o *ordering) ended(phone, key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.keys == nil {
		o.keys = map[string]map[string]struct{}{}
	}
	if o.keys[phone] == nil {
		o.keys[phone] = map[string]struct{}{}
	}
	o.keys[phone][key] = struct{}{}
}

func (o *ordering) take() map[string]map[string]struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	keys := o.keys
	o.keys = nil
	return keys
}

// park ends a job and holds its message instead, until then or, where that is zero, until the cause is gone.
func (d *Dispatcher) park(ctx context.Context, r *run, kind, value string, until time.Time) queue.Verdict {
	d.release(ctx, r)
	hold := d.holdFor(r, kind, value, until)
	err := d.untilRecorded(ctx, func(ctx context.Context) error {
		_, err := d.reopens.Do(ctx, reopening{job: r.job, hold: &hold})
		return err
	})
	if err != nil {
		return queue.Retry(err)
	}
	d.metrics.held.WithLabelValues(kind).Inc()
	return queue.Settled()
}

func (d *Dispatcher) holdFor(r *run, kind, value string, until time.Time) store.Hold {
	h := store.Hold{
		MessageID: r.msg.ID, PhoneNumberID: r.ln.phone, WABAID: r.ln.waba.id, Kind: kind, Value: value, Until: until,
		Priority: r.msg.Priority, Place: r.job.Place,
	}
	switch {
	case kind == store.HoldPair:
		h.Priority = r.job.Priority // promoted ones stay so: their turn has come once
	case !until.IsZero():
		h.Until = until.Add(releaseAhead) // what is released ahead of its time would only be held again
	}
	return h
}

// putBack makes jobs of what was released, each at its place, and wakes their lanes.
func (d *Dispatcher) putBack(ctx context.Context, tx pgx.Tx, holds []store.Hold) error {
	if len(holds) == 0 {
		return nil
	}
	sends := make([]queue.Send, len(holds))
	phones := map[string]struct{}{}
	for i, h := range holds {
		sends[i] = queue.Send{MessageID: h.MessageID, PhoneNumberID: h.PhoneNumberID, Priority: h.Priority, Place: h.Place}
		phones[h.PhoneNumberID] = struct{}{}
	}
	if err := d.jobs.Insert(ctx, tx, sends); err != nil {
		return err
	}
	lanes := make([]string, 0, len(phones))
	for phone := range phones {
		lanes = append(lanes, phone)
	}
	return d.jobs.Wake(ctx, tx, lanes)
}

// releaseDue releases the holds whose time has come.
func (d *Dispatcher) releaseDue(ctx context.Context) error {
	owned := d.ownedWABAs()
	if len(owned) == 0 {
		return nil
	}
	for range releaseRounds {
		n := 0
		err := d.store.InTx(ctx, func(tx pgx.Tx) error {
			holds, err := d.store.ReleaseDue(ctx, tx, owned, d.cfg.Owner.DBTime(time.Now().Add(releaseAhead)), releaseAtOnce)
			n = len(holds)
			if err != nil {
				return err
			}
			return d.putBack(ctx, tx, holds)
		})
		if err != nil || n < releaseAtOnce {
			return err
		}
	}
	return nil
}

// followOrdering lets the next message of an ordering key go soon after one of it has ended, until ctx ends.
func (d *Dispatcher) followOrdering(ctx context.Context) {
	pace := time.NewTicker(followEvery)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.ordered:
		}
		d.attempt(ctx, "releasing the next of ordering keys", d.releaseNext)
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
	}
}

// releaseNext releases the next message of the ordering keys of which one has ended here.
func (d *Dispatcher) releaseNext(ctx context.Context) error {
	for _, w := range d.living() {
		for phone, set := range w.ordering.take() {
			keys := make([]string, 0, len(set))
			for key := range set {
				keys = append(keys, key)
			}
			err := d.store.InTx(ctx, func(tx pgx.Tx) error {
				holds, err := d.store.ReleaseNext(ctx, tx, w.id, phone, keys)
				if err != nil {
					return err
				}
				return d.putBack(ctx, tx, holds)
			})
			if err != nil {
				return err // the look at all keys finds them
			}
		}
	}
	return nil
}

// releaseOrdered looks at the ordering keys of every owned WABA, some at a time: what settled a message elsewhere (a
// webhook, an operator, its expiry) lets the next one go.
func (d *Dispatcher) releaseOrdered(ctx context.Context) error {
	for _, w := range d.living() {
		err := d.store.InTx(ctx, func(tx pgx.Tx) error {
			holds, next, err := d.store.ReleaseOrdered(ctx, tx, w.id, w.keysAfter, orderingKeysAtOnce, releaseAtOnce)
			if err != nil {
				return err
			}
			w.keysAfter = next
			return d.putBack(ctx, tx, holds)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// releaseCauses releases what pauses of templates, flows, tags, keys and priorities held that are not in force any more.
func (d *Dispatcher) releaseCauses(ctx context.Context) error {
	owned := d.ownedWABAs()
	if len(owned) == 0 {
		return nil
	}
	causes, err := d.store.HoldCauses(ctx, owned)
	if err != nil {
		return err
	}
	start := time.Now()
	for _, c := range causes {
		if time.Since(start) > releaseFor {
			return nil
		}
		if d.selection.Load().inForce(c.Kind, c.Value, time.Now()) {
			continue
		}
		for time.Since(start) < releaseFor {
			n := 0
			err := d.store.InTx(ctx, func(tx pgx.Tx) error {
				holds, err := d.store.ReleaseCause(ctx, tx, c, releaseAtOnce)
				n = len(holds)
				if err != nil {
					return err
				}
				return d.putBack(ctx, tx, holds)
			})
			if err != nil {
				return err
			}
			if n < releaseAtOnce {
				break
			}
		}
	}
	return nil
}

// sweep removes what is of no more use: holds of messages that ended while held, states of recipients that are quiet,
// days that are over.
func (d *Dispatcher) sweep(ctx context.Context) error {
	owned := d.ownedWABAs()
	if len(owned) == 0 {
		return nil
	}
	next, err := d.store.DropHolds(ctx, owned, d.drop, 2000)
	if err != nil {
		return err
	}
	d.drop = next
	if _, err := d.store.SweepPairStates(ctx, 1000); err != nil {
		return err
	}
	if _, err := d.store.SweepRecipients(ctx, 1000); err != nil {
		return err
	}
	if _, err := d.store.SweepInbound(ctx, 1000); err != nil {
		return err
	}
	if err := d.store.SweepAccountNews(ctx, 1000); err != nil {
		return err
	}
	d.window, _, err = d.store.SweepWindows(ctx, d.window, 1000)
	return err
}

// living lists the WABAs that are worked.
func (d *Dispatcher) living() []*waba {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]*waba, 0, len(d.wabas))
	for _, w := range d.wabas {
		if !w.gone {
			all = append(all, w)
		}
	}
	return all
}
