package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Lane is what the owner of a WABA has to know of one of its phone numbers.
type Lane struct {
	WABAID        string
	PhoneNumberID string
	AppID         string
	// AppLimited says that the app has a limit, a share of which the WABA has to lease.
	AppLimited bool
	// AccessToken is sealed.
	AccessToken []byte
	// Rates are a second; 0 means no limit.
	WABAPerSecond  float64
	WABABurst      int
	PhonePerSecond float64
	PhoneBurst     int
	// WABAPerHour is messages an hour; 0 means no limit.
	WABAPerHour float64
	// PairSeconds is the time for one more message to the same recipient, 0 no limit; PairBurst how many go at once.
	PairSeconds float64
	PairBurst   int
	// PortfolioID and PortfolioLimit are of the portfolio's unique recipients a day; 0 means no limit.
	PortfolioID    string
	PortfolioLimit int
	// ChecksWindows says that free-form messages are kept back where the service window is known to be closed.
	ChecksWindows bool
}

// Lanes lists the phone numbers of the given WABAs.
func (s *Store) Lanes(ctx context.Context, wabaIDs []string) ([]Lane, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT w.waba_id, p.phone_number_id, coalesce(w.app_id, ''), a.calls_per_hour IS NOT NULL, w.access_token,
		       coalesce(w.messages_per_second, 0), w.burst, coalesce(p.messages_per_second, 0), p.burst, coalesce(w.messages_per_hour, 0),
		       coalesce(p.pair_seconds, 0), p.pair_burst, coalesce(w.portfolio_id, ''), coalesce(f.unique_recipients_per_day, 0),
		       p.window_check = 'enforce'
		FROM wabas w JOIN phone_numbers p ON p.waba_id = w.waba_id
		LEFT JOIN apps a ON a.app_id = w.app_id
		LEFT JOIN portfolios f ON f.portfolio_id = w.portfolio_id
		WHERE w.waba_id = ANY($1::text[])
		ORDER BY w.waba_id, p.phone_number_id`, wabaIDs)
	if err != nil {
		return nil, fmt.Errorf("listing the lanes of %d WABAs: %w", len(wabaIDs), err)
	}
	lanes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Lane])
	if err != nil {
		return nil, fmt.Errorf("listing the lanes of %d WABAs: %w", len(wabaIDs), err)
	}
	return lanes, nil
}

// EnsurePartitions makes the daily partitions of the coming days and returns how many it made. It is cheap when there
// is nothing to do and safe from several processes at once. Where a long reader holds a table it fails after 300 ms, so
// that nobody waits behind it.
func (s *Store) EnsurePartitions(ctx context.Context, daysAhead int) (int, error) {
	var made int
	if err := s.pool.QueryRow(ctx, `SELECT wagate_ensure_partitions($1::integer)`, daysAhead).Scan(&made); err != nil {
		return 0, fmt.Errorf("making partitions: %w", err)
	}
	return made, nil
}

// ForgetIdempotencyKeys removes up to limit keys that are older than keep and returns how many.
func (s *Store) ForgetIdempotencyKeys(ctx context.Context, keep time.Duration, limit int) (int64, error) {
	tag, err := s.pool.Exec(ctx, `
		DELETE FROM idempotency_keys k USING (
			SELECT owner, key FROM idempotency_keys WHERE created_at < clock_timestamp() - make_interval(secs => $1::double precision)
			ORDER BY created_at LIMIT $2::integer
		) old WHERE k.owner = old.owner AND k.key = old.key`, keep.Seconds(), limit)
	if err != nil {
		return 0, fmt.Errorf("forgetting old idempotency keys: %w", err)
	}
	return tag.RowsAffected(), nil
}
