// Package dispatch sends: it works the jobs of the lanes whose WABAs this worker owns. For each it loads the message,
// waits for a slot, marks the try, makes it at the slot, and records how it ended in the commit that completes the job.
package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/batch"
	"wagate/internal/limiter"
	"wagate/internal/owner"
	"wagate/internal/queue"
	"wagate/internal/sender"
	"wagate/internal/store"
)

// Config of a Dispatcher. The zero value of a duration or count takes its preset.
type Config struct {
	Store  *store.Store
	Owner  *owner.Owner
	Sender *sender.Sender
	Logger *slog.Logger
	// OpenToken opens a WABA's sealed access token.
	OpenToken func(wabaID string, sealed []byte) (string, error)
	// Registerer takes the package's metrics; nil keeps none.
	Registerer prometheus.Registerer
	// UnknownAfter is how long a message stays unknown before its on_unknown decides; preset 60 s.
	UnknownAfter time.Duration
	// Retries bounds the tries of a message that ended with proof that nothing was accepted; preset 8. Throttles do not count.
	Retries int
	// Lead is how long before its slot a try is marked at most; preset 250 ms.
	Lead time.Duration
	// Late is how long after its slot a POST may still begin; preset 25 ms. Half of it under an app's limit, 40 ms in lanes of
	// 20 messages a second or less.
	Late time.Duration
	// PostTimeout bounds one POST, as the Sender is configured; preset 30 s. An open try of a living worker is left to it
	// for twice that long.
	PostTimeout time.Duration
	// RecipientAllow lists numbers or prefixes, digits only; when not empty, a message to anyone else fails without a call.
	RecipientAllow []string
	// Media puts media up that messages name by our ids; nil makes such messages wait.
	Media Media
	// IdleClose is how long a lane without work stays open; preset 30 s.
	IdleClose time.Duration
	// BackoffMax bounds the pause after a throttle, Meta's own word on its length aside; preset 24 h.
	BackoffMax time.Duration
	// WindowsClosed says of customer service windows whether they are known to be closed; nil knows of none.
	WindowsClosed func(context.Context, []store.WindowAsk) ([]bool, error)
}

// Dispatcher works the lanes of one process.
type Dispatcher struct {
	cfg     Config
	store   *store.Store
	log     *slog.Logger
	client  *queue.Client
	jobs    *queue.Inserter
	metrics *metrics

	loads   *batch.Group[uuid.UUID, store.Outbound]
	marks   *batch.Group[store.Mark, bool]
	ends    *batch.Group[ending, struct{}]
	reopens *batch.Group[reopening, struct{}]
	// fallbacks makes messages into their fallback templates.
	fallbacks *batch.Group[uuid.UUID, bool]
	// unknowns says of each whether its message waits again.
	unknowns *batch.Group[ending, bool]
	// reserves takes places among the unique recipients of portfolios, where those are limited.
	reserves *batch.Group[store.RecipientWant, store.RecipientGrant]
	// metaIDs finds the ids under which Meta has media.
	metaIDs *batch.Group[[]store.MediaAt, map[store.MediaAt]string]
	uploads *uploads

	kick chan struct{}
	// ordered says that a message of an ordering key has ended.
	ordered chan struct{}
	// lease asks for shares of apps before their time.
	lease chan struct{}
	// selection are the pauses of templates, flows, tags, keys and priorities.
	selection atomic.Pointer[selection]
	// boundedKeys are the API keys whose backlog is counted.
	boundedKeys atomic.Pointer[map[uuid.UUID]bool]

	mu       sync.RWMutex
	wabas    map[string]*waba
	lanes    map[string]*lane
	backoffs map[scopeKey]*backoff

	// The keeper's own.
	tokenless map[string]struct{} // WABAs of which it was said
	expired   time.Time           // up to it expired messages were ended, in database time
	window    store.Window        // up to it service windows were looked at for ended ones
	drop      uuid.UUID           // up to it holds were looked at for messages that ended
	published time.Time

	counted map[string]time.Time // when a lane is counted again; of the goroutine that counts

	activeMu sync.Mutex
	active   map[int64]struct{}
}

