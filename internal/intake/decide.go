package intake

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/cloudapi"
	"wagate/internal/message"
	"wagate/internal/queue"
	"wagate/internal/store"
)

// own reads a message that the caller may use; store.ErrNotFound for any other.
func (in *Intake) own(ctx context.Context, c Caller, id uuid.UUID) (store.Message, error) {
	m, err := in.store.GetMessage(ctx, id)
	if err == nil && !c.mayUse(m.PhoneNumberID) {
		return store.Message{}, store.ErrNotFound
	}
	return m, err
}

// Settle decides an unknown message and gives it as it is then. A message that is to be sent again gets its job in the
// same transaction. Errors, wrapped: store.ErrNotFound, also for a phone number that is not the caller's;
// *store.WrongStatusError; store.ErrBodyGone and store.ErrPhoneGone when it cannot be sent again.
func (in *Intake) Settle(ctx context.Context, c Caller, id uuid.UUID, as store.Decision) (store.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, acceptTime)
	defer cancel()
	m, err := in.own(ctx, c, id)
	if err != nil {
		return store.Message{}, err
	}
	err = in.store.InTxWithin(ctx, connectionWait, func(tx pgx.Tx) error {
		again, err := in.store.Settle(ctx, tx, id, as, in.now())
		if err != nil || as != store.DecideResend {
			return err
		}
		return in.putAgain(ctx, tx, c, again)
	})
	if err != nil {
		return store.Message{}, err
	}
	if as == store.DecideResend {
		in.backlog.add(m.PhoneNumberID, m.Priority)
	}
	return in.store.GetMessage(ctx, id)
}

// Cancel ends a message that waits and of which no try was begun; false when it is too late for that.
func (in *Intake) Cancel(ctx context.Context, id uuid.UUID) (bool, error) {
	return in.store.Cancel(ctx, id, in.now(), in.withdraw)
}

// CancelMany ends the waiting messages that a filter picks, as long as within allows; more says that some may be left.
func (in *Intake) CancelMany(ctx context.Context, f store.CancelFilter, within time.Duration) (cancelled int, more bool, err error) {
	return in.store.CancelMany(ctx, f, in.now(), within, in.withdraw)
}

func (in *Intake) withdraw(ctx context.Context, tx pgx.Tx, later []store.Again) error {
	var sends []queue.Send
	for _, a := range later {
		if at := due(a.ID, a.CreatedAt, a.SendAt, a.SendWindow); !at.IsZero() {
			sends = append(sends, queue.Send{MessageID: a.ID, PhoneNumberID: a.PhoneNumberID, Priority: a.Priority, At: at})
		}
	}
	return in.jobs.Withdraw(ctx, tx, sends)
}

// Resend makes a new message of one that failed, expired or was cancelled, and its job. An idempotency key works as for
// Accept; without one, every call makes a message. Errors are those of Settle, store.ErrMediaGone where a media that it names was
// deleted, and *Error for the idempotency key.
func (in *Intake) Resend(ctx context.Context, c Caller, id uuid.UUID, idempotencyKeyHeader string) (Accepted, error) {
	ctx, cancel := context.WithTimeout(ctx, acceptTime)
	defer cancel()
	key, fault := idempotencyKey(idempotencyKeyHeader, "")
	if fault != nil {
		return in.answer(nil, store.Acceptance{}, time.Time{}, &Error{Kind: Invalid, Faults: []cloudapi.Fault{*fault}})
	}
	old, err := in.own(ctx, c, id)
	if err != nil {
		return Accepted{}, err
	}
	created := in.now().UTC().Truncate(time.Microsecond)
	hash := sha256.Sum256([]byte("resend " + id.String())) // no body of a message reads like that
	r := store.Resend{
		Of: id, ID: message.NewID(created), CreatedAt: created, KeyID: c.KeyID, Owner: c.Owner, IdempotencyKey: key, RequestHash: hash[:],
	}
	var a store.Acceptance
	var at time.Time
	err = in.store.InTxWithin(ctx, connectionWait, func(tx pgx.Tx) (err error) {
		var again store.Again
		if a, again, err = in.store.Resend(ctx, tx, r); err != nil || a.Verdict != store.Stored {
			return err
		}
		if err := in.useMediaAgain(ctx, tx, again.ID); err != nil {
			return err
		}
		at = opening(again.CreatedAt, again.SendAt, again.SendWindow)
		return in.putAgain(ctx, tx, c, again)
	})
	if err != nil {
		return Accepted{}, err
	}
	if a.Verdict == store.Stored {
		in.backlog.add(old.PhoneNumberID, old.Priority)
	}
	m := store.NewMessage{PhoneNumberID: old.PhoneNumberID, Recipient: old.Recipient}
	if old.SendAt != nil {
		m.SendAt = old.SendAt.UTC() // one that has passed counts for nothing in the answer
	}
	return in.answer(&m, a, at, nil)
}

// putAgain puts the job of a message in that waits again; the caller's turns are taken.
func (in *Intake) putAgain(ctx context.Context, tx pgx.Tx, c Caller, m store.Again) error {
	i := incoming{id: m.ID, phone: m.PhoneNumberID, priority: m.Priority, keyID: c.KeyID}
	if !m.CreatedAt.IsZero() {
		i.due = due(m.ID, m.CreatedAt, m.SendAt, m.SendWindow)
	}
	return in.putIn(ctx, tx, []incoming{i})
}
