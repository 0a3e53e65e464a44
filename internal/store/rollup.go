package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/message"
)

const (
	// quarter is what the roll-ups are made by.
	quarter = 15 * time.Minute
	// rollAtOnce is about how many messages one transaction rolls up, of up to rollSpan quarter hours; of one at least.
	rollAtOnce = 20_000
	rollSpan   = 96
	// foldAtOnce bounds the logged changes that one transaction moves into the roll-ups.
	foldAtOnce = 20_000
	// forgetAtOnce bounds the rows of a roll-up that one statement removes.
	forgetAtOnce = 10_000
)

// RolledUp is what a run of the roller did.
type RolledUp struct {
	// Messages counts what lay in the quarter hours that were rolled up.
	Messages int64
	// Changes counts the logged changes that were moved into the roll-ups.
	Changes int64
	// Until is how far the roll-ups go now, by the database's clock.
	Until time.Time
	// Waits says that quarter hours that could be rolled up wait for a transaction that began before they were closed.
	Waits bool
	// Elsewhere says that another process is at it, and nothing was done.
	Elsewhere bool
}

// RollUp brings the roll-ups of the reports up to date: quarter hours that ended an hour and five minutes ago are counted, and
// logged changes of older messages are added. Each transaction does a quarter hour, more of them when they are small, or 20,000 changes;
// when ctx ends, what is done stays done and the next run goes on from there. What it gives beside an error was done.
func (s *Store) RollUp(ctx context.Context) (RolledUp, error) {
	var done RolledUp
	for quarters := 1; ; {
		if err := s.closeQuarters(ctx); err != nil {
			return done, err
		}
		step, err := s.rollQuarters(ctx, quarters)
		if err != nil {
			return done, err
		}
		if step.elsewhere {
			done.Elsewhere = true
			return done, nil
		}
		done.Until, done.Waits = step.until, step.waits
		done.Messages += step.messages
		switch {
		case step.messages < rollAtOnce/2:
			quarters = min(quarters*2, rollSpan)
		case step.messages > rollAtOnce:
			quarters = max(quarters/2, 1)
		}
		if step.last {
			break
		}
	}
	for {
		n, elsewhere, err := s.foldChanges(ctx)
		if err != nil {
			return done, err
		}
		done.Changes += n
		if elsewhere || n < foldAtOnce {
			done.Elsewhere = elsewhere
			return done, nil
		}
	}
}

// closeQuarters sets how far quarter hours may be rolled up. From then on every change of a message in them is logged, as it
// is older than an hour; a transaction that did not see it so had its number before this one, and is waited for. A number that is
// not given out yet is another server's: the database was restored from a dump.
func (s *Store) closeQuarters(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, `
		UPDATE report_state SET closing_until = t.at, closing_xid = pg_current_xact_id()
		FROM (SELECT wagate_quarter(clock_timestamp() - interval '65 minutes') AS at) t
		WHERE (closing_until <= rolled_until AND closing_until < t.at) OR closing_xid >= pg_snapshot_xmax(pg_current_snapshot())`)
	if err != nil {
		return fmt.Errorf("closing the quarter hours of the reports: %w", err)
	}
	return nil
}

// planReports is for statements that read much, in the transaction that it begins: the pool's own settings are for those that go
// by an index.
const planReports = `SELECT set_config('statement_timeout', '300000', true), set_config('jit', 'off', true),
	set_config('enable_seqscan', 'on', true), set_config('plan_cache_mode', 'force_custom_plan', true)`

type rollStep struct {
	until     time.Time
	messages  int64
	waits     bool
	elsewhere bool
	last      bool
}

// lockRollups holds the roll-ups for this transaction, so that nobody else changes them; false: somebody else does. What the
// next statement sees is as new as the lock.
func lockRollups(ctx context.Context, tx pgx.Tx) (from, to time.Time, closed, ok bool, err error) {
	if _, err = tx.Exec(ctx, planReports); err != nil {
		return from, to, closed, ok, err
	}
	err = tx.QueryRow(ctx, `
		SELECT rolled_until, closing_until, closing_xid IS NULL OR closing_xid <= pg_snapshot_xmin(pg_current_snapshot())
		FROM report_state FOR UPDATE SKIP LOCKED`).Scan(&from, &to, &closed)
	if errors.Is(err, pgx.ErrNoRows) {
		return from, to, closed, false, nil
	}
	return from, to, closed, err == nil, err
}

