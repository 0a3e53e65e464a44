package webhook

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"wagate/internal/cloudapi"
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

const (
	// windowOpen is how long a user's message or call opens the customer service window. Source: Meta's page on sending messages.
	windowOpen = 24 * time.Hour
	// upgradedPerSecond is the throughput of an upgraded phone number. Source: Meta's page on throughput.
	upgradedPerSecond = 1000
	// firstPause and secondPause are how long Meta pauses a template; the third time it disables it. Source: Meta's page on
	// template pausing.
	firstPause, secondPause = 3 * time.Hour, 6 * time.Hour
	// marketing is the category that suppressions are about.
	marketing = "marketing"
)

// followNotices does what notifications say beside statuses: once each, though a notification may be applied again for the
// sake of a status that waits.
func (r *Receiver) followNotices(ctx context.Context, tx pgx.Tx, all []payload) (unknown int, err error) {
	var told []payload
	for _, p := range all {
		if !p.raw.Applied && !p.notices.empty() {
			told = append(told, p)
		}
	}
	if len(told) == 0 {
		return 0, nil
	}
	if err := r.followInbound(ctx, tx, told); err != nil {
		return 0, err
	}
	if err := r.followConsent(ctx, tx, told); err != nil {
		return 0, err
	}
	if unknown, err = r.followErrors(ctx, tx, told); err != nil {
		return 0, err
	}
	for i := range told {
		n := &told[i].notices
		for _, follow := range []func(context.Context, pgx.Tx, *notices) error{
			r.followQuality, r.followTemplates, r.followAccounts,
		} {
			if err := follow(ctx, tx, n); err != nil {
				return 0, err
			}
		}
	}
	return unknown, nil
}

// followInbound counts what came in, opens service windows and notes whose the media are.
func (r *Receiver) followInbound(ctx context.Context, tx pgx.Tx, all []payload) error {
	windows, counts := map[store.Window]time.Time{}, map[string]map[int64]int{}
	media := map[string]string{}
	opens := func(p *payload, phone, waID, userID string, at time.Time) {
		user := clean(waID)
		if user == "" {
			user = clean(userID)
		}
		if user == "" {
			return
		}
		if key := (store.Window{PhoneNumberID: phone, WAID: user}); p.happened(at).After(windows[key]) {
			windows[key] = p.happened(at)
		}
	}
	for i := range all {
		p := &all[i]
		for _, c := range p.notices.calls {
			opens(p, clean(c.PhoneNumberID), c.From, c.FromUserID, c.Timestamp)
		}
		for _, of := range p.notices.inbound {
			m := of.is
			phone := clean(m.PhoneNumberID)
			if counts[phone] == nil {
				counts[phone] = map[int64]int{}
			}
			counts[phone][p.raw.ReceivedAt.Unix()]++
			if id := clean(m.MediaID); id != "" {
				media[id] = phone
			}
			if m.GroupID == "" && m.Type != "system" { // neither is a message of a user to this phone number
				opens(p, phone, m.From, m.FromUserID, m.Timestamp)
			}
		}
	}
	if err := r.deps.Store.AddInbound(ctx, tx, counts); err != nil {
		return err
	}
	if err := r.deps.Store.SeeInboundMedia(ctx, tx, media); err != nil {
		return err
	}
	open := make([]store.Window, 0, len(windows))
	for w, at := range windows {
		w.Until = at.Add(windowOpen)
		open = append(open, w)
	}
	return r.deps.Store.OpenWindows(ctx, tx, open)
}

// followQuality takes in what Meta says of throughput, tiers and quality.
func (r *Receiver) followQuality(ctx context.Context, tx pgx.Tx, n *notices) error {
	for _, q := range n.quality {
		var phones []string
		var err error
		if shown := digits(q.is.DisplayPhoneNumber); shown != "" {
			if phones, err = r.deps.Store.PhonesByDisplay(ctx, tx, q.waba, shown); err != nil {
				return err
			}
		}
		if q.is.Event == "THROUGHPUT_UPGRADE" {
			for _, phone := range phones {
				changed, err := r.deps.Store.SetPhoneThroughput(ctx, tx, store.PhoneRef{ID: phone}, upgradedPerSecond, "HIGH", store.SourceWebhook)
				if err != nil {
					return err
				}
				if changed {
					r.log.InfoContext(ctx, "a phone number's limit was raised by a notice of Meta", "phone_number_id", phone, "per_second", upgradedPerSecond)
				}
			}
		}
		if q.is.Event != "FLAGGED" && q.is.Event != "DOWNGRADE" && len(phones) > 0 {
			if err := r.lift(ctx, tx, "phone", phones, codeSpam); err != nil {
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
		// Some notices write en-US; messages have en_US.
		name, language := clean(t.is.Name), strings.ReplaceAll(clean(t.is.Language), "-", "_")
		var until time.Time // until it is lifted
		code := codeTemplatePaused
		switch event := t.is.Event; {
		case t.is.Title == "UNPAUSE", event == "APPROVED", event == "REINSTATED", event == "UNPAUSED", event == "UNARCHIVED":
			lifted, err := r.deps.Store.LiftTemplate(ctx, tx, t.waba, name, language)
			if err != nil {
				return err
			}
			r.lifted(ctx, lifted, "template", t.waba+":"+name)
			continue
		case event == "PAUSED" && t.is.Title == "FIRST_PAUSE":
			until = t.at.Add(firstPause)
		case event == "PAUSED" && t.is.Title == "SECOND_PAUSE":
			until = t.at.Add(secondPause)
		case event == "PAUSED":
		case event == "DISABLED", event == "DELETED", event == "PENDING_DELETION", event == "REJECTED", event == "ARCHIVED":
			code = codeTemplateDisabled
		default:
			continue
		}
		if err := r.keepNoticed(ctx, tx, templateKey(t.waba, name, language), until, code, "Template is "+strings.ToLower(t.is.Event)); err != nil {
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
			err = r.keepNoticed(ctx, tx, scopeKey{"waba", a.waba}, time.Time{}, codeLocked, "The account is disabled")
		case a.is.Event == "DISABLED_UPDATE" && a.is.BanState == "REINSTATE":
			err = r.lift(ctx, tx, "waba", []string{a.waba}, codeLocked, codeViolation)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lift ends the pauses that Meta's answers or notices set by one of the codes.
func (r *Receiver) lift(ctx context.Context, tx pgx.Tx, scope string, values []string, codes ...int32) error {
	n, err := r.deps.Store.LiftThrottles(ctx, tx, scope, values, codes)
	if err != nil {
		return err
	}
	r.lifted(ctx, n, scope, strings.Join(values, " "))
	return nil
}

func (r *Receiver) lifted(ctx context.Context, n int64, scope, value string) {
	if n > 0 {
		r.log.InfoContext(ctx, "a pause was lifted by a notice of Meta", "scope", scope, "id", value)
	}
}

func digits(s string) string {
	return strings.Map(func(c rune) rune {
		if c < '0' || c > '9' {
			return -1
		}
		return c
	}, s)
}
