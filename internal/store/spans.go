package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// When it counts as a gap that webhooks do not come; docs/explanation/service-window.md says why.
const (
	// HeardLate is how long after it happened a notification comes late: Meta has posted it before, in vain.
	HeardLate = 5 * time.Minute
	// HeardSilence is how long nothing may be heard of a phone number.
	HeardSilence = 12 * time.Hour
	// ListenPause is how long no gateway may take webhooks: a restart is no gap.
	ListenPause = 2 * time.Minute
)

// PhoneHearing is what a set of notifications says of how the webhooks of one phone number come. Times are of receipt.
type PhoneHearing struct {
	// First and Last are the oldest and the newest of the set.
	First, Last time.Time
	// Late is the newest that told of something that had happened long before: Meta had posted it in vain. Zero for none.
	Late time.Time
	// Nameless is the newest message of a user whose number is not known. Zero for none.
	Nameless time.Time
}

// HearPhones takes in how the webhooks of phone numbers come: after a silence, and after a notification that came late, a
// span begins anew. Of a busy phone number it writes every few seconds.
func (s *Store) HearPhones(ctx context.Context, tx pgx.Tx, heard map[string]PhoneHearing) error {
	if len(heard) == 0 {
		return nil
	}
	phones := make([]string, 0, len(heard))
	first, last := make([]time.Time, 0, len(heard)), make([]time.Time, 0, len(heard))
	late, nameless := make([]*time.Time, 0, len(heard)), make([]*time.Time, 0, len(heard))
	for phone, h := range heard {
		phones, first, last = append(phones, phone), append(first, h.First), append(last, h.Last)
		late, nameless = append(late, orNever(h.Late)), append(nameless, orNever(h.Nameless))
	}
	// Only of phone numbers that are ours: a notification may name any.
	_, err := tx.Exec(ctx, `
		INSERT INTO phone_spans AS h (phone_number_id, since, at, nameless_at)
		SELECT u.phone, coalesce(u.late, CASE WHEN u.first > k.at + make_interval(secs => $6::double precision) THEN u.first ELSE k.since END, u.first), u.last, u.nameless
		FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[]) AS u(phone, first, last, late, nameless)
		JOIN phone_numbers p ON p.phone_number_id = u.phone
		LEFT JOIN phone_spans k ON k.phone_number_id = u.phone
		WHERE k.at IS NULL OR k.at < u.last - interval '5 seconds' OR u.late > k.since OR u.nameless > coalesce(k.nameless_at, '-infinity')
		ORDER BY u.phone
		ON CONFLICT (phone_number_id) DO UPDATE SET
			since = greatest(h.since, excluded.since), at = greatest(h.at, excluded.at), nameless_at = greatest(h.nameless_at, excluded.nameless_at)`,
		phones, first, last, late, nameless, HeardSilence.Seconds())
	if err != nil {
		return fmt.Errorf("noting how the webhooks of %d phone numbers come: %w", len(heard), err)
	}
	return nil
}

// BreakSpans begins the spans of phone numbers anew of which nothing was heard since Meta accepted a message of theirs, at the
// given times, although statuses of it should have come.
func (s *Store) BreakSpans(ctx context.Context, accepted map[string]time.Time) error {
	if len(accepted) == 0 {
		return nil
	}
	phones, at := make([]string, 0, len(accepted)), make([]time.Time, 0, len(accepted))
	for phone, t := range accepted {
		phones, at = append(phones, phone), append(at, t)
	}
	_, err := s.pool.Exec(ctx, `
		UPDATE phone_spans h SET since = clock_timestamp()
		FROM unnest($1::text[], $2::timestamptz[]) AS u(phone, at) WHERE h.phone_number_id = u.phone AND h.at < u.at`, phones, at)
	if err != nil {
		return fmt.Errorf("noting that nothing is heard of %d phone numbers: %w", len(accepted), err)
	}
	return nil
}

// Listen notes that a gateway takes webhooks now. Where none has said so for longer than ListenPause, the span begins anew.
func (s *Store) Listen(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, `
		INSERT INTO listening AS l (since, at) SELECT now, now FROM clock_timestamp() AS now
		ON CONFLICT (only_row) DO UPDATE SET at = greatest(l.at, excluded.at),
			since = CASE WHEN l.at < excluded.at - make_interval(secs => $1::double precision) THEN excluded.at ELSE l.since END`, ListenPause.Seconds())
	if err != nil {
		return fmt.Errorf("noting that webhooks are taken: %w", err)
	}
	return nil
}

// BreakListening begins the span anew in which all was heard: something that came cannot be read, whoever it was of.
func (s *Store) BreakListening(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `UPDATE listening SET since = clock_timestamp() WHERE since < clock_timestamp() - interval '1 second'`); err != nil {
		return fmt.Errorf("noting that a webhook was not read: %w", err)
	}
	return nil
}

func orNever(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
