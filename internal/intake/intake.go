// Package intake accepts messages: it checks a request, recognises one it has seen before, and stores the message with
// its job in one transaction, many requests at a time.
package intake

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/batch"
	"wagate/internal/message"
	"wagate/internal/queue"
	"wagate/internal/reach"
	"wagate/internal/store"
)

const (
	// groupMax, groupLinger and groupFlushers size the group commits (design: 16,000 POSTs/s against 1,900 without).
	groupMax      = 500
	groupLinger   = time.Millisecond
	groupFlushers = 2
	// batches is how many batch requests may commit at once beside the groups.
	batches = 2
	// connectionWait bounds the wait for a connection, commitTime a whole transaction, acceptTime a request's wait.
	connectionWait = 2 * time.Second
	commitTime     = 5 * time.Second
	acceptTime     = 10 * time.Second
	// maxPhones and maxKeys bound the phone numbers and keys that are remembered.
	maxPhones = 20000
	maxKeys   = 20000
)

// Caller is whose request it is.
type Caller struct {
	KeyID uuid.UUID
	// Owner is the name that idempotency keys belong to.
	Owner string
	// PhoneNumbers are the phone number ids the caller may use; empty means all.
	PhoneNumbers []string
	// MaxBacklog bounds how many messages of the key may wait, MessagesPerDay how many are accepted on a day in UTC; 0 is
	// no bound.
	MaxBacklog     int64
	MessagesPerDay int64
}

// Request is one message to accept.
type Request struct {
	Caller Caller
	// Body is a Cloud API message object with from and, where wanted, gateway.
	Body []byte
	// IdempotencyKey is that of the header; empty when there was none.
	IdempotencyKey string
	// Sent is what the caller sent, where Body is not quite that: a repetition is known by it.
	Sent []byte
	// From is the phone number id of the path, where the request has it there; the body then needs none.
	From string
	// API is the endpoint of Meta's that the path names, content.MarketingAPI; empty for messages, or where the body says it.
	API string
	// OpaqueIsKey takes the message's biz_opaque_callback_data for the idempotency key where it has no other.
	OpaqueIsKey bool
	// AnyNumber takes numbers without "+" too, as Cloud API clients write them: they are passed on as they are.
	AnyNumber bool
}

// Accepted is the answer to a request that was taken.
type Accepted struct {
	ID              uuid.UUID
	From            string
	To              string
	CreatedAt       time.Time
	EstimatedSendAt time.Time
	// Replayed says that the request had been accepted before under its idempotency key; the answer is the one of then.
	Replayed bool
}

// Result is the answer to one request of many.
type Result struct {
	Accepted Accepted
	// Err is nil, an *Error, or a fault of ours.
	Err error
}

// Intake accepts messages. It is safe for concurrent use.
type Intake struct {
	store  *store.Store
	jobs   *queue.Inserter
	logger *slog.Logger
	now    func() time.Time

	group  *batch.Group[*store.NewMessage, store.Acceptance]
	direct chan struct{}

	templates Templates // nil: nothing is known of any
	// windowsClosed says which service windows are known to be closed; nil knows of none.
	windowsClosed func(context.Context, []store.WindowAsk) ([]bool, error)

	turns    *turns
	backlog  *backlog
	counting sync.Mutex // held while counts are moved on
	disk     *disk
	cancel   context.CancelFunc
	keeper   sync.WaitGroup

	mu   sync.Mutex
	seen map[queue.HeadOf]seenRunnable

	answers *prometheus.CounterVec
	sizes   prometheus.Histogram

	callbacks *reach.Rules
}

// OnCallbacks gives the rules that a callback_url has to keep; without, it is held to those of public addresses. It is to be
// called before the Intake is used.
func (in *Intake) OnCallbacks(rules *reach.Rules) { in.callbacks = rules }

// New makes an Intake and starts its group commits and the keeping of its counts; Close ends them. now is time.Now or a test's clock.
func New(s *store.Store, jobs *queue.Inserter, logger *slog.Logger, registerer prometheus.Registerer, now func() time.Time) *Intake {
	in := &Intake{
		store: s, jobs: jobs, logger: logger, now: now,
		direct: make(chan struct{}, batches), turns: newTurns(), backlog: newBacklog(), seen: map[queue.HeadOf]seenRunnable{},
		disk: &disk{store: s, logger: logger, space: freeSpace},
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wagate_intake_requests_total", Help: "Messages handed in, by what became of them.",
		}, []string{"result"}),
		sizes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "wagate_intake_group_size", Help: "Messages committed together.", Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500},
		}),
	}
	registerer.MustRegister(in.answers, in.sizes)
	in.group = batch.New(batch.Config{Max: groupMax, Linger: groupLinger, Flushers: groupFlushers}, in.flush)
	ctx, cancel := context.WithCancel(context.Background())
	in.cancel = cancel
	in.callbacks = reach.New(nil, false)
	in.keeper.Go(func() { in.keepCounts(ctx) })
	return in
}

