// Package simulator is a stand-in for Meta's WhatsApp Cloud API: it answers message
// requests in the Graph API's shape, holds strict rate limits, posts signed status
// webhooks and keeps a ledger of all it accepted. It imports nothing of the gateway,
// so that a misreading of the API on one side cannot agree with itself on the other.
//
// The last four digits of the recipient steer what happens to a message:
//
//	0001  refused at once, 131026 (HTTP 400)
//	0002  throttled once, 130429 (HTTP 400), then accepted
//	0003  sent, never delivered
//	0004  sent, then read without delivered
//	0005  each status sent twice
//	0006  statuses out of order: read, delivered, sent
//	0007  accepted, connection closed without an answer; statuses follow
//	0008  accepted, then a failed webhook with 131026
//	0009  accepted, then HTTP 502 with an empty body; statuses follow
//	0010  throttled once, 130429 with HTTP 429, then accepted
//	0011  throttled once by the pair limit, 131056 (HTTP 400), then accepted
//	0012  connection reset before the accept, once; accepted on a later try
//	0013  accepted, the answer comes only after Config.SlowAnswer; statuses follow
//	0014  sent, delivered, read
//	0015  HTTP 500, 131000, nothing accepted, no status ever
//	0016  the status webhooks arrive before the HTTP answer
//	0017  accepted, no status ever
//	0018  as 0007, but no status ever
//	0019  sent, delivered, played
//
// Any other recipient gets sent and delivered. A reaction gets only sent, as Meta's
// documentation says. "Once" is once per phone number, recipient and our own message id
// (from biz_opaque_callback_data g1:<id>:<try>), or per phone number and recipient
// where a request carries no such id.
//
// SetChaos lets requests and webhooks of all others go wrong by chance, on a seed.
package simulator

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultPhonePerSecond is Meta's default throughput of a phone number (messages
	// a second). Config does not apply it by itself.
	DefaultPhonePerSecond = 80
	// DefaultStatusDelay stands between two steps of a message's life.
	DefaultStatusDelay = 50 * time.Millisecond
	// DefaultSlowAnswer is how long a recipient ending in 0013 makes the client wait.
	DefaultSlowAnswer = 90 * time.Second
	// DefaultWebhookRetryFor is how long one webhook POST is retried.
	DefaultWebhookRetryFor = 5 * time.Minute

	closeBound = 5 * time.Second
)

// Config is how a Server starts. The zero value is usable: no limits, no webhooks, any
// token, no latency.
type Config struct {
	// AppSecret signs webhooks (X-Hub-Signature-256).
	AppSecret string
	// WebhookURL receives status webhooks; while it is empty statuses are discarded
	// when they fall due.
	WebhookURL string
	// Latency of each answer, plus a uniformly random part of LatencyJitter.
	Latency, LatencyJitter time.Duration
	// StatusDelay is the time between accept and sent, sent and delivered, and so on.
	// 0 means DefaultStatusDelay, a negative value none.
	StatusDelay time.Duration
	// PhonePerSecond, WABAPerSecond and AppPerSecond are the default limits of each
	// scope in messages a sliding second; 0 means none.
	PhonePerSecond, WABAPerSecond, AppPerSecond int
	// Pair limits messages from one phone number to one recipient, all spellings of
	// whose number are one; the zero Limit means none.
	Pair Limit
	// Token is the bearer token that must be presented; empty accepts any.
	Token string
	// SlowAnswer is the wait before an answer to a recipient ending in 0013, and before one
	// that chaos makes slow; 0 means DefaultSlowAnswer.
	SlowAnswer time.Duration
	// WebhookRetryFor bounds the retries of one webhook POST; 0 means
	// DefaultWebhookRetryFor.
	WebhookRetryFor time.Duration
	// MediaDir is where uploaded files are kept until Close, in a directory of their own;
	// empty means the system's directory for temporary files.
	MediaDir string
	// MediaBytes is how many bytes of uploaded media are kept, of the newest; 0 means
	// DefaultMediaBytes.
	MediaBytes int64
	// Logger gets webhook failures; nil discards them.
	Logger *slog.Logger

	// transport carries the webhooks; tests put their own here.
	transport http.RoundTripper
}

