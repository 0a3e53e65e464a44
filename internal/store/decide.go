package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Decision is what somebody says became of a message whose outcome is unknown.
type Decision string

// The decisions.
const (
	// DecideSent: Meta took it.
	DecideSent Decision = "sent"
	// DecideFailed: it did not go out, and will not.
	DecideFailed Decision = "failed"
	// DecideResend: it did not go out, or going out twice does no harm: it waits again.
	DecideResend Decision = "resend"
)

// WrongStatusError says that a message's status does not allow what was asked.
type WrongStatusError struct {
	// Status is the one the message has.
	Status string
}

// Error implements error.
func (e *WrongStatusError) Error() string { return "the message is " + e.Status }

// ErrBodyGone is returned, wrapped, for a message whose content is kept no more, so that it cannot be sent again.
var ErrBodyGone = errors.New("the content of the message is not kept any more")

// Again is a message that waits to be sent: its job is for the caller to put in, within the same transaction.
type Again struct {
	ID            uuid.UUID
	PhoneNumberID string
	Priority      int
	// SendAt is zero for at once.
	SendAt time.Time
	// SendWindow is JSON, empty without one.
	SendWindow string
	// CreatedAt is zero for one that goes at once in any case.
	CreatedAt time.Time
}

// lockedMessage is what a decision depends on.
type lockedMessage struct {
	Again
	status   string
	try      int
	hasBody  bool
	hasPhone bool
}

// lockForDecision holds a message's row, so that a webhook or a second decision that comes at the same moment is either
// seen or waits until this one is made.
func lockForDecision(ctx context.Context, tx pgx.Tx, id uuid.UUID) (lockedMessage, error) {
	l := lockedMessage{Again: Again{ID: id}}
	err := tx.QueryRow(ctx, `
		SELECT m.status, m.phone_number_id, m.priority, m.try, coalesce(octet_length(m.body), 0) > 0,
		       EXISTS (SELECT 1 FROM phone_numbers p WHERE p.phone_number_id = m.phone_number_id)
		FROM messages m WHERE m.id = $1::uuid FOR NO KEY UPDATE OF m`, id).
		Scan(&l.status, &l.PhoneNumberID, &l.Priority, &l.try, &l.hasBody, &l.hasPhone)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	return l, err
}

func (l *lockedMessage) sendable() error {
	switch {
	case !l.hasBody:
		return ErrBodyGone
	case !l.hasPhone:
		return ErrPhoneGone
	}
	return nil
}

// Settle decides an unknown message. After DecideResend it waits again, and the caller puts the job of the answer in. A
// message of another status is left as it is: *WrongStatusError. What Meta reports later still counts as it does for any
// message: a positive word beats failed, delivered beats sent. Other errors: ErrNotFound; ErrBodyGone and ErrPhoneGone
// when there is nothing to send again.
func (s *Store) Settle(ctx context.Context, tx pgx.Tx, id uuid.UUID, as Decision, now time.Time) (Again, error) {
	m, err := lockForDecision(ctx, tx, id)
	if err == nil && m.status != "unknown" {
		err = &WrongStatusError{Status: m.status}
	}
	if err == nil && as == DecideResend {
		err = m.sendable()
	}
	if err == nil {
		// What Meta said of the try stays beside a failure; a message that was sent has no error. unknown_at and its
		// reason stay, as they do when a webhook settles the message.
		_, err = tx.Exec(ctx, `
			UPDATE messages SET
				status = CASE $2::text WHEN 'resend' THEN 'queued' ELSE $2::text END, settle_by = NULL, settle_waits = NULL, slot_at = NULL,
				body = CASE WHEN wagate_content_ends($2::text, category, pricing_category, $4::boolean) THEN NULL ELSE body END,
				redacted_at = CASE WHEN body IS NOT NULL AND wagate_content_ends($2::text, category, pricing_category, $4::boolean) THEN $3::timestamptz ELSE redacted_at END,
				sent_at = CASE $2::text WHEN 'sent' THEN coalesce(sent_at, $3::timestamptz) ELSE sent_at END,
				failed_at = CASE $2::text WHEN 'failed' THEN coalesce(failed_at, $3::timestamptz) ELSE failed_at END,
				error_code = CASE $2::text WHEN 'sent' THEN NULL ELSE error_code END,
				error_subcode = CASE $2::text WHEN 'sent' THEN NULL ELSE error_subcode END,
				error_details = CASE $2::text WHEN 'sent' THEN NULL ELSE error_details END,
				error_title = CASE $2::text WHEN 'sent' THEN NULL WHEN 'failed' THEN 'Settled as failed by an operator' ELSE error_title END,
				error_scope = CASE $2::text WHEN 'sent' THEN NULL WHEN 'failed' THEN 'message' ELSE error_scope END
			WHERE id = $1::uuid AND status = 'unknown'`, id, string(as), now, s.atFinal)
	}
	if err == nil {
		err = s.InsertEvents(ctx, tx, []Event{{
			MessageID: id, Kind: "settled", Try: m.try, At: now, Detail: map[string]any{"as": string(as), "by": "operator"},
		}})
	}
	if err != nil {
		return Again{}, fmt.Errorf("settling message %s: %w", id, err)
	}
	return m.Again, nil
}

