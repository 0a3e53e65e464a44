package intake

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"wagate/internal/queue"
)

// fairLane is a lane of one priority as the database has it: jobs in the order of place and id.
type fairLane struct {
	turns   *turns
	of      queue.HeadOf
	now     time.Time
	id      int
	waiting []fairJob
	served  map[uuid.UUID][]int
	ids     map[uuid.UUID][]int
}

type fairJob struct {
	key   uuid.UUID
	place time.Time
	id    int
	bound int // how many may still go out before it
}

func (l *fairLane) read() {
	heads := map[queue.HeadOf]time.Time{}
	if len(l.waiting) > 0 {
		heads[l.of] = l.waiting[0].place
	}
	l.turns.read(l.now, []queue.HeadOf{l.of}, heads, l.now)
}

func (l *fairLane) put(key uuid.UUID, bound int) {
	l.id++
	j := fairJob{key: key, place: l.turns.place(l.of, key), id: l.id, bound: bound}
	at, _ := slices.BinarySearchFunc(l.waiting, j, func(a, b fairJob) int {
		return cmp.Or(a.place.Compare(b.place), cmp.Compare(a.id, b.id))
	})
	l.waiting = slices.Insert(l.waiting, at, j)
	l.ids[key] = append(l.ids[key], j.id)
}

// serve sends the first and says whether one that waits has waited for more than it may.
func (l *fairLane) serve() (late *fairJob) {
	j := l.waiting[0]
	l.waiting = l.waiting[1:]
	l.served[j.key] = append(l.served[j.key], j.id)
	for i := range l.waiting {
		if l.waiting[i].bound--; l.waiting[i].bound < 0 {
			return &l.waiting[i]
		}
	}
	return nil
}

func (l *fairLane) own(key uuid.UUID) (k int) {
	for _, j := range l.waiting {
		if j.key == key {
			k++
		}
	}
	return k
}

// A message with k earlier ones of its own key waiting goes out after at most (k + 1) × keys others, and what each key may
// have put in before the head was looked at again; each key's in their order.
func TestKeysTakeTurns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &fairLane{
			turns: newTurns(), of: queue.HeadOf{PhoneNumberID: "1", Priority: 3}, now: time.Unix(1_800_000_000, 0),
			served: map[uuid.UUID][]int{}, ids: map[uuid.UUID][]int{},
		}
		keys := make([]uuid.UUID, rapid.IntRange(2, 5).Draw(t, "keys"))
		for i := range keys {
			keys[i] = uuid.UUID{byte(i + 1)}
		}
		unread := 0                                         // sent since the head was looked at
		stale := rapid.IntRange(0, 20).Draw(t, "unread at") // at most so many
		l.read()
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			l.now = l.now.Add(time.Duration(rapid.IntRange(0, 2_000_000).Draw(t, "pause")))
			if rapid.Bool().Draw(t, "arrives") {
				key := rapid.SampledFrom(keys).Draw(t, "key")
				for range rapid.IntRange(1, 40).Draw(t, "burst") {
					l.put(key, (l.own(key)+1)*len(keys)+len(keys)*(1+stale))
				}
				continue
			}
			for range min(rapid.IntRange(1, 40).Draw(t, "sent"), len(l.waiting)) {
				if late := l.serve(); late != nil {
					t.Fatalf("message %d of %s waits for more than its share", late.id, late.key)
				}
				if unread++; unread > stale {
					unread = 0
					l.read()
				}
			}
		}
		for len(l.waiting) > 0 {
			if late := l.serve(); late != nil {
				t.Fatalf("message %d of %s waits for more than its share", late.id, late.key)
			}
		}
		for key, ids := range l.ids {
			if !slices.Equal(l.served[key], ids) {
				t.Fatalf("key %s: sent %v, put in %v", key, l.served[key], ids)
			}
		}
	})
}

func TestAHundredThousandDelayNobody(t *testing.T) {
	l := &fairLane{
		turns: newTurns(), of: queue.HeadOf{PhoneNumberID: "1", Priority: 3}, now: time.Unix(1_800_000_000, 0),
		served: map[uuid.UUID][]int{}, ids: map[uuid.UUID][]int{},
	}
	loud, quiet := uuid.UUID{1}, uuid.UUID{2}
	l.read()
	var last time.Time
	for range 100_000 {
		last = l.turns.place(l.of, loud)
	}
	if took := last.Sub(l.now); took >= 100*time.Millisecond {
		t.Errorf("they lie over %v", took)
	}
	if n := l.turns.behind(l.of, quiet); n != 99_999 {
		t.Errorf("%d wait behind another key's", n)
	}
	if n := l.turns.behind(l.of, loud); n != 0 {
		t.Errorf("%d of other keys wait behind it", n)
	}
	for k := range 10 {
		if place := l.turns.place(l.of, quiet); !place.Equal(l.now.Add(time.Duration(k) * time.Microsecond)) {
			t.Errorf("the other key's number %d goes in %v behind the head", k, place.Sub(l.now))
		}
	}
	// The lane empties: the front is the moment, and nothing is remembered.
	l.now = l.now.Add(time.Minute)
	l.read()
	if place := l.turns.place(l.of, loud); !place.Equal(l.now) || len(l.turns.lanes[l.of].next) != 1 {
		t.Errorf("in an empty lane the place is %v from now", place.Sub(l.now))
	}
	// A head that lies before the front, of a job that waited elsewhere, moves nothing back.
	l.turns.read(l.now, []queue.HeadOf{l.of}, map[queue.HeadOf]time.Time{l.of: l.now.Add(-time.Hour)}, l.now)
	if place := l.turns.place(l.of, loud); !place.Equal(l.now.Add(time.Microsecond)) {
		t.Errorf("after an old head the place is %v from now", place.Sub(l.now))
	}
}

func TestHeadsAreBelievedForAWhile(t *testing.T) {
	turns, now := newTurns(), time.Unix(1_800_000_000, 0)
	a, b := queue.HeadOf{PhoneNumberID: "1", Priority: 3}, queue.HeadOf{PhoneNumberID: "1", Priority: 4}
	turns.read(now, []queue.HeadOf{a}, nil, now)
	for after, want := range map[time.Duration][]queue.HeadOf{
		0: {b}, headKept - 1: {b}, headKept: {a, b}, -time.Second: {a, b},
	} {
		if look := turns.stale(now.Add(after), []queue.HeadOf{a, b}); !slices.Equal(look, want) {
			t.Errorf("after %v: %v, want %v", after, look, want)
		}
	}
}
