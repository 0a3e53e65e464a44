package simulator

import (
	"net/http"
	"time"
)

// keptRefusals are the refusals remembered one by one; older ones are only counted.
const keptRefusals = 131_072

// what refused a request: a limit, or one of the last four
const (
	scopePhone      = "phone"
	scopeWABA       = "waba"
	scopeApp        = "app"
	scopePair       = "pair"
	scopeManagement = "management"
	scopeDigits     = "digits"  // the recipient's last digits
	scopeError      = "error"   // a rule of SetError
	scopeChaos      = "chaos"   // chance, by SetChaos
	scopeRequest    = "request" // the token, the body, or what management has against it
)

// Refusal is one error answer to a message or management request.
type Refusal struct {
	Seq  int64 `json:"seq"`   // to page on from
	AtMS int64 `json:"at_ms"` // arrival, milliseconds since the simulator's start
	// Phone is the phone number id; empty for a management call.
	Phone string `json:"phone"`
	// Scope is what refused: the limit of a phone, waba, app, pair or management, or
	// digits, error (on demand), chaos or request (its token or body, a template, file, number
	// or block list).
	Scope string `json:"scope"`
	// ID is the scope's id; for pair, digits, error, chaos and request the phone's.
	ID   string `json:"id"`
	Code int    `json:"code"` // of the error; the HTTP status where there was no body
}

// refusalLog is a ring of the newest refusals. The Server's mutex guards it.
type refusalLog struct {
	ring []Refusal
	last int64 // sequence number of the newest
}

func (l *refusalLog) add(r Refusal) {
	l.last++
	r.Seq = l.last
	if len(l.ring) < keptRefusals {
		l.ring = append(l.ring, r)
		return
	}
	l.ring[(r.Seq-1)%keptRefusals] = r
}

// at is a refusal that is still kept.
func (l *refusalLog) at(seq int64) Refusal { return l.ring[(seq-1)%keptRefusals] }

// first is the sequence number of the oldest kept.
func (l *refusalLog) first() int64 { return l.last - int64(len(l.ring)) + 1 }

// Refusals returns refusals in the order of their sequence numbers (from 1), those after
// the given one, at most limit (1 … 10,000). The newest 131,072 are kept, also over a
// Reset.
func (s *Server) Refusals(after int64, limit int) []Refusal {
	limit = min(max(limit, 1), 10_000)
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.refusals
	from := max(after+1, l.first())
	out := make([]Refusal, 0, min(int64(limit), max(l.last-from+1, 0)))
	for seq := from; seq <= l.last && len(out) < limit; seq++ {
		out = append(out, l.at(seq))
	}
	return out
}

// Elapsed is the time since the simulator's start, on the clock of Refusal.AtMS and
// Rates.
func (s *Server) Elapsed() time.Duration { return s.now() }

// serveRefusals pages through the refusals, of one scope if the request names it; next
// is the after of the following page.
func (s *Server) serveRefusals(w http.ResponseWriter, r *http.Request) {
	after, limit, ok := readPage(w, r)
	if !ok {
		return
	}
	scope := r.URL.Query().Get("scope")
	switch scope {
	case "", scopePhone, scopeWABA, scopeApp, scopePair, scopeManagement, scopeDigits, scopeError, scopeChaos, scopeRequest:
	default:
		controlError(w, http.StatusBadRequest, "scope is none of phone, waba, app, pair, management, digits, error, chaos, request")
		return
	}
	page := struct {
		Refusals []Refusal `json:"refusals"`
		Next     int64     `json:"next"`
		NowMS    int64     `json:"now_ms"`
	}{[]Refusal{}, after, s.now().Milliseconds()}
	for _, ref := range s.Refusals(after, limit) {
		if scope == "" || ref.Scope == scope {
			page.Refusals = append(page.Refusals, ref)
		}
		page.Next = ref.Seq
	}
	writeJSON(w, http.StatusOK, page)
}
