package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// MaxReplay is how many notifications one call replays at most.
const MaxReplay = 1000

// A notification that is replayed waits again and is applied from its bytes, by this version's rules.
//
// Its statuses count as those of any notification that Meta posts twice: they find their event rows and move nothing back.
// What it says beside them (pauses, opt-outs, service windows, tiers) is done again only where nothing of it was done, that is
// for one that was set aside, or where the caller asks for it: what was true then may have been overtaken since, by Meta or by
// an operator. A row says so in its attempts: 0 is new, 1 without an error is applied but for its statuses (rawAppliedOnce).
const replayRawSQL = `
	UPDATE webhook_raw
	SET processed_at = NULL, error = NULL, attempts = CASE WHEN $4::boolean OR NOT ` + rawAppliedOnce + ` THEN 0 ELSE 1 END
	WHERE id = ANY($1::uuid[]) AND id BETWEEN $2::uuid AND $3::uuid`

// ReplayNotifications lets the named notifications wait again, all or none, and says how many they are: each counts once.
// When some are not there, nothing is changed and these are given. notices asks for what they say beside statuses to be done
// again too.
func (s *Store) ReplayNotifications(ctx context.Context, ids []uuid.UUID, notices bool) (n int, missing []uuid.UUID, err error) {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	ids = slices.Compact(ids)
	if len(ids) == 0 {
		return 0, nil, nil
	}
	lo, hi := bounds(ids)
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		if err := planByIndex(ctx, tx); err != nil {
			return err
		}
		// In the order of ids: two that replay the same do not wait for each other.
		rows, err := tx.Query(ctx, `
			SELECT id FROM webhook_raw WHERE id = ANY($1::uuid[]) AND id BETWEEN $2::uuid AND $3::uuid
			ORDER BY id FOR NO KEY UPDATE`, ids, lo, hi)
		if err != nil {
			return err
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		if err != nil {
			return err
		}
		if missing = slices.DeleteFunc(slices.Clone(ids), func(id uuid.UUID) bool { return slices.Contains(found, id) }); len(missing) > 0 {
			return nil
		}
		n = len(ids)
		_, err = tx.Exec(ctx, replayRawSQL, ids, lo, hi, notices)
		return err
	})
	if err != nil {
		return 0, nil, fmt.Errorf("replaying %d notifications: %w", len(ids), err)
	}
	return n, missing, nil
}

// ReplayFilter picks notifications to be replayed.
type ReplayFilter struct {
	// State is any but NotificationWaiting: those are applied anyway.
	State NotificationState
	// Since and Until bound the time of receipt: [Since, Until); a zero time is no bound.
	Since time.Time
	Until time.Time
	// After is the Next of the call before.
	After uuid.UUID
	// Notices asks for what they say beside statuses to be done again, also where it was done.
	Notices bool
}

// ReplayResult is what a call has replayed.
type ReplayResult struct {
	N int
	// Next is where the next call goes on; uuid.Nil when the span was gone through. Going on without it would find again what
	// has come to the same end meanwhile.
	Next uuid.UUID
}

// ReplayByState lets the oldest notifications that a filter picks wait again: at most MaxReplay of them, out of at most
// 100,000 that it looks at. Those that somebody else has in hand are passed over.
func (s *Store) ReplayByState(ctx context.Context, f ReplayFilter) (ReplayResult, error) {
	return s.replayByState(ctx, f, examineAtOnce, MaxReplay)
}

func (s *Store) replayByState(ctx context.Context, f ReplayFilter, examine, limit int) (done ReplayResult, err error) {
	lo, hi := span(f.Since, f.Until)
	if less(lo, f.After) {
		lo = f.After
	}
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		if err := planByIndex(ctx, tx); err != nil {
			return err
		}
		last, err := nth(ctx, tx, oldestSQL, lo, hi, examine)
		if err != nil {
			return err
		}
		end := last
		if last == uuid.Nil {
			end = hi
		}
		rows, err := tx.Query(ctx, pickReplaySQL, string(f.State), lo, hi, end, limit)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		if err != nil {
			return err
		}
		done = ReplayResult{N: len(ids), Next: last}
		if len(ids) == limit {
			done.Next = ids[limit-1]
		}
		if len(ids) == 0 {
			return nil
		}
		from, to := bounds(ids)
		_, err = tx.Exec(ctx, replayRawSQL, ids, from, to, f.Notices)
		return err
	})
	if err != nil {
		return ReplayResult{}, fmt.Errorf("replaying notifications that are %s: %w", f.State, err)
	}
	return done, nil
}

const pickReplaySQL = `
	SELECT id FROM webhook_raw
	WHERE processed_at IS NOT NULL AND ` + rawState + ` = $1::text AND id > $2::uuid AND id < $3::uuid AND id <= $4::uuid
	ORDER BY id LIMIT $5::integer FOR NO KEY UPDATE SKIP LOCKED`
