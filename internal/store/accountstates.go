package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// AccountState is Meta's newest word on a topic of a WABA or phone number.
type AccountState struct {
	// Scope is waba or phone, Value its id.
	Scope string
	Value string
	// Topic is ban, review or restriction of a WABA; quality, throughput or name of a phone number.
	Topic string
	Word  string
	// Until is when the word ends by itself; nil when it does not.
	Until *time.Time
	// At is Meta's time of it.
	At time.Time
	// WebhookID is the notification that said it.
	WebhookID uuid.UUID
}

// NoteState keeps a word and says whether it is Meta's newest on its topic, so that it has effect: not an older one that
// comes late, nor the same again, which Meta may post for a week after somebody has overruled it. Of two words of the same
// second the one that sorts first counts, whatever their order: DISABLE before REINSTATE. The same notification, applied
// again because an operator asks for it, has its effect again.
func (s *Store) NoteState(ctx context.Context, tx pgx.Tx, a AccountState) (newest bool, err error) {
	tag, err := tx.Exec(ctx, `
		INSERT INTO account_states AS s (scope, value, topic, word, until, at, webhook_id)
		VALUES ($1::text, $2::text, $3::text, $4::text, $5::timestamptz, $6::timestamptz, $7::uuid)
		ON CONFLICT (scope, value, topic) DO UPDATE
		SET word = excluded.word, until = excluded.until, at = greatest(s.at, excluded.at), webhook_id = excluded.webhook_id
		WHERE s.at < excluded.at OR (s.at = excluded.at AND s.word > excluded.word)
		   OR (s.word = excluded.word AND s.webhook_id = excluded.webhook_id)`,
		a.Scope, a.Value, a.Topic, a.Word, a.Until, a.At, a.WebhookID)
	if err != nil {
		return false, fmt.Errorf("noting what Meta says of %s %s: %w", a.Scope, a.Value, err)
	}
	return tag.RowsAffected() > 0, nil
}

const statesSQL = `
	SELECT scope, value, topic, word, until, at, webhook_id FROM account_states
	WHERE scope = $1::text AND value = $2::text ORDER BY topic`

// AccountStates reads what Meta said last of a WABA (scope waba) or a phone number (scope phone), by topic.
func (s *Store) AccountStates(ctx context.Context, scope, value string) ([]AccountState, error) {
	return collect(ctx, s.pool, "what Meta says of "+scope+" "+value, pgx.RowToStructByPos[AccountState], statesSQL, scope, value)
}

// LockedAccountStates is AccountStates in a transaction that has the scope's throttle locked (LockThrottle).
func (s *Store) LockedAccountStates(ctx context.Context, tx pgx.Tx, scope, value string) ([]AccountState, error) {
	rows, err := tx.Query(ctx, statesSQL, scope, value)
	if err != nil {
		return nil, fmt.Errorf("reading what Meta says of %s %s: %w", scope, value, err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[AccountState])
}
