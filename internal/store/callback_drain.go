package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// CallbackTarget is an endpoint as whoever delivers to it needs it. Secrets are sealed.
type CallbackTarget struct {
	EndpointID     uuid.UUID
	Kind           string // subscription or url
	Owner          string
	URL            string
	Format         string // wagate or meta
	Secret         []byte
	OldSecret      []byte
	OldSecretUntil *time.Time
	// Failures are those in a row, Probes those of the open circuit; OpenedAt is nil while it is closed.
	Failures  int
	Probes    int
	OpenedAt  *time.Time
	HoldUntil *time.Time
	// Now is the database's time.
	Now time.Time
}

// BeginCallbacks says that the job of that number begins; false when it is not the endpoint's job any more, or nothing is to
// be delivered there.
func (s *Store) BeginCallbacks(ctx context.Context, id uuid.UUID, run int64) (CallbackTarget, bool, error) {
	t := CallbackTarget{EndpointID: id}
	err := s.pool.QueryRow(ctx, `
		UPDATE callback_endpoints SET alive_at = clock_timestamp(), due_at = least(due_at, clock_timestamp())
		WHERE endpoint_id = $1::uuid AND run = $2::bigint AND active
		RETURNING kind, owner, url, format, secret, old_secret, old_secret_until, failures, probes, opened_at, hold_until, clock_timestamp()`, id, run).
		Scan(&t.Kind, &t.Owner, &t.URL, &t.Format, &t.Secret, &t.OldSecret, &t.OldSecretUntil, &t.Failures, &t.Probes, &t.OpenedAt, &t.HoldUntil, &t.Now)
	if errors.Is(err, pgx.ErrNoRows) {
		return t, false, nil
	}
	if err != nil {
		return t, false, fmt.Errorf("beginning to deliver to callback endpoint %s: %w", id, err)
	}
	return t, true, nil
}

// DueCallback is an event that waits to be delivered.
type DueCallback struct {
	Seq           int64
	EventID       uuid.UUID
	Chain         uuid.UUID
	Kind          string
	Status        string
	At            time.Time
	URL           string // of the message; empty for that of the subscription
	WABAID        string
	PhoneNumberID string
	Field         string
	Value         []byte
	Detail        json.RawMessage
	Attempts      int
	CreatedAt     time.Time
	ExpiresAt     time.Time
}

const (
	callbackWaiting = `v.delivered_at IS NULL AND v.dead_at IS NULL`
	// callbackOpen is the same as the index by expires_at has it.
	callbackOpen = `coalesce(v.delivered_at, v.dead_at) IS NULL`
	// callbackUnended is the same as no index has it: where events are named by their numbers, or by those of their chain, the
	// planner is not to go through all that wait. It believes those few when many have come since it looked last.
	callbackUnended = `num_nulls(v.delivered_at, v.dead_at) = 2`
)

// What has an earlier event of its chain that is due later came while that one was tried: it is left out, and due with it from
// then on. So whatever is taken, all that goes before it in its chain is taken too.
const dueCallbacksSQL = `
	WITH head AS MATERIALIZED (
		SELECT v.* FROM callback_events v
		WHERE v.endpoint_id = $1::uuid AND ` + callbackWaiting + ` AND v.next_at <= CASE WHEN $3::boolean THEN 'infinity' ELSE now() END
		ORDER BY v.next_at, v.seq LIMIT $2::integer
	), early AS MATERIALIZED (
		SELECT h.seq, before.next_at FROM head h CROSS JOIN LATERAL (
			SELECT max(p.next_at) AS next_at FROM callback_events p
			WHERE p.chain = h.chain AND p.seq < h.seq AND p.endpoint_id IS NOT DISTINCT FROM h.endpoint_id AND p.next_at > h.next_at
			  AND num_nulls(p.delivered_at, p.dead_at) = 2
		) before
		WHERE before.next_at IS NOT NULL
	), put_off AS (
		UPDATE callback_events v SET next_at = early.next_at FROM early WHERE v.seq = early.seq AND ` + callbackUnended + `
	)
	SELECT v.seq, v.event_id, v.chain, v.kind, coalesce(v.status, ''), v.at, coalesce(v.url, ''), coalesce(v.waba_id, ''),
	       coalesce(v.phone_number_id, ''), coalesce(v.field, ''), v.value, v.detail, v.attempts, v.created_at, v.expires_at
	FROM head v WHERE NOT EXISTS (SELECT FROM early WHERE early.seq = v.seq)
	ORDER BY v.next_at, v.seq`

