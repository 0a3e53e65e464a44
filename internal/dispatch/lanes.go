package dispatch

import (
	"context"
	"math"
	"slices"
	"time"

	"wagate/internal/limiter"
	"wagate/internal/owner"
	"wagate/internal/store"
)

const (
	// closeForPause is the length from which a pause closes a lane; for a shorter one its claimed jobs wait.
	closeForPause = 5 * time.Second
	// maxWorkers bounds what a lane without a limit claims at a time. A limited lane claims what its rate needs.
	maxWorkers        = 256
	maxLimitedWorkers = 1024
)

// adopt brings the WABAs in line with the leases: it takes up what was taken, and lets go of what was lost or is to be
// handed over. It says whether a WABA is new.
func (d *Dispatcher) adopt(ctx context.Context) (fresh bool) {
	leases := d.cfg.Owner.Leases()
	var yielded []*owner.Lease
	d.mu.Lock()
	for _, l := range leases {
		if d.wabas[l.WABAID] != nil || l.Lost() {
			continue
		}
		if l.Yielding() {
			yielded = append(yielded, l) // before it was taken up
			continue
		}
		d.wabas[l.WABAID] = &waba{id: l.WABAID, lease: l, line: limiter.NewLine(limiter.Limit{}, d.cfg.Lead), since: time.Now()}
		fresh = true
	}
	for id, w := range d.wabas {
		if !w.gone && (w.lease.Lost() || w.lease.Yielding()) {
			w.gone = true
			w.line.Close() // waiting tries give themselves back
		}
		if !w.gone || !w.idle() {
			continue
		}
		for _, ln := range w.lanes {
			if d.lanes[ln.phone] == ln {
				delete(d.lanes, ln.phone)
			}
		}
		delete(d.wabas, id)
		if !w.lease.Lost() {
			yielded = append(yielded, w.lease)
		}
	}
	d.mu.Unlock()
	for _, l := range yielded {
		d.attempt(ctx, "releasing a WABA", func(ctx context.Context) error { return d.cfg.Owner.Release(ctx, l) })
	}
	return fresh
}

// idle says that no lane claims and no job runs.
func (w *waba) idle() bool {
	for _, ln := range w.lanes {
		if ln.state != laneClosed || ln.running.Load() > 0 {
			return false
		}
	}
	return true
}

