package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Outbound is what a worker has to know of a message to send it.
type Outbound struct {
	ID            uuid.UUID
	PhoneNumberID string
	WABAID        string
	KeyID         uuid.UUID // nil without one
	Recipient     string
	// User is who the recipient is, under every spelling: the wa_id that answers have mapped it to, else its digits.
	User             string
	Type             string
	Status           string
	Priority         int
	Category         string
	OnUnknown        string
	TemplateName     string
	TemplateLanguage string
	Tags             map[string]string
	OrderingKey      string
	// API is the endpoint of Meta's: marketing_messages; empty for messages.
	API string
	// SendWindow is JSON, empty without one.
	SendWindow []byte
	ExpiresAt  *time.Time
	Body       []byte
	Try        int
	SlotAt     *time.Time
	Retries    int
	Throttles  int
	Redos      int
	// Suppressed says that the recipient gets no marketing from the WABA: until SuppressedUntil, for good where that is nil.
	// It is looked at for marketing only.
	Suppressed      bool
	SuppressedUntil *time.Time
	// SuppressedBy is who said so, one of the sources.
	SuppressedBy string
	// Blocked says that an earlier message of the same ordering key is not settled.
	Blocked bool
	// InWindow says that the recipient's customer service window is open.
	InWindow bool
	// Fallback says that there is a template to go instead where the window is closed, FallbackUsed that the message is that
	// template by now.
	Fallback, FallbackUsed bool
}

// userKey gives, in SQL, the digits (or the id) that a recipient goes by before wa_ids is asked.
const userKey = `CASE WHEN lower(m.recipient) = upper(m.recipient) THEN translate(m.recipient, '+ ()-./', '') ELSE regexp_replace(m.recipient, '[^0-9A-Za-z.]', '', 'g') END`

