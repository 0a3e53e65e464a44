package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/message"
)

// Redaction names what is removed from messages while their rows stay.
type Redaction string

// The redactions.
const (
	// RedactContent removes the body.
	RedactContent Redaction = "content"
	// RedactAuthentication removes the body of authentication messages.
	RedactAuthentication Redaction = "authentication"
	// RedactRecipient masks the recipient and removes all that holds its number: the wa_id, the wamids (Meta's hold the number
	// in base64), the body, and what callers are apt to fill with it (ordering_key, biz_opaque_callback_data). What stays is
	// the keyed hash that report.messages gives.
	RedactRecipient Redaction = "recipient"
)

// forgottenWAMID stands for a wamid that was removed: that Meta had accepted the message stays known.
const forgottenWAMID = "***"

// RedactAtFinal says whether content goes in the statement that ends its message, for all messages: without it only that of
// authentication messages does. It is to be called before the Store is used.
func (s *Store) RedactAtFinal(all bool) { s.atFinal = all }

// A message is done when nothing will send it again but a resend by hand. One that Meta took and of which nothing more was
// heard for a day is: a failure that comes later is not followed by a new try.
const messageDone = `(m.status IN ('delivered', 'read', 'played', 'failed', 'expired', 'cancelled')
	OR (m.status IN ('accepted', 'sent') AND coalesce(m.accepted_at, m.sent_at, m.created_at) < clock_timestamp() - interval '24 hours'))`

// toRedact picks, by redaction, what has something to be removed.
const toRedact = `CASE $1::text WHEN 'recipient' THEN m.recipient_hash IS NULL WHEN 'content' THEN m.body IS NOT NULL
	ELSE m.body IS NOT NULL AND (m.category = 'authentication' OR coalesce(starts_with(m.pricing_category, 'authentication'), false)) END`

// Redacted is what one step has done.
type Redacted struct {
	// Redacted counts messages from which something was removed; Open those that were passed by, as they may still be sent.
	Redacted, Open int64
	// To is up to when, by their creation, messages were looked at.
	To time.Time
	// More says that the step ended at its limit.
	More bool
	// Busy says that another process is at it, and nothing was done.
	Busy bool
}

// Redact looks at the next messages created before a time, up to limit of them and in the order of their ids, from where the
// step before ended, and removes what the redaction names from those that are done. The others are noted, for RedactOpen.
// Each message is read once by each redaction, whatever it is called with.
func (s *Store) Redact(ctx context.Context, what Redaction, before time.Time, limit int) (done Redacted, err error) {
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		if err := planByIndex(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO redactions (name) VALUES ($1::text) ON CONFLICT (name) DO NOTHING`, string(what)); err != nil {
			return err
		}
		var from uuid.UUID
		err := tx.QueryRow(ctx, `SELECT done_to FROM redactions WHERE name = $1::text FOR NO KEY UPDATE SKIP LOCKED`, string(what)).Scan(&from)
		if errors.Is(err, pgx.ErrNoRows) {
			done.Busy = true
			return nil
		}
		if err != nil {
			return err
		}
		to := floorID(before)
		if !less(from, to) {
			done.To = message.TimeOf(from)
			return nil
		}
		rows, err := tx.Query(ctx, `
			SELECT m.id, `+toRedact+` AND `+messageDone+`, `+toRedact+` AND NOT `+messageDone+`
			FROM messages m WHERE m.id > $2::uuid AND m.id < $3::uuid ORDER BY m.id LIMIT $4::integer`, string(what), from, to, limit)
		if err != nil {
			return err
		}
		var id uuid.UUID
		var ready, open bool
		var take, leave []uuid.UUID
		n, last := 0, from
		_, err = pgx.ForEachRow(rows, []any{&id, &ready, &open}, func() error {
			n, last = n+1, id
			if ready {
				take = append(take, id)
			} else if open {
				leave = append(leave, id)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if done.More = n == limit; !done.More {
			last = to
		}
		if done.Redacted, err = redactThese(ctx, tx, what, take); err != nil {
			return err
		}
		done.Open, done.To = int64(len(leave)), message.TimeOf(last)
		if _, err := tx.Exec(ctx, `
			INSERT INTO redactions_open (name, message_id) SELECT $1::text, u.id FROM unnest($2::uuid[]) AS u(id)
			ON CONFLICT (name, message_id) DO NOTHING`, string(what), leave); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE redactions SET done_to = $2::uuid, changed_at = clock_timestamp() WHERE name = $1::text`, string(what), last)
		return err
	})
	if err != nil {
		return Redacted{}, fmt.Errorf("removing %s: %w", what, err)
	}
	return done, nil
}