// refresh reads the settings and pauses of what is owned.
func (d *Dispatcher) refresh(ctx context.Context) error {
	owned := d.ownedWABAs()
	if len(owned) == 0 {
		return nil
	}
	rows, err := d.store.Lanes(ctx, owned)
	if err != nil {
		return err
	}
	readAt := time.Now()
	pauses, err := d.store.Pauses(ctx)
	if err != nil {
		return err
	}
	bounded, err := d.store.BoundedKeys(ctx)
	if err != nil {
		return err
	}
	d.boundedKeys.Store(&bounded)
	phones := make([]string, len(rows))
	for i, r := range rows {
		phones[i] = r.PhoneNumberID
	}
	inbound, err := d.store.InboundRates(ctx, phones)
	if err != nil {
		return err
	}
	restore, err := d.toRestore(ctx)
	if err != nil {
		return err
	}
	tokens := map[string]*string{}
	for _, r := range rows {
		if _, known := tokens[r.WABAID]; !known {
			tokens[r.WABAID] = d.token(ctx, r)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := make(map[string]*waba, len(rows))
	for _, r := range rows {
		w := d.wabas[r.WABAID]
		if w == nil || w.gone {
			continue
		}
		seen[r.PhoneNumberID] = w
		w.appID.Store(&r.AppID)
		w.token.Store(tokens[r.WABAID])
		ln := d.lanes[r.PhoneNumberID]
		if ln == nil {
			ln = &lane{phone: r.PhoneNumberID, waba: w}
			ln.latency.Store(int64(150 * time.Millisecond))
			d.lanes[r.PhoneNumberID] = ln
			w.lanes = append(w.lanes, ln)
		}
		if ln.waba != w {
			continue // it moved, and its old lane has to close first
		}
		d.setLimits(w, ln, r, inbound[r.PhoneNumberID])
	}
	d.restore(restore)
	for phone, ln := range d.lanes {
		ln.removed = !ln.waba.gone && seen[phone] != ln.waba
		if ln.removed && ln.state == laneClosed && ln.running.Load() == 0 {
			delete(d.lanes, phone)
			ln.waba.lanes = slices.DeleteFunc(ln.waba.lanes, func(l *lane) bool { return l == ln })
			ln.waba.line.Update(func(b *limiter.Budget, _ time.Time) { b.RemovePhone(phone) })
		}
	}
	for _, key := range d.applyPauses(pauses, readAt) {
		// A webhook told of a throughput that was refused.
		if ln := d.lanes[key.value]; key.scope == "phone" && ln != nil && d.backoffs[key].code == codeThroughput && readAt.Sub(ln.waba.since) > 2*time.Second {
			ln.waba.line.Update(func(b *limiter.Budget, now time.Time) { b.SlowPhone(ln.phone, now) })
		}
	}
	return nil
}

// slowRate is up to how many messages a second a lane is a slow one.
const slowRate = 20

// codeThroughput is Meta's code of a phone number that sends too fast.
const codeThroughput = 130429

// setLimits brings a lane's limits into the line. d.mu is held.
func (d *Dispatcher) setLimits(w *waba, ln *lane, r store.Lane, inbound float64) {
	w.limit = limiter.Limit{PerSecond: r.WABAPerSecond, Burst: r.WABABurst}
	w.perHour = r.WABAPerHour
	w.perSecond.Store(r.WABAPerSecond > 0)
	ln.limit = limiter.Limit{PerSecond: r.PhonePerSecond, Burst: r.PhoneBurst}
	ln.slow.Store(r.PhonePerSecond > 0 && r.PhonePerSecond <= slowRate)
	ln.checksWindows.Store(r.ChecksWindows)
	every := time.Duration(r.PairSeconds * float64(time.Second))
	ln.pairNanos.Store(int64(every))
	ln.pairBurst.Store(int64(r.PairBurst))
	var p *portfolio
	if r.PortfolioLimit > 0 {
		p = &portfolio{r.PortfolioID, r.PortfolioLimit}
	}
	w.portfolio.Store(p)
	was := w.appLimited.Swap(r.AppLimited)
	w.line.Update(func(b *limiter.Budget, now time.Time) {
		b.SetWABA(w.limit, now)
		b.SetWABAHour(r.WABAPerHour, now)
		b.SetPhone(ln.phone, ln.limit, now)
		b.SetInbound(ln.phone, inbound, now)
		b.SetPair(ln.phone, every, r.PairBurst, w.since, now)
		switch {
		case !r.AppLimited && was:
			b.SetApp(limiter.Limit{}, time.Time{}, now)
		case r.AppLimited && !was:
			b.SetApp(limiter.Limit{}, now, now) // nothing without a share
		}
	})
	if r.AppLimited && !was {
		select {
		case d.lease <- struct{}{}:
		default:
		}
	}
}

// kept is what the owner of before left in the database of WABAs that are new here.
type kept struct {
	wabas []*waba
	rates []store.Rate
	pairs []store.PairState
}

func (d *Dispatcher) toRestore(ctx context.Context) (k kept, err error) {
	var phones, ids []string
	d.mu.RLock()
	for _, w := range d.wabas {
		if !w.gone && !w.restored {
			k.wabas, ids = append(k.wabas, w), append(ids, w.id)
		}
	}
	d.mu.RUnlock()
	if len(ids) == 0 {
		return k, nil
	}
	rows, err := d.store.Lanes(ctx, ids)
	if err != nil {
		return k, err
	}
	for _, r := range rows {
		phones = append(phones, r.PhoneNumberID)
	}
	if k.rates, err = d.store.Rates(ctx, ids); err != nil {
		return k, err
	}
	k.pairs, err = d.store.PairStates(ctx, phones)
	return k, err
}

// restore puts slowed rates and busy recipients into the lines of the WABAs that are new here. d.mu is held.
func (d *Dispatcher) restore(k kept) {
	local := time.Now()
	ahead := d.cfg.Owner.DBTime(local).Sub(local)
	for _, w := range k.wabas {
		w.restored = true
		w.line.Update(func(b *limiter.Budget, now time.Time) {
			for _, r := range k.rates {
				s := limiter.Slowed{Ceiling: r.Ceiling, At: r.SlowedAt.Add(-ahead)}
				switch {
				case r.Scope == "waba" && r.Value == w.id:
					b.RestoreWABA(s, now)
				case r.Scope == "phone" && slices.ContainsFunc(w.lanes, func(l *lane) bool { return l.phone == r.Value }):
					b.RestorePhone(r.Value, s, now)
				}
			}
			for _, p := range k.pairs {
				if slices.ContainsFunc(w.lanes, func(l *lane) bool { return l.phone == p.PhoneNumberID }) {
					b.LoadPair(p.PhoneNumberID, p.User, p.TAT.Add(-ahead), now)
				}
			}
		})
	}
}

// token opens a WABA's access token; nil when it has none or it does not open. Nothing is sent without one, and nothing
// fails for want of it: the lanes stay closed.
func (d *Dispatcher) token(ctx context.Context, r store.Lane) *string {
	var token string
	var err error
	if len(r.AccessToken) > 0 {
		token, err = d.cfg.OpenToken(r.WABAID, r.AccessToken)
	}
	if token == "" {
		if _, told := d.tokenless[r.WABAID]; !told {
			d.tokenless[r.WABAID] = struct{}{}
			d.log.ErrorContext(ctx, "a WABA has no access token, or it does not open with WAGATE_SECRET_KEY; its messages wait", "waba", r.WABAID, "err", err)
		}
		return nil
	}
	delete(d.tokenless, r.WABAID)
	return &token
}

func (d *Dispatcher) ownedWABAs() []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	ids := make([]string, 0, len(d.wabas))
	for id, w := range d.wabas {
		if !w.gone {
			ids = append(ids, id)
		}
	}
	return ids
}

// openLanes opens the closed lanes that have work and no long pause.
func (d *Dispatcher) openLanes(ctx context.Context) error {
	now := time.Now()
	var closed []*lane
	d.mu.RLock()
	for _, ln := range d.lanes {
		if ln.state == laneClosed && !ln.waba.gone && !ln.removed && ln.waba.restored && ln.waba.token.Load() != nil && !ln.pausedLong(now) {
			closed = append(closed, ln)
		}
	}
	d.mu.RUnlock()
	if len(closed) == 0 {
		return nil
	}
	phones := make([]string, len(closed))
	for i, ln := range closed {
		phones[i] = ln.phone
	}
	work, err := d.client.LanesWithWork(ctx, d.store.Pool(), phones)
	if err != nil {
		return err
	}
	for _, ln := range closed {
		if !work[ln.phone] {
			continue
		}
		ln.waba.line.Open(ln.phone)
		workers, rate := ln.size()
		if err := d.client.OpenLane(ln.phone, workers, rate); err != nil {
			return err
		}
		d.mu.Lock()
		ln.workers = workers
		d.mu.Unlock()
		ln.lastWork.Store(now.UnixNano())
		d.setState(ln, laneOpen)
	}
	return nil
}

// size gives how many jobs a lane may claim at a time: what goes out at its rate while a try waits for its slot, its
// mark and its answer. More would sit in running; fewer would leave slots unused.
func (ln *lane) size() (workers int, perSecond float64) {
	perSecond = ln.limit.PerSecond
	if w := ln.waba.limit.PerSecond; w > 0 && (perSecond <= 0 || w < perSecond) {
		perSecond = w
	}
	if h := ln.waba.perHour / 3600; h > 0 && (perSecond <= 0 || h < perSecond) {
		perSecond = h
	}
	if perSecond <= 0 {
		return maxWorkers, 0
	}
	seconds := 0.5 + 1.25*time.Duration(ln.latency.Load()).Seconds()
	return min(max(int(math.Ceil(perSecond*seconds)), 1), maxLimitedWorkers), perSecond
}

// closeLanes ends the claiming of lanes that are paused, idle, removed or no longer owned. River waits for a lane's
// running jobs and opens no other lane meanwhile, so each call is short and comes again.
func (d *Dispatcher) closeLanes(ctx context.Context, now time.Time) {
	var closing []*lane
	d.mu.RLock()
	for _, w := range d.wabas {
		for _, ln := range w.lanes {
			if ln.state == laneClosed {
				continue
			}
			if ln.state == laneClosing || d.shouldClose(ln, now) {
				closing = append(closing, ln)
			}
		}
	}
	d.mu.RUnlock()
	for _, ln := range closing {
		if ln.state == laneOpen {
			d.setState(ln, laneClosing)
			ln.draining.Store(true)
			ln.waba.line.Shut(ln.phone)
			ln.nextTry = now
		} else if ln.running.Load() > 0 && now.Before(ln.nextTry) {
			continue
		}
		short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
		err := d.client.CloseLane(short, ln.phone)
		cancel()
		if err != nil {
			ln.nextTry = now.Add(500 * time.Millisecond)
			continue
		}
		d.setState(ln, laneClosed)
		ln.draining.Store(false)
	}
}

func (d *Dispatcher) shouldClose(ln *lane, now time.Time) bool {
	if ln.waba.gone || ln.removed || ln.waba.token.Load() == nil {
		return true
	}
	if ln.running.Load() == 0 && now.UnixNano()-ln.lastWork.Load() > int64(d.cfg.IdleClose) {
		return true
	}
	// Closing waits for the POSTs under way, and nothing goes out meanwhile: not worth it while one hangs.
	if ln.posts.oldest(now) > time.Second {
		return false
	}
	want, _ := ln.size()
	return ln.pausedLong(now) || want > ln.workers*2 || want*4 < ln.workers
}

func (ln *lane) pausedLong(now time.Time) bool {
	until, paused := ln.waba.line.Blocked(ln.phone, now)
	return paused && until.Sub(now) > closeForPause
}

func (d *Dispatcher) setState(ln *lane, s laneState) {
	d.mu.Lock()
	ln.state = s
	d.mu.Unlock()
}
