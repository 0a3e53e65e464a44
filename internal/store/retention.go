package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Dropped is what a retention run did.
type Dropped struct {
	// Partitions are the names of the daily tables that went.
	Partitions []string
	// Kept are those that had to go but hold messages that wait, are being sent or are unknown, or notifications not
	// yet applied: they stay until nothing in them is open.
	Kept []string
	// Busy are those that a reader holds, or whose messages the reports' roll-ups do not hold yet; the next run tries them again.
	Busy []string
	// WAMIDs counts the rows of the table from wamid to message that went with them.
	WAMIDs int64
}

// DropBefore drops the daily partitions of messages, events and raw notifications whose day lies wholly before the day of
// cutoff (UTC), and the wamids of the messages that went. Messages go when the roll-ups of the reports hold them. A partition
// gives way to whoever reads it, and nobody waits behind it for more than 300 ms.
func (s *Store) DropBefore(ctx context.Context, cutoff time.Time) (Dropped, error) {
	var d Dropped
	first := cutoff.UTC().Truncate(24 * time.Hour) // the first day that stays
	oldest := first                                // ... with the days of messages that could not go
	for _, parent := range []string{"messages", "message_events", "webhook_raw"} {
		kept, err := s.dropDays(ctx, parent, first, &d)
		if err != nil {
			return d, err
		}
		if parent == "messages" && !kept.IsZero() {
			oldest = kept // its wamids stay, and younger ones
		}
	}
	for {
		tag, err := s.pool.Exec(ctx, `
			DELETE FROM wamids w USING (
				SELECT wamid FROM wamids WHERE message_id < wagate_uuid_floor($1::timestamptz) ORDER BY message_id LIMIT 10000
			) old WHERE w.wamid = old.wamid`, oldest)
		if err != nil {
			return d, fmt.Errorf("removing old wamids: %w", err)
		}
		d.WAMIDs += tag.RowsAffected()
		if tag.RowsAffected() < 10_000 {
			return d, nil
		}
	}
}

// DropDaysBefore drops the daily partitions of message_events or webhook_raw whose day lies wholly before the day of cutoff
// (UTC), as DropBefore does; messages and the others stay.
func (s *Store) DropDaysBefore(ctx context.Context, parent string, cutoff time.Time) (Dropped, error) {
	var d Dropped
	_, err := s.dropDays(ctx, parent, cutoff.UTC().Truncate(24*time.Hour), &d)
	return d, err
}

// dropDays drops the partitions of a table before the first day that stays, and gives the oldest day that could not go; zero
// when all went.
func (s *Store) dropDays(ctx context.Context, parent string, first time.Time, d *Dropped) (oldest time.Time, err error) {
	children, err := s.partitions(ctx, parent)
	if err != nil {
		return oldest, err
	}
	for _, child := range children {
		day, err := time.Parse("20060102", child[len(parent)+len("_p"):])
		if err != nil || !day.Before(first) {
			continue
		}
		rolled, err := s.rolledUp(ctx, parent, day)
		if err != nil {
			return oldest, err
		}
		open := false
		if rolled {
			open, err = s.dropPartition(ctx, parent, child)
		}
		switch {
		case !rolled:
			d.Busy = append(d.Busy, child)
		case err == nil && !open:
			d.Partitions = append(d.Partitions, child)
			continue
		case err == nil:
			d.Kept = append(d.Kept, child)
		case lockTimedOut(err):
			d.Busy = append(d.Busy, child)
		default:
			return oldest, fmt.Errorf("dropping partition %s: %w", child, err)
		}
		if oldest.IsZero() {
			oldest = day // they come in the order of their days
		}
	}
	return oldest, nil
}

// rolledUp says whether the roll-ups of the reports hold what a day of a table is needed for, and makes them where they do not.
func (s *Store) rolledUp(ctx context.Context, parent string, day time.Time) (bool, error) {
	if parent != "messages" {
		return true, nil
	}
	rolled, err := s.RollUp(ctx)
	return !rolled.Until.Before(day.Add(24 * time.Hour)), err
}

// partitions lists the daily partitions of a table, oldest first.
func (s *Store) partitions(ctx context.Context, parent string) ([]string, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = $1::text::regclass AND c.relname ~ ('^' || $1::text || '_p[0-9]{8}$') ORDER BY 1`, parent)
	if err != nil {
		return nil, fmt.Errorf("listing the partitions of %s: %w", parent, err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("listing the partitions of %s: %w", parent, err)
	}
	return names, nil
}

// dropPartition drops a partition in which nothing is open; else it says that something is.
func (s *Store) dropPartition(ctx context.Context, parent, child string) (open bool, err error) {
	name := pgx.Identifier{child}.Sanitize()
	condition := map[string]string{
		"messages":       `status IN ('queued', 'sending', 'unknown')`,
		"message_events": `false`,
		"webhook_raw":    `processed_at IS NULL`,
	}[parent]
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '300ms'`); err != nil {
			return err
		}
		// No writer can open anything between the look and the drop.
		if _, err := tx.Exec(ctx, `LOCK TABLE `+name+` IN EXCLUSIVE MODE`); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM `+name+` WHERE `+condition+`)`).Scan(&open); err != nil || open {
			return err
		}
		_, err := tx.Exec(ctx, `DROP TABLE `+name)
		return err
	})
	return open, err
}

func lockTimedOut(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "55P03"
}
