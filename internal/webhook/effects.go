package webhook

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"wagate/internal/cloudapi"
	"wagate/internal/policy"
	"wagate/internal/queue"
	"wagate/internal/store"
)

// Codes that notices of Meta stand for, or lift.
const (
	codeLocked           = 131031 // the WABA is disabled
	codeViolation        = 368
	codeSpam             = 131048
	codeTemplatePaused   = 132015
	codeTemplateDisabled = 132016
)

// react asks the policy what follows from a failure that a webhook tells of.
func react(f store.Failure, now time.Time) policy.Reaction {
	return policy.React(policy.Input{
		Code: f.Error.Code, Webhook: true, Category: f.Category, ByLink: f.ByLink,
		Redos: f.Redos, Throttles: f.Throttles, Retries: f.Retries, ExpiresAt: f.ExpiresAt, Now: now,
	})
}

func decide(f store.Failure) (bool, time.Duration) {
	re := react(f, time.Now())
	return re.Message == policy.Again, re.Wait
}

// followFailures does what the table asks for beyond the messages that failed, and puts in the jobs of those that are sent
// again.
func (r *Receiver) followFailures(ctx context.Context, tx pgx.Tx, applied store.Applied) (unknown int, err error) {
	now := time.Now()
	paused := map[[2]string]bool{} // once a set: its failures are one episode
	var suppress []store.Suppression
	for _, f := range applied.Failures {
		re := react(f, now)
		if !re.Known {
			unknown++
		}
		if re.Suppress != 0 {
			s := store.Suppression{WABAID: f.WABAID, WAID: f.User, Category: "marketing", Reason: clean(f.Error.Title), Code: f.Error.Code}
			if re.Suppress > 0 {
				until := now.Add(re.Suppress)
				s.Until = &until
			}
			suppress = append(suppress, s)
		}
		if err := r.pause(ctx, tx, paused, f.WABAID, f.PhoneNumberID, &f, f.Error, re); err != nil {
			return unknown, err
		}
	}
	if err := r.deps.Store.PutSuppressions(ctx, tx, suppress); err != nil {
		return unknown, err
	}
	if len(applied.Redos) == 0 || r.deps.Jobs == nil {
		return unknown, nil
	}
	sends := make([]queue.Send, len(applied.Redos))
	for i, f := range applied.Redos {
		sends[i] = queue.Send{MessageID: f.ID, PhoneNumberID: f.PhoneNumberID, Priority: f.Priority}
		if f.Wait > 0 {
			sends[i].At = now.Add(f.Wait)
		}
	}
	return unknown, r.deps.Jobs.Insert(ctx, tx, sends)
}

// pause keeps the pause that an error asks for; f is the message that failed, nil for an error without one.
func (r *Receiver) pause(ctx context.Context, tx pgx.Tx, done map[[2]string]bool, waba, phone string, f *store.Failure, e store.StatusError, re policy.Reaction) error {
	if re.Pause == nil {
		return nil
	}
	scope, value, err := r.scopeOf(ctx, tx, waba, phone, f, re.Scope)
	if err != nil || value == "" || done[[2]string{scope, value}] {
		return err
	}
	done[[2]string{scope, value}] = true
	return r.keepPause(ctx, tx, scope, value, *re.Pause, e.Code, e.Title, re.Alert)
}

func (r *Receiver) keepPause(ctx context.Context, tx pgx.Tx, scope, value string, p policy.Pause, code int, title string, alert bool) error {
	was, err := r.deps.Store.LockThrottle(ctx, tx, scope, value)
	if err != nil {
		return err
	}
	running := was.Endless || (was.Until != nil && was.Until.After(was.Now))
	if running && (was.Endless || !p.UntilLifted) {
		return nil // the same episode
	}
	kept := store.Pause{Scope: scope, Value: value, Source: "throttle", Code: code, Level: was.Level + 1, Reason: clean(title)}
	if kept.Reason == "" {
		kept.Reason = "by a notice of Meta"
	}
	if !p.UntilLifted {
		kept.Until = was.Now.Add(p.Delay(was.Level, 0, 0, rand.Int64N))
	}
	level := r.log.InfoContext
	if alert {
		level = r.log.ErrorContext
	}
	level(ctx, "paused after a webhook", "scope", scope, "id", value, "code", code, "level", kept.Level, "until", kept.Until)
	return r.deps.Store.PutThrottle(ctx, tx, kept)
}

