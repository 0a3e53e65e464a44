package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/message"
	"wagate/internal/queue"
	"wagate/internal/store"
)

// laneState is what the owner of a lane publishes of its limits. A rate of 0, or none, is no limit.
type laneState struct {
	Phone     bucketState    `json:"phone"`
	WABA      bucketState    `json:"waba"`
	WABAHour  bucketState    `json:"waba_hour"`
	App       *shareState    `json:"app"`
	Lane      string         `json:"lane"`
	LastError *lastErrorView `json:"last_error"`
}

type bucketState struct {
	InForce *float64    `json:"in_force"`
	Tokens  *float64    `json:"tokens"`
	Slowed  *slowedView `json:"slowed"`
	Inbound float64     `json:"inbound_per_second"`
	Usage   *float64    `json:"usage_factor"`
}

// shareState is a WABA's share of its app's calls, a second; 0 while it has none.
type shareState struct {
	Share *float64   `json:"share"`
	Until *time.Time `json:"until"`
	Usage *float64   `json:"usage_factor"`
}

// share is the WABA's share of its app's calls; nil without a limit.
func (s laneState) share() *float64 {
	if s.App == nil {
		return nil
	}
	return s.App.Share
}

// slowedView says what brought a rate below the configured one: the rate at which it happened, when, and Meta's code.
type slowedView struct {
	Ceiling float64   `json:"ceiling"`
	At      time.Time `json:"at"`
	Code    *int      `json:"code"`
}

type lastErrorView struct {
	Code  int       `json:"code"`
	Title string    `json:"title"`
	At    time.Time `json:"at"`
}

// readState reads the state of a lane; what is old, or of another form, says nothing.
func readState(l store.LaneStat) laneState {
	var s laneState
	if !l.Fresh || json.Unmarshal(l.State, &s) != nil {
		return laneState{}
	}
	if s.Phone.Slowed != nil {
		s.Phone.Slowed.Code = l.SlowedCode
	}
	if s.WABA.Slowed != nil {
		s.WABA.Slowed.Code = l.WABASlowedCode
	}
	return s
}

// resting fills in what is in force in a lane of which its owner has said nothing for a while, since it rests: the
// configured limits, but for one that a throttle has lowered.
func (s laneState) resting(l store.LaneStat, p store.PhoneNumber, w store.WABA) laneState {
	if l.Fresh {
		return s
	}
	if l.SlowedCode == nil {
		s.Phone.InForce = p.MessagesPerSecond
	}
	if l.WABASlowedCode == nil {
		s.WABA.InForce = w.MessagesPerSecond
	}
	s.WABAHour.InForce = w.MessagesPerHour
	return s
}

// some is a rate, or nil for none.
func some(f *float64) *float64 {
	if f == nil || *f <= 0 {
		return nil
	}
	return f
}

// budgetView is one budget: what is configured, and what is in force. Null is none, or not known: tokens are while the lane
// rests.
type budgetView struct {
	Configured *float64    `json:"configured"`
	InForce    *float64    `json:"in_force"`
	Tokens     *float64    `json:"tokens"`
	Slowed     *slowedView `json:"slowed"`
	// Usage is the part of the rate that Meta's usage headers leave; 1 is all of it.
	Usage *float64 `json:"usage_factor"`
}

func viewBudget(configured *float64, s bucketState) budgetView {
	v := budgetView{Configured: configured, InForce: some(s.InForce), Slowed: s.Slowed, Usage: s.Usage}
	if configured != nil || v.InForce != nil {
		v.Tokens = s.Tokens
	}
	return v
}

// appBudgetView is what a WABA may send a second of its app's calls, until the share is leased anew.
type appBudgetView struct {
	AppID string     `json:"app_id"`
	Share *float64   `json:"share"`
	Until *time.Time `json:"until"`
	Usage *float64   `json:"usage_factor"`
}

func viewAppBudget(w store.WABA, s laneState) *appBudgetView {
	if w.AppID == nil {
		return nil
	}
	v := &appBudgetView{AppID: *w.AppID}
	if s.App != nil {
		v.Share, v.Until, v.Usage = s.App.Share, utc(s.App.Until), s.App.Usage
	}
	return v
}

