package webhook

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"wagate/internal/cloudapi"
	"wagate/internal/store"
)

// wish is what a user says of marketing, to a WABA.
type wish struct {
	waba, user, source string
	stop               bool
	at                 time.Time
}

// followConsent keeps who wants no marketing any more, and who wants it again, by the preferences in WhatsApp and by keywords.
// Of the words of a set the last counts, and of two at the same moment the stop; the store does the same with those of before.
func (r *Receiver) followConsent(ctx context.Context, tx pgx.Tx, told []payload) error {
	type of struct{ waba, user, source string }
	last := map[of]wish{}
	add := func(w wish) {
		key := of{w.waba, w.user, w.source}
		if was, ok := last[key]; !ok || w.at.After(was.at) || (w.at.Equal(was.at) && w.stop) {
			last[key] = w
		}
	}
	for i := range told {
		n := &told[i].notices
		for _, p := range n.preferences {
			user := digits(p.is.WAID)
			if user == "" {
				user = clean(p.is.UserID)
			}
			if user == "" || (p.is.Category != "" && p.is.Category != "marketing_messages") {
				continue
			}
			add(wish{p.waba, user, store.FromPreference, p.is.Stop, told[i].happened(p.is.At)})
		}
		for _, m := range n.inbound {
			w, err := r.keyword(ctx, m)
			if err != nil {
				return err
			}
			if w.user != "" {
				w.at = told[i].happened(m.is.Timestamp)
				add(w)
			}
		}
	}
	var stopped []store.Suppression
	var lifted []store.Lift
	// In one order, so that two appliers do not wait for each other.
	for _, key := range slices.SortedFunc(maps.Keys(last), func(a, b of) int {
		return cmp.Or(cmp.Compare(a.waba, b.waba), cmp.Compare(a.user, b.user), cmp.Compare(a.source, b.source))
	}) {
		w := last[key]
		if w.stop {
			stopped = append(stopped, store.Suppression{WABAID: w.waba, WAID: w.user, Category: marketing, Source: w.source, Reason: "stop", SaidAt: w.at})
			continue
		}
		lifted = append(lifted, store.Lift{WABAID: w.waba, WAID: w.user, Source: w.source, SaidAt: w.at})
		if w.source == store.FromPreference {
			// Meta's own word for the user, which takes back what they have written and what Meta has answered for it.
			for _, source := range []string{store.FromKeyword, store.FromMeta} {
				lifted = append(lifted, store.Lift{WABAID: w.waba, WAID: w.user, Source: source, SaidAt: w.at})
			}
		}
	}
	if err := r.deps.Store.PutSuppressions(ctx, tx, stopped); err != nil {
		return err
	}
	if err := r.deps.Store.LiftSuppressions(ctx, tx, lifted); err != nil {
		return err
	}
	users := make([]string, 0, len(last))
	for of := range last {
		users = append(users, of.user)
	}
	slices.Sort(users)
	return r.deps.Store.FollowSuppressions(ctx, tx, slices.Compact(users))
}

// keyword reads a message of a user as a keyword; its user is empty for none.
func (r *Receiver) keyword(ctx context.Context, m ofWABA[cloudapi.InboundMessage]) (wish, error) {
	user := clean(m.is.From)
	if user == "" {
		user = clean(m.is.FromUserID)
	}
	if r.deps.Keyword == nil || len(m.is.Said) == 0 || m.is.GroupID != "" || user == "" {
		return wish{}, nil
	}
	stop, resume, err := r.deps.Keyword(ctx, m.waba, m.is.Said)
	if err != nil || (!stop && !resume) {
		return wish{}, err
	}
	return wish{waba: m.waba, user: user, source: store.FromKeyword, stop: stop}, nil
}

// happened is when something in a notification happened: not after it was received.
func (p *payload) happened(at time.Time) time.Time {
	if at.IsZero() || at.After(p.raw.ReceivedAt) {
		return p.raw.ReceivedAt
	}
	return at
}

// heed notes that something of a phone number came, and that it came late: Meta posts again, at growing intervals, what it
// posted in vain.
func (p *payload) heed(phone string, at time.Time) {
	if phone = clean(phone); phone == "" {
		return
	}
	if p.spans == nil {
		p.spans = map[string]bool{}
	}
	p.spans[phone] = p.spans[phone] || (!at.IsZero() && p.raw.ReceivedAt.Sub(at) > store.HeardLate)
}

// hear takes in how the webhooks of phone numbers come, and which user id belongs to which number.
func (r *Receiver) hear(ctx context.Context, tx pgx.Tx, all []payload) error {
	heard, numbers := map[string]store.PhoneHearing{}, map[string]string{}
	var unknown []string
	for i := range all {
		for phone, late := range all[i].spans {
			h, at := heard[phone], all[i].raw.ReceivedAt
			if h.First.IsZero() || at.Before(h.First) {
				h.First = at
			}
			h.Last = latest(h.Last, at)
			if late {
				h.Late = latest(h.Late, at)
			}
			heard[phone] = h
		}
		maps.Copy(numbers, all[i].userIDs)
		for id := range all[i].nameless {
			unknown = append(unknown, id)
		}
	}
	if err := r.deps.Store.LearnUserIDs(ctx, tx, numbers); err != nil {
		return err
	}
	known, err := r.deps.Store.KnownUserIDs(ctx, tx, unknown)
	if err != nil {
		return err
	}
	for i := range all {
		for id, phone := range all[i].nameless {
			if h, ok := heard[phone]; ok && !known[id] {
				h.Nameless = latest(h.Nameless, all[i].raw.ReceivedAt)
				heard[phone] = h
			}
		}
	}
	return r.deps.Store.HearPhones(ctx, tx, heard)
}

// heedStatus notes what a status says of how webhooks come. Only what Meta does itself is a clock: a message is read when its reader
// is there.
func (p *payload) heedStatus(u cloudapi.StatusUpdate) {
	at := u.Timestamp
	if u.Status != "sent" && u.Status != "failed" {
		at = time.Time{}
	}
	p.heed(u.PhoneNumberID, at)
	p.meet(u.RecipientID, u.RecipientUserID)
}

// meet notes who a user is that wrote to, called or got a message of a phone number.
func (p *payload) meet(waID, userID string) {
	waID, userID = clean(waID), clean(userID)
	if userID == "" || waID == "" || digits(waID) != waID {
		return
	}
	if p.userIDs == nil {
		p.userIDs = map[string]string{}
	}
	p.userIDs[userID] = waID
}

// wrote notes that a user wrote to or called a phone number.
func (p *payload) wrote(phone, waID, userID string, at time.Time) {
	p.heed(phone, at)
	p.meet(waID, userID)
	if waID == "" && userID != "" {
		if p.nameless == nil {
			p.nameless = map[string]string{}
		}
		p.nameless[clean(userID)] = clean(phone)
	}
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
