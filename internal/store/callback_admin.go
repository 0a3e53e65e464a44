package store

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// CallbackEndpoint is a subscription, or the host of callback_urls, with how it stands.
type CallbackEndpoint struct {
	ID             uuid.UUID
	Kind           string // subscription or url
	Owner          string
	URL            string // for kind url: scheme, host and port
	Format         string // wagate or meta
	Events         []string
	Statuses       []string // of message.status; empty means all
	WABAID         *string
	PhoneNumberID  *string
	KeyName        *string
	OldSecretUntil *time.Time
	Active         bool
	InactiveReason *string
	CreatedAt      time.Time
	UpdatedAt      time.Time
	HoldUntil      *time.Time
	// OpenedAt is since when the circuit is open; nil while it is closed.
	OpenedAt    *time.Time
	Failures    int // in a row
	LastError   *string
	FailedAt    *time.Time
	DeliveredAt *time.Time
	// Waiting is how many events wait, counted up to CallbackCount.
	Waiting int
	// Secret and VerifyToken are sealed. Secret is nil for kind url.
	Secret      []byte
	VerifyToken []byte
}

// CallbackCount is up to how many waiting events of an endpoint are counted.
const CallbackCount = 100_000

// MaxSubscriptions bounds them: every status is held against each.
const MaxSubscriptions = 500

// ErrTooMany is returned, wrapped, when there are as many as there may be.
var ErrTooMany = fmt.Errorf("there are %d already", MaxSubscriptions)

const callbackEndpointColumns = `
	e.endpoint_id, e.kind, e.owner, e.url, e.format, e.events, e.statuses, e.waba_id, e.phone_number_id, e.key_name, e.old_secret_until, e.active,
	e.inactive_reason, e.created_at, e.updated_at, e.hold_until, e.opened_at, e.failures, e.last_error, e.failed_at, e.delivered_at,
	(SELECT count(*) FROM (SELECT FROM callback_events v WHERE v.endpoint_id = e.endpoint_id AND ` + callbackWaiting + ` ORDER BY v.next_at, v.seq LIMIT 100000) x)::integer,
	e.secret, e.verify_token`