// Close commits what waits, ends the group commits and moves the counts on a last time. Later requests are Unavailable.
func (in *Intake) Close() {
	in.group.Close()
	in.cancel()
	in.keeper.Wait()
}

// Check gives the same verdict as Accept, but for the idempotency key, and stores nothing.
func (in *Intake) Check(ctx context.Context, r Request) error {
	m, a, refused := checkAsked(r, in.now(), in.callbacks)
	refused, err := in.checkMedia(ctx, r.Caller, a.media, refused)
	if err != nil {
		return err
	}
	if refused != nil {
		return refused
	}
	if err := in.phone(ctx, r.Caller, m.PhoneNumberID); err != nil {
		return err
	}
	if refused := in.template(ctx, &m, a); refused != nil {
		return refused
	}
	if refused, err = in.window(ctx, &m); err != nil {
		return err
	}
	if refused != nil {
		return refused
	}
	if _, _, refused := in.admit(ctx, r.Caller, &m, false); refused != nil {
		return refused
	}
	return in.room()
}

// room gives an error while the database has no disk.
func (in *Intake) room() error {
	if wait := in.disk.closed(in.now()); wait > 0 {
		return diskShort(wait)
	}
	return nil
}

// Seen gives the answer to a request that was accepted before under its idempotency key; false when it was not, or has none.
func (in *Intake) Seen(ctx context.Context, r Request) (Accepted, bool, error) {
	m, refused := check(r, in.now(), in.callbacks)
	if (refused != nil && !refused.late) || m.IdempotencyKey == "" {
		return Accepted{}, false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, acceptTime)
	defer cancel()
	a, err := in.store.Accepted(ctx, m.Owner, m.IdempotencyKey, m.RequestHash)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return Accepted{}, false, nil
	case err != nil:
		err = lookup(err)
	}
	out, err := in.answer(&m, a, time.Time{}, err)
	return out, err == nil, err
}

// Accept stores one message and its job, or gives an *Error. Once it returns without one, the message is durable.
func (in *Intake) Accept(ctx context.Context, r Request) (Accepted, error) {
	ctx, cancel := context.WithTimeout(ctx, acceptTime)
	defer cancel()
	m, a, refused := checkAsked(r, in.now(), in.callbacks)
	refused, err := in.checkMedia(ctx, r.Caller, a.media, refused)
	if err != nil {
		return in.answer(&m, store.Acceptance{}, time.Time{}, err)
	}
	if refused != nil {
		return in.refuse(ctx, &m, refused)
	}
	if err := in.phone(ctx, r.Caller, m.PhoneNumberID); err != nil {
		return in.answer(&m, store.Acceptance{}, time.Time{}, err)
	}
	if refused := in.template(ctx, &m, a); refused != nil {
		return in.refuse(ctx, &m, refused)
	}
	if refused, err = in.window(ctx, &m); err != nil {
		return in.answer(&m, store.Acceptance{}, time.Time{}, err)
	}
	if refused != nil {
		return in.refuse(ctx, &m, refused)
	}
	kept, at, refused := in.admit(ctx, r.Caller, &m, true)
	if refused != nil {
		return in.refuse(ctx, &m, refused)
	}
	in.stamp(&m)
	stored, err := in.group.Do(ctx, &m)
	in.backlog.done(kept, err == nil && stored.Verdict == store.Stored)
	if errors.Is(err, batch.ErrClosed) || (err != nil && ctx.Err() != nil) {
		err = unavailable(err)
	}
	return in.answer(&m, stored, at, err)
}

