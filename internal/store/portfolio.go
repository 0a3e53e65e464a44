package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// recipientKept is how long a recipient counts: Meta's moving 24 hours, and what may pass from the reservation to the POST:
// a message waits for its slot after it.
const recipientKept = 24*time.Hour + 5*time.Minute

// recipientSweep is how many old recipients are removed at least where one has no room.
const recipientSweep = 1000

// RecipientWant is a recipient to whom a message is to go outside a service window.
type RecipientWant struct {
	PortfolioID string
	// Limit is the portfolio's unique recipients in 24 hours; 0 or less means none, and costs nothing.
	Limit int
	// WAID is the recipient, by the one key that all its spellings have.
	WAID string
	// At is the slot, in database time; zero is now.
	At time.Time
}

// RecipientGrant says whether a message may go to a recipient.
type RecipientGrant struct {
	OK bool
	// New says that the recipient was not counted before, and is wanted once in the call: give it back where the message
	// does not go. One that several messages count on stays, even where none of them goes.
	New bool
	// At is what the recipient is kept with; ReturnRecipients wants it.
	At time.Time
	// FreeAt is, where it may not, when there is a place for it, if nobody else takes it.
	FreeAt time.Time
}

type recipient struct{ portfolio, user string }

// ReserveRecipients reserves recipients in their portfolios' moving 24 hours; grants are in the order of wants. One that
// is counted already costs nothing, and counts from the new slot. A new one is refused where as many as the limit are
// counted. Portfolios are locked meanwhile, in the order of their ids: it is exact for any number of processes.
func (s *Store) ReserveRecipients(ctx context.Context, wants []RecipientWant) ([]RecipientGrant, error) {
	grants := make([]RecipientGrant, len(wants))
	limits := map[string]int{}
	for i, w := range wants {
		if w.Limit <= 0 {
			grants[i] = RecipientGrant{OK: true, At: w.At}
			continue
		}
		if l, known := limits[w.PortfolioID]; !known || w.Limit < l {
			limits[w.PortfolioID] = w.Limit
		}
	}
	if len(limits) == 0 {
		return grants, nil
	}
	err := s.InTx(ctx, func(tx pgx.Tx) error {
		used, now, err := lockPortfolios(ctx, tx, limits)
		if err != nil {
			return err
		}
		// Each recipient once, with its latest slot.
		slots := map[recipient]time.Time{}
		cutoff := map[string]time.Time{} // by portfolio: recipients up to it do not count at any of the slots
		for i, w := range wants {
			if grants[i].OK {
				continue
			}
			at := w.At
			if at.IsZero() {
				at = now
			}
			if k := (recipient{w.PortfolioID, w.WAID}); at.After(slots[k]) {
				slots[k] = at
			}
			if c, known := cutoff[w.PortfolioID]; !known || at.Add(-recipientKept).Before(c) {
				cutoff[w.PortfolioID] = at.Add(-recipientKept)
			}
		}
		counted, err := touchRecipients(ctx, tx, slots, cutoff, used)
		if err != nil {
			return err
		}
		missing := map[string][]recipient{} // by portfolio, in the order of wants
		asked := map[recipient]int{}
		for i, w := range wants {
			k := recipient{w.PortfolioID, w.WAID}
			if _, is := counted[k]; grants[i].OK || is {
				continue
			}
			if asked[k]++; asked[k] == 1 {
				missing[k.portfolio] = append(missing[k.portfolio], k)
			}
		}
		added, freeAt := map[recipient]time.Time{}, map[recipient]time.Time{}
		refused := map[string][]recipient{}
		for portfolio, all := range missing {
			if short := used[portfolio] + int64(len(all)) - int64(limits[portfolio]); short > 0 {
				gone, err := sweepPortfolio(ctx, tx, portfolio, cutoff[portfolio], max(int(short), recipientSweep))
				if err != nil {
					return err
				}
				used[portfolio] -= gone
			}
			room := int(min(max(int64(limits[portfolio])-used[portfolio], 0), int64(len(all))))
			for _, k := range all[:room] {
				added[k] = slots[k]
			}
			used[portfolio] += int64(room)
			if room < len(all) {
				refused[portfolio] = all[room:]
			}
		}
		if err := addRecipients(ctx, tx, added); err != nil {
			return err
		}
		for portfolio, all := range refused {
			// A place is free when as many have left that one more stays within the limit.
			if err := freePlaces(ctx, tx, portfolio, used[portfolio]-int64(limits[portfolio]), all, slots, freeAt); err != nil {
				return err
			}
		}
		for i, w := range wants {
			if grants[i].OK {
				continue
			}
			k := recipient{w.PortfolioID, w.WAID}
			if at, is := counted[k]; is {
				grants[i] = RecipientGrant{OK: true, At: at}
			} else if at, is := added[k]; is {
				grants[i] = RecipientGrant{OK: true, New: asked[k] == 1, At: at}
			} else {
				grants[i] = RecipientGrant{FreeAt: freeAt[k]}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reserving %d recipients: %w", len(wants), err)
	}
	return grants, nil
}

// ReturnRecipients gives new reservations back, each with the At that its grant has. One that another message has used
// since stays.
func (s *Store) ReturnRecipients(ctx context.Context, given []RecipientWant) error {
	var portfolios, users []string
	var at []time.Time
	limits := map[string]int{}
	for _, w := range given {
		if w.Limit > 0 {
			portfolios, users, at = append(portfolios, w.PortfolioID), append(users, w.WAID), append(at, w.At)
			limits[w.PortfolioID] = w.Limit
		}
	}
	if len(at) == 0 {
		return nil
	}
	err := s.InTx(ctx, func(tx pgx.Tx) error {
		if _, _, err := lockPortfolios(ctx, tx, limits); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `
			WITH gone AS (
				DELETE FROM portfolio_recipients r USING unnest($1::text[], $2::text[], $3::timestamptz[]) AS u(portfolio, wa_id, at)
				WHERE r.portfolio_id = u.portfolio AND r.wa_id = u.wa_id AND r.at = u.at
				RETURNING r.portfolio_id
			)
			UPDATE portfolio_usage p SET used = p.used - g.n
			FROM (SELECT portfolio_id, count(*) AS n FROM gone GROUP BY portfolio_id) g WHERE p.portfolio_id = g.portfolio_id`, portfolios, users, at)
		return err
	})
	if err != nil {
		return fmt.Errorf("giving %d recipients back: %w", len(at), err)
	}
	return nil
}

// SweepRecipients removes up to limit recipients that count no longer, of portfolios that nobody else has locked, and
// returns how many.
func (s *Store) SweepRecipients(ctx context.Context, limit int) (int64, error) {
	var swept int64
	err := s.InTx(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			SELECT p.portfolio_id, clock_timestamp() FROM portfolio_usage p WHERE EXISTS (
				SELECT FROM portfolio_recipients r WHERE r.portfolio_id = p.portfolio_id AND r.at <= clock_timestamp() - make_interval(secs => $1::double precision)
			) ORDER BY p.portfolio_id LIMIT $2::integer FOR NO KEY UPDATE OF p SKIP LOCKED`, recipientKept.Seconds(), limit)
		if err != nil {
			return err
		}
		type due struct {
			Portfolio string
			Now       time.Time
		}
		all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[due])
		if err != nil {
			return err
		}
		for _, d := range all {
			if left := limit - int(swept); left > 0 {
				n, err := sweepPortfolio(ctx, tx, d.Portfolio, d.Now.Add(-recipientKept), left)
				if err != nil {
					return err
				}
				swept += n
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("removing old recipients: %w", err)
	}
	return swept, nil
}

// lockPortfolios locks the usage of the given portfolios, in the order of their ids, and gives it and the database's time.
func lockPortfolios[V any](ctx context.Context, tx pgx.Tx, portfolios map[string]V) (used map[string]int64, now time.Time, err error) {
	ids := make([]string, 0, len(portfolios))
	for id := range portfolios {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	// Before the first lock: who waits for a row that another is inserting then holds nothing that the other may want.
	if _, err := tx.Exec(ctx, `
		INSERT INTO portfolio_usage (portfolio_id, used) SELECT u.id, 0 FROM unnest($1::text[]) AS u(id)
		WHERE NOT EXISTS (SELECT FROM portfolio_usage p WHERE p.portfolio_id = u.id) ORDER BY u.id ON CONFLICT DO NOTHING`, ids); err != nil {
		return nil, time.Time{}, err
	}
	rows, err := tx.Query(ctx, `
		SELECT portfolio_id, used, clock_timestamp() FROM portfolio_usage WHERE portfolio_id = ANY($1::text[])
		ORDER BY portfolio_id FOR NO KEY UPDATE`, ids)
	if err != nil {
		return nil, time.Time{}, err
	}
	used = make(map[string]int64, len(ids))
	var id string
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&id, &n, &now}, func() error { used[id] = n; return nil })
	return used, now, err
}

// touchRecipients moves those of the given recipients that count on to their slots and gives them. Those that count no
// longer are removed, and lower used.
func touchRecipients(ctx context.Context, tx pgx.Tx, slots map[recipient]time.Time, cutoff map[string]time.Time, used map[string]int64) (map[recipient]time.Time, error) {
	n := len(slots)
	portfolios, users, at, before := make([]string, 0, n), make([]string, 0, n), make([]time.Time, 0, n), make([]time.Time, 0, n)
	for k, slot := range slots {
		portfolios, users, at, before = append(portfolios, k.portfolio), append(users, k.user), append(at, slot), append(before, cutoff[k.portfolio])
	}
	// A slot is always moved, by a microsecond if need be: who has reserved it then sees that it is used.
	rows, err := tx.Query(ctx, `
		WITH u AS (SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[]) AS u(portfolio, wa_id, at, before)),
		gone AS (
			DELETE FROM portfolio_recipients r USING u WHERE r.portfolio_id = u.portfolio AND r.wa_id = u.wa_id AND r.at <= u.before
			RETURNING r.portfolio_id
		), counts AS (
			UPDATE portfolio_usage p SET used = p.used - g.n
			FROM (SELECT portfolio_id, count(*) AS n FROM gone GROUP BY portfolio_id) g WHERE p.portfolio_id = g.portfolio_id
			RETURNING p.portfolio_id, g.n
		), moved AS (
			UPDATE portfolio_recipients r SET at = greatest(u.at, r.at + interval '1 microsecond')
			FROM u WHERE r.portfolio_id = u.portfolio AND r.wa_id = u.wa_id AND r.at > u.before
			RETURNING r.portfolio_id, r.wa_id, r.at
		)
		SELECT portfolio_id, wa_id, at, 0::bigint FROM moved
		UNION ALL SELECT portfolio_id, '', NULL, n FROM counts`, portfolios, users, at, before)
	if err != nil {
		return nil, err
	}
	counted := map[recipient]time.Time{}
	var k recipient
	var slot *time.Time
	var gone int64
	_, err = pgx.ForEachRow(rows, []any{&k.portfolio, &k.user, &slot, &gone}, func() error {
		if slot == nil {
			used[k.portfolio] -= gone
		} else {
			counted[k] = *slot
		}
		return nil
	})
	return counted, err
}

// sweepPortfolio removes up to limit recipients of a locked portfolio from the cutoff and before, and lowers its usage.
func sweepPortfolio(ctx context.Context, tx pgx.Tx, portfolio string, cutoff time.Time, limit int) (int64, error) {
	var n int64
	err := tx.QueryRow(ctx, `
		WITH old AS (
			SELECT wa_id FROM portfolio_recipients WHERE portfolio_id = $1::text AND at <= $2::timestamptz ORDER BY at LIMIT $3::integer
		), gone AS (
			DELETE FROM portfolio_recipients r USING old WHERE r.portfolio_id = $1::text AND r.wa_id = old.wa_id
			RETURNING 1
		), lower AS (
			UPDATE portfolio_usage SET used = used - (SELECT count(*) FROM gone) WHERE portfolio_id = $1::text AND EXISTS (SELECT FROM gone)
		)
		SELECT count(*) FROM gone`, portfolio, cutoff, limit).Scan(&n)
	return n, err
}

// freePlaces says when the refused recipients of a locked portfolio have a place each, after over places too many.
func freePlaces(ctx context.Context, tx pgx.Tx, portfolio string, over int64, refused []recipient, slots, freeAt map[recipient]time.Time) error {
	rows, err := tx.Query(ctx, `
		SELECT at FROM portfolio_recipients WHERE portfolio_id = $1::text ORDER BY at OFFSET $2::bigint LIMIT $3::integer`, portfolio, over, len(refused))
	if err != nil {
		return err
	}
	places, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
	if err != nil {
		return err
	}
	for i, k := range refused {
		freeAt[k] = slots[k].Add(recipientKept) // more are refused than are counted
		if i < len(places) {
			freeAt[k] = places[i].Add(recipientKept)
		}
	}
	return nil
}

func addRecipients(ctx context.Context, tx pgx.Tx, added map[recipient]time.Time) error {
	n := len(added)
	if n == 0 {
		return nil
	}
	portfolios, users, at := make([]string, 0, n), make([]string, 0, n), make([]time.Time, 0, n)
	for k, slot := range added {
		portfolios, users, at = append(portfolios, k.portfolio), append(users, k.user), append(at, slot)
	}
	_, err := tx.Exec(ctx, `
		WITH u AS (SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS u(portfolio, wa_id, at)), new AS (
			INSERT INTO portfolio_recipients (portfolio_id, wa_id, at) SELECT portfolio, wa_id, at FROM u
		)
		UPDATE portfolio_usage p SET used = p.used + g.n
		FROM (SELECT portfolio, count(*) AS n FROM u GROUP BY portfolio) g WHERE p.portfolio_id = g.portfolio`, portfolios, users, at)
	return err
}
