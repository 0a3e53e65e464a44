package intake

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"wagate/internal/store"
)

const (
	// countsKept is how long counts are believed without a look while nobody moves them on.
	countsKept = 5 * time.Second
	// maxWait bounds what is estimated.
	maxWait = 10 * 365 * 24 * time.Hour
)

// count is how many messages there are of something, about: what the database had when it was looked at, what was accepted
// here and is on its way to it or not yet, and what is being accepted.
type count struct{ known, moving, since, pending int64 }

func (c *count) total() int64 { return c.known + c.moving + c.since + c.pending }

// move gives what is to be added in the database.
func (c *count) move() int64 {
	c.moving, c.since = c.moving+c.since, 0
	return c.moving
}

// moved ends a move: with what the database has now, or with nothing changed.
func (c *count) moved(known int64, ok bool) {
	if ok {
		c.known = known
	} else {
		c.since += c.moving
	}
	c.moving = 0
}

func (c *count) idle() bool { return c.moving == 0 && c.since == 0 && c.pending == 0 }

// done ends the accepting of one message.
func (c *count) done(stored bool) {
	c.pending--
	if stored {
		c.since++
	}
}

// laneCount is what is known of a phone number that is there.
type laneCount struct {
	store.LaneBacklog
	waiting [4]count
	readAt  time.Time
	asked   bool // since the last look
}

func (l *laneCount) total() (n int64) {
	for p := range l.waiting {
		n += l.waiting[p].total()
	}
	return n
}

func (l *laneCount) idle() bool {
	return !slices.ContainsFunc(l.waiting[:], func(c count) bool { return !c.idle() })
}

// keyCount is what waits of a key with a max_backlog, or what a key with a messages_per_day has had accepted on a day.
type keyCount struct {
	count
	at     map[string]*count // what was accepted here by phone number; of a backlog only
	readAt time.Time
	asked  bool
}

// backlog counts what waits, between the looks at the database. It is safe for concurrent use.
type backlog struct {
	mu    sync.Mutex
	lanes map[string]*laneCount
	keys  map[uuid.UUID]*keyCount
	days  map[store.KeyDay]*keyCount
}

func newBacklog() *backlog {
	return &backlog{lanes: map[string]*laneCount{}, keys: map[uuid.UUID]*keyCount{}, days: map[store.KeyDay]*keyCount{}}
}

func dayOf(now time.Time) time.Time { return now.UTC().Truncate(24 * time.Hour) }

// unknown gives what has to be looked at before messages of these callers to these phone numbers can be judged.
func (b *backlog) unknown(now time.Time, phones []string, callers []Caller) (see store.Arrivals) {
	fresh := func(readAt time.Time) bool { return now.Sub(readAt) < countsKept && !now.Before(readAt) }
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, phone := range phones {
		if l := b.lanes[phone]; (l == nil || !fresh(l.readAt)) && !slices.Contains(see.SeeLanes, phone) {
			see.SeeLanes = append(see.SeeLanes, phone)
		}
	}
	for _, c := range callers {
		if k := b.keys[c.KeyID]; c.MaxBacklog > 0 && (k == nil || !fresh(k.readAt)) && !slices.Contains(see.SeeKeys, c.KeyID) {
			see.SeeKeys = append(see.SeeKeys, c.KeyID)
		}
		day := store.KeyDay{KeyID: c.KeyID, Day: dayOf(now)}
		if d := b.days[day]; c.MessagesPerDay > 0 && (d == nil || !fresh(d.readAt)) && !slices.Contains(see.SeeDays, day) {
			see.SeeDays = append(see.SeeDays, day)
		}
	}
	return see
}

// there says whether a phone number was there when it was looked at last.
func (b *backlog) there(phone string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.lanes[phone]
	return l != nil && !l.readAt.IsZero()
}

// checksWindows says whether a phone number asked for its service windows to be looked at, when it was looked at last.
func (b *backlog) checksWindows(phone string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.lanes[phone]
	return l != nil && l.ChecksWindows
}

// gone makes a phone number one that has to be looked at.
func (b *backlog) gone(phone string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.lanes[phone]; l != nil {
		l.readAt = time.Time{}
	}
}

