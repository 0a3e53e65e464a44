package callback

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"wagate/internal/store"
)

// run is one run of an endpoint's job. One goroutine, work, claims and records; others post.
type run struct {
	d       *Deliverer
	number  int64
	target  target
	began   time.Time
	posting sync.WaitGroup
	results chan result

	inflight map[uuid.UUID]int // chains on their way, and how many events of each
	events   int               // in all of them
	ready    []result          // ended, not recorded
	state    store.CallbackState
	lost     bool // another job has taken the place of this one

	recorded time.Time
	seen     time.Time     // when something was due last
	look     time.Duration // between two looks at what is due
	next     time.Time     // the next look
}

// result is how an attempt ended; last says that nothing more of its chain comes.
type result struct {
	event  store.DueCallback
	answer answer
	last   bool
	cut    bool // not an end: the process stops
}

func newRun(d *Deliverer, number int64, t target) *run {
	now := time.Now()
	return &run{
		d: d, number: number, target: t, began: now, recorded: now, seen: now, look: lookMin, inflight: map[uuid.UUID]int{},
		results: make(chan result, concurrency),
		state:   store.CallbackState{Failures: t.Failures, Probes: t.Probes, OpenedAt: t.OpenedAt, HoldUntil: t.HoldUntil},
	}
}

// wait waits for what is still posting, after an error of ours; what ends then is posted again.
func (r *run) wait() {
	go func() { r.posting.Wait(); close(r.results) }()
	for range r.results { // only their end counts
	}
}

func (r *run) work(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(r.ready) > 0 || time.Since(r.recorded) > alive {
			if err := r.record(ctx); err != nil {
				return err
			}
		}
		done, err := r.step(ctx)
		if done || err != nil {
			return err
		}
		wait := alive / 2
		if r.claiming() {
			wait = max(time.Until(r.next), 0)
		}
		timer.Reset(wait)
		select {
		case res := <-r.results:
			r.ready = append(r.ready, res)
			r.gather()
		case <-timer.C:
		case <-r.d.stop:
			if len(r.inflight) > 0 { // the channel stays closed: wait for the others
				r.ready = append(r.ready, <-r.results)
			}
		case <-ctx.Done():
		}
	}
}

// gather takes what else ends within a moment.
func (r *run) gather() {
	timer := time.NewTimer(gather)
	defer timer.Stop()
	for len(r.ready) < r.events {
		select {
		case res := <-r.results:
			r.ready = append(r.ready, res)
		case <-timer.C:
			return
		}
	}
}

func (r *run) stopping() bool {
	select {
	case <-r.d.stop:
		return true
	default:
		return time.Since(r.began) > runFor
	}
}

func (r *run) held() bool { return r.state.HoldUntil != nil && r.state.HoldUntil.After(time.Now()) }

func (r *run) probing() bool { return r.state.OpenedAt != nil }

// claiming says whether more may be posted now.
func (r *run) claiming() bool {
	switch {
	case r.lost, r.state.Gone, r.stopping(), r.held():
		return false
	case r.probing():
		return len(r.inflight) == 0
	}
	return len(r.inflight) < concurrency
}

// step posts what is due, or ends the job when there is nothing on its way and nothing to do; done says so.
func (r *run) step(ctx context.Context) (done bool, err error) {
	if r.claiming() && !time.Now().Before(r.next) {
		n, err := r.claim(ctx)
		if err != nil {
			return false, err
		}
		if n > 0 {
			r.seen, r.look = time.Now(), lookMin
			r.next = time.Time{}
		} else {
			r.next = time.Now().Add(r.look)
			r.look = min(2*r.look, lookMax)
		}
	}
	if len(r.inflight) > 0 {
		return false, nil
	}
	st := r.d.cfg.Store
	switch {
	case r.lost, r.state.Gone:
		return true, nil
	case r.stopping():
		return true, st.YieldCallbacks(ctx, r.target.EndpointID, r.number)
	case r.held(), time.Since(r.seen) > r.d.idle:
		ended, err := st.EndCallbacks(ctx, r.target.EndpointID, r.number)
		if !ended && err == nil {
			r.next = time.Now().Add(lookMin)
		}
		return ended, err
	}
	return false, nil
}

