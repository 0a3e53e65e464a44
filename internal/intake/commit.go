package intake

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/batch"
	"wagate/internal/queue"
	"wagate/internal/store"
)

// flushDirect commits a set of a batch request, at most a few at once.
func (in *Intake) flushDirect(ctx context.Context, set []*store.NewMessage) ([]batch.Result[store.Acceptance], error) {
	wait, cancel := context.WithTimeout(ctx, acceptTime)
	defer cancel()
	select {
	case in.direct <- struct{}{}:
		defer func() { <-in.direct }()
		// From here on the outcome is waited for, whoever has gone, as with the groups.
		return in.flush(context.WithoutCancel(ctx), set)
	case <-wait.Done():
		return nil, unavailable(wait.Err())
	}
}

// flush stores a set. When its transaction fails for a reason of one of its members, the set is halved until that
// member stands alone, so that no request fails for another.
func (in *Intake) flush(ctx context.Context, set []*store.NewMessage) ([]batch.Result[store.Acceptance], error) {
	if wait := in.disk.enter(in.now()); wait > 0 {
		return nil, diskShort(wait)
	}
	answers, err := in.commit(ctx, set)
	in.disk.left(in.now(), err)
	results := make([]batch.Result[store.Acceptance], len(set))
	switch {
	case err == nil:
		for i, a := range answers {
			results[i].Out = a
		}
		return results, nil
	case store.Unavailable(err):
		in.logger.WarnContext(ctx, "accept: database not available", "messages", len(set), "error", err)
		return nil, unavailable(err)
	case len(set) > 1:
		half := len(set) / 2
		for _, part := range []struct{ at, end int }{{0, half}, {half, len(set)}} {
			answers, err := in.flush(ctx, set[part.at:part.end])
			for i := part.at; i < part.end; i++ {
				if err != nil {
					results[i].Err = err
				} else {
					results[i] = answers[i-part.at]
				}
			}
		}
		return results, nil
	case errors.Is(err, store.ErrPhoneGone):
		in.backlog.gone(set[0].PhoneNumberID)
		return nil, unknownPhone()
	case errors.Is(err, store.ErrMediaGone):
		return nil, mediaGone()
	default:
		in.logger.ErrorContext(ctx, "accept: message could not be stored", "error", err)
		return nil, err
	}
}

// commit stores the messages and the jobs of the new ones in one transaction.
func (in *Intake) commit(ctx context.Context, set []*store.NewMessage) (answers []store.Acceptance, err error) {
	in.sizes.Observe(float64(len(set)))
	ctx, cancel := context.WithTimeout(ctx, commitTime)
	defer cancel()
	messages := make([]store.NewMessage, len(set))
	for i, m := range set {
		messages[i] = *m
	}
	err = in.store.InTxWithin(ctx, connectionWait, func(tx pgx.Tx) error {
		answers, err = in.store.Accept(ctx, tx, messages)
		if err != nil {
			return err
		}
		fresh := make([]incoming, 0, len(messages))
		for i, m := range messages {
			if answers[i].Verdict == store.Stored {
				fresh = append(fresh, incoming{m.ID, m.PhoneNumberID, m.Priority, m.KeyID, due(m.ID, m.CreatedAt, m.SendAt, m.SendWindow)})
			}
		}
		return in.putIn(ctx, tx, fresh)
	})
	return answers, err
}

// incoming is a message that gets a job.
type incoming struct {
	id       uuid.UUID
	phone    string
	priority int
	keyID    uuid.UUID
	due      time.Time // zero for at once
}

// putIn puts the jobs of messages in: those for later at their time, the others where their key's turn is.
func (in *Intake) putIn(ctx context.Context, tx pgx.Tx, messages []incoming) error {
	var at []queue.HeadOf
	for _, m := range messages {
		if h := (queue.HeadOf{PhoneNumberID: m.phone, Priority: m.priority}); m.due.IsZero() && (len(at) == 0 || at[len(at)-1] != h) {
			at = append(at, h)
		}
	}
	slices.SortFunc(at, func(a, b queue.HeadOf) int {
		return cmp.Or(strings.Compare(a.PhoneNumberID, b.PhoneNumberID), a.Priority-b.Priority)
	})
	if look := in.turns.stale(in.now(), slices.Compact(at)); len(look) > 0 {
		heads, now, err := in.jobs.Heads(ctx, tx, look)
		if err != nil {
			return err
		}
		in.turns.read(in.now(), look, heads, now)
	}
	sends := make([]queue.Send, len(messages))
	for i, m := range messages {
		sends[i] = queue.Send{MessageID: m.id, PhoneNumberID: m.phone, Priority: m.priority, At: m.due}
		if m.due.IsZero() {
			sends[i].Place, sends[i].Wake = in.turns.place(queue.HeadOf{PhoneNumberID: m.phone, Priority: m.priority}, m.keyID), true
		}
	}
	return in.jobs.Insert(ctx, tx, sends)
}
