// Package callback tells clients what became of their messages: it posts events to subscriptions and callback_urls, signed,
// at least once, those of one message in their order, and keeps a dead address from holding up any other.
package callback

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/queue"
	"wagate/internal/seal"
	"wagate/internal/store"
)

const (
	// concurrency is how many chains of events are on their way to one endpoint at once.
	concurrency = 32
	// threshold is how many failures in a row open an endpoint's circuit.
	threshold = 10
	// retryBase is the first wait of an event's exponential backoff, retryMax its bound; each wait lies between half of it and
	// all.
	retryBase = 5 * time.Second
	retryMax  = time.Hour
	// probeBase and probeMax are those of an open circuit.
	probeBase = 15 * time.Second
	probeMax  = 10 * time.Minute
	// runFor bounds a job: then another takes its place, behind those of other endpoints.
	runFor = 30 * time.Second
	// alive is how often a job gives a sign of life at least; the store gives up on one after 20 s.
	alive = 4 * time.Second
	// gather is how long the end of an attempt waits for others to be recorded with it.
	gather = 5 * time.Millisecond
	// idleFor is how long a job without events looks out for new ones, at intervals from lookMin that double up to lookMax.
	idleFor = 300 * time.Millisecond
	lookMin = 10 * time.Millisecond
	lookMax = 80 * time.Millisecond
	// mendEvery is how often endpoints without a job are looked for.
	mendEvery = 5 * time.Second
	// stale is how long no job runs.
	stale = 5 * time.Minute
	// expireAtOnce bounds one statement that gives events up.
	expireAtOnce = 5000
)