// Resend is a message to be made from one that has ended.
type Resend struct {
	// Of is the message that ended.
	Of uuid.UUID
	// ID is a UUIDv7 of CreatedAt.
	ID        uuid.UUID
	CreatedAt time.Time
	KeyID     uuid.UUID
	// Owner, IdempotencyKey and RequestHash are as those of a NewMessage.
	Owner          string
	IdempotencyKey string
	RequestHash    []byte
}

// Resend stores a new message with the content and the options of one that failed, expired or was cancelled. A send_at
// that lies ahead is kept, an earlier one is not; an expires_at that has passed is replaced by one that gives the new
// message as long as the old one had. When the answer is Stored, the caller puts the job in. Errors: ErrNotFound,
// *WrongStatusError, ErrBodyGone, ErrPhoneGone; the transaction is then to be rolled back.
func (s *Store) Resend(ctx context.Context, tx pgx.Tx, r Resend) (Acceptance, Again, error) {
	a, again, err := s.resend(ctx, tx, r)
	if err != nil {
		return a, again, fmt.Errorf("resending message %s: %w", r.Of, err)
	}
	return a, again, nil
}

func (s *Store) resend(ctx context.Context, tx pgx.Tx, r Resend) (Acceptance, Again, error) {
	answer := Acceptance{Verdict: Stored, ID: r.ID, CreatedAt: r.CreatedAt}
	// The key comes first: the repetition of a request gets its answer whatever became of the old message since.
	winners, err := claimKeys(ctx, tx, []NewMessage{{
		ID: r.ID, CreatedAt: r.CreatedAt, Owner: r.Owner, IdempotencyKey: r.IdempotencyKey, RequestHash: r.RequestHash,
	}})
	if err != nil {
		return answer, Again{}, err
	}
	if w, ok := winners[ownedKey{r.Owner, r.IdempotencyKey}]; ok && w.ID != r.ID {
		answer = Acceptance{Verdict: Conflicting, ID: w.ID, CreatedAt: w.createdAt}
		if w.hash == string(r.RequestHash) {
			answer.Verdict = Replayed
		}
		return answer, Again{}, nil
	}
	old, err := lockForDecision(ctx, tx, r.Of)
	if err != nil {
		return answer, Again{}, err
	}
	switch old.status {
	case "failed", "expired", "cancelled":
	default:
		return answer, Again{}, &WrongStatusError{Status: old.status}
	}
	if err := old.sendable(); err != nil {
		return answer, Again{}, err
	}
	var keyID *uuid.UUID
	if r.KeyID != uuid.Nil {
		keyID = &r.KeyID
	}
	again := Again{ID: r.ID, CreatedAt: r.CreatedAt}
	var sendAt *time.Time
	err = tx.QueryRow(ctx, `
		INSERT INTO messages (id, phone_number_id, waba_id, key_id, recipient, type, priority, category, on_unknown, template_name,
			template_language, reference, tags, ordering_key, callback_url, opaque, send_window, send_at, expires_at, resend_of, body, created_at,
			ordering_after, ordering_seconds, api, callback_endpoint, fallback_template, fallback_language, fallback_category, fallback_from, fallback_at)
		SELECT $2::uuid, p.phone_number_id, p.waba_id, $3::uuid, m.recipient, m.type, m.priority, m.category, m.on_unknown, m.template_name,
			m.template_language, m.reference, m.tags, m.ordering_key, m.callback_url, m.opaque, m.send_window,
			CASE WHEN m.send_at > $4::timestamptz THEN m.send_at END,
			CASE WHEN m.expires_at > $4::timestamptz THEN m.expires_at ELSE $4::timestamptz + (m.expires_at - greatest(m.created_at, m.send_at)) END,
			m.id, m.body, $4::timestamptz, m.ordering_after, m.ordering_seconds, m.api, m.callback_endpoint,
			m.fallback_template, m.fallback_language, m.fallback_category, m.fallback_from, m.fallback_at
		FROM messages m JOIN phone_numbers p ON p.phone_number_id = m.phone_number_id
		WHERE m.id = $1::uuid
		RETURNING phone_number_id, priority, send_at, coalesce(send_window::text, '')`, r.Of, r.ID, keyID, r.CreatedAt).
		Scan(&again.PhoneNumberID, &again.Priority, &sendAt, &again.SendWindow)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrPhoneGone
	}
	if err != nil {
		return answer, Again{}, err
	}
	if sendAt != nil {
		again.SendAt = *sendAt
	}
	return answer, again, s.InsertEvents(ctx, tx, []Event{{MessageID: r.Of, Kind: "resent", At: r.CreatedAt, Detail: map[string]any{"message_id": r.ID.String()}}})
}