// DueCallbacks gives the events of an endpoint that are due, those due longest first, at most limit and perhaps less though
// there are more; with early also what is not due yet. Events of one chain come with all that go before them.
func (s *Store) DueCallbacks(ctx context.Context, id uuid.UUID, limit int, early bool) ([]DueCallback, error) {
	var due []DueCallback
	b := &pgx.Batch{} // and one transaction
	// In the order of the index, however few the planner believes there are: it would read and sort all that wait.
	b.Queue(`SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true), set_config('jit', 'off', true)`)
	b.Queue(dueCallbacksSQL, id, limit, early).Query(func(rows pgx.Rows) (err error) {
		due, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (d DueCallback, err error) {
			return d, row.Scan(&d.Seq, &d.EventID, &d.Chain, &d.Kind, &d.Status, &d.At, &d.URL, &d.WABAID, &d.PhoneNumberID, &d.Field, &d.Value,
				&d.Detail, &d.Attempts, &d.CreatedAt, &d.ExpiresAt)
		})
		return err
	})
	if err := s.pool.SendBatch(ctx, b).Close(); err != nil {
		return nil, fmt.Errorf("reading what is due at callback endpoint %s: %w", id, err)
	}
	return due, nil
}

// CallbackMessage is what callbacks tell of a message.
type CallbackMessage struct {
	ID            uuid.UUID
	PhoneNumberID string
	DisplayPhone  string
	WABAID        string
	Recipient     string
	WAID          *string
	Type          string
	WAMID         *string
	ToldWAMID     bool
	Reference     *string
	Tags          map[string]string
	Opaque        *string
	ResendOf      *uuid.UUID
	Tries         int
	ErrorCode     *int
	ErrorSubcode  *int
	ErrorTitle    *string
	ErrorDetails  *string
	ErrorScope    *string
}

