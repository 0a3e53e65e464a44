package limiter

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"
)

// A true limit, strict over a sliding second, halves unannounced for 5 minutes. The sender knows the configured rate
// only, sees an answer 60 ms after each try, takes its slots up to 400 ms ahead, pauses after a throttle with backoff and
// full jitter, and probes. All in virtual time, over many seeds.
func TestAdaptsToAHalvedLimit(t *testing.T) {
	var most, total, least, back = 0, 0.0, 1.0, 1.0
	for seed := range uint64(20) {
		r := halved(t, seed)
		most, total = max(most, r.refusalsIn10s), max(total, r.refused)
		least, back = min(least, r.used), min(back, r.back)
	}
	t.Logf("worst of all seeds: %d refusals in 10 s; %.2f %% of sends refused; %.1f %% of the halved limit used; %.1f %% of the old rate within 60 s", most, 100*total, 100*least, 100*back)
	if most > 3 || total >= 0.02 || least < 0.70 || back < 0.95 {
		t.Error("want at most 3, under 2 %, at least 70 % and at least 95 %")
	}
}

type halvedResult struct {
	refusalsIn10s       int // most in any 10 s from 10 s after the halving
	refused, used, back float64
}

// answer is an answer under way.
type answer struct {
	at    time.Time
	grant Grant
	sent  time.Time
	ok    bool
}

type answers []answer

func (a answers) Len() int           { return len(a) }
func (a answers) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a answers) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }

// Push implements heap.Interface.
func (a *answers) Push(x any) { *a = append(*a, x.(answer)) }

// Pop implements heap.Interface.
func (a *answers) Pop() any {
	it := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return it
}

func halved(t *testing.T, seed uint64) halvedResult {
	const (
		configured, before, after = 76.0, 80, 40
		halve, restore, end       = 60 * time.Second, 360 * time.Second, 480 * time.Second
		latency, lead             = 60 * time.Millisecond, 400 * time.Millisecond
	)
	rng := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test's seed
	b := NewBudget(Limit{}, epoch)
	b.SetPhone("1", Limit{PerSecond: configured, Burst: 1}, epoch)
	var accepted, refused []time.Time
	var under answers
	var ahead []Grant
	var pausedAt, until time.Time
	level, sends := 0, 0
	// At the server: a sliding second.
	arrives := func(at time.Time) bool {
		sends++
		limit := before
		if d := at.Sub(epoch); d >= halve && d < restore {
			limit = after
		}
		n := 0
		for i := len(accepted) - 1; i >= 0 && at.Sub(accepted[i]) < time.Second; i-- {
			n++
		}
		if n >= limit {
			refused = append(refused, at)
			return false
		}
		accepted = append(accepted, at)
		return true
	}
	for now := epoch; now.Sub(epoch) < end; now = now.Add(time.Millisecond) {
		for len(under) > 0 && !under[0].at.After(now) {
			a := heap.Pop(&under).(answer)
			if a.grant.Probe {
				b.phones["1"].answered("1", a.ok, now)
			}
			switch {
			case a.ok && !until.After(a.sent):
				level = 0
			case !a.ok && !until.After(now) && !a.sent.Before(pausedAt):
				until, pausedAt = now.Add((50*time.Millisecond+time.Duration(rng.Int64N(int64(950*time.Millisecond))))<<level), now
				level++
				b.BlockPhone("1", until)
				b.ProbePhone("1")
				fallthrough
			case !a.ok:
				b.SlowPhone("1", now)
			}
		}
		b.refresh(now)
		for len(ahead) > 0 && !ahead[0].Slot.After(now) {
			g := ahead[0]
			ahead = ahead[1:]
			if _, blocked := b.Blocked("1", now); blocked || g.serial <= b.phones["1"].mark {
				if g.Probe {
					b.phones["1"].unsent("1")
				}
				continue // it waits for a new slot
			}
			sent := now.Add(time.Duration(rng.IntN(2000)) * time.Microsecond)
			heap.Push(&under, answer{at: sent.Add(latency), grant: g, sent: sent, ok: arrives(sent)})
		}
		for now.Sub(epoch)%(4*time.Millisecond) == 0 {
			slot, _ := b.Earliest("1", "", now)
			if slot.Sub(now) > lead {
				break
			}
			ahead = append(ahead, b.Take("1", "", slot))
		}
	}
	count := func(of []time.Time, from, to time.Duration) int {
		n := 0
		for _, at := range of {
			if d := at.Sub(epoch); d >= from && d < to {
				n++
			}
		}
		return n
	}
	var r halvedResult
	for _, at := range refused {
		if from := at.Sub(epoch); from >= halve+10*time.Second {
			r.refusalsIn10s = max(r.refusalsIn10s, count(refused, from, from+10*time.Second))
		}
	}
	if n := count(refused, 0, halve); n != 0 {
		t.Fatalf("seed %d: %d refusals before the limit halves", seed, n)
	}
	r.refused = float64(len(refused)) / float64(sends)
	r.used = float64(count(accepted, halve+10*time.Second, restore)) / (after * (restore - halve - 10*time.Second).Seconds())
	r.back = float64(count(accepted, restore+50*time.Second, restore+60*time.Second)) / (configured * 10)
	return r
}
