package account

import (
	"context"
	"time"
)

// Next is one round of Run, at a time.
func (r *Reader) Next(ctx context.Context, now time.Time) {
	r.now = func() time.Time { return now }
	r.next(ctx)
}
