package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Arrivals is what a gateway has accepted since it said so last, and whose counts it wants to see.
type Arrivals struct {
	// Lanes counts messages by phone number and priority 1 to 4.
	Lanes map[string][4]int64
	// Keys counts messages of API keys that have a max_backlog, Days those of keys that have a messages_per_day.
	Keys map[KeyAt]int64
	Days map[KeyDay]int64
	// SeeLanes, SeeKeys and SeeDays are to be read beside those that are counted.
	SeeLanes []string
	SeeKeys  []uuid.UUID
	SeeDays  []KeyDay
}

// KeyAt is an API key at a phone number.
type KeyAt struct {
	KeyID         uuid.UUID
	PhoneNumberID string
}

// KeyDay is an API key on a day, which is the midnight in UTC at which it begins.
type KeyDay struct {
	KeyID uuid.UUID
	Day   time.Time
}

// LaneBacklog is what is known of a phone number's lane.
type LaneBacklog struct {
	// Waiting counts, about, the messages that wait by priority 1 to 4.
	Waiting [4]int64
	// Rated says that an owner has said what the lane may send; PerSecond is then that, 0 for no limit.
	Rated     bool
	PerSecond float64
	// MaxBacklog is 0 for none.
	MaxBacklog int64
	// ChecksWindows says that free-form messages are refused where the service window is known to be closed.
	ChecksWindows bool
}

// Backlogs is how counts stand. A phone number that is not there is not in Lanes; a key or day without a row counts 0.
type Backlogs struct {
	Lanes map[string]LaneBacklog
	Keys  map[uuid.UUID]int64
	Days  map[KeyDay]int64
}

// MoveBacklogs adds arrivals to the counts of lanes and keys, in one round trip, and gives what all of those asked for stand
// at then.
func (s *Store) MoveBacklogs(ctx context.Context, a Arrivals) (Backlogs, error) {
	out := Backlogs{Lanes: map[string]LaneBacklog{}, Keys: map[uuid.UUID]int64{}, Days: map[KeyDay]int64{}}
	b := &pgx.Batch{} // one transaction; every statement locks its rows in the same order as those of others
	a.countLanes(b)
	a.countKeys(b)
	a.countDays(b)
	a.seeLanes(b, out.Lanes)
	a.seeKeys(b, out.Keys)
	a.seeDays(b, out.Days)
	if b.Len() == 0 {
		return out, nil
	}
	if err := s.pool.SendBatch(ctx, b).Close(); err != nil {
		return Backlogs{}, fmt.Errorf("moving the backlogs of %d lanes and %d keys on: %w", len(a.Lanes)+len(a.SeeLanes), len(a.Keys)+len(a.SeeKeys), err)
	}
	return out, nil
}

func (a *Arrivals) countLanes(b *pgx.Batch) {
	if len(a.Lanes) == 0 {
		return
	}
	var phones []string
	var counts [4][]int64
	for phone, n := range a.Lanes {
		phones = append(phones, phone)
		for p := range counts {
			counts[p] = append(counts[p], n[p])
		}
	}
	b.Queue(`
		INSERT INTO lane_stats AS l (phone_number_id, urgent, high, normal, low)
		SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]) AS u(phone, a, b, c, d) ORDER BY u.phone
		ON CONFLICT (phone_number_id) DO UPDATE SET
			urgent = l.urgent + excluded.urgent, high = l.high + excluded.high, normal = l.normal + excluded.normal, low = l.low + excluded.low`,
		phones, counts[0], counts[1], counts[2], counts[3])
}

func (a *Arrivals) countKeys(b *pgx.Batch) {
	if len(a.Keys) == 0 {
		return
	}
	var ids []uuid.UUID
	var phones []string
	var counts []int64
	for k, n := range a.Keys {
		ids, phones, counts = append(ids, k.KeyID), append(phones, k.PhoneNumberID), append(counts, n)
	}
	b.Queue(`
		INSERT INTO key_backlogs AS k (key_id, phone_number_id, waiting)
		SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS u(key_id, phone, n) ORDER BY u.key_id, u.phone
		ON CONFLICT (key_id, phone_number_id) DO UPDATE SET waiting = k.waiting + excluded.waiting`, ids, phones, counts)
}

