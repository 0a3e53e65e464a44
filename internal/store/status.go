package store

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/message"
)

// Status is one status of a webhook, ready to be applied. Its texts hold no NUL and are valid UTF-8.
type Status struct {
	// EventID is the id of its event row, the same whenever this status of this notification is applied again.
	EventID uuid.UUID
	// MessageID and Try come from our token; MessageID is nil without one, and the WAMID finds the message.
	MessageID uuid.UUID
	Try       int
	WAMID     string
	// Status is Meta's word; one that is not known is kept as an event and moves nothing.
	Status  string
	At      time.Time
	Errors  []StatusError
	Pricing *StatusPricing
	// Conversation is nil where the status does not say.
	Conversation *StatusConversation
	// RecipientID is the wa_id of the recipient, "" where the status does not say.
	RecipientID string
	// Participant is the member of a group whom the status is about; "" where it is about the message. The first member's
	// sent, delivered or read counts as the message's; a member's failed does not, since the others may have it.
	Participant string
	// Patient says that the status can be applied again a moment later, should the answer to its try be recorded by then.
	Patient bool
	// Value is Meta's value of field messages that has the status, Raw the status in it, for clients that read Meta's format.
	// Nil for a status that came otherwise.
	Value, Raw []byte
}

// StatusError is an error of a failed status.
type StatusError struct {
	Code    int    `json:"code"`
	Title   string `json:"title,omitempty"`
	Details string `json:"details,omitempty"`
}

// StatusPricing is what a status says of the price.
type StatusPricing struct {
	Billable *bool  `json:"billable,omitempty"`
	Model    string `json:"model,omitempty"`
	Type     string `json:"type,omitempty"`
	Category string `json:"category,omitempty"`
}

