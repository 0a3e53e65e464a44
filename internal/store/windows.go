package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Window is a customer service window: a user has written to a phone number, and free-form messages may go until its end.
type Window struct {
	PhoneNumberID string
	WAID          string
	Until         time.Time
}

// OpenWindows opens windows, or keeps them open for longer; none is made shorter.
func (s *Store) OpenWindows(ctx context.Context, tx pgx.Tx, windows []Window) error {
	type key struct{ phone, user string }
	latest := make(map[key]time.Time, len(windows))
	for _, w := range windows {
		if k := (key{w.PhoneNumberID, w.WAID}); w.Until.After(latest[k]) {
			latest[k] = w.Until
		}
	}
	if len(latest) == 0 {
		return nil
	}
	phones, users, until := make([]string, 0, len(latest)), make([]string, 0, len(latest)), make([]time.Time, 0, len(latest))
	for k, t := range latest {
		phones, users, until = append(phones, k.phone), append(users, k.user), append(until, t)
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO service_windows AS w (phone_number_id, wa_id, until)
		SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS u(phone, wa_id, until) ORDER BY u.phone, u.wa_id
		ON CONFLICT (phone_number_id, wa_id) DO UPDATE SET until = excluded.until WHERE w.until < excluded.until`, phones, users, until)
	if err != nil {
		return fmt.Errorf("opening %d service windows: %w", len(latest), err)
	}
	return nil
}

// WindowsOf gives the ends of the windows that are open at a phone number for the given users. A user without one is not
// in the map.
func (s *Store) WindowsOf(ctx context.Context, phoneNumberID string, waIDs []string) (map[string]time.Time, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT wa_id, until FROM service_windows
		WHERE phone_number_id = $1::text AND wa_id = ANY($2::text[]) AND until > clock_timestamp()`, phoneNumberID, waIDs)
	if err != nil {
		return nil, fmt.Errorf("reading service windows: %w", err)
	}
	open := make(map[string]time.Time, len(waIDs))
	var user string
	var until time.Time
	if _, err := pgx.ForEachRow(rows, []any{&user, &until}, func() error { open[user] = until; return nil }); err != nil {
		return nil, fmt.Errorf("reading service windows: %w", err)
	}
	return open, nil
}

// SweepWindows looks at up to limit windows after the given one, in the order of their keys, and removes those that have
// ended. next is where to go on from, the zero Window when all were looked at. So no index has to follow each message
// that comes in.
func (s *Store) SweepWindows(ctx context.Context, after Window, limit int) (next Window, removed int64, err error) {
	var phone, user *string
	var seen int
	err = s.pool.QueryRow(ctx, `
		WITH part AS MATERIALIZED (
			SELECT phone_number_id, wa_id, until FROM service_windows
			WHERE (phone_number_id, wa_id) > ($1::text, $2::text) ORDER BY phone_number_id, wa_id LIMIT $3::integer
		), old AS (
			SELECT w.phone_number_id, w.wa_id FROM part JOIN service_windows w ON w.phone_number_id = part.phone_number_id AND w.wa_id = part.wa_id
			WHERE part.until <= clock_timestamp() AND w.until <= clock_timestamp() FOR UPDATE OF w SKIP LOCKED
		), gone AS (
			DELETE FROM service_windows w USING old WHERE w.phone_number_id = old.phone_number_id AND w.wa_id = old.wa_id
			RETURNING 1
		), last AS (
			SELECT phone_number_id, wa_id FROM part ORDER BY phone_number_id DESC, wa_id DESC LIMIT 1
		)
		SELECT (SELECT phone_number_id FROM last), (SELECT wa_id FROM last), (SELECT count(*) FROM part)::integer, (SELECT count(*) FROM gone)`,
		after.PhoneNumberID, after.WAID, limit).Scan(&phone, &user, &seen, &removed)
	if err != nil {
		return Window{}, 0, fmt.Errorf("removing ended service windows: %w", err)
	}
	if phone != nil && user != nil && seen >= limit {
		next = Window{PhoneNumberID: *phone, WAID: *user}
	}
	return next, removed, nil
}