// rollQuarters rolls up so many quarter hours, from the next one on that has messages. Last says that nothing is left to do now.
func (s *Store) rollQuarters(ctx context.Context, quarters int) (step rollStep, err error) {
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		from, to, closed, ok, err := lockRollups(ctx, tx)
		if err != nil {
			return err
		}
		step = rollStep{until: from, elsewhere: !ok, waits: from.Before(to) && !closed}
		if step.last = !ok || step.waits || !from.Before(to); step.last {
			return nil
		}
		start, err := nextQuarter(ctx, tx, from, to)
		if err != nil {
			return err
		}
		step.until = start
		if start.Before(to) {
			step.until = minTime(start.Add(time.Duration(quarters)*quarter), to)
			if err := tx.QueryRow(ctx, rollSQL, start, step.until).Scan(&step.messages); err != nil {
				return err
			}
		}
		if err := percentiles(ctx, tx, windowsUntilSQL, from, step.until); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE report_state SET rolled_until = $1::timestamptz`, step.until)
		return err
	})
	if err != nil {
		return rollStep{last: true}, fmt.Errorf("rolling up quarter hours: %w", err)
	}
	return step, nil
}

// nextQuarter gives the start of the first quarter hour from on that can have messages; to when there is none before.
func nextQuarter(ctx context.Context, tx pgx.Tx, from, to time.Time) (time.Time, error) {
	var id uuid.UUID
	err := tx.QueryRow(ctx, `
		SELECT id FROM messages
		WHERE id >= wagate_uuid_floor($1::timestamptz - interval '1 minute') AND id < wagate_uuid_floor($2::timestamptz + interval '1 minute')
		ORDER BY id LIMIT 1`, from, to).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return to, nil
	}
	if err != nil {
		return from, err
	}
	start := message.TimeOf(id).UTC().Add(-time.Minute).Truncate(quarter)
	if start.Before(from) {
		return from, nil
	}
	return start, nil
}

// foldChanges moves logged changes into the roll-ups.
func (s *Store) foldChanges(ctx context.Context) (n int64, elsewhere bool, err error) {
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		until, _, _, ok, err := lockRollups(ctx, tx)
		if elsewhere = err == nil && !ok; err != nil || !ok {
			return err
		}
		var hours []time.Time
		var wabas, phones []string
		if err := tx.QueryRow(ctx, foldSQL, until, foldAtOnce).Scan(&n, &hours, &wabas, &phones); err != nil || len(hours) == 0 {
			return err
		}
		return percentiles(ctx, tx, windowsGivenSQL, hours, wabas, phones, until)
	})
	if err != nil {
		return 0, false, fmt.Errorf("adding logged changes to the roll-ups: %w", err)
	}
	return n, elsewhere, nil
}

// percentiles makes those of the hours and lanes that a statement picks anew.
func percentiles(ctx context.Context, tx pgx.Tx, pick string, args ...any) error {
	_, err := tx.Exec(ctx, pick+`, p AS (
			SELECT w.hour, w.waba_id, w.phone_number_id, s.kind, sum(s.n)::bigint AS messages,
			       wagate_percentiles(array_agg(s.cell ORDER BY s.cell), array_agg(s.n ORDER BY s.cell)) AS seconds
			FROM w CROSS JOIN LATERAL (
				SELECT r.kind, u.cell, sum(u.n) AS n
				FROM report_latency r CROSS JOIN LATERAL unnest(r.cells, r.counts) AS u(cell, n)
				WHERE r.span = 15 AND r.bucket >= w.hour AND r.bucket < w.hour + interval '1 hour'
				  AND r.phone_number_id = w.phone_number_id AND r.waba_id = w.waba_id
				GROUP BY 1, 2 HAVING sum(u.n) > 0
			) s GROUP BY 1, 2, 3, 4
		), h AS (
			SELECT w.hour, w.waba_id, w.phone_number_id, coalesce(max(p.messages) FILTER (WHERE p.kind = 1), 0) AS messages,
			       coalesce(max(p.seconds) FILTER (WHERE p.kind = 1), '{}') AS queue,
			       max(p.seconds) FILTER (WHERE p.kind = 2) AS send, max(p.seconds) FILTER (WHERE p.kind = 3) AS deliver
			FROM w LEFT JOIN p ON p.hour = w.hour AND p.waba_id = w.waba_id AND p.phone_number_id = w.phone_number_id
			GROUP BY 1, 2, 3
		)
		INSERT INTO report_latency_hours AS x (hour, waba_id, phone_number_id, messages, queue, send, deliver)
		SELECT h.hour, h.waba_id, h.phone_number_id, h.messages, h.queue, h.send, h.deliver FROM h
		ON CONFLICT (hour, phone_number_id, waba_id) DO UPDATE
		SET messages = excluded.messages, queue = excluded.queue, send = excluded.send, deliver = excluded.deliver`, args...)
	return err
}

// ForgetRollups removes the roll-ups of the days (UTC) before that of cutoff and says how many rows they had.
func (s *Store) ForgetRollups(ctx context.Context, cutoff time.Time) (int64, error) {
	first := cutoff.UTC().Truncate(24 * time.Hour)
	var all int64
	for _, sql := range forgetSQL {
		for {
			tag, err := s.pool.Exec(ctx, sql, first, forgetAtOnce)
			if err != nil {
				return all, fmt.Errorf("removing old roll-ups: %w", err)
			}
			all += tag.RowsAffected()
			if tag.RowsAffected() < forgetAtOnce {
				break
			}
		}
	}
	return all, nil
}

// RollupState is how the roll-ups stand.
type RollupState struct {
	// Until is how far they go, Now the database's time.
	Until, Now time.Time
	// Changes is about how many logged changes are to be added.
	Changes int64
}

// RollupState reads how the roll-ups stand.
func (s *Store) RollupState(ctx context.Context) (st RollupState, err error) {
	err = s.pool.QueryRow(ctx, `
		SELECT s.rolled_until, clock_timestamp(), (SELECT count(*) FROM (SELECT FROM report_changes LIMIT 100000) c) FROM report_state s`).
		Scan(&st.Until, &st.Now, &st.Changes)
	if err != nil {
		return st, fmt.Errorf("reading how the roll-ups stand: %w", err)
	}
	return st, nil
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