// PhoneConfig is what can be set for one phone number.
type PhoneConfig struct {
	// WABAID and AppID say whose limits the number shares; empty means "0".
	WABAID, AppID string
	// DisplayPhoneNumber appears in webhooks; empty means a number made from the id.
	DisplayPhoneNumber string
	// PerSecond is the number's own limit; 0 means the default limit of phones, a
	// negative value none.
	PerSecond int
	// Throughput is the level that reading the number answers: STANDARD (also when
	// empty), HIGH or NOT_APPLICABLE. It changes no limit.
	Throughput string
	// VerifiedName, QualityRating (empty means GREEN), Status (CONNECTED) and
	// MessagingLimit (TIER_UNLIMITED) are answered likewise.
	VerifiedName, QualityRating, Status, MessagingLimit string
}

// settings are read on every request and changed at run time as a whole.
type settings struct {
	token           string
	webhookURL      string
	appSecret       string
	latency, jitter time.Duration
	statusDelay     time.Duration
	slowAnswer      time.Duration
}

// Server is one simulated Cloud API. All its methods may be called at any time from
// any goroutine.
type Server struct {
	log      *slog.Logger
	epoch    time.Time // origin of the monotone clock that all arrivals are read on
	nonce    [10]byte  // makes wamids unique across restarts
	retryFor time.Duration
	client   *http.Client
	mux      *http.ServeMux

	settings   atomic.Pointer[settings]
	settingsMu sync.Mutex            // serialises changes of settings
	chaos      atomic.Pointer[chaos] // nil: none
	flights    flights

	mu       sync.Mutex // guards what follows, up to queue
	scopes   scopes
	ledger   ledger
	once     onceMemory
	rules    rules
	usage    Usage
	refusals refusalLog
	missed   missLog
	inbound  int64 // inbound messages made since the start
	managed  *managed

	queue   statusQueue
	traceID atomic.Uint64

	lifeMu  sync.Mutex
	cancel  context.CancelFunc
	started bool
	closed  chan struct{}
	wg      sync.WaitGroup
}

// New makes a Server. Handler works at once; statuses are posted only after Start.
func New(cfg Config) *Server {
	s := &Server{
		log:      cfg.Logger,
		epoch:    time.Now(),
		retryFor: cfg.WebhookRetryFor,
		closed:   make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.retryFor <= 0 {
		s.retryFor = DefaultWebhookRetryFor
	}
	if cfg.SlowAnswer <= 0 {
		cfg.SlowAnswer = DefaultSlowAnswer
	}
	_, _ = rand.Read(s.nonce[:]) // never fails (crypto/rand)
	s.client = newWebhookClient(cfg.transport)
	s.settings.Store(&settings{
		token:       cfg.Token,
		webhookURL:  cfg.WebhookURL,
		appSecret:   cfg.AppSecret,
		latency:     max(cfg.Latency, 0),
		jitter:      max(cfg.LatencyJitter, 0),
		statusDelay: statusDelay(cfg.StatusDelay),
		slowAnswer:  cfg.SlowAnswer,
	})
	s.scopes = newScopes(cfg)
	s.ledger = newLedger(1)
	s.once = newOnceMemory()
	s.missed = newMissLog(0)
	s.queue.init()
	s.managed = newManaged(cfg)
	s.mux = s.routes()
	return s
}

func statusDelay(d time.Duration) time.Duration {
	switch {
	case d == 0:
		return DefaultStatusDelay
	case d < 0:
		return 0
	}
	return d
}

// Handler serves the Graph routes and /_sim/….
func (s *Server) Handler() http.Handler { return s.mux }

// Start starts posting status webhooks, until ctx ends or Close. A second call, or one
// after Close, does nothing.
func (s *Server) Start(ctx context.Context) {
	s.lifeMu.Lock()
	defer s.lifeMu.Unlock()
	if s.started || s.isClosed() {
		return
	}
	s.started = true
	ctx, s.cancel = context.WithCancel(ctx)
	s.wg.Go(func() { s.runSchedule(ctx) })
	for range webhookPosters {
		s.wg.Go(func() { s.runPoster(ctx) })
	}
}

// Close stops the webhooks and lets waiting answers go, within a few seconds. Statuses
// not yet posted are dropped.
func (s *Server) Close() {
	s.lifeMu.Lock()
	if !s.isClosed() {
		close(s.closed)
	}
	if s.cancel != nil {
		s.cancel()
	}
	s.lifeMu.Unlock()

	stopped := make(chan struct{})
	go func() { s.wg.Wait(); close(stopped) }()
	select {
	case <-stopped:
	case <-time.After(closeBound):
		s.log.Error("simulator: webhook goroutines did not stop in time")
	}
	s.client.CloseIdleConnections()
	if err := s.managed.depot.close(); err != nil {
		s.log.Error("simulator: media stay behind", slog.Any("error", err))
	}
}

func (s *Server) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// SetWebhook sets where statuses go and what signs them, from the next attempt on.
// An empty url stops them.
func (s *Server) SetWebhook(url, appSecret string) {
	s.change(func(v *settings) { v.webhookURL, v.appSecret = url, appSecret })
}

// SetLatency sets the latency of each answer and its jitter.
func (s *Server) SetLatency(latency, jitter time.Duration) {
	s.change(func(v *settings) { v.latency, v.jitter = max(latency, 0), max(jitter, 0) })
}

// SetPhone registers a phone number or changes it; accepts counted so far stay.
func (s *Server) SetPhone(id string, cfg PhoneConfig) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scopes.setPhone(id, cfg)
}

