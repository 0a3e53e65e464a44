package intake

import (
	"sync"
	"time"

	"github.com/google/uuid"

	"wagate/internal/queue"
)

const (
	// headKept is how long what was read of the head of a lane is believed.
	headKept = 250 * time.Millisecond
	// turnStep is what a message takes of its key's time in a lane.
	turnStep = time.Microsecond
	// maxTurns bounds the lanes and priorities that are remembered.
	maxTurns = 4 * maxPhones
	// turnForgotten is when one that nothing was put into is forgotten.
	turnForgotten = time.Hour
)

// turns lets the API keys of a lane and priority take turns: start-time fair queueing. A message's place is a time. It is
// that of the lane's head, or, where it is later, the one after its key's last: so a key's backlog lies one microsecond
// apart behind the head, and another key's message goes in at the head and then one for one with it. Each gateway gives the
// places of what it accepts. It is safe for concurrent use.
type turns struct {
	mu    sync.Mutex
	lanes map[queue.HeadOf]*turn
}

// turn is one lane and priority.
type turn struct {
	// front is where its head was when it was last looked at, or that moment where it was empty. It never goes back, so
	// that no message of a key overtakes an earlier one. It is in the database's time.
	front  time.Time
	readAt time.Time
	// next is, by key, the earliest place of the key's next message. What lies before the front is forgotten.
	next map[uuid.UUID]time.Time
}

func newTurns() *turns { return &turns{lanes: map[queue.HeadOf]*turn{}} }

// stale gives those whose heads have to be looked at before places are asked for.
func (t *turns) stale(now time.Time, of []queue.HeadOf) []queue.HeadOf {
	t.mu.Lock()
	defer t.mu.Unlock()
	var look []queue.HeadOf
	for _, h := range of {
		if l := t.lanes[h]; l == nil || now.Sub(l.readAt) >= headKept || now.Before(l.readAt) {
			look = append(look, h)
		}
	}
	return look
}

// read takes in the heads of those that were looked at. now is the caller's time, at the database's.
func (t *turns) read(now time.Time, of []queue.HeadOf, heads map[queue.HeadOf]time.Time, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lanes)+len(of) > maxTurns {
		for h, l := range t.lanes {
			if now.Sub(l.readAt) > turnForgotten {
				delete(t.lanes, h)
			}
		}
		if len(t.lanes)+len(of) > maxTurns {
			clear(t.lanes)
		}
	}
	for _, h := range of {
		l := t.lanes[h]
		if l == nil {
			l = &turn{next: map[uuid.UUID]time.Time{}}
			t.lanes[h] = l
		}
		head, waiting := heads[h]
		if !waiting {
			head = at
		}
		if head.After(l.front) {
			l.front = head
		}
		l.readAt = now
		for key, next := range l.next {
			if !next.After(l.front) {
				delete(l.next, key)
			}
		}
	}
}

// place gives a message of a key its place. The head must have been read.
func (t *turns) place(of queue.HeadOf, key uuid.UUID) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lanes[of]
	if l == nil { // forgotten since it was read
		return time.Time{}
	}
	place := l.front
	if next := l.next[key]; next.After(place) {
		place = next
	}
	l.next[key] = place.Add(turnStep)
	return place
}

// behind gives how many messages of other keys that this gateway knows of wait behind the next message of a key.
func (t *turns) behind(of queue.HeadOf, key uuid.UUID) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lanes[of]
	if l == nil {
		return 0
	}
	place := l.front
	if next := l.next[key]; next.After(place) {
		place = next
	}
	var n int64
	for other, next := range l.next {
		if after := next.Sub(place) / turnStep; other != key && after > 1 {
			n += int64(after) - 1
		}
	}
	return n
}
