package intake

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// Count moves the counts on at once, as the ticker does.
func (in *Intake) Count(ctx context.Context) { in.count(ctx, time.Minute) }

// Due is when the job of a message may run first.
func Due(id uuid.UUID, created, sendAt time.Time, window string) time.Time {
	return due(id, created, sendAt, window)
}