// CallbackMessages reads messages for their callbacks; those that are kept no more are missing.
func (s *Store) CallbackMessages(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]*CallbackMessage, error) {
	found := make(map[uuid.UUID]*CallbackMessage, len(ids))
	if len(ids) == 0 {
		return found, nil
	}
	lo, hi := bounds(ids)
	rows, err := s.pool.Query(ctx, `
		SELECT m.id, m.phone_number_id, coalesce(p.display_phone_number, ''), m.waba_id, m.recipient, m.wa_id, m.type, m.wamid, coalesce(m.told_wamid, false),
		       m.reference, m.tags, m.opaque, m.resend_of, m.try, m.error_code, m.error_subcode, m.error_title, m.error_details, m.error_scope
		FROM messages m LEFT JOIN phone_numbers p ON p.phone_number_id = m.phone_number_id
		WHERE m.id = ANY($1::uuid[]) AND m.id BETWEEN $2::uuid AND $3::uuid`, ids, lo, hi)
	if err != nil {
		return nil, fmt.Errorf("reading %d messages for callbacks: %w", len(ids), err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToAddrOfStructByPos[CallbackMessage])
	if err != nil {
		return nil, fmt.Errorf("reading %d messages for callbacks: %w", len(ids), err)
	}
	for _, m := range all {
		found[m.ID] = m
	}
	return found, nil
}

// GivenID is the id of a message of ours, and whether its client was answered with the wamid instead.
type GivenID struct {
	ID        uuid.UUID
	ToldWAMID bool
}

// GivenIDs gives, for wamids of messages of ours, the ids by which their clients know them.
func (s *Store) GivenIDs(ctx context.Context, wamids []string) (map[string]GivenID, error) {
	given := make(map[string]GivenID, len(wamids))
	if len(wamids) == 0 {
		return given, nil
	}
	rows, err := s.pool.Query(ctx, `
		SELECT w.wamid, w.message_id, coalesce((SELECT m.told_wamid FROM messages m WHERE m.id = w.message_id), false)
		FROM wamids w WHERE w.wamid = ANY($1::text[])`, wamids)
	if err != nil {
		return nil, fmt.Errorf("looking up %d wamids for callbacks: %w", len(wamids), err)
	}
	var wamid string
	var g GivenID
	if _, err := pgx.ForEachRow(rows, []any{&wamid, &g.ID, &g.ToldWAMID}, func() error { given[wamid] = g; return nil }); err != nil {
		return nil, fmt.Errorf("looking up %d wamids for callbacks: %w", len(wamids), err)
	}
	return given, nil
}

// ToldWAMID keeps that the client of a message was answered with its wamid.
func (s *Store) ToldWAMID(ctx context.Context, id uuid.UUID) error {
	if _, err := s.pool.Exec(ctx, `UPDATE messages SET told_wamid = true WHERE id = $1::uuid AND told_wamid IS NOT TRUE`, id); err != nil {
		return fmt.Errorf("keeping which id message %s was answered with: %w", id, err)
	}
	return nil
}

// CallbackResult is how one attempt at an event ended.
type CallbackResult struct {
	Seq int64
	// Delivered ends it; so does Dead, without success.
	Delivered bool
	Dead      bool
	// Error is a few words without addresses and content; Wait how long the next attempt waits.
	Error string
	Wait  time.Duration
}

// CallbackState is how an endpoint stands after a set of attempts.
type CallbackState struct {
	Failures  int
	Probes    int
	OpenedAt  *time.Time
	HoldUntil *time.Time
	LastError string
	Delivered bool
	Failed    bool
	// Gone deactivates it.
	Gone bool
}

const (
	deliveredCallbacksSQL = `
		UPDATE callback_events v SET delivered_at = clock_timestamp(), attempts = v.attempts + 1, last_error = NULL
		WHERE v.seq = ANY($1::bigint[]) AND ` + callbackUnended
	failedCallbacksSQL = `
		UPDATE callback_events v SET attempts = v.attempts + 1, last_error = u.error,
			next_at = clock_timestamp() + make_interval(secs => u.wait), dead_at = CASE WHEN u.dead THEN clock_timestamp() END
		FROM unnest($3::bigint[], $4::text[], $5::double precision[], $6::boolean[]) AS u(seq, error, wait, dead)
		WHERE v.seq = u.seq AND v.seq = ANY($3::bigint[]) AND ` + callbackUnended + `
		  AND EXISTS (SELECT FROM callback_endpoints e WHERE e.endpoint_id = $1::uuid AND e.run = $2::bigint)`
)

// RecordCallbacks keeps how attempts of the endpoint's job of that number ended; no results are a sign of life. It gives false when another job has taken its place: what was delivered
// counts all the same, what failed does not.
func (s *Store) RecordCallbacks(ctx context.Context, id uuid.UUID, run int64, results []CallbackResult, st CallbackState) (ours bool, err error) {
	var delivered, failed []int64
	var errs []string
	var waits []float64
	var dead []bool
	for _, r := range results {
		if r.Delivered {
			delivered = append(delivered, r.Seq)
			continue
		}
		failed, errs, waits, dead = append(failed, r.Seq), append(errs, r.Error), append(waits, r.Wait.Seconds()), append(dead, r.Dead)
	}
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		b := &pgx.Batch{}
		b.Queue(`
			UPDATE callback_endpoints SET alive_at = clock_timestamp(), failures = $3::integer, probes = $4::integer, opened_at = $5::timestamptz,
				hold_until = $6::timestamptz, last_error = coalesce(nullif($7::text, ''), last_error),
				delivered_at = CASE WHEN $8::boolean THEN clock_timestamp() ELSE delivered_at END,
				failed_at = CASE WHEN $9::boolean THEN clock_timestamp() ELSE failed_at END,
				active = active AND NOT $10::boolean, inactive_reason = CASE WHEN $10::boolean THEN 'gone' ELSE inactive_reason END
			WHERE endpoint_id = $1::uuid AND run = $2::bigint`,
			id, run, st.Failures, st.Probes, st.OpenedAt, st.HoldUntil, st.LastError, st.Delivered, st.Failed, st.Gone,
		).Exec(func(tag pgconn.CommandTag) error { ours = tag.RowsAffected() == 1; return nil })
		if len(delivered) > 0 {
			b.Queue(deliveredCallbacksSQL, delivered)
		}
		if len(failed) > 0 {
			b.Queue(failedCallbacksSQL, id, run, failed, errs, waits, dead)
		}
		return tx.SendBatch(ctx, b).Close()
	})
	if err != nil {
		return false, fmt.Errorf("recording %d attempts at callback endpoint %s: %w", len(results), id, err)
	}
	return ours, nil
}

