package httpapi

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"wagate/internal/store"
)

const maxWait = 30 * time.Second

var waitPreference = regexp.MustCompile(`(?i)^\s*wait\s*=\s*"?([0-9]{1,6})"?\s*$`)

// preferredWait reads wait=N, in seconds, of Prefer headers (RFC 7240), 30 s at most.
func preferredWait(values []string) time.Duration {
	wait, _ := statedWait(values)
	return wait
}

// statedWait is preferredWait, and says whether one of the headers has a wait: 0 is then a wish, too.
func statedWait(values []string) (time.Duration, bool) {
	for part := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if m := waitPreference.FindStringSubmatch(part); m != nil {
			n, _ := strconv.Atoi(m[1]) // digits
			return min(time.Duration(n)*time.Second, maxWait), true
		}
	}
	return 0, false
}

const (
	// maxWaiters bounds the requests that wait for a wamid: those of ten seconds at 400 messages a second.
	maxWaiters = 4096
	// lookEvery is how often is looked for wamids, by one query for all who wait.
	lookEvery = 50 * time.Millisecond
)

// lookout is whoever waits for the wamid of a message. It has no goroutine of its own: at any time one of those who wait looks
// for all of them.
type lookout struct {
	decided func(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]bool, error)

	mu      sync.Mutex
	waiting map[uuid.UUID]*awaited
	places  int // taken
	looking bool
	next    time.Time // of the next look
}

// awaited is a message that requests wait for.
type awaited struct {
	done     chan struct{} // closed when it is decided
	requests int
}

// enter adds a request for a message; nil when too many wait already.
func (l *lookout) enter(id uuid.UUID) *awaited {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.places == maxWaiters {
		return nil
	}
	l.places++
	m := l.waiting[id]
	if m == nil {
		m = &awaited{done: make(chan struct{})}
		l.waiting[id] = m
	}
	m.requests++
	return m
}

func (l *lookout) leave(id uuid.UUID, m *awaited) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.places--
	if m.requests--; m.requests == 0 && l.waiting[id] == m {
		delete(l.waiting, id)
	}
}

// look looks for all who wait, unless somebody does or has just done so.
func (l *lookout) look(ctx context.Context, now time.Time) {
	l.mu.Lock()
	if l.looking || now.Before(l.next) {
		l.mu.Unlock()
		return
	}
	l.looking = true
	ids := slices.Collect(maps.Keys(l.waiting))
	l.mu.Unlock()
	decided, err := l.decided(ctx, ids) // failing, the next one looks
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looking, l.next = false, now.Add(lookEvery)
	if err != nil {
		return
	}
	for id := range decided {
		if m := l.waiting[id]; m != nil {
			close(m.done)
			delete(l.waiting, id)
		}
	}
}

// await looks at a message until it has a wamid or has ended, or the time is over. When too many wait already, or the
// server stops, it does not.
func (a *API) await(ctx context.Context, id uuid.UUID, wait time.Duration) (store.Message, bool) {
	m := a.lookout.enter(id)
	if m == nil {
		return store.Message{}, false
	}
	defer a.lookout.leave(id, m)
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	defer context.AfterFunc(a.stopping, cancel)()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return store.Message{}, false
		case <-m.done:
			found, err := a.Store.GetMessage(ctx, id)
			return found, err == nil
		case <-tick.C:
			a.lookout.look(ctx, time.Now())
		}
	}
}
