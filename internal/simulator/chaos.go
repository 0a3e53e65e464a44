package simulator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	defaultStatusLateMS      = 5_000
	defaultStatusDuplicateMS = 5_000
	maxChaosMS               = 3_600_000

	recipientSlots = 1 << 16 // counters of recipients; those whose hashes meet share one
	phoneSlots     = 1 << 12 // counters of phone numbers, likewise
)

// Fault is what chaos does to one request.
type Fault string

// The faults, by the names they have in PUT /_sim/chaos and in the ledger.
const (
	FaultResetUnread       Fault = "reset_unread"
	FaultResetRead         Fault = "reset_read"
	FaultNoBody5xx         Fault = "no_body_5xx"
	FaultGraphUnknown      Fault = "graph_unknown"
	FaultDropAfterAccept   Fault = "drop_after_accept"
	FaultSlowAnswer        Fault = "slow_answer"
	FaultNoBody5xxAccepted Fault = "no_body_5xx_accepted"
)

// faults give each fault a number from 1 on, the same that records hold; 0 is none.
var faults = [...]Fault{
	"", FaultResetUnread, FaultResetRead, FaultNoBody5xx, FaultGraphUnknown,
	FaultDropAfterAccept, FaultSlowAnswer, FaultNoBody5xxAccepted,
}

const (
	faultNone = iota
	faultResetUnread
	faultResetRead
	faultNoBody5xx
	faultGraphUnknown
	faultDropAfterAccept
	faultSlowAnswer
	faultNoBody5xxAccepted
)

// Chaos is which share (0 … 1) of requests and webhooks goes wrong by chance. The zero
// value means none.
//
// What happens to a message follows from Seed, our message id and our try alone, whatever
// else arrives in whatever order; the same try meets the same each time. Where there is no
// id of ours it follows from Seed, the recipient and how many such messages came to it.
// What an error on demand or the recipient's last digits concern is left alone.
type Chaos struct {
	Seed int64 `json:"seed"`
	// ResetUnread resets the connection when the headers are there, without reading the
	// body. The message is then not known: it follows from Seed, the phone number and how
	// many requests came to it, and goes before all else but the token.
	ResetUnread float64 `json:"reset_unread,omitempty"`
	// ResetRead resets the connection when the request was read, and accepts nothing.
	ResetRead float64 `json:"reset_read,omitempty"`
	// DropAfterAccept accepts and resets the connection without an answer.
	DropAfterAccept float64 `json:"drop_after_accept,omitempty"`
	// SlowAnswer accepts and answers only after Config.SlowAnswer.
	SlowAnswer float64 `json:"slow_answer,omitempty"`
	// NoBody5xx answers 502 without a body and accepts nothing; NoBody5xxAccepted answers
	// likewise after the accept.
	NoBody5xx         float64 `json:"no_body_5xx,omitempty"`
	NoBody5xxAccepted float64 `json:"no_body_5xx_accepted,omitempty"`
	// GraphUnknown answers HTTP 500 with the code 1, 2, 131000 or 131016 and accepts
	// nothing.
	GraphUnknown float64 `json:"graph_unknown,omitempty"`

	// StatusLate is the share of statuses posted up to StatusLateMS milliseconds later (0
	// means 5,000; an hour at most). Their timestamps stay.
	StatusLate   float64 `json:"status_late,omitempty"`
	StatusLateMS int64   `json:"status_late_ms,omitempty"`
	// StatusDuplicate is the share of statuses posted twice: half of them at once, half up
	// to StatusDuplicateMS milliseconds later (0 means 5,000; an hour at most).
	StatusDuplicate   float64 `json:"status_duplicate,omitempty"`
	StatusDuplicateMS int64   `json:"status_duplicate_ms,omitempty"`
	// StatusReorder is the share of messages whose statuses come last one first, and after
	// up to four status delays (at least 100 ms) more, so that those of others come before.
	StatusReorder float64 `json:"status_reorder,omitempty"`
	// WebhooksLost is the share of messages that get no webhook ever.
	WebhooksLost float64 `json:"webhooks_lost,omitempty"`
}

func (c Chaos) check() error {
	sum := 0.0
	for _, share := range []struct {
		name  string
		value float64
		one   bool // of those of which a request meets at most one
	}{
		{"reset_unread", c.ResetUnread, false}, {"reset_read", c.ResetRead, true}, {"drop_after_accept", c.DropAfterAccept, true},
		{"slow_answer", c.SlowAnswer, true}, {"no_body_5xx", c.NoBody5xx, true}, {"no_body_5xx_accepted", c.NoBody5xxAccepted, true},
		{"graph_unknown", c.GraphUnknown, true}, {"status_late", c.StatusLate, false}, {"status_duplicate", c.StatusDuplicate, false},
		{"status_reorder", c.StatusReorder, false}, {"webhooks_lost", c.WebhooksLost, false},
	} {
		if !(share.value >= 0 && share.value <= 1) { // NaN is none
			return fmt.Errorf("%s is not a share from 0 to 1", share.name)
		}
		if share.one {
			sum += share.value
		}
	}
	switch {
	case sum > 1+1e-9: // ten tenths are one
		return errors.New("the shares of faults that a request was read for come to more than 1")
	case c.StatusLateMS < 0 || c.StatusLateMS > maxChaosMS:
		return fmt.Errorf("status_late_ms is not from 0 (%d) to %d", defaultStatusLateMS, maxChaosMS)
	case c.StatusDuplicateMS < 0 || c.StatusDuplicateMS > maxChaosMS:
		return fmt.Errorf("status_duplicate_ms is not from 0 (%d) to %d", defaultStatusDuplicateMS, maxChaosMS)
	}
	return nil
}