// LoadOutbound reads the messages of the given ids. A message that is not there is not in the map.
func (s *Store) LoadOutbound(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]Outbound, error) {
	lo, hi := bounds(ids)
	rows, err := s.pool.Query(ctx, `
		SELECT m.id, m.phone_number_id, m.waba_id, coalesce(m.key_id, '00000000-0000-0000-0000-000000000000'::uuid), m.recipient, coalesce(n.wa_id, k.key),
		       m.type, m.status, m.priority, coalesce(m.category, ''), m.on_unknown, coalesce(m.template_name, ''), coalesce(m.template_language, ''),
		       m.tags, coalesce(m.ordering_key, ''), coalesce(m.api, ''), m.send_window, m.expires_at, m.body, m.try, m.slot_at, m.retries, m.throttles, m.redos,
		       x.source IS NOT NULL, x.until, coalesce(x.source, ''),
		       m.ordering_key IS NOT NULL AND EXISTS (
				SELECT FROM (
					SELECT q.status, q.ordering_after, q.ordering_seconds, q.accepted_at, q.sent_at FROM messages q
					WHERE q.phone_number_id = m.phone_number_id AND q.ordering_key = m.ordering_key AND q.id < m.id
					ORDER BY q.id DESC LIMIT `+orderingBack+`
				) p WHERE `+orderingBlocks+`),
		       w.open IS NOT NULL, m.fallback_template IS NOT NULL AND m.fallback_at IS NULL, m.fallback_at IS NOT NULL
		FROM unnest($1::uuid[]) AS u(id) JOIN messages m ON m.id = u.id
		CROSS JOIN LATERAL (SELECT `+userKey+` AS key OFFSET 0) k -- once, wherever it is used
		LEFT JOIN wa_ids n ON n.input = k.key
		LEFT JOIN LATERAL (
			SELECT s.source, s.until FROM suppressions s
			WHERE m.category = 'marketing' AND s.waba_id = m.waba_id AND s.wa_id = ANY(wagate_user_keys(k.key)) AND s.category = 'marketing'
			  AND s.lifted_at IS NULL AND (s.until IS NULL OR s.until > clock_timestamp())
			ORDER BY s.until DESC NULLS FIRST LIMIT 1
		) x ON true
		LEFT JOIN LATERAL (
			SELECT true AS open FROM service_windows s
			WHERE s.phone_number_id = m.phone_number_id AND s.wa_id = ANY(wagate_spellings(coalesce(n.wa_id, k.key))) AND s.until > clock_timestamp() LIMIT 1
		) w ON true
		WHERE m.id = ANY($1::uuid[]) AND m.id BETWEEN $2::uuid AND $3::uuid`, ids, lo, hi)
	if err != nil {
		return nil, fmt.Errorf("loading %d messages: %w", len(ids), err)
	}
	found := make(map[uuid.UUID]Outbound, len(ids))
	var o Outbound
	_, err = pgx.ForEachRow(rows, []any{&o.ID, &o.PhoneNumberID, &o.WABAID, &o.KeyID, &o.Recipient, &o.User, &o.Type, &o.Status, &o.Priority,
		&o.Category, &o.OnUnknown, &o.TemplateName, &o.TemplateLanguage, &o.Tags, &o.OrderingKey, &o.API, &o.SendWindow, &o.ExpiresAt, &o.Body, &o.Try,
		&o.SlotAt, &o.Retries, &o.Throttles, &o.Redos, &o.Suppressed, &o.SuppressedUntil, &o.SuppressedBy, &o.Blocked, &o.InWindow,
		&o.Fallback, &o.FallbackUsed}, func() error {
		found[o.ID] = o
		o = Outbound{}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("loading %d messages: %w", len(ids), err)
	}
	return found, nil
}

// Mark is a try about to be made.
type Mark struct {
	ID uuid.UUID
	// Try is the number the message has now; the mark makes it Try + 1.
	Try    int
	WABAID string
	Epoch  int64
	// Slot is in database time.
	Slot time.Time
	// User and PairTAT are of a recipient that has used more than half of its burst: its state is kept with the mark, for
	// the next owner. PairTAT, in database time, is when its bucket is full again; zero for all others.
	PhoneNumberID string
	User          string
	PairTAT       time.Time
}

// MarkTries begins tries: it raises each message's try number and holds its slot. A mark is refused, and its message
// left as it is, when the worker's lease of that epoch is over or it is counted as dead (its later slots are then taken for unused), another try was begun since, one is open, or the message
// no longer waits. It returns the ids that were marked.
func (s *Store) MarkTries(ctx context.Context, workerID string, marks []Mark) (map[uuid.UUID]bool, error) {
	ids, tries, wabas := make([]uuid.UUID, len(marks)), make([]int32, len(marks)), make([]string, len(marks))
	epochs, slots := make([]int64, len(marks)), make([]time.Time, len(marks))
	for i, m := range marks {
		ids[i], tries[i], wabas[i], epochs[i], slots[i] = m.ID, int32(m.Try), m.WABAID, m.Epoch, m.Slot //nolint:gosec // a try number is small
	}
	if err := s.keepPairs(ctx, marks); err != nil {
		return nil, err
	}
	lo, hi := bounds(ids)
	rows, err := s.pool.Query(ctx, `
		UPDATE messages m
		SET try = m.try + 1, waba_id = u.waba_id, slot_at = u.slot, marked_by = $1::text, epoch = u.epoch, status = 'sending'
		FROM unnest($2::uuid[], $3::integer[], $4::text[], $5::bigint[], $6::timestamptz[]) AS u(id, try, waba_id, epoch, slot)
		JOIN leases l ON l.waba_id = u.waba_id AND l.worker_id = $1::text AND l.epoch = u.epoch AND l.expires_at > clock_timestamp()
		JOIN workers k ON k.worker_id = l.worker_id AND k.dead_at IS NULL
		WHERE m.id = u.id AND m.id = ANY($2::uuid[]) AND m.id BETWEEN $7::uuid AND $8::uuid
		  AND m.try = u.try AND m.slot_at IS NULL AND m.status = 'queued'
		RETURNING m.id`, workerID, ids, tries, wabas, epochs, slots, lo, hi)
	if err != nil {
		return nil, fmt.Errorf("marking %d tries: %w", len(marks), err)
	}
	marked, err := idSet(rows)
	if err != nil {
		return nil, fmt.Errorf("marking %d tries: %w", len(marks), err)
	}
	return marked, nil
}

// keepPairs keeps what busy recipients have used, before the tries that use it are begun.
func (s *Store) keepPairs(ctx context.Context, marks []Mark) error {
	type pair struct{ phone, user string }
	newest := map[pair]time.Time{}
	for _, m := range marks {
		if k := (pair{m.PhoneNumberID, m.User}); m.PairTAT.After(newest[k]) {
			newest[k] = m.PairTAT
		}
	}
	if len(newest) == 0 {
		return nil
	}
	phones, users, tats := make([]string, 0, len(newest)), make([]string, 0, len(newest)), make([]time.Time, 0, len(newest))
	for k, tat := range newest {
		phones, users, tats = append(phones, k.phone), append(users, k.user), append(tats, tat)
	}
	_, err := s.pool.Exec(ctx, `
		INSERT INTO pair_states AS p (phone_number_id, recipient, tat)
		SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS u(phone, recipient, tat) ORDER BY u.phone, u.recipient
		ON CONFLICT (phone_number_id, recipient) DO UPDATE SET tat = greatest(p.tat, excluded.tat)`, phones, users, tats)
	if err != nil {
		return fmt.Errorf("keeping what %d recipients have used: %w", len(phones), err)
	}
	return nil
}

// TryState is how far a message's newest try has come, for the take-over of a job.
type TryState struct {
	ID     uuid.UUID
	Status string
	Try    int
	SlotAt *time.Time
	// Alive says that the marking worker's heartbeat is fresh and nobody has seen it dead.
	Alive bool
	// DeadAt is when the marking worker was first seen dead.
	DeadAt *time.Time
	// LeaseEnd is when the lease under which the try was marked ended, or an instant after that; nil while it runs.
	LeaseEnd *time.Time
	// Now is the database's time at the reading.
	Now time.Time
}

// TryStates reads the tries of the given messages. A worker whose heartbeat is older than heartbeatTTL is not alive.
func (s *Store) TryStates(ctx context.Context, ids []uuid.UUID, heartbeatTTL time.Duration) (map[uuid.UUID]TryState, error) {
	lo, hi := bounds(ids)
	rows, err := s.pool.Query(ctx, `
		SELECT m.id, m.status, m.try, m.slot_at, 
		       coalesce(w.dead_at IS NULL AND w.heartbeat_at > clock_timestamp() - make_interval(secs => $4::double precision), false), w.dead_at,
		       CASE WHEN l.epoch > m.epoch THEN l.prev_expires_at
		            WHEN l.epoch = m.epoch AND l.expires_at < clock_timestamp() THEN l.expires_at END, clock_timestamp()
		FROM unnest($1::uuid[]) AS u(id) JOIN messages m ON m.id = u.id
		LEFT JOIN workers w ON w.worker_id = m.marked_by
		LEFT JOIN leases l ON l.waba_id = m.waba_id
		WHERE m.id = ANY($1::uuid[]) AND m.id BETWEEN $2::uuid AND $3::uuid`, ids, lo, hi, heartbeatTTL.Seconds())
	if err != nil {
		return nil, fmt.Errorf("reading the tries of %d messages: %w", len(ids), err)
	}
	found := make(map[uuid.UUID]TryState, len(ids))
	var t TryState
	_, err = pgx.ForEachRow(rows, []any{&t.ID, &t.Status, &t.Try, &t.SlotAt, &t.Alive, &t.DeadAt, &t.LeaseEnd, &t.Now}, func() error {
		found[t.ID] = t
		t = TryState{}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the tries of %d messages: %w", len(ids), err)
	}
	return found, nil
}

// HoldLeases says which of the WABAs a worker still owns, by the epochs under which it believes to, and keeps them from
// being taken by another until the transaction ends: for two seconds at most, should the worker stand still in the midst.
func (s *Store) HoldLeases(ctx context.Context, tx pgx.Tx, workerID string, epochs map[string]int64) (map[string]bool, error) {
	wabas, at := make([]string, 0, len(epochs)), make([]int64, 0, len(epochs))
	for waba, epoch := range epochs {
		wabas, at = append(wabas, waba), append(at, epoch)
	}
	if _, err := tx.Exec(ctx, `SELECT set_config('idle_in_transaction_session_timeout', '2000', true)`); err != nil {
		return nil, fmt.Errorf("holding the leases of %d WABAs: %w", len(epochs), err)
	}
	rows, err := tx.Query(ctx, `
		SELECT l.waba_id FROM unnest($2::text[], $3::bigint[]) AS u(waba, epoch)
		JOIN leases l ON l.waba_id = u.waba AND l.epoch = u.epoch
		WHERE l.worker_id = $1::text AND l.expires_at > clock_timestamp() ORDER BY l.waba_id FOR SHARE OF l`, workerID, wabas, at)
	if err != nil {
		return nil, fmt.Errorf("holding the leases of %d WABAs: %w", len(epochs), err)
	}
	held := make(map[string]bool, len(epochs))
	var waba string
	if _, err := pgx.ForEachRow(rows, []any{&waba}, func() error { held[waba] = true; return nil }); err != nil {
		return nil, fmt.Errorf("holding the leases of %d WABAs: %w", len(epochs), err)
	}
	return held, nil
}

// LockWaiting locks messages and says which of them wait to be sent.
func (s *Store) LockWaiting(ctx context.Context, tx pgx.Tx, ids []uuid.UUID) (map[uuid.UUID]bool, error) {
	lo, hi := bounds(ids)
	rows, err := tx.Query(ctx, `
		SELECT m.id, m.status FROM messages m WHERE m.id = ANY($1::uuid[]) AND m.id BETWEEN $2::uuid AND $3::uuid
		ORDER BY m.id FOR NO KEY UPDATE OF m`, ids, lo, hi)
	if err != nil {
		return nil, fmt.Errorf("locking %d messages: %w", len(ids), err)
	}
	waiting := make(map[uuid.UUID]bool, len(ids))
	var id uuid.UUID
	var status string
	if _, err := pgx.ForEachRow(rows, []any{&id, &status}, func() error { waiting[id] = status == "queued"; return nil }); err != nil {
		return nil, fmt.Errorf("locking %d messages: %w", len(ids), err)
	}
	return waiting, nil
}

func idSet(rows pgx.Rows) (map[uuid.UUID]bool, error) {
	set := make(map[uuid.UUID]bool)
	var id uuid.UUID
	_, err := pgx.ForEachRow(rows, []any{&id}, func() error { set[id] = true; return nil })
	return set, err
}

// bounds gives the smallest and largest id. A statement over ids names its ids three times: = u.id joins, = ANY(ids) makes
// every plan go by the primary key, also one cached while the partitions were empty, and BETWEEN leaves out the
// partitions of other days when the statement starts.
func bounds(ids []uuid.UUID) (lo, hi uuid.UUID) {
	for i, id := range ids {
		if i == 0 || less(id, lo) {
			lo = id
		}
		if i == 0 || less(hi, id) {
			hi = id
		}
	}
	return lo, hi
}

func less(a, b uuid.UUID) bool { return string(a[:]) < string(b[:]) }
