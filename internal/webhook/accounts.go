package webhook

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/cloudapi"
	"wagate/internal/store"
)

// Codes of the pauses of a WABA that Meta has locked, by answers or by notices.
const (
	codeLocked    = 131031
	codeViolation = 368
)

// The topics of phone numbers; those of WABAs are cloudapi's.
const (
	topicQuality    = "quality"
	topicThroughput = "throughput"
	topicName       = "name"
)

// note keeps Meta's word on a topic of phone numbers and gives those for which it is the newest.
func (r *Receiver) note(ctx context.Context, tx pgx.Tx, phones []string, topic, word string, at time.Time, raw uuid.UUID) ([]string, error) {
	var newest []string
	for _, phone := range phones {
		is, err := r.deps.Store.NoteState(ctx, tx, store.AccountState{Scope: "phone", Value: phone, Topic: topic, Word: word, At: at, WebhookID: raw})
		if err != nil {
			return nil, err
		}
		if is {
			newest = append(newest, phone)
		}
	}
	return newest, nil
}

// shown gives the phone numbers of a WABA that a notice names by what is displayed.
func (r *Receiver) shown(ctx context.Context, tx pgx.Tx, waba, display string) ([]string, error) {
	number := digits(display)
	if number == "" {
		return nil, nil
	}
	return r.deps.Store.PhonesByDisplay(ctx, tx, waba, number)
}

