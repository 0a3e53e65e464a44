package simulator

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"
)

// told is one status as it came.
type told struct {
	status string
	at     time.Duration // of the POST, after the accept
	stamp  time.Duration // its timestamp, in whole seconds
}

func (r *rig) tellings(start time.Time) map[string][]told {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string][]told{}
	for _, p := range r.posts {
		for _, e := range p.hook.Entry {
			for _, c := range e.Changes {
				for _, st := range c.Value.Statuses {
					sec, err := strconv.ParseInt(st.Timestamp, 10, 64)
					if err != nil {
						r.t.Errorf("timestamp %q", st.Timestamp)
					}
					out[st.ID] = append(out[st.ID], told{st.Status, p.at.Sub(start), time.Duration(sec-start.Unix()) * time.Second})
				}
			}
		}
	}
	return out
}

// sendAll sends n messages at one time and waits for their webhooks; the accepts come back.
func (r *rig) sendAll(n int, last4 string) (accepts []Accept, tellings map[string][]told) {
	start := time.Now()
	for i := range n {
		r.post(text(last4, fmt.Sprintf("g1:%s:1", testID(i))))
	}
	r.quiet()
	return r.s.Accepts(0, n), r.tellings(start)
}

func TestDuplicatedStatusesArePostedTwice(t *testing.T) {
	inBubble(t, Config{StatusDelay: time.Second}, func(r *rig) {
		must(t, r.s.SetChaos(Chaos{StatusDuplicate: 1, StatusDuplicateMS: 3000}))
		accepts, tellings := r.sendAll(200, "1234")
		atOnce, later := 0, 0
		for _, a := range accepts {
			at := map[string][]time.Duration{}
			for _, tell := range tellings[a.WAMID] {
				at[tell.status] = append(at[tell.status], tell.at)
				if want := map[string]time.Duration{"sent": time.Second, "delivered": 2 * time.Second}[tell.status]; tell.stamp != want {
					t.Errorf("%s of %v, want %v", tell.status, tell.stamp, want)
				}
			}
			if len(at["sent"]) != 2 || len(at["delivered"]) != 2 || len(at) != 2 {
				t.Fatalf("told %v", at)
			}
			for _, times := range at {
				switch gap := times[1] - times[0]; {
				case gap == 0:
					atOnce++
				case gap > 0 && gap < 3*time.Second+10*time.Millisecond: // looks at the schedule are 2 ms apart
					later++
				default:
					t.Errorf("told again after %v", gap)
				}
			}
		}
		got := r.s.Ledger()
		if got.Chaos.Duplicated != (WebhookCount{400, 200}) || got.Totals.DuplicateStatuses != 400 || got.Totals.StatusesPosted != 800 {
			t.Errorf("counted %+v, totals %+v", got.Chaos, got.Totals)
		}
		if atOnce < 150 || later < 150 {
			t.Errorf("%d at once, %d later", atOnce, later)
		}
		if got.Chaos.Late != (WebhookCount{}) || got.Chaos.Reordered != (WebhookCount{}) || got.Chaos.Lost != (WebhookCount{}) {
			t.Errorf("counted %+v", got.Chaos)
		}
	})
}

func TestLostMessagesAreNeverTold(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		must(t, r.s.SetChaos(Chaos{Seed: 5, WebhooksLost: 0.3, StatusLate: 0.5, StatusDuplicate: 0.5, StatusReorder: 0.5}))
		accepts, _ := r.sendAll(300, "1234")
		pass(time.Hour)
		lost := int64(0)
		for _, a := range accepts {
			names := r.statuses(a.WAMID)
			switch {
			case a.Lost && (len(names) > 0 || a.FirstToldUnixNS != 0 || a.Told != ""):
				t.Errorf("a lost message was told: %v", names)
			case !a.Lost && (!slices.Contains(names, "sent") || !slices.Contains(names, "delivered") || a.Told != "delivered" || a.FirstToldUnixNS == 0):
				t.Errorf("told %v, %+v", names, a)
			case a.Lost:
				lost++
			}
		}
		if got := r.s.Ledger().Chaos.Lost; lost < 50 || got != (WebhookCount{2 * lost, lost}) {
			t.Errorf("%d lost, counted %+v", lost, got)
		}
	})
}

