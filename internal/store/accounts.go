package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// App is a Meta app.
type App struct {
	ID string
	// Secret is sealed. Nil in a PutApp keeps what is there.
	Secret []byte
	// CallsPerHour is nil for no limit.
	CallsPerHour *int
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// Portfolio is a business portfolio.
type Portfolio struct {
	ID string
	// UniqueRecipientsPerDay is nil for no limit.
	UniqueRecipientsPerDay *int
	// LimitSource says who set the limit last: operator or webhook, LimitChangedAt when. Tier is Meta's word for it.
	LimitSource    string
	LimitChangedAt *time.Time
	Tier           *string
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// WABA is a WhatsApp Business Account. A nil limit means none.
type WABA struct {
	ID          string
	Name        string
	AppID       *string
	PortfolioID *string
	// AccessToken is sealed. Nil in a PutWABA keeps what is there.
	AccessToken            []byte
	ManagementCallsPerHour int
	MessagesPerHour        *float64
	MessagesPerSecond      *float64
	Burst                  int
	Ingress                Ingress
	Keywords               Keywords
	CreatedAt              time.Time
	UpdatedAt              time.Time
}

// PhoneNumber is a business phone number. A nil limit means none.
type PhoneNumber struct {
	ID                 string
	WABAID             string
	DisplayPhoneNumber string
	MessagesPerSecond  *float64
	Burst              int
	// PairSeconds is the refill of the bucket of one recipient: one message every so many seconds.
	PairSeconds *float64
	PairBurst   int
	WindowCheck string
	MaxBacklog  *int64
	// MetaPerSecond is what Meta allows by its last word. LimitSource says who set MessagesPerSecond last (operator, webhook or
	// throughput), LimitChangedAt when. ThroughputLevel and QualityRating are Meta's words. A PutPhoneNumber sets none of them.
	MetaPerSecond   float64
	LimitSource     string
	LimitChangedAt  *time.Time
	ThroughputLevel *string
	QualityRating   *string
	CreatedAt       time.Time
	UpdatedAt       time.Time
}

// PutApp makes or replaces an app.
func (s *Store) PutApp(ctx context.Context, a App) error {
	_, err := s.pool.Exec(ctx, `
		INSERT INTO apps (app_id, app_secret, calls_per_hour) VALUES ($1::text, $2::bytea, $3::integer)
		ON CONFLICT (app_id) DO UPDATE SET app_secret = coalesce(excluded.app_secret, apps.app_secret),
			calls_per_hour = excluded.calls_per_hour, updated_at = now()`, a.ID, a.Secret, a.CallsPerHour)
	if err != nil {
		return fmt.Errorf("storing app %s: %w", a.ID, err)
	}
	return nil
}

// App reads an app; ErrNotFound when there is none.
func (s *Store) App(ctx context.Context, id string) (App, error) {
	apps, err := s.apps(ctx, &id)
	return one(apps, err, "app", id)
}

// Apps reads every app, by id.
func (s *Store) Apps(ctx context.Context) ([]App, error) { return s.apps(ctx, nil) }

func (s *Store) apps(ctx context.Context, id *string) ([]App, error) {
	return collect(ctx, s.pool, "apps", func(r pgx.CollectableRow) (a App, err error) {
		return a, r.Scan(&a.ID, &a.Secret, &a.CallsPerHour, &a.CreatedAt, &a.UpdatedAt)
	}, `SELECT app_id, app_secret, calls_per_hour, created_at, updated_at FROM apps
		WHERE $1::text IS NULL OR app_id = $1::text ORDER BY app_id`, id)
}

// PutPortfolio makes or replaces a portfolio.
func (s *Store) PutPortfolio(ctx context.Context, p Portfolio) error {
	_, err := s.pool.Exec(ctx, `
		INSERT INTO portfolios AS p (portfolio_id, unique_recipients_per_day, limit_changed_at) VALUES ($1::text, $2::integer, now())
		ON CONFLICT (portfolio_id) DO UPDATE SET unique_recipients_per_day = excluded.unique_recipients_per_day, updated_at = now(),
			limit_source = CASE WHEN p.unique_recipients_per_day IS DISTINCT FROM excluded.unique_recipients_per_day THEN $3::text ELSE p.limit_source END,
			limit_changed_at = CASE WHEN p.unique_recipients_per_day IS DISTINCT FROM excluded.unique_recipients_per_day THEN now() ELSE p.limit_changed_at END`,
		p.ID, p.UniqueRecipientsPerDay, OperatorSource)
	if err != nil {
		return fmt.Errorf("storing portfolio %s: %w", p.ID, err)
	}
	return nil
}

// Portfolio reads a portfolio; ErrNotFound when there is none.
func (s *Store) Portfolio(ctx context.Context, id string) (Portfolio, error) {
	all, err := s.portfolios(ctx, &id)
	return one(all, err, "portfolio", id)
}

// Portfolios reads every portfolio, by id.
func (s *Store) Portfolios(ctx context.Context) ([]Portfolio, error) { return s.portfolios(ctx, nil) }

func (s *Store) portfolios(ctx context.Context, id *string) ([]Portfolio, error) {
	return collect(ctx, s.pool, "portfolios", func(r pgx.CollectableRow) (p Portfolio, err error) {
		return p, r.Scan(&p.ID, &p.UniqueRecipientsPerDay, &p.LimitSource, &p.LimitChangedAt, &p.Tier, &p.CreatedAt, &p.UpdatedAt)
	}, `SELECT portfolio_id, unique_recipients_per_day, limit_source, limit_changed_at, tier, created_at, updated_at FROM portfolios
		WHERE $1::text IS NULL OR portfolio_id = $1::text ORDER BY portfolio_id`, id)
}

// PutWABA makes or replaces a WABA and, where app is given, its app in the same transaction. A *MissingError says that
// its app or portfolio is not there.
func (s *Store) PutWABA(ctx context.Context, w WABA, app *App) error {
	return s.InTx(ctx, func(tx pgx.Tx) error {
		if app != nil {
			// Only the secret is the WABA's to give: a limit the app has stays.
			_, err := tx.Exec(ctx, `
				INSERT INTO apps (app_id, app_secret) VALUES ($1::text, $2::bytea)
				ON CONFLICT (app_id) DO UPDATE SET app_secret = coalesce(excluded.app_secret, apps.app_secret), updated_at = now()`,
				app.ID, app.Secret)
			if err != nil {
				return fmt.Errorf("storing app %s: %w", app.ID, err)
			}
		}
		_, err := tx.Exec(ctx, `
			INSERT INTO wabas (waba_id, name, app_id, portfolio_id, access_token, management_calls_per_hour, messages_per_hour,
				messages_per_second, burst, ingress_answer, ingress_wait_seconds, opaque_as_idempotency_key)
			VALUES ($1::text, $2::text, $3::text, $4::text, $5::bytea, $6::integer, $7::float8, $8::float8, $9::integer,
				coalesce(nullif($10::text, ''), 'id'), coalesce(nullif($11::integer, 0), 10), $12::boolean)
			ON CONFLICT (waba_id) DO UPDATE SET name = excluded.name, app_id = excluded.app_id, portfolio_id = excluded.portfolio_id,
				access_token = coalesce(excluded.access_token, wabas.access_token),
				management_calls_per_hour = excluded.management_calls_per_hour, messages_per_hour = excluded.messages_per_hour,
				messages_per_second = excluded.messages_per_second, burst = excluded.burst, ingress_answer = excluded.ingress_answer,
				ingress_wait_seconds = excluded.ingress_wait_seconds, opaque_as_idempotency_key = excluded.opaque_as_idempotency_key,
				updated_at = now()`,
			w.ID, w.Name, w.AppID, w.PortfolioID, w.AccessToken, w.ManagementCallsPerHour, w.MessagesPerHour, w.MessagesPerSecond, w.Burst,
			w.Ingress.Answer, w.Ingress.WaitSeconds, w.Ingress.OpaqueIsKey)
		if err != nil {
			return fmt.Errorf("storing WABA %s: %w", w.ID, constraint(err, false))
		}
		if err := putKeywords(ctx, tx, w.ID, w.Keywords); err != nil {
			return err
		}
		if len(w.AccessToken) > 0 {
			// A token is what an operator mends a refused one with: the codes of scope token. A rate limit's pause stays.
			if _, err := tx.Exec(ctx, `DELETE FROM pauses WHERE scope = 'waba' AND value = $1::text AND source = 'throttle'
				AND (code = ANY('{0,3,10,102,104,190,131005}'::integer[]) OR code BETWEEN 200 AND 299)`, w.ID); err != nil {
				return fmt.Errorf("lifting the pause of WABA %s: %w", w.ID, err)
			}
		}
		return nil
	})
}

// WABA reads a WABA; ErrNotFound when there is none.
func (s *Store) WABA(ctx context.Context, id string) (WABA, error) {
	all, err := s.wabas(ctx, &id)
	return one(all, err, "WABA", id)
}

// WABAs reads every WABA, by id.
func (s *Store) WABAs(ctx context.Context) ([]WABA, error) { return s.wabas(ctx, nil) }

func (s *Store) wabas(ctx context.Context, id *string) ([]WABA, error) {
	return collect(ctx, s.pool, "WABAs", func(r pgx.CollectableRow) (w WABA, err error) {
		return w, r.Scan(&w.ID, &w.Name, &w.AppID, &w.PortfolioID, &w.AccessToken, &w.ManagementCallsPerHour, &w.MessagesPerHour,
			&w.MessagesPerSecond, &w.Burst, &w.Ingress.Answer, &w.Ingress.WaitSeconds, &w.Ingress.OpaqueIsKey, &w.Keywords.OptOut, &w.Keywords.OptIn,
			&w.CreatedAt, &w.UpdatedAt)
	}, `SELECT waba_id, name, app_id, portfolio_id, access_token, management_calls_per_hour, messages_per_hour,
			messages_per_second, burst, ingress_answer, ingress_wait_seconds, opaque_as_idempotency_key,
			coalesce(k.opt_out, '{}'), coalesce(k.opt_in, '{}'), created_at, updated_at
		FROM wabas LEFT JOIN waba_keywords k USING (waba_id)
		WHERE $1::text IS NULL OR waba_id = $1::text ORDER BY waba_id`, id)
}

// PutPhoneNumber makes or replaces a phone number. Where the number of its rate is another than before, an operator has set
// it. A *MissingError says that its WABA is not there.
func (s *Store) PutPhoneNumber(ctx context.Context, p PhoneNumber) error {
	_, err := s.pool.Exec(ctx, `
		INSERT INTO phone_numbers AS p (phone_number_id, waba_id, display_phone_number, messages_per_second, burst, pair_seconds,
			pair_burst, window_check, max_backlog, limit_changed_at)
		VALUES ($1::text, $2::text, $3::text, $4::float8, $5::integer, $6::float8, $7::integer, $8::text, $9::bigint, now())
		ON CONFLICT (phone_number_id) DO UPDATE SET waba_id = excluded.waba_id, display_phone_number = excluded.display_phone_number,
			messages_per_second = excluded.messages_per_second, burst = excluded.burst, pair_seconds = excluded.pair_seconds,
			pair_burst = excluded.pair_burst, window_check = excluded.window_check, max_backlog = excluded.max_backlog, updated_at = now(),
			limit_source = CASE WHEN p.messages_per_second IS DISTINCT FROM excluded.messages_per_second THEN $10::text ELSE p.limit_source END,
			limit_changed_at = CASE WHEN p.messages_per_second IS DISTINCT FROM excluded.messages_per_second THEN now() ELSE p.limit_changed_at END`,
		p.ID, p.WABAID, p.DisplayPhoneNumber, p.MessagesPerSecond, p.Burst, p.PairSeconds, p.PairBurst, p.WindowCheck, p.MaxBacklog, OperatorSource)
	if err != nil {
		return fmt.Errorf("storing phone number id %s: %w", p.ID, constraint(err, false))
	}
	return nil
}

// PhoneNumber reads a phone number; ErrNotFound when there is none.
func (s *Store) PhoneNumber(ctx context.Context, id string) (PhoneNumber, error) {
	all, err := s.phoneNumbers(ctx, &id)
	return one(all, err, "phone number id", id)
}

// PhoneNumbers reads every phone number, by id.
func (s *Store) PhoneNumbers(ctx context.Context) ([]PhoneNumber, error) {
	return s.phoneNumbers(ctx, nil)
}

func (s *Store) phoneNumbers(ctx context.Context, id *string) ([]PhoneNumber, error) {
	return collect(ctx, s.pool, "phone numbers", func(r pgx.CollectableRow) (p PhoneNumber, err error) {
		return p, r.Scan(&p.ID, &p.WABAID, &p.DisplayPhoneNumber, &p.MessagesPerSecond, &p.Burst, &p.PairSeconds, &p.PairBurst,
			&p.WindowCheck, &p.MaxBacklog, &p.MetaPerSecond, &p.LimitSource, &p.LimitChangedAt, &p.ThroughputLevel, &p.QualityRating, &p.CreatedAt, &p.UpdatedAt)
	}, `SELECT phone_number_id, waba_id, display_phone_number, messages_per_second, burst, pair_seconds, pair_burst, window_check, max_backlog,
			meta_per_second, limit_source, limit_changed_at, throughput_level, quality_rating, created_at, updated_at FROM phone_numbers
		WHERE $1::text IS NULL OR phone_number_id = $1::text ORDER BY phone_number_id`, id)
}
