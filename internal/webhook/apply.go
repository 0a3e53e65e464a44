package webhook

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"wagate/internal/cloudapi"
	"wagate/internal/store"
)

const (
	// setSize, setBytes and setStatuses bound what one transaction applies.
	setSize           = 100
	setBytes    int64 = 16 << 20
	setStatuses       = 2000
	// applyWait bounds one such transaction.
	applyWait = 30 * time.Second
	// matchFor is how long a status waits for the record of its send: one without our token, which needs its wamid, and a
	// failure that asks for a new try.
	matchFor = time.Minute
	// maxAttempts is how often a notification is tried whose failure may or may not lie in it.
	maxAttempts = 5
)

// Run applies what is kept, until ctx ends. It is woken by the handler of this process and looks every Deps.Poll. Any
// number of processes may run it: what one has taken the others pass over. It returns nil.
func (r *Receiver) Run(ctx context.Context) error {
	poll := time.NewTicker(r.deps.Poll)
	defer poll.Stop()
	for {
		if err := r.drain(ctx); err != nil && ctx.Err() == nil {
			r.log.ErrorContext(ctx, "webhooks not applied, they wait", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-poll.C:
		}
	}
}

// drain applies sets until nothing is ready. A set that fails for what may lie in one of its notifications is applied
// one by one, so that the fault stops only its own.
func (r *Receiver) drain(ctx context.Context) error {
	for {
		set, more, err := r.applySet(ctx, setSize)
		if err != nil {
			if faultOf(err) == passing {
				return err
			}
			if err := r.applyEach(ctx, max(len(set), 1)); err != nil {
				return err
			}
			continue
		}
		if !more {
			return nil
		}
	}
}

func (r *Receiver) applyEach(ctx context.Context, n int) error {
	for range n {
		set, _, err := r.applySet(ctx, 1)
		if err == nil && len(set) == 0 {
			return nil
		}
		if err == nil {
			continue
		}
		fault := faultOf(err)
		if fault == passing || len(set) == 0 {
			return err
		}
		w := set[0]
		result := store.RawResult{ID: w.ID, Done: fault == lasting || w.Attempts+1 >= maxAttempts, Problem: problem(err)}
		if w.Applied { // kept in mind, or its notices would be followed again
			result.Problem = store.ProblemUnmatched + "some of its statuses yet; then " + result.Problem
		}
		if result.Done {
			r.metrics.aside.Inc()
		}
		r.log.ErrorContext(ctx, "webhook not applied", "webhook_id", w.ID, "set_aside", result.Done, "error", problem(err))
		if err := r.finishAlone(ctx, result); err != nil {
			return err
		}
	}
	return nil
}

// finishAlone records what came of one notification. It fails where the database is away: then that was the trouble, and nothing
// is held against the notification.
func (r *Receiver) finishAlone(ctx context.Context, result store.RawResult) error {
	ctx, cancel := context.WithTimeout(ctx, keepWait)
	defer cancel()
	return r.deps.Store.InTx(ctx, func(tx pgx.Tx) error {
		if result.Done {
			if err := r.deps.Store.BreakListening(ctx, tx); err != nil {
				return err
			}
		}
		return r.deps.Store.FinishRaw(ctx, tx, []store.RawResult{result})
	})
}

// errTooLong says that a set was given up after applyWait, though the database answers: one of its notifications may be why.
var errTooLong = errors.New("it takes too long")

// applySet applies the notifications that wait longest, in one transaction, and gives what it had taken. Where that takes
// longer than applyWait it fails with errTooLong.
func (r *Receiver) applySet(outer context.Context, limit int) (set []store.WaitingWebhook, more bool, err error) {
	ctx, cancel := context.WithTimeout(outer, r.applyWait)
	defer cancel()
	var done outcome
	err = r.deps.Store.InTx(ctx, func(tx pgx.Tx) error {
		var err error
		if set, more, err = r.deps.Store.TakeRaw(ctx, tx, limit, setBytes); err != nil || len(set) == 0 {
			return err
		}
		var all []payload
		statuses := 0
		for _, w := range set {
			p := read(w)
			if len(all) > 0 && statuses+len(p.statuses) > setStatuses {
				more = true // the rest is let go with the transaction
				break
			}
			statuses += len(p.statuses)
			all = append(all, p)
		}
		done, err = r.applyPayloads(ctx, tx, all)
		return err
	})
	if err == nil {
		r.count(ctx, done)
		if r.applied != nil {
			r.applied(done)
		}
	}
	// Without a set it is the database that does not answer. Postgres has a bound of its own for each statement.
	pg, _ := errors.AsType[*pgconn.PgError](err)
	if err != nil && len(set) > 0 && outer.Err() == nil && (ctx.Err() != nil || pg != nil && pg.Code == "57014") {
		err = fmt.Errorf("%w: %w", errTooLong, err)
	}
	return set, more, err
}

// outcome is what a committed set adds to the metrics.
type outcome struct {
	finished  []payload
	aside     int
	unmatched int
	applied   store.Applied
	// unknownCodes counts errors with a code that nobody knows.
	unknownCodes int
	// alerts counts what was not known of accounts.
	alerts map[cloudapi.Severity]int
}

func (r *Receiver) applyPayloads(ctx context.Context, tx pgx.Tx, all []payload) (outcome, error) {
	var statuses []store.Status
	var from []int // which payload a status came with
	for i, p := range all {
		for _, s := range p.statuses {
			statuses, from = append(statuses, s), append(from, i)
		}
	}
	var how func(store.Failure) store.NewTry
	if r.deps.Jobs != nil {
		how = decide
	}
	applied, err := r.deps.Store.ApplyStatuses(ctx, tx, statuses, how)
	if err != nil {
		return outcome{}, err
	}
	done := outcome{applied: applied}
	if done.unknownCodes, err = r.followFailures(ctx, tx, applied); err != nil {
		return outcome{}, err
	}
	unknown, alerts, err := r.followNotices(ctx, tx, all)
	if err != nil {
		return outcome{}, err
	}
	if err := r.tellNotices(ctx, tx, all); err != nil {
		return outcome{}, err
	}
	done.unknownCodes += unknown
	done.alerts = alerts
	heard := make(map[string]time.Time)
	for _, p := range all {
		for _, phone := range p.heard {
			if p.raw.ReceivedAt.After(heard[phone]) {
				heard[phone] = p.raw.ReceivedAt
			}
		}
	}
	if err := r.deps.Store.Heard(ctx, tx, heard); err != nil {
		return outcome{}, err
	}
	if err := r.hear(ctx, tx, all); err != nil {
		return outcome{}, err
	}
	unmatched, again := make([]int, len(all)), make([]bool, len(all))
	for _, n := range applied.Unmatched {
		p := all[from[n]]
		unmatched[from[n]]++
		// Ours came before our own record of the send, or it is none of ours: time tells.
		again[from[n]] = again[from[n]] || (statuses[n].MessageID == uuid.Nil && p.raw.Age < matchFor)
	}
	early := make([]bool, len(all)) // without a problem while it waits: it may be the evidence that a deadline wants
	for _, n := range applied.Early {
		again[from[n]], early[from[n]] = true, true
	}
	results := make([]store.RawResult, len(all))
	for i, p := range all {
		results[i] = store.RawResult{ID: p.raw.ID, Done: !again[i], Problem: p.problem}
		if p.problem != "" {
			done.aside++
		}
		if unmatched[i] > 0 && !early[i] {
			results[i].Problem = fmt.Sprintf(store.ProblemUnmatched+"%d of %d statuses", unmatched[i], len(p.statuses))
		}
		if !again[i] {
			done.finished = append(done.finished, p)
			done.unmatched += unmatched[i]
		}
	}
	if done.aside > 0 {
		if err := r.deps.Store.BreakListening(ctx, tx); err != nil {
			return outcome{}, err
		}
	}
	return done, r.deps.Store.FinishRaw(ctx, tx, results)
}

func (r *Receiver) count(ctx context.Context, done outcome) {
	statuses := 0
	for _, p := range done.finished {
		for _, kind := range p.changes {
			r.metrics.changes.WithLabelValues(kind).Inc()
		}
		statuses += len(p.statuses)
		if p.problem != "" {
			r.log.WarnContext(ctx, "webhook set aside", "webhook_id", p.raw.ID, "reason", p.problem)
		}
	}
	r.metrics.statuses.WithLabelValues("applied").Add(float64(statuses - done.unmatched))
	r.metrics.statuses.WithLabelValues("unmatched").Add(float64(done.unmatched))
	r.metrics.aside.Add(float64(done.aside))
	r.metrics.twice.Add(float64(done.applied.Duplicates))
	r.metrics.redos.Add(float64(len(done.applied.Redos)))
	r.metrics.unknownCodes.Add(float64(done.unknownCodes))
	for severity, n := range done.alerts {
		r.metrics.alerts.WithLabelValues(severity.String()).Add(float64(n))
	}
	if done.applied.Duplicates > 0 {
		r.log.ErrorContext(ctx, "messages were accepted twice by Meta", "wamids", done.applied.Duplicates)
	}
}

// payload is a notification that was read.
type payload struct {
	raw      store.WaitingWebhook
	statuses []store.Status
	notices  notices
	changes  []string // what each change holds, in words fit for a metric
	heard    []string // phone number ids that it has statuses of
	told     []toldChange
	problem  string // why it cannot be read
	// spans are the phone numbers that it is of, and whether it came late; userIDs which number a user id belongs to; nameless
	// the user ids that wrote without a number, and to which phone number.
	spans    map[string]bool
	userIDs  map[string]string
	nameless map[string]string
}

func read(w store.WaitingWebhook) payload {
	p := payload{raw: w}
	n, err := cloudapi.ParseNotification(w.Body)
	if err != nil {
		p.problem = err.Error()
		return p
	}
	for _, entry := range n.Entries {
		at := entry.Time
		if at.IsZero() || at.After(w.ReceivedAt) {
			at = w.ReceivedAt
		}
		for _, change := range entry.Changes {
			updates := cloudapi.Statuses(change)
			inbound := len(p.notices.inbound)
			p.notices.read(clean(entry.ID), entry.Time, at, w.ID, change)
			if change.Field != "messages" || len(p.notices.inbound) > inbound {
				p.tell(clean(entry.ID), at, change)
			}
			p.changes = append(p.changes, kindOf(change.Field, len(updates)))
			for _, u := range updates {
				s := p.status(u)
				s.Value, s.Raw = change.Value, u.Raw
				p.statuses = append(p.statuses, s)
				p.heedStatus(u)
			}
			if len(updates) > 0 {
				p.heard = append(p.heard, clean(updates[0].PhoneNumberID)) // one change is of one phone number
			}
		}
	}
	for _, m := range p.notices.inbound {
		if m.is.GroupID != "" || m.is.Type == "system" {
			p.heed(m.is.PhoneNumberID, m.is.Timestamp)
			continue
		}
		p.wrote(m.is.PhoneNumberID, m.is.From, m.is.FromUserID, m.is.Timestamp)
	}
	for _, c := range p.notices.calls {
		p.wrote(c.PhoneNumberID, c.From, c.FromUserID, c.Timestamp)
	}
	p.raw.Body = nil
	return p
}

// kindOf keeps the names a stranger chooses out of the metrics.
func kindOf(field string, statuses int) string {
	switch {
	case field == "messages" && statuses > 0:
		return "statuses"
	case field == "messages":
		return "inbound"
	}
	switch field {
	case "message_template_status_update", "message_template_quality_update", "message_template_components_update",
		"template_category_update", "phone_number_quality_update", "phone_number_name_update", "account_update",
		"account_alerts", "account_review_update", "business_capability_update", "security", "user_preferences", "calls":
		return field
	}
	return "other"
}

func (p *payload) status(u cloudapi.StatusUpdate) store.Status {
	s := store.Status{
		EventID: eventID(p.raw.ID, len(p.statuses)),
		WAMID:   clean(u.WAMID), Status: clean(u.Status), At: u.Timestamp,
		RecipientID: clean(u.RecipientID), Participant: clean(u.ParticipantID), Patient: p.raw.Age < matchFor,
	}
	if u.ConversationID != "" || u.ConversationOrigin != "" {
		s.Conversation = &store.StatusConversation{ID: clean(u.ConversationID), Origin: clean(u.ConversationOrigin)}
		if !u.ConversationEnds.IsZero() {
			s.Conversation.ExpiresAt = &u.ConversationEnds
		}
	}
	if s.At.IsZero() {
		s.At = p.raw.ReceivedAt
	}
	if id, try, ok := cloudapi.ParseToken(u.Opaque); ok {
		if parsed, err := uuid.Parse(id); err == nil {
			s.MessageID, s.Try = parsed, try
		}
	}
	for _, e := range u.Errors {
		title := e.Title
		if title == "" {
			title = e.Message
		}
		code := min(max(e.Code, math.MinInt32), math.MaxInt32)
		s.Errors = append(s.Errors, store.StatusError{Code: code, Title: clean(title), Details: clean(e.Details)})
	}
	if u.Pricing != nil {
		s.Pricing = &store.StatusPricing{
			Billable: u.Pricing.Billable, Model: clean(u.Pricing.Model), Type: clean(u.Pricing.Type), Category: clean(u.Pricing.Category),
		}
	}
	return s
}

// clean takes out what Postgres cannot hold in a text.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "")
}

type fault int

const (
	passing fault = iota // the database or a neighbour: the same set may succeed later
	unclear              // may lie in the notification
	lasting              // lies in the data
)

func faultOf(err error) fault {
	if errors.Is(err, errTooLong) {
		return unclear
	}
	if store.Unavailable(err) || errors.Is(err, context.Canceled) {
		return passing
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return unclear
	}
	switch pg.Code[:min(2, len(pg.Code))] {
	case "40", "55", "58": // rolled back, e.g. a deadlock; a lock not to be had; the system
		return passing
	case "22", "23", "54": // data exception, constraint, limit of the program
		return lasting
	}
	return unclear
}

// problem says what went wrong without what a detail of Postgres may quote from the data.
func problem(err error) string {
	if errors.Is(err, errTooLong) {
		return errTooLong.Error()
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return "database error " + pg.Code
	}
	return "cannot be written"
}