var throughputLevels = map[string]bool{"STANDARD": true, "HIGH": true, "NOT_APPLICABLE": true}

// SetThroughput sets the throughput level that reading a phone number answers:
// STANDARD, HIGH or NOT_APPLICABLE. It changes no limit.
func (s *Server) SetThroughput(phone, level string) error {
	if !throughputLevels[level] {
		return errors.New("setting the throughput: the level is none of STANDARD, HIGH, NOT_APPLICABLE")
	}
	return s.updatePhone(phone, func(cfg *PhoneConfig) { cfg.Throughput = level }, nil)
}

// updatePhone registers a phone number or changes of it what f changes, and its limit
// to perSecond (as in PhoneConfig) if that is not nil.
func (s *Server) updatePhone(id string, f func(*PhoneConfig), perSecond *int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.scopes.phone(id)
	if p == nil {
		return errors.New("setting a phone number: too many phones")
	}
	cfg := p.cfg
	f(&cfg)
	if perSecond == nil {
		s.scopes.describe(p, cfg)
		return nil
	}
	cfg.PerSecond = *perSecond
	s.scopes.setPhone(id, cfg)
	return nil
}

// SetLimits sets the limit of one scope ("phone", "waba", "app", "pair", "management"):
// of the thing with that id, or the scope's default where id is empty. For "pair" the id
// is a phone number id, for "management" (the calls of a WABA that Meta counts) a WABA
// id. A zero Limit means none. It takes effect for the next request, with the accepts of
// the last hour remembered (the newest 16,384 at least); a pair remembers what it did
// under the pair limit before.
func (s *Server) SetLimits(scope, id string, limit Limit) error {
	if err := limit.check(scope); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.scopes.setLimit(scope, id, limit, s.scopes.monotone(s.now()))
}

// SetPairLimit gives each pair of the phone number (of all where it is empty) a bucket
// of burst tokens that gets one back each window; burst 0 means no limit.
func (s *Server) SetPairLimit(phone string, burst int, window time.Duration) error {
	return s.SetLimits("pair", phone, Limit{Burst: burst, Window: window})
}

// Hold keeps statuses queued until Release.
func (s *Server) Hold() { s.queue.setHeld(true) }

// Release lets held statuses go.
func (s *Server) Release() { s.queue.setHeld(false) }

// Reset forgets all accepts, misses, counters (those of chaos too), pending webhooks and
// provoked throttles, and all that management calls have made but the phone numbers;
// it releases held webhooks and ends an outage. Phones, limits, errors on demand,
// chaos, the record of refusals, the requests under way and other settings stay.
func (s *Server) Reset() {
	s.mu.Lock()
	s.ledger = newLedger(s.ledger.next)
	s.scopes.reset()
	s.once = newOnceMemory()
	s.missed = newMissLog(s.missed.last)
	if c := s.chaos.Load(); c != nil {
		s.chaos.Store(newChaos(c.Chaos))
	}
	s.managed.reset(s.scopes.byIndex)
	s.queue.reset(s.ledger.generation)
	s.mu.Unlock()
	s.queue.setHeld(false)
}

func (s *Server) change(f func(*settings)) {
	s.settingsMu.Lock()
	defer s.settingsMu.Unlock()
	v := *s.settings.Load()
	f(&v)
	s.settings.Store(&v)
}

// now is the server's monotone clock: time since it was made.
func (s *Server) now() time.Duration { return time.Since(s.epoch) }

// wait waits for d, or until the client goes away or the server closes; it says
// whether an answer still makes sense.
func (s *Server) wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.closed:
		return true
	case <-ctx.Done():
		return false
	}
}
