package httpapi

import (
	"context"
	"maps"
	"math"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/store"
)

const (
	// workerPerSecond is what one worker sends a second at the least: half of what one was measured to send.
	workerPerSecond = 2500
	// longPause: a lane that is paused for longer needs no worker meanwhile.
	longPause = time.Minute
)

// lanes is how every lane stands, with what is configured and paused.
type lanes struct {
	stats  []store.LaneStat
	phones map[string]store.PhoneNumber
	wabas  map[string]store.WABA
	pauses map[store.Scoped]store.KeptPause
	// of has the stats by WABA, rates what each lane may send a second.
	of    map[string][]store.LaneStat
	rates map[string]*float64
}

func readLanes(ctx context.Context, s *store.Store) (lanes, []store.KeptPause, error) {
	l := lanes{wabas: map[string]store.WABA{}, pauses: map[store.Scoped]store.KeptPause{}, of: map[string][]store.LaneStat{}, rates: map[string]*float64{}}
	var err error
	if l.stats, err = s.LaneStats(ctx, ""); err != nil {
		return l, nil, err
	}
	phones, err := s.PhoneNumbers(ctx)
	if err != nil {
		return l, nil, err
	}
	l.phones = byID(phones)
	wabas, err := s.WABAs(ctx)
	if err != nil {
		return l, nil, err
	}
	for _, w := range wabas {
		l.wabas[w.ID] = w
	}
	pauses, err := s.ListPauses(ctx)
	if err != nil {
		return l, nil, err
	}
	for _, p := range pauses {
		of := store.Scoped{Scope: p.Scope, Value: p.Value}
		if other, ok := l.pauses[of]; !ok || later(p, other) {
			l.pauses[of] = p
		}
	}
	for _, s := range l.stats {
		l.of[s.WABAID] = append(l.of[s.WABAID], s)
	}
	for id, stats := range l.of {
		maps.Copy(l.rates, laneRates(stats, l.phones, l.wabas[id]))
	}
	return l, pauses, nil
}

// later says whether a pause ends after another; one without an end does.
func later(p, other store.KeptPause) bool {
	return other.Until != nil && (p.Until == nil || p.Until.After(*other.Until))
}

// paused gives the pause over a whole lane that ends last.
func (l lanes) paused(s store.LaneStat) *store.KeptPause {
	var last *store.KeptPause
	for _, of := range []store.Scoped{{Scope: "all"}, {Scope: "app", Value: s.AppID}, {Scope: "waba", Value: s.WABAID}, {Scope: "phone", Value: s.PhoneNumberID}} {
		if p, ok := l.pauses[of]; ok && (last == nil || later(p, *last)) {
			last = &p
		}
	}
	return last
}

// desiredWorkers says how many workers the lanes need: what those with a backlog may send together, over what one worker
// sends; at least one while there is a phone number, and no more than there are WABAs with work, since one worker owns a
// WABA. A lane without a limit counts as a worker's.
func (l lanes) desiredWorkers(now time.Time) int {
	if len(l.stats) == 0 {
		return 0
	}
	rate := 0.0
	busy := map[string]bool{}
	for _, s := range l.stats {
		if p := l.paused(s); sum(s.Waiting) == 0 || p != nil && (p.Until == nil || p.Until.Sub(now) > longPause) {
			continue
		}
		busy[s.WABAID] = true
		if perSecond := l.rates[s.PhoneNumberID]; perSecond == nil {
			rate += workerPerSecond
		} else {
			rate += min(*perSecond, workerPerSecond)
		}
	}
	return max(1, min(int(math.Ceil(rate/workerPerSecond)), len(busy)))
}

// lineView is a phone number in GET /v1/limits.
type lineView struct {
	PhoneNumberID string           `json:"phone_number_id"`
	WABAID        string           `json:"waba_id"`
	Configured    *float64         `json:"configured"`
	InForce       *float64         `json:"in_force"`
	Tokens        *float64         `json:"tokens"`
	PerSecond     *float64         `json:"per_second"`
	Slowed        *slowedView      `json:"slowed"`
	Source        string           `json:"source"`
	ChangedAt     *time.Time       `json:"changed_at"`
	Backlog       map[string]int64 `json:"backlog"`
	Held          int64            `json:"held"`
	DrainSeconds  *float64         `json:"drain_seconds"`
	Paused        *pauseView       `json:"paused"`
	LastError     *lastErrorView   `json:"last_error"`
	Owner         *string          `json:"owner"`
	PublishedAt   *time.Time       `json:"published_at"`
}

type wabaLineView struct {
	WABAID       string         `json:"waba_id"`
	Name         string         `json:"name"`
	AppID        *string        `json:"app_id"`
	PortfolioID  *string        `json:"portfolio_id"`
	Limits       wabaLimitsView `json:"limits"`
	PerSecond    *float64       `json:"per_second"`
	Waiting      int64          `json:"waiting"`
	DrainSeconds *float64       `json:"drain_seconds"`
	Owner        *string        `json:"owner"`
}

type appLineView struct {
	AppID        string      `json:"app_id"`
	CallsPerHour *int        `json:"calls_per_hour"`
	Shares       []shareView `json:"shares"`
}

