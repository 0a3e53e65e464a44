package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/message"
)

// Message is a message as callers see it, without its content. Null columns are nil.
type Message struct {
	ID               uuid.UUID
	PhoneNumberID    string
	WABAID           string
	Recipient        string
	Type             string
	Status           string
	Priority         int
	Category         *string
	OnUnknown        string
	TemplateName     *string
	TemplateLanguage *string
	Reference        *string
	Tags             map[string]string
	API              *string // marketing_messages; nil for messages
	SendAt           *time.Time
	ExpiresAt        *time.Time
	ResendOf         *uuid.UUID
	CreatedAt        time.Time
	Tries            int
	WAMID            *string
	MessageStatus    *string
	AcceptedAt       *time.Time
	SentAt           *time.Time
	DeliveredAt      *time.Time
	ReadAt           *time.Time
	PlayedAt         *time.Time
	FailedAt         *time.Time
	UnknownAt        *time.Time
	UnknownReason    *string
	SettleBy         *time.Time
	// SettleWaits is why SettleBy was put off; nil when it was not.
	SettleWaits     *string
	ErrorCode       *int
	ErrorSubcode    *int
	ErrorTitle      *string
	ErrorDetails    *string
	ErrorScope      *string
	PricingBillable *bool
	PricingModel    *string
	PricingType     *string
	PricingCategory *string
	// FallbackTemplate, FallbackLanguage are of the template that goes where the service window is closed; FallbackAt is when it
	// took the place of the message, FallbackFrom the type before. Nil without one, or while it did not.
	FallbackTemplate *string
	FallbackLanguage *string
	FallbackFrom     *string
	FallbackAt       *time.Time
	// RedactedAt is when the content was removed before its row; nil when it was not.
	RedactedAt *time.Time
	// Held is the pause that covers a waiting message, the one that ends last; nil when none does.
	Held *Held
	// Hold is what a waiting message waits for of its own; nil when it has its job.
	Hold *MessageHold
	// Lane is how the lane of a waiting message stands; nil when nothing was published of it.
	Lane *LaneStat
	// BusyLanes is how many lanes of its WABA have a backlog, and share what the WABA may send.
	BusyLanes int
	// SeenAt is the database's time of the reading.
	SeenAt time.Time
}

// MessageHold is a message's row in holds.
type MessageHold struct {
	Kind  string
	Value string
	// Until is when it is looked at again; nil: when the cause is gone.
	Until *time.Time
	Since time.Time
}

// Held is a pause that a message waits for.
type Held struct {
	Scope  string
	Value  string
	Reason string
	// Until is nil when an operator has to lift it.
	Until *time.Time
}

const messageColumns = `
	m.id, m.phone_number_id, m.waba_id, m.recipient, m.type, m.status, m.priority, m.category, m.on_unknown, m.template_name,
	m.template_language, m.reference, m.tags, m.api, m.send_at, m.expires_at, m.resend_of, m.created_at, m.try, nullif(m.wamid, '` + forgottenWAMID + `'), m.message_status,
	m.accepted_at, m.sent_at, m.delivered_at, m.read_at, m.played_at, m.failed_at, m.unknown_at, m.unknown_reason, m.settle_by, m.settle_waits,
	m.error_code, m.error_subcode, m.error_title, m.error_details, m.error_scope, m.pricing_billable, m.pricing_model,
	m.pricing_type, m.pricing_category, m.fallback_template, m.fallback_language, m.fallback_from, m.fallback_at, m.redacted_at, h.scope, h.value, h.reason, h.until, w.kind, w.value, w.until, w.since,
	` + laneColumns + `,
	CASE WHEN l.published_at IS NULL THEN 0 ELSE (
		SELECT count(*) FROM phone_numbers q JOIN lane_stats s ON s.phone_number_id = q.phone_number_id
		WHERE q.waba_id = m.waba_id AND s.urgent + s.high + s.normal + s.low > 0
	) END, clock_timestamp()`

// heldJoin finds what stands over a message that waits: the pause that ends last, its own hold, its lane. Pauses are looked
// up by scope and value, those of flows alone by their number.
const heldJoin = `
	LEFT JOIN wabas a ON a.waba_id = m.waba_id AND m.status = 'queued'
	LEFT JOIN LATERAL (
		SELECT p.scope, p.value, p.reason, p.until
		FROM (
			VALUES ('all', ''), ('waba', m.waba_id), ('phone', m.phone_number_id), ('key', m.key_id::text),
			       ('app', a.app_id),
			       ('priority', (ARRAY['urgent', 'high', 'normal', 'low'])[m.priority]),
			       ('template', m.template_name), ('template', m.waba_id || ':' || m.template_name),
			       ('template', m.template_name || '/' || m.template_language),
			       ('template', m.waba_id || ':' || m.template_name || '/' || m.template_language)
			UNION ALL SELECT 'tag', t.key FROM jsonb_each_text(m.tags) t
			UNION ALL SELECT 'tag', t.key || '=' || t.value FROM jsonb_each_text(m.tags) t
			UNION ALL
			SELECT 'flow', f.value FROM pauses f
			WHERE f.scope = 'flow' AND m.type = 'interactive'
			  AND position(convert_to('"' || CASE WHEN starts_with(f.value, m.waba_id || ':') THEN substr(f.value, length(m.waba_id) + 2) ELSE f.value END || '"', 'UTF8') IN m.body) > 0
		) AS c(scope, value)
		JOIN pauses p ON p.scope = c.scope AND p.value = c.value
		WHERE m.status = 'queued' AND (p.until IS NULL OR p.until > clock_timestamp())
		ORDER BY p.until DESC NULLS FIRST LIMIT 1
	) h ON true
	LEFT JOIN holds w ON w.message_id = m.id AND m.status = 'queued'
	LEFT JOIN lane_stats l ON l.phone_number_id = m.phone_number_id AND m.status = 'queued'`