// scopeOf gives the scope and value of a pause; an empty value where there is nothing to pause.
func (r *Receiver) scopeOf(ctx context.Context, tx pgx.Tx, waba, phone string, f *store.Failure, scope cloudapi.Scope) (string, string, error) {
	switch scope {
	case cloudapi.ScopePhone:
		return "phone", phone, nil
	case cloudapi.ScopeTemplate:
		if f == nil || f.TemplateName == "" {
			return "", "", nil
		}
		return "template", strings.TrimSuffix(waba+":"+f.TemplateName+"/"+f.TemplateLanguage, "/"), nil
	case cloudapi.ScopeFlow:
		if f == nil {
			return "", "", nil
		}
		id := cloudapi.FlowID(f.FlowBody)
		if id == "" {
			return "", "", nil
		}
		return "flow", waba + ":" + id, nil
	case cloudapi.ScopeWABA, cloudapi.ScopeToken, cloudapi.ScopePlatform, cloudapi.ScopeApp:
		known, app, err := r.deps.Store.AppOf(ctx, tx, waba, phone)
		if err == nil && scope == cloudapi.ScopeApp && app != "" {
			return "app", app, nil
		}
		return "waba", known, err
	}
	return "", "", nil
}

// followNotices does what a notification says beside statuses.
func (r *Receiver) followNotices(ctx context.Context, tx pgx.Tx, all []payload) error {
	windows, counts := map[store.Window]time.Time{}, map[string]map[int64]int{}
	for _, p := range all {
		for _, m := range p.notices.inbound {
			second := p.raw.ReceivedAt.Unix()
			if counts[m.PhoneNumberID] == nil {
				counts[m.PhoneNumberID] = map[int64]int{}
			}
			if p.raw.Attempts == 0 { // not again when the notification is applied again
				counts[m.PhoneNumberID][second]++
			}
			at := m.Timestamp
			if at.IsZero() || at.After(p.raw.ReceivedAt) {
				at = p.raw.ReceivedAt
			}
			key := store.Window{PhoneNumberID: m.PhoneNumberID, WAID: m.From}
			if m.From != "" && at.After(windows[key]) {
				windows[key] = at
			}
		}
	}
	if len(counts) > 0 {
		if err := r.deps.Store.AddInbound(ctx, tx, counts); err != nil {
			return err
		}
		open := make([]store.Window, 0, len(windows))
		for w, at := range windows {
			w.Until = at.Add(windowOpen)
			open = append(open, w)
		}
		if err := r.deps.Store.OpenWindows(ctx, tx, open); err != nil {
			return err
		}
	}
	for i := range all {
		n := &all[i].notices
		for _, follow := range []func(context.Context, pgx.Tx, *notices) error{
			r.followErrors, r.followQuality, r.followTemplates, r.followPreferences, r.followAccounts,
		} {
			if err := follow(ctx, tx, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// followErrors heeds errors that belong to no message.
func (r *Receiver) followErrors(ctx context.Context, tx pgx.Tx, n *notices) error {
	done := map[[2]string]bool{}
	for _, of := range n.errors {
		for _, e := range of.errs {
			re := policy.React(policy.Input{Code: e.Code, Subcode: e.Subcode, Webhook: true, Now: time.Now()})
			if !re.Known {
				r.metrics.unknownCodes.Inc()
			}
			title := e.Title
			if title == "" {
				title = e.Message
			}
			if err := r.pause(ctx, tx, done, of.waba, of.phone, nil, store.StatusError{Code: e.Code, Title: title}, re); err != nil {
				return err
			}
		}
	}
	return nil
}

// followQuality takes in what Meta says of throughput, tiers and quality.
func (r *Receiver) followQuality(ctx context.Context, tx pgx.Tx, n *notices) error {
	for _, q := range n.quality {
		display := digits(q.is.DisplayPhoneNumber)
		if q.is.Event == "THROUGHPUT_UPGRADE" && display != "" {
			changed, err := r.deps.Store.SetPhoneThroughput(ctx, tx, store.PhoneRef{DisplayPhoneNumber: display}, upgradedPerSecond, "HIGH", store.SourceWebhook)
			if err != nil {
				return err
			}
			if changed {
				r.log.InfoContext(ctx, "a phone number's limit was raised by a notice of Meta", "waba", q.waba, "per_second", upgradedPerSecond)
			}
		}
		if q.is.Event != "FLAGGED" && q.is.Event != "DOWNGRADE" && display != "" {
			phones, err := r.deps.Store.PhonesByDisplay(ctx, tx, q.waba, display)
			if err != nil {
				return err
			}
			if _, err := r.deps.Store.LiftThrottles(ctx, tx, "phone", phones, []int32{codeSpam}); err != nil {
				return err
			}
		}
		if err := r.setTier(ctx, tx, q.waba, q.is.MaxDaily); err != nil {
			return err
		}
	}
	for _, c := range n.capability {
		if err := r.setTier(ctx, tx, c.waba, c.is); err != nil {
			return err
		}
	}
	return nil
}

// upgradedPerSecond is the throughput of an upgraded phone number. Source: Meta's page on throughput.
const upgradedPerSecond = 1000

func (r *Receiver) setTier(ctx context.Context, tx pgx.Tx, waba, tier string) error {
	n, unlimited, ok := cloudapi.TierLimit(tier)
	if !ok {
		return nil
	}
	limit := &n
	if unlimited {
		limit = nil
	}
	changed, err := r.deps.Store.SetPortfolioTier(ctx, tx, waba, tier, limit, store.SourceWebhook)
	if changed {
		r.log.InfoContext(ctx, "a portfolio's messaging limit was set by a notice of Meta", "waba", waba, "tier", tier)
	}
	return err
}

// followTemplates holds the messages of a template that Meta has paused or disabled, and lets them go when it is back.
func (r *Receiver) followTemplates(ctx context.Context, tx pgx.Tx, n *notices) error {
	for _, t := range n.templates {
		value := strings.TrimSuffix(t.waba+":"+t.is.Name+"/"+t.is.Language, "/")
		var p policy.Pause
		code := codeTemplatePaused
		switch t.is.Event {
		case "PAUSED":
			switch t.is.Title { // Meta's page on template pausing: 3 hours, then 6, then disabled
			case "FIRST_PAUSE":
				p = policy.Pause{Base: 3 * time.Hour, Limit: 3 * time.Hour, Least: 3 * time.Hour}
			case "SECOND_PAUSE":
				p = policy.Pause{Base: 6 * time.Hour, Limit: 6 * time.Hour, Least: 6 * time.Hour}
			default:
				p = policy.Pause{UntilLifted: true}
			}
		case "DISABLED", "DELETED", "PENDING_DELETION", "REJECTED", "ARCHIVED":
			p, code = policy.Pause{UntilLifted: true}, codeTemplateDisabled
		case "APPROVED", "REINSTATED", "UNPAUSED", "UNARCHIVED":
			if _, err := r.deps.Store.LiftTemplate(ctx, tx, t.waba, t.is.Name, t.is.Language); err != nil {
				return err
			}
			continue
		default:
			continue
		}
		if err := r.keepPause(ctx, tx, "template", value, p, code, "Template is "+strings.ToLower(t.is.Event), code == codeTemplateDisabled); err != nil {
			return err
		}
	}
	return nil
}

// followPreferences keeps who wants no marketing any more, and who wants it again.
func (r *Receiver) followPreferences(ctx context.Context, tx pgx.Tx, n *notices) error {
	for _, p := range n.preferences {
		if p.is.Category != "" && p.is.Category != "marketing_messages" {
			continue
		}
		user := digits(p.is.WAID)
		if user == "" {
			continue
		}
		var err error
		if p.is.Stop {
			err = r.deps.Store.PutSuppressions(ctx, tx, []store.Suppression{{WABAID: p.waba, WAID: user, Category: "marketing", Reason: "stop"}})
		} else {
			_, err = r.deps.Store.DropSuppression(ctx, tx, p.waba, user, "marketing")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// followAccounts pauses a WABA that Meta has disabled, and lifts that when it is reinstated.
func (r *Receiver) followAccounts(ctx context.Context, tx pgx.Tx, n *notices) error {
	for _, a := range n.accounts {
		var err error
		switch {
		case a.is.Event == "ACCOUNT_DELETED", a.is.Event == "DISABLED_UPDATE" && a.is.BanState == "DISABLE":
			err = r.keepPause(ctx, tx, "waba", a.waba, policy.Pause{UntilLifted: true}, codeLocked, "The account is disabled", true)
		case a.is.Event == "DISABLED_UPDATE" && a.is.BanState == "REINSTATE":
			_, err = r.deps.Store.LiftThrottles(ctx, tx, "waba", []string{a.waba}, []int32{codeLocked, codeViolation})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func digits(s string) string {
	return strings.Map(func(c rune) rune {
		if c < '0' || c > '9' {
			return -1
		}
		return c
	}, s)
}