// waba is an owned WABA.
type waba struct {
	id    string
	lease *owner.Lease
	line  *limiter.Line
	limit limiter.Limit // written by the keeper only, as perHour
	lanes []*lane
	// perHour is messages an hour; 0 means no limit.
	perHour float64
	appID   atomic.Pointer[string]
	token   atomic.Pointer[string]
	// portfolio is nil without a limit of unique recipients.
	portfolio atomic.Pointer[portfolio]
	crowd     atomic.Int64 // about how many messages are held for want of a recipient's place
	// appLimited says that a share of the app's calls is needed.
	appLimited atomic.Bool
	shareUntil atomic.Int64 // Unix nanoseconds: the end of the share of the app's calls
	perSecond  atomic.Bool  // it has a limit a second
	slots      atomic.Int64 // handed out, for the demand of a share
	since      time.Time    // when it was taken up
	restored   bool         // what was kept of slowed rates and busy recipients was read
	keysAfter  string       // where the look at ordering keys goes on
	ordering   ordering
	// gone is set when the lease was lost or is yielded: its lanes close and it is dropped.
	gone bool
}

// portfolio is a limit of unique recipients in a moving day.
type portfolio struct {
	id    string
	limit int
}

// posts are the POSTs of a lane that are on the wire.
type posts struct {
	mu    sync.Mutex
	began map[int64]time.Time
}

func (p *posts) add(jobID int64, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.began == nil {
		p.began = map[int64]time.Time{}
	}
	p.began[jobID] = at
}

func (p *posts) remove(jobID int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.began, jobID)
}

// oldest gives how long the longest has been under way.
func (p *posts) oldest(now time.Time) (age time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.began {
		age = max(age, now.Sub(at))
	}
	return age
}

type laneState int

const (
	laneClosed laneState = iota
	laneOpen
	laneClosing
)

// lane is a phone number of an owned WABA. The keeper alone writes its plain fields.
type lane struct {
	phone   string
	waba    *waba
	limit   limiter.Limit
	state   laneState
	workers int
	nextTry time.Time // when closing is next tried
	removed bool      // the phone number was deleted or moved to another WABA

	posts   posts
	accepts accepts
	// checksWindows says that free-form messages are kept back where the service window is closed; unheard are then the accepts
	// of which something should be heard.
	checksWindows atomic.Bool
	unheard       accepts
	running       atomic.Int64
	draining      atomic.Bool  // it is being closed
	slow          atomic.Bool  // its limit is slowRate or less
	lastWork      atomic.Int64 // Unix nanoseconds
	latency       atomic.Int64 // moving average of a POST, nanoseconds

	pairNanos atomic.Int64 // time for one more message to the same recipient; 0: no limit
	pairBurst atomic.Int64
	pairs     pairTails
	left      leaving
	lastError atomic.Pointer[lastError]
	credit    [4]float64 // of jobs that are to go before those of higher priorities; the keeper's
	promoted  time.Time
}

// New makes a dispatcher. Give its Handle to the queue client, then call Run with that client.
func New(cfg Config) (*Dispatcher, error) {
	preset := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	preset(&cfg.UnknownAfter, time.Minute)
	preset(&cfg.Lead, 250*time.Millisecond)
	preset(&cfg.Late, 25*time.Millisecond)
	preset(&cfg.PostTimeout, 30*time.Second)
	preset(&cfg.IdleClose, 30*time.Second)
	preset(&cfg.BackoffMax, 24*time.Hour)
	if cfg.Retries <= 0 {
		cfg.Retries = 8
	}
	jobs, err := queue.NewInserter(cfg.Store.Pool(), cfg.Logger)
	if err != nil {
		return nil, err
	}
	d := &Dispatcher{
		cfg: cfg, store: cfg.Store, log: cfg.Logger, jobs: jobs, metrics: newMetrics(cfg.Registerer),
		kick: make(chan struct{}, 1), lease: make(chan struct{}, 1), ordered: make(chan struct{}, 1),
		wabas: map[string]*waba{}, lanes: map[string]*lane{}, backoffs: map[scopeKey]*backoff{}, active: map[int64]struct{}{},
		tokenless: map[string]struct{}{}, counted: map[string]time.Time{}, uploads: newUploads(),
	}
	d.selection.Store(&selection{})
	// Many slow lanes are a steady trickle: gathered for some milliseconds it costs the database a fraction.
	d.loads = batch.New(batch.Config{Max: 500, Flushers: 2, Every: 20 * time.Millisecond}, d.load)
	d.marks = batch.New(batch.Config{Max: 500, Flushers: 2, Linger: time.Millisecond, Every: 15 * time.Millisecond}, d.mark)
	d.ends = batch.New(batch.Config{Max: 500, Flushers: 2, Linger: time.Millisecond, Every: 20 * time.Millisecond}, d.recordEndings)
	d.unknowns = batch.New(batch.Config{Max: 500, Linger: time.Millisecond}, d.recordUnknowns)
	d.reopens = batch.New(batch.Config{Max: 500, Linger: time.Millisecond}, d.recordReopenings)
	d.fallbacks = batch.New(batch.Config{Max: 500, Linger: time.Millisecond}, d.useFallbacks)
	d.reserves = batch.New(batch.Config{Max: 500, Linger: time.Millisecond}, d.reserve)
	d.metaIDs = batch.New(batch.Config{Max: 500, Flushers: 2, Linger: time.Millisecond}, d.lookMetaIDs)
	return d, nil
}

