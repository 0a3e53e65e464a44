package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// SpentError says that a WABA has no management call left.
type SpentError struct {
	// Until is when one is free again, in database time.
	Until time.Time
}

// Error implements error.
func (e *SpentError) Error() string { return "no management call is left in this hour" }

// unregisteredCalls is Meta's limit of management calls an hour for a WABA without a registered phone number.
const unregisteredCalls = 200

// managementMinutes is how many whole minutes a rolling hour can touch.
const managementMinutes = 61

// TakeManagementCall counts one management call of a WABA in its rolling hour. It is false where that has none left: then
// nothing is counted, and retryAt, in database time, is when one is free again. Of a WABA none of whose phone numbers is
// registered (one never looked at counts as registered) the limit is 200 an hour at the most. It is exact for any number
// of processes. ErrNotFound where there is no such WABA.
func (s *Store) TakeManagementCall(ctx context.Context, wabaID string) (ok bool, retryAt time.Time, err error) {
	return s.takeManagementCall(ctx, wabaID, nil)
}

func (s *Store) takeManagementCall(ctx context.Context, wabaID string, now *time.Time) (ok bool, retryAt time.Time, err error) {
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		var limit int
		// The lock first: what the next statement reads is then the newest.
		err := tx.QueryRow(ctx, `
			SELECT CASE WHEN EXISTS (SELECT FROM phone_numbers p WHERE p.waba_id = w.waba_id AND p.registered IS NOT FALSE)
			       THEN w.management_calls_per_hour ELSE least(w.management_calls_per_hour, $2::integer) END
			FROM wabas w WHERE w.waba_id = $1::text FOR NO KEY UPDATE OF w`, wabaID, unregisteredCalls).Scan(&limit)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		type minute struct {
			At    time.Time
			Calls int
		}
		var this time.Time
		var used int
		var minutes []minute
		rows, err := tx.Query(ctx, `
			WITH t AS MATERIALIZED (SELECT date_trunc('minute', coalesce($2::timestamptz, clock_timestamp())) AS this),
			gone AS (
				DELETE FROM management_calls c USING t
				WHERE c.waba_id = $1::text AND c.minute <= t.this - make_interval(mins => $3::integer)
			)
			SELECT t.this, coalesce(c.minute, t.this), coalesce(c.calls, 0)
			FROM t LEFT JOIN management_calls c ON c.waba_id = $1::text AND c.minute > t.this - make_interval(mins => $3::integer)
			ORDER BY c.minute`, wabaID, now, managementMinutes)
		if err != nil {
			return err
		}
		var m minute
		_, err = pgx.ForEachRow(rows, []any{&this, &m.At, &m.Calls}, func() error {
			used += m.Calls
			minutes = append(minutes, m)
			return nil
		})
		if err != nil {
			return err
		}
		if used >= limit {
			retryAt = this.Add(managementMinutes * time.Minute)
			for _, m := range minutes {
				if used -= m.Calls; used < limit {
					retryAt = m.At.Add(managementMinutes * time.Minute)
					break
				}
			}
			return nil
		}
		ok = true
		_, err = tx.Exec(ctx, `
			INSERT INTO management_calls AS c (waba_id, minute, calls) VALUES ($1::text, $2::timestamptz, 1)
			ON CONFLICT (waba_id, minute) DO UPDATE SET calls = c.calls + 1`, wabaID, this)
		return err
	})
	if err != nil {
		return false, time.Time{}, fmt.Errorf("taking a management call of WABA %s: %w", wabaID, err)
	}
	return ok, retryAt, nil
}
