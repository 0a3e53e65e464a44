package simulator

import (
	"cmp"
	"slices"
)

// Totals count everything since the start or the last reset.
type Totals struct {
	// Accepted counts messages the Cloud API took, answered or not.
	Accepted int64 `json:"accepted"`
	// Refused counts all error answers to message requests; those below say why.
	Refused           int64 `json:"refused"`
	ThrottledLimit    int64 `json:"throttled_limit"`    // by a rate limit: the sum of the next four
	ThrottledPhone    int64 `json:"throttled_phone"`    // 130429
	ThrottledWABA     int64 `json:"throttled_waba"`     // 80007
	ThrottledApp      int64 `json:"throttled_app"`      // 4
	ThrottledPair     int64 `json:"throttled_pair"`     // 131056
	ThrottledProvoked int64 `json:"throttled_provoked"` // by the recipient's last digits
	Invalid           int64 `json:"invalid"`            // 100, 131008
	Undeliverable     int64 `json:"undeliverable"`      // 131026
	Unauthorized      int64 `json:"unauthorized"`       // 190
	ServerErrors      int64 `json:"server_errors"`      // 131000
	ErrorsOnDemand    int64 `json:"errors_on_demand"`   // by SetError, whatever the code
	// FailuresOnDemand counts accepts that SetError lets fail by webhook.
	FailuresOnDemand int64 `json:"failures_on_demand"`
	// ManagementCalls were answered, ThrottledManagement refused with 80008; neither is
	// in Refused.
	ManagementCalls     int64 `json:"management_calls"`
	ThrottledManagement int64 `json:"throttled_management"`
	// Resets counts connections reset before an accept.
	Resets int64 `json:"resets"`
	// DroppedAnswers, BadGateways and SlowAnswers are accepts whose answer was not
	// given, was a 502, or came late.
	DroppedAnswers int64 `json:"dropped_answers"`
	BadGateways    int64 `json:"bad_gateways"`
	SlowAnswers    int64 `json:"slow_answers"`
	// Duplicates counts our message ids accepted more than once, ExtraAccepts the
	// accepts beyond the first of each.
	Duplicates   int64 `json:"duplicates"`
	ExtraAccepts int64 `json:"extra_accepts"`
	// DuplicateStatuses counts statuses posted again that had been taken before.
	DuplicateStatuses int64 `json:"duplicate_statuses"`
	// WebhookPosts counts POSTs answered 200, WebhookRetries those that were not.
	WebhookPosts   int64 `json:"webhook_posts"`
	WebhookRetries int64 `json:"webhook_retries"`
	// Inbound counts inbound messages made, InboundPosted those taken with a 200,
	// NoticesPosted notifications taken with a 200.
	Inbound       int64 `json:"inbound"`
	InboundPosted int64 `json:"inbound_posted"`
	NoticesPosted int64 `json:"notices_posted"`
	// StatusesPosted were taken with a 200. StatusesDiscarded had no webhook URL,
	// StatusesLost were given up (retries over, or the queue full), in both inbound
	// messages and notifications too.
	StatusesPosted    int64 `json:"statuses_posted"`
	StatusesDiscarded int64 `json:"statuses_discarded"`
	StatusesLost      int64 `json:"statuses_lost"`
	// StatusesPending are still to come, inbound messages and notifications too: not
	// due, held, queued or on the wire.
	StatusesPending int64 `json:"statuses_pending"`
	// InFlight are the message requests under way now: begun, and not yet answered or cut.
	InFlight int64 `json:"in_flight"`
}

// StatusCounts are messages whose status of that name was posted.
type StatusCounts struct {
	Sent      int64 `json:"sent"`
	Delivered int64 `json:"delivered"`
	Read      int64 `json:"read"`
	Played    int64 `json:"played"`
	Failed    int64 `json:"failed"`
}

// PhoneCounts is one phone number in the ledger.
type PhoneCounts struct {
	ID                string       `json:"id"`
	WABAID            string       `json:"waba_id"`
	AppID             string       `json:"app_id"`
	Accepted          int64        `json:"accepted"`
	Refused           int64        `json:"refused"`
	ThrottledLimit    int64        `json:"throttled_limit"`
	ThrottledProvoked int64        `json:"throttled_provoked"`
	ThrottledPair     int64        `json:"throttled_pair"`
	Inbound           int64        `json:"inbound"`         // inbound messages made
	PeakPerSecond     int          `json:"peak_per_second"` // most accepts in any sliding second
	Statuses          StatusCounts `json:"statuses"`        // distinct per message, as posted
	// LimitCounts: inbound messages count in the window of a phone number.
	LimitCounts
}

// LimitCounts are a scope's limit in force and how far it was used.
type LimitCounts struct {
	Limit    int   `json:"limit"` // 0: none
	WindowMS int64 `json:"window_ms"`
	// PeakInWindow is the most that the limit's window held at an accept since the
	// limit was set; 0 without a limit.
	PeakInWindow int `json:"peak_in_window"`
}

// ScopeCounts is one WABA, app or WABA's management calls in the ledger.
type ScopeCounts struct {
	ID             string `json:"id"`
	Accepted       int64  `json:"accepted"`
	ThrottledLimit int64  `json:"throttled_limit"`
	PeakPerSecond  int    `json:"peak_per_second"`
	LimitCounts
}

// Delivery counts the messages of a phone number and template (empty for other types)
// that reached at least each status: Sent ≥ Delivered ≥ Read ≥ Played, whichever of
// the statuses in between were posted.
type Delivery struct {
	Phone    string `json:"phone_number_id"`
	Template string `json:"template"`
	Accepted int64  `json:"accepted"`
	StatusCounts
}

