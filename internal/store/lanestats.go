package store

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// LaneNews is what the owner of a lane says of it.
type LaneNews struct {
	PhoneNumberID string
	// Left counts, by priority 1 to 4, the messages that wait no longer since the last time.
	Left [4]int64
	// PerSecond is what the lane may send now; 0 means no limit.
	PerSecond float64
	// State is the owner's view of the limits, a JSON object.
	State []byte
}

// PublishLanes tells gateways and people how lanes stand. Counts are moved on, and never fall below nothing.
func (s *Store) PublishLanes(ctx context.Context, workerID string, news []LaneNews) error {
	n := len(news)
	phones, rates, states := make([]string, n), make([]*float64, n), make([]string, n)
	var left [4][]int64
	for i, l := range news {
		phones[i], states[i] = l.PhoneNumberID, string(l.State)
		if l.PerSecond > 0 {
			rates[i] = &news[i].PerSecond
		}
		for p := range left {
			left[p] = append(left[p], l.Left[p])
		}
	}
	_, err := s.pool.Exec(ctx, `
		WITH u AS (
			SELECT * FROM unnest($1::text[], $2::double precision[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
			     AS u(phone, rate, state, a, b, c, d)
		), made AS (
			INSERT INTO lane_stats (phone_number_id, per_second, state, worker_id, published_at)
			SELECT u.phone, u.rate, u.state::jsonb, $8::text, clock_timestamp() FROM u ORDER BY u.phone
			ON CONFLICT (phone_number_id) DO NOTHING
		)
		UPDATE lane_stats l SET per_second = u.rate, state = u.state::jsonb, worker_id = $8::text, published_at = clock_timestamp(),
			urgent = greatest(l.urgent - u.a, 0), high = greatest(l.high - u.b, 0), normal = greatest(l.normal - u.c, 0), low = greatest(l.low - u.d, 0)
		FROM u WHERE l.phone_number_id = u.phone`,
		phones, rates, states, left[0], left[1], left[2], left[3], workerID)
	if err != nil {
		return fmt.Errorf("publishing %d lanes: %w", n, err)
	}
	return nil
}

// SetBacklog keeps what was counted of a lane: by priority 1 to 4.
func (s *Store) SetBacklog(ctx context.Context, phoneNumberID string, waiting [4]int64) error {
	_, err := s.pool.Exec(ctx, `
		INSERT INTO lane_stats AS l (phone_number_id, urgent, high, normal, low, counted_at)
		VALUES ($1::text, $2::bigint, $3::bigint, $4::bigint, $5::bigint, clock_timestamp())
		ON CONFLICT (phone_number_id) DO UPDATE
		SET urgent = excluded.urgent, high = excluded.high, normal = excluded.normal, low = excluded.low, counted_at = excluded.counted_at`,
		phoneNumberID, waiting[0], waiting[1], waiting[2], waiting[3])
	if err != nil {
		return fmt.Errorf("keeping the backlog of phone number %s: %w", phoneNumberID, err)
	}
	return nil
}

// HeldCount counts the messages of a phone number that are held, by priority 1 to 4.
func (s *Store) HeldCount(ctx context.Context, wabaID, phoneNumberID string) (waiting [4]int64, err error) {
	rows, err := s.pool.Query(ctx, `SELECT priority, count(*) FROM holds WHERE waba_id = $1::text AND phone_number_id = $2::text GROUP BY priority`, wabaID, phoneNumberID)
	if err != nil {
		return waiting, fmt.Errorf("counting what is held of phone number %s: %w", phoneNumberID, err)
	}
	var priority int
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&priority, &n}, func() error {
		if priority >= 1 && priority <= 4 {
			waiting[priority-1] = n
		}
		return nil
	})
	if err != nil {
		return waiting, fmt.Errorf("counting what is held of phone number %s: %w", phoneNumberID, err)
	}
	return waiting, nil
}

// BoundedKeys lists the API keys that have a max_backlog.
func (s *Store) BoundedKeys(ctx context.Context) (map[uuid.UUID]bool, error) {
	rows, err := s.pool.Query(ctx, `SELECT key_id FROM api_keys WHERE max_backlog IS NOT NULL AND revoked_at IS NULL`)
	if err != nil {
		return nil, fmt.Errorf("listing keys with a max_backlog: %w", err)
	}
	keys, err := idSet(rows)
	if err != nil {
		return nil, fmt.Errorf("listing keys with a max_backlog: %w", err)
	}
	return keys, nil
}

// KeyLeft is how many messages of a key wait no longer in a lane.
type KeyLeft struct {
	KeyID         uuid.UUID
	PhoneNumberID string
	Messages      int64
}

// LowerKeyBacklogs moves the counts of keys with a max_backlog on.
func (s *Store) LowerKeyBacklogs(ctx context.Context, left []KeyLeft) error {
	n := len(left)
	ids, phones, counts := make([]uuid.UUID, n), make([]string, n), make([]int64, n)
	for i, l := range left {
		ids[i], phones[i], counts[i] = l.KeyID, l.PhoneNumberID, l.Messages
	}
	_, err := s.pool.Exec(ctx, `
		UPDATE key_backlogs k SET waiting = greatest(k.waiting - u.n, 0)
		FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS u(key_id, phone, n)
		WHERE k.key_id = u.key_id AND k.phone_number_id = u.phone`, ids, phones, counts)
	if err != nil {
		return fmt.Errorf("lowering the backlogs of %d keys: %w", n, err)
	}
	return nil
}

// CountKeys counts messages by their API key, of keys with a max_backlog.
func (s *Store) CountKeys(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]int64, error) {
	lo, hi := bounds(ids)
	rows, err := s.pool.Query(ctx, `
		SELECT m.key_id, count(*) FROM messages m JOIN api_keys k ON k.key_id = m.key_id AND k.max_backlog IS NOT NULL
		WHERE m.id = ANY($1::uuid[]) AND m.id BETWEEN $2::uuid AND $3::uuid GROUP BY m.key_id`, ids, lo, hi)
	if err != nil {
		return nil, fmt.Errorf("counting the keys of %d messages: %w", len(ids), err)
	}
	counts := map[uuid.UUID]int64{}
	var key uuid.UUID
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&key, &n}, func() error { counts[key] = n; return nil }); err != nil {
		return nil, fmt.Errorf("counting the keys of %d messages: %w", len(ids), err)
	}
	return counts, nil
}

// SetKeyBacklogs keeps what was counted of the keys with a max_backlog in one lane; a key that is not named has nothing there.
func (s *Store) SetKeyBacklogs(ctx context.Context, phoneNumberID string, waiting map[uuid.UUID]int64) error {
	ids, counts := make([]uuid.UUID, 0, len(waiting)), make([]int64, 0, len(waiting))
	for id, n := range waiting {
		ids, counts = append(ids, id), append(counts, n)
	}
	_, err := s.pool.Exec(ctx, `
		WITH u AS (SELECT * FROM unnest($2::uuid[], $3::bigint[]) AS u(key_id, n)), gone AS (
			DELETE FROM key_backlogs k WHERE k.phone_number_id = $1::text AND k.key_id <> ALL($2::uuid[])
		)
		INSERT INTO key_backlogs (key_id, phone_number_id, waiting) SELECT u.key_id, $1::text, u.n FROM u ORDER BY u.key_id
		ON CONFLICT (key_id, phone_number_id) DO UPDATE SET waiting = excluded.waiting`, phoneNumberID, ids, counts)
	if err != nil {
		return fmt.Errorf("keeping the backlogs of keys at phone number %s: %w", phoneNumberID, err)
	}
	return nil
}
