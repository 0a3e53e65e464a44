package simulator

import (
	"fmt"
	"strings"
	"time"
)

// maxPhones bounds the phone numbers registered by requests alone.
const maxPhones = 100_000

// scope is a phone, WABA, app or a WABA's management calls: its limit and its accepts.
type scope struct {
	id         string
	own        *Limit // nil: the default of its kind
	accepts    history
	windowPeak int // most accepts in the limit's window since the limit was set
	accepted   int64
	throttled  int64
}

func (sc *scope) limit(def Limit) Limit {
	if sc.own != nil {
		return *sc.own
	}
	return def
}

// set sets the scope's own limit; what follows is judged by it.
func (sc *scope) set(limit *Limit) { sc.own, sc.windowPeak = limit, 0 }

// held counts what the limit's window holds; 0 without a limit.
func (sc *scope) held(arrival time.Duration, limit Limit) int {
	if limit.Max <= 0 {
		return 0
	}
	return HeldIn(sc.accepts.live(), arrival, limit.window())
}

// take records an accept; held is what the window held before it.
func (sc *scope) take(arrival time.Duration, limit Limit, held int) {
	sc.accepts.addFor(arrival, limit)
	sc.accepted++
	if limit.Max > 0 {
		sc.windowPeak = max(sc.windowPeak, held+1)
	}
}

func (sc *scope) reset() {
	sc.accepts, sc.windowPeak, sc.accepted, sc.throttled = history{}, 0, 0, 0
}

type phone struct {
	scope
	index     uint32
	cfg       PhoneConfig
	display   string
	waba, app *scope
	pair      *Limit
	own       *number // what calls keep of it; nil: nothing
	inbound   history // times of inbound messages, also of those still to come

	refused, throttledProvoked, throttledPair, received int64

	statuses [statusCount]int64 // distinct per message
}

func (p *phone) pairLimit(def Limit) Limit {
	if p.pair != nil {
		return *p.pair
	}
	return def
}

// held counts what the phone number's window holds: inbound and outbound share it.
func (p *phone) held(arrival time.Duration, limit Limit) int {
	n := p.scope.held(arrival, limit)
	if len(p.inbound.times) > 0 && limit.Max > 0 {
		n += HeldIn(p.inbound.live(), arrival, limit.window())
	}
	return n
}

// scopes holds every limit and decides. The Server's mutex guards it: a decision takes
// about a microsecond, far below what a request costs, and one lock makes "all scopes
// or none" plain.
type scopes struct {
	last                                time.Duration // latest arrival seen
	defPhone, defWABA, defApp, defManag Limit
	phones                              map[string]*phone
	byIndex                             []*phone
	wabas, apps, management             map[string]*scope
	pairs                               pairs
}

func newScopes(cfg Config) scopes {
	return scopes{
		defPhone:   Limit{Max: cfg.PhonePerSecond},
		defWABA:    Limit{Max: cfg.WABAPerSecond},
		defApp:     Limit{Max: cfg.AppPerSecond},
		phones:     map[string]*phone{},
		wabas:      map[string]*scope{},
		apps:       map[string]*scope{},
		management: map[string]*scope{},
		pairs:      newPairs(cfg.Pair),
	}
}

// reset forgets accepts and counters and keeps phones and limits.
func (s *scopes) reset() {
	clear(s.pairs.of)
	for _, p := range s.byIndex {
		p.scope.reset()
		p.inbound = history{}
		p.refused, p.throttledProvoked, p.throttledPair, p.received = 0, 0, 0, 0
		p.statuses = [statusCount]int64{}
	}
	for _, kind := range []map[string]*scope{s.wabas, s.apps, s.management} {
		for _, sc := range kind {
			sc.reset()
		}
	}
}

// phone returns the phone number, registering it with the default limits if need be;
// nil when there are too many.
func (s *scopes) phone(id string) *phone {
	if p := s.phones[id]; p != nil {
		return p
	}
	if len(s.byIndex) >= maxPhones {
		return nil
	}
	p := &phone{scope: scope{id: strings.Clone(id)}, index: uint32(len(s.byIndex)), display: displayNumber(id)} //nolint:gosec // below maxPhones
	p.waba, p.app = shared(s.wabas, "0"), shared(s.apps, "0")
	s.phones[p.id] = p
	s.byIndex = append(s.byIndex, p)
	return p
}

func shared(m map[string]*scope, id string) *scope {
	if id == "" {
		id = "0"
	}
	sc := m[id]
	if sc == nil {
		sc = &scope{id: id}
		m[id] = sc
	}
	return sc
}

func (s *scopes) setPhone(id string, cfg PhoneConfig) {
	p := s.phone(id)
	if p == nil {
		return
	}
	s.describe(p, cfg)
	p.set(nil)
	if cfg.PerSecond != 0 {
		p.set(&Limit{Max: max(cfg.PerSecond, 0)})
	}
}

