package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/message"
)

// Failure is a message that a webhook says has failed, as it stood before, and the error.
type Failure struct {
	ID               uuid.UUID
	PhoneNumberID    string
	WABAID           string
	Recipient        string
	User             string // its key: the wa_id where it is known, else the digits
	Category         string
	TemplateName     string
	TemplateLanguage string
	Priority         int
	// FlowBody is the body of an interactive message, where it may name a flow; nil for all others.
	FlowBody []byte
	// Gone says that its content is kept no more: it cannot be sent again.
	Gone bool
	// ByLink says that Meta fetches the message's media from an address.
	ByLink bool
	// OurMedia says that it names media of ours that were not put up once more for its sake yet.
	OurMedia bool
	// TriedAt is when Meta took the newest try; zero when that is not known.
	TriedAt   time.Time
	Redos     int
	Throttles int
	Retries   int
	ExpiresAt *time.Time
	// Fallback says that the message has a fallback template that is not used.
	Fallback bool
	Error    StatusError
	// At is when Meta says that it failed.
	At  time.Time
	try int
}

// NewTry is what is decided of a failure: whether the message is sent again, how long it waits at least, and whether it is its
// fallback template that goes.
type NewTry struct {
	Again    bool
	Wait     time.Duration
	Fallback bool
}

// Redo is a message that is sent again after a failure.
type Redo struct {
	Failure
	NewTry
	// Waits says that it waits already, and has its job: a deadline or an operator had let it be tried again.
	Waits bool
}

// decideFailures asks, for each message that fails by the set, whether it is sent again.
func (s *Store) decideFailures(ctx context.Context, tx pgx.Tx, failing []*statusChange, decide func(Failure) NewTry, applied *Applied) error {
	ids := make([]uuid.UUID, len(failing))
	for i, c := range failing {
		ids[i] = c.id
	}
	lo, hi := bounds(ids)
	rows, err := tx.Query(ctx, `
		SELECT m.id, m.phone_number_id, m.waba_id, m.recipient, `+userKey+`, coalesce(m.category, ''), coalesce(m.template_name, ''),
		       coalesce(m.template_language, ''), m.priority, CASE WHEN m.type = 'interactive' THEN m.body END, m.redacted_at IS NOT NULL,
		       m.type NOT IN ('text', 'reaction', 'location', 'contacts') AND position('"link":"'::bytea IN coalesce(m.body, ''::bytea)) > 0,
		       m.redos, m.throttles, m.retries, m.expires_at, m.fallback_template IS NOT NULL AND m.fallback_at IS NULL,
		       EXISTS (SELECT FROM media_uses u WHERE u.message_id = m.id AND NOT u.renewed), coalesce(m.accepted_at, m.sent_at, '0001-01-01Z'::timestamptz)
		FROM messages m
		WHERE m.id = ANY($1::uuid[]) AND m.id BETWEEN $2::uuid AND $3::uuid`, ids, lo, hi)
	if err != nil {
		return fmt.Errorf("reading %d messages that failed: %w", len(ids), err)
	}
	found := make(map[uuid.UUID]Failure, len(ids))
	var f Failure
	_, err = pgx.ForEachRow(rows, []any{&f.ID, &f.PhoneNumberID, &f.WABAID, &f.Recipient, &f.User, &f.Category, &f.TemplateName, &f.TemplateLanguage,
		&f.Priority, &f.FlowBody, &f.Gone, &f.ByLink, &f.Redos, &f.Throttles, &f.Retries, &f.ExpiresAt, &f.Fallback, &f.OurMedia, &f.TriedAt}, func() error {
		found[f.ID] = f
		f = Failure{}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading %d messages that failed: %w", len(ids), err)
	}
	users := make([]string, 0, len(found))
	for _, f := range found {
		users = append(users, f.User)
	}
	waIDs, err := s.waIDsOf(ctx, tx, users)
	if err != nil {
		return err
	}
	for _, c := range failing {
		f := found[c.id]
		if waID, ok := waIDs[f.User]; ok {
			f.User = waID
		}
		f.Error, f.At, f.try = *c.failure, c.failing.At, c.row.try
		var next NewTry
		waits := c.row.status == message.Queued
		if decide != nil && (c.open() || waits) {
			next = decide(f)
			next.Again = next.Again && !f.Gone
		}
		switch {
		case !next.Again:
		case c.unanswered():
			// The answer to the try is still to be recorded, and would take the message for accepted.
			c.early = true
			continue
		default:
			c.redo = true
			c.status, c.failed, c.settled = message.Queued, false, true
			delete(c.at, message.Failed)
			applied.Redos = append(applied.Redos, Redo{f, next, waits})
		}
		applied.Failures = append(applied.Failures, f)
	}
	return nil
}

// open says that the message's newest try is what failed: it had not ended otherwise before.
func (c *statusChange) open() bool {
	switch c.row.status {
	case message.Sending, message.Unknown, message.Accepted, message.Sent:
		return true
	default:
		return false
	}
}

// unanswered says that the answer to the failed try is, or may be, still to be recorded. A message that a status has moved
// on meanwhile may never get one, when its worker has died: that is waited for only as long as the notification can wait.
func (c *statusChange) unanswered() bool {
	return c.row.status == message.Sending || (c.row.status == message.Sent && !c.row.ended && c.failing.Patient)
}

// recordRedos marks the messages that wait again, and says so in their logs.
func (s *Store) recordRedos(ctx context.Context, tx pgx.Tx, redos []Redo) error {
	if len(redos) == 0 {
		return nil
	}
	ids := make([]uuid.UUID, len(redos))
	events := make([]Event, len(redos))
	now := time.Now()
	for i, r := range redos {
		ids[i] = r.ID
		events[i] = Event{MessageID: r.ID, Kind: "redo", Try: r.try, At: now, Detail: map[string]any{
			"code": r.Error.Code, "title": r.Error.Title, "wait_seconds": r.Wait.Seconds(),
		}}
	}
	lo, hi := bounds(ids)
	_, err := tx.Exec(ctx, `
		UPDATE messages SET redos = redos + 1, failed_try = try, wamid = NULL, accepted_at = NULL, sent_at = NULL, failed_at = NULL
		WHERE id = ANY($1::uuid[]) AND id BETWEEN $2::uuid AND $3::uuid`, ids, lo, hi)
	if err != nil {
		return fmt.Errorf("letting %d failed messages wait again: %w", len(ids), err)
	}
	if err := s.InsertEvents(ctx, tx, events); err != nil {
		return err
	}
	var fallbacks []uuid.UUID
	for _, r := range redos {
		if r.NewTry.Fallback {
			fallbacks = append(fallbacks, r.ID)
		}
	}
	_, err = s.UseFallbacks(ctx, tx, fallbacks, FallbackRefused, now)
	return err
}
