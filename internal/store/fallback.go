package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Why a fallback template goes.
const (
	// FallbackChecked: the gateway knew the service window to be closed.
	FallbackChecked = "window_check"
	// FallbackRefused: Meta refused the message with 131047.
	FallbackRefused = "meta"
)

// UseFallbacks makes waiting messages into their fallback templates: type, template and category are the template's from then on,
// so that reports and suppressions take them for what goes out. The category is what the caller has said of the fallback, else the
// known template's; where nobody knows, one that asks for care stays the message's. Their priority stays: they have waited by it. A message whose
// fallback is used, or that has none, is left as it is. It returns the ids of those it changed.
func (s *Store) UseFallbacks(ctx context.Context, tx pgx.Tx, ids []uuid.UUID, why string, now time.Time) (map[uuid.UUID]bool, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	lo, hi := bounds(ids)
	rows, err := tx.Query(ctx, `
		WITH cur AS (
			SELECT m.id FROM messages m
			WHERE m.id = ANY($1::uuid[]) AND m.id BETWEEN $2::uuid AND $3::uuid AND m.status = 'queued' AND m.fallback_template IS NOT NULL AND m.fallback_at IS NULL
			ORDER BY m.id FOR NO KEY UPDATE
		)
		UPDATE messages m SET fallback_at = clock_timestamp(), fallback_from = m.type, type = 'template', template_name = m.fallback_template,
			template_language = m.fallback_language, category = coalesce(m.fallback_category, (
				SELECT lower(t.category) FROM templates t
				WHERE t.waba_id = m.waba_id AND t.name = m.fallback_template AND t.language = m.fallback_language AND t.category IN ('AUTHENTICATION', 'UTILITY', 'MARKETING')
			), CASE WHEN m.category IN ('authentication', 'marketing') THEN m.category END)
		FROM cur WHERE m.id = cur.id AND m.id = ANY($1::uuid[]) AND m.id BETWEEN $2::uuid AND $3::uuid
		RETURNING m.id, m.try, m.fallback_from, m.template_name`, ids, lo, hi)
	if err != nil {
		return nil, fmt.Errorf("using the fallbacks of %d messages: %w", len(ids), err)
	}
	changed := make(map[uuid.UUID]bool, len(ids))
	var events []Event
	var id uuid.UUID
	var try int
	var from, template string
	_, err = pgx.ForEachRow(rows, []any{&id, &try, &from, &template}, func() error {
		changed[id] = true
		events = append(events, Event{MessageID: id, Kind: "fallback", Try: try, At: now, Detail: map[string]any{"by": why, "from": from, "template": template}})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("using the fallbacks of %d messages: %w", len(ids), err)
	}
	return changed, s.InsertEvents(ctx, tx, events)
}
