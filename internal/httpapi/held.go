package httpapi

import (
	"time"

	"wagate/internal/message"
	"wagate/internal/store"
)

// heldView names what a queued message waits for.
type heldView struct {
	// Kind is pause, what the message waits for of its own (pair, ordering, window, recipients, recipient, template, flow, tag,
	// key, priority), send_at, backlog (others go before it) or rate (it is next, and its budget is used up).
	Kind   string `json:"kind"`
	Scope  string `json:"scope,omitempty"`
	Value  string `json:"value,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Until is when it goes on; of a backlog, at the latest, should the rate stay: all of its own priority counts as before it.
	Until *time.Time `json:"until"`
	Since *time.Time `json:"since,omitempty"`
}

// heldBy says what a message waits for, the last word first: a pause, its own hold, its time, its lane.
func heldBy(m store.Message) *heldView {
	switch {
	case m.Status != string(message.Queued):
		return nil
	case m.Held != nil:
		return &heldView{Kind: "pause", Scope: m.Held.Scope, Value: m.Held.Value, Reason: m.Held.Reason, Until: utc(m.Held.Until)}
	case m.Hold != nil:
		since := m.Hold.Since.UTC()
		return &heldView{Kind: m.Hold.Kind, Value: m.Hold.Value, Until: utc(m.Hold.Until), Since: &since}
	case m.SendAt != nil && m.Tries == 0 && m.SendAt.After(m.SeenAt):
		return &heldView{Kind: "send_at", Until: utc(m.SendAt)}
	case m.Lane != nil:
		return heldByLane(m, *m.Lane)
	}
	return nil
}

// heldByLane says which budget a message waits for in its lane, and until when: nil when it goes within a second, or
// nobody knows.
func heldByLane(m store.Message, lane store.LaneStat) *heldView {
	if !lane.Fresh {
		return nil
	}
	ahead := int64(-1) // itself
	for p := range min(m.Priority, len(lane.Waiting)) {
		ahead += lane.Waiting[p]
	}
	ahead = max(ahead, 0)
	v := &heldView{Kind: "rate"}
	if ahead > 0 {
		v.Kind = "backlog"
	}
	state := readState(lane)
	if state.App != nil && state.App.Share != nil && *state.App.Share <= 0 { // until it has one again
		v.Scope, v.Value = "app", lane.AppID
		return v
	}
	scope, value, rate := tightest(lane, state, m.BusyLanes)
	wait := float64(ahead+1) / rate
	if rate <= 0 || wait < 1 {
		return nil
	}
	until := m.SeenAt.UTC().Add(time.Duration(min(wait, 1e9) * float64(time.Second))).Truncate(time.Millisecond)
	v.Scope, v.Value, v.Until = scope, value, &until
	return v
}

// tightest names the budget that decides a lane's rate, and that rate; 0 without a limit. What the WABA may send is shared
// by its lanes with a backlog.
func tightest(lane store.LaneStat, state laneState, busy int) (scope, value string, rate float64) {
	lanes := float64(max(busy, 1))
	for _, b := range []struct {
		scope, value string
		rate         *float64
	}{
		{"phone", lane.PhoneNumberID, state.Phone.InForce}, {"waba", lane.WABAID, times(state.WABA.InForce, 1/lanes)},
		{"waba_hour", lane.WABAID, times(hourly(state.WABAHour.InForce), 1/lanes)}, {"app", lane.AppID, times(state.share(), 1/lanes)},
	} {
		if b.rate != nil && *b.rate > 0 && (rate == 0 || *b.rate < rate) {
			scope, value, rate = b.scope, b.value, *b.rate
		}
	}
	return scope, value, rate
}

func times(f *float64, by float64) *float64 {
	if f == nil {
		return nil
	}
	g := *f * by
	return &g
}
