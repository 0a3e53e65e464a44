package limiter

import "time"

// State is what is in force for a phone number, for people to read.
type State struct {
	Phone ScopeState `json:"phone"`
	WABA  ScopeState `json:"waba"`
	// WABAHour has messages an hour in Configured and InForce.
	WABAHour ScopeState `json:"waba_hour"`
	// App is the WABA's share of its app's calls.
	App  ScopeState `json:"app"`
	Pair PairState  `json:"pair"`
}

// ScopeState is one bucket. Rates are messages a second, 0 for no limit.
type ScopeState struct {
	Configured float64 `json:"configured"`
	InForce    float64 `json:"in_force"`
	Burst      int     `json:"burst"`
	// Tokens held now; below zero while slots are taken ahead.
	Tokens  float64 `json:"tokens"`
	Inbound float64 `json:"inbound,omitempty"`
	// Ceiling is the rate at which it was throttled, SlowedAt when; zero when it is not slowed.
	Ceiling  float64   `json:"ceiling,omitempty"`
	SlowedAt time.Time `json:"slowed_at,omitzero"`
	// Usage is the factor of the usage headers, 1 when they hold nothing back.
	Usage        float64   `json:"usage"`
	BlockedUntil time.Time `json:"blocked_until,omitzero"`
	// Probing: one try goes, or is out, to see whether a throttle is over.
	Probing bool `json:"probing,omitempty"`
	// Leased: it is a share that lets nothing out from LeasedUntil on (zero: without end).
	Leased      bool      `json:"leased,omitempty"`
	LeasedUntil time.Time `json:"leased_until,omitzero"`
}

// PairState is the limit for one recipient: a token every so many seconds (0: none), Burst at most.
type PairState struct {
	Seconds float64 `json:"seconds"`
	Burst   int     `json:"burst"`
	// Known recipients are kept in memory, the rest have a full bucket or what is presumed of every one.
	Known int `json:"known"`
}

// State gives what is in force for a phone number at now; its own part is zero when it was not set.
func (b *Budget) State(phoneNumberID string, now time.Time) State {
	s := State{WABA: b.waba.state(now), App: b.app.state(now)}
	s.App.Leased, s.App.LeasedUntil = b.app.leased, b.app.until
	if b.app.lapsed(now) {
		s.App.InForce = 0
		if b.app.lim != nil {
			s.App.Tokens = b.app.tokens(b.app.until)
		}
	}
	s.WABAHour = ScopeState{Configured: b.hourRate, InForce: b.hourRate, Usage: 1, Tokens: b.hour.tokens(now)}
	if b.hourRate > 0 {
		s.WABAHour.Burst = 1
	}
	if p := b.phones[phoneNumberID]; p != nil {
		s.Phone = p.state(now)
		s.Phone.Inbound = p.inbound
		s.Pair = PairState{Seconds: p.pairs.every.Seconds(), Burst: p.pairs.burst, Known: len(p.pairs.known)}
	}
	return s
}

func (s *scope) state(now time.Time) ScopeState {
	st := ScopeState{Configured: s.conf.PerSecond, Tokens: s.tokens(now), Usage: s.usage.factor(now), BlockedUntil: s.blocked, Probing: s.probe == probeArmed}
	if s.lim != nil {
		st.InForce, st.Burst = s.limit.PerSecond, s.limit.Burst
	}
	if s.slow != nil {
		st.Ceiling, st.SlowedAt = s.slow.Ceiling, s.slow.At
	}
	if s.probe == probeOut {
		st.Probing = now.Before(s.probeSlot.Add(probeTimeout))
	}
	if !s.blocked.After(now) {
		st.BlockedUntil = time.Time{}
	}
	return st
}
