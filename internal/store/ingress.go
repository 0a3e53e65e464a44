package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// What the Cloud API ingress answers a message with.
const (
	AnswerID    = "id"    // the gateway's id, at once
	AnswerWAMID = "wamid" // Meta's id, when it comes in time
)

// Ingress is how the Cloud API ingress treats the messages of a WABA's phone numbers.
type Ingress struct {
	// Answer is AnswerID or AnswerWAMID; empty in a PutWABA is AnswerID.
	Answer string
	// WaitSeconds is how long an answer waits for the wamid; 0 in a PutWABA is 10.
	WaitSeconds int
	// OpaqueIsKey takes biz_opaque_callback_data for the idempotency key of a message that has no other.
	OpaqueIsKey bool
}

// IngressOf reads the settings of a phone number's WABA; ErrNotFound when there is no such number.
func (s *Store) IngressOf(ctx context.Context, phoneNumberID string) (Ingress, error) {
	var i Ingress
	err := s.pool.QueryRow(ctx, `
		SELECT w.ingress_answer, w.ingress_wait_seconds, w.opaque_as_idempotency_key
		FROM phone_numbers p JOIN wabas w ON w.waba_id = p.waba_id WHERE p.phone_number_id = $1::text`, phoneNumberID).
		Scan(&i.Answer, &i.WaitSeconds, &i.OpaqueIsKey)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return Ingress{}, fmt.Errorf("reading the ingress settings of phone number id %s: %w", phoneNumberID, err)
	}
	return i, nil
}

// Decided says which of the messages have a wamid or have ended: nobody need wait for them any longer.
func (s *Store) Decided(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]bool, error) {
	lo, hi := bounds(ids)
	rows, err := s.pool.Query(ctx, `
		SELECT m.id FROM unnest($1::uuid[]) AS u(id) JOIN messages m ON m.id = u.id
		WHERE m.id = ANY($1::uuid[]) AND m.id BETWEEN $2::uuid AND $3::uuid
		  AND (m.wamid IS NOT NULL OR m.status NOT IN ('queued', 'sending', 'unknown'))`, ids, lo, hi)
	if err != nil {
		return nil, fmt.Errorf("looking for the outcome of %d messages: %w", len(ids), err)
	}
	decided, err := idSet(rows)
	if err != nil {
		return nil, fmt.Errorf("looking for the outcome of %d messages: %w", len(ids), err)
	}
	return decided, nil
}
