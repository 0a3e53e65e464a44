package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/message"
)

// Sources of suppressions: who said so.
const (
	FromPreference = "preference" // the user, in WhatsApp
	FromKeyword    = "keyword"    // the user, by a word in a message
	FromMeta       = "meta"       // an error of Meta: 131050 for good, 131049 for a while
	FromOperator   = "operator"
)

// Suppression keeps messages of a category from a recipient, of one WABA.
type Suppression struct {
	ID     uuid.UUID
	WABAID string
	// WAID is the recipient's key: digits, or a business-scoped user id. It counts under everything the user is known by.
	WAID     string
	Category string
	// Source is one of the sources above.
	Source string
	// Until is nil for good.
	Until  *time.Time
	Reason string
	// Code is Meta's, 0 for none.
	Code int
	// SaidAt is when it was said: of two words of one source the newer counts. Zero is now.
	SaidAt time.Time
	// Since is when it came into force here; read only.
	Since time.Time
}

// PutSuppressions keeps suppressions in the caller's transaction. One for good is never shortened, a longer one stays, and what
// was said before the recipient was let off again changes nothing.
func (s *Store) PutSuppressions(ctx context.Context, tx pgx.Tx, set []Suppression) error {
	n := len(set)
	if n == 0 {
		return nil
	}
	ids, wabas, users, categories, reasons, sources := make([]uuid.UUID, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	until, codes, said := make([]*time.Time, n), make([]int32, n), make([]*time.Time, n)
	now := time.Now()
	for i, x := range set {
		ids[i], wabas[i], users[i], categories[i], sources[i] = message.NewID(now), x.WABAID, x.WAID, x.Category, x.Source
		until[i], reasons[i], codes[i], said[i] = x.Until, x.Reason, int32(x.Code), orNever(x.SaidAt) //nolint:gosec // Meta's codes fit
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO suppressions AS x (id, waba_id, wa_id, category, source, until, reason, code, said_at)
		SELECT DISTINCT ON (u.waba, u.wa_id, u.category, u.source) u.id, u.waba, u.wa_id, u.category, u.source, u.until, u.reason, nullif(u.code, 0),
		       max(u.said) OVER (PARTITION BY u.waba, u.wa_id, u.category, u.source)
		FROM (
			SELECT id, waba, wa_id, category, source, until, reason, code, least(coalesce(said, clock_timestamp()), clock_timestamp()) AS said
			FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::text[], $8::integer[], $9::timestamptz[])
			     AS u(id, waba, wa_id, category, source, until, reason, code, said)
		) u
		WHERE NOT EXISTS (
			SELECT FROM suppressions t WHERE t.waba_id = u.waba AND t.wa_id = ANY(wagate_user_keys(u.wa_id)) AND t.category = u.category
			  AND t.source = u.source AND t.lifted_at IS NOT NULL AND t.said_at > u.said)
		ORDER BY u.waba, u.wa_id, u.category, u.source, u.until DESC NULLS FIRST
		ON CONFLICT (waba_id, wa_id, category, source) DO UPDATE SET
			until = CASE WHEN `+suppressionTakes+` THEN excluded.until ELSE x.until END,
			reason = CASE WHEN `+suppressionTakes+` THEN excluded.reason ELSE x.reason END,
			code = CASE WHEN `+suppressionTakes+` THEN excluded.code ELSE x.code END,
			created_at = CASE WHEN x.lifted_at IS NOT NULL THEN excluded.created_at ELSE x.created_at END,
			said_at = greatest(x.said_at, excluded.said_at), lifted_at = NULL
		WHERE (x.lifted_at IS NULL OR excluded.said_at >= x.said_at) AND (`+suppressionTakes+` OR excluded.said_at > x.said_at)`,
		ids, wabas, users, categories, sources, until, reasons, codes, said)
	if err != nil {
		return fmt.Errorf("keeping %d suppressions: %w", n, err)
	}
	return nil
}

// suppressionTakes says in SQL that a new suppression takes the place of the one that is there: that one was lifted, or ends
// earlier.
const suppressionTakes = `(x.lifted_at IS NOT NULL OR (x.until IS NOT NULL AND (excluded.until IS NULL OR excluded.until > x.until)))`

// Lift lets a recipient off what one source said of them before.
type Lift struct {
	WABAID string
	WAID   string
	Source string
	// SaidAt is when the recipient said so; what is younger stays.
	SaidAt time.Time
}

// LiftSuppressions lifts suppressions of marketing that were for good, under everything their recipients are known by. An older
// word that comes later changes nothing any more: a row that says so is kept for a week.
func (s *Store) LiftSuppressions(ctx context.Context, tx pgx.Tx, set []Lift) error {
	n := len(set)
	if n == 0 {
		return nil
	}
	ids, wabas, users, sources, said := make([]uuid.UUID, n), make([]string, n), make([]string, n), make([]string, n), make([]time.Time, n)
	now := time.Now()
	for i, x := range set {
		ids[i], wabas[i], users[i], sources[i], said[i] = message.NewID(now), x.WABAID, x.WAID, x.Source, x.SaidAt
	}
	_, err := tx.Exec(ctx, `
		UPDATE suppressions x SET lifted_at = clock_timestamp(), said_at = u.said
		FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS u(waba, wa_id, source, said)
		WHERE x.waba_id = u.waba AND x.wa_id = ANY(wagate_user_keys(u.wa_id)) AND x.category = 'marketing' AND x.source = u.source
		  AND x.until IS NULL AND x.said_at < u.said`, wabas, users, sources, said)
	if err == nil {
		_, err = tx.Exec(ctx, `
			INSERT INTO suppressions AS x (id, waba_id, wa_id, category, source, reason, said_at, lifted_at)
			SELECT DISTINCT ON (u.waba, u.wa_id, u.source) u.id, u.waba, u.wa_id, 'marketing', u.source, 'resume', u.said, clock_timestamp()
			FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[]) AS u(id, waba, wa_id, source, said)
			ORDER BY u.waba, u.wa_id, u.source, u.said DESC
			ON CONFLICT (waba_id, wa_id, category, source) DO UPDATE SET lifted_at = excluded.lifted_at, said_at = excluded.said_at
			WHERE x.until IS NULL AND x.said_at < excluded.said_at`, ids, wabas, users, sources, said)
	}
	if err != nil {
		return fmt.Errorf("lifting %d suppressions: %w", n, err)
	}
	return nil
}

// AddSuppressions puts an operator's entries of marketing of a WABA into force, or changes those that are there: until is nil
// for good. They stay until an operator lifts them. A *MissingError says that the WABA is not there.
func (s *Store) AddSuppressions(ctx context.Context, wabaID string, users []string, reason string, until *time.Time) ([]Suppression, error) {
	ids := make([]uuid.UUID, len(users))
	now := time.Now()
	for i := range ids {
		ids[i] = message.NewID(now)
	}
	rows, err := collect(ctx, s.pool, "the suppressions put in", scanSuppression, `
		INSERT INTO suppressions AS x (id, waba_id, wa_id, category, source, until, reason)
		SELECT DISTINCT ON (u.wa_id) u.id, w.waba_id, u.wa_id, 'marketing', 'operator', $4::timestamptz, $5::text
		FROM unnest($1::uuid[], $2::text[]) AS u(id, wa_id) JOIN wabas w ON w.waba_id = $3::text
		ORDER BY u.wa_id
		ON CONFLICT (waba_id, wa_id, category, source) DO UPDATE SET until = excluded.until, reason = excluded.reason, said_at = excluded.said_at,
			created_at = CASE WHEN x.lifted_at IS NULL THEN x.created_at ELSE excluded.created_at END, lifted_at = NULL
		RETURNING `+suppressionColumns, ids, users, wabaID, until, reason)
	if err == nil && len(rows) == 0 && len(users) > 0 {
		err = &MissingError{Field: "waba_id"}
	}
	return rows, err
}

const suppressionColumns = `x.id, x.waba_id, x.wa_id, x.category, x.source, x.until, x.reason, coalesce(x.code, 0), x.said_at, x.created_at`

func scanSuppression(r pgx.CollectableRow) (x Suppression, err error) {
	return x, r.Scan(&x.ID, &x.WABAID, &x.WAID, &x.Category, &x.Source, &x.Until, &x.Reason, &x.Code, &x.SaidAt, &x.Since)
}

// SuppressionFilter picks suppressions. Zero fields pick all.
type SuppressionFilter struct {
	WABAID string
	// User picks those of one user, under everything they are known by.
	User   string
	Source string
	// Before is the id of the last one of the page before.
	Before uuid.UUID
	// Limit is 1 or more.
	Limit int
}

// ListSuppressions reads the suppressions in force that a filter picks, the newest first.
func (s *Store) ListSuppressions(ctx context.Context, f SuppressionFilter) ([]Suppression, error) {
	var before *uuid.UUID
	if f.Before != uuid.Nil {
		before = &f.Before
	}
	return collect(ctx, s.pool, "suppressions", scanSuppression, `
		SELECT `+suppressionColumns+` FROM suppressions x
		WHERE x.lifted_at IS NULL AND (x.until IS NULL OR x.until > clock_timestamp()) AND ($1::text = '' OR x.waba_id = $1::text)
		  AND ($2::text = '' OR x.wa_id = ANY(wagate_user_keys($2::text))) AND ($3::text = '' OR x.source = $3::text)
		  AND ($4::uuid IS NULL OR x.id < $4::uuid)
		ORDER BY x.id DESC LIMIT $5::integer`, f.WABAID, f.User, f.Source, before, f.Limit)
}

// LiftSuppression lifts one by its id, whoever said so; ErrNotFound when it is not in force.
func (s *Store) LiftSuppression(ctx context.Context, id uuid.UUID) error {
	n, err := s.liftNow(ctx, &id, "", "")
	if err == nil && n == 0 {
		err = fmt.Errorf("lifting suppression %s: %w", id, ErrNotFound)
	}
	return err
}

// LiftUser lifts all of one user at a WABA, under everything they are known by, and returns how many there were.
func (s *Store) LiftUser(ctx context.Context, wabaID, user string) (int, error) {
	return s.liftNow(ctx, nil, wabaID, user)
}

// liftNow lets the messages go that waited for the end of what it lifts. It says it now, so that what Meta posts again of
// before changes nothing.
func (s *Store) liftNow(ctx context.Context, id *uuid.UUID, wabaID, user string) (n int, err error) {
	err = s.pool.QueryRow(ctx, `
		WITH lifted AS (
			UPDATE suppressions x SET lifted_at = clock_timestamp(), said_at = clock_timestamp(), until = NULL
			WHERE x.lifted_at IS NULL AND (x.id = $1::uuid OR ($1::uuid IS NULL AND x.waba_id = $2::text AND x.wa_id = ANY(wagate_user_keys($3::text))))
			RETURNING x.waba_id, x.wa_id
		), freed AS (
			UPDATE holds h SET until = clock_timestamp() FROM lifted l
			WHERE h.waba_id = l.waba_id AND h.kind = '`+HoldRecipient+`' AND h.value = ANY(wagate_user_keys(l.wa_id))
		)
		SELECT count(*)::integer FROM lifted`, id, wabaID, user).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("lifting suppressions: %w", err)
	}
	return n, nil
}

// SweepSuppressions removes up to limit suppressions that were lifted or have ended more than eight days ago, and returns how
// many: Meta posts nothing again that is older.
func (s *Store) SweepSuppressions(ctx context.Context, limit int) (int64, error) {
	tag, err := s.pool.Exec(ctx, `
		DELETE FROM suppressions x USING (
			SELECT id FROM suppressions WHERE lifted_at < clock_timestamp() - interval '8 days' OR until < clock_timestamp() - interval '8 days'
			LIMIT $1::integer FOR UPDATE SKIP LOCKED
		) old WHERE x.id = old.id`, limit)
	if err != nil {
		return 0, fmt.Errorf("removing old suppressions: %w", err)
	}
	return tag.RowsAffected(), nil
}
