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
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/batch"
	"wagate/internal/message"
	"wagate/internal/queue"
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
	// phoneKept is how long a phone number once seen is taken for there without a look. The insert looks again.
	phoneKept = 5 * time.Second
	maxPhones = 20000
)

// Caller is whose request it is.
type Caller struct {
	KeyID uuid.UUID
	// Owner is the name that idempotency keys belong to.
	Owner string
	// PhoneNumbers are the phone number ids the caller may use; empty means all.
	PhoneNumbers []string
}

// Request is one message to accept.
type Request struct {
	Caller Caller
	// Body is a Cloud API message object with from and, where wanted, gateway.
	Body []byte
	// IdempotencyKey is that of the header; empty when there was none.
	IdempotencyKey string
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

	mu     sync.Mutex
	phones map[string]time.Time // until when an id is taken for there

	answers *prometheus.CounterVec
	sizes   prometheus.Histogram
}

// New makes an Intake and starts its group commits; Close ends them. now is time.Now or a test's clock.
func New(s *store.Store, jobs *queue.Inserter, logger *slog.Logger, registerer prometheus.Registerer, now func() time.Time) *Intake {
	in := &Intake{
		store: s, jobs: jobs, logger: logger, now: now,
		direct: make(chan struct{}, batches), phones: map[string]time.Time{},
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wagate_intake_requests_total", Help: "Messages handed in, by what became of them.",
		}, []string{"result"}),
		sizes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "wagate_intake_group_size", Help: "Messages committed together.", Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500},
		}),
	}
	registerer.MustRegister(in.answers, in.sizes)
	in.group = batch.New(batch.Config{Max: groupMax, Linger: groupLinger, Flushers: groupFlushers}, in.flush)
	return in
}

// Close commits what waits and ends the group commits. Later requests are Unavailable.
func (in *Intake) Close() { in.group.Close() }

// Check gives the same verdict as Accept, but for the idempotency key, and stores nothing.
func (in *Intake) Check(ctx context.Context, r Request) error {
	m, refused := check(r, in.now())
	if refused != nil {
		return refused
	}
	return in.phone(ctx, r.Caller, m.PhoneNumberID)
}

// Accept stores one message and its job, or gives an *Error. Once it returns without one, the message is durable.
func (in *Intake) Accept(ctx context.Context, r Request) (Accepted, error) {
	ctx, cancel := context.WithTimeout(ctx, acceptTime)
	defer cancel()
	m, refused := check(r, in.now())
	if refused != nil {
		return in.refuse(ctx, &m, refused)
	}
	if err := in.phone(ctx, r.Caller, m.PhoneNumberID); err != nil {
		return in.answer(&m, store.Acceptance{}, err)
	}
	in.stamp(&m)
	a, err := in.group.Do(ctx, &m)
	if errors.Is(err, batch.ErrClosed) || (err != nil && ctx.Err() != nil) {
		err = unavailable(err)
	}
	return in.answer(&m, a, err)
}

// AcceptMany stores those of the messages that are valid and gives one result each, in order. It commits 500 at a time.
func (in *Intake) AcceptMany(ctx context.Context, requests []Request) []Result {
	results := make([]Result, len(requests))
	messages := make([]store.NewMessage, len(requests))
	refused := make([]*Error, len(requests))
	var ids []string
	for i, r := range requests {
		messages[i], refused[i] = check(r, in.now())
		if refused[i] == nil {
			ids = append(ids, messages[i].PhoneNumberID)
		}
	}
	missing, lookErr := in.missing(ctx, ids)
	var good []int
	for i, r := range requests {
		m := &messages[i]
		switch {
		case refused[i] != nil:
			results[i].Accepted, results[i].Err = in.refuse(ctx, m, refused[i])
		case lookErr != nil:
			results[i].Accepted, results[i].Err = in.answer(m, store.Acceptance{}, lookup(lookErr))
		case missing[m.PhoneNumberID] || !r.Caller.mayUse(m.PhoneNumberID):
			results[i].Accepted, results[i].Err = in.answer(m, store.Acceptance{}, unknownPhone())
		default:
			in.stamp(m)
			good = append(good, i)
		}
	}
	for chunk := range slices.Chunk(good, groupMax) {
		set := make([]*store.NewMessage, len(chunk))
		for n, i := range chunk {
			set[n] = &messages[i]
		}
		answers, err := in.flushDirect(ctx, set)
		for n, i := range chunk {
			if err != nil {
				results[i].Accepted, results[i].Err = in.answer(&messages[i], store.Acceptance{}, err)
			} else {
				results[i].Accepted, results[i].Err = in.answer(&messages[i], answers[n].Out, answers[n].Err)
			}
		}
	}
	return results
}

// refuse answers a request with faults. One that came too late only may be the repetition of one that came in time.
func (in *Intake) refuse(ctx context.Context, m *store.NewMessage, refused *Error) (Accepted, error) {
	if !refused.late || m.IdempotencyKey == "" {
		return in.answer(m, store.Acceptance{}, refused)
	}
	a, err := in.store.Accepted(ctx, m.Owner, m.IdempotencyKey, m.RequestHash)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return in.answer(m, store.Acceptance{}, refused)
	case err != nil:
		return in.answer(m, store.Acceptance{}, lookup(err))
	}
	return in.answer(m, a, nil)
}

