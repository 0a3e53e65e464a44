package simulator

import (
	"fmt"
	"strings"
	"time"
)

// maxPhones bounds the phone numbers registered by requests alone.
const maxPhones = 100_000

// scope is a phone, WABA or app: its limit and its accepts.
type scope struct {
	id        string
	own       *Limit // nil: the default of its kind
	accepts   history
	accepted  int64
	throttled int64
}

func (sc *scope) limit(def Limit) Limit {
	if sc.own != nil {
		return *sc.own
	}
	return def
}

type phone struct {
	scope
	index     uint32
	display   string
	waba, app *scope
	pair      *Limit

	refused, throttledProvoked int64
	statuses                   [statusCount]int64 // distinct per message
}

type pairKey struct {
	phone uint32
	to    string
}

// scopes holds every limit and decides. The Server's mutex guards it: a decision takes
// about a microsecond, far below what a request costs, and one lock makes "all scopes
// or none" plain.
type scopes struct {
	last                             time.Duration // latest arrival seen
	defPhone, defWABA, defApp, defPr Limit
	phones                           map[string]*phone
	byIndex                          []*phone
	wabas, apps                      map[string]*scope
	pairs                            map[pairKey]*history
	sweepAt                          int // size of pairs at which old ones are swept
}

func newScopes(cfg Config) scopes {
	return scopes{
		defPhone: Limit{Max: cfg.PhonePerSecond},
		defWABA:  Limit{Max: cfg.WABAPerSecond},
		defApp:   Limit{Max: cfg.AppPerSecond},
		defPr:    cfg.Pair,
		phones:   map[string]*phone{},
		wabas:    map[string]*scope{},
		apps:     map[string]*scope{},
		pairs:    map[pairKey]*history{},
		sweepAt:  4096,
	}
}

// reset forgets accepts and counters and keeps phones and limits.
func (s *scopes) reset() {
	clear(s.pairs)
	clean := func(sc *scope) { sc.accepts, sc.accepted, sc.throttled = history{}, 0, 0 }
	for _, p := range s.byIndex {
		clean(&p.scope)
		p.refused, p.throttledProvoked = 0, 0
		p.statuses = [statusCount]int64{}
	}
	for _, w := range s.wabas {
		clean(w)
	}
	for _, a := range s.apps {
		clean(a)
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
	p.waba, p.app = shared(s.wabas, cfg.WABAID), shared(s.apps, cfg.AppID)
	if p.display = cfg.DisplayPhoneNumber; p.display == "" {
		p.display = displayNumber(id)
	}
	p.own = nil
	if cfg.PerSecond != 0 {
		p.own = &Limit{Max: max(cfg.PerSecond, 0)}
	}
}

func (s *scopes) setLimit(kind, id string, limit Limit) error {
	defaults := map[string]*Limit{"phone": &s.defPhone, "waba": &s.defWABA, "app": &s.defApp, "pair": &s.defPr}
	def := defaults[kind]
	switch {
	case def == nil:
		return fmt.Errorf("setting a limit: unknown scope %q (phone, waba, app, pair)", kind)
	case id == "":
		*def = limit
	case kind == "waba":
		shared(s.wabas, id).own = &limit
	case kind == "app":
		shared(s.apps, id).own = &limit
	default:
		p := s.phone(id)
		if p == nil {
			return fmt.Errorf("setting the limit of phone %q: too many phones", id)
		}
		if kind == "pair" {
			p.pair = &limit
		} else {
			p.own = &limit
		}
	}
	return nil
}

// monotone makes arrivals read by concurrent handlers ascend in the order in which
// they are decided; the shift is the few microseconds between clock and lock.
func (s *scopes) monotone(arrival time.Duration) time.Duration {
	s.last = max(s.last, arrival)
	return s.last
}

// admit checks all four scopes and records the accept in all of them, or in none and
// returns the throttle error. arrival must come from monotone.
func (s *scopes) admit(p *phone, to string, arrival time.Duration) *graphError {
	phoneLimit, wabaLimit, appLimit := p.limit(s.defPhone), p.waba.limit(s.defWABA), p.app.limit(s.defApp)
	pairLimit := s.defPr
	if p.pair != nil {
		pairLimit = *p.pair
	}
	var pair *history
	if pairLimit.Max > 0 {
		pair = s.pair(pairKey{p.index, to}, arrival, pairLimit.window())
	}
	switch {
	case !Admits(p.accepts.live(), arrival, phoneLimit):
		p.throttled++
		return errPhoneThrottled
	case !Admits(p.waba.accepts.live(), arrival, wabaLimit):
		p.waba.throttled++
		return errWABAThrottled
	case !Admits(p.app.accepts.live(), arrival, appLimit):
		p.app.throttled++
		return errAppThrottled
	case pair != nil && !Admits(pair.live(), arrival, pairLimit):
		return errPairThrottled
	}
	p.accepts.add(arrival, phoneLimit.window())
	p.waba.accepts.add(arrival, wabaLimit.window())
	p.app.accepts.add(arrival, appLimit.window())
	if pair != nil {
		pair.add(arrival, pairLimit.window())
	}
	p.accepted++
	p.waba.accepted++
	p.app.accepted++
	return nil
}

// pair finds a pair's accepts. Pairs that have been quiet for a window are swept each
// time their number has doubled, so their memory follows what is in use.
func (s *scopes) pair(key pairKey, now, window time.Duration) *history {
	if h := s.pairs[key]; h != nil {
		return h
	}
	if len(s.pairs) >= s.sweepAt {
		for k, h := range s.pairs {
			if live := h.live(); len(live) == 0 || live[len(live)-1] <= now-window {
				delete(s.pairs, k)
			}
		}
		s.sweepAt = max(4096, 2*len(s.pairs))
	}
	h := &history{}
	s.pairs[pairKey{key.phone, strings.Clone(key.to)}] = h
	return h
}

// displayNumber makes a plausible number of a phone number id, for webhooks.
func displayNumber(id string) string {
	tail := digitsOf(id)
	if len(tail) > 7 {
		tail = tail[len(tail)-7:]
	}
	return "1555" + strings.Repeat("0", 7-len(tail)) + tail
}
