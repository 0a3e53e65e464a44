package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Outcome is how one try ended, or what was decided of a message without one.
type Outcome struct {
	ID  uuid.UUID
	Try int
	// Status is what the message becomes if nothing of higher rank is known of it: accepted, failed, unknown, expired.
	Status string
	// Event is the kind of the event row, e.g. try.accepted.
	Event string
	At    time.Time

	WAMID         string
	WAID          string
	MessageStatus string
	// UserKey, where it is not empty, is the spelling of the recipient's number that Meta has mapped to WAID.
	UserKey string

	ErrorCode    int
	ErrorSubcode int
	ErrorTitle   string
	ErrorDetails string
	ErrorScope   string

	// Reason is why an outcome is unknown; SettleBy when on_unknown decides.
	Reason   string
	SettleBy time.Time
}

// RecordOutcomes ends tries for good: the outcome, the wamid and an event row each. An outcome counts for the try it
// names only: one that comes after a newer try was begun leaves the message as it is, but for its wamid and events. An
// accepted one then is a message sent twice, kept as duplicate_detected, unless the newer try has ended without one: the
// message is accepted, and no other try is made. Where a webhook was faster, its higher status
// stays. Unknown is said of a message that is being sent only: whoever knows more, or knew it earlier, is right.
//
// A try that a failed webhook has ended already, and a new one follows, changes nothing but the log.
//
// The statements go out together, in one round trip; then, where given, adds its own behind them.
func (s *Store) RecordOutcomes(ctx context.Context, tx pgx.Tx, outcomes []Outcome, then func(*pgx.Batch)) error {
	n := len(outcomes)
	b := &pgx.Batch{}
	current := make(map[uuid.UUID]string, n) // the wamid the message has now
	var gate callbackGate
	var told []Event
	if n > 0 {
		var err error
		if told, err = queueOutcomes(b, outcomes, current, &gate, s.atFinal); err != nil {
			return err
		}
	}
	if then != nil {
		then(b)
	}
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("recording %d outcomes: %w", n, err)
	}
	if err := s.tellEvents(ctx, tx, gate, told); err != nil {
		return err
	}
	var events []Event
	for _, o := range outcomes {
		if o.WAMID != "" && current[o.ID] != o.WAMID {
			events = append(events, Event{MessageID: o.ID, Kind: "duplicate_detected", Try: o.Try, WAMID: o.WAMID, At: o.At})
		}
	}
	return s.InsertEvents(ctx, tx, events)
}

