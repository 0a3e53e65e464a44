package message

// Status is where a message stands.
type Status string

// Every status. queued, sending and unknown are stages on the way; accepted
// says that Meta took the message; sent, delivered, read and played are Meta's
// word; failed, expired and cancelled are ends.
const (
	Queued    Status = "queued"
	Sending   Status = "sending"
	Unknown   Status = "unknown"
	Accepted  Status = "accepted"
	Sent      Status = "sent"
	Delivered Status = "delivered"
	Read      Status = "read"
	Played    Status = "played"
	Failed    Status = "failed"
	Expired   Status = "expired"
	Cancelled Status = "cancelled"
)

// Statuses lists every status, by rank.
var Statuses = []Status{
	Queued, Sending, Unknown, Expired, Cancelled, Accepted, Sent, Failed, Delivered, Read, Played,
}

// Rank is the status's place in the one order by which evidence is weighed:
//
//	queued < sending < unknown < expired = cancelled < accepted < sent < failed < delivered < read < played
//
// It is one order, so that what a message becomes does not depend on the order
// in which Meta's statuses arrive. failed stands above sent because Meta
// reports a failure after sent, and below delivered because a delivery proves
// the failure wrong. expired and cancelled stand below everything Meta can
// say: whatever Meta reports about a message proves that it went out. A string
// that is no status has rank -1.
func (s Status) Rank() int {
	switch s {
	case Queued:
		return 0
	case Sending:
		return 1
	case Unknown:
		return 2
	case Expired, Cancelled:
		return 3
	case Accepted:
		return 4
	case Sent:
		return 5
	case Failed:
		return 6
	case Delivered:
		return 7
	case Read:
		return 8
	case Played:
		return 9
	}
	return -1
}

// Valid says whether s is one of the statuses.
func (s Status) Valid() bool { return s.Rank() >= 0 }

// Positive says whether s proves that Meta took the message.
func (s Status) Positive() bool {
	switch s {
	case Accepted, Sent, Delivered, Read, Played:
		return true
	}
	return false
}

// Ended says whether the gateway has nothing more to do for a message with
// this status. What Meta reports can still change it.
func (s Status) Ended() bool {
	return s.Valid() && s != Queued && s != Sending && s != Unknown
}

// FromMeta reads a status word of a status webhook. The second result is false
// for words that do not move a message (deleted, warning, and any to come).
func FromMeta(s string) (Status, bool) {
	switch st := Status(s); st {
	case Sent, Delivered, Read, Played, Failed:
		return st, true
	}
	return "", false
}

// Next gives the status of a message that stands at cur when it learns
// incoming: the one of higher rank, and cur when they are equal. Applied to a
// set of Meta's statuses, in any order and any number of times, it ends at the
// same status.
//
// A cur of failed is taken as Meta's own word here. Where the failure was ours
// (the unknown deadline, an operator, a refusal of a later try), use NextOwn.
//
// Next is for evidence only. Steps the gateway takes on purpose, such as back
// to queued for another try, do not go through it.
func Next(cur, incoming Status) Status {
	if incoming.Rank() > cur.Rank() {
		return incoming
	}
	return cur
}

// NextOwn is Next for a cur that the gateway chose itself, not heard from a
// status webhook: then accepted and sent beat failed as well, since the
// message went out after all.
func NextOwn(cur, incoming Status) Status {
	if cur == Failed && incoming.Positive() {
		return incoming
	}
	return Next(cur, incoming)
}
