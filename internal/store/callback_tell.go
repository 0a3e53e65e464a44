package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/cloudapi"
	"wagate/internal/message"
)

// The events that clients are told.
const (
	TellStatus   = "message.status"
	TellInbound  = "message.inbound"
	TellAccount  = "account.alert"
	TellTemplate = "template.status"
)

// CallbackRun is a job that has to be put in: the one that delivers what waits for an endpoint.
type CallbackRun struct {
	EndpointID uuid.UUID
	// Run is its number: a job of an earlier one does nothing.
	Run int64
	// At is when it is to run; zero for at once.
	At time.Time
}

// OnCallbacks gives the function that puts jobs in, within the transaction in which there came to be something to deliver.
// Without one events wait until a worker looks after what has no job. It is to be called before the Store is used.
func (s *Store) OnCallbacks(putIn func(ctx context.Context, tx pgx.Tx, runs []CallbackRun) error) {
	s.putIn = putIn
}

// tell is one thing to be told of a message.
type tell struct {
	eventID   uuid.UUID
	messageID uuid.UUID
	word      string
	at        time.Time
	detail    *string
	// own says that it counts only if the message has the status now: somebody else may have known better.
	own bool
	// ours and meta say which formats it is for; value is Meta's, for the latter.
	ours, meta bool
	value      []byte
}

// wordOf gives the status that an event of ours stands for; "" for those that tell of none.
func wordOf(e *Event) string {
	switch e.Kind {
	case "try.accepted":
		return "accepted"
	case "try.unknown":
		return "unknown"
	case "try.refused", "failed":
		return "failed"
	case "expired", "cancelled":
		return e.Kind
	case "settled":
		switch e.Detail["as"] {
		case "sent":
			return "sent"
		case "failed", "fail":
			return "failed"
		}
	}
	return ""
}

// inMeta says whether Meta has a word for a status that the gateway has decided: expired and cancelled are failed there.
func inMeta(word string) bool { return word != "accepted" && word != "unknown" }

// callbackGate says who listens.
type callbackGate struct {
	any, meta, notices bool
}

// An index of the few rows that are active answers it.
const callbackGateSQL = `
	SELECT EXISTS (SELECT FROM callback_endpoints WHERE active), coalesce(bool_or(format = 'meta'), false),
	       coalesce(bool_or(events && ARRAY['` + TellInbound + `', '` + TellAccount + `', '` + TellTemplate + `']), false)
	FROM callback_endpoints WHERE active AND kind = 'subscription'`

// queueGate asks, with a batch, whether anybody listens: without endpoints callbacks cost nothing but this.
func queueGate(b *pgx.Batch, g *callbackGate) {
	b.Queue(callbackGateSQL).QueryRow(func(row pgx.Row) error { return row.Scan(&g.any, &g.meta, &g.notices) })
}

func (s *Store) callbackGate(ctx context.Context, tx pgx.Tx) (g callbackGate, err error) {
	if err := tx.QueryRow(ctx, callbackGateSQL).Scan(&g.any, &g.meta, &g.notices); err != nil {
		return g, fmt.Errorf("asking who is to be told: %w", err)
	}
	return g, nil
}

// The sort and the sequence keep the order in which things were told of a message: whoever tells holds its row.
const tellSQL = `
	INSERT INTO callback_events (event_id, endpoint_id, chain, kind, status, at, url, waba_id, phone_number_id, field, value, detail)
	SELECT u.event_id, e.endpoint_id, u.message_id, '` + TellStatus + `', u.word, u.at, e.url, m.waba_id, m.phone_number_id,
	       CASE WHEN e.format = 'meta' AND u.value IS NOT NULL THEN 'messages' END, CASE WHEN e.format = 'meta' THEN u.value END, u.detail::json
	FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::text[], $6::boolean[], $7::boolean[], $8::boolean[], $9::bytea[])
	     WITH ORDINALITY AS u(event_id, message_id, word, at, detail, own, ours, meta, value, n)
	JOIN messages m ON m.id = u.message_id
	CROSS JOIN LATERAL (
		SELECT c.endpoint_id, m.callback_url AS url, c.format FROM callback_endpoints c WHERE c.endpoint_id = m.callback_endpoint AND c.active
		UNION ALL
		SELECT s.endpoint_id, NULL, s.format FROM callback_endpoints s
		WHERE s.active AND s.kind = 'subscription' AND '` + TellStatus + `' = ANY(s.events)
		  AND (cardinality(s.statuses) = 0 OR u.word = ANY(s.statuses))
		  AND (s.waba_id IS NULL OR s.waba_id = m.waba_id) AND (s.phone_number_id IS NULL OR s.phone_number_id = m.phone_number_id)
		  AND (s.key_name IS NULL OR EXISTS (SELECT FROM api_keys k WHERE k.key_id = m.key_id AND k.name = s.key_name))
	) e
	WHERE m.id = ANY($2::uuid[]) AND m.id BETWEEN $10::uuid AND $11::uuid
	  AND (NOT u.own OR m.status = u.word) AND CASE e.format WHEN 'meta' THEN u.meta ELSE u.ours END
	ORDER BY u.n, e.endpoint_id
	RETURNING endpoint_id`