// queueOutcomes adds the statements of RecordOutcomes to a batch, and gives its events; current gets the wamid that each
// message has then.
func queueOutcomes(b *pgx.Batch, outcomes []Outcome, current map[uuid.UUID]string, gate *callbackGate, atFinal bool) ([]Event, error) {
	n := len(outcomes)
	ids, tries, statuses, at := make([]uuid.UUID, n), make([]int32, n), make([]string, n), make([]time.Time, n)
	wamids, waids, msgStatuses := make([]string, n), make([]string, n), make([]string, n)
	codes, subcodes := make([]int32, n), make([]int32, n)
	titles, details, scopes := make([]string, n), make([]string, n), make([]string, n)
	reasons, settle, decided := make([]string, n), make([]*time.Time, n), make([]bool, n)
	for i, o := range outcomes {
		ids[i], tries[i], statuses[i], at[i] = o.ID, int32(o.Try), o.Status, o.At //nolint:gosec // small
		wamids[i], waids[i], msgStatuses[i] = o.WAMID, o.WAID, o.MessageStatus
		codes[i], subcodes[i] = int32(o.ErrorCode), int32(o.ErrorSubcode) //nolint:gosec // Meta's codes fit
		titles[i], details[i], scopes[i], reasons[i] = o.ErrorTitle, o.ErrorDetails, o.ErrorScope, o.Reason
		decided[i] = !strings.HasPrefix(o.Event, "try.") // of the message, not of a try
		if !o.SettleBy.IsZero() {
			settle[i] = &o.SettleBy
		}
	}
	lo, hi := bounds(ids)
	b.Queue(`
		UPDATE messages m SET
			status = CASE WHEN (u.decided OR u.try > m.failed_try) AND wagate_status_rank(u.status, false) > wagate_status_rank(m.status, m.failed_by_meta) THEN u.status ELSE m.status END,
			body = CASE WHEN wagate_content_ends(CASE WHEN (u.decided OR u.try > m.failed_try) AND wagate_status_rank(u.status, false) > wagate_status_rank(m.status, m.failed_by_meta) THEN u.status ELSE m.status END, m.category, m.pricing_category, $18::boolean) THEN NULL ELSE m.body END,
			redacted_at = CASE WHEN m.body IS NOT NULL AND wagate_content_ends(CASE WHEN (u.decided OR u.try > m.failed_try) AND wagate_status_rank(u.status, false) > wagate_status_rank(m.status, m.failed_by_meta) THEN u.status ELSE m.status END, m.category, m.pricing_category, $18::boolean) THEN clock_timestamp() ELSE m.redacted_at END,
			slot_at = NULL,
			wamid = coalesce(m.wamid, CASE WHEN (u.decided OR u.try > m.failed_try) THEN nullif(u.wamid, '') END), wa_id = coalesce(nullif(u.wa_id, ''), m.wa_id),
			message_status = coalesce(nullif(u.message_status, ''), m.message_status),
			accepted_at = CASE WHEN u.status = 'accepted' AND (u.decided OR u.try > m.failed_try) THEN least(m.accepted_at, u.at) ELSE m.accepted_at END,
			failed_at = CASE WHEN u.status = 'failed' AND (u.decided OR u.try > m.failed_try) THEN coalesce(m.failed_at, u.at) ELSE m.failed_at END,
			unknown_at = CASE WHEN u.status = 'unknown' THEN u.at ELSE m.unknown_at END,
			unknown_reason = CASE WHEN u.status = 'unknown' THEN u.reason ELSE m.unknown_reason END, settle_waits = NULL,
			settle_by = CASE WHEN u.status = 'unknown' THEN u.settle_by END,
			error_code = CASE WHEN (u.decided OR u.try > m.failed_try) AND wagate_status_rank(u.status, false) > wagate_status_rank(m.status, m.failed_by_meta) THEN nullif(u.code, 0) ELSE m.error_code END,
			error_subcode = CASE WHEN (u.decided OR u.try > m.failed_try) AND wagate_status_rank(u.status, false) > wagate_status_rank(m.status, m.failed_by_meta) THEN nullif(u.subcode, 0) ELSE m.error_subcode END,
			error_title = CASE WHEN (u.decided OR u.try > m.failed_try) AND wagate_status_rank(u.status, false) > wagate_status_rank(m.status, m.failed_by_meta) THEN nullif(u.title, '') ELSE m.error_title END,
			error_details = CASE WHEN (u.decided OR u.try > m.failed_try) AND wagate_status_rank(u.status, false) > wagate_status_rank(m.status, m.failed_by_meta) THEN nullif(u.details, '') ELSE m.error_details END,
			error_scope = CASE WHEN (u.decided OR u.try > m.failed_try) AND wagate_status_rank(u.status, false) > wagate_status_rank(m.status, m.failed_by_meta) THEN nullif(u.scope, '') ELSE m.error_scope END
		FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[], $8::integer[], $9::integer[],
		            $10::text[], $11::text[], $12::text[], $13::text[], $14::timestamptz[], $17::boolean[])
		     AS u(id, try, status, at, wamid, wa_id, message_status, code, subcode, title, details, scope, reason, settle_by, decided)
		WHERE m.id = u.id AND m.id = ANY($1::uuid[]) AND m.id BETWEEN $15::uuid AND $16::uuid
		  AND (m.try = u.try OR (u.status = 'accepted' AND u.try < m.try AND u.try > m.failed_try AND m.status IN ('queued', 'unknown')))
		  AND (u.status <> 'unknown' OR m.status = 'sending')
		RETURNING m.id, CASE WHEN (u.decided OR u.try > m.failed_try) THEN coalesce(m.wamid, '') ELSE u.wamid END`,
		ids, tries, statuses, at, wamids, waids, msgStatuses, codes, subcodes, titles, details, scopes, reasons, settle, lo, hi, decided, atFinal,
	).Query(func(rows pgx.Rows) error {
		var id uuid.UUID
		var wamid string
		_, err := pgx.ForEachRow(rows, []any{&id, &wamid}, func() error { current[id] = wamid; return nil })
		return err
	})
	b.Queue(`
		INSERT INTO wamids (wamid, message_id)
		SELECT u.wamid, u.id FROM unnest($1::uuid[], $2::text[]) AS u(id, wamid) WHERE u.wamid <> ''
		ON CONFLICT (wamid) DO NOTHING`, ids, wamids)
	var inputs, learned []string
	for _, o := range outcomes {
		if o.UserKey != "" && o.WAID != "" {
			inputs, learned = append(inputs, o.UserKey), append(learned, o.WAID)
		}
	}
	if len(inputs) > 0 {
		b.Queue(`
			INSERT INTO wa_ids (input, wa_id) SELECT DISTINCT ON (u.input) u.input, u.wa_id FROM unnest($1::text[], $2::text[]) AS u(input, wa_id)
			WHERE u.input <> u.wa_id ORDER BY u.input
			ON CONFLICT (input) DO UPDATE SET wa_id = excluded.wa_id WHERE wa_ids.wa_id <> excluded.wa_id`, inputs, learned)
	}
	events := make([]Event, n)
	for i, o := range outcomes {
		events[i] = Event{MessageID: o.ID, Kind: o.Event, Try: o.Try, WAMID: o.WAMID, At: o.At, Detail: o.detail()}
	}
	return events, queueEvents(b, events, gate)
}