// claim posts what is due, as much as there is room for, and gives how many chains.
func (r *run) claim(ctx context.Context) (int, error) {
	room := concurrency - len(r.inflight)
	limit := r.events + 4*room
	if r.probing() {
		room, limit = 1, 1
	}
	due, err := r.d.cfg.Store.DueCallbacks(ctx, r.target.EndpointID, limit, r.probing())
	if err != nil {
		return 0, err
	}
	chains := r.chains(due, room)
	if len(chains) == 0 {
		return 0, nil
	}
	if err := r.write(ctx, chains); err != nil {
		return 0, err
	}
	for _, c := range chains {
		r.inflight[c.id] = len(c.events)
		r.events += len(c.events)
		r.posting.Go(func() { r.post(ctx, c) })
	}
	return len(chains), nil
}

// chains groups what is due, but for what is on its way, into at most room chains.
func (r *run) chains(due []store.DueCallback, room int) []*chainOf {
	var all []*chainOf
	of := map[uuid.UUID]*chainOf{}
	for _, e := range due {
		if _, busy := r.inflight[e.Chain]; busy {
			continue
		}
		c := of[e.Chain]
		if c == nil {
			if len(all) == room {
				continue
			}
			c = &chainOf{id: e.Chain}
			of[e.Chain] = c
			all = append(all, c)
		}
		c.events = append(c.events, e)
	}
	for _, c := range all {
		slices.SortFunc(c.events, func(a, b store.DueCallback) int { return int(a.Seq - b.Seq) })
	}
	return all
}

// write makes the bodies of what is to be posted.
func (r *run) write(ctx context.Context, chains []*chainOf) error {
	var ids []uuid.UUID
	var wamids []string
	for _, c := range chains {
		for i := range c.events {
			switch e := &c.events[i]; e.Kind {
			case store.TellStatus:
				ids = append(ids, c.id)
			case store.TellInbound:
				wamids = append(wamids, repliesTo(e.Value)...)
			}
		}
	}
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	var f facts
	var err error
	if f.messages, err = r.d.cfg.Store.CallbackMessages(ctx, slices.Compact(ids)); err != nil {
		return err
	}
	if f.given, err = r.d.cfg.Store.GivenIDs(ctx, wamids); err != nil {
		return err
	}
	for _, c := range chains {
		c.bodies = make([][]byte, len(c.events))
		for i := range c.events {
			if c.bodies[i], err = body(r.target.Format, &c.events[i], &f); err != nil {
				r.d.log.ErrorContext(ctx, "a callback could not be written", "endpoint", r.target.EndpointID, "seq", c.events[i].Seq, "error", err)
			}
		}
	}
	return nil
}

// post posts the events of a chain, each after the one before was delivered.
func (r *run) post(ctx context.Context, c *chainOf) {
	for i := range c.events {
		e := &c.events[i]
		a := r.attempt(ctx, e, c.bodies[i])
		if r.d.posted != nil {
			r.d.posted(e, a)
		}
		res := result{event: *e, answer: a, cut: ctx.Err() != nil}
		res.event.Value, res.event.Detail = nil, nil
		res.last = a.err != "" || res.cut || i == len(c.events)-1 || r.stopping()
		r.results <- res
		if res.last {
			return
		}
	}
}

func (r *run) attempt(ctx context.Context, e *store.DueCallback, body []byte) answer {
	if body == nil {
		return answer{err: "the event could not be written", never: true}
	}
	to := r.target.URL
	if e.URL != "" {
		to = e.URL
	}
	header := http.Header{}
	if err := r.target.signer.sign(header, e.EventID.String(), time.Now(), body); err != nil {
		return answer{err: "the event could not be signed", never: true}
	}
	return r.d.cfg.Client.post(ctx, to, header, body)
}