func scanMessage(r pgx.CollectableRow) (m Message, err error) {
	var scope, value, reason *string
	var until, holdUntil, holdSince *time.Time
	var kind, cause *string
	var lane LaneStat
	err = r.Scan(&m.ID, &m.PhoneNumberID, &m.WABAID, &m.Recipient, &m.Type, &m.Status, &m.Priority, &m.Category, &m.OnUnknown, &m.TemplateName,
		&m.TemplateLanguage, &m.Reference, &m.Tags, &m.API, &m.SendAt, &m.ExpiresAt, &m.ResendOf, &m.CreatedAt, &m.Tries, &m.WAMID, &m.MessageStatus,
		&m.AcceptedAt, &m.SentAt, &m.DeliveredAt, &m.ReadAt, &m.PlayedAt, &m.FailedAt, &m.UnknownAt, &m.UnknownReason, &m.SettleBy, &m.SettleWaits,
		&m.ErrorCode, &m.ErrorSubcode, &m.ErrorTitle, &m.ErrorDetails, &m.ErrorScope, &m.PricingBillable, &m.PricingModel,
		&m.PricingType, &m.PricingCategory, &m.FallbackTemplate, &m.FallbackLanguage, &m.FallbackFrom, &m.FallbackAt, &m.RedactedAt, &scope, &value, &reason, &until, &kind, &cause, &holdUntil, &holdSince,
		&lane.AppID, &lane.Waiting[0], &lane.Waiting[1], &lane.Waiting[2], &lane.Waiting[3], &lane.PerSecond, &lane.State, &lane.WorkerID, &lane.PublishedAt, &lane.Fresh, &m.BusyLanes, &m.SeenAt)
	if scope != nil {
		m.Held = &Held{Scope: *scope, Value: *value, Reason: *reason, Until: until}
	}
	if kind != nil {
		m.Hold = &MessageHold{Kind: *kind, Value: *cause, Until: holdUntil, Since: *holdSince}
	}
	if lane.PublishedAt != nil {
		lane.PhoneNumberID, lane.WABAID = m.PhoneNumberID, m.WABAID
		m.Lane = &lane
	}
	return m, err
}

// GetMessage reads a message; ErrNotFound when there is none.
func (s *Store) GetMessage(ctx context.Context, id uuid.UUID) (Message, error) {
	all, err := collect(ctx, s.pool, "message "+id.String(), scanMessage,
		`SELECT `+messageColumns+` FROM messages m `+heldJoin+` WHERE m.id = $1::uuid`, id)
	return one(all, err, "message", id.String())
}

// LoggedEvent is a row of a message's log as it was read.
type LoggedEvent struct {
	ID     uuid.UUID
	Kind   string
	Try    *int
	WAMID  *string
	At     time.Time
	Detail json.RawMessage
}

// maxEvents bounds the answer of Events; a message has a handful.
const maxEvents = 1000

// Events reads a message's log in the order in which it was written, its first 1,000 rows.
func (s *Store) Events(ctx context.Context, id uuid.UUID) ([]LoggedEvent, error) {
	// An event is younger than its message, save for the difference between two machines' clocks: days before are pruned.
	return collect(ctx, s.pool, "the events of message "+id.String(), func(r pgx.CollectableRow) (e LoggedEvent, err error) {
		return e, r.Scan(&e.ID, &e.Kind, &e.Try, &e.WAMID, &e.At, &e.Detail)
	}, `SELECT id, kind, try, wamid, at, detail FROM message_events
		WHERE message_id = $1::uuid AND id >= wagate_uuid_floor($2::timestamptz) ORDER BY id LIMIT $3::integer`,
		id, message.TimeOf(id).Add(-time.Hour), maxEvents)
}

func notNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// Cancel ends a message that waits and of which no try is open; false when it is too late for that, and ErrNotFound
// when there is no such message. Its job finds it cancelled and ends.
func (s *Store) Cancel(ctx context.Context, id uuid.UUID, now time.Time, withdraw Withdraw) (bool, error) {
	cancelled := false
	err := s.InTx(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			UPDATE messages m SET status = 'cancelled',
				body = CASE WHEN wagate_content_ends('cancelled', m.category, m.pricing_category, $2::boolean) THEN NULL ELSE m.body END,
				redacted_at = CASE WHEN m.body IS NOT NULL AND wagate_content_ends('cancelled', m.category, m.pricing_category, $2::boolean) THEN clock_timestamp() ELSE m.redacted_at END
			WHERE m.id = $1::uuid AND m.status = 'queued' AND m.slot_at IS NULL AND m.try = 0
			RETURNING `+cancelledColumns, id, s.atFinal)
		if err != nil {
			return err
		}
		if err := withdrawLater(ctx, tx, rows, withdraw); err != nil {
			return err
		}
		if cancelled = rows.CommandTag().RowsAffected() == 1; cancelled {
			return s.InsertEvents(ctx, tx, []Event{{MessageID: id, Kind: "cancelled", At: now}})
		}
		var there bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM messages WHERE id = $1::uuid)`, id).Scan(&there); err != nil {
			return err
		}
		if !there {
			return ErrNotFound
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("cancelling message %s: %w", id, err)
	}
	return cancelled, nil
}
