package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// LaneStat is how a lane stands: what waits in it, about, and what its owner last said of its limits.
type LaneStat struct {
	PhoneNumberID string
	WABAID        string
	// AppID is the app of the WABA; "" when it has none.
	AppID string
	// Waiting counts by priority 1 to 4, held messages too.
	Waiting [4]int64
	// PerSecond is what the lane may send; nil means no limit, or that nobody knows.
	PerSecond *float64
	// State is the owner's view of the limits, a JSON object, or nil.
	State       []byte
	WorkerID    *string
	PublishedAt *time.Time
	// SlowedCode is Meta's code of the throttle that slowed the phone number, WABASlowedCode the WABA, while that is kept.
	SlowedCode     *int
	WABASlowedCode *int
	// Fresh says that PerSecond and State are of the last seconds.
	Fresh bool
}

// laneColumns are a LaneStat's, of lane_stats l and the app that a names. Owners publish every 2 s.
const laneColumns = `coalesce(a.app_id, ''), coalesce(l.urgent, 0), coalesce(l.high, 0), coalesce(l.normal, 0), coalesce(l.low, 0), l.per_second, l.state, l.worker_id,
	l.published_at, coalesce(l.published_at > clock_timestamp() - interval '15 seconds', false)`

func scanLane(r pgx.CollectableRow) (l LaneStat, err error) {
	return l, r.Scan(&l.PhoneNumberID, &l.WABAID, &l.AppID, &l.Waiting[0], &l.Waiting[1], &l.Waiting[2], &l.Waiting[3],
		&l.PerSecond, &l.State, &l.WorkerID, &l.PublishedAt, &l.Fresh, &l.SlowedCode, &l.WABASlowedCode)
}

// LaneStats reads how the lanes of a WABA stand, or of all with "", by phone number id. Lanes of which nothing was
// published are there too.
func (s *Store) LaneStats(ctx context.Context, wabaID string) ([]LaneStat, error) {
	return collect(ctx, s.pool, "how lanes stand", scanLane, `SELECT p.phone_number_id, p.waba_id, `+laneColumns+`, r.code, rw.code
		FROM phone_numbers p JOIN wabas a ON a.waba_id = p.waba_id LEFT JOIN lane_stats l ON l.phone_number_id = p.phone_number_id
		LEFT JOIN rates r ON r.scope = 'phone' AND r.value = p.phone_number_id
		LEFT JOIN rates rw ON rw.scope = 'waba' AND rw.value = p.waba_id
		WHERE $1::text = '' OR p.waba_id = $1::text ORDER BY p.phone_number_id`, wabaID)
}

// HeldBound is how many held messages HeldCounts looks at. Above it, its counts are of a part.
const HeldBound = 50_000

// HeldCounts counts held messages.
type HeldCounts struct {
	PhoneNumberID string
	Kind          string
	Priority      int
	Messages      int64
}

// HeldCounts counts what is held of a WABA, or of all with "", by phone number, kind and priority. It looks at 50,000
// messages at most.
func (s *Store) HeldCounts(ctx context.Context, wabaID string) ([]HeldCounts, error) {
	scan := func(r pgx.CollectableRow) (h HeldCounts, err error) {
		return h, r.Scan(&h.PhoneNumberID, &h.Kind, &h.Priority, &h.Messages)
	}
	if wabaID == "" {
		return collect(ctx, s.pool, "what is held", scan, `
			SELECT phone_number_id, kind, priority, count(*)
			FROM (SELECT phone_number_id, kind, priority FROM holds LIMIT $1::integer) x GROUP BY 1, 2, 3`, HeldBound)
	}
	return collect(ctx, s.pool, "what is held of WABA "+wabaID, scan, `
		SELECT phone_number_id, kind, priority, count(*)
		FROM (SELECT phone_number_id, kind, priority FROM holds WHERE waba_id = $1::text LIMIT $2::integer) x GROUP BY 1, 2, 3`, wabaID, HeldBound)
}

// Scoped names what a pause is of.
type Scoped struct{ Scope, Value string }

// PausesOf reads the pauses in force of any of these, of operators and throttles, newest first.
func (s *Store) PausesOf(ctx context.Context, of []Scoped) ([]KeptPause, error) {
	scopes, values := make([]string, len(of)), make([]string, len(of))
	for i, o := range of {
		scopes[i], values[i] = o.Scope, o.Value
	}
	return collect(ctx, s.pool, "pauses", scanPause, `SELECT `+pauseColumns+`
		FROM pauses p JOIN unnest($1::text[], $2::text[]) AS u(s, v) ON p.scope = u.s AND p.value = u.v
		WHERE until IS NULL OR until > clock_timestamp() ORDER BY created_at DESC, id`, scopes, values)
}

// Share is a WABA's part of its app's calls.
type Share struct {
	AppID     string
	WABAID    string
	PerSecond float64
	Demand    float64
	ExpiresAt time.Time
}

// AppShares reads the shares of an app that are leased now, or of all apps with "".
func (s *Store) AppShares(ctx context.Context, appID string) ([]Share, error) {
	return collect(ctx, s.pool, "shares of apps", pgx.RowToStructByPos[Share], `
		SELECT value, holder, per_second, demand, expires_at FROM shares
		WHERE scope = 'app' AND ($1::text = '' OR value = $1::text) AND expires_at > clock_timestamp() ORDER BY value, holder`, appID)
}

// PortfolioUse is how many unique recipients a portfolio with a limit has used.
type PortfolioUse struct {
	PortfolioID string
	Used        int64
	// NextFreeAt is when the oldest of them falls out of the 24 hours; nil when there is none.
	NextFreeAt *time.Time
}

// PortfolioUses reads the use of a portfolio, or of all with ""; those that were never used are not there.
func (s *Store) PortfolioUses(ctx context.Context, id string) ([]PortfolioUse, error) {
	return collect(ctx, s.pool, "the use of portfolios", pgx.RowToStructByPos[PortfolioUse], `
		SELECT u.portfolio_id, u.used, o.at + interval '24 hours'
		FROM portfolio_usage u
		LEFT JOIN LATERAL (SELECT r.at FROM portfolio_recipients r WHERE r.portfolio_id = u.portfolio_id ORDER BY r.at LIMIT 1) o ON true
		WHERE $1::text = '' OR u.portfolio_id = $1::text`, id)
}

// ManagementCalls counts the management calls of the last hour by WABA, of one or of all with "".
func (s *Store) ManagementCalls(ctx context.Context, wabaID string) (map[string]int64, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT waba_id, sum(calls)::bigint FROM management_calls
		WHERE ($1::text = '' OR waba_id = $1::text) AND minute > clock_timestamp() - interval '1 hour' GROUP BY waba_id`, wabaID)
	if err != nil {
		return nil, fmt.Errorf("counting management calls: %w", err)
	}
	counts := map[string]int64{}
	var waba string
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&waba, &n}, func() error { counts[waba] = n; return nil }); err != nil {
		return nil, fmt.Errorf("counting management calls: %w", err)
	}
	return counts, nil
}