// stamp gives the message its id and time.
func (in *Intake) stamp(m *store.NewMessage) {
	m.CreatedAt = in.now().UTC().Truncate(time.Microsecond) // Postgres keeps microseconds
	m.ID = message.NewID(m.CreatedAt)
}

// flushDirect commits a set of a batch request, at most a few at once.
func (in *Intake) flushDirect(ctx context.Context, set []*store.NewMessage) ([]batch.Result[store.Acceptance], error) {
	wait, cancel := context.WithTimeout(ctx, acceptTime)
	defer cancel()
	select {
	case in.direct <- struct{}{}:
		defer func() { <-in.direct }()
		// From here on the outcome is waited for, whoever has gone, as with the groups.
		return in.flush(context.WithoutCancel(ctx), set)
	case <-wait.Done():
		return nil, unavailable(wait.Err())
	}
}

// answer turns a verdict into what the caller gets, and counts it.
func (in *Intake) answer(m *store.NewMessage, a store.Acceptance, err error) (Accepted, error) {
	if refused, ok := errors.AsType[*Error](err); ok {
		label := map[Kind]string{Malformed: "malformed", Invalid: "invalid", UnknownPhone: "unknown_phone", Unavailable: "unavailable"}[refused.Kind]
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
	if m.SendAt.After(out.CreatedAt) {
		out.EstimatedSendAt = m.SendAt
	}
	label := "stored"
	if out.Replayed = a.Verdict == store.Replayed; out.Replayed {
		label = "replayed"
	}
	in.answers.WithLabelValues(label).Inc()
	return out, nil
}

// flush stores a set. When its transaction fails for a reason of one of its members, the set is halved until that
// member stands alone, so that no request fails for another.
func (in *Intake) flush(ctx context.Context, set []*store.NewMessage) ([]batch.Result[store.Acceptance], error) {
	answers, err := in.commit(ctx, set)
	results := make([]batch.Result[store.Acceptance], len(set))
	switch {
	case err == nil:
		for i, a := range answers {
			results[i].Out = a
		}
		return results, nil
	case store.Unavailable(err):
		in.logger.WarnContext(ctx, "accept: database not available", "messages", len(set), "error", err)
		return nil, unavailable(err)
	case len(set) > 1:
		half := len(set) / 2
		for _, part := range []struct{ at, end int }{{0, half}, {half, len(set)}} {
			answers, err := in.flush(ctx, set[part.at:part.end])
			for i := part.at; i < part.end; i++ {
				if err != nil {
					results[i].Err = err
				} else {
					results[i] = answers[i-part.at]
				}
			}
		}
		return results, nil
	case errors.Is(err, store.ErrPhoneGone):
		in.forget(set[0].PhoneNumberID)
		return nil, unknownPhone()
	default:
		in.logger.ErrorContext(ctx, "accept: message could not be stored", "error", err)
		return nil, err
	}
}

// commit stores the messages and the jobs of the new ones in one transaction.
func (in *Intake) commit(ctx context.Context, set []*store.NewMessage) (answers []store.Acceptance, err error) {
	in.sizes.Observe(float64(len(set)))
	ctx, cancel := context.WithTimeout(ctx, commitTime)
	defer cancel()
	messages := make([]store.NewMessage, len(set))
	for i, m := range set {
		messages[i] = *m
	}
	err = in.store.InTxWithin(ctx, connectionWait, func(tx pgx.Tx) error {
		answers, err = in.store.Accept(ctx, tx, messages)
		if err != nil {
			return err
		}
		jobs := make([]queue.Send, 0, len(messages))
		for i, m := range messages {
			if answers[i].Verdict == store.Stored {
				jobs = append(jobs, queue.Send{MessageID: m.ID, PhoneNumberID: m.PhoneNumberID, Priority: m.Priority, At: m.SendAt})
			}
		}
		return in.jobs.Insert(ctx, tx, jobs)
	})
	return answers, err
}

func (c Caller) mayUse(phoneNumberID string) bool {
	return len(c.PhoneNumbers) == 0 || slices.Contains(c.PhoneNumbers, phoneNumberID)
}

// phone gives an error unless the caller may send from a phone number id.
func (in *Intake) phone(ctx context.Context, c Caller, id string) error {
	if !c.mayUse(id) {
		return unknownPhone()
	}
	missing, err := in.missing(ctx, []string{id})
	if err != nil {
		return lookup(err)
	}
	if missing[id] {
		return unknownPhone()
	}
	return nil
}

// missing gives those of the phone number ids that are not there.
func (in *Intake) missing(ctx context.Context, ids []string) (map[string]bool, error) {
	now := in.now()
	ask := map[string]bool{}
	in.mu.Lock()
	for _, id := range ids {
		if !now.Before(in.phones[id]) {
			ask[id] = true
		}
	}
	in.mu.Unlock()
	if len(ask) == 0 {
		return nil, nil
	}
	names := make([]string, 0, len(ask))
	for id := range ask {
		names = append(names, id)
	}
	ctx, cancel := context.WithTimeout(ctx, connectionWait)
	defer cancel()
	there, err := in.store.Directory(ctx, names)
	if err != nil {
		return nil, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.phones)+len(there) > maxPhones {
		clear(in.phones)
	}
	for id := range there {
		in.phones[id] = now.Add(phoneKept)
		delete(ask, id)
	}
	return ask, nil
}

func (in *Intake) forget(id string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.phones, id)
}
