// Package webhook hears what Meta reports: it answers the handshake, checks signatures, keeps every notification byte
// for byte before it answers, and applies the statuses in it to the messages.
package webhook

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/batch"
	"wagate/internal/queue"
	"wagate/internal/store"
)

const (
	// linger is how long a notification waits for others to be committed with it. Meta waits for seconds.
	linger = time.Millisecond
	// inFlight bounds the bodies that are in memory at once; one more waits for room.
	inFlight = 64
	// keepWait bounds one commit of notifications.
	keepWait = 5 * time.Second
	// secretsFor is how long the apps' secrets are remembered.
	secretsFor = 2 * time.Second
	// secretsAgain is how old they must be to be read again for a signature none of them fits: a secret that was set
	// just now then counts at once, and a flood of wrong signatures costs ten reads a second.
	secretsAgain = 100 * time.Millisecond
)

// AppSecret is the secret with which Meta signs the notifications of one app.
type AppSecret struct {
	AppID  string
	Secret []byte
}

// Deps is what a Receiver needs. Store and Secrets must be set.
type Deps struct {
	Store *store.Store
	// Secrets gives the secret of every app that has one.
	Secrets func(context.Context) ([]AppSecret, error)
	// Keyword says whether a user who has written, or pressed, one of the texts ends marketing of a WABA, or takes it up again;
	// nil knows no keywords.
	Keyword func(ctx context.Context, wabaID string, texts []string) (stop, resume bool, err error)
	// Jobs puts in the jobs of messages that are sent again after a failure; nil lets none be.
	Jobs *queue.Inserter
	// BackoffMax bounds the pause after a throttle that a webhook tells of; 0 leaves it to the code table.
	BackoffMax time.Duration
	// VerifyToken answers Meta's handshake; without one every handshake is refused.
	VerifyToken string
	Logger      *slog.Logger
	Registerer  prometheus.Registerer
	// Poll is how often the applier looks for work that no handler of this process told it of: what other processes
	// took in, and retries. Default one second.
	Poll time.Duration
}

// Receiver takes notifications in and applies them. Handler and Run may be used in one process or in several.
type Receiver struct {
	deps    Deps
	log     *slog.Logger
	metrics metrics
	keep    *batch.Group[store.RawWebhook, struct{}]
	room    chan struct{}
	wake    chan struct{}
	// searching is held by whoever tries the secrets of many apps.
	searching chan struct{}
	// applied hears of each committed set; nil but in tests.
	applied func(outcome)
	// applyWait is the constant but in tests.
	applyWait time.Duration

	mu        sync.Mutex // guards what follows
	secrets   []AppSecret
	secretsAt time.Time
	signers   map[string]string // the app that signed for a WABA last
}

// New makes a Receiver; Close ends the goroutines it starts.
func New(d Deps) *Receiver {
	if d.Poll <= 0 {
		d.Poll = time.Second
	}
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Receiver{
		deps: d, log: d.Logger, metrics: newMetrics(d.Registerer),
		room: make(chan struct{}, inFlight), wake: make(chan struct{}, 1), applyWait: applyWait, signers: map[string]string{},
		searching: make(chan struct{}, 1),
	}
	r.keep = batch.New(batch.Config{Max: inFlight, Linger: linger, Flushers: 2}, r.flush)
	return r
}

// Close lets the notifications under way be committed; later ones get 503.
func (r *Receiver) Close() { r.keep.Close() }

func (r *Receiver) flush(ctx context.Context, set []store.RawWebhook) ([]batch.Result[struct{}], error) {
	ctx, cancel := context.WithTimeout(ctx, keepWait)
	defer cancel()
	if err := r.deps.Store.InsertRaw(ctx, set); err != nil {
		return nil, err
	}
	select {
	case r.wake <- struct{}{}:
	default: // the applier has a signal waiting already
	}
	return make([]batch.Result[struct{}], len(set)), nil
}

// appSecrets gives the secrets, read again when they are older than maxAge, and when they were read.
func (r *Receiver) appSecrets(ctx context.Context, maxAge time.Duration) ([]AppSecret, time.Time, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.secretsAt.IsZero() && time.Since(r.secretsAt) < maxAge {
		return r.secrets, r.secretsAt, nil
	}
	secrets, err := r.deps.Secrets(ctx)
	if err != nil {
		return nil, time.Time{}, err
	}
	r.secrets, r.secretsAt = secrets, time.Now()
	return secrets, r.secretsAt, nil
}

// eventID gives the id of the event row of a notification's nth status: a UUIDv7 of the time of receipt, the same each
// time the notification is applied, and in the order of the statuses.
func eventID(raw uuid.UUID, n int) uuid.UUID {
	id, digest := raw, sha256.Sum256(fmt.Appendf(nil, "%s/%d", raw, n))
	id[6], id[7] = 0x70|byte(n>>8)&0x0f, byte(n) //nolint:gosec // its low bytes are what is wanted
	copy(id[8:], digest[:8])
	id[8] = id[8]&0x3f | 0x80
	return id
}

type metrics struct {
	payloads *prometheus.CounterVec
	changes  *prometheus.CounterVec
	statuses *prometheus.CounterVec
	aside    prometheus.Counter
	twice    prometheus.Counter
	redos    prometheus.Counter

	unknownCodes prometheus.Counter
	alerts       *prometheus.CounterVec
	templates    *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		payloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wagate_webhook_requests_total", Help: "Notifications that Meta posted, by how they were answered.",
		}, []string{"result"}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wagate_webhook_changes_total", Help: "Changes in applied notifications, by what they hold.",
		}, []string{"kind"}),
		statuses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wagate_webhook_statuses_total", Help: "Statuses in applied notifications, by whether their message was found.",
		}, []string{"result"}),
		aside: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wagate_webhook_set_aside_total", Help: "Notifications that could not be read or applied and were set aside.",
		}),
		twice: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wagate_webhook_duplicates_total", Help: "Second wamids by which Meta accepted a message again.",
		}),
	}
	m.redos = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "wagate_webhook_redos_total", Help: "Messages that are sent again because a webhook said failed and the code table allows it.",
	})
	m.unknownCodes = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "wagate_webhook_unknown_codes_total", Help: "Errors in notifications with a code that nobody knows.",
	})
	m.alerts = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wagate_account_alerts_total", Help: "What Meta said of accounts and phone numbers (GET /v1/alerts), by severity.",
	}, []string{"severity"})
	m.templates = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wagate_webhook_template_news_total", Help: "What notifications told of templates that was news: a status, a lower quality, another category, doubt about components.",
	}, []string{"news"})
	if reg != nil {
		reg.MustRegister(m.alerts, m.payloads, m.changes, m.statuses, m.aside, m.twice, m.redos, m.unknownCodes, m.templates)
	}
	return m
}