// Ledger is what the simulator has seen, as GET /_sim/ledger gives it. Lists are
// sorted by id.
type Ledger struct {
	Totals Totals        `json:"totals"`
	Phones []PhoneCounts `json:"phones"`
	WABAs  []ScopeCounts `json:"wabas"`
	Apps   []ScopeCounts `json:"apps"`
	// Management counts management calls by WABA.
	Management []ScopeCounts `json:"management"`
	// Deliveries compare with a delivery report.
	Deliveries []Delivery `json:"deliveries"`
	// Duplicates lists our message ids accepted more than once, the first 1,000.
	Duplicates []string `json:"duplicates"`
	// Workers counts accepts by the X-Wagate-Worker header, "" for none.
	Workers map[string]int64 `json:"workers"`
	// InFlight counts the message requests under way now by the same header; those of
	// whom none are under way are left out.
	InFlight map[string]int64 `json:"in_flight"`
	// Chaos is what SetChaos and Outage have done.
	Chaos ChaosCounts `json:"chaos"`
}

// Accept is one accepted message, as GET /_sim/ledger/messages gives it.
type Accept struct {
	Seq           int64    `json:"seq"` // to page on from
	OurID         string   `json:"our_id,omitempty"`
	Try           int      `json:"try"`
	WAMID         string   `json:"wamid"`
	Phone         string   `json:"phone"`
	ToLast4       string   `json:"to_last4"`
	Template      string   `json:"template,omitempty"`
	API           string   `json:"api,omitempty"` // marketing_messages; empty for messages
	ArrivalUnixNS int64    `json:"arrival_unix_ns"`
	Worker        string   `json:"worker,omitempty"`
	Statuses      []string `json:"statuses"`
	// FirstToldUnixNS is when the receiver of the webhook answered 200 to the first status
	// of the message; 0 when never. Told is the furthest status it took so (failed, played,
	// read, delivered, sent); empty for none.
	FirstToldUnixNS int64  `json:"first_told_unix_ns"`
	Told            string `json:"told"`
	// Fault is what chaos did to the answer (drop_after_accept, slow_answer,
	// no_body_5xx_accepted), Lost that it lets no webhook come.
	Fault Fault `json:"fault,omitempty"`
	Lost  bool  `json:"lost,omitempty"`
	// ClientGone says that the client was seen to have gone before the answer's time.
	ClientGone bool `json:"client_gone,omitempty"`
}

// Ledger returns the counts as they are now.
func (s *Server) Ledger() Ledger {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.ledger
	out := Ledger{
		Totals:     l.totals,
		Phones:     make([]PhoneCounts, 0, len(s.scopes.byIndex)),
		Deliveries: make([]Delivery, 0, len(l.deliveries)),
		Duplicates: append([]string{}, l.duplicates...),
		Workers:    make(map[string]int64, len(l.byWorker)),
		WABAs:      scopeCounts(s.scopes.wabas, s.scopes.defWABA),
		Apps:       scopeCounts(s.scopes.apps, s.scopes.defApp),
		Management: scopeCounts(s.scopes.management, s.scopes.defManag),
	}
	out.InFlight, out.Totals.InFlight = s.flights.view()
	out.Chaos = l.chaos.view(s.queue.keptBack())
	pending, lost := s.queue.counts()
	out.Totals.StatusesPending = pending
	out.Totals.StatusesLost += lost
	for _, p := range s.scopes.byIndex {
		out.Phones = append(out.Phones, PhoneCounts{
			ID: p.id, WABAID: p.waba.id, AppID: p.app.id, Accepted: p.accepted, Refused: p.refused,
			ThrottledLimit: p.throttled, ThrottledProvoked: p.throttledProvoked, PeakPerSecond: p.accepts.peak,
			ThrottledPair: p.throttledPair, Inbound: p.received, LimitCounts: p.limitCounts(s.scopes.defPhone),
			Statuses: StatusCounts{p.statuses[statusSent], p.statuses[statusDelivered], p.statuses[statusRead],
				p.statuses[statusPlayed], p.statuses[statusFailed]},
		})
	}
	for key, d := range l.deliveries {
		out.Deliveries = append(out.Deliveries, Delivery{
			Phone: s.scopes.byIndex[key.phone].id, Template: l.templates.list[key.template], Accepted: d.accepted,
			StatusCounts: StatusCounts{d.reached[statusSent], d.reached[statusDelivered], d.reached[statusRead],
				d.reached[statusPlayed], d.failed},
		})
	}
	for i, n := range l.byWorker {
		out.Workers[l.workers.list[i]] = n
	}
	slices.SortFunc(out.Phones, func(a, b PhoneCounts) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(out.Deliveries, func(a, b Delivery) int {
		return cmp.Or(cmp.Compare(a.Phone, b.Phone), cmp.Compare(a.Template, b.Template))
	})
	return out
}

func (sc *scope) limitCounts(def Limit) LimitCounts {
	limit := sc.limit(def)
	return LimitCounts{limit.Max, limit.window().Milliseconds(), sc.windowPeak}
}

func scopeCounts(m map[string]*scope, def Limit) []ScopeCounts {
	out := make([]ScopeCounts, 0, len(m))
	for _, sc := range m {
		out = append(out, ScopeCounts{sc.id, sc.accepted, sc.throttled, sc.accepts.peak, sc.limitCounts(def)})
	}
	slices.SortFunc(out, func(a, b ScopeCounts) int { return cmp.Compare(a.ID, b.ID) })
	return out
}