// Config is what a Deliverer works with.
type Config struct {
	Store      *store.Store
	Jobs       *queue.Inserter
	Client     *Client
	Sealer     *seal.Sealer
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Deliverer works the jobs of callbacks in one process.
type Deliverer struct {
	cfg     Config
	log     *slog.Logger
	metrics metrics
	stop    chan struct{}
	once    sync.Once
	// retry and probe say how long the next attempt waits after n failures; tests have their own.
	retry, probe func(n int) time.Duration
	// idle is how long a job without events looks out for new ones.
	idle time.Duration
	// posted hears of each attempt; nil but in tests.
	posted func(*store.DueCallback, answer)
}

// New makes a Deliverer.
func New(cfg Config) *Deliverer {
	return &Deliverer{
		cfg: cfg, log: cfg.Logger, metrics: newMetrics(cfg.Registerer), stop: make(chan struct{}), idle: idleFor,
		retry: func(n int) time.Duration { return backoff(retryBase, retryMax, n) },
		probe: func(n int) time.Duration { return backoff(probeBase, probeMax, n) },
	}
}

// backoff is base × 2^n, at most limit, and of that a part between half and all.
func backoff(base, limit time.Duration, n int) time.Duration {
	wait := limit
	if n < 16 {
		wait = min(base<<n, limit)
	}
	return wait/2 + rand.N(wait/2+1) //nolint:gosec // jitter, no secret
}

// Stop lets jobs end what they have posted and hand on the rest. It does not wait for them: the queue's client does.
func (d *Deliverer) Stop() { d.once.Do(func() { close(d.stop) }) }

// Handle works one job: it delivers what waits for an endpoint, until nothing is due.
func (d *Deliverer) Handle(ctx context.Context, job queue.CallbackArgs) queue.Verdict {
	target, ours, err := d.begin(ctx, job)
	if err == nil && ours {
		r := newRun(d, job.Run, target)
		err = r.work(ctx)
		r.wait()
	}
	if err != nil {
		if ctx.Err() == nil {
			d.log.WarnContext(ctx, "delivering callbacks failed, will be tried again", "endpoint", job.Endpoint, "error", err)
		}
		return queue.Retry(err)
	}
	return queue.Settled()
}

func (d *Deliverer) begin(ctx context.Context, job queue.CallbackArgs) (t target, ours bool, err error) {
	if t.CallbackTarget, ours, err = d.cfg.Store.BeginCallbacks(ctx, job.Endpoint, job.Run); err != nil || !ours {
		return t, false, err
	}
	secret, old, until, place := t.Secret, t.OldSecret, t.OldSecretUntil, seal.CallbackSecret(t.EndpointID.String())
	if t.Kind == "url" {
		c, err := OwnerSecret(ctx, d.cfg.Store, d.cfg.Sealer, t.Owner)
		if err != nil {
			return t, false, err
		}
		secret, old, until, place = c.Secret, c.OldSecret, c.OldSecretUntil, seal.CallbackOwner(t.Owner)
	}
	t.signer, err = newSigner(t.Format, func(sealed []byte) ([]byte, error) { return d.cfg.Sealer.Open(sealed, place) }, secret, old, until, t.Now)
	return t, err == nil, err
}

// OwnerSecret gives what signs the callback_urls of an owner of keys, sealed; it is made where there is none yet.
func OwnerSecret(ctx context.Context, st *store.Store, sealer *seal.Sealer, owner string) (store.CallbackSecret, error) {
	return st.CallbackSecret(ctx, owner, sealer.Seal([]byte(NewSecret(FormatWagate)), seal.CallbackOwner(owner)))
}

// Run looks after endpoints without a job and events past their time, until ctx ends. Any number of processes may.
func (d *Deliverer) Run(ctx context.Context) {
	tick := time.NewTicker(mendEvery)
	defer tick.Stop()
	for {
		if err := d.mend(ctx); err != nil && ctx.Err() == nil {
			d.log.WarnContext(ctx, "looking after callbacks failed, will be tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (d *Deliverer) mend(ctx context.Context) error {
	n, err := d.cfg.Store.MendCallbacks(ctx)
	if n > 0 {
		d.log.WarnContext(ctx, "endpoints of callbacks had no job any more and have new ones", "endpoints", n)
	}
	_, forgetErr := d.cfg.Jobs.ForgetCallbacks(ctx, d.cfg.Store.Pool(), stale)
	late, expireErr := d.cfg.Store.ExpireCallbacks(ctx, expireAtOnce)
	if late > 0 {
		d.metrics.attempts.WithLabelValues("given_up").Add(float64(late))
		d.log.WarnContext(ctx, "callbacks were given up after their 24 hours; they are kept for replay", "events", late)
	}
	h, healthErr := d.cfg.Store.CallbackHealth(ctx)
	if healthErr == nil {
		d.metrics.open.Set(float64(h.Open))
		d.metrics.waiting.Set(float64(h.Waiting))
		d.metrics.oldest.Set(h.Oldest.Seconds())
	}
	return errors.Join(err, forgetErr, expireErr, healthErr)
}

type metrics struct {
	attempts *prometheus.CounterVec
	delay    prometheus.Histogram
	open     prometheus.Gauge
	waiting  prometheus.Gauge
	oldest   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wagate_callback_attempts_total", Help: "Events posted to clients by what came of it: delivered, failed; and given_up, which are tried no more.",
		}, []string{"result"}),
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "wagate_callback_delay_seconds", Help: "Time from an event's record to its delivery, of those delivered at the first attempt.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 14),
		}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "wagate_callback_open_circuits", Help: "Endpoints that are probed only, after too many failures in a row.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "wagate_callback_waiting", Help: "Events that wait to be delivered, counted up to 100,000.",
		}),
		oldest: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "wagate_callback_oldest_seconds", Help: "How long the event that waits longest has waited.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.attempts, m.delay, m.open, m.waiting, m.oldest)
	}
	return m
}

// chainOf is what is on its way to an endpoint: the events of one chain, one after the other.
type chainOf struct {
	id     uuid.UUID
	events []store.DueCallback
	bodies [][]byte
}
