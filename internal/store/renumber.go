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
	if err := s.FollowSuppressions(ctx, tx, olds); err != nil {
		return err
	}
	users := make([]Window, n)
	for i, c := range changes {
		users[i] = Window{PhoneNumberID: c.PhoneNumberID, WAID: c.Old}
	}
	return s.FollowNumbers(ctx, tx, users)
}

// FollowSuppressions gives the numbers that users have now what was said of marketing under the ones they had, by one word or
// another: it may be heard of after the change.
func (s *Store) FollowSuppressions(ctx context.Context, tx pgx.Tx, users []string) error {
	for step := 0; len(users) > 0 && step < maxMoves; step++ {
		rows, err := tx.Query(ctx, `
			SELECT c.phone_number_id, c.old_wa_id, c.new_wa_id, c.at FROM unnest($1::text[]) AS u(key)
			CROSS JOIN LATERAL unnest(wagate_user_keys(u.key)) AS k(key) JOIN number_changes c ON c.old_wa_id = k.key
			GROUP BY 1, 2, 3 ORDER BY 1, 2, 3`, users)
		if err != nil {
			return fmt.Errorf("looking for changed numbers: %w", err)
		}
		var phones, olds, news []string
		var at []time.Time
		var c NumberChange
		_, err = pgx.ForEachRow(rows, []any{&c.PhoneNumberID, &c.Old, &c.New, &c.At}, func() error {
			phones, olds, news, at = append(phones, c.PhoneNumberID), append(olds, c.Old), append(news, c.New), append(at, c.At)
			return nil
		})
		if err != nil {
			return fmt.Errorf("looking for changed numbers: %w", err)
		}
		if len(olds) == 0 {
			return nil
		}
		if err := s.copySuppressions(ctx, tx, phones, olds, news, at); err != nil {
			return err
		}
		users = news
	}
	return nil
}

// copySuppressions gives new numbers the suppressions that the old ones had before the change, under any spelling: whole rows,
// whatever they say beside the recipient. Of two words of the user the newer counts; what others have said is not lifted.
func (s *Store) copySuppressions(ctx context.Context, tx pgx.Tx, phones, olds, news []string, at []time.Time) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO suppressions AS x
		SELECT (copied.row).* FROM (
			SELECT DISTINCT ON (s.waba_id, u.new, s.category, s.source) jsonb_populate_record(s, jsonb_build_object('wa_id', u.new, 'id', gen_random_uuid())) AS row
			FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS u(phone, old, new, at)
			JOIN phone_numbers p ON p.phone_number_id = u.phone
			CROSS JOIN LATERAL (SELECT wagate_user_keys(u.old) AS keys OFFSET 0) k
			JOIN suppressions s ON s.waba_id = p.waba_id AND s.wa_id = ANY(k.keys) AND s.wa_id <> u.new
			WHERE s.said_at <= u.at OR s.source = '`+FromOperator+`'
			ORDER BY s.waba_id, u.new, s.category, s.source, s.said_at DESC, s.lifted_at DESC NULLS FIRST, s.until DESC NULLS FIRST OFFSET 0
		) copied
		ON CONFLICT (waba_id, wa_id, category, source) DO UPDATE SET until = excluded.until, reason = excluded.reason, code = excluded.code,
			created_at = excluded.created_at, said_at = excluded.said_at, lifted_at = excluded.lifted_at
		WHERE x.said_at < excluded.said_at
		  AND (x.source IN ('`+FromPreference+`', '`+FromKeyword+`') OR (excluded.lifted_at IS NULL AND `+suppressionTakes+`))`,
		phones, olds, news, at)
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