// tellStatuses writes what is to be told of messages, and sees to the jobs. The rows of the messages are locked by the
// transaction, and changed before.
func (s *Store) tellStatuses(ctx context.Context, tx pgx.Tx, set []tell) error {
	n := len(set)
	if n == 0 {
		return nil
	}
	eventIDs, ids, words, at := make([]uuid.UUID, n), make([]uuid.UUID, n), make([]string, n), make([]time.Time, n)
	details, values := make([]*string, n), make([][]byte, n)
	own, ours, meta := make([]bool, n), make([]bool, n), make([]bool, n)
	for i, t := range set {
		eventIDs[i], ids[i], words[i], at[i], details[i], values[i] = t.eventID, t.messageID, t.word, t.at, t.detail, t.value
		own[i], ours[i], meta[i] = t.own, t.ours, t.meta
	}
	lo, hi := bounds(ids)
	rows, err := tx.Query(ctx, tellSQL, eventIDs, ids, words, at, details, own, ours, meta, values, lo, hi)
	return s.told(ctx, tx, rows, err)
}

// told sees to the jobs of the endpoints that got events.
func (s *Store) told(ctx context.Context, tx pgx.Tx, rows pgx.Rows, err error) error {
	var touched []uuid.UUID
	if err == nil {
		touched, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	}
	if err != nil {
		return fmt.Errorf("writing what clients are told: %w", err)
	}
	return s.wakeCallbacks(ctx, tx, touched)
}

// tellEvents tells of the events of ours that stand for a status.
func (s *Store) tellEvents(ctx context.Context, tx pgx.Tx, g callbackGate, events []Event) error {
	if !g.any {
		return nil
	}
	var set []tell
	for i := range events {
		e := &events[i]
		word := wordOf(e)
		if word == "" {
			continue
		}
		set = append(set, tell{
			eventID: e.id, messageID: e.MessageID, word: word, at: e.At, detail: e.encoded, own: true, ours: true, meta: inMeta(word),
		})
	}
	return s.tellStatuses(ctx, tx, set)
}

// tellChanges tells of Meta's statuses: of those that moved a message in our words, in the order of their ranks, and in
// Meta's all that are new. A failure after which the message is sent again is told to nobody.
func (s *Store) tellChanges(ctx context.Context, tx pgx.Tx, g callbackGate, order []*statusChange, fresh map[uuid.UUID]bool) error {
	if !g.any {
		return nil
	}
	var set []tell
	parted := map[*byte]*cloudapi.Parted{} // by value, which many statuses share
	for _, c := range order {
		from := len(set)
		told := map[message.Status]bool{}
		for _, st := range c.statuses {
			word, known := message.FromMeta(st.Status)
			t := tell{eventID: st.EventID, messageID: c.id, word: st.Status, at: st.At}
			t.ours = known && !told[word] && !c.old(st) && c.moved(word)
			t.meta = g.meta && fresh[st.EventID] && len(st.Value) > 0 && st.Raw != nil && !(c.redo && word == message.Failed)
			if !t.ours && !t.meta {
				continue
			}
			told[word] = told[word] || t.ours
			if t.meta {
				first := &st.Value[0]
				if parted[first] == nil {
					parted[first] = cloudapi.Part(st.Value)
				}
				t.value = parted[first].Alone("statuses", st.Raw)
			}
			var err error
			if t.detail, err = st.detail(); err != nil {
				return fmt.Errorf("encoding what is told of message %s: %w", c.id, err)
			}
			set = append(set, t)
		}
		slices.SortStableFunc(set[from:], func(a, b tell) int { return message.Status(a.word).Rank() - message.Status(b.word).Rank() })
	}
	return s.tellStatuses(ctx, tx, set)
}

