package simulator

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestPairBucket: 45 at once, then one each six seconds, to the nanosecond; the burst
// comes back in 45 times six seconds.
func TestPairBucket(t *testing.T) {
	inBubble(t, Config{Pair: Limit{Burst: 45}}, func(r *rig) {
		burst := func(want int) {
			t.Helper()
			for n := range want + 1 {
				if got, over := r.post(text("1234", "")).code(), n == want; (got == 131056) != over || !over && got != 0 {
					t.Fatalf("message %d of a burst: code %d", n+1, got)
				}
			}
		}
		burst(45)
		pass(6*time.Second - 1)
		burst(0)
		pass(1)
		burst(1)
		if got := r.post(text("1235", "")).code(); got != 0 {
			t.Errorf("another recipient: code %d", got)
		}
		if got := r.postTo("2", "+16505551234").code(); got != 0 {
			t.Errorf("another phone number: code %d", got)
		}
		pass(20 * 6 * time.Second)
		burst(20)
		pass(time.Hour)
		burst(45)
		if got := r.s.Ledger(); got.Totals.ThrottledPair != 5 || got.Totals.ThrottledLimit != 5 || got.Phones[1].ThrottledPair != 5 {
			t.Errorf("totals %+v", got.Totals)
		}
	})
}

// TestPairBucketProperties compares with tokens counted one by one.
func TestPairBucketProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := Limit{Burst: rapid.IntRange(1, 6).Draw(t, "burst"), Window: time.Duration(rapid.IntRange(1, 50).Draw(t, "window"))}
		var p pair
		tokens, refill := limit.Burst, time.Duration(0) // refill: time that counts for the next token
		var now time.Duration
		for _, gap := range rapid.SliceOfN(rapid.IntRange(0, 80), 1, 200).Draw(t, "gaps") {
			now += time.Duration(gap)
			for refill += time.Duration(gap); refill >= limit.Window && tokens < limit.Burst; refill -= limit.Window {
				tokens++
			}
			if tokens == limit.Burst {
				refill = 0
			}
			if got := p.admits(now, limit); got != (tokens > 0) {
				t.Fatalf("at %d with %d tokens: admitted %v", now, tokens, got)
			}
			if tokens > 0 {
				p.take(now, limit)
				tokens--
			}
		}
	})
}

func TestPairLimitChanges(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		room := func(phone string) (n int) { // messages that go through now
			for r.postTo(phone, "+16505551234").code() == 0 {
				if n++; n > 100 {
					break
				}
			}
			return n
		}
		want := func(what, phone string, n int) {
			t.Helper()
			if got := room(phone); got != n {
				t.Errorf("%s: %d went through, want %d", what, got, n)
			}
		}
		must(t, r.s.SetPairLimit("", 10, 6*time.Second))
		want("the default", "1", 10)
		must(t, r.s.SetPairLimit("", 10, 60*time.Millisecond))
		pass(120 * time.Millisecond)
		want("a hundred times faster", "1", 2)
		must(t, r.s.SetPairLimit("", 13, 60*time.Millisecond))
		want("a larger burst", "1", 3)
		must(t, r.s.SetPairLimit("2", 1, time.Second))
		want("one of the phone's own", "2", 1)
		must(t, r.s.SetPairLimit("", 40, time.Second))
		want("the other keeps its own", "2", 0)
		want("thirteen lacking of forty", "1", 27)
		pass(2 * time.Second)
		must(t, r.s.SetLimits("pair", "", Limit{Max: 4, Window: time.Second}))
		want("a window", "1", 4)
		want("not of a phone with its own", "2", 1)
		must(t, r.s.SetPairLimit("", 0, 0))
		want("none", "1", 101)
	})
}

// TestSpellingsAreOneUser: the pair limit looks at the user, not at the digits.
func TestSpellingsAreOneUser(t *testing.T) {
	inBubble(t, Config{Pair: Limit{Burst: 1}}, func(r *rig) {
		for i, tt := range []struct {
			to, waID string
			code     int
		}{
			{"+55 41 98765-4321", "554187654321", 0},
			{"554187654321", "", 131056},
			{"+5215512345678", "5215512345678", 0},
			{"+52 55 1234 5678", "", 131056},
			{"+5511987654321", "5511987654321", 0},
			{"+551187654321", "", 131056},
		} {
			rep := r.postTo("1", tt.to)
			if rep.code() != tt.code {
				t.Errorf("message %d to %s: code %d, want %d", i, tt.to, rep.code(), tt.code)
			}
			if tt.code == 0 && (rep.body.Contacts[0].Input != tt.to || rep.body.Contacts[0].WaID != tt.waID) {
				t.Errorf("message to %s: contact %+v", tt.to, rep.body.Contacts[0])
			}
		}
		r.quiet()
		if st := r.hookStatuses(r.s.Accepts(0, 1)[0].WAMID); len(st) != 2 || st[0].RecipientID != "554187654321" {
			t.Errorf("statuses %+v", st)
		}
	})
}

