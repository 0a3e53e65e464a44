package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// NumberChange says that a user's number is another since then.
type NumberChange struct {
	PhoneNumberID string // the one that was told
	Old, New      string // wa_ids
	At            time.Time
}

// ChangeNumbers keeps that users have changed their numbers, and gives the new ones what the old ones had: the service windows
// of messages from before the change, and what users do not want to get. The old ones keep theirs: nobody knows when
// somebody else has them.
func (s *Store) ChangeNumbers(ctx context.Context, tx pgx.Tx, changes []NumberChange) error {
	n := len(changes)
	if n == 0 {
		return nil
	}
	phones, olds, news, at := make([]string, n), make([]string, n), make([]string, n), make([]time.Time, n)
	for i, c := range changes {
		phones[i], olds[i], news[i], at[i] = c.PhoneNumberID, c.Old, c.New, c.At
	}
	b := &pgx.Batch{}
	b.Queue(`
		INSERT INTO number_changes AS c (phone_number_id, old_wa_id, new_wa_id, at)
		SELECT u.phone, u.old, u.new, max(u.at) FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS u(phone, old, new, at)
		GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
		ON CONFLICT (phone_number_id, old_wa_id, new_wa_id) DO UPDATE SET at = excluded.at WHERE c.at < excluded.at`, phones, olds, news, at)
	// The whole row, whatever it says beside the recipient.
	b.Queue(`
		INSERT INTO suppressions
		SELECT (copied.x).* FROM (
			SELECT jsonb_populate_record(x, jsonb_build_object('wa_id', u.new, 'id', gen_random_uuid())) AS x
			FROM unnest($1::text[], $2::text[], $3::text[]) AS u(phone, old, new)
			JOIN phone_numbers p ON p.phone_number_id = u.phone
			JOIN suppressions x ON x.waba_id = p.waba_id AND x.wa_id = u.old
			ORDER BY x.waba_id, u.new OFFSET 0
		) copied
		ON CONFLICT DO NOTHING`, phones, olds, news)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("keeping %d changes of numbers: %w", n, err)
	}
	keys := make([]Window, n)
	for i, c := range changes {
		keys[i] = Window{PhoneNumberID: c.PhoneNumberID, WAID: c.Old}
	}
	return s.FollowNumbers(ctx, tx, keys)
}

// FollowNumbers carries the windows of the given users, as they stand, over to the numbers that these have now. A window that
// a message from after the change has opened is not: the number may be somebody else's by then.
func (s *Store) FollowNumbers(ctx context.Context, tx pgx.Tx, users []Window) error {
	if len(users) == 0 {
		return nil
	}
	phones, ids := make([]string, len(users)), make([]string, len(users))
	for i, u := range users {
		phones[i], ids[i] = u.PhoneNumberID, u.WAID
	}
	// A user may have changed it again meanwhile: some steps are followed.
	rows, err := tx.Query(ctx, `
		WITH RECURSIVE moved AS (
			SELECT w.phone_number_id, c.new_wa_id, w.until, c.at, 1 AS step
			FROM unnest($1::text[], $2::text[]) AS u(phone, wa_id)
			JOIN number_changes c ON c.phone_number_id = u.phone AND c.old_wa_id = u.wa_id
			JOIN service_windows w ON w.phone_number_id = u.phone AND w.wa_id = u.wa_id AND w.until - interval '24 hours' <= c.at
			UNION
			SELECT m.phone_number_id, c.new_wa_id, m.until, c.at, m.step + 1
			FROM moved m JOIN number_changes c ON c.phone_number_id = m.phone_number_id AND c.old_wa_id = m.new_wa_id AND c.at >= m.at
			WHERE m.step < 4
		)
		SELECT phone_number_id, new_wa_id, max(until) FROM moved GROUP BY 1, 2`, phones, ids)
	if err != nil {
		return fmt.Errorf("looking for changed numbers: %w", err)
	}
	windows, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Window])
	if err != nil {
		return fmt.Errorf("looking for changed numbers: %w", err)
	}
	return s.OpenWindows(ctx, tx, windows)
}