func (a *Arrivals) countDays(b *pgx.Batch) {
	if len(a.Days) == 0 {
		return
	}
	var ids []uuid.UUID
	var days []time.Time
	var counts []int64
	for k, n := range a.Days {
		ids, days, counts = append(ids, k.KeyID), append(days, k.Day), append(counts, n)
	}
	b.Queue(`
		INSERT INTO key_days AS k (key_id, day, accepted)
		SELECT * FROM unnest($1::uuid[], $2::date[], $3::bigint[]) AS u(key_id, day, n) ORDER BY u.key_id, u.day
		ON CONFLICT (key_id, day) DO UPDATE SET accepted = k.accepted + excluded.accepted`, ids, days, counts)
}

func (a *Arrivals) seeLanes(b *pgx.Batch, out map[string]LaneBacklog) {
	phones := slices.Clone(a.SeeLanes)
	for phone := range a.Lanes {
		phones = append(phones, phone)
	}
	if len(phones) == 0 {
		return
	}
	b.Queue(`
		SELECT p.phone_number_id, coalesce(l.urgent, 0), coalesce(l.high, 0), coalesce(l.normal, 0), coalesce(l.low, 0),
		       l.published_at IS NOT NULL, coalesce(l.per_second, 0), coalesce(p.max_backlog, 0), p.window_check = 'enforce'
		FROM phone_numbers p LEFT JOIN lane_stats l ON l.phone_number_id = p.phone_number_id
		WHERE p.phone_number_id = ANY($1::text[])`, phones).Query(func(rows pgx.Rows) error {
		var phone string
		var l LaneBacklog
		_, err := pgx.ForEachRow(rows, []any{&phone, &l.Waiting[0], &l.Waiting[1], &l.Waiting[2], &l.Waiting[3], &l.Rated, &l.PerSecond, &l.MaxBacklog, &l.ChecksWindows},
			func() error { out[phone] = l; return nil })
		return err
	})
}

func (a *Arrivals) seeKeys(b *pgx.Batch, out map[uuid.UUID]int64) {
	ids := slices.Clone(a.SeeKeys)
	for k := range a.Keys {
		ids = append(ids, k.KeyID)
	}
	if len(ids) == 0 {
		return
	}
	for _, id := range ids {
		out[id] = 0
	}
	b.Queue(`SELECT key_id, sum(waiting)::bigint FROM key_backlogs WHERE key_id = ANY($1::uuid[]) GROUP BY key_id`, ids).Query(func(rows pgx.Rows) error {
		var id uuid.UUID
		var n int64
		_, err := pgx.ForEachRow(rows, []any{&id, &n}, func() error { out[id] = n; return nil })
		return err
	})
}

func (a *Arrivals) seeDays(b *pgx.Batch, out map[KeyDay]int64) {
	all := slices.Clone(a.SeeDays)
	for k := range a.Days {
		all = append(all, k)
	}
	if len(all) == 0 {
		return
	}
	ids, days := make([]uuid.UUID, len(all)), make([]time.Time, len(all))
	for i, k := range all {
		ids[i], days[i] = k.KeyID, k.Day
		out[k] = 0
	}
	b.Queue(`
		SELECT k.key_id, k.day, k.accepted
		FROM unnest($1::uuid[], $2::date[]) AS u(key_id, day) JOIN key_days k ON k.key_id = u.key_id AND k.day = u.day`, ids, days).Query(func(rows pgx.Rows) error {
		var k KeyDay
		var n int64
		_, err := pgx.ForEachRow(rows, []any{&k.KeyID, &k.Day, &n}, func() error { out[KeyDay{k.KeyID, k.Day.UTC()}] = n; return nil })
		return err
	})
}

// DiskFull says whether an error means that the database had no disk left for what it was to write.
func DiskFull(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "53100"
}

// DataDirectory gives where the server keeps its data and when it was started. It may not be on this machine. A role that may
// not know it gets an error.
func (s *Store) DataDirectory(ctx context.Context) (dir string, started time.Time, err error) {
	if err := s.pool.QueryRow(ctx, `SELECT current_setting('data_directory'), pg_postmaster_start_time()`).Scan(&dir, &started); err != nil {
		return "", time.Time{}, fmt.Errorf("asking for the data directory: %w", err)
	}
	return dir, started, nil
}
