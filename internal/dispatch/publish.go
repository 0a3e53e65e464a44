package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/google/uuid"

	"wagate/internal/limiter"
	"wagate/internal/queue"
	"wagate/internal/store"
)

const (
	// publishEvery is how often the state of lanes that did something is told to gateways and people.
	publishEvery = 2 * time.Second
	// reserved is the share of a lane's rate that each priority but the first has, whatever waits before it.
	reserved = 0.05
	// countCost bounds what counting backlogs costs: a lane is counted again after so many times as long as it took.
	countCost  = 1000
	countEvery = 30 * time.Second
)

// leaving counts the messages of a lane that wait no longer, since the last publication.
type leaving struct {
	mu         sync.Mutex
	byPriority [4]int64
	byKey      map[uuid.UUID]int64
}

// leaves counts a message whose job has ended.
func (d *Dispatcher) leaves(r *run) {
	if r.msg.OrderingKey != "" {
		r.ln.waba.ordering.ended(r.ln.phone, r.msg.OrderingKey)
		select {
		case d.ordered <- struct{}{}:
		default:
		}
	}
	l := &r.ln.left
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := r.msg.Priority; p >= 1 && p <= 4 {
		l.byPriority[p-1]++
	}
	if keys := d.boundedKeys.Load(); keys != nil && (*keys)[r.msg.KeyID] {
		if l.byKey == nil {
			l.byKey = map[uuid.UUID]int64{}
		}
		l.byKey[r.msg.KeyID]++
	}
}

func (l *leaving) take() (byPriority [4]int64, byKey map[uuid.UUID]int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	byPriority, byKey = l.byPriority, l.byKey
	l.byPriority, l.byKey = [4]int64{}, nil
	return byPriority, byKey
}

// laneView is what is published of a lane, beside the numbers.
type laneView struct {
	Phone     scopeView  `json:"phone"`
	WABA      scopeView  `json:"waba"`
	WABAHour  *scopeView `json:"waba_hour,omitempty"`
	App       *shareView `json:"app,omitempty"`
	Owner     string     `json:"owner"`
	Lane      string     `json:"lane"`
	Waiting   int        `json:"waiting_in_memory"`
	LastError *lastError `json:"last_error,omitempty"`
}

// scopeView is one budget: rates are a second (an hour for waba_hour), null for no limit.
type scopeView struct {
	Configured *float64    `json:"configured"`
	InForce    *float64    `json:"in_force"`
	Tokens     float64     `json:"tokens"`
	Slowed     *slowedView `json:"slowed,omitempty"`
	Inbound    float64     `json:"inbound_per_second,omitempty"`
	// Usage is how much of the rate the usage headers leave, 1 for all of it.
	Usage   float64    `json:"usage_factor"`
	Probing bool       `json:"probing,omitempty"`
	Blocked *time.Time `json:"blocked_until,omitempty"`
}

type slowedView struct {
	Ceiling float64   `json:"ceiling"`
	At      time.Time `json:"at"`
}

// shareView is the WABA's share of its app's calls, a second.
type shareView struct {
	Share float64    `json:"share"`
	Until *time.Time `json:"until,omitempty"`
	Usage float64    `json:"usage_factor"`
}

func viewScope(s limiter.ScopeState) scopeView {
	v := scopeView{Tokens: math.Round(s.Tokens*1000) / 1000, Inbound: s.Inbound, Usage: s.Usage, Probing: s.Probing}
	if s.Configured > 0 {
		v.Configured = &s.Configured
	}
	if s.InForce > 0 {
		v.InForce = &s.InForce
	}
	if s.Ceiling > 0 {
		v.Slowed = &slowedView{s.Ceiling, s.SlowedAt.UTC()}
	}
	if !s.BlockedUntil.IsZero() {
		until := s.BlockedUntil.UTC()
		v.Blocked = &until
	}
	return v
}

// viewLane gives a lane's view and the messages a second that it may send now, 0 for no limit.
func viewLane(s limiter.State) (v laneView, perSecond float64) {
	v = laneView{Phone: viewScope(s.Phone), WABA: viewScope(s.WABA)}
	rates := []float64{s.Phone.InForce, s.WABA.InForce}
	if s.WABAHour.Configured > 0 {
		hour := viewScope(s.WABAHour)
		v.WABAHour = &hour
		rates = append(rates, s.WABAHour.InForce/3600)
	}
	if s.App.Leased {
		v.App = &shareView{Share: s.App.InForce, Usage: s.App.Usage}
		if !s.App.LeasedUntil.IsZero() {
			until := s.App.LeasedUntil.UTC()
			v.App.Until = &until
		}
		rates = append(rates, s.App.InForce)
	}
	for _, r := range rates {
		if r > 0 && (perSecond == 0 || r < perSecond) {
			perSecond = r
		}
	}
	return v, perSecond
}

