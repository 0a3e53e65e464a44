package webhook

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"wagate/internal/cloudapi"
	"wagate/internal/policy"
	"wagate/internal/queue"
	"wagate/internal/store"
)

// react asks the policy what follows from a failure that a webhook tells of.
func react(f store.Failure, now time.Time) policy.Reaction {
	return policy.React(policy.Input{
		Code: f.Error.Code, Webhook: true, Category: f.Category, ByLink: f.ByLink,
		OurMedia: f.OurMedia, NoMedia: cloudapi.NoMedia(f.Error.Code, f.Error.Title, f.Error.Details),
		Redos: f.Redos, Throttles: f.Throttles, Retries: f.Retries, ExpiresAt: f.ExpiresAt, Fallback: f.Fallback, Now: now,
	})
}

func decide(f store.Failure) store.NewTry {
	re := react(f, time.Now())
	return store.NewTry{Again: re.Message == policy.Again, Wait: re.Wait, Fallback: re.Fallback}
}

// followFailures does what the table asks for beyond the messages that failed, and puts in the jobs of those that are sent
// again.
func (r *Receiver) followFailures(ctx context.Context, tx pgx.Tx, applied store.Applied) (unknown int, err error) {
	now := time.Now()
	wanted := pauses{}
	var suppress []store.Suppression
	for i := range applied.Failures {
		f := &applied.Failures[i]
		re := react(*f, now)
		if !re.Known {
			unknown++
		}
		if re.Suppress != 0 {
			s := store.Suppression{WABAID: f.WABAID, WAID: f.User, Category: marketing, Source: store.FromMeta, Reason: clean(f.Error.Title), Code: f.Error.Code, SaidAt: f.At}
			if re.Suppress > 0 {
				until := now.Add(re.Suppress)
				s.Until = &until
			}
			suppress = append(suppress, s)
		}
		wanted.add(scoped{waba: f.WABAID, phone: f.PhoneNumberID, failure: f}, re, f.Error.Code, f.Error.Title, f.At, now)
	}
	if err := r.keepPauses(ctx, tx, wanted); err != nil {
		return unknown, err
	}
	if err := r.deps.Store.PutSuppressions(ctx, tx, suppress); err != nil {
		return unknown, err
	}
	users := make([]string, len(suppress))
	for i, s := range suppress {
		users[i] = s.WAID
	}
	if err := r.deps.Store.FollowSuppressions(ctx, tx, users); err != nil {
		return unknown, err
	}
	if err := r.renewMedia(ctx, tx, applied.Redos, now); err != nil {
		return unknown, err
	}
	if len(applied.Redos) == 0 || r.deps.Jobs == nil {
		return unknown, nil
	}
	sends := make([]queue.Send, 0, len(applied.Redos))
	for _, f := range applied.Redos {
		if f.Waits {
			continue
		}
		send := queue.Send{MessageID: f.ID, PhoneNumberID: f.PhoneNumberID, Priority: f.Priority}
		if f.Wait > 0 {
			send.At = now.Add(f.Wait)
		}
		sends = append(sends, send)
	}
	return unknown, r.deps.Jobs.Insert(ctx, tx, sends)
}

// renewMedia has the media of ours put up once more of messages that are sent again because Meta could not use them.
func (r *Receiver) renewMedia(ctx context.Context, tx pgx.Tx, redos []store.Redo, now time.Time) error {
	var set []store.Renewal
	for i := range redos {
		f := &redos[i].Failure
		if !react(*f, now).Refresh {
			continue
		}
		tried := f.TriedAt
		if tried.IsZero() {
			tried = f.At
		}
		set = append(set, store.Renewal{MessageID: f.ID, PhoneNumberID: f.PhoneNumberID, TriedAt: tried})
	}
	if len(set) == 0 {
		return nil
	}
	_, err := r.deps.Store.RenewMedia(ctx, tx, set)
	return err
}

// followErrors heeds errors that belong to no message.
func (r *Receiver) followErrors(ctx context.Context, tx pgx.Tx, all []payload) (unknown int, err error) {
	now := time.Now()
	wanted := pauses{}
	for i := range all {
		for _, of := range all[i].notices.errors {
			for _, e := range of.errs {
				re := policy.React(policy.Input{Code: e.Code, Subcode: e.Subcode, Webhook: true, Now: now})
				if !re.Known {
					unknown++
				}
				title := e.Title
				if title == "" {
					title = e.Message
				}
				wanted.add(scoped{waba: of.waba, phone: of.phone}, re, e.Code, title, of.at, now)
			}
		}
	}
	return unknown, r.keepPauses(ctx, tx, wanted)
}