type phoneLimitsView struct {
	budgetView
	Burst           int            `json:"burst"`
	Pair            *pairView      `json:"pair"`
	Source          string         `json:"source"`
	ChangedAt       *time.Time     `json:"changed_at"`
	MetaPerSecond   float64        `json:"meta_per_second"`
	ThroughputLevel *string        `json:"throughput_level"`
	QualityRating   *string        `json:"quality_rating"`
	Inbound         float64        `json:"inbound_per_second"`
	WABA            budgetView     `json:"waba"`
	WABAHour        budgetView     `json:"waba_hour"`
	App             *appBudgetView `json:"app"`
}

func viewPhoneLimits(p store.PhoneNumber, w store.WABA, s laneState) phoneLimitsView {
	v := phoneLimitsView{
		budgetView: viewBudget(p.MessagesPerSecond, s.Phone), Burst: p.Burst, Source: p.LimitSource, ChangedAt: utc(p.LimitChangedAt),
		MetaPerSecond: p.MetaPerSecond, ThroughputLevel: p.ThroughputLevel, QualityRating: p.QualityRating, Inbound: s.Phone.Inbound,
		WABA: viewBudget(w.MessagesPerSecond, s.WABA), WABAHour: viewBudget(w.MessagesPerHour, s.WABAHour),
	}
	if p.PairSeconds != nil {
		v.Pair = &pairView{*p.PairSeconds, p.PairBurst}
	}
	v.App = viewAppBudget(w, s)
	return v
}

// phoneStateView is a phone number with what is in force, what holds it back and what waits.
type phoneStateView struct {
	phoneView
	Limits       phoneLimitsView  `json:"limits"`
	Tokens       *float64         `json:"tokens"`
	PerSecond    *float64         `json:"per_second"`
	Pauses       []pauseView      `json:"pauses"`
	Backlog      map[string]int64 `json:"backlog"`
	Held         map[string]int64 `json:"held"`
	DrainSeconds *float64         `json:"drain_seconds"`
	LastError    *lastErrorView   `json:"last_error"`
	Lane         string           `json:"lane,omitempty"`
	Owner        *string          `json:"owner"`
	PublishedAt  *time.Time       `json:"published_at"`
	standingView
}

func (a *API) getPhoneNumber(c echo.Context, key access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	id := c.Param("id")
	if !key.MayUse(id) {
		return store.ErrNotFound
	}
	row, err := a.Store.PhoneNumber(ctx, id)
	if err != nil {
		return err
	}
	waba, err := a.Store.WABA(ctx, row.WABAID)
	if err != nil {
		return err
	}
	stats, err := a.Store.LaneStats(ctx, row.WABAID)
	if err != nil {
		return err
	}
	phones, err := a.Store.PhoneNumbers(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(stats, func(l store.LaneStat) bool { return l.PhoneNumberID == id })
	if i < 0 {
		return store.ErrNotFound
	}
	lane := stats[i]
	pauses, err := a.Store.PausesOf(ctx, []store.Scoped{{Scope: "all"}, {Scope: "app", Value: lane.AppID}, {Scope: "waba", Value: row.WABAID}, {Scope: "phone", Value: id}})
	if err != nil {
		return err
	}
	held, err := a.Store.HeldCounts(ctx, row.WABAID)
	if err != nil {
		return err
	}
	waiting, err := a.backlog(ctx, lane, held)
	if err != nil {
		return err
	}
	state := readState(lane).resting(lane, row, waba)
	view := phoneStateView{
		phoneView: viewPhone(row), Limits: viewPhoneLimits(row, waba, state), Tokens: state.Phone.Tokens, Pauses: viewPauses(pauses),
		Backlog: byPriority(waiting), Held: map[string]int64{}, LastError: state.LastError, Lane: state.Lane,
	}
	view.Owner, view.PublishedAt = published(lane)
	view.PerSecond = laneRates(stats, byID(phones), waba)[id]
	view.DrainSeconds = drain(sum(waiting), view.PerSecond)
	for _, h := range held {
		if h.PhoneNumberID == id {
			view.Held[h.Kind] += h.Messages
		}
	}
	if view.standingView, err = a.standing(ctx, "phone", id); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, view)
}

