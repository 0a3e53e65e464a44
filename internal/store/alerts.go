package store

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// alertsKept is how long alerts are kept.
const alertsKept = `90 days`

// Alert is a notice of Meta about an account.
type Alert struct {
	// ID is AlertID's.
	ID uuid.UUID
	// At is Meta's time, or that of the first receipt where the notice has none.
	At     time.Time
	WABAID string
	// PhoneNumberID is empty where the notice names no phone number, or one that is not here.
	PhoneNumberID string
	// DisplayPhoneNumber is what a notice calls it by.
	DisplayPhoneNumber string
	Field              string
	Event              string
	// Severity is 0 info, 1 warning, 2 critical.
	Severity int16
	// Detail may be empty; its texts hold no NUL.
	Detail map[string]string
	// WebhookID is the notification that told it first.
	WebhookID uuid.UUID
}

// AlertID names a notice by what it says: posted again it is the same one. A notice without a time of its own is told from
// a repetition by the UTC day of its receipt.
func AlertID(wabaID, field string, at time.Time, timed bool, value []byte) (id uuid.UUID) {
	stamp := at.UTC().Format("2006-01-02")
	if timed {
		stamp = at.UTC().Format(time.RFC3339)
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %s ", wabaID, field, stamp)
	h.Write(value)
	copy(id[:], h.Sum(nil))
	return id
}

// PutAlerts keeps alerts and gives the ids of those that were not known. A phone number that is named by its display number
// is looked up. Rows are written in the order of their ids.
func (s *Store) PutAlerts(ctx context.Context, tx pgx.Tx, alerts []Alert) (fresh map[uuid.UUID]bool, err error) {
	fresh = map[uuid.UUID]bool{}
	n := len(alerts)
	if n == 0 {
		return fresh, nil
	}
	ids, at, webhooks, severities := make([]uuid.UUID, n), make([]time.Time, n), make([]uuid.UUID, n), make([]int16, n)
	wabas, phones, shown, fields, events := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	details := make([]*string, n)
	for i, a := range alerts {
		ids[i], at[i], webhooks[i], severities[i] = a.ID, a.At, a.WebhookID, a.Severity
		wabas[i], phones[i], shown[i], fields[i], events[i] = a.WABAID, a.PhoneNumberID, a.DisplayPhoneNumber, a.Field, a.Event
		if len(a.Detail) > 0 {
			raw, err := json.Marshal(a.Detail)
			if err != nil {
				return nil, fmt.Errorf("encoding an alert of WABA %s: %w", a.WABAID, err)
			}
			text := string(raw)
			details[i] = &text
		}
	}
	rows, err := tx.Query(ctx, `
		INSERT INTO account_alerts AS a (id, at, waba_id, phone_number_id, display_phone_number, field, event, severity, detail, webhook_id)
		SELECT DISTINCT ON (u.id) u.id, u.at, u.waba, coalesce(nullif(u.phone, ''), (
		           SELECT min(p.phone_number_id) FROM phone_numbers p
		           WHERE p.waba_id = u.waba AND regexp_replace(p.display_phone_number, '[^0-9]', '', 'g') = nullif(regexp_replace(u.shown, '[^0-9]', '', 'g'), ''))),
		       nullif(u.shown, ''), u.field, u.event, u.severity, u.detail::jsonb, u.webhook
		FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::smallint[], $9::text[], $10::uuid[])
		     AS u(id, at, waba, phone, shown, field, event, severity, detail, webhook)
		ORDER BY u.id, u.at
		ON CONFLICT (id) DO UPDATE SET at = excluded.at, webhook_id = excluded.webhook_id WHERE a.at > excluded.at
		RETURNING id, xmax = 0`, ids, at, wabas, phones, shown, fields, events, severities, details, webhooks)
	if err != nil {
		return nil, fmt.Errorf("keeping %d alerts: %w", n, err)
	}
	var id uuid.UUID
	var made bool
	_, err = pgx.ForEachRow(rows, []any{&id, &made}, func() error {
		if made {
			fresh[id] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("keeping %d alerts: %w", n, err)
	}
	return fresh, nil
}

// AlertFilter picks alerts. Zero fields pick all.
type AlertFilter struct {
	WABAID        string
	PhoneNumberID string
	Field         string
	// Severity is the least.
	Severity int16
	// Since and Until bound the time: [Since, Until).
	Since time.Time
	Until time.Time
	// BeforeAt and BeforeID are where the page before ended; the answer goes on with older ones.
	BeforeAt time.Time
	BeforeID uuid.UUID
	// Limit is 1 or more.
	Limit int
}

// ListAlerts reads alerts, newest first.
func (s *Store) ListAlerts(ctx context.Context, f AlertFilter) ([]Alert, error) {
	return collect(ctx, s.pool, "alerts", func(r pgx.CollectableRow) (a Alert, err error) {
		var phone, shown *string
		var detail []byte
		if err := r.Scan(&a.ID, &a.At, &a.WABAID, &phone, &shown, &a.Field, &a.Event, &a.Severity, &detail, &a.WebhookID); err != nil {
			return a, err
		}
		if phone != nil {
			a.PhoneNumberID = *phone
		}
		if shown != nil {
			a.DisplayPhoneNumber = *shown
		}
		if len(detail) > 0 {
			err = json.Unmarshal(detail, &a.Detail)
		}
		return a, err
	}, `
		SELECT id, at, waba_id, phone_number_id, display_phone_number, field, event, severity, detail, webhook_id FROM account_alerts
		WHERE ($1::text = '' OR waba_id = $1::text) AND ($2::text = '' OR phone_number_id = $2::text) AND ($3::text = '' OR field = $3::text)
		  AND severity >= $4::smallint AND ($5::timestamptz IS NULL OR at >= $5::timestamptz) AND ($6::timestamptz IS NULL OR at < $6::timestamptz)
		  AND ($7::timestamptz IS NULL OR (at, id) < ($7::timestamptz, $8::uuid))
		ORDER BY at DESC, id DESC LIMIT $9::integer`,
		f.WABAID, f.PhoneNumberID, f.Field, f.Severity, orNoTime(f.Since), orNoTime(f.Until), orNoTime(f.BeforeAt), f.BeforeID, f.Limit)
}

func orNoTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// SweepAccountNews removes up to limit alerts that are older than 90 days, and changes of numbers that concern no window any
// more.
func (s *Store) SweepAccountNews(ctx context.Context, limit int) error {
	_, err := s.pool.Exec(ctx, `
		WITH gone AS (
			DELETE FROM number_changes WHERE at < clock_timestamp() - interval '2 days'
		)
		DELETE FROM account_alerts a USING (
			SELECT id FROM account_alerts WHERE at < clock_timestamp() - interval '`+alertsKept+`' ORDER BY at LIMIT $1::integer FOR UPDATE SKIP LOCKED
		) old WHERE a.id = old.id`, limit)
	if err != nil {
		return fmt.Errorf("removing old alerts: %w", err)
	}
	return nil
}
