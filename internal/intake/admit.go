package intake

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"

	"wagate/internal/cloudapi"
	"wagate/internal/message"
	"wagate/internal/queue"
	"wagate/internal/store"
)

const (
	// countEvery is how often counts are moved on in the database and looked at.
	countEvery = 500 * time.Millisecond
	// countTime bounds that, and lastCountTime the last time, at the end.
	countTime     = 5 * time.Second
	lastCountTime = 2 * time.Second
	// backlogRetry is what a caller is told to wait for room when no rate is known.
	backlogRetry = 10 * time.Second
	// runnableKept is how long a count of what may run is believed; past maxRunnable jobs the counts of the lane are.
	runnableKept = time.Second
	maxRunnable  = 100_000
	// spreadBits of an id spread the messages of one instant over an eighth of a second.
	spreadBits = 17
)

// due gives when a message's job may run first: at its send_at and in its window, spread by its id, so that many for one
// instant take their places side by side. Zero is at once. It depends on what is stored of the message only.
func due(id uuid.UUID, created, sendAt time.Time, window string) time.Time {
	at := opening(created, sendAt, window)
	if !at.After(created) {
		return time.Time{}
	}
	low := int64(id[15]) | int64(id[14])<<8 | int64(id[13])<<16
	return at.Add(time.Duration(low&(1<<spreadBits-1)) * time.Microsecond)
}

// opening gives the first time from created on at which a message may go out.
func opening(created, sendAt time.Time, window string) time.Time {
	at := created
	if sendAt.After(at) {
		at = sendAt
	}
	if window != "" {
		if w, err := message.ParseWindow([]byte(window)); err == nil {
			if open, changes := w.Open(at); !open {
				return changes
			}
		}
	}
	return at
}

// see reads what has to be known before messages can be judged: which of the phone numbers are there, and the counts.
func (in *Intake) see(ctx context.Context, phones []string, callers []Caller) error {
	now := in.now()
	ask := in.backlog.unknown(now, phones, callers)
	if len(ask.SeeLanes)+len(ask.SeeKeys)+len(ask.SeeDays) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, connectionWait)
	defer cancel()
	found, err := in.store.MoveBacklogs(ctx, ask)
	if err != nil {
		return err
	}
	in.backlog.learn(now, ask, found)
	return nil
}

// admit keeps room for a message and estimates when it goes out, or says what there is no room in. Without keep it only says so.
func (in *Intake) admit(ctx context.Context, c Caller, m *store.NewMessage, keep bool) (seat, time.Time, *Error) {
	now := in.now()
	at, late, err := in.estimate(ctx, now, m)
	if err != nil {
		return seat{}, at, unavailable(err)
	}
	s, f := in.backlog.reserve(now, c, m.PhoneNumberID, m.Priority, keep && late == 0)
	if !f.any() && late == 0 {
		return s, at, nil
	}
	refused := &Error{Kind: Busy}
	add := func(code, pointer, detail string, wait time.Duration) {
		if refused.Code == "" {
			refused.Code = code
		}
		refused.RetryAfter = max(refused.RetryAfter, wait)
		refused.Faults = append(refused.Faults, cloudapi.Fault{Pointer: pointer, Detail: detail})
	}
	wait := func(d time.Duration) time.Duration {
		if d == 0 {
			return backlogRetry
		}
		return ceilSeconds(d)
	}
	if late > 0 {
		add("would_expire", "/gateway/expires_at", "the backlog would pass expires_at", ceilSeconds(late))
	}
	if f.phone {
		add("phone_backlog_full", "/from", "has its max_backlog of messages waiting", wait(f.phoneWaits))
	}
	if f.key {
		add("key_backlog_full", "", fmt.Sprintf("this API key has its max_backlog of %d messages waiting", c.MaxBacklog), wait(f.keyWaits))
	}
	if f.day {
		midnight := dayOf(now).Add(24 * time.Hour)
		add("day_limit_reached", "", fmt.Sprintf("this API key has had its %d messages of the day (UTC)", c.MessagesPerDay), max(midnight.Sub(now), time.Second))
	}
	return seat{}, at, refused
}

// estimate gives when a message goes out, by its own time, the backlog and the rate; and by how much that is too late for its
// expires_at.
func (in *Intake) estimate(ctx context.Context, now time.Time, m *store.NewMessage) (at time.Time, late time.Duration, err error) {
	at = opening(now, m.SendAt, m.SendWindow)
	head := queue.HeadOf{PhoneNumberID: m.PhoneNumberID, Priority: m.Priority}
	behind := in.turns.behind(head, m.KeyID)
	wait, rate := in.backlog.ahead(m.PhoneNumberID, m.Priority, behind)
	if drained := now.Add(wait); drained.After(at) {
		at = drained
	}
	if m.ExpiresAt.IsZero() || !at.After(m.ExpiresAt) || rate <= 0 {
		return at, 0, nil
	}
	// What is for later counts in the backlog and stands before nobody, so look before anything is refused.
	enough := m.ExpiresAt.Sub(now).Seconds()*rate + float64(behind)
	if enough < maxRunnable {
		ok, err := in.runnable(ctx, now, head, int(math.Floor(enough))+1)
		if err != nil || !ok {
			return at, 0, err
		}
	}
	return at, at.Sub(m.ExpiresAt), nil
}

// seenRunnable is a count of jobs that may run, and whether there may be more.
type seenRunnable struct {
	jobs int
	more bool
	at   time.Time
}

// runnable says whether a lane has at least so many jobs that may run now, of a priority and those before it.
func (in *Intake) runnable(ctx context.Context, now time.Time, of queue.HeadOf, jobs int) (bool, error) {
	in.mu.Lock()
	seen, ok := in.seen[of]
	in.mu.Unlock()
	if ok && now.Sub(seen.at) < runnableKept && !now.Before(seen.at) && (seen.jobs >= jobs || !seen.more) {
		return seen.jobs >= jobs, nil
	}
	ctx, cancel := context.WithTimeout(ctx, connectionWait)
	defer cancel()
	n, err := in.jobs.Runnable(ctx, in.store.Pool(), of, jobs)
	if err != nil {
		return false, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.seen) >= maxTurns {
		clear(in.seen)
	}
	in.seen[of] = seenRunnable{jobs: n, more: n >= jobs, at: now}
	return n >= jobs, nil
}

// keepCounts moves the counts on and looks at the disk, until ctx ends, and then once more.
func (in *Intake) keepCounts(ctx context.Context) {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for {
		in.disk.look(ctx, in.now())
		select {
		case <-ctx.Done():
			in.count(context.WithoutCancel(ctx), lastCountTime)
			return
		case <-tick.C:
			in.count(ctx, countTime)
		}
	}
}

// count moves the counts on in the database and takes in how they stand. What did not reach it is added the next time.
func (in *Intake) count(ctx context.Context, within time.Duration) {
	in.counting.Lock()
	defer in.counting.Unlock()
	a := in.backlog.take()
	if len(a.Lanes)+len(a.Keys)+len(a.Days)+len(a.SeeLanes)+len(a.SeeKeys)+len(a.SeeDays) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	found, err := in.store.MoveBacklogs(ctx, a)
	if err != nil {
		in.backlog.giveBack(a)
		if ctx.Err() == nil {
			in.logger.WarnContext(ctx, "backlogs were not counted, will be tried again", "error", err)
		}
		return
	}
	in.backlog.learn(in.now(), a, found)
}