// EndCallbacks ends the endpoint's job of that number, or puts its next one in for when there is something to do: at the end
// of a hold, or when the next event is due. It gives false, and the job is to go on, when events are due now or are being
// added at this moment.
func (s *Store) EndCallbacks(ctx context.Context, id uuid.UUID, run int64) (ended bool, err error) {
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		var alone bool
		if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1::integer, $2::integer)`, callbackLock, lockOf(id)).Scan(&alone); err != nil || !alone {
			return err
		}
		var next *time.Time
		var due bool
		err := tx.QueryRow(ctx, `
			SELECT greatest(n.next_at, e.hold_until), greatest(n.next_at, e.hold_until) <= clock_timestamp()
			FROM callback_endpoints e
			LEFT JOIN LATERAL (
				SELECT CASE WHEN e.opened_at IS NULL THEN v.next_at ELSE coalesce(e.hold_until, clock_timestamp()) END AS next_at FROM callback_events v
				WHERE v.endpoint_id = e.endpoint_id AND `+callbackWaiting+` ORDER BY v.next_at, v.seq LIMIT 1
			) n ON true
			WHERE e.endpoint_id = $1::uuid AND n.next_at IS NOT NULL AND e.active`, id).Scan(&next, &due)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if due {
			return nil
		}
		ended = true
		return s.nextCallbacks(ctx, tx, id, run, next)
	})
	if err != nil {
		return false, fmt.Errorf("ending the job of callback endpoint %s: %w", id, err)
	}
	return ended, nil
}

// YieldCallbacks ends the endpoint's job of that number and puts another one in behind those of all others.
func (s *Store) YieldCallbacks(ctx context.Context, id uuid.UUID, run int64) error {
	err := s.InTx(ctx, func(tx pgx.Tx) error {
		now := time.Now()
		return s.nextCallbacks(ctx, tx, id, run, &now)
	})
	if err != nil {
		return fmt.Errorf("handing callback endpoint %s on: %w", id, err)
	}
	return nil
}

func (s *Store) nextCallbacks(ctx context.Context, tx pgx.Tx, id uuid.UUID, run int64, at *time.Time) error {
	// One for much later is not put in yet: each event that comes before would leave a job behind that does nothing.
	planned := at != nil && at.After(time.Now().Add(callbackPlanned))
	rows, err := tx.Query(ctx, `
		UPDATE callback_endpoints SET run = run + 1, due_at = $3::timestamptz, alive_at = NULL, planned = $4::boolean
		WHERE endpoint_id = $1::uuid AND run = $2::bigint AND active RETURNING endpoint_id, run`, id, run, at, planned)
	if err != nil {
		return err
	}
	runs, err := collectRuns(rows)
	if err != nil || at == nil || planned {
		return err
	}
	if at.After(time.Now().Add(50 * time.Millisecond)) {
		for i := range runs {
			runs[i].At = *at
		}
	}
	return s.putCallbacksIn(ctx, tx, runs)
}

// Patience with jobs of callbacks.
const (
	// callbackSilent is how long a job that has begun may give no sign of life: it gives one every few seconds.
	callbackSilent = 20 * time.Second
	// callbackUnbegun is how long one may wait to begin after its time: workers may be away, or busy.
	callbackUnbegun = 2 * time.Minute
	// callbackOverlooked is how long an event may be due while its endpoint's job is for later: the one who was about to give
	// it a job now was rolled back.
	callbackOverlooked = 5 * time.Second
	// callbackPlanned is how far ahead a job is put in; those for later are by MendCallbacks, in their time.
	callbackPlanned = 10 * time.Second
)

// MendCallbacks gives new jobs to endpoints that have something to deliver and no job that does it in time: its worker has died,
// somebody has deleted it, or the one who was to put it in was rolled back. It gives how many those were. It
// also puts in the jobs that were planned for now.
func (s *Store) MendCallbacks(ctx context.Context) (n int, err error) {
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			WITH stranded AS (
				SELECT e.endpoint_id, e.planned AND e.due_at <= clock_timestamp() AS planned FROM callback_endpoints e
				WHERE e.active AND (
					CASE WHEN e.planned THEN e.due_at <= clock_timestamp()
					     WHEN e.alive_at IS NULL THEN e.due_at < clock_timestamp() - make_interval(secs => $2::double precision)
					     ELSE e.alive_at < clock_timestamp() - make_interval(secs => $1::double precision) END
					OR ((e.due_at IS NULL OR e.due_at > clock_timestamp()) AND (e.hold_until IS NULL OR e.hold_until <= clock_timestamp()))
				) AND (e.due_at <= clock_timestamp() OR (
					SELECT v.next_at FROM callback_events v WHERE v.endpoint_id = e.endpoint_id AND `+callbackWaiting+` ORDER BY v.next_at, v.seq LIMIT 1
				) < clock_timestamp() - CASE WHEN e.due_at IS NULL THEN interval '0' ELSE make_interval(secs => $3::double precision) END)
				ORDER BY e.endpoint_id LIMIT 200 FOR NO KEY UPDATE SKIP LOCKED
			)
			UPDATE callback_endpoints e SET run = e.run + 1, due_at = clock_timestamp(), alive_at = NULL, planned = false
			FROM stranded WHERE e.endpoint_id = stranded.endpoint_id
			RETURNING e.endpoint_id, e.run, coalesce(stranded.planned, false)`, callbackSilent.Seconds(), callbackUnbegun.Seconds(), callbackOverlooked.Seconds())
		if err != nil {
			return err
		}
		var runs []CallbackRun
		var r CallbackRun
		var planned bool
		_, err = pgx.ForEachRow(rows, []any{&r.EndpointID, &r.Run, &planned}, func() error {
			runs = append(runs, r)
			if !planned {
				n++
			}
			return nil
		})
		if err != nil {
			return err
		}
		return s.putCallbacksIn(ctx, tx, runs)
	})
	if err != nil {
		return 0, fmt.Errorf("looking for callbacks without a job: %w", err)
	}
	return n, nil
}

