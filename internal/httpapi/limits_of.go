package httpapi

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/store"
)

type wabaLimitsView struct {
	MessagesPerSecond budgetView     `json:"messages_per_second"`
	MessagesPerHour   budgetView     `json:"messages_per_hour"`
	ManagementCalls   usedView       `json:"management_calls_per_hour"`
	App               *appBudgetView `json:"app"`
}

func viewWABALimits(w store.WABA, s laneState, calls int64) wabaLimitsView {
	return wabaLimitsView{
		MessagesPerSecond: viewBudget(w.MessagesPerSecond, s.WABA), MessagesPerHour: viewBudget(w.MessagesPerHour, s.WABAHour),
		ManagementCalls: usedView{int64(w.ManagementCallsPerHour), calls}, App: viewAppBudget(w, s),
	}
}

// usedView is a budget of which each use is counted, over the last hour.
type usedView struct {
	Limit int64 `json:"limit"`
	Used  int64 `json:"used"`
}

// wabaStateView is a WABA with what is in force and the sums over its phone numbers.
type wabaStateView struct {
	wabaView
	Limits       wabaLimitsView   `json:"limits"`
	Pauses       []pauseView      `json:"pauses"`
	Backlog      map[string]int64 `json:"backlog"`
	Held         map[string]int64 `json:"held"`
	PerSecond    *float64         `json:"per_second"`
	DrainSeconds *float64         `json:"drain_seconds"`
	LastError    *lastErrorView   `json:"last_error"`
	Owner        *string          `json:"owner"`
	PublishedAt  *time.Time       `json:"published_at"`
	standingView
}

func (a *API) getWABA(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	row, err := a.Store.WABA(ctx, c.Param("id"))
	if err != nil {
		return err
	}
	lanes, err := a.Store.LaneStats(ctx, row.ID)
	if err != nil {
		return err
	}
	phones, err := a.Store.PhoneNumbers(ctx)
	if err != nil {
		return err
	}
	held, err := a.Store.HeldCounts(ctx, row.ID)
	if err != nil {
		return err
	}
	calls, err := a.Store.ManagementCalls(ctx, row.ID)
	if err != nil {
		return err
	}
	of := []store.Scoped{{Scope: "all"}, {Scope: "waba", Value: row.ID}}
	if row.AppID != nil {
		of = append(of, store.Scoped{Scope: "app", Value: *row.AppID})
	}
	for _, l := range lanes {
		of = append(of, store.Scoped{Scope: "phone", Value: l.PhoneNumberID})
	}
	pauses, err := a.Store.PausesOf(ctx, of)
	if err != nil {
		return err
	}
	s := sumLanes(lanes, byID(phones), row)
	view := wabaStateView{
		wabaView: viewWABA(row),
		Limits:   viewWABALimits(row, s.state, calls[row.ID]),
		Pauses:   viewPauses(pauses), Backlog: byPriority(s.waiting), Held: map[string]int64{}, PerSecond: s.perSecond, DrainSeconds: s.drain,
		LastError: s.lastError, Owner: s.owner, PublishedAt: s.publishedAt,
	}
	for _, h := range held {
		view.Held[h.Kind] += h.Messages
	}
	if view.standingView, err = a.standing(ctx, "waba", row.ID); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, view)
}

func byID(phones []store.PhoneNumber) map[string]store.PhoneNumber {
	m := make(map[string]store.PhoneNumber, len(phones))
	for _, p := range phones {
		m[p.ID] = p
	}
	return m
}

// laneSum is what the lanes of a WABA say together. state is the newest of them, for the budgets they share.
type laneSum struct {
	waiting     [4]int64
	rates       map[string]*float64
	perSecond   *float64
	drain       *float64
	state       laneState
	lastError   *lastErrorView
	owner       *string
	publishedAt *time.Time
}