// publish tells how the lanes stand that are open or have been since the last time.
func (d *Dispatcher) publish(ctx context.Context) error {
	var news []store.LaneNews
	var keys []store.KeyLeft
	now := time.Now()
	d.mu.RLock()
	for _, ln := range d.lanes {
		if ln.waba.gone || (ln.state == laneClosed && now.UnixNano()-ln.lastWork.Load() > int64(2*publishEvery)) {
			continue
		}
		left, byKey := ln.left.take()
		for key, n := range byKey {
			keys = append(keys, store.KeyLeft{KeyID: key, PhoneNumberID: ln.phone, Messages: n})
		}
		view, perSecond := viewLane(ln.waba.line.State(ln.phone))
		_, view.Waiting = ln.waba.line.Next(ln.phone)
		view.Owner, view.Lane, view.LastError = d.cfg.Owner.WorkerID(), [...]string{"closed", "open", "closing"}[ln.state], ln.lastError.Load()
		raw, err := json.Marshal(view)
		if err != nil {
			d.mu.RUnlock()
			return err
		}
		news = append(news, store.LaneNews{PhoneNumberID: ln.phone, Left: left, PerSecond: perSecond, State: raw})
	}
	d.mu.RUnlock()
	if len(news) == 0 {
		return nil
	}
	if err := d.store.PublishLanes(ctx, d.cfg.Owner.WorkerID(), news); err != nil {
		return err
	}
	if len(keys) > 0 {
		return d.store.LowerKeyBacklogs(ctx, keys)
	}
	return nil
}

// promote lets some jobs of starved priorities go first, in lanes that are full: their reserved share.
func (d *Dispatcher) promote(ctx context.Context) error {
	var starved []queue.Starved
	now := time.Now()
	d.mu.RLock()
	for _, ln := range d.lanes {
		took := now.Sub(ln.promoted).Seconds()
		ln.promoted = now
		if ln.state != laneOpen || ln.running.Load()*4 < int64(ln.workers)*3 {
			ln.credit = [4]float64{}
			continue
		}
		_, rate := ln.size()
		if rate <= 0 {
			rate = unlimitedDemand
		}
		for p := 2; p <= 4; p++ {
			c := &ln.credit[p-1]
			*c = min(*c+reserved*rate*min(took, 5), max(reserved*rate*5, 1))
			if n := math.Floor(*c); n >= 1 {
				starved = append(starved, queue.Starved{PhoneNumberID: ln.phone, Priority: p, Jobs: int(n)})
				*c -= n
			}
		}
	}
	d.mu.RUnlock()
	if len(starved) == 0 {
		return nil
	}
	n, err := d.client.Promote(ctx, d.store.Pool(), starved)
	d.metrics.promoted.Add(float64(n))
	return err
}

// countLanes counts the backlogs of owned lanes now and then, until ctx ends: the counts between are moved on only.
func (d *Dispatcher) countLanes(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := d.countOnce(ctx, time.Now()); err != nil && !errors.Is(err, context.Canceled) {
			d.log.WarnContext(ctx, "a backlog was not counted, will be tried again", "err", err)
		}
	}
}

// countOnce counts up to a hundred lanes whose time has come.
func (d *Dispatcher) countOnce(ctx context.Context, now time.Time) error {
	type due struct{ waba, phone string }
	var lanes []due
	d.mu.RLock()
	for phone, ln := range d.lanes {
		if !ln.waba.gone && now.After(d.counted[phone]) && len(lanes) < 100 {
			lanes = append(lanes, due{ln.waba.id, phone})
		}
	}
	for phone := range d.counted {
		if d.lanes[phone] == nil {
			delete(d.counted, phone)
		}
	}
	d.mu.RUnlock()
	for _, l := range lanes {
		start := time.Now()
		if err := d.countLane(ctx, l.waba, l.phone); err != nil {
			return err
		}
		wait := max(countEvery, countCost*time.Since(start))
		d.counted[l.phone] = start.Add(min(wait, time.Hour))
	}
	return nil
}

func (d *Dispatcher) countLane(ctx context.Context, waba, phone string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	waiting, err := d.client.Count(ctx, d.store.Pool(), phone)
	if err != nil {
		return err
	}
	held, err := d.store.HeldCount(ctx, waba, phone)
	if err != nil {
		return err
	}
	for p := range waiting {
		waiting[p] += held[p]
	}
	if err := d.store.SetBacklog(ctx, phone, waiting); err != nil {
		return err
	}
	if keys := d.boundedKeys.Load(); keys == nil || len(*keys) == 0 {
		return nil
	}
	counts := map[uuid.UUID]int64{}
	for after := int64(0); ; {
		const page = 5000
		ids, last, err := d.client.WaitingAfter(ctx, d.store.Pool(), phone, after, page)
		if err != nil {
			return err
		}
		if len(ids) > 0 {
			part, err := d.store.CountKeys(ctx, ids)
			if err != nil {
				return err
			}
			for key, n := range part {
				counts[key] += n
			}
		}
		if len(ids) < page {
			return d.store.SetKeyBacklogs(ctx, phone, counts)
		}
		after = last
	}
}