// describe sets all of a phone number but its limit.
func (s *scopes) describe(p *phone, cfg PhoneConfig) {
	p.cfg = cfg
	p.waba, p.app = shared(s.wabas, cfg.WABAID), shared(s.apps, cfg.AppID)
	if p.display = cfg.DisplayPhoneNumber; p.display == "" {
		p.display = displayNumber(p.id)
	}
}

func (s *scopes) setLimit(kind, id string, limit Limit, now time.Duration) error {
	if kind == "pair" {
		return s.setPair(id, limit, now)
	}
	defaults := map[string]*Limit{"phone": &s.defPhone, "waba": &s.defWABA, "app": &s.defApp, "management": &s.defManag}
	def := defaults[kind]
	switch {
	case def == nil:
		return fmt.Errorf("setting a limit: unknown scope %q (phone, waba, app, pair, management)", kind)
	case id == "":
		*def = limit
		s.judgeAnew(kind)
	case kind == "waba":
		shared(s.wabas, id).set(&limit)
	case kind == "app":
		shared(s.apps, id).set(&limit)
	case kind == "management":
		shared(s.management, id).set(&limit)
	default:
		p := s.phone(id)
		if p == nil {
			return fmt.Errorf("setting the limit of phone %q: too many phones", id)
		}
		p.set(&limit)
	}
	return nil
}

// judgeAnew starts the peaks of the scopes whose default limit has changed.
func (s *scopes) judgeAnew(kind string) {
	if kind == "phone" {
		for _, p := range s.byIndex {
			if p.own == nil {
				p.windowPeak = 0
			}
		}
		return
	}
	for _, sc := range map[string]map[string]*scope{"waba": s.wabas, "app": s.apps, "management": s.management}[kind] {
		if sc.own == nil {
			sc.windowPeak = 0
		}
	}
}

func (s *scopes) setPair(id string, limit Limit, now time.Duration) error {
	if id == "" {
		s.pairs.retune(func(i uint32) bool { return s.byIndex[i].pair == nil }, now, s.pairs.def, limit)
		s.pairs.def = limit
		return nil
	}
	p := s.phone(id)
	if p == nil {
		return fmt.Errorf("setting the pair limit of phone %q: too many phones", id)
	}
	s.pairs.retune(func(i uint32) bool { return i == p.index }, now, p.pairLimit(s.pairs.def), limit)
	p.pair = &limit
	return nil
}

// monotone makes arrivals read by concurrent handlers ascend in the order in which
// they are decided; the shift is the few microseconds between clock and lock.
func (s *scopes) monotone(arrival time.Duration) time.Duration {
	s.last = max(s.last, arrival)
	return s.last
}

// admit checks all four scopes and records the accept in all of them, or in none and
// returns the throttle error with its scope and that scope's id. arrival must come from
// monotone.
func (s *scopes) admit(p *phone, to string, arrival time.Duration) (fault *graphError, kind, id string) {
	phoneLimit, wabaLimit, appLimit := p.limit(s.defPhone), p.waba.limit(s.defWABA), p.app.limit(s.defApp)
	pairLimit := p.pairLimit(s.pairs.def)
	var pr *pair
	if pairLimit.on() {
		pr = s.pairs.get(pairKey{p.index, to}, arrival, s.byIndex)
	}
	inPhone, inWABA, inApp := p.held(arrival, phoneLimit), p.waba.held(arrival, wabaLimit), p.app.held(arrival, appLimit)
	switch {
	case phoneLimit.Max > 0 && inPhone >= phoneLimit.Max:
		p.throttled++
		return errPhoneThrottled, scopePhone, p.id
	case wabaLimit.Max > 0 && inWABA >= wabaLimit.Max:
		p.waba.throttled++
		return errWABAThrottled, scopeWABA, p.waba.id
	case appLimit.Max > 0 && inApp >= appLimit.Max:
		p.app.throttled++
		return errAppThrottled, scopeApp, p.app.id
	case pr != nil && !pr.admits(arrival, pairLimit):
		p.throttledPair++
		return errPairThrottled, scopePair, p.id
	}
	p.take(arrival, phoneLimit, inPhone)
	p.waba.take(arrival, wabaLimit, inWABA)
	p.app.take(arrival, appLimit, inApp)
	if pr != nil {
		pr.take(arrival, pairLimit)
	}
	return nil, "", ""
}

// manage checks and records a management call of a WABA.
func (s *scopes) manage(waba string, arrival time.Duration) *graphError {
	sc := shared(s.management, waba)
	limit := sc.limit(s.defManag)
	held := sc.held(arrival, limit)
	if limit.Max > 0 && held >= limit.Max {
		sc.throttled++
		return errManagementThrottled
	}
	sc.take(arrival, limit, held)
	return nil
}

// displayNumber makes a plausible number of a phone number id, for webhooks.
func displayNumber(id string) string {
	tail := digitsOf(id)
	if len(tail) > 7 {
		tail = tail[len(tail)-7:]
	}
	return "1555" + strings.Repeat("0", 7-len(tail)) + tail
}