// add counts a message that was put in without a reservation.
func (b *backlog) add(phone string, priority int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.lanes[phone]; l != nil {
		l.waiting[priority-1].since++
	}
}

// learn takes in what was looked at. What a move added is in it where moved is given.
func (b *backlog) learn(now time.Time, asked store.Arrivals, found store.Backlogs) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, phone := range asked.SeeLanes {
		b.learnLane(now, phone, found, false)
	}
	for phone := range asked.Lanes {
		b.learnLane(now, phone, found, true)
	}
	for k := range asked.Keys {
		key := b.keys[k.KeyID]
		key.at[k.PhoneNumberID].moved(0, true)
		if key.at[k.PhoneNumberID].idle() {
			delete(key.at, k.PhoneNumberID)
		}
		key.moving = 0
	}
	for id, n := range found.Keys {
		if b.keys[id] == nil {
			b.keys[id] = &keyCount{at: map[string]*count{}}
		}
		b.keys[id].known, b.keys[id].readAt = n, now
	}
	for day, n := range found.Days {
		if b.days[day] == nil {
			b.days[day] = &keyCount{}
		}
		d := b.days[day]
		if _, counted := asked.Days[day]; counted {
			d.moving = 0
		}
		d.known, d.readAt = n, now
	}
	b.prune(now)
}

func (b *backlog) learnLane(now time.Time, phone string, found store.Backlogs, moved bool) {
	row, there := found.Lanes[phone]
	l := b.lanes[phone]
	if l == nil {
		if !there {
			return
		}
		l = &laneCount{}
		b.lanes[phone] = l
	}
	for p := range l.waiting {
		if moved {
			l.waiting[p].moved(row.Waiting[p], true)
		} else {
			l.waiting[p].known = row.Waiting[p]
		}
	}
	l.LaneBacklog, l.readAt = row, now
	if !there {
		l.readAt = time.Time{}
		if l.idle() {
			delete(b.lanes, phone)
		}
	}
}

// prune forgets what was not looked at for long, past some thousands.
func (b *backlog) prune(now time.Time) {
	if len(b.lanes) > maxPhones {
		for phone, l := range b.lanes {
			if l.idle() && now.Sub(l.readAt) >= countsKept {
				delete(b.lanes, phone)
			}
		}
	}
	if len(b.keys)+len(b.days) <= maxKeys {
		return
	}
	for id, k := range b.keys {
		if k.idle() && len(k.at) == 0 && now.Sub(k.readAt) >= countsKept {
			delete(b.keys, id)
		}
	}
	for day, d := range b.days {
		if d.idle() && now.Sub(d.readAt) >= countsKept {
			delete(b.days, day)
		}
	}
}

// take gives what is to be added in the database, and what was asked for since the last time and is to be looked at.
func (b *backlog) take() store.Arrivals {
	a := store.Arrivals{Lanes: map[string][4]int64{}, Keys: map[store.KeyAt]int64{}, Days: map[store.KeyDay]int64{}}
	b.mu.Lock()
	defer b.mu.Unlock()
	for phone, l := range b.lanes {
		var n [4]int64
		for p := range n {
			n[p] = l.waiting[p].move()
		}
		if n != [4]int64{} {
			a.Lanes[phone] = n
		} else if l.asked {
			a.SeeLanes = append(a.SeeLanes, phone)
		}
		l.asked = false
	}
	for id, k := range b.keys {
		k.move()
		for phone, c := range k.at {
			if n := c.move(); n > 0 {
				a.Keys[store.KeyAt{KeyID: id, PhoneNumberID: phone}] = n
			}
		}
		if k.asked && k.moving == 0 {
			a.SeeKeys = append(a.SeeKeys, id)
		}
		k.asked = false
	}
	for day, d := range b.days {
		if n := d.move(); n > 0 {
			a.Days[day] = n
		} else if d.asked {
			a.SeeDays = append(a.SeeDays, day)
		}
		d.asked = false
	}
	return a
}