func (c Chaos) on() bool {
	c.Seed, c.StatusLateMS, c.StatusDuplicateMS = 0, 0, 0
	return c != Chaos{}
}

// chaos is a Chaos in force. Its settings never change; the counters are of what has no
// id of ours.
type chaos struct {
	Chaos
	late, duplicate time.Duration
	byID            []chance // in the order in which they share the interval from 0 to 1
	recipients      [recipientSlots]atomic.Uint32
	phones          [phoneSlots]atomic.Uint32
}

type chance struct {
	fault uint8
	below float64
}

func newChaos(c Chaos) *chaos {
	out := &chaos{Chaos: c, late: orMS(c.StatusLateMS, defaultStatusLateMS), duplicate: orMS(c.StatusDuplicateMS, defaultStatusDuplicateMS)}
	below := 0.0
	for _, f := range []struct {
		fault uint8
		share float64
	}{
		{faultResetRead, c.ResetRead}, {faultNoBody5xx, c.NoBody5xx}, {faultGraphUnknown, c.GraphUnknown},
		{faultDropAfterAccept, c.DropAfterAccept}, {faultSlowAnswer, c.SlowAnswer}, {faultNoBody5xxAccepted, c.NoBody5xxAccepted},
	} {
		below += f.share
		out.byID = append(out.byID, chance{f.fault, below})
	}
	return out
}

func orMS(ms, def int64) time.Duration {
	if ms == 0 {
		ms = def
	}
	return time.Duration(ms) * time.Millisecond
}

// what a draw is for, so that the draws of one message do not follow from each other
const (
	drawFault uint64 = iota + 1
	drawCode
	drawUnread
	drawLost
	drawReorder
	drawOvertaken
	drawStatus = 1 << 8 // plus four for each status: late, by how much, duplicate, by how much
)

// mix is the finalizer of splitmix64: each bit of the result depends on all of x.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// draw is a number from 0 to below 1 that follows from a key and what it is for.
func draw(key, what uint64) float64 { return float64(mix(key^mix(what))>>11) / (1 << 53) }

func hashOf(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return h.Sum64()
}

// key is what all chance of one request follows from.
func (c *chaos) key(m *message) uint64 {
	key := mix(uint64(c.Seed)) //nolint:gosec // any bits do
	if m.ours != (ourID{}) {
		key = mix(key ^ binary.LittleEndian.Uint64(m.ours[:8]))
		key = mix(key ^ binary.LittleEndian.Uint64(m.ours[8:]))
		return mix(key ^ uint64(uint32(m.try))) //nolint:gosec // any bits do
	}
	to := hashOf(m.key())
	return mix(mix(key^to) + uint64(c.recipients[to%recipientSlots].Add(1)))
}

// fault is what happens to the request with that key.
func (c *chaos) fault(key uint64) uint8 {
	at := draw(key, drawFault)
	for _, f := range c.byID {
		if at < f.below {
			return f.fault
		}
	}
	return faultNone
}

// unread says whether the next request to a phone number is reset before its body is read.
func (c *chaos) unread(phoneID string) bool {
	if c.ResetUnread == 0 {
		return false
	}
	to := hashOf(phoneID)
	n := uint64(c.phones[to%phoneSlots].Add(1))
	return draw(mix(mix(uint64(c.Seed))^to)+n, drawUnread) < c.ResetUnread //nolint:gosec // any bits do
}

// graphUnknown are errors after which a client cannot know; Meta's table says 500 of two
// of them, and edges answer 500 with any.
var graphUnknown = func() (out [4]*graphError) {
	for i, code := range [...]int{131000, 1, 2, 131016} {
		out[i] = coded(code, 0, "An unknown error occurred.")
		out[i].status = http.StatusInternalServerError
	}
	return out
}()

var errNoBody = &graphError{status: http.StatusBadGateway, noBody: true}

// errorOf is the error answer of a fault that has one.
func errorOf(fault uint8, key uint64) *graphError {
	switch fault {
	case faultNoBody5xx:
		return errNoBody
	case faultGraphUnknown:
		return graphUnknown[int(draw(key, drawCode)*float64(len(graphUnknown)))]
	}
	return nil
}

// answerOf is how the answer goes out of an accept that a fault meets.
func answerOf(fault uint8) int {
	switch fault {
	case faultDropAfterAccept:
		return answerDropped
	case faultSlowAnswer:
		return answerSlow
	case faultNoBody5xxAccepted:
		return answerBadGateway
	}
	return answerNormal
}

// SetChaos sets what goes wrong by chance, all at once and from the next request on; the
// zero Chaos ends it. Webhooks of messages accepted before stay as they were planned.
// Reset keeps it, and begins its counting of messages without an id of ours anew.
func (s *Server) SetChaos(c Chaos) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("setting chaos: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.on() {
		s.chaos.Store(nil)
		return nil
	}
	s.chaos.Store(newChaos(c))
	return nil
}

// Chaos is what goes wrong by chance now.
func (s *Server) Chaos() Chaos {
	if c := s.chaos.Load(); c != nil {
		return c.Chaos
	}
	return Chaos{}
}

func (s *Server) serveChaos(w http.ResponseWriter, r *http.Request) {
	var in Chaos
	if !readControl(w, r, &in) {
		return
	}
	if err := s.SetChaos(in); err != nil {
		controlError(w, http.StatusBadRequest, err.Error())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
