package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Expire ends up to limit messages that still wait and whose expires_at lies in (since, until], in a lane that is paused
// or closed too. It gives how many it ended. Their jobs find them ended.
func (s *Store) Expire(ctx context.Context, since, until time.Time, limit int) (int, error) {
	ended := 0
	err := s.InTx(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			WITH due AS (
				SELECT id, try FROM messages
				WHERE expires_at > $1::timestamptz AND expires_at <= $2::timestamptz AND status = 'queued' AND slot_at IS NULL
				ORDER BY expires_at LIMIT $3::integer FOR NO KEY UPDATE SKIP LOCKED
			)
			UPDATE messages m SET status = 'expired',
				body = CASE WHEN wagate_content_ends('expired', m.category, m.pricing_category, $4::boolean) THEN NULL ELSE m.body END,
				redacted_at = CASE WHEN m.body IS NOT NULL AND wagate_content_ends('expired', m.category, m.pricing_category, $4::boolean) THEN clock_timestamp() ELSE m.redacted_at END
			FROM due WHERE m.id = due.id AND m.status = 'queued' AND m.slot_at IS NULL
			RETURNING m.id, m.try, m.expires_at`, since, until, limit, s.atFinal)
		if err != nil {
			return err
		}
		events, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (e Event, err error) {
			e.Kind, e.Detail = "expired", map[string]any{"by": "sweep"}
			return e, r.Scan(&e.MessageID, &e.Try, &e.At)
		})
		if err != nil {
			return err
		}
		ended = len(events)
		return s.InsertEvents(ctx, tx, events)
	})
	if err != nil {
		return 0, fmt.Errorf("ending expired messages: %w", err)
	}
	return ended, nil
}

// Settled is what was decided of a message whose try had no known outcome by its deadline.
type Settled struct {
	ID            uuid.UUID
	PhoneNumberID string
	Priority      int
	Try           int
	// OnUnknown is hold, resend or fail; empty for a message that was settled otherwise meanwhile, or is put off.
	OnUnknown string
	// Waits is why the deadline was put off; empty when it was not.
	Waits string
	// Told says that the message had been put off for the same reason before.
	Told bool
	// At is when it was decided, by the database.
	At time.Time
}

// Patience is how deadlines of unknown tries are looked at.
type Patience struct {
	// WorkerID is who asks: messages whose WABA another living worker owns are left to that one.
	WorkerID string
	// After is how long an unknown try waits for a webhook.
	After time.Duration
	// Grace is how long after its deadline a message is looked at first: what was received by then is committed.
	Grace time.Duration
	// Accepted says when, in database time, the newest message of a phone number was accepted whose webhooks should have
	// come by now.
	Accepted map[string]time.Time
	// Limit bounds how many messages are looked at.
	Limit int
}

const (
	// silentPatience bounds, in times of Patience.After, how long a deadline is put off while the webhooks of a phone number
	// do not arrive.
	silentPatience = `5`
	// heldPatience bounds it while Meta holds messages of the template, and in any case: above an hour at the preset of a
	// minute, as Meta says that it lets 99 % of held messages go within that. Source: Meta's page on template pacing.
	heldPatience = `70`
	// maxResends is how often resend is decided for one message: a Cloud API that answers every try with an error of its own
	// must not make it go out for ever.
	maxResends = `2`
)

// SettleUnknown decides unknown messages whose deadline has passed, each by its own policy: hold leaves it unknown, on the
// operators' list; fail ends it; resend lets it wait again, twice at most, and the caller puts its job in within the same
// transaction.
//
// Where resend or fail would be decided without evidence the deadline is put off, for as long as silentPatience and
// heldPatience say: notifications received before the deadline are not applied yet; nothing was heard of the phone number
// since the outcome was unknown, or since other messages were accepted; that has just ended, as Meta posts again what was
// refused meanwhile at growing intervals, and what is new comes first; or Meta is holding messages of the same template.
func (s *Store) SettleUnknown(ctx context.Context, tx pgx.Tx, p Patience) ([]Settled, error) {
	phones, accepted := make([]string, 0, len(p.Accepted)), make([]time.Time, 0, len(p.Accepted))
	for phone, at := range p.Accepted {
		phones, accepted = append(phones, phone), append(accepted, at)
	}
	rows, err := tx.Query(ctx, `
		WITH due AS (
			SELECT m.id, p.policy, m.settle_waits AS waited, CASE
				WHEN m.status <> 'unknown' OR p.policy = 'hold' OR m.unknown_at + $3::double precision * `+heldPatience+` * interval '1 second' < clock_timestamp() THEN ''
				WHEN EXISTS (
					SELECT FROM held_by_meta h WHERE h.phone_number_id = m.phone_number_id AND h.template_name = coalesce(m.template_name, '')
					  AND h.at > clock_timestamp() - $3::double precision * `+heldPatience+` * interval '1 second'
				) THEN 'held_by_meta'
				WHEN w.received_at <= now() - $5::double precision * interval '1 second' THEN 'webhooks_waiting'
				WHEN m.unknown_at + $3::double precision * `+silentPatience+` * interval '1 second' < clock_timestamp() THEN ''
				WHEN h.heard_at IS NULL OR h.heard_at < greatest(m.unknown_at, a.at) THEN 'webhooks_silent'
				WHEN m.settle_waits = 'webhooks_silent' THEN 'webhooks_late'
				ELSE '' END AS waits
			FROM messages m
			CROSS JOIN LATERAL (
				SELECT CASE WHEN m.on_unknown = 'resend' AND m.settle_resends >= `+maxResends+` THEN 'hold' ELSE m.on_unknown END AS policy
			) p
			LEFT JOIN phone_hearings h ON h.phone_number_id = m.phone_number_id
			LEFT JOIN unnest($4::text[], $6::timestamptz[]) AS a(phone, at) ON a.phone = m.phone_number_id
			CROSS JOIN (
				SELECT (SELECT r.received_at FROM webhook_raw r WHERE r.processed_at IS NULL AND (r.attempts = 0 OR r.error IS NULL OR NOT starts_with(r.error, '`+ProblemUnmatched+`')) ORDER BY r.id LIMIT 1) AS received_at
			) w
			WHERE m.settle_by <= now() - $5::double precision * interval '1 second'
			  AND NOT EXISTS (
				SELECT FROM leases l WHERE l.waba_id = m.waba_id AND l.worker_id NOT IN ('', $2::text) AND l.expires_at > clock_timestamp())
			ORDER BY m.settle_by LIMIT $1::integer FOR UPDATE OF m SKIP LOCKED
		)
		UPDATE messages m SET
			settle_by = CASE due.waits WHEN '' THEN NULL WHEN 'webhooks_late' THEN clock_timestamp() + $3::double precision * interval '1 second'
				ELSE clock_timestamp() + greatest($3::double precision / 4, 0.5) * interval '1 second' END,
			settle_waits = nullif(due.waits, ''),
			status = CASE WHEN m.status <> 'unknown' OR due.waits <> '' THEN m.status
			              WHEN due.policy = 'fail' THEN 'failed' WHEN due.policy = 'resend' THEN 'queued' ELSE m.status END,
			body = CASE WHEN m.status = 'unknown' AND due.waits = '' AND due.policy = 'fail' AND wagate_content_ends('failed', m.category, m.pricing_category, $7::boolean) THEN NULL ELSE m.body END,
			redacted_at = CASE WHEN m.status = 'unknown' AND due.waits = '' AND due.policy = 'fail' AND wagate_content_ends('failed', m.category, m.pricing_category, $7::boolean) THEN clock_timestamp() ELSE m.redacted_at END,
			settle_resends = m.settle_resends + CASE WHEN m.status = 'unknown' AND due.waits = '' AND due.policy = 'resend' THEN 1 ELSE 0 END,
			failed_at = CASE WHEN m.status = 'unknown' AND due.waits = '' AND due.policy = 'fail' THEN clock_timestamp() ELSE m.failed_at END,
			error_scope = CASE WHEN m.status = 'unknown' AND due.waits = '' AND due.policy = 'fail' THEN 'message' ELSE m.error_scope END,
			error_title = CASE WHEN m.status = 'unknown' AND due.waits = '' AND due.policy = 'fail' THEN 'Outcome unknown at the deadline' ELSE m.error_title END
		FROM due WHERE m.id = due.id AND m.settle_by IS NOT NULL
		RETURNING m.id, m.phone_number_id, m.priority, m.try,
		          CASE WHEN due.waits = '' AND m.status IN ('unknown', 'failed', 'queued') THEN due.policy ELSE '' END,
		          due.waits, due.waits = coalesce(due.waited, ''), now()`, p.Limit, p.WorkerID, p.After.Seconds(), phones, p.Grace.Seconds(), accepted, s.atFinal)
	if err != nil {
		return nil, fmt.Errorf("settling unknown messages: %w", err)
	}
	settled, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Settled])
	if err != nil {
		return nil, fmt.Errorf("settling unknown messages: %w", err)
	}
	events := make([]Event, 0, len(settled))
	for _, m := range settled {
		switch {
		case m.OnUnknown != "":
			events = append(events, Event{MessageID: m.ID, Kind: "settled", Try: m.Try, At: m.At, Detail: map[string]any{"as": m.OnUnknown, "by": "deadline"}})
		case m.Waits != "" && !m.Told:
			events = append(events, Event{MessageID: m.ID, Kind: "settle_put_off", Try: m.Try, At: m.At, Detail: map[string]any{"waits": m.Waits}})
		}
	}
	return settled, s.InsertEvents(ctx, tx, events)
}
