package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// NotificationState is where a notification of Meta stands.
type NotificationState string

// The states of a notification.
const (
	// NotificationWaiting is still to be applied, or to be tried again.
	NotificationWaiting NotificationState = "waiting"
	// NotificationSetAside could not be read or applied: nothing of it counts.
	NotificationSetAside NotificationState = "set_aside"
	// NotificationUnmatched was applied but for statuses of no message.
	NotificationUnmatched NotificationState = "unmatched"
	// NotificationApplied was applied as a whole.
	NotificationApplied NotificationState = "applied"
)

// Notification is a notification of Meta as operators see it.
type Notification struct {
	// ID is a UUIDv7 of the time of receipt.
	ID    uuid.UUID
	AppID string
	State NotificationState
	// Size is the length of its body in bytes.
	Size       int64
	ReceivedAt time.Time
	// ProcessedAt is nil for one that waits.
	ProcessedAt *time.Time
	Attempts    int
	// Error is why it, or a part of it, could not be applied, or not yet; nil when there is nothing to say. It holds nothing
	// of the body.
	Error *string
}

const rawState = `CASE WHEN processed_at IS NULL THEN 'waiting' WHEN error IS NULL THEN 'applied'
	WHEN starts_with(error, '` + ProblemUnmatched + `') THEN 'unmatched' ELSE 'set_aside' END`

const notificationColumns = `id, app_id, ` + rawState + `, octet_length(body)::bigint, received_at, processed_at, attempts, error`

func scanNotification(r pgx.CollectableRow) (n Notification, err error) {
	return n, r.Scan(&n.ID, &n.AppID, &n.State, &n.Size, &n.ReceivedAt, &n.ProcessedAt, &n.Attempts, &n.Error)
}

// NotificationFilter picks notifications. Zero fields pick all.
type NotificationFilter struct {
	State NotificationState
	// Since and Until bound the time of receipt, by the clock of the gateway that took it in: [Since, Until).
	Since time.Time
	Until time.Time
	// Before is where the page before ended; the answer goes on with older ones.
	Before uuid.UUID
	// Limit is 1 or more.
	Limit int
}

const (
	// examineAtOnce bounds the rows that one look at notifications reads. No index knows the states but that of those that
	// wait: others are rare, or nearly all, and an index would be paid for at every notification, and could not be made on a
	// running system without holding up its writers. So a look walks along the ids, which are times, and gives up its place
	// after so many.
	examineAtOnce = 100_000
	// countAtOnce is the same for a count.
	countAtOnce = 1_000_000
)

// ListNotifications reads the newest notifications that a filter picks, newest first, without their bodies. Those that wait
// are found by an index; for the others it reads at most 100,000 notifications of the span. next is where to go on from,
// uuid.Nil at the end: a page may hold fewer than the limit, or none, and still have a next one.
func (s *Store) ListNotifications(ctx context.Context, f NotificationFilter) (page []Notification, next uuid.UUID, err error) {
	return s.listNotifications(ctx, f, examineAtOnce)
}

func (s *Store) listNotifications(ctx context.Context, f NotificationFilter, examine int) (page []Notification, next uuid.UUID, err error) {
	lo, hi := span(f.Since, f.Until)
	if f.Before != uuid.Nil && less(f.Before, hi) {
		hi = f.Before
	}
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		if err := planByIndex(ctx, tx); err != nil {
			return err
		}
		sql, args := listWaitingSQL, []any{lo, hi, f.Limit + 1}
		if f.State != NotificationWaiting {
			var err error
			if next, err = nth(ctx, tx, newestSQL, lo, hi, examine); err != nil {
				return err
			}
			sql, args = listRawSQL, []any{lo, hi, f.Limit + 1, next, string(f.State)}
		}
		rows, err := tx.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		page, err = pgx.CollectRows(rows, scanNotification)
		return err
	})
	if err != nil {
		return nil, uuid.Nil, fmt.Errorf("listing notifications: %w", err)
	}
	if len(page) > f.Limit {
		page = page[:f.Limit]
		next = page[f.Limit-1].ID
	}
	return page, next, nil
}

const listWaitingSQL = `
	SELECT ` + notificationColumns + ` FROM webhook_raw
	WHERE processed_at IS NULL AND id > $1::uuid AND id < $2::uuid ORDER BY id DESC LIMIT $3::integer`