// Run keeps the lanes until ctx ends: it opens and closes them as leases, work and pauses come and go, takes over what
// dead workers left, and settles unknown messages at their deadline.
func (d *Dispatcher) Run(ctx context.Context, client *queue.Client) error {
	d.client = client
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { d.leaseShares(ctx) })
	wg.Go(func() { d.countLanes(ctx) })
	wg.Go(func() { d.followOrdering(ctx) })
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	var refreshed, swept, settled, swept10 time.Time
	for {
		now := time.Now()
		fresh := d.adopt(ctx)
		d.closeLanes(ctx, now)
		if fresh || now.Sub(refreshed) >= 700*time.Millisecond { // with the tick: a pause is seen within a second
			if d.attempt(ctx, "refreshing lanes", d.refresh) {
				refreshed = now
			}
			d.attempt(ctx, "releasing what pauses held", d.releaseCauses)
			d.attempt(ctx, "moving starved priorities on", d.promote)
		}
		d.attempt(ctx, "releasing holds", d.releaseDue)
		d.attempt(ctx, "opening lanes", d.openLanes)
		if fresh || now.Sub(swept) >= 2*time.Second {
			d.attempt(ctx, "taking jobs over", d.takeOver)
			swept = now
		}
		if now.Sub(settled) >= time.Second {
			d.attempt(ctx, "settling unknown messages", d.settle)
			d.attempt(ctx, "ending expired messages", d.expire)
			d.attempt(ctx, "looking at ordering keys", d.releaseOrdered)
			settled = now
		}
		if now.Sub(d.published) >= publishEvery && d.attempt(ctx, "publishing lanes", d.publish) {
			d.published = now
		}
		if now.Sub(swept10) >= 10*time.Second {
			d.attempt(ctx, "sweeping", d.sweep)
			d.attempt(ctx, "looking for phone numbers that are not heard", d.breakSpans)
			swept10 = now
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.cfg.Owner.Changed():
		case <-d.kick:
		case <-tick.C:
		}
	}
}

// attempt runs one step of the keeper, bounded; what fails now is tried again at the next turn.
func (d *Dispatcher) attempt(ctx context.Context, what string, step func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	err := step(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		d.log.WarnContext(ctx, "a step of the keeper failed, will be tried again", "step", what, "err", err)
	}
	return err == nil
}

// Drain yields every WABA: it begins nothing more, ends what is begun, releases the leases. It returns when nothing is
// owned any more, or with ctx. Run must be running.
func (d *Dispatcher) Drain(ctx context.Context) error {
	d.cfg.Owner.Drain()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		d.mu.RLock()
		n := len(d.wabas)
		d.mu.RUnlock()
		if n == 0 && len(d.cfg.Owner.Leases()) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			d.poke()
		}
	}
}

// Close ends the dispatcher's goroutines, after the queue client was stopped.
func (d *Dispatcher) Close() {
	d.uploads.close()
	d.loads.Close()
	d.metaIDs.Close()
	d.reserves.Close()
	d.marks.Close()
	d.reopens.Close()
	d.fallbacks.Close()
	d.unknowns.Close()
	d.ends.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.wabas {
		w.line.Close()
	}
}

// Owned lists the WABAs that this process works.
func (d *Dispatcher) Owned() []string { return d.ownedWABAs() }

// Token gives the access token of an owned WABA that has one.
func (d *Dispatcher) Token(_ context.Context, wabaID string) (string, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if w := d.wabas[wabaID]; w != nil && !w.gone {
		if token := w.token.Load(); token != nil {
			return *token, nil
		}
	}
	return "", fmt.Errorf("WABA %s: not owned here, or without an access token", wabaID)
}

func (d *Dispatcher) poke() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

func (d *Dispatcher) laneOf(phoneNumberID string) *lane {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.lanes[phoneNumberID]
}
