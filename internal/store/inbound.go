package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// inboundSeconds is over how many seconds before the running one the rate of inbound messages is taken.
const inboundSeconds = 5

// AddInbound counts messages that came in, by phone number id and second (since 1970). The rows stay locked until the
// end of the transaction: they are taken in one order, so that two of them never wait for each other.
func (s *Store) AddInbound(ctx context.Context, tx pgx.Tx, counts map[string]map[int64]int) error {
	var phones []string
	var seconds []time.Time
	var messages []int32
	for phone, by := range counts {
		for second, n := range by {
			if n > 0 {
				phones, seconds, messages = append(phones, phone), append(seconds, time.Unix(second, 0)), append(messages, int32(n)) //nolint:gosec // messages of one transaction
			}
		}
	}
	if len(phones) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO inbound_seconds AS i (phone_number_id, second, messages)
		SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::integer[]) AS u(phone, second, n) ORDER BY u.phone, u.second
		ON CONFLICT (phone_number_id, second) DO UPDATE SET messages = i.messages + excluded.messages`, phones, seconds, messages)
	if err != nil {
		return fmt.Errorf("counting the inbound messages of %d phone numbers: %w", len(counts), err)
	}
	return nil
}

// InboundRates gives the messages a second that came in at the given phone numbers over the last 5 seconds and the
// running one. A phone number without any is not in the map.
func (s *Store) InboundRates(ctx context.Context, phoneNumberIDs []string) (map[string]float64, error) {
	return s.inboundRates(ctx, phoneNumberIDs, nil)
}

func (s *Store) inboundRates(ctx context.Context, phoneNumberIDs []string, now *time.Time) (map[string]float64, error) {
	rows, err := s.pool.Query(ctx, `
		WITH t AS MATERIALIZED (SELECT coalesce($2::timestamptz, clock_timestamp()) AS now),
		w AS MATERIALIZED (SELECT now, date_trunc('second', now) - make_interval(secs => $3::double precision) AS since FROM t)
		SELECT i.phone_number_id, (sum(i.messages) / extract(epoch FROM max(w.now) - max(w.since)))::double precision
		FROM w JOIN inbound_seconds i ON i.phone_number_id = ANY($1::text[]) AND i.second >= w.since AND i.second <= w.now
		GROUP BY i.phone_number_id`, phoneNumberIDs, now, float64(inboundSeconds))
	if err != nil {
		return nil, fmt.Errorf("reading inbound rates: %w", err)
	}
	rates := map[string]float64{}
	var phone string
	var rate float64
	if _, err := pgx.ForEachRow(rows, []any{&phone, &rate}, func() error { rates[phone] = rate; return nil }); err != nil {
		return nil, fmt.Errorf("reading inbound rates: %w", err)
	}
	return rates, nil
}

// SweepInbound removes up to limit counts that are older than a minute and returns how many.
func (s *Store) SweepInbound(ctx context.Context, limit int) (int64, error) {
	tag, err := s.pool.Exec(ctx, `
		DELETE FROM inbound_seconds i USING (
			SELECT phone_number_id, second FROM inbound_seconds WHERE second < clock_timestamp() - interval '1 minute'
			LIMIT $1::integer FOR UPDATE SKIP LOCKED
		) old WHERE i.phone_number_id = old.phone_number_id AND i.second = old.second`, limit)
	if err != nil {
		return 0, fmt.Errorf("removing old inbound counts: %w", err)
	}
	return tag.RowsAffected(), nil
}