// StatusConversation is what a status says of the conversation.
type StatusConversation struct {
	ID     string `json:"id,omitempty"`
	Origin string `json:"origin,omitempty"`
	// ExpiresAt is when it ends: until then messages of a free entry point cost nothing.
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// Applied says what came of a set of statuses.
type Applied struct {
	// Messages is how many messages the set concerned.
	Messages int
	// Unmatched holds the places in the set of statuses that belong to no message we know.
	Unmatched []int
	// Duplicates counts wamids by which Meta accepted a message that it had accepted under another wamid.
	Duplicates int
	// Failures are the messages that failed by this set, as they stood; Redos those of them that are to be sent again. The
	// caller puts their jobs in, in the same transaction.
	Failures []Failure
	Redos    []Redo
	// Early holds the places of failures that come before the answer to their try is recorded, and that ask for a new try:
	// they were not applied, and are to be applied again a moment later.
	Early []int
}

// statusRow is what the row of a locked message says.
type statusRow struct {
	status       message.Status
	failedByMeta bool
	try          int
	failedTry    int
	wamid        string
	recipient    string
	// ended says that the end of a try of the message has been recorded since it last waited.
	ended bool
}

// ApplyStatuses applies a set of statuses: every one leaves an event row, and each message goes to the status of the
// highest rank (message.Rank), whatever the order in which statuses come and however often. Times keep their earliest
// value. Several statuses of one message in the set all count. It locks the messages in the order of their ids, so that
// two sets cannot wait for each other.
//
// decide says of a failure whether its message is sent again; nil never does. Such a message waits again, and of the tries
// up to the failed one only what proves a delivery counts from then on.
func (s *Store) ApplyStatuses(ctx context.Context, tx pgx.Tx, set []Status, decide func(Failure) NewTry) (Applied, error) {
	var applied Applied
	if len(set) == 0 {
		return applied, nil
	}
	if err := planByIndex(ctx, tx); err != nil {
		return applied, err
	}
	owner, err := s.matchStatuses(ctx, tx, set)
	if err != nil {
		return applied, err
	}
	rows, err := s.lockForStatus(ctx, tx, owner)
	if err != nil {
		return applied, err
	}
	byMessage := make(map[uuid.UUID]*statusChange, len(rows))
	order := make([]*statusChange, 0, len(rows))
	for i := range set {
		row, ok := rows[owner[i]]
		if !ok {
			applied.Unmatched = append(applied.Unmatched, i)
			continue
		}
		c := byMessage[owner[i]]
		if c == nil {
			c = &statusChange{id: owner[i], row: row}
			byMessage[owner[i]] = c
			order = append(order, c)
		}
		c.statuses = append(c.statuses, &set[i])
	}
	applied.Messages = len(order)
	if len(order) == 0 {
		return applied, nil
	}
	if err := s.LearnWAIDs(ctx, tx, spellings(order)); err != nil {
		return applied, err
	}
	var failing []*statusChange
	for _, c := range order {
		c.reduce()
		if c.failed && c.status == message.Failed && c.failure != nil {
			failing = append(failing, c)
		}
	}
	if len(failing) > 0 {
		if err := s.decideFailures(ctx, tx, failing, decide, &applied); err != nil {
			return applied, err
		}
		order = slices.DeleteFunc(order, func(c *statusChange) bool {
			return c.early
		})
		for i := range set {
			if c := byMessage[owner[i]]; c != nil && c.early {
				applied.Early = append(applied.Early, i)
			}
		}
		if len(order) == 0 {
			return applied, nil
		}
	}
	if err := s.updateFromStatuses(ctx, tx, order); err != nil {
		return applied, err
	}
	if applied.Duplicates, err = s.recordStatusWAMIDs(ctx, tx, order); err != nil {
		return applied, err
	}
	var gate callbackGate
	fresh, err := s.insertStatusEvents(ctx, tx, order, &gate)
	if err != nil {
		return applied, err
	}
	if err := s.tellChanges(ctx, tx, gate, order, fresh); err != nil {
		return applied, err
	}
	return applied, s.recordRedos(ctx, tx, applied.Redos)
}

// matchStatuses gives the message of each status; nil where none is known.
func (s *Store) matchStatuses(ctx context.Context, tx pgx.Tx, set []Status) ([]uuid.UUID, error) {
	owner := make([]uuid.UUID, len(set))
	var wamids []string
	for i := range set {
		if owner[i] = set[i].MessageID; owner[i] == uuid.Nil {
			wamids = append(wamids, set[i].WAMID)
		}
	}
	if len(wamids) == 0 {
		return owner, nil
	}
	rows, err := tx.Query(ctx, `SELECT wamid, message_id FROM wamids WHERE wamid = ANY($1::text[])`, wamids)
	if err != nil {
		return nil, fmt.Errorf("looking up %d wamids: %w", len(wamids), err)
	}
	known := make(map[string]uuid.UUID)
	var wamid string
	var id uuid.UUID
	if _, err := pgx.ForEachRow(rows, []any{&wamid, &id}, func() error { known[wamid] = id; return nil }); err != nil {
		return nil, fmt.Errorf("looking up %d wamids: %w", len(wamids), err)
	}
	for i := range set {
		if owner[i] == uuid.Nil {
			owner[i] = known[set[i].WAMID]
		}
	}
	return owner, nil
}

func (s *Store) lockForStatus(ctx context.Context, tx pgx.Tx, owner []uuid.UUID) (map[uuid.UUID]statusRow, error) {
	ids := slices.DeleteFunc(slices.Clone(owner), func(id uuid.UUID) bool { return id == uuid.Nil })
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	ids = slices.Compact(ids)
	locked := make(map[uuid.UUID]statusRow, len(ids))
	if len(ids) == 0 {
		return locked, nil
	}
	rows, err := tx.Query(ctx, lockForStatusSQL, ids, ids[0], ids[len(ids)-1])
	if err != nil {
		return nil, fmt.Errorf("locking %d messages: %w", len(ids), err)
	}
	var id uuid.UUID
	var c statusRow
	_, err = pgx.ForEachRow(rows, []any{&id, &c.status, &c.failedByMeta, &c.try, &c.failedTry, &c.wamid, &c.recipient, &c.ended}, func() error {
		locked[id] = c
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("locking %d messages: %w", len(ids), err)
	}
	return locked, nil
}

// The sort lies below the lock, so rows are locked in the order of their ids.
const lockForStatusSQL = `
	SELECT m.id, m.status, m.failed_by_meta, m.try, m.failed_try, CASE WHEN m.recipient_hash IS NULL THEN coalesce(m.wamid, '') ELSE '` + forgottenWAMID + `' END, m.recipient,
	       m.accepted_at IS NOT NULL OR m.unknown_at IS NOT NULL
	FROM messages m WHERE m.id = ANY($1::uuid[]) AND m.id BETWEEN $2::uuid AND $3::uuid
	ORDER BY m.id FOR NO KEY UPDATE`

// In errs, 0 stands for keepError, 1 for setError, 2 for clearError.
const updateStatusSQL = `
	UPDATE messages m SET
		status = u.status, failed_by_meta = m.failed_by_meta OR u.failed,
		body = CASE WHEN wagate_content_ends(u.status, m.category, coalesce(m.pricing_category, u.category), $22::boolean) THEN NULL ELSE m.body END,
		redacted_at = CASE WHEN m.body IS NOT NULL AND wagate_content_ends(u.status, m.category, coalesce(m.pricing_category, u.category), $22::boolean)
			THEN clock_timestamp() ELSE m.redacted_at END,
		wamid = CASE WHEN m.recipient_hash IS NULL THEN coalesce(m.wamid, u.wamid) ELSE '` + forgottenWAMID + `' END,
		sent_at = least(m.sent_at, u.sent_at), delivered_at = least(m.delivered_at, u.delivered_at),
		read_at = least(m.read_at, u.read_at), played_at = least(m.played_at, u.played_at), failed_at = least(m.failed_at, u.failed_at),
		slot_at = CASE WHEN NOT u.proven THEN m.slot_at END,
		settle_by = CASE WHEN NOT u.settled THEN m.settle_by END, settle_waits = CASE WHEN NOT u.settled THEN m.settle_waits END,
		error_code = CASE u.errs WHEN 0 THEN m.error_code WHEN 1 THEN u.error_code END,
		error_subcode = CASE u.errs WHEN 0 THEN m.error_subcode END,
		error_title = CASE u.errs WHEN 0 THEN m.error_title WHEN 1 THEN u.error_title END,
		error_details = CASE u.errs WHEN 0 THEN m.error_details WHEN 1 THEN CASE WHEN m.recipient_hash IS NULL THEN u.error_details END END,
		error_scope = CASE u.errs WHEN 0 THEN m.error_scope END,
		pricing_billable = coalesce(m.pricing_billable, u.billable), pricing_model = coalesce(m.pricing_model, u.model),
		pricing_type = coalesce(m.pricing_type, u.type), pricing_category = coalesce(m.pricing_category, u.category)
	FROM unnest($1::uuid[], $2::text[], $3::boolean[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[], $8::timestamptz[],
	            $9::timestamptz[], $10::boolean[], $11::boolean[], $12::smallint[], $13::integer[], $14::text[], $15::text[],
	            $16::boolean[], $17::text[], $18::text[], $19::text[])
	     AS u(id, status, failed, wamid, sent_at, delivered_at, read_at, played_at, failed_at, proven, settled, errs, error_code, error_title,
	          error_details, billable, model, type, category)
	WHERE m.id = u.id AND m.id = ANY($1::uuid[]) AND m.id BETWEEN $20::uuid AND $21::uuid`

func (s *Store) updateFromStatuses(ctx context.Context, tx pgx.Tx, order []*statusChange) error {
	n := len(order)
	ids, statuses, wamids := make([]uuid.UUID, n), make([]string, n), make([]*string, n)
	failed, proven, settled := make([]bool, n), make([]bool, n), make([]bool, n)
	sent, delivered, read, played, failedAt := make([]*time.Time, n), make([]*time.Time, n), make([]*time.Time, n), make([]*time.Time, n), make([]*time.Time, n)
	errs, codes, titles, details := make([]int16, n), make([]*int32, n), make([]*string, n), make([]*string, n)
	billable, model, kind, category := make([]*bool, n), make([]*string, n), make([]*string, n), make([]*string, n)
	for i, c := range order {
		ids[i], statuses[i], failed[i], proven[i], settled[i], errs[i] = c.id, string(c.status), c.failed, c.proven, c.settled, c.errs
		wamids[i] = orNull(c.wamid)
		sent[i], delivered[i], read[i] = c.at[message.Sent], c.at[message.Delivered], c.at[message.Read]
		played[i], failedAt[i] = c.at[message.Played], c.at[message.Failed]
		if e := c.failure; e != nil {
			code := int32(e.Code) //nolint:gosec // Meta's codes fit, and parsing bounds them
			codes[i], titles[i], details[i] = &code, orNull(e.Title), orNull(e.Details)
		}
		billable[i], model[i], kind[i], category[i] = c.pricing.Billable, orNull(c.pricing.Model), orNull(c.pricing.Type), orNull(c.pricing.Category)
	}
	lo, hi := bounds(ids)
	_, err := tx.Exec(ctx, updateStatusSQL, ids, statuses, failed, wamids, sent, delivered, read, played, failedAt, proven, settled, errs,
		codes, titles, details, billable, model, kind, category, lo, hi, s.atFinal)
	if err != nil {
		return fmt.Errorf("applying statuses to %d messages: %w", n, err)
	}
	return nil
}

// recordStatusWAMIDs adds what was not known of wamids. A wamid that is new and not the message's first one means that
// Meta accepted the message twice: that is kept as an event.
func (s *Store) recordStatusWAMIDs(ctx context.Context, tx pgx.Tx, order []*statusChange) (duplicates int, err error) {
	var wamids, firsts []string
	var ids, eventIDs []uuid.UUID
	var tries []int32
	var at []time.Time
	for _, c := range order {
		first := c.row.wamid
		if first == "" {
			first = c.wamid
		}
		seen := make(map[string]bool, 1)
		for _, st := range c.statuses {
			if c.row.wamid == forgottenWAMID || st.WAMID == "" || seen[st.WAMID] || c.old(st) || st.WAMID == c.row.wamid {
				continue // the row's own was recorded in the transaction that gave it to the row
			}
			seen[st.WAMID] = true
			wamids, firsts, ids = append(wamids, st.WAMID), append(firsts, first), append(ids, c.id)
			eventIDs, tries, at = append(eventIDs, relatedID(st.EventID)), append(tries, int32(st.Try)), append(at, st.At) //nolint:gosec // a try number is small
		}
	}
	if len(wamids) == 0 {
		return 0, nil
	}
	tag, err := tx.Exec(ctx, `
		WITH u AS (
			SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::uuid[], $5::integer[], $6::timestamptz[])
			     AS u(wamid, message_id, first, event_id, try, at)
		), fresh AS (
			INSERT INTO wamids (wamid, message_id) SELECT u.wamid, u.message_id FROM u ORDER BY u.wamid
			ON CONFLICT (wamid) DO NOTHING RETURNING wamids.wamid, wamids.message_id
		)
		INSERT INTO message_events (id, message_id, kind, try, wamid, at, detail)
		SELECT u.event_id, u.message_id, 'duplicate_detected', nullif(u.try, 0), u.wamid, u.at, jsonb_build_object('first_wamid', u.first)
		FROM fresh JOIN u ON u.wamid = fresh.wamid AND u.message_id = fresh.message_id
		WHERE u.first <> u.wamid
		ON CONFLICT (id) DO NOTHING`, wamids, ids, firsts, eventIDs, tries, at)
	if err != nil {
		return 0, fmt.Errorf("recording %d wamids: %w", len(wamids), err)
	}
	return int(tag.RowsAffected()), nil
}

// insertStatusEvents gives the ids of the events that were not there yet.
func (s *Store) insertStatusEvents(ctx context.Context, tx pgx.Tx, order []*statusChange, gate *callbackGate) (map[uuid.UUID]bool, error) {
	var ids, messageIDs []uuid.UUID
	var kinds, wamids []string
	var tries []int32
	var at []time.Time
	var details []*string
	for _, c := range order {
		for _, st := range c.statuses {
			kept := *st
			if c.row.wamid == forgottenWAMID { // its number is forgotten, and these may hold it
				kept.WAMID, kept.Errors = "", slices.Clone(st.Errors)
				for i := range kept.Errors {
					kept.Errors[i].Details = ""
				}
			}
			detail, err := kept.detail()
			if err != nil {
				return nil, fmt.Errorf("encoding an event of message %s: %w", c.id, err)
			}
			ids, messageIDs, kinds = append(ids, st.EventID), append(messageIDs, c.id), append(kinds, "status."+st.Status)
			tries, wamids, at, details = append(tries, int32(st.Try)), append(wamids, kept.WAMID), append(at, st.At), append(details, detail) //nolint:gosec // a try number is small
		}
	}
	fresh := make(map[uuid.UUID]bool, len(ids))
	b := &pgx.Batch{}
	b.Queue(`
		INSERT INTO message_events (id, message_id, kind, try, wamid, at, detail)
		SELECT u.id, u.message_id, u.kind, nullif(u.try, 0), nullif(u.wamid, ''), u.at, u.detail::jsonb
		FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::integer[], $5::text[], $6::timestamptz[], $7::text[])
		     AS u(id, message_id, kind, try, wamid, at, detail)
		ON CONFLICT (id) DO NOTHING RETURNING id`, ids, messageIDs, kinds, tries, wamids, at, details).Query(func(rows pgx.Rows) error {
		var id uuid.UUID
		_, err := pgx.ForEachRow(rows, []any{&id}, func() error { fresh[id] = true; return nil })
		return err
	})
	queueGate(b, gate)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return nil, fmt.Errorf("inserting %d status events: %w", len(ids), err)
	}
	return fresh, nil
}

// detail is what an event keeps of a status: price, conversation and errors, and nothing that says who the recipient is: a
// member of a group is masked.
func (st *Status) detail() (*string, error) {
	if len(st.Errors) == 0 && st.Pricing == nil && st.Conversation == nil && st.Participant == "" {
		return nil, nil
	}
	raw, err := json.Marshal(struct {
		Errors       []StatusError       `json:"errors,omitempty"`
		Pricing      *StatusPricing      `json:"pricing,omitempty"`
		Conversation *StatusConversation `json:"conversation,omitempty"`
		Participant  string              `json:"participant,omitempty"`
	}{st.Errors, st.Pricing, st.Conversation, masked(st.Participant)})
	if err != nil {
		return nil, err
	}
	text := string(raw)
	return &text, nil
}

// masked leaves the first and the last two characters of a number, as the reports do.
func masked(number string) string {
	if n := len(number); n > 6 {
		return number[:2] + strings.Repeat("*", n-4) + number[n-2:]
	}
	return strings.Repeat("*", len(number))
}

// relatedID gives a second id that belongs to an event's, of the same millisecond and always the same.
func relatedID(id uuid.UUID) uuid.UUID {
	sum := sha256.Sum256(id[:])
	copy(id[9:], sum[:7])
	return id
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