// AcceptMany stores those of the messages that are valid and gives one result each, in order. It commits 500 at a time.
func (in *Intake) AcceptMany(ctx context.Context, requests []Request) []Result {
	results := make([]Result, len(requests))
	messages := make([]store.NewMessage, len(requests))
	wishes := make([]asked, len(requests))
	refused := make([]*Error, len(requests))
	var ids []string
	var callers []Caller
	for i, r := range requests {
		messages[i], wishes[i], refused[i] = checkAsked(r, in.now(), in.callbacks)
	}
	lookErr := in.checkManyMedia(ctx, requests, wishes, refused)
	for i, r := range requests {
		if refused[i] == nil {
			ids = append(ids, messages[i].PhoneNumberID)
			if !slices.ContainsFunc(callers, func(c Caller) bool { return c.KeyID == r.Caller.KeyID }) {
				callers = append(callers, r.Caller)
			}
		}
	}
	if err := in.see(ctx, ids, callers); err != nil {
		lookErr = err
	}
	if lookErr == nil {
		lookErr = in.refuseShut(ctx, requests, messages, refused)
	}
	templatesSince := in.prepareTemplates(ctx, messages)
	var good []int
	seats, at := make([]seat, len(requests)), make([]time.Time, len(requests))
	for i, r := range requests {
		m := &messages[i]
		switch {
		case refused[i] != nil:
		case lookErr != nil:
			results[i].Accepted, results[i].Err = in.answer(m, store.Acceptance{}, time.Time{}, lookup(lookErr))
		case !in.backlog.there(m.PhoneNumberID) || !r.Caller.mayUse(m.PhoneNumberID):
			results[i].Accepted, results[i].Err = in.answer(m, store.Acceptance{}, time.Time{}, unknownPhone())
		default:
			if refused[i] = in.judgeTemplate(ctx, m, wishes[i], templatesSince); refused[i] != nil {
				continue
			}
			if seats[i], at[i], refused[i] = in.admit(ctx, r.Caller, m, true); refused[i] == nil {
				in.stamp(m)
				good = append(good, i)
			}
		}
	}
	for chunk := range slices.Chunk(good, groupMax) {
		set := make([]*store.NewMessage, len(chunk))
		for n, i := range chunk {
			set[n] = &messages[i]
		}
		answers, err := in.flushDirect(ctx, set)
		for n, i := range chunk {
			var a batch.Result[store.Acceptance]
			if a.Err = err; err == nil {
				a = answers[n]
			}
			in.backlog.done(seats[i], a.Err == nil && a.Out.Verdict == store.Stored)
			results[i].Accepted, results[i].Err = in.answer(&messages[i], a.Out, at[i], a.Err)
		}
	}
	// After the others: one may be the repetition of one of them.
	for i := range refused {
		if refused[i] != nil {
			results[i].Accepted, results[i].Err = in.refuse(ctx, &messages[i], refused[i])
		}
	}
	return results
}

// refuse answers a request with faults, or for which there is no room. It may be the repetition of one that came in time,
// which gets the answer of then.
func (in *Intake) refuse(ctx context.Context, m *store.NewMessage, refused *Error) (Accepted, error) {
	if (!refused.late && refused.Kind != Busy) || m.IdempotencyKey == "" {
		return in.answer(m, store.Acceptance{}, time.Time{}, refused)
	}
	a, err := in.store.Accepted(ctx, m.Owner, m.IdempotencyKey, m.RequestHash)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return in.answer(m, store.Acceptance{}, time.Time{}, refused)
	case err != nil:
		return in.answer(m, store.Acceptance{}, time.Time{}, lookup(err))
	}
	return in.answer(m, a, time.Time{}, nil)
}

// stamp gives the message its id and time.
func (in *Intake) stamp(m *store.NewMessage) {
	m.CreatedAt = in.now().UTC().Truncate(time.Microsecond) // Postgres keeps microseconds
	m.ID = message.NewID(m.CreatedAt)
}

// answer turns a verdict into what the caller gets, and counts it. at is when a message that is stored now is thought to go
// out; of others only their own time says so.
func (in *Intake) answer(m *store.NewMessage, a store.Acceptance, at time.Time, err error) (Accepted, error) {
	if refused, ok := errors.AsType[*Error](err); ok {
		label := map[Kind]string{Malformed: "malformed", Invalid: "invalid", UnknownPhone: "unknown_phone", Unavailable: "unavailable", Busy: "busy"}[refused.Kind]
		in.answers.WithLabelValues(label).Inc()
		return Accepted{}, refused
	}
	if err != nil {
		in.answers.WithLabelValues("error").Inc()
		return Accepted{}, err
	}
	if a.Verdict == store.Conflicting {
		in.answers.WithLabelValues("conflict").Inc()
		return Accepted{}, &Error{Kind: KeyReused}
	}
	out := Accepted{ID: a.ID, From: m.PhoneNumberID, To: m.Recipient, CreatedAt: a.CreatedAt.UTC(), EstimatedSendAt: a.CreatedAt.UTC()}
	if a.Verdict != store.Stored || at.IsZero() {
		at = opening(out.CreatedAt, m.SendAt, m.SendWindow)
	}
	if at.After(out.CreatedAt) {
		out.EstimatedSendAt = at.UTC()
	}
	label := "stored"
	if out.Replayed = a.Verdict == store.Replayed; out.Replayed {
		label = "replayed"
	}
	in.answers.WithLabelValues(label).Inc()
	return out, nil
}

func (c Caller) mayUse(phoneNumberID string) bool {
	return len(c.PhoneNumbers) == 0 || slices.Contains(c.PhoneNumbers, phoneNumberID)
}

// phone gives an error unless the caller may send from a phone number id.
func (in *Intake) phone(ctx context.Context, c Caller, id string) error {
	if !c.mayUse(id) {
		return unknownPhone()
	}
	if err := in.see(ctx, []string{id}, []Caller{c}); err != nil {
		return lookup(err)
	}
	if !in.backlog.there(id) {
		return unknownPhone()
	}
	return nil
}