func TestLateStatusesKeepTheirTimestamps(t *testing.T) {
	inBubble(t, Config{StatusDelay: time.Second}, func(r *rig) {
		must(t, r.s.SetChaos(Chaos{StatusLate: 0.4, StatusLateMS: 8000}))
		accepts, tellings := r.sendAll(500, "1234")
		late, messages, after := int64(0), int64(0), int64(0)
		for _, a := range accepts {
			tells := tellings[a.WAMID]
			if len(tells) != 2 {
				t.Fatalf("told %v", tells)
			}
			if tells[0].status == "delivered" {
				after++
			}
			own := int64(0)
			for _, tell := range tells {
				due := map[string]time.Duration{"sent": time.Second, "delivered": 2 * time.Second}[tell.status]
				if tell.stamp != due || tell.at < due || tell.at > due+8*time.Second+10*time.Millisecond {
					t.Errorf("%s told at %v with the time %v", tell.status, tell.at, tell.stamp)
				}
				if tell.at > due+2*time.Millisecond {
					own++
				}
			}
			late += own
			messages += min(own, 1)
		}
		got := r.s.Ledger().Chaos
		// a wait of a millisecond or two cannot be told from none here
		if d := got.Late.Statuses - late; d < 0 || d > 5 || got.Late.Messages < messages || late < 300 {
			t.Errorf("%d late of %d messages, counted %+v", late, messages, got.Late)
		}
		if after < 30 || got.Reordered != (WebhookCount{after, after}) {
			t.Errorf("%d told delivered first, counted %+v", after, got.Reordered)
		}
	})
}

// TestReorderedStatusesComeLastOneFirst: within a message, and messages overtake others.
func TestReorderedStatusesComeLastOneFirst(t *testing.T) {
	for _, delay := range []time.Duration{time.Second, -1} {
		inBubble(t, Config{StatusDelay: delay}, func(r *rig) {
			must(t, r.s.SetChaos(Chaos{StatusReorder: 1}))
			accepts, tellings := r.sendAll(50, "1234")
			var order []int64
			for _, a := range accepts {
				names, tells := []string{}, tellings[a.WAMID]
				for _, tell := range tells {
					names = append(names, tell.status)
				}
				if !reflect.DeepEqual(names, []string{"delivered", "sent"}) {
					t.Errorf("delay %v: told %v", delay, names)
				}
				order = append(order, int64(tells[0].at))
			}
			if slices.IsSorted(order) {
				t.Errorf("delay %v: no message overtook another", delay)
			}
			if got := r.s.Ledger().Chaos.Reordered; got != (WebhookCount{50, 50}) {
				t.Errorf("counted %+v", got)
			}
		})
	}
}

// TestWebhookChaosFollowsFromTheSeed: the plan of a message does not depend on others.
func TestWebhookChaosFollowsFromTheSeed(t *testing.T) {
	cfg := Chaos{Seed: 11, StatusLate: 0.3, StatusDuplicate: 0.3, StatusReorder: 0.3, WebhooksLost: 0.1}
	plans := func(c *chaos, order []int) map[int]string {
		out := map[int]string{}
		for _, i := range order {
			m := &message{opaque: "g1:" + testID(i) + ":1"}
			m.parseOpaque()
			p := &pending{statuses: behaviours[14].statuses, delay: time.Second}
			lost := c.disturb(p, c.key(m), &chaosLedger{})
			out[i] = fmt.Sprint(lost, p.statuses)
			if p.plan != nil {
				out[i] += fmt.Sprint(p.plan.steps)
				if len(p.plan.steps) != len(p.statuses) || int(p.left.Load()) != len(p.statuses) {
					t.Fatalf("plan %+v of %v", p.plan, p.statuses)
				}
				if !slices.IsSortedFunc(p.plan.steps, func(a, b step) int { return int(a.due - b.due) }) {
					t.Fatalf("not in order: %+v", p.plan.steps)
				}
			}
		}
		return out
	}
	order := make([]int, 2000)
	for i := range order {
		order[i] = i
	}
	first := plans(newChaos(cfg), order)
	slices.Reverse(order)
	if again := plans(newChaos(cfg), order); !reflect.DeepEqual(first, again) {
		t.Error("another order changed the webhooks")
	}
	cfg.Seed++
	if other := plans(newChaos(cfg), order); reflect.DeepEqual(first, other) {
		t.Error("another seed changed nothing")
	}
	if got := behaviours[14].statuses; !reflect.DeepEqual(got, []status{statusSent, statusDelivered, statusRead}) {
		t.Errorf("the list of all messages was changed: %v", got)
	}
}
