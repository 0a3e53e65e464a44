package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Heard notes that status webhooks of phone numbers were received, each at the given time. A note that is less than half a
// second newer than the one kept is left out: busy phone numbers then cost two writes a second, and none waits for another.
func (s *Store) Heard(ctx context.Context, tx pgx.Tx, at map[string]time.Time) error {
	if len(at) == 0 {
		return nil
	}
	phones, times := make([]string, 0, len(at)), make([]time.Time, 0, len(at))
	for phone, t := range at {
		phones, times = append(phones, phone), append(times, t)
	}
	// Only of phone numbers that are ours: a notification may name any.
	_, err := tx.Exec(ctx, `
		INSERT INTO phone_hearings AS h (phone_number_id, heard_at)
		SELECT u.phone, u.at FROM unnest($1::text[], $2::timestamptz[]) AS u(phone, at)
		JOIN phone_numbers p ON p.phone_number_id = u.phone
		LEFT JOIN phone_hearings k ON k.phone_number_id = u.phone
		WHERE k.heard_at IS NULL OR k.heard_at < u.at - interval '500 milliseconds'
		ORDER BY u.phone
		ON CONFLICT (phone_number_id) DO UPDATE SET heard_at = greatest(h.heard_at, excluded.heard_at)`, phones, times)
	if err != nil {
		return fmt.Errorf("noting the webhooks of %d phone numbers: %w", len(at), err)
	}
	return nil
}

// Hearings gives when status webhooks of the given phone numbers were last received; one that never was is not in the map.
func (s *Store) Hearings(ctx context.Context, phoneNumberIDs []string) (map[string]time.Time, error) {
	rows, err := s.pool.Query(ctx, `SELECT phone_number_id, heard_at FROM phone_hearings WHERE phone_number_id = ANY($1::text[])`, phoneNumberIDs)
	if err != nil {
		return nil, fmt.Errorf("reading the webhooks of %d phone numbers: %w", len(phoneNumberIDs), err)
	}
	heard := make(map[string]time.Time, len(phoneNumberIDs))
	var phone string
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{&phone, &at}, func() error { heard[phone] = at; return nil }); err != nil {
		return nil, fmt.Errorf("reading the webhooks of %d phone numbers: %w", len(phoneNumberIDs), err)
	}
	return heard, nil
}

// HeldByMeta notes that Meta took a message in and holds it back.
func (s *Store) HeldByMeta(ctx context.Context, phoneNumberID, template string) error {
	_, err := s.pool.Exec(ctx, `
		INSERT INTO held_by_meta (phone_number_id, template_name, at) VALUES ($1::text, $2::text, clock_timestamp())
		ON CONFLICT (phone_number_id, template_name) DO UPDATE SET at = excluded.at`, phoneNumberID, template)
	if err != nil {
		return fmt.Errorf("noting a message that Meta holds, of phone number %s: %w", phoneNumberID, err)
	}
	return nil
}
