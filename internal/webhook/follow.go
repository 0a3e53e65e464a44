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
// sake of a status that waits. alerts counts those that were not known, by severity.
func (r *Receiver) followNotices(ctx context.Context, tx pgx.Tx, all []payload) (unknown int, alerts map[cloudapi.Severity]int, err error) {
	var told []payload
	for _, p := range all {
		if !p.raw.Applied && !p.notices.empty() {
			told = append(told, p)
		}
	}
	if len(told) == 0 {
		return 0, nil, nil
	}
	if err := r.followInbound(ctx, tx, told); err != nil {
		return 0, nil, err
	}
	if err := r.followNumbers(ctx, tx, told); err != nil {
		return 0, nil, err
	}
	if err := r.followConsent(ctx, tx, told); err != nil {
		return 0, nil, err
	}
	if unknown, err = r.followErrors(ctx, tx, told); err != nil {
		return 0, nil, err
	}
	for _, follow := range []func(context.Context, pgx.Tx, []payload) error{r.followQuality, r.followNames, r.followStandings, r.followTemplates} {
		if err := follow(ctx, tx, told); err != nil {
			return 0, nil, err
		}
	}
	alerts, err = r.keepAlerts(ctx, tx, told)
	return unknown, alerts, err
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