const listRawSQL = `
	SELECT ` + notificationColumns + ` FROM webhook_raw
	WHERE ($5::text = '' OR ` + rawState + ` = $5::text) AND id > $1::uuid AND id < $2::uuid AND id >= $4::uuid
	ORDER BY id DESC LIMIT $3::integer`

// GetNotification reads a notification with its body, byte for byte as Meta posted it; ErrNotFound when there is none.
func (s *Store) GetNotification(ctx context.Context, id uuid.UUID) (n Notification, body []byte, err error) {
	all, err := collect(ctx, s.pool, "notification "+id.String(), func(r pgx.CollectableRow) (n Notification, err error) {
		return n, r.Scan(&n.ID, &n.AppID, &n.State, &n.Size, &n.ReceivedAt, &n.ProcessedAt, &n.Attempts, &n.Error, &body)
	}, `SELECT `+notificationColumns+`, body FROM webhook_raw WHERE id = $1::uuid`, id)
	n, err = one(all, err, "notification", id.String())
	return n, body, err
}

// NotificationCounts says how many notifications stand where.
type NotificationCounts struct {
	Waiting, SetAside, Unmatched, Applied int64
	// Oldest is the oldest notification that was counted where there are older ones in the span; uuid.Nil when all of them
	// were.
	Oldest uuid.UUID
}

// CountNotifications counts those received in [since, until) by state, the newest 1,000,000 of them; a zero time is no bound.
func (s *Store) CountNotifications(ctx context.Context, since, until time.Time) (NotificationCounts, error) {
	return s.countNotifications(ctx, since, until, countAtOnce)
}

func (s *Store) countNotifications(ctx context.Context, since, until time.Time, examine int) (c NotificationCounts, err error) {
	lo, hi := span(since, until)
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		if err := planByIndex(ctx, tx); err != nil {
			return err
		}
		oldest, err := nth(ctx, tx, newestSQL, lo, hi, examine)
		if err != nil {
			return err
		}
		if oldest != uuid.Nil {
			older, err := nth(ctx, tx, newestSQL, lo, oldest, 1)
			if err != nil {
				return err
			}
			if older != uuid.Nil {
				c.Oldest = oldest
			}
		}
		return tx.QueryRow(ctx, `
			SELECT count(*) FILTER (WHERE state = 'waiting'), count(*) FILTER (WHERE state = 'set_aside'),
			       count(*) FILTER (WHERE state = 'unmatched'), count(*) FILTER (WHERE state = 'applied')
			FROM (SELECT `+rawState+` AS state FROM webhook_raw WHERE id > $1::uuid AND id < $2::uuid AND id >= $3::uuid) r`,
			lo, hi, oldest).Scan(&c.Waiting, &c.SetAside, &c.Unmatched, &c.Applied)
	})
	if err != nil {
		return NotificationCounts{}, fmt.Errorf("counting notifications: %w", err)
	}
	return c, nil
}

// newestSQL and oldestSQL find the row at a place of a span, from its newest and from its oldest.
const (
	newestSQL = `SELECT id FROM webhook_raw WHERE id > $1::uuid AND id < $2::uuid ORDER BY id DESC OFFSET $3::integer LIMIT 1`
	oldestSQL = `SELECT id FROM webhook_raw WHERE id > $1::uuid AND id < $2::uuid ORDER BY id OFFSET $3::integer LIMIT 1`
)

// nth gives the id of the nth row of a span, from 1; uuid.Nil when it has fewer.
func nth(ctx context.Context, tx pgx.Tx, sql string, lo, hi uuid.UUID, n int) (id uuid.UUID, err error) {
	err = tx.QueryRow(ctx, sql, lo, hi, n-1).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return uuid.Nil, nil
	}
	return id, err
}

// span gives the ids between which, both excluded, those of [since, until) lie; a zero time is no bound.
func span(since, until time.Time) (lo, hi uuid.UUID) {
	hi = uuid.Max
	if !since.IsZero() {
		lo = floorID(since)
	}
	if !until.IsZero() {
		hi = floorID(until)
	}
	return lo, hi
}

// floorID is wagate_uuid_floor: below every id of that millisecond, for those have their version set.
func floorID(t time.Time) (id uuid.UUID) {
	millis := min(max(t.UnixMilli(), 0), 1<<48-1)
	binary.BigEndian.PutUint64(id[:8], uint64(millis)<<16)
	return id
}