func (o *Outcome) detail() map[string]any {
	d := map[string]any{}
	if o.ErrorCode != 0 {
		d["code"], d["title"] = o.ErrorCode, o.ErrorTitle
		if o.ErrorSubcode != 0 {
			d["subcode"] = o.ErrorSubcode
		}
		if o.ErrorDetails != "" {
			d["details"] = o.ErrorDetails
		}
		if o.ErrorScope != "" {
			d["scope"] = o.ErrorScope
		}
	}
	if o.Reason != "" {
		d["reason"] = o.Reason
	}
	if o.MessageStatus != "" && o.MessageStatus != "accepted" {
		d["message_status"] = o.MessageStatus // Meta holds it back
	}
	return d
}

// Reopen is a try that ended with proof that nothing was accepted, so that the message waits again.
type Reopen struct {
	ID  uuid.UUID
	Try int
	// Event is try.throttled, try.transient, try.refused or try.unsent; Retry and Throttle say which count it adds to.
	Event    string
	Retry    bool
	Throttle bool
	// Fallback makes the message into its fallback template.
	Fallback bool
	// MarkedBy and Epoch say whose try it is, where the number alone does not: a worker whose mark failed, so that nobody
	// knows whether it was made, must not clear that of the next owner. Empty and 0 stand for any.
	MarkedBy string
	Epoch    int64
	At       time.Time
	Code     int
	Reason   string
}

// ReopenTries clears the marks of tries that sent nothing; one that is not the message's newest, or somebody else's, changes
// nothing and leaves no event. It returns the ids of messages that had been taken for
// unknown meanwhile: their jobs are gone and the caller puts new ones in.
func (s *Store) ReopenTries(ctx context.Context, tx pgx.Tx, set []Reopen) (orphans map[uuid.UUID]bool, err error) {
	n := len(set)
	ids, tries, retries, throttles := make([]uuid.UUID, n), make([]int32, n), make([]int32, n), make([]int32, n)
	workers, epochs := make([]string, n), make([]int64, n)
	for i, r := range set {
		ids[i], tries[i], workers[i], epochs[i] = r.ID, int32(r.Try), r.MarkedBy, r.Epoch //nolint:gosec // small
		if r.Retry {
			retries[i] = 1
		}
		if r.Throttle {
			throttles[i] = 1
		}
	}
	lo, hi := bounds(ids)
	rows, err := tx.Query(ctx, `
		WITH cur AS (
			SELECT m.id, m.status, u.retries, u.throttles
			FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::integer[], $7::text[], $8::bigint[]) AS u(id, try, retries, throttles, worker, epoch)
			JOIN messages m ON m.id = u.id AND m.try = u.try
			WHERE m.id = ANY($1::uuid[]) AND m.id BETWEEN $5::uuid AND $6::uuid
			  AND (u.worker = '' OR m.marked_by = u.worker) AND (u.epoch = 0 OR m.epoch = u.epoch)
			ORDER BY m.id FOR NO KEY UPDATE OF m
		), opened AS (
			UPDATE messages m
			SET status = 'queued', slot_at = NULL, settle_by = NULL, retries = m.retries + cur.retries, throttles = m.throttles + cur.throttles
			FROM cur WHERE m.id = cur.id AND m.id = ANY($1::uuid[]) AND m.id BETWEEN $5::uuid AND $6::uuid AND cur.status IN ('sending', 'unknown')
		)
		SELECT id, status FROM cur`, ids, tries, retries, throttles, lo, hi, workers, epochs)
	if err != nil {
		return nil, fmt.Errorf("reopening %d tries: %w", n, err)
	}
	orphans = make(map[uuid.UUID]bool)
	ours := make(map[uuid.UUID]bool, n)
	var id uuid.UUID
	var was string
	_, err = pgx.ForEachRow(rows, []any{&id, &was}, func() error {
		ours[id] = true
		if was == "unknown" {
			orphans[id] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reopening %d tries: %w", n, err)
	}
	events := make([]Event, 0, n)
	var fallbacks []uuid.UUID
	for _, r := range set {
		if r.Event != "" && ours[r.ID] {
			o := Outcome{ErrorCode: r.Code, Reason: r.Reason}
			events = append(events, Event{MessageID: r.ID, Kind: r.Event, Try: r.Try, At: r.At, Detail: o.detail()})
		}
		if r.Fallback && ours[r.ID] {
			fallbacks = append(fallbacks, r.ID)
		}
	}
	if err := s.InsertEvents(ctx, tx, events); err != nil {
		return nil, err
	}
	_, err = s.UseFallbacks(ctx, tx, fallbacks, FallbackRefused, time.Now())
	return orphans, err
}
