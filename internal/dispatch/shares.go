package dispatch

import (
	"context"
	"errors"
	"time"

	"wagate/internal/limiter"
	"wagate/internal/store"
)

const (
	// shareTTL is how long a share of an app's calls is leased for, shareEvery how often it is leased anew.
	shareTTL   = 3 * time.Second
	shareEvery = 500 * time.Millisecond
	// shareSoon is when it is leased anew while others have still to give back what is its due.
	shareSoon = 150 * time.Millisecond
	// shareMargin is how long before the end of its lease a share is used no more: the database counts from later on.
	shareMargin = 100 * time.Millisecond
)

// shareHolds says whether the WABA may send at now by its share of the app's calls.
func (w *waba) shareHolds(now time.Time) bool {
	return !w.appLimited.Load() || now.UnixNano() < w.shareUntil.Load()
}

// leaseShares leases the shares of app limits for every WABA that needs one, until ctx ends.
func (d *Dispatcher) leaseShares(ctx context.Context) {
	timer := time.NewTimer(shareEvery)
	defer timer.Stop()
	used := map[string]usage{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-d.lease:
		}
		less, err := d.leaseOnce(ctx, used)
		if err != nil && !errors.Is(err, context.Canceled) {
			d.log.WarnContext(ctx, "shares of apps were not leased, will be tried again", "err", err)
		}
		if less {
			timer.Reset(shareSoon)
		} else {
			timer.Reset(shareEvery)
		}
	}
}

// usage is what a WABA had sent at an instant.
type usage struct {
	slots int64
	at    time.Time
}

// leaseOnce leases the shares once; less says that one is below its due for the moment.
func (d *Dispatcher) leaseOnce(ctx context.Context, used map[string]usage) (less bool, err error) {
	var wants []store.ShareWant
	holders := map[string]*waba{}
	now := time.Now()
	d.mu.RLock()
	for _, w := range d.wabas {
		app := w.appID.Load()
		if w.gone || !w.appLimited.Load() || app == nil {
			continue
		}
		wants = append(wants, store.ShareWant{AppID: *app, Holder: w.id, Demand: d.demand(w, used, now)})
		holders[w.id] = w
	}
	d.mu.RUnlock()
	for id := range used {
		if holders[id] == nil {
			delete(used, id)
		}
	}
	if len(wants) == 0 {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, shareTTL-shareEvery)
	defer cancel()
	asked := time.Now()
	grants, err := d.store.LeaseShares(ctx, wants, shareTTL)
	if err != nil {
		// It may have been committed: what the shares became smaller by may be with others.
		for _, w := range holders {
			w.shareUntil.Store(0)
		}
		return false, err
	}
	until := asked.Add(shareTTL - shareMargin)
	for id, w := range holders {
		g, ok := grants[id]
		if !ok {
			continue
		}
		if !g.Limited {
			w.shareUntil.Store(until.UnixNano())
			w.line.Update(func(b *limiter.Budget, now time.Time) { b.SetApp(limiter.Limit{}, time.Time{}, now) })
			continue // its settings will say so too
		}
		w.line.Update(func(b *limiter.Budget, now time.Time) {
			if w.appLimited.Load() { // not if the limit was taken away meanwhile: nobody would clear it again
				b.SetApp(limiter.Limit{PerSecond: g.PerSecond, Burst: 1}, until, now)
			}
		})
		w.shareUntil.Store(until.UnixNano())
		less = less || g.PerSecond < 0.98*g.Target
	}
	return less, nil
}

// demand is what a WABA could send a second by its own limits while it has a backlog, else a little more than it sends.
// d.mu is held.
func (d *Dispatcher) demand(w *waba, used map[string]usage, now time.Time) float64 {
	slots := w.slots.Load()
	before := used[w.id]
	used[w.id] = usage{slots, now}
	// One that was just taken up goes on as it did with its owner of before, until its lanes are full.
	fresh := now.Sub(w.since) < freshFor
	busy, all := fresh, 0.0
	for _, ln := range w.lanes {
		if ln.state != laneOpen && !fresh {
			continue
		}
		running := ln.running.Load()
		busy = busy || (running > 0 && running*2 >= int64(ln.workers))
		if running > 0 || fresh {
			if ln.limit.PerSecond <= 0 {
				all += unlimitedDemand
			} else {
				all += ln.limit.PerSecond
			}
		}
	}
	if w.limit.PerSecond > 0 {
		all = min(all, w.limit.PerSecond)
	}
	if w.perHour > 0 {
		all = min(all, w.perHour/3600)
	}
	if busy {
		return all
	}
	if before.at.IsZero() {
		return min(all, 1)
	}
	return min(all, 2*float64(slots-before.slots)/max(now.Sub(before.at).Seconds(), 0.1)+1)
}

// freshFor is how long a WABA that was just taken up asks for all it could use.
const freshFor = 2 * time.Second

// unlimitedDemand stands for what a phone number without a limit could send a second.
const unlimitedDemand = 1000