// PutSubscription makes a subscription where CreatedAt is zero; else it changes the one with its id, whose secret stays. It
// fails with ErrTooMany or, where the one to change was deleted meanwhile, ErrNotFound.
func (s *Store) PutSubscription(ctx context.Context, e CallbackEndpoint) error {
	err := s.InTx(ctx, func(tx pgx.Tx) error {
		known := !e.CreatedAt.IsZero()
		if known {
			b := &pgx.Batch{}
			shareCallbacks(b, []uuid.UUID{e.ID})
			b.Queue(`SELECT FROM callback_endpoints WHERE endpoint_id = $1::uuid AND deleted_at IS NULL FOR NO KEY UPDATE`, e.ID).
				Exec(func(tag pgconn.CommandTag) error { return changedOne(tag, nil) })
			if err := tx.SendBatch(ctx, b).Close(); err != nil {
				return err
			}
		} else {
			if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1::integer, 0)`, callbackLock+1); err != nil {
				return err
			}
			var n int
			if err := tx.QueryRow(ctx, `SELECT count(*) FROM callback_endpoints WHERE kind = 'subscription' AND deleted_at IS NULL`).Scan(&n); err != nil {
				return err
			}
			if n >= MaxSubscriptions {
				return ErrTooMany
			}
		}
		// A circuit that is open belongs to the address as it was; a job of then must not close or open it again.
		_, err := tx.Exec(ctx, `
			INSERT INTO callback_endpoints AS c (endpoint_id, kind, owner, url, format, events, statuses, waba_id, phone_number_id, key_name, active, secret, verify_token)
			VALUES ($1::uuid, 'subscription', $2::text, $3::text, $4::text, $5::text[], $6::text[], $7::text, $8::text, $9::text, $10::boolean, $11::bytea, $12::bytea)
			ON CONFLICT (endpoint_id) DO UPDATE SET url = excluded.url, format = excluded.format, events = excluded.events, statuses = excluded.statuses,
				waba_id = excluded.waba_id, phone_number_id = excluded.phone_number_id, key_name = excluded.key_name, active = excluded.active,
				verify_token = excluded.verify_token, updated_at = clock_timestamp(),
				inactive_reason = CASE WHEN excluded.active THEN NULL WHEN c.active THEN 'stopped' ELSE c.inactive_reason END,
				run = c.run + 1, due_at = NULL, alive_at = NULL,
				hold_until = NULL, opened_at = NULL, failures = 0, probes = 0`,
			e.ID, e.Owner, e.URL, e.Format, notNil(e.Events), notNil(e.Statuses), e.WABAID, e.PhoneNumberID, e.KeyName, e.Active, e.Secret, e.VerifyToken)
		if err != nil || !known || !e.Active {
			return err
		}
		return s.wakeCallbacks(ctx, tx, []uuid.UUID{e.ID})
	})
	if err != nil {
		return fmt.Errorf("storing subscription %s: %w", e.ID, err)
	}
	return nil
}

// SetSubscriptionSecret gives a subscription another secret; the one it had stays valid for overlap. A job that runs goes on
// with the ones it has read, for half a minute at most.
func (s *Store) SetSubscriptionSecret(ctx context.Context, id uuid.UUID, sealed []byte, overlap time.Duration) error {
	tag, err := s.pool.Exec(ctx, `
		UPDATE callback_endpoints SET old_secret = secret, old_secret_until = clock_timestamp() + make_interval(secs => $3::double precision),
			secret = $2::bytea, updated_at = clock_timestamp()
		WHERE endpoint_id = $1::uuid AND kind = 'subscription' AND deleted_at IS NULL`, id, sealed, overlap.Seconds())
	if err = changedOne(tag, err); err != nil {
		return fmt.Errorf("storing the secret of subscription %s: %w", id, err)
	}
	return nil
}

// Subscription reads one; ErrNotFound.
func (s *Store) Subscription(ctx context.Context, id uuid.UUID) (CallbackEndpoint, error) {
	rows, err := collect(ctx, s.pool, "a subscription", pgx.RowToStructByPos[CallbackEndpoint], `
		SELECT `+callbackEndpointColumns+` FROM callback_endpoints e
		WHERE e.endpoint_id = $1::uuid AND e.kind = 'subscription' AND e.deleted_at IS NULL`, id)
	return one(rows, err, "subscription", id.String())
}

// CallbackEndpoints lists subscriptions, or with urls the hosts of callback_urls, in the order of their ids after cursor, at
// most limit.
func (s *Store) CallbackEndpoints(ctx context.Context, urls bool, after uuid.UUID, limit int) ([]CallbackEndpoint, error) {
	kind := "subscription"
	if urls {
		kind = "url"
	}
	return collect(ctx, s.pool, "callback endpoints", pgx.RowToStructByPos[CallbackEndpoint], `
		SELECT `+callbackEndpointColumns+` FROM callback_endpoints e
		WHERE e.kind = $1::text AND e.deleted_at IS NULL AND e.endpoint_id > $2::uuid ORDER BY e.endpoint_id LIMIT $3::integer`, kind, after, limit)
}

// DeleteSubscription deletes one; its events go soon after. ErrNotFound.
func (s *Store) DeleteSubscription(ctx context.Context, id uuid.UUID) error {
	tag, err := s.pool.Exec(ctx, `
		UPDATE callback_endpoints SET deleted_at = clock_timestamp(), active = false, run = run + 1, due_at = NULL, secret = NULL, old_secret = NULL, verify_token = NULL
		WHERE endpoint_id = $1::uuid AND kind = 'subscription' AND deleted_at IS NULL`, id)
	if err = changedOne(tag, err); err != nil {
		return fmt.Errorf("deleting subscription %s: %w", id, err)
	}
	return nil
}

// CallbackSecret is what signs the callback_urls of an owner of keys, sealed.
type CallbackSecret struct {
	Secret         []byte
	OldSecret      []byte
	OldSecretUntil *time.Time
}

// CallbackSecret gives the secret of an owner; sealed is kept and given where there is none yet.
func (s *Store) CallbackSecret(ctx context.Context, owner string, sealed []byte) (c CallbackSecret, err error) {
	// Every job of a callback_url asks for it: nothing is written where it is known.
	err = s.pool.QueryRow(ctx, `
		WITH known AS (
			SELECT secret, old_secret, old_secret_until FROM callback_secrets WHERE owner = $1::text
		), made AS (
			INSERT INTO callback_secrets AS c (owner, secret) SELECT $1::text, $2::bytea WHERE NOT EXISTS (SELECT FROM known)
			ON CONFLICT (owner) DO UPDATE SET owner = excluded.owner
			RETURNING c.secret, c.old_secret, c.old_secret_until
		)
		SELECT * FROM known UNION ALL SELECT * FROM made`, owner, sealed).Scan(&c.Secret, &c.OldSecret, &c.OldSecretUntil)
	if err != nil {
		return c, fmt.Errorf("reading the callback secret of %q: %w", owner, err)
	}
	return c, nil
}

// SetCallbackSecret gives an owner another secret; the one before stays valid for overlap.
func (s *Store) SetCallbackSecret(ctx context.Context, owner string, sealed []byte, overlap time.Duration) (c CallbackSecret, err error) {
	err = s.pool.QueryRow(ctx, `
		INSERT INTO callback_secrets AS c (owner, secret) VALUES ($1::text, $2::bytea)
		ON CONFLICT (owner) DO UPDATE SET old_secret = c.secret, old_secret_until = clock_timestamp() + make_interval(secs => $3::double precision),
			secret = excluded.secret, updated_at = clock_timestamp()
		RETURNING c.secret, c.old_secret, c.old_secret_until`, owner, sealed, overlap.Seconds()).Scan(&c.Secret, &c.OldSecret, &c.OldSecretUntil)
	if err != nil {
		return c, fmt.Errorf("storing the callback secret of %q: %w", owner, err)
	}
	return c, nil
}

// Callback is an event on its way, as operators see it: without what it says.
type Callback struct {
	Seq         int64
	EventID     uuid.UUID
	EndpointID  uuid.UUID
	MessageID   *uuid.UUID // nil for what is of no message
	Kind        string
	Status      *string
	At          time.Time
	URL         *string
	State       string // waiting, delivered or dead
	Attempts    int
	NextAt      *time.Time // while it waits
	ExpiresAt   *time.Time // while it waits
	DeliveredAt *time.Time
	DeadAt      *time.Time
	LastError   *string
	CreatedAt   time.Time
}

// CallbackFilter picks events; zero fields pick all.
type CallbackFilter struct {
	// EndpointIDs are those of one subscription, or of a callback_url: see CallbackURLEndpoints.
	EndpointIDs []uuid.UUID
	MessageID   uuid.UUID
	// URL is a callback_url, whole.
	URL   string
	State string // waiting, delivered or dead
	// Since and Until bound when they were made.
	Since, Until time.Time
	// Before is the Seq below which a list goes on, After the one above which a replay does; 0 for the first page.
	Before, After int64
	Limit         int
}

// CallbackURLEndpoints gives the endpoints that a callback_url goes by: one for each owner of keys that used its host.
func (s *Store) CallbackURLEndpoints(ctx context.Context, callbackURL string) ([]uuid.UUID, error) {
	_, origin := callbackOrigin("", callbackURL)
	return collect(ctx, s.pool, "callback endpoints", pgx.RowTo[uuid.UUID], `
		SELECT e.endpoint_id FROM callback_endpoints e WHERE e.kind = 'url' AND e.url = $1::text ORDER BY e.endpoint_id`, origin)
}

// Each way to name events has an index of its own, in the order of seq, and so a statement of its own.
const (
	callbackColumns = `
		v.seq, v.event_id, v.endpoint_id, CASE WHEN v.kind = '` + TellStatus + `' THEN v.chain END, v.kind, v.status, v.at, v.url,
		CASE WHEN v.delivered_at IS NOT NULL THEN 'delivered' WHEN v.dead_at IS NOT NULL THEN 'dead' ELSE 'waiting' END, v.attempts,
		CASE WHEN ` + callbackWaiting + ` THEN v.next_at END, CASE WHEN ` + callbackWaiting + ` THEN v.expires_at END,
		v.delivered_at, v.dead_at, v.last_error, v.created_at`
	callbackPicked = `
		AND ($2::text = '' OR v.url = $2::text)
		AND ($3::text = '' OR CASE $3::text WHEN 'waiting' THEN v.delivered_at IS NULL AND v.dead_at IS NULL WHEN 'delivered' THEN v.delivered_at IS NOT NULL ELSE v.dead_at IS NOT NULL END)
		AND ($4::timestamptz IS NULL OR v.created_at >= $4::timestamptz) AND ($5::timestamptz IS NULL OR v.created_at < $5::timestamptz)
		AND v.seq > $6::bigint AND v.seq < $7::bigint`

	callbacksOfEndpointsSQL = `
		SELECT ` + callbackColumns + ` FROM unnest($1::uuid[]) AS e(id) CROSS JOIN LATERAL (
			SELECT * FROM callback_events v WHERE v.endpoint_id = e.id ` + callbackPicked + ` ORDER BY v.seq DESC LIMIT $8::integer
		) v ORDER BY v.seq DESC LIMIT $8::integer`
	callbacksOfMessageSQL = `
		SELECT ` + callbackColumns + ` FROM callback_events v WHERE v.chain = ANY($1::uuid[]) ` + callbackPicked + ` ORDER BY v.seq DESC LIMIT $8::integer`
	callbacksSQL = `
		SELECT ` + callbackColumns + ` FROM callback_events v WHERE cardinality($1::uuid[]) = 0 ` + callbackPicked + ` ORDER BY v.seq DESC LIMIT $8::integer`

	replayOfEndpointsSQL = `
		SELECT v.seq, v.endpoint_id FROM unnest($1::uuid[]) AS e(id) CROSS JOIN LATERAL (
			SELECT v.seq, v.endpoint_id FROM callback_events v WHERE v.endpoint_id = e.id ` + callbackPicked + ` ORDER BY v.seq LIMIT $8::integer
		) v ORDER BY v.seq LIMIT $8::integer`
	replayOfMessageSQL = `
		SELECT v.seq, v.endpoint_id FROM callback_events v WHERE v.chain = ANY($1::uuid[]) ` + callbackPicked + ` ORDER BY v.seq LIMIT $8::integer`
)

func (f *CallbackFilter) args(ids []uuid.UUID) []any {
	at := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	before := f.Before
	if before == 0 {
		before = math.MaxInt64
	}
	if ids == nil {
		ids = []uuid.UUID{}
	}
	return []any{ids, f.URL, f.State, at(f.Since), at(f.Until), f.After, before, f.Limit}
}

// Callbacks lists events, the newest first, and gives the Before of the next page; 0 when this is the last one.
func (s *Store) Callbacks(ctx context.Context, f CallbackFilter) (page []Callback, next int64, err error) {
	sql, ids := callbacksSQL, []uuid.UUID(nil)
	switch {
	case f.MessageID != uuid.Nil:
		sql, ids = callbacksOfMessageSQL, []uuid.UUID{f.MessageID}
	case f.EndpointIDs != nil:
		sql, ids = callbacksOfEndpointsSQL, f.EndpointIDs
	}
	limit := f.Limit
	f.Limit++
	page, err = collect(ctx, s.pool, "callbacks", pgx.RowToStructByPos[Callback], sql, f.args(ids)...)
	if err == nil && len(page) > limit {
		page = page[:limit]
		next = page[limit-1].Seq
	}
	return page, next, err
}

// ReplayCallbacks lets up to f.Limit events of EndpointIDs or of MessageID that the filter picks be delivered again, the oldest first: those that were
// delivered or given up have another 24 hours, those that wait are tried at once, and the circuits of their endpoints are
// closed. It gives how many, and the After of what is left; 0 when nothing is. Those of subscriptions that are not active
// wait for that.
func (s *Store) ReplayCallbacks(ctx context.Context, f CallbackFilter) (n int, after int64, err error) {
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		sql, ids := replayOfEndpointsSQL, f.EndpointIDs
		if f.MessageID != uuid.Nil {
			sql, ids = replayOfMessageSQL, []uuid.UUID{f.MessageID}
		}
		rows, err := tx.Query(ctx, sql, f.args(ids)...)
		if err != nil {
			return err
		}
		var seqs []int64
		touched := map[uuid.UUID]bool{}
		var seq int64
		var id uuid.UUID
		_, err = pgx.ForEachRow(rows, []any{&seq, &id}, func() error { seqs = append(seqs, seq); touched[id] = true; return nil })
		if err != nil || len(seqs) == 0 {
			return err
		}
		if len(seqs) == f.Limit {
			after = seqs[len(seqs)-1]
		}
		endpoints := make([]uuid.UUID, 0, len(touched))
		for id := range touched {
			endpoints = append(endpoints, id)
		}
		// Endpoints before events: every transaction that locks both does so in this order.
		b := &pgx.Batch{}
		shareCallbacks(b, endpoints)
		b.Queue(`
			WITH mine AS (SELECT endpoint_id, opened_at FROM callback_endpoints WHERE endpoint_id = ANY($1::uuid[]) ORDER BY endpoint_id FOR NO KEY UPDATE)
			UPDATE callback_endpoints e SET hold_until = NULL, opened_at = NULL, failures = 0, probes = 0, run = e.run + 1, due_at = NULL, alive_at = NULL
			FROM mine WHERE e.endpoint_id = mine.endpoint_id AND mine.opened_at IS NOT NULL`, endpoints)
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `
			UPDATE callback_events v SET delivered_at = NULL, dead_at = NULL, next_at = clock_timestamp(), expires_at = clock_timestamp() + interval '24 hours',
				attempts = CASE WHEN `+callbackWaiting+` THEN v.attempts ELSE 0 END
			WHERE v.seq = ANY($1::bigint[])`, seqs)
		if err != nil {
			return err
		}
		n = int(tag.RowsAffected())
		return s.wakeCallbacks(ctx, tx, endpoints)
	})
	if err != nil {
		return 0, 0, fmt.Errorf("replaying callbacks: %w", err)
	}
	return n, after, nil
}