// moved says that the message went by this status on its way to where it stands now.
func (c *statusChange) moved(word message.Status) bool {
	was := c.row.status
	switch {
	case c.redo:
		return false
	case word == message.Failed:
		return c.errs == setError
	case was == message.Failed && !c.row.failedByMeta:
		was = message.Unknown // any positive word beats a failure that the gateway had decided
	}
	return word.Rank() > was.Rank() && word.Rank() <= c.status.Rank()
}

// Notice is something that Meta has said beside statuses, to be told to those who listen.
type Notice struct {
	// ID is the same whenever the same is told again.
	ID            uuid.UUID
	Kind          string // TellInbound, TellAccount or TellTemplate
	WABAID        string
	PhoneNumberID string // where it is of one
	At            time.Time
	// Field and Value are those of Meta's change.
	Field string
	Value []byte
}

// Listened says whether anybody listens to what Meta says beside statuses.
func (s *Store) Listened(ctx context.Context, tx pgx.Tx) (bool, error) {
	g, err := s.callbackGate(ctx, tx)
	return g.notices, err
}

// TellNotices writes notices for the subscriptions that want them, and sees to their jobs. Those that are bound to an API
// key get none: no key is behind a notice.
func (s *Store) TellNotices(ctx context.Context, tx pgx.Tx, set []Notice) error {
	n := len(set)
	if n == 0 {
		return nil
	}
	ids, kinds, wabas, phones := make([]uuid.UUID, n), make([]string, n), make([]string, n), make([]string, n)
	at, fields, values := make([]time.Time, n), make([]string, n), make([][]byte, n)
	for i, t := range set {
		ids[i], kinds[i], wabas[i], phones[i], at[i], fields[i], values[i] = t.ID, t.Kind, t.WABAID, t.PhoneNumberID, t.At, t.Field, t.Value
	}
	rows, err := tx.Query(ctx, `
		INSERT INTO callback_events (event_id, endpoint_id, chain, kind, at, waba_id, phone_number_id, field, value)
		SELECT u.id, s.endpoint_id, u.id, u.kind, u.at, nullif(u.waba, ''), nullif(u.phone, ''), u.field, u.value
		FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::bytea[])
		     WITH ORDINALITY AS u(id, kind, waba, phone, at, field, value, n)
		JOIN callback_endpoints s ON s.active AND s.kind = 'subscription' AND u.kind = ANY(s.events) AND s.key_name IS NULL
		     AND (s.waba_id IS NULL OR s.waba_id = u.waba) AND (s.phone_number_id IS NULL OR s.phone_number_id = u.phone)
		ORDER BY u.n, s.endpoint_id
		RETURNING endpoint_id`, ids, kinds, wabas, phones, at, fields, values)
	return s.told(ctx, tx, rows, err)
}

// callbackLock is the class of the advisory locks by which an endpoint's job ends only while nobody is adding events.
const callbackLock = 734987101

// lockOf is the key of an endpoint's lock. Two that share one wait for each other for a moment, no more.
func lockOf(id uuid.UUID) int32 { return int32(binary.BigEndian.Uint32(id[12:])) } //nolint:gosec // any 32 bits will do

// shareCallbacks takes the shared locks of endpoints. Whoever holds rows of theirs and adds events takes them before the rows:
// a job that ends has the exclusive one, and then changes the row.
func shareCallbacks(b *pgx.Batch, endpoints []uuid.UUID) {
	locks := make([]int32, len(endpoints))
	for i, id := range endpoints {
		locks[i] = lockOf(id)
	}
	b.Queue(`SELECT pg_advisory_xact_lock_shared($1::integer, l) FROM unnest($2::integer[]) l`, callbackLock, locks)
}

