package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// PairState is what a recipient has used of its burst at a phone number, where that is more than half.
type PairState struct {
	PhoneNumberID string
	User          string
	// TAT is when its bucket is full again, in database time.
	TAT time.Time
}

// PairStates lists the recipients of the given phone numbers whose buckets are not full again, for a new owner.
func (s *Store) PairStates(ctx context.Context, phoneNumberIDs []string) ([]PairState, error) {
	return collect(ctx, s.pool, "pair states", pgx.RowToStructByPos[PairState], `
		SELECT phone_number_id, recipient, tat FROM pair_states
		WHERE phone_number_id = ANY($1::text[]) AND tat > clock_timestamp()`, phoneNumberIDs)
}

// SweepPairStates removes up to limit states that say nothing any more and returns how many.
func (s *Store) SweepPairStates(ctx context.Context, limit int) (int64, error) {
	tag, err := s.pool.Exec(ctx, `
		DELETE FROM pair_states p USING (
			SELECT phone_number_id, recipient FROM pair_states WHERE tat <= clock_timestamp()
			ORDER BY tat LIMIT $1::integer FOR UPDATE SKIP LOCKED
		) old WHERE p.phone_number_id = old.phone_number_id AND p.recipient = old.recipient`, limit)
	if err != nil {
		return 0, fmt.Errorf("removing old pair states: %w", err)
	}
	return tag.RowsAffected(), nil
}