// record keeps what has ended, and lets its chains go.
func (r *run) record(ctx context.Context) error {
	now := time.Now()
	results := make([]store.CallbackResult, 0, len(r.ready))
	r.state.Delivered, r.state.Failed, r.state.LastError = false, false, ""
	opened := r.state.OpenedAt
	for _, res := range r.ready {
		if res.cut {
			continue
		}
		results = append(results, r.judge(res, now))
	}
	ours, err := r.d.cfg.Store.RecordCallbacks(ctx, r.target.EndpointID, r.number, results, r.state)
	if err != nil {
		return err
	}
	for i, res := range r.ready {
		if !res.last {
			continue
		}
		r.events -= r.inflight[res.event.Chain]
		delete(r.inflight, r.ready[i].event.Chain)
	}
	r.ready, r.recorded, r.lost = r.ready[:0], now, !ours
	r.tell(ctx, results, opened)
	return nil
}

// judge says what follows from an attempt, for its event and for the endpoint.
func (r *run) judge(res result, now time.Time) store.CallbackResult {
	e, a, st := &res.event, res.answer, &r.state
	out := store.CallbackResult{Seq: e.Seq}
	if a.err == "" {
		out.Delivered, st.Delivered = true, true
		if e.Attempts == 0 {
			r.d.metrics.delay.Observe(max(now.Sub(e.CreatedAt), 0).Seconds())
		}
		st.Failures = 0
		if st.OpenedAt != nil {
			st.OpenedAt, st.HoldUntil, st.Probes = nil, nil, 0
		}
		return out
	}
	st.Failed, st.LastError = true, a.err
	out.Error, out.Wait = a.err, max(r.d.retry(e.Attempts), a.retryAfter)
	left := e.ExpiresAt.Sub(now)
	out.Wait = min(out.Wait, max(left, 0))
	out.Dead = left <= 0
	if a.status == http.StatusGone || a.never {
		out.Dead = true
		st.Gone = st.Gone || (r.target.Kind == "subscription" && !a.never)
		return out // the endpoint is there
	}
	st.Failures++
	hold := time.Time{}
	switch {
	case st.OpenedAt != nil && (st.HoldUntil == nil || !st.HoldUntil.After(now)): // a probe
		st.Probes++
		hold = now.Add(r.d.probe(st.Probes))
	case st.OpenedAt == nil && st.Failures >= threshold:
		st.OpenedAt, st.Probes = &now, 0
		hold = now.Add(r.d.probe(0))
	}
	if asked := now.Add(a.retryAfter); a.retryAfter > 0 && asked.After(hold) {
		hold = asked
	}
	if !hold.IsZero() && (st.HoldUntil == nil || hold.After(*st.HoldUntil)) {
		st.HoldUntil = &hold
	}
	return out
}

// tell counts and logs.
func (r *run) tell(ctx context.Context, results []store.CallbackResult, before *time.Time) {
	for _, res := range results {
		word := "delivered"
		if !res.Delivered {
			word = "failed"
		}
		r.d.metrics.attempts.WithLabelValues(word).Inc()
		if res.Dead {
			r.d.metrics.attempts.WithLabelValues("given_up").Inc()
		}
	}
	log := r.d.log.With("endpoint", r.target.EndpointID, "kind", r.target.Kind, "owner", r.target.Owner)
	switch {
	case r.state.Gone:
		log.ErrorContext(ctx, "a subscription answered that it is gone: it gets nothing more until it is made active again")
	case before == nil && r.state.OpenedAt != nil:
		log.ErrorContext(ctx, "a callback endpoint failed too often in a row: its events wait, and it is probed", "failures", r.state.Failures, "last_error", r.state.LastError)
	case before != nil && r.state.OpenedAt == nil:
		log.InfoContext(ctx, "a callback endpoint takes events again")
	}
}