// backlog counts what waits in a lane, held messages too: exactly while that costs little, else as its owner keeps count.
func (a *API) backlog(ctx context.Context, lane store.LaneStat, held []store.HeldCounts) ([4]int64, error) {
	if a.Backlog == nil {
		return lane.Waiting, nil
	}
	jobs, err := a.Backlog(ctx, lane.PhoneNumberID)
	if err != nil {
		return lane.Waiting, err
	}
	var exact, mine [4]int64
	var looked int64
	for _, h := range held {
		looked += h.Messages
		if h.PhoneNumberID == lane.PhoneNumberID && h.Priority >= 1 && h.Priority <= len(mine) {
			mine[h.Priority-1] += h.Messages
		}
	}
	for i := range exact {
		n := jobs[i+1]
		exact[i] = n + mine[i]
		if n >= queue.BacklogBound || looked >= store.HeldBound {
			exact[i] = max(exact[i], lane.Waiting[i])
		}
	}
	return exact, nil
}

// published gives who owns a lane and when it last said how the lane stands.
func published(l store.LaneStat) (owner *string, at *time.Time) {
	if l.Fresh {
		owner = l.WorkerID
	}
	return owner, utc(l.PublishedAt)
}

// laneRates gives what each lane of a WABA may send a second: by its owner's word, else by the configured limits. What the
// WABA may send goes to its lanes with a backlog by max-min fairness. Nil is no limit.
func laneRates(stats []store.LaneStat, phones map[string]store.PhoneNumber, w store.WABA) map[string]*float64 {
	rates := make(map[string]*float64, len(stats))
	budget := lowest(w.MessagesPerSecond, hourly(w.MessagesPerHour))
	var busy []store.LaneStat
	for _, l := range stats {
		rates[l.PhoneNumberID] = phones[l.PhoneNumberID].MessagesPerSecond
		if l.Fresh {
			state := readState(l)
			rates[l.PhoneNumberID] = l.PerSecond
			budget = lowest(budget, some(state.WABA.InForce), hourly(some(state.WABAHour.InForce)), state.share())
		}
		if sum(l.Waiting) > 0 {
			busy = append(busy, l)
		}
	}
	if budget == nil {
		return rates
	}
	for id, r := range rates {
		rates[id] = lowest(r, budget)
	}
	slices.SortFunc(busy, func(a, b store.LaneStat) int { return cmp.Compare(*rates[a.PhoneNumberID], *rates[b.PhoneNumberID]) })
	left := *budget
	for i, l := range busy {
		r := min(*rates[l.PhoneNumberID], left/float64(len(busy)-i))
		rates[l.PhoneNumberID] = &r
		left -= r
	}
	return rates
}

// drain gives how long a backlog takes at a rate; nil is no limit, or no end in sight.
func drain(waiting int64, perSecond *float64) *float64 {
	if waiting == 0 {
		return new(float64)
	}
	if perSecond == nil || *perSecond <= 0 {
		return nil
	}
	s := float64(waiting) / *perSecond
	return &s
}

func hourly(perHour *float64) *float64 {
	if perHour == nil {
		return nil
	}
	s := *perHour / 3600
	return &s
}

// lowest gives the lowest limit; nil when all are none.
func lowest(limits ...*float64) (low *float64) {
	for _, l := range limits {
		if l != nil && (low == nil || *l < *low) {
			low = l
		}
	}
	return low
}

func sum(waiting [4]int64) (n int64) {
	for _, w := range waiting {
		n += w
	}
	return n
}

func byPriority(waiting [4]int64) map[string]int64 {
	m := make(map[string]int64, len(waiting))
	for i, n := range waiting {
		m[message.Priority(i+1).String()] = n
	}
	return m
}

func viewPauses(pauses []store.KeptPause) []pauseView {
	views := make([]pauseView, len(pauses))
	for i, p := range pauses {
		views[i] = viewPause(p)
	}
	return views
}