// ExpireCallbacks gives up to limit events up that were not delivered within their time.
func (s *Store) ExpireCallbacks(ctx context.Context, limit int) (int, error) {
	tag, err := s.pool.Exec(ctx, `
		UPDATE callback_events v SET dead_at = clock_timestamp(), last_error = coalesce(v.last_error, 'not tried within 24 hours')
		FROM (
			SELECT v.seq FROM callback_events v WHERE v.expires_at < clock_timestamp() AND `+callbackOpen+`
			ORDER BY v.expires_at LIMIT $1::integer FOR NO KEY UPDATE SKIP LOCKED
		) late
		WHERE v.seq = late.seq AND `+callbackUnended, limit)
	if err != nil {
		return 0, fmt.Errorf("giving up callbacks: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

// ForgetCallbacks removes up to limit events that were made more than keep ago, and those of endpoints that are deleted; then
// the endpoints without any. What waits then, for it was replayed, has a day more: no replay keeps what users wrote for longer.
// It is to be called until it gives less.
func (s *Store) ForgetCallbacks(ctx context.Context, keep time.Duration, limit int) (int, error) {
	// In the order of seq, which is about that of their making, so that what is young is not read.
	tag, err := s.pool.Exec(ctx, `
		DELETE FROM callback_events v USING (
			(SELECT v.seq FROM (SELECT * FROM callback_events ORDER BY seq LIMIT 10 * $2::integer) v
			 WHERE v.created_at < clock_timestamp() - make_interval(secs => $1::double precision)
			   AND (NOT (`+callbackWaiting+`) OR v.created_at < clock_timestamp() - make_interval(secs => $1::double precision) - interval '1 day')
			 ORDER BY v.seq LIMIT $2::integer)
			UNION ALL
			(SELECT v.seq FROM callback_endpoints e CROSS JOIN LATERAL (
				SELECT v.seq FROM callback_events v WHERE v.endpoint_id = e.endpoint_id ORDER BY v.seq LIMIT $2::integer
			 ) v WHERE e.deleted_at IS NOT NULL LIMIT $2::integer)
		) old WHERE v.seq = old.seq`, keep.Seconds(), limit)
	if err != nil {
		return 0, fmt.Errorf("removing old callbacks: %w", err)
	}
	_, err = s.pool.Exec(ctx, `
		DELETE FROM callback_endpoints e WHERE e.deleted_at IS NOT NULL AND NOT EXISTS (SELECT FROM callback_events v WHERE v.endpoint_id = e.endpoint_id)`)
	if err != nil {
		return 0, fmt.Errorf("removing deleted subscriptions: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

// CallbackHealth is what gauges show.
type CallbackHealth struct {
	Open    int // circuits
	Waiting int // up to 100,000
	// Oldest is how long the event that waits longest has waited.
	Oldest time.Duration
}

// CallbackHealth reads it.
func (s *Store) CallbackHealth(ctx context.Context) (h CallbackHealth, err error) {
	var oldest float64
	err = s.pool.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM callback_endpoints WHERE active AND opened_at IS NOT NULL)::integer,
		       (SELECT count(*) FROM (SELECT FROM callback_events v WHERE `+callbackOpen+` ORDER BY v.expires_at LIMIT 100000) x)::integer,
		       coalesce((SELECT extract(epoch FROM clock_timestamp() - v.created_at) FROM callback_events v WHERE `+callbackOpen+` ORDER BY v.expires_at LIMIT 1), 0)::double precision`).
		Scan(&h.Open, &h.Waiting, &oldest)
	if err != nil {
		return h, fmt.Errorf("reading how callbacks stand: %w", err)
	}
	h.Oldest = time.Duration(oldest * float64(time.Second))
	return h, nil
}
