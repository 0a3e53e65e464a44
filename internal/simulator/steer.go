package simulator

import (
	"hash/maphash"
	"time"
)

// status is a step of a message's life that a webhook tells.
type status uint8

const (
	statusSent status = iota
	statusDelivered
	statusRead
	statusPlayed
	statusFailed
	statusCount
)

func (st status) String() string {
	return [...]string{"sent", "delivered", "read", "played", "failed"}[st]
}

// how the answer of an accepted message goes out
const (
	answerNormal = iota
	answerDropped
	answerBadGateway
	answerSlow
	answerAfterStatuses
)

// answerAfterStatusesBound is how long recipients ending in 0016 wait for their statuses.
const answerAfterStatusesBound = 10 * time.Second

// behaviour is what the recipient's last digits ask for.
type behaviour struct {
	before      *graphError // answered instead of accepting
	resetBefore bool        // the connection is reset instead of accepting
	once        bool        // before and resetBefore only the first time
	answer      int
	statuses    []status
	failure     *hookError // what statusFailed tells; nil: undeliverable
}

var ordinary = behaviour{statuses: []status{statusSent, statusDelivered}}

var behaviours = map[int]behaviour{
	1:  {before: errUndeliverable},
	2:  {before: errPhoneThrottled, once: true, statuses: ordinary.statuses},
	3:  {statuses: []status{statusSent}},
	4:  {statuses: []status{statusSent, statusRead}},
	5:  {statuses: []status{statusSent, statusSent, statusDelivered, statusDelivered}},
	6:  {statuses: []status{statusRead, statusDelivered, statusSent}},
	7:  {answer: answerDropped, statuses: ordinary.statuses},
	8:  {statuses: []status{statusFailed}},
	9:  {answer: answerBadGateway, statuses: ordinary.statuses},
	10: {before: errThrottled429, once: true, statuses: ordinary.statuses},
	11: {before: errPairThrottled, once: true, statuses: ordinary.statuses},
	12: {resetBefore: true, once: true, statuses: ordinary.statuses},
	13: {answer: answerSlow, statuses: ordinary.statuses},
	14: {statuses: []status{statusSent, statusDelivered, statusRead}},
	15: {before: errInternal},
	16: {answer: answerAfterStatuses, statuses: ordinary.statuses},
	17: {},
	18: {answer: answerDropped},
	19: {statuses: []status{statusSent, statusDelivered, statusPlayed}},
}

// steered says whether the last digits ask for anything.
func steered(last4 int) bool {
	_, ok := behaviours[last4]
	return ok
}

func behaviourOf(last4 int) behaviour {
	if b, ok := behaviours[last4]; ok {
		return b
	}
	return ordinary
}

// onceCapacity bounds how many "once" are remembered; the oldest are forgotten.
const onceCapacity = 1 << 16

type onceKey struct {
	phone uint32
	to    uint64 // hash of the recipient
	id    ourID
}

// onceMemory remembers for whom a once-only behaviour has happened.
type onceMemory struct {
	seed  maphash.Seed
	seen  map[onceKey]struct{}
	order []onceKey // ring
	next  int
}

func newOnceMemory() onceMemory {
	return onceMemory{seed: maphash.MakeSeed(), seen: map[onceKey]struct{}{}}
}

// first says whether this message has not been here before, and remembers it.
func (o *onceMemory) first(phone uint32, m *message) bool {
	key := onceKey{phone, maphash.String(o.seed, m.key()), m.ours}
	if _, ok := o.seen[key]; ok {
		return false
	}
	o.seen[key] = struct{}{}
	if len(o.order) < onceCapacity {
		o.order = append(o.order, key)
		return true
	}
	delete(o.seen, o.order[o.next])
	o.order[o.next] = key
	o.next = (o.next + 1) % onceCapacity
	return true
}