// wakeCallbacks gives each endpoint that has no job, or one for later only, a job now. One that is held gets its job when
// the hold ends. The shared lock is taken before the rows are read, and is held until the transaction ends: a job ends only
// under the exclusive one, so either it sees these events, or they see that it has ended.
//
// A row that another transaction has locked is passed over, as that one may wait for this one elsewhere: it gives the endpoint
// a job that cannot end before these events are seen. Should it be rolled back, MendCallbacks sees to it.
func (s *Store) wakeCallbacks(ctx context.Context, tx pgx.Tx, endpoints []uuid.UUID) error {
	if len(endpoints) == 0 {
		return nil
	}
	slices.SortFunc(endpoints, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	endpoints = slices.Compact(endpoints)
	b := &pgx.Batch{}
	shareCallbacks(b, endpoints)
	var runs []CallbackRun
	b.Queue(`
		WITH idle AS (
			SELECT endpoint_id FROM callback_endpoints
			WHERE endpoint_id = ANY($1::uuid[]) AND active AND (due_at IS NULL OR due_at > clock_timestamp())
			  AND (hold_until IS NULL OR hold_until <= clock_timestamp())
			ORDER BY endpoint_id FOR NO KEY UPDATE SKIP LOCKED
		)
		UPDATE callback_endpoints e SET run = e.run + 1, due_at = clock_timestamp(), alive_at = NULL, planned = false
		FROM idle WHERE e.endpoint_id = idle.endpoint_id
		RETURNING e.endpoint_id, e.run`, endpoints).Query(func(rows pgx.Rows) (err error) {
		runs, err = collectRuns(rows)
		return err
	})
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("waking %d callback endpoints: %w", len(endpoints), err)
	}
	return s.putCallbacksIn(ctx, tx, runs)
}

func collectRuns(rows pgx.Rows) ([]CallbackRun, error) {
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (r CallbackRun, err error) {
		return r, row.Scan(&r.EndpointID, &r.Run)
	})
}

func (s *Store) putCallbacksIn(ctx context.Context, tx pgx.Tx, runs []CallbackRun) error {
	if len(runs) == 0 || s.putIn == nil {
		return nil
	}
	return s.putIn(ctx, tx, runs)
}

// callbackOrigin gives the scheme, host and port of a callback_url, and the row that stands for them: a dead server is one
// endpoint, however many addresses its owner makes up on it.
func callbackOrigin(owner, callbackURL string) (id uuid.UUID, origin string) {
	u, err := url.Parse(callbackURL)
	if err != nil || u.Host == "" {
		return uuid.Nil, ""
	}
	origin = u.Scheme + "://" + strings.ToLower(u.Host)
	sum := sha256.Sum256([]byte("callback\x00" + owner + "\x00" + origin))
	copy(id[:], sum[:16])
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // a UUIDv8: a hash
	return id, origin
}

// putCallbackOrigins makes the rows that the callback_urls of messages go by, and gives each message's.
func putCallbackOrigins(ctx context.Context, tx pgx.Tx, messages []*NewMessage) ([]*uuid.UUID, error) {
	of := make([]*uuid.UUID, len(messages))
	type row struct{ owner, origin string }
	rows := map[uuid.UUID]row{}
	for i, m := range messages {
		if m.CallbackURL == "" {
			continue
		}
		if id, origin := callbackOrigin(m.Owner, m.CallbackURL); origin != "" {
			of[i], rows[id] = &id, row{m.Owner, origin}
		}
	}
	if len(rows) == 0 {
		return of, nil
	}
	ids, owners, origins := make([]uuid.UUID, 0, len(rows)), make([]string, 0, len(rows)), make([]string, 0, len(rows))
	for id, r := range rows {
		ids, owners, origins = append(ids, id), append(owners, r.owner), append(origins, r.origin)
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO callback_endpoints (endpoint_id, kind, owner, url, events)
		SELECT u.id, 'url', u.owner, u.origin, ARRAY['`+TellStatus+`'] FROM unnest($1::uuid[], $2::text[], $3::text[]) AS u(id, owner, origin)
		WHERE NOT EXISTS (SELECT FROM callback_endpoints e WHERE e.endpoint_id = u.id)
		ORDER BY u.id ON CONFLICT (endpoint_id) DO NOTHING`, ids, owners, origins)
	if err != nil {
		return nil, fmt.Errorf("keeping where %d callbacks go: %w", len(ids), err)
	}
	return of, nil
}
