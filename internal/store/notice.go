package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Throttle is where a scope's pause of the source throttle stands.
type Throttle struct {
	// Level is 0 again an hour after the end.
	Level int
	Code  int
	// Until is the end; nil with Endless, and where there is none.
	Until   *time.Time
	Endless bool
	// Since is when it was set or raised last; zero where there is none.
	Since time.Time
	// Now is the database's time at the reading.
	Now time.Time
}

// ThrottleSource marks the pauses that Meta's answers and notices set.
const ThrottleSource = "throttle"

// LockThrottle reads the throttle pause of a scope and keeps others from changing it until the transaction ends.
func (s *Store) LockThrottle(ctx context.Context, tx pgx.Tx, scope, value string) (t Throttle, err error) {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(734987103, hashtext($1::text || ':' || $2::text))`, scope, value); err != nil {
		return t, fmt.Errorf("locking the pause of %s %s: %w", scope, value, err)
	}
	err = tx.QueryRow(ctx, `
		SELECT CASE WHEN p.until < clock_timestamp() - interval '1 hour' THEN 0 ELSE p.level END, coalesce(p.code, 0), p.until, p.until IS NULL,
		       p.updated_at, clock_timestamp()
		FROM pauses p WHERE p.scope = $1::text AND p.value = $2::text AND p.source = $3::text`,
		scope, value, ThrottleSource).Scan(&t.Level, &t.Code, &t.Until, &t.Endless, &t.Since, &t.Now)
	if errors.Is(err, pgx.ErrNoRows) {
		err = tx.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&t.Now)
	}
	if err != nil {
		return t, fmt.Errorf("reading the pause of %s %s: %w", scope, value, err)
	}
	return t, nil
}

// PutThrottle keeps a pause that a notice of Meta asks for. Until zero means until it is lifted.
func (s *Store) PutThrottle(ctx context.Context, tx pgx.Tx, p Pause) error {
	return throttled(ctx, tx, p)
}

// AnnouncePause keeps a pause that Meta has announced, or that its word of an account or a template asks for: until its end,
// or until it is lifted (zero). It may lengthen one that runs, and says what that is for; announced again it changes nothing,
// and kept is false.
func (s *Store) AnnouncePause(ctx context.Context, tx pgx.Tx, p Pause) (kept bool, err error) {
	was, err := s.LockThrottle(ctx, tx, p.Scope, p.Value)
	if err != nil {
		return false, err
	}
	switch {
	case !p.Until.IsZero() && !p.Until.After(was.Now), was.Endless && !p.Until.IsZero():
		return false, nil
	case was.Endless && (was.Code == p.Code || p.Scope != "template"):
		return false, nil // by another code it is another trouble, which whoever lifts it has to see; but a template is only ever worse
	case was.Until != nil && !p.Until.IsZero() && !p.Until.After(*was.Until):
		return false, nil
	}
	p.Level, p.Source = max(was.Level, 1), ThrottleSource
	return true, throttled(ctx, tx, p)
}

// LiftThrottles ends the pauses that answers or notices of Meta set by one of the codes.
func (s *Store) LiftThrottles(ctx context.Context, tx pgx.Tx, scope string, values []string, codes []int32) (int64, error) {
	tag, err := tx.Exec(ctx, `DELETE FROM pauses WHERE scope = $1::text AND value = ANY($2::text[]) AND source = $3::text AND code = ANY($4::integer[])`,
		scope, values, ThrottleSource, codes)
	if err != nil {
		return 0, fmt.Errorf("lifting throttles of %s: %w", scope, err)
	}
	return tag.RowsAffected(), nil
}

// LiftTemplate ends the pauses that answers or notices of Meta set on a template, in the named language or in all of them.
func (s *Store) LiftTemplate(ctx context.Context, tx pgx.Tx, wabaID, name, language string) (int64, error) {
	tag, err := tx.Exec(ctx, `
		DELETE FROM pauses WHERE scope = 'template' AND source = $1::text
		  AND (value = $2::text || ':' || $3::text OR value = $2::text || ':' || $3::text || '/' || $4::text
		       OR ($4::text = '' AND starts_with(value, $2::text || ':' || $3::text || '/')))`, ThrottleSource, wabaID, name, language)
	if err != nil {
		return 0, fmt.Errorf("lifting the pauses of a template of WABA %s: %w", wabaID, err)
	}
	return tag.RowsAffected(), nil
}

// PhonesByDisplay gives the phone number ids of a WABA whose display number has these digits.
func (s *Store) PhonesByDisplay(ctx context.Context, tx pgx.Tx, wabaID, digits string) ([]string, error) {
	rows, err := tx.Query(ctx, `
		SELECT phone_number_id FROM phone_numbers
		WHERE waba_id = $1::text AND regexp_replace(display_phone_number, '[^0-9]', '', 'g') = $2::text`, wabaID, digits)
	if err != nil {
		return nil, fmt.Errorf("looking for a phone number of WABA %s: %w", wabaID, err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// AppOf gives the app of a WABA, and the WABA of a phone number where waba is empty; "" where there is none.
func (s *Store) AppOf(ctx context.Context, tx pgx.Tx, wabaID, phoneNumberID string) (waba, app string, err error) {
	err = tx.QueryRow(ctx, `
		SELECT w.waba_id, coalesce(w.app_id, '') FROM wabas w
		WHERE w.waba_id = coalesce(nullif($1::text, ''), (SELECT waba_id FROM phone_numbers WHERE phone_number_id = $2::text))`,
		wabaID, phoneNumberID).Scan(&waba, &app)
	if errors.Is(err, pgx.ErrNoRows) {
		return wabaID, "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("looking for the app of WABA %s: %w", wabaID, err)
	}
	return waba, app, nil
}