type totalsView struct {
	PhoneNumbers int              `json:"phone_numbers"`
	Waiting      int64            `json:"waiting"`
	Backlog      map[string]int64 `json:"backlog"`
	Held         int64            `json:"held"`
	// PerSecond is what the lanes with a backlog may send together; null when one of them has no limit.
	PerSecond *float64 `json:"per_second"`
}

type limitsView struct {
	PhoneNumbers   []lineView           `json:"phone_numbers"`
	WABAs          []wabaLineView       `json:"wabas"`
	Apps           []appLineView        `json:"apps"`
	Portfolios     []portfolioStateView `json:"portfolios"`
	Pauses         []pauseView          `json:"pauses"`
	Totals         totalsView           `json:"totals"`
	DesiredWorkers int                  `json:"desired_workers"`
	At             time.Time            `json:"at"`
}

// getLimits answers with everything in one document, for people and autoscalers. Backlogs are as the owners keep count.
func (a *API) getLimits(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	l, pauses, err := readLanes(ctx, a.Store)
	if err != nil {
		return err
	}
	counts, err := a.Store.HeldCounts(ctx, "")
	if err != nil {
		return err
	}
	held := map[string]int64{}
	for _, h := range counts {
		held[h.PhoneNumberID] += h.Messages
	}
	now := a.Now()
	v := limitsView{PhoneNumbers: []lineView{}, Pauses: viewPauses(pauses), DesiredWorkers: l.desiredWorkers(now), At: now.UTC()}
	v.Totals.PhoneNumbers, v.Totals.PerSecond = len(l.stats), new(float64)
	var waiting [4]int64
	for _, s := range l.stats {
		line := l.line(s, held[s.PhoneNumberID])
		v.PhoneNumbers = append(v.PhoneNumbers, line)
		v.Totals.Held += line.Held
		for i, n := range s.Waiting {
			waiting[i] += n
		}
		if sum(s.Waiting) > 0 && v.Totals.PerSecond != nil {
			if line.PerSecond == nil {
				v.Totals.PerSecond = nil
			} else {
				*v.Totals.PerSecond += *line.PerSecond
			}
		}
	}
	v.Totals.Waiting, v.Totals.Backlog = sum(waiting), byPriority(waiting)
	if v.WABAs, err = a.wabaLines(ctx, l); err != nil {
		return err
	}
	if v.Apps, v.Portfolios, err = a.sharedLines(ctx); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, v)
}

func (l lanes) line(s store.LaneStat, held int64) lineView {
	phone := l.phones[s.PhoneNumberID]
	state := readState(s).resting(s, phone, l.wabas[s.WABAID])
	b := viewBudget(phone.MessagesPerSecond, state.Phone)
	v := lineView{
		PhoneNumberID: s.PhoneNumberID, WABAID: s.WABAID, Configured: b.Configured, InForce: b.InForce, Tokens: b.Tokens, Slowed: b.Slowed,
		Source: phone.LimitSource, ChangedAt: utc(phone.LimitChangedAt), Backlog: byPriority(s.Waiting), Held: held, LastError: state.LastError,
	}
	v.PerSecond = l.rates[s.PhoneNumberID]
	v.DrainSeconds = drain(sum(s.Waiting), v.PerSecond)
	v.Owner, v.PublishedAt = published(s)
	if p := l.paused(s); p != nil {
		paused := viewPause(*p)
		v.Paused = &paused
	}
	return v
}

func (a *API) wabaLines(ctx context.Context, l lanes) ([]wabaLineView, error) {
	calls, err := a.Store.ManagementCalls(ctx, "")
	if err != nil {
		return nil, err
	}
	rows, err := a.Store.WABAs(ctx)
	if err != nil {
		return nil, err
	}
	lines := make([]wabaLineView, len(rows))
	for i, w := range rows {
		s := sumLanes(l.of[w.ID], l.phones, w)
		lines[i] = wabaLineView{
			WABAID: w.ID, Name: w.Name, AppID: w.AppID, PortfolioID: w.PortfolioID, Limits: viewWABALimits(w, s.state, calls[w.ID]),
			PerSecond: s.perSecond, Waiting: sum(s.waiting), DrainSeconds: s.drain, Owner: s.owner,
		}
	}
	return lines, nil
}

func (a *API) sharedLines(ctx context.Context) ([]appLineView, []portfolioStateView, error) {
	apps, err := a.Store.Apps(ctx)
	if err != nil {
		return nil, nil, err
	}
	shares, err := a.Store.AppShares(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	portfolios, err := a.Store.Portfolios(ctx)
	if err != nil {
		return nil, nil, err
	}
	uses, err := a.Store.PortfolioUses(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	appLines := make([]appLineView, len(apps))
	for i, app := range apps {
		appLines[i] = appLineView{app.ID, app.CallsPerHour, viewShares(shares, app.ID)}
	}
	portfolioLines := make([]portfolioStateView, len(portfolios))
	for i, p := range portfolios {
		portfolioLines[i] = viewPortfolioState(p, uses)
	}
	return appLines, portfolioLines, nil
}
