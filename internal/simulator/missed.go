package simulator

import (
	"net/http"
	"time"
)

// keptMisses are the misses remembered one by one.
const keptMisses = 131_072

// Miss is a message of ours that arrived and was not accepted.
type Miss struct {
	Seq           int64  `json:"seq"` // to page on from
	OurID         string `json:"our_id"`
	Try           int    `json:"try"`
	Phone         string `json:"phone"`
	ArrivalUnixNS int64  `json:"arrival_unix_ns"`
	Worker        string `json:"worker,omitempty"`
	// What became of it: a Fault, or as in Refusal.Scope what refused it (digits with the
	// code 0: the connection was reset).
	What string `json:"what"`
	Code int    `json:"code,omitempty"` // of the error; the HTTP status where there was no body
}

type miss struct {
	ours     ourID
	oursText string
	arrival  time.Duration
	what     string // a constant
	try      int32
	code     int32
	phone    uint32
	worker   uint32
}

// missLog is a ring of the newest misses. The Server's mutex guards it.
type missLog struct {
	ring    []miss
	base    int64 // sequence number before the first
	last    int64 // sequence number of the newest
	workers names
}

// newMissLog makes an empty one whose sequence numbers go on after last.
func newMissLog(last int64) missLog {
	return missLog{base: last, last: last, workers: names{index: map[string]uint32{}}}
}

// add records a message that was not accepted, if it carries an id of ours.
func (l *missLog) add(r *request, what string, code int) {
	if r.m.ours == (ourID{}) {
		return
	}
	m := miss{
		ours: r.m.ours, oursText: r.m.oursText, arrival: r.at, what: what, try: r.m.try, phone: r.p.index, worker: l.workers.of(r.worker),
		code: int32(code), //nolint:gosec // of eight digits at most
	}
	if len(l.ring) < keptMisses {
		l.ring = append(l.ring, m)
	} else {
		l.ring[(l.last-l.base)%keptMisses] = m
	}
	l.last++
}

// Missed returns messages of ours that arrived and were not accepted, in the order of
// their sequence numbers (from 1), those after the given one, at most limit (1 … 10,000).
// The newest 131,072 since Reset are kept; the sequence numbers go on over a Reset. A
// connection that was reset unread is here if our id had come along with the headers, as it
// does in requests up to about 4,000 bytes.
func (s *Server) Missed(after int64, limit int) []Miss {
	limit = min(max(limit, 1), 10_000)
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.missed
	from := max(after, l.last-int64(len(l.ring)))
	out := make([]Miss, 0, min(int64(limit), max(l.last-from, 0)))
	for seq := from + 1; seq <= l.last && len(out) < limit; seq++ {
		m := &l.ring[(seq-1-l.base)%keptMisses]
		out = append(out, Miss{
			Seq: seq, OurID: idText(m.ours, m.oursText), Try: int(m.try), Phone: s.scopes.byIndex[m.phone].id,
			ArrivalUnixNS: s.epoch.Add(m.arrival).UnixNano(), Worker: l.workers.list[m.worker], What: m.what, Code: int(m.code),
		})
	}
	return out
}

func idText(id ourID, text string) string {
	if text != "" {
		return text
	}
	return id.String()
}

// serveMissed pages through the misses; next is the after of the following page.
func (s *Server) serveMissed(w http.ResponseWriter, r *http.Request) {
	after, limit, ok := readPage(w, r)
	if !ok {
		return
	}
	page := struct {
		Missed []Miss `json:"missed"`
		Next   int64  `json:"next"`
	}{s.Missed(after, limit), after}
	if n := len(page.Missed); n > 0 {
		page.Next = page.Missed[n-1].Seq
	}
	writeJSON(w, http.StatusOK, page)
}