// sumLanes adds up the lanes of a WABA. It drains when its slowest lane does.
func sumLanes(lanes []store.LaneStat, phones map[string]store.PhoneNumber, w store.WABA) laneSum {
	s := laneSum{perSecond: new(float64), drain: new(float64), rates: laneRates(lanes, phones, w)}
	for _, l := range lanes {
		for i, n := range l.Waiting {
			s.waiting[i] += n
		}
		owner, at := published(l)
		state := readState(l)
		if s.publishedAt == nil && at == nil {
			s.state = state.resting(l, phones[l.PhoneNumberID], w)
		}
		if at != nil && (s.publishedAt == nil || at.After(*s.publishedAt)) {
			s.publishedAt, s.owner, s.state = at, owner, state.resting(l, phones[l.PhoneNumberID], w)
		}
		if state.LastError != nil && (s.lastError == nil || state.LastError.At.After(s.lastError.At)) {
			s.lastError = state.LastError
		}
		perSecond := s.rates[l.PhoneNumberID]
		switch {
		case perSecond == nil:
			s.perSecond = nil
		case s.perSecond != nil:
			total := *s.perSecond + *perSecond
			s.perSecond = &total
		}
		switch seconds := drain(sum(l.Waiting), perSecond); {
		case seconds == nil:
			s.drain = nil
		case s.drain != nil && *seconds > *s.drain:
			s.drain = seconds
		}
	}
	if limit := lowest(w.MessagesPerSecond, hourly(w.MessagesPerHour), some(s.state.WABA.InForce), s.state.share()); s.perSecond != nil && limit != nil && *s.perSecond > *limit {
		s.perSecond = limit // lanes without a backlog each count the whole of it
	}
	return s
}

type shareView struct {
	WABAID    string    `json:"waba_id"`
	PerSecond float64   `json:"per_second"`
	Demand    float64   `json:"demand"`
	ExpiresAt time.Time `json:"expires_at"`
}

type appStateView struct {
	appView
	Shares []shareView `json:"shares"`
	Pauses []pauseView `json:"pauses"`
}

func viewShares(shares []store.Share, appID string) []shareView {
	views := []shareView{}
	for _, s := range shares {
		if s.AppID == appID {
			views = append(views, shareView{s.WABAID, s.PerSecond, s.Demand, s.ExpiresAt.UTC()})
		}
	}
	return views
}

func (a *API) getApp(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	row, err := a.Store.App(ctx, c.Param("id"))
	if err != nil {
		return err
	}
	shares, err := a.Store.AppShares(ctx, row.ID)
	if err != nil {
		return err
	}
	pauses, err := a.Store.PausesOf(ctx, []store.Scoped{{Scope: "all"}, {Scope: "app", Value: row.ID}})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, appStateView{viewApp(row), viewShares(shares, row.ID), viewPauses(pauses)})
}

// portfolioStateView is a portfolio with the unique recipients of the last 24 hours; they are counted where there is a limit.
type portfolioStateView struct {
	portfolioView
	Used int64 `json:"used"`
	// NextFreeAt is when a used-up limit lets one more out; null while it is not used up.
	NextFreeAt *time.Time `json:"next_free_at"`
}

func viewPortfolioState(p store.Portfolio, uses []store.PortfolioUse) portfolioStateView {
	v := portfolioStateView{portfolioView: viewPortfolio(p)}
	for _, u := range uses {
		if u.PortfolioID != p.ID {
			continue
		}
		v.Used = u.Used
		if p.UniqueRecipientsPerDay != nil && u.Used >= int64(*p.UniqueRecipientsPerDay) {
			v.NextFreeAt = utc(u.NextFreeAt)
		}
	}
	return v
}

func (a *API) getPortfolio(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	row, err := a.Store.Portfolio(ctx, c.Param("id"))
	if err != nil {
		return err
	}
	uses, err := a.Store.PortfolioUses(ctx, row.ID)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, viewPortfolioState(row, uses))
}