func TestWaIDs(t *testing.T) {
	for in, want := range map[string]string{
		"16505551234":   "16505551234",
		"5531987654321": "553187654321", // Brazil, area codes from 31 on: without the 9
		"553187654321":  "553187654321",
		"5599912345678": "559912345678",
		"5528987654321": "5528987654321", // below: with it
		"552887654321":  "5528987654321",
		"551133334444":  "551133334444", // a fixed line
		"5531887654321": "5531887654321",
		"525512345678":  "5215512345678",
		"5215512345678": "5215512345678",
		"52551234567":   "52551234567",
		"":              "",
	} {
		if got := waIDOf(in); got != want {
			t.Errorf("waIDOf(%s) = %s, want %s", in, got, want)
		}
		if got := waIDOf(waIDOf(in)); got != want {
			t.Errorf("twice: waIDOf(%s) = %s, want %s", in, got, want)
		}
	}
}

// TestLimitsOfAnHour: strict over the whole hour, whatever was the limit before.
func TestLimitsOfAnHour(t *testing.T) {
	for scope, code := range map[string]int{"waba": 80007, "app": 4} {
		t.Run(scope, func(t *testing.T) {
			inBubble(t, Config{}, func(r *rig) {
				send := func(n int) (last int) {
					for i := range n {
						last = r.postTo(fmt.Sprint(i%3), fmt.Sprintf("+1650555%04d", 2000+i)).code()
					}
					return last
				}
				if got := send(150); got != 0 {
					t.Fatalf("without a limit: code %d", got)
				}
				pass(10 * time.Minute)
				must(t, r.s.SetLimits(scope, "0", Limit{Max: 200, Window: time.Hour})) // counts those 150
				if got := send(50); got != 0 {
					t.Fatalf("below the limit: code %d", got)
				}
				if got := send(1); got != code {
					t.Errorf("one over: code %d", got)
				}
				pass(50*time.Minute - 1)
				if got := send(1); got != code {
					t.Errorf("just before the first leave: code %d", got)
				}
				pass(1)
				if got := send(150); got != 0 {
					t.Errorf("an hour after the first: code %d", got)
				}
				if got := send(1); got != code {
					t.Errorf("one over again: code %d", got)
				}
				led := r.s.Ledger()
				got := map[string]ScopeCounts{"waba": led.WABAs[0], "app": led.Apps[0]}[scope]
				if got.PeakInWindow != 200 || got.Limit != 200 || got.WindowMS != 3_600_000 || got.ThrottledLimit != 3 {
					t.Errorf("ledger %+v", got)
				}
			})
		})
	}
}

// TestALimitLoweredCountsAtOnce: what is above the new limit has to leave the window
// first; the peak in the window is then of the new limit.
func TestALimitLoweredCountsAtOnce(t *testing.T) {
	inBubble(t, Config{PhonePerSecond: 10}, func(r *rig) {
		burst := func() (n int) {
			for r.post(text("1234", "")).code() == 0 {
				n++
			}
			return n
		}
		if got := burst(); got != 10 {
			t.Fatalf("%d of 10", got)
		}
		pass(500 * time.Millisecond)
		must(t, r.s.SetLimits("phone", "", Limit{Max: 5}))
		if got := burst(); got != 0 {
			t.Errorf("%d after the limit was lowered", got)
		}
		pass(500 * time.Millisecond)
		if got := burst(); got != 5 {
			t.Errorf("%d of 5", got)
		}
		if p := r.s.Ledger().Phones[0]; p.PeakInWindow != 5 || p.PeakPerSecond != 10 || p.Limit != 5 {
			t.Errorf("ledger %+v", p)
		}
		must(t, r.s.SetLimits("phone", testPhone, Limit{Max: 7}))
		if got := burst(); got != 2 {
			t.Errorf("%d more up to 7", got)
		}
		if p := r.s.Ledger().Phones[0]; p.PeakInWindow != 7 {
			t.Errorf("ledger %+v", p)
		}
		must(t, r.s.SetLimits("phone", testPhone, Limit{Max: 3}))
		pass(time.Second)
		if got, peak := burst(), r.s.Ledger().Phones[0].PeakInWindow; got != 3 || peak != 3 {
			t.Errorf("%d of 3, peak %d", got, peak)
		}
	})
}

func TestWrongLimits(t *testing.T) {
	s := New(Config{})
	for _, tt := range []struct {
		scope string
		limit Limit
	}{
		{"planet", Limit{Max: 1}},
		{"phone", Limit{Max: -1}},
		{"phone", Limit{Max: 1, Window: -1}},
		{"waba", Limit{Max: 1, Window: time.Hour + 1}},
		{"app", Limit{Max: maxLimit + 1}},
		{"phone", Limit{Burst: 2}},
		{"pair", Limit{Burst: 2, Max: 2}},
		{"pair", Limit{Burst: -1}},
		{"pair", Limit{Burst: maxBurst + 1}},
	} {
		if err := s.SetLimits(tt.scope, "", tt.limit); err == nil {
			t.Errorf("%s %+v was taken", tt.scope, tt.limit)
		}
	}
}