// giveBack undoes a take whose counts did not reach the database.
func (b *backlog) giveBack(a store.Arrivals) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for phone := range a.Lanes {
		for p := range b.lanes[phone].waiting {
			b.lanes[phone].waiting[p].moved(0, false)
		}
	}
	for k := range a.Keys {
		b.keys[k.KeyID].at[k.PhoneNumberID].moved(0, false)
		b.keys[k.KeyID].moved(0, false)
	}
	for day := range a.Days {
		b.days[day].moved(0, false)
	}
}

// seat is the room that was kept for a message.
type seat struct {
	phone      string
	priority   int
	keyID      uuid.UUID
	day        time.Time
	key, today bool // counted for the key, and for its day
}

// full says what there is no room in. A phone number that is not known has room.
type full struct {
	phone, key, day bool
	// phoneWaits and keyWaits are until there is room again by the rates known; 0 where none is.
	phoneWaits, keyWaits time.Duration
}

func (f full) any() bool { return f.phone || f.key || f.day }

// reserve keeps room for a message of a caller, unless there is none. The caller gives it back with done.
func (b *backlog) reserve(now time.Time, c Caller, phone string, priority int, keep bool) (seat, full) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := seat{phone: phone, priority: priority, keyID: c.KeyID, day: dayOf(now)}
	var f full
	lane := b.lanes[phone]
	if lane != nil {
		lane.asked = true
		if over := lane.total() + 1 - lane.MaxBacklog; lane.MaxBacklog > 0 && over > 0 {
			f.phone, f.phoneWaits = true, lane.takes(over)
		}
	}
	key := b.keys[c.KeyID]
	if s.key = c.MaxBacklog > 0 && key != nil; s.key {
		key.asked = true
		if over := key.total() + 1 - c.MaxBacklog; over > 0 {
			f.key = true
			if lane != nil {
				f.keyWaits = lane.takes(over)
			}
		}
	}
	day := b.days[store.KeyDay{KeyID: c.KeyID, Day: s.day}]
	if s.today = c.MessagesPerDay > 0 && day != nil; s.today {
		day.asked = true
		f.day = day.total() >= c.MessagesPerDay
	}
	if f.any() || !keep {
		return seat{}, f
	}
	if lane != nil {
		lane.waiting[priority-1].pending++
	}
	if s.key {
		key.pending++
	}
	if s.today {
		day.pending++
	}
	return s, f
}

// done ends a reservation; a message that was stored is counted.
func (b *backlog) done(s seat, stored bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if lane := b.lanes[s.phone]; lane != nil && lane.waiting[s.priority-1].pending > 0 {
		lane.waiting[s.priority-1].done(stored)
	}
	if key := b.keys[s.keyID]; s.key && key != nil {
		key.done(stored)
		if stored {
			if key.at[s.phone] == nil {
				key.at[s.phone] = &count{}
			}
			key.at[s.phone].since++
		}
	}
	if day := b.days[store.KeyDay{KeyID: s.keyID, Day: s.day}]; s.today && day != nil {
		day.done(stored)
	}
}

// takes gives how long a lane needs for messages; 0 when that is not known, or no time.
func (l *laneCount) takes(messages int64) time.Duration {
	if !l.Rated || l.PerSecond <= 0 || messages <= 0 {
		return 0
	}
	return time.Duration(min(float64(messages)/l.PerSecond, maxWait.Seconds()) * float64(time.Second))
}

// ahead gives how many messages of a lane go before a new one of a priority, of which behind take turns after it, how long
// they take and at what rate, messages a second; 0 and 0 when that is not known or there is no limit.
func (b *backlog) ahead(phone string, priority int, behind int64) (wait time.Duration, perSecond float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.lanes[phone]
	if l == nil || !l.Rated || l.PerSecond <= 0 {
		return 0, 0
	}
	n := max(l.waiting[priority-1].total()-behind, 0)
	for p := range priority - 1 {
		n += l.waiting[p].total()
	}
	return l.takes(n), l.PerSecond
}

// ceilSeconds rounds a wait up to a second, between one second and an hour.
func ceilSeconds(d time.Duration) time.Duration {
	return min(max(time.Duration(math.Ceil(d.Seconds()))*time.Second, time.Second), time.Hour)
}