// RedactOpen looks again at up to limit messages that had been passed by, those after the given one; next is where to go on,
// uuid.Nil at the end.
func (s *Store) RedactOpen(ctx context.Context, what Redaction, after uuid.UUID, limit int) (done Redacted, next uuid.UUID, err error) {
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		if err := planByIndex(ctx, tx); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			SELECT message_id FROM redactions_open WHERE name = $1::text AND message_id > $2::uuid
			ORDER BY message_id LIMIT $3::integer FOR UPDATE SKIP LOCKED`, string(what), after, limit)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		if err != nil || len(ids) == 0 {
			return err
		}
		if len(ids) == limit {
			next = ids[limit-1]
		}
		if done.Redacted, err = redactThese(ctx, tx, what, ids); err != nil {
			return err
		}
		lo, hi := bounds(ids)
		rows, err = tx.Query(ctx, `
			SELECT m.id FROM messages m WHERE m.id = ANY($2::uuid[]) AND m.id BETWEEN $3::uuid AND $4::uuid AND `+toRedact, string(what), ids, lo, hi)
		if err != nil {
			return err
		}
		open, err := idSet(rows)
		if err != nil {
			return err
		}
		done.Open = int64(len(open))
		ids = slices.DeleteFunc(ids, func(id uuid.UUID) bool { return open[id] })
		_, err = tx.Exec(ctx, `DELETE FROM redactions_open WHERE name = $1::text AND message_id = ANY($2::uuid[])`, string(what), ids)
		return err
	})
	if err != nil {
		return Redacted{}, uuid.Nil, fmt.Errorf("removing %s of messages that were open: %w", what, err)
	}
	return done, next, nil
}

// redactThese removes what the redaction names from those of the messages that are done, and counts them.
func redactThese(ctx context.Context, tx pgx.Tx, what Redaction, ids []uuid.UUID) (int64, error) {
	if len(ids) == 0 {
		return 0, nil
	}
	lo, hi := bounds(ids)
	if what != RedactRecipient {
		tag, err := tx.Exec(ctx, `
			UPDATE messages m SET body = NULL, redacted_at = clock_timestamp()
			WHERE m.id = ANY($2::uuid[]) AND m.id BETWEEN $3::uuid AND $4::uuid AND `+toRedact+` AND `+messageDone, string(what), ids, lo, hi)
		return tag.RowsAffected(), err
	}
	rows, err := tx.Query(ctx, `
		UPDATE messages m SET
			recipient_hash = sha256((SELECT s.hash_key FROM report_settings s) || convert_to(wagate_recipient_who(m.recipient), 'UTF8')),
			recipient = wagate_recipient_masked(m.recipient), wa_id = NULL, wamid = CASE WHEN m.wamid IS NOT NULL THEN '`+forgottenWAMID+`' END,
			ordering_key = NULL, opaque = NULL, error_details = regexp_replace(m.error_details, '[0-9]{7,}', '***', 'g'),
			body = NULL, redacted_at = coalesce(m.redacted_at, clock_timestamp())
		WHERE m.id = ANY($2::uuid[]) AND m.id BETWEEN $3::uuid AND $4::uuid AND `+toRedact+` AND `+messageDone+`
		RETURNING m.id`, string(what), ids, lo, hi)
	if err != nil {
		return 0, err
	}
	masked, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return 0, err
	}
	_, err = tx.Exec(ctx, `DELETE FROM wamids WHERE message_id = ANY($1::uuid[])`, masked)
	return int64(len(masked)), err
}

// RedactionsOpen counts, by redaction, the messages that were passed by.
func (s *Store) RedactionsOpen(ctx context.Context) (map[Redaction]int64, error) {
	rows, err := s.pool.Query(ctx, `SELECT name, count(*) FROM redactions_open GROUP BY name`)
	if err != nil {
		return nil, fmt.Errorf("counting open redactions: %w", err)
	}
	open := map[Redaction]int64{}
	var name string
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&name, &n}, func() error { open[Redaction(name)] = n; return nil }); err != nil {
		return nil, fmt.Errorf("counting open redactions: %w", err)
	}
	return open, nil
}

// straySQL removes old rows of the default partitions, which no drop of a day reaches. What is open stays, as it does there.
var straySQL = map[string]string{
	"messages": `DELETE FROM messages_default WHERE id IN (SELECT id FROM messages_default
		WHERE id < $1::uuid AND status NOT IN ('queued', 'sending', 'unknown') ORDER BY id LIMIT $2::integer)`,
	"message_events": `DELETE FROM message_events_default WHERE id IN (SELECT id FROM message_events_default WHERE id < $1::uuid ORDER BY id LIMIT $2::integer)`,
	"webhook_raw": `DELETE FROM webhook_raw_default WHERE id IN (SELECT id FROM webhook_raw_default
		WHERE id < $1::uuid AND processed_at IS NOT NULL ORDER BY id LIMIT $2::integer)`,
}

// DropStray removes up to limit rows of before the day of cutoff (UTC) that lie in the default partition of messages,
// message_events or webhook_raw, as they came on a day that had no partition.
func (s *Store) DropStray(ctx context.Context, parent string, cutoff time.Time, limit int) (int64, error) {
	tag, err := s.pool.Exec(ctx, straySQL[parent], floorID(cutoff.UTC().Truncate(24*time.Hour)), limit)
	if err != nil {
		return 0, fmt.Errorf("removing old rows of %s_default: %w", parent, err)
	}
	return tag.RowsAffected(), nil
}

// ForgetSpellings looks at up to limit spellings of numbers, those after the given one, and removes those that were learned
// before a time; next is where to go on, "" at the end. The spellings of users that are suppressed stay, so that the
// suppression goes on for every one of them; the others are learned again from the next answer.
func (s *Store) ForgetSpellings(ctx context.Context, after string, before time.Time, limit int) (next string, removed int64, err error) {
	var last *string
	var seen int
	err = s.pool.QueryRow(ctx, `
		WITH part AS MATERIALIZED (
			SELECT input, wa_id, learned_at FROM wa_ids WHERE input > $1::text ORDER BY input LIMIT $3::integer
		), old AS MATERIALIZED (
			SELECT input FROM part WHERE learned_at < $2::timestamptz
		), gone AS (
			DELETE FROM wa_ids w USING old o
			WHERE w.input = o.input AND w.learned_at < $2::timestamptz
			  AND (SELECT x.id FROM suppressions x WHERE x.wa_id = ANY((SELECT wagate_user_keys(o.input))::text[]) LIMIT 1) IS NULL
			RETURNING 1
		)
		SELECT (SELECT max(input) FROM part), (SELECT count(*) FROM part)::integer, (SELECT count(*) FROM gone)`, after, before, limit).
		Scan(&last, &seen, &removed)
	if err != nil {
		return "", 0, fmt.Errorf("removing old spellings of numbers: %w", err)
	}
	if last != nil && seen == limit {
		next = *last
	}
	return next, removed, nil
}