// followQuality takes in what Meta says of throughput, tiers and quality.
func (r *Receiver) followQuality(ctx context.Context, tx pgx.Tx, told []payload) error {
	for i := range told {
		raw := told[i].raw.ID
		for _, q := range told[i].notices.quality {
			phones, err := r.shown(ctx, tx, q.waba, q.is.DisplayPhoneNumber)
			if err != nil {
				return err
			}
			if q.is.Event == "THROUGHPUT_UPGRADE" {
				if err := r.upgrade(ctx, tx, phones, q.at, raw); err != nil {
					return err
				}
			}
			newest, err := r.note(ctx, tx, phones, topicQuality, clean(q.is.Event), q.at, raw)
			if err != nil {
				return err
			}
			if q.is.Event != "FLAGGED" && q.is.Event != "DOWNGRADE" && len(newest) > 0 {
				if err := r.lift(ctx, tx, "phone", newest, codeSpam); err != nil {
					return err
				}
			}
			if err := r.setTier(ctx, tx, q.waba, q.is.MaxDaily, q.at); err != nil {
				return err
			}
		}
		for _, c := range told[i].notices.capability {
			if err := r.setTier(ctx, tx, c.waba, c.is, c.at); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *Receiver) upgrade(ctx context.Context, tx pgx.Tx, phones []string, at time.Time, raw uuid.UUID) error {
	newest, err := r.note(ctx, tx, phones, topicThroughput, "THROUGHPUT_UPGRADE", at, raw)
	if err != nil {
		return err
	}
	for _, phone := range newest {
		changed, err := r.deps.Store.SetPhoneThroughput(ctx, tx, store.PhoneRef{ID: phone}, upgradedPerSecond, "HIGH", store.SourceWebhook)
		if err != nil {
			return err
		}
		if changed {
			r.log.InfoContext(ctx, "a phone number's limit was raised by a notice of Meta", "phone_number_id", phone, "per_second", upgradedPerSecond)
		}
	}
	return nil
}

func (r *Receiver) setTier(ctx context.Context, tx pgx.Tx, waba, tier string, at time.Time) error {
	n, unlimited, ok := cloudapi.TierLimit(tier)
	if !ok {
		return nil
	}
	limit := &n
	if unlimited {
		limit = nil
	}
	changed, err := r.deps.Store.SetPortfolioTier(ctx, tx, waba, tier, limit, at, store.SourceWebhook)
	if changed {
		r.log.InfoContext(ctx, "a portfolio's messaging limit was set by a notice of Meta", "waba", waba, "tier", tier)
	}
	return err
}

// followNames keeps Meta's decisions on the names that phone numbers show.
func (r *Receiver) followNames(ctx context.Context, tx pgx.Tx, told []payload) error {
	for i := range told {
		for _, n := range told[i].notices.names {
			phones, err := r.shown(ctx, tx, n.waba, n.is.display)
			if err != nil {
				return err
			}
			if _, err := r.note(ctx, tx, phones, topicName, n.is.decision, n.at, told[i].raw.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// followStandings pauses a WABA that Meta has disabled, rejected or barred from all messages, and lifts that when it is
// reinstated. What counts is the newest word on each topic, whatever the order in which they come.
func (r *Receiver) followStandings(ctx context.Context, tx pgx.Tx, told []payload) error {
	news := map[string]bool{} // by WABA: whether a word that ends a pause was among them
	for i := range told {
		for _, s := range told[i].notices.standings {
			state := store.AccountState{Scope: "waba", Value: s.waba, Topic: s.is.Topic, Word: s.is.Word, At: s.at, WebhookID: told[i].raw.ID}
			if !s.is.Until.IsZero() {
				state.Until = &s.is.Until
			}
			newest, err := r.deps.Store.NoteState(ctx, tx, state)
			if err != nil {
				return err
			}
			if newest {
				news[s.waba] = news[s.waba] || s.is.Word == "REINSTATE" || s.is.Word == "APPROVED"
			}
		}
	}
	wabas := make([]string, 0, len(news))
	for waba := range news {
		wabas = append(wabas, waba)
	}
	slices.Sort(wabas) // so that two appliers do not wait for each other
	for _, waba := range wabas {
		if err := r.settleStanding(ctx, tx, waba, news[waba]); err != nil {
			return err
		}
	}
	return nil
}

// settleStanding makes the pause of a WABA what Meta's newest words ask for.
func (r *Receiver) settleStanding(ctx context.Context, tx pgx.Tx, waba string, good bool) error {
	was, err := r.deps.Store.LockThrottle(ctx, tx, "waba", waba)
	if err != nil {
		return err
	}
	states, err := r.deps.Store.LockedAccountStates(ctx, tx, "waba", waba)
	if err != nil {
		return err
	}
	why, until, blocked := standing(states, was.Now)
	ours := was.Code == codeLocked || was.Code == codeViolation
	switch {
	case !blocked && !good:
		return nil
	case !blocked:
		return r.lift(ctx, tx, "waba", []string{waba}, codeLocked, codeViolation)
	case was.Endless && !ours:
		return nil // another trouble, which whoever lifts it has to see
	}
	if ours && !until.IsZero() { // or its end could not come nearer
		if err := r.lift(ctx, tx, "waba", []string{waba}, codeLocked, codeViolation); err != nil {
			return err
		}
	}
	return r.putPause(ctx, tx, store.Pause{Scope: "waba", Value: waba, Code: codeLocked, Level: max(was.Level, 1), Reason: why, Until: until}, true)
}

// standingReasons is why a WABA is paused, by the topic of Meta's word.
var standingReasons = map[string]string{
	cloudapi.TopicBan:         "The account is disabled",
	cloudapi.TopicReview:      "The account was rejected by Meta's review",
	cloudapi.TopicRestriction: "The account is restricted: it may not send",
}

// standing says whether Meta's newest words, in the order of their topics, let a WABA send; else why not and until when. Zero is
// until Meta says otherwise.
func standing(states []store.AccountState, now time.Time) (why string, until time.Time, blocked bool) {
	for _, s := range states {
		switch {
		case !cloudapi.StandingBlocks(s.Topic, s.Word), s.Until != nil && !s.Until.After(now):
		case s.Until == nil:
			return standingReasons[s.Topic], time.Time{}, true
		default:
			why, until, blocked = standingReasons[s.Topic], *s.Until, true
		}
	}
	return why, until, blocked
}

// keepAlerts keeps what operators should see of accounts, and counts what was not known by severity.
func (r *Receiver) keepAlerts(ctx context.Context, tx pgx.Tx, told []payload) (map[cloudapi.Severity]int, error) {
	var all []store.Alert
	for i := range told {
		all = append(all, told[i].notices.alerts...)
	}
	fresh, err := r.deps.Store.PutAlerts(ctx, tx, all)
	if err != nil {
		return nil, err
	}
	counts := map[cloudapi.Severity]int{}
	for _, a := range all {
		if !fresh[a.ID] {
			continue
		}
		delete(fresh, a.ID) // once
		severity := cloudapi.Severity(a.Severity)
		counts[severity]++
		level := slog.LevelInfo
		switch severity {
		case cloudapi.SeverityWarning:
			level = slog.LevelWarn
		case cloudapi.SeverityCritical:
			level = slog.LevelError
		}
		r.log.Log(ctx, level, "a notice of Meta about an account", "waba_id", a.WABAID, "field", a.Field, "event", strings.ToValidUTF8(a.Event, ""), "alert_id", a.ID)
	}
	return counts, nil
}

// followNumbers lets what users had under their old numbers go on under the new ones.
func (r *Receiver) followNumbers(ctx context.Context, tx pgx.Tx, told []payload) error {
	var changes []store.NumberChange
	var users []store.Window
	for i := range told {
		p := &told[i]
		for _, of := range p.notices.inbound {
			m := of.is
			phone, from := clean(m.PhoneNumberID), clean(m.From)
			switch {
			case from == "" || m.GroupID != "":
			case m.NewWAID != "":
				at := m.Timestamp
				if at.IsZero() || at.After(p.raw.ReceivedAt) {
					at = p.raw.ReceivedAt
				}
				if to := clean(m.NewWAID); to != from {
					changes = append(changes, store.NumberChange{PhoneNumberID: phone, Old: from, New: to, At: at})
				}
			case m.Type != "system":
				users = append(users, store.Window{PhoneNumberID: phone, WAID: from})
			}
		}
	}
	if err := r.deps.Store.ChangeNumbers(ctx, tx, changes); err != nil {
		return err
	}
	return r.deps.Store.FollowNumbers(ctx, tx, users)
}
