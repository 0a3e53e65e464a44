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
	_, err := tx.Exec(ctx, `
		INSERT INTO number_changes AS c (phone_number_id, old_wa_id, new_wa_id, at)
		SELECT u.phone, u.old, u.new, max(u.at) FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS u(phone, old, new, at)
		GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
		ON CONFLICT (phone_number_id, old_wa_id, new_wa_id) DO UPDATE SET at = excluded.at WHERE c.at < excluded.at`, phones, olds, news, at)
	if err != nil {
		return fmt.Errorf("keeping %d changes of numbers: %w", n, err)
	}
	if err := s.copySuppressions(ctx, tx, phones, olds, news); err != nil {
		return err
	}
	users := make([]Window, n)
	for i, c := range changes {
		users[i] = Window{PhoneNumberID: c.PhoneNumberID, WAID: c.Old}
	}
	return s.FollowNumbers(ctx, tx, users)
}

// copySuppressions gives new numbers the suppressions of the old ones: whole rows, whatever they say beside the recipient.
func (s *Store) copySuppressions(ctx context.Context, tx pgx.Tx, phones, olds, news []string) error {
	rows, err := tx.Query(ctx, `SELECT phone_number_id, waba_id FROM phone_numbers WHERE phone_number_id = ANY($1::text[])`, phones)
	if err != nil {
		return fmt.Errorf("looking for the WABAs of %d phone numbers: %w", len(phones), err)
	}
	of := map[string]string{}
	var phone, waba string
	if _, err := pgx.ForEachRow(rows, []any{&phone, &waba}, func() error { of[phone] = waba; return nil }); err != nil {
		return fmt.Errorf("looking for the WABAs of %d phone numbers: %w", len(phones), err)
	}
	wabas := make([]string, len(phones))
	for i, p := range phones {
		wabas[i] = of[p]
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO suppressions
		SELECT (copied.x).* FROM (
			SELECT jsonb_populate_record(x, jsonb_build_object('wa_id', u.new, 'id', gen_random_uuid())) AS x
			FROM unnest($1::text[], $2::text[], $3::text[]) AS u(waba, old, new)
			JOIN suppressions x ON x.waba_id = u.waba AND x.wa_id = u.old
			WHERE x.waba_id = ANY($1::text[]) AND x.wa_id = ANY($2::text[])
			ORDER BY x.waba_id, u.new OFFSET 0
		) copied
		ON CONFLICT DO NOTHING`, wabas, olds, news)
	if err != nil {
		return fmt.Errorf("copying the suppressions of %d changed numbers: %w", len(olds), err)
	}
	return nil
}

// maxMoves bounds how often a user's number is followed who has changed it again and again.
const maxMoves = 4

// FollowNumbers carries the windows of the given users, as they stand, over to the numbers that these have now. A window that
// a message from after the change has opened is not: the number may be somebody else's by then.
func (s *Store) FollowNumbers(ctx context.Context, tx pgx.Tx, users []Window) error {
	type key struct{ phone, user string }
	type stand struct{ since, until time.Time } // until is zero for the first, whose window is to be read
	at := make(map[key]stand, len(users))
	for _, u := range users {
		at[key{u.PhoneNumberID, u.WAID}] = stand{}
	}
	var open []Window
	for step := 0; len(at) > 0 && step < maxMoves; step++ {
		keys := make([]Window, 0, len(at))
		for k := range at {
			keys = append(keys, Window{PhoneNumberID: k.phone, WAID: k.user})
		}
		changes, err := numberChanges(ctx, tx, keys)
		if err != nil {
			return err
		}
		if len(changes) == 0 {
			break
		}
		if step == 0 {
			windows, err := windowsFor(ctx, tx, keys)
			if err != nil {
				return err
			}
			for _, w := range windows {
				at[key{w.PhoneNumberID, w.WAID}] = stand{since: w.Until.Add(-windowOpen), until: w.Until}
			}
		}
		next := map[key]stand{}
		for _, c := range changes {
			was, ok := at[key{c.PhoneNumberID, c.Old}]
			if !ok || was.until.IsZero() || c.At.Before(was.since) {
				continue
			}
			open = append(open, Window{PhoneNumberID: c.PhoneNumberID, WAID: c.New, Until: was.until})
			if to := (key{c.PhoneNumberID, c.New}); was.until.After(next[to].until) {
				next[to] = stand{since: c.At, until: was.until}
			}
		}
		at = next
	}
	return s.OpenWindows(ctx, tx, open)
}

// windowOpen is how long a user's message opens a service window.
const windowOpen = 24 * time.Hour

func numberChanges(ctx context.Context, tx pgx.Tx, users []Window) ([]NumberChange, error) {
	phones, ids := keysOf(users)
	rows, err := tx.Query(ctx, `
		SELECT phone_number_id, old_wa_id, new_wa_id, at FROM number_changes
		WHERE phone_number_id = ANY($1::text[]) AND old_wa_id = ANY($2::text[])`, phones, ids)
	if err != nil {
		return nil, fmt.Errorf("looking for changed numbers: %w", err)
	}
	changes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[NumberChange])
	if err != nil {
		return nil, fmt.Errorf("looking for changed numbers: %w", err)
	}
	return changes, nil
}

func windowsFor(ctx context.Context, tx pgx.Tx, users []Window) ([]Window, error) {
	phones, ids := keysOf(users)
	rows, err := tx.Query(ctx, `
		SELECT phone_number_id, wa_id, until FROM service_windows
		WHERE phone_number_id = ANY($1::text[]) AND wa_id = ANY($2::text[])`, phones, ids)
	if err != nil {
		return nil, fmt.Errorf("reading the windows of %d users: %w", len(users), err)
	}
	windows, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Window])
	if err != nil {
		return nil, fmt.Errorf("reading the windows of %d users: %w", len(users), err)
	}
	return windows, nil
}

func keysOf(users []Window) (phones, ids []string) {
	for _, u := range users {
		phones, ids = append(phones, u.PhoneNumberID), append(ids, u.WAID)
	}
	return phones, ids
}
