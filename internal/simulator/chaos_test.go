package simulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

func testID(i int) string { return fmt.Sprintf("0198c0de-%04x-7000-8000-%012x", i%0x10000, i*7919) }

// everyFault shares 0.7 among all faults but reset_unread.
var everyFault = Chaos{
	Seed: 1, ResetRead: 0.1, DropAfterAccept: 0.1, SlowAnswer: 0.1, NoBody5xx: 0.1, NoBody5xxAccepted: 0.1, GraphUnknown: 0.2,
}

// met is what happened to each id and try, as the ledger tells.
func met(s *Server) map[string]string {
	out := map[string]string{}
	for _, a := range s.Accepts(0, 10_000) {
		out[fmt.Sprint(a.OurID, " ", a.Try)] = fmt.Sprint("accepted ", a.Fault, a.Lost)
	}
	for _, m := range s.Missed(0, 10_000) {
		out[fmt.Sprint(m.OurID, " ", m.Try)] = fmt.Sprint(m.What, m.Code)
	}
	return out
}

// TestChaosFollowsFromTheSeed: the same seed does the same to the same ids and tries, in
// whatever order they come, and again after a reset; another seed does something else.
func TestChaosFollowsFromTheSeed(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		var bodies []string
		for i := range 500 {
			for try := 1; try <= 2; try++ {
				bodies = append(bodies, text("1234", fmt.Sprintf("g1:%s:%d", testID(i), try)))
			}
		}
		run := func(seed int64, order uint64) map[string]string {
			c := everyFault
			c.Seed, c.WebhooksLost, c.SlowAnswer = seed, 0.3, 0
			must(t, r.s.SetChaos(c))
			r.s.Reset()
			shuffle := rand.New(rand.NewPCG(order, 0)) //nolint:gosec // a fixed order
			shuffle.Shuffle(len(bodies), func(i, j int) { bodies[i], bodies[j] = bodies[j], bodies[i] })
			for _, body := range bodies {
				r.post(body)
			}
			return met(r.s)
		}
		first, again, other := run(1, 1), run(1, 2), run(2, 3)
		if len(first) != 1000 || !reflect.DeepEqual(first, again) {
			t.Errorf("another order changed what happened to %d messages", len(first))
		}
		if reflect.DeepEqual(first, other) {
			t.Error("another seed changed nothing")
		}
		same := 0
		for i := range 500 {
			if first[fmt.Sprint(testID(i), " ", 1)] == first[fmt.Sprint(testID(i), " ", 2)] {
				same++
			}
		}
		if same > 100 { // by chance about 67
			t.Errorf("%d of 500 second tries met the same as the first", same)
		}
	})
}

// TestChaosWithoutAnIDFollowsFromTheRecipient: the n-th message to a recipient meets the
// same, whatever goes to others in between.
func TestChaosWithoutAnIDFollowsFromTheRecipient(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		must(t, r.s.SetChaos(Chaos{Seed: 7, ResetRead: 0.3, GraphUnknown: 0.3}))
		run := func(n int, recipients ...string) map[string][]string {
			r.s.Reset() // which counts recipients anew
			out := map[string][]string{}
			for range n {
				for _, to := range recipients {
					rep := r.postTo(testPhone, to)
					out[to] = append(out[to], fmt.Sprint(rep.status, rep.dropped, rep.code()))
				}
			}
			return out
		}
		together := run(50, "+16505551111", "+16505552222", "+16505553333")
		alone := run(50, "+16505552222")
		if !reflect.DeepEqual(together["+16505552222"], alone["+16505552222"]) {
			t.Error("others changed what happened to a recipient's messages")
		}
		if reflect.DeepEqual(together["+16505551111"], together["+16505552222"]) {
			t.Error("two recipients met the same")
		}
		distinct := map[string]bool{}
		for _, what := range alone["+16505552222"] {
			distinct[what] = true
		}
		if len(distinct) < 4 { // accepted, reset, and some of the four codes
			t.Errorf("one recipient met only %v", distinct)
		}
		if got := r.s.Ledger().Chaos.Kinds[FaultResetRead]; got.Requests == 0 || got.Messages != got.Requests {
			t.Errorf("counted %+v", got)
		}
	})
}

// TestChaosMeetsItsShares: of 20,000 messages each fault meets its share, within five
// standard deviations; so does what concerns webhooks.
func TestChaosMeetsItsShares(t *testing.T) {
	const n = 20_000
	within := func(what string, got int, share float64) {
		t.Helper()
		if dev := math.Abs(float64(got) - n*share); dev > 5*math.Sqrt(n*share*(1-share)) {
			t.Errorf("%s: %d of %d, want about %.0f", what, got, n, n*share)
		}
	}
	for seed := range int64(3) {
		cfg := everyFault
		cfg.Seed, cfg.ResetUnread, cfg.SlowAnswer, cfg.WebhooksLost, cfg.StatusReorder = seed, 0.02, 0.005, 0.01, 0.25
		c := newChaos(cfg)
		var got [len(faults)]int
		codes := map[int]int{}
		unread, lost, reordered, lostAndDropped := 0, 0, 0, 0
		for i := range n {
			m := &message{opaque: "g1:" + testID(i) + ":1"}
			m.parseOpaque()
			if m.ours == (ourID{}) {
				t.Fatal("no id")
			}
			key := c.key(m)
			fault := c.fault(key)
			got[fault]++
			if e := errorOf(fault, key); e != nil && e.code != 0 {
				codes[e.code]++
			}
			if c.unread(fmt.Sprint(i % 10)) {
				unread++
			}
			var count chaosLedger
			p := &pending{statuses: ordinary.statuses, delay: time.Second}
			if c.disturb(p, key, &count) {
				lost++
				if fault == faultDropAfterAccept {
					lostAndDropped++
				}
			}
			reordered += int(count.reordered.Messages)
		}
		for i, share := range map[int]float64{
			faultNone: 0.395, faultResetUnread: 0, faultResetRead: 0.1, faultDropAfterAccept: 0.1, faultSlowAnswer: 0.005,
			faultNoBody5xx: 0.1, faultNoBody5xxAccepted: 0.1, faultGraphUnknown: 0.2,
		} {
			within(fmt.Sprint("fault ", faults[i]), got[i], share)
		}
		for _, code := range []int{1, 2, 131000, 131016} {
			within(fmt.Sprint("code ", code), codes[code], 0.05)
		}
		within("unread", unread, 0.02)
		within("lost", lost, 0.01)
		within("lost and dropped", lostAndDropped, 0.001) // one does not follow from the other
		within("reordered", reordered, 0.99*0.25)
	}
}

// TestChaosFaults: what each fault does, alone and always.
func TestChaosFaults(t *testing.T) {
	for _, tt := range []struct {
		fault    Fault
		cfg      Chaos
		status   int // of the answer; 0: cut
		accepted bool
		after    time.Duration
		code     int
		totals   func(*Totals) int64
	}{
		{FaultResetUnread, Chaos{ResetUnread: 1}, 0, false, 0, 0, func(t *Totals) int64 { return t.Resets }},
		{FaultResetRead, Chaos{ResetRead: 1}, 0, false, 0, 0, func(t *Totals) int64 { return t.Resets }},
		{FaultDropAfterAccept, Chaos{DropAfterAccept: 1}, 0, true, 0, 0, func(t *Totals) int64 { return t.DroppedAnswers }},
		{FaultSlowAnswer, Chaos{SlowAnswer: 1}, 200, true, time.Minute, 0, func(t *Totals) int64 { return t.SlowAnswers }},
		{FaultNoBody5xx, Chaos{NoBody5xx: 1}, 502, false, 0, 502, func(t *Totals) int64 { return t.Refused }},
		{FaultNoBody5xxAccepted, Chaos{NoBody5xxAccepted: 1}, 502, true, 0, 0, func(t *Totals) int64 { return t.BadGateways }},
		{FaultGraphUnknown, Chaos{GraphUnknown: 1}, 500, false, 0, -1, func(t *Totals) int64 { return t.Refused }},
	} {
		t.Run(string(tt.fault), func(t *testing.T) {
			inBubble(t, Config{SlowAnswer: time.Minute}, func(r *rig) {
				must(t, r.s.SetChaos(tt.cfg))
				codes := map[int]bool{}
				for i := range 40 { // two tries of each message
					start := time.Now()
					rep := r.post(text("1234", fmt.Sprintf("g1:%s:%d", testID(i/2), 1+i%2)))
					if rep.dropped != (tt.status == 0) || !rep.dropped && rep.status != tt.status || time.Since(start) != tt.after {
						t.Fatalf("answer %d, dropped %v, after %v", rep.status, rep.dropped, time.Since(start))
					}
					if rep.status == 502 && rep.raw != "" {
						t.Errorf("502 with the body %q", rep.raw)
					}
					codes[rep.code()] = true
				}
				r.quiet()
				led := r.s.Ledger()
				if want := (FaultCount{40, 20}); led.Chaos.Kinds[tt.fault] != want && tt.fault != FaultResetUnread { // which shows no id here
					t.Errorf("counted %+v", led.Chaos.Kinds[tt.fault])
				}
				for f, n := range led.Chaos.Kinds {
					if f != tt.fault && n != (FaultCount{}) || f == tt.fault && n.Requests != 40 {
						t.Errorf("counted %d of %s", n.Requests, f)
					}
				}
				if len(led.Chaos.Kinds) != 7 || tt.totals(&led.Totals) != 40 {
					t.Errorf("totals %+v", led.Totals)
				}
				accepts, missed := r.s.Accepts(0, 100), r.s.Missed(0, 100)
				switch {
				case tt.accepted && (len(accepts) != 40 || accepts[0].Fault != tt.fault || accepts[39].Told != "delivered" || len(missed) != 0):
					t.Errorf("%d accepts, %d missed", len(accepts), len(missed))
				case !tt.accepted && tt.fault != FaultResetUnread && (len(accepts) != 0 || len(missed) != 40 || missed[1].OurID != testID(0) || missed[1].Try != 2 || missed[1].What != string(tt.fault)):
					t.Errorf("%d accepts, %d missed", len(accepts), len(missed))
				case tt.code > 0 && missed[0].Code != tt.code:
					t.Errorf("code %d", missed[0].Code)
				}
				if want := map[int]bool{1: true, 2: true, 131000: true, 131016: true}; tt.code < 0 && !reflect.DeepEqual(codes, want) {
					t.Errorf("codes %v", codes)
				}
				if refusals := r.s.Refusals(0, 100); int64(len(refusals)) != led.Totals.Refused || len(refusals) > 0 && refusals[0].Scope != scopeChaos {
					t.Errorf("%d refusals", len(refusals))
				}
			})
		})
	}
}

// TestChaosLeavesAloneWhatAsksForSomething: errors on demand and the recipient's digits go
// before chance, and what a limit refuses has met no fault.
func TestChaosLeavesAloneWhatAsksForSomething(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		must(t, r.s.SetChaos(Chaos{ResetRead: 1, WebhooksLost: 1}))
		for _, rule := range []ErrorRule{{Code: 131042, To: "+16505551234"}, {Code: 131049, By: ByWebhook, To: "+16505552345"}} {
			if _, err := r.s.SetError(rule); err != nil {
				t.Fatal(err)
			}
		}
		wamids := map[string][]string{}
		for _, last4 := range []string{"0003", "0005", "2345"} {
			wamids[last4] = []string{r.post(text(last4, "g1:"+last4+":1")).wamid()}
		}
		if got := r.post(text("0001", "")).code(); got != 131026 {
			t.Errorf("digits: code %d", got)
		}
		if got := r.post(text("1234", "")).code(); got != 131042 {
			t.Errorf("error on demand: code %d", got)
		}
		r.quiet()
		for last4, want := range map[string][]string{"0003": {"sent"}, "0005": {"sent", "sent", "delivered", "delivered"}, "2345": {"failed"}} {
			if got := r.statuses(wamids[last4][0]); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %v", last4, got)
			}
		}
		if !r.post(text("3456", "")).dropped {
			t.Error("an ordinary recipient was left alone too")
		}
		r.s.Reset()
		must(t, r.s.SetChaos(Chaos{DropAfterAccept: 1}))
		must(t, r.s.SetLimits("phone", "", Limit{Max: 1}))
		for i := range 3 {
			r.post(text("3456", fmt.Sprintf("g1:%d:1", i)))
		}
		if got := r.s.Ledger(); got.Chaos.Kinds[FaultDropAfterAccept].Requests != 1 || got.Totals.ThrottledPhone != 2 {
			t.Errorf("met %+v, totals %+v", got.Chaos.Kinds, got.Totals)
		}
	})
}

// TestResetUnreadDoesNotWaitForTheBody: the rest of this body never comes.
func TestResetUnreadDoesNotWaitForTheBody(t *testing.T) {
	w := wire(t, Config{})
	must(t, w.sim.SetChaos(Chaos{ResetUnread: 1}))
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, err = conn.Write([]byte("POST /v23.0/1/messages HTTP/1.1\r\nHost: sim\r\nAuthorization: Bearer x\r\nContent-Length: 100000\r\n\r\n{"))
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) || len(answer) > 0 {
		t.Errorf("read %q, error %v, want a reset", answer, err)
	}
	if got := w.sim.Ledger(); got.Chaos.Kinds[FaultResetUnread] != (FaultCount{1, 1}) || got.Totals.Resets != 1 || len(w.sim.Missed(0, 10)) != 0 {
		t.Errorf("met %+v, missed %+v", got.Chaos.Kinds, w.sim.Missed(0, 10))
	}
	for range 2 { // our id came along with the headers
		if _, _, err := w.call(http.MethodPost, "/v23.0/1/messages", text("1234", "g1:"+testID(1)+":4")); err == nil {
			t.Error("answered")
		}
	}
	missed := w.sim.Missed(0, 10)
	if len(missed) != 2 || missed[0].OurID != testID(1) || missed[0].Try != 4 || missed[0].What != "reset_unread" || missed[0].Worker != "worker-1" {
		t.Errorf("missed %+v", missed)
	}
	if got := w.sim.Ledger().Chaos.Kinds[FaultResetUnread]; got != (FaultCount{3, 2}) {
		t.Errorf("met %+v", got)
	}
}

// TestChaosCutsOnTheWire: the resets after the request was read.
func TestChaosCutsOnTheWire(t *testing.T) {
	for _, c := range []Chaos{{ResetRead: 1}, {DropAfterAccept: 1}} {
		w := wire(t, Config{})
		must(t, w.sim.SetChaos(c))
		_, _, err := w.call(http.MethodPost, "/v23.0/1/messages", text("1234", "g1:x:1"))
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
			t.Errorf("error %v, want a cut connection", err)
		}
	}
}

func TestChaosByControlAndOverReset(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		call := func(status int, method, body string) string {
			t.Helper()
			rep := do(r.t.Context(), r.t, r.s, method, "/_sim/chaos", body, nil)
			if rep.status != status {
				t.Fatalf("%s %s: %d %s", method, body, rep.status, rep.raw)
			}
			return rep.raw
		}
		const settings = `{"seed":3,"reset_read":1,"status_late":0.5,"status_late_ms":1000}`
		call(204, http.MethodPut, settings)
		if got := call(200, http.MethodGet, ""); got != settings {
			t.Errorf("in force: %s", got)
		}
		r.post(text("1234", "g1:x:1"))
		rep := do(r.t.Context(), r.t, r.s, http.MethodGet, "/_sim/ledger", "", nil)
		var led struct {
			Chaos struct {
				Kinds map[string]FaultCount
				Late  *WebhookCount
			}
		}
		if err := json.Unmarshal([]byte(rep.raw), &led); err != nil || led.Chaos.Kinds["reset_read"] != (FaultCount{1, 1}) || led.Chaos.Late == nil {
			t.Errorf("ledger %s", rep.raw)
		}
		r.s.Reset()
		if got := r.s.Ledger().Chaos; got.Kinds[FaultResetRead] != (FaultCount{}) || len(r.s.Missed(0, 10)) != 0 {
			t.Errorf("after reset %+v", got)
		}
		r.post(text("1234", "g1:x:1"))
		if got := r.s.Ledger().Chaos.Kinds[FaultResetRead]; got != (FaultCount{1, 1}) {
			t.Errorf("chaos did not outlast the reset: %+v", got)
		}
		call(204, http.MethodPut, `{"seed":3}`)
		if got := r.post(text("1234", "g1:x:1")); got.status != 200 || r.s.Chaos() != (Chaos{}) || r.s.chaos.Load() != nil {
			t.Errorf("not ended: %d, %+v", got.status, r.s.Chaos())
		}
	})
}

func TestChaosSaysWhatIsWrong(t *testing.T) {
	s := New(Config{})
	for _, tt := range []struct{ path, body, names string }{
		{"PUT /_sim/chaos", `{"reset_unread":1.1}`, "reset_unread"},
		{"PUT /_sim/chaos", `{"webhooks_lost":-0.1}`, "webhooks_lost"},
		{"PUT /_sim/chaos", `{"reset_read":0.6,"slow_answer":0.6}`, "more than 1"},
		{"PUT /_sim/chaos", `{"status_late":1,"status_late_ms":-1}`, "status_late_ms"},
		{"PUT /_sim/chaos", `{"status_duplicate_ms":3600001}`, "status_duplicate_ms"},
		{"PUT /_sim/chaos", `{"storm":1}`, "storm"},
		{"POST /_sim/webhooks/outage", `{}`, "seconds"},
		{"POST /_sim/webhooks/outage", `{"seconds":-1}`, "seconds"},
		{"POST /_sim/webhooks/outage", `{"seconds":86401}`, "seconds"},
		{"GET /_sim/ledger/missed?after=x", "", "after"},
	} {
		method, path, _ := strings.Cut(tt.path, " ")
		rep := do(t.Context(), t, s, method, path, tt.body, nil)
		if rep.status != 400 || !strings.Contains(rep.raw, tt.names) {
			t.Errorf("%s %s: %d %s", tt.path, tt.body, rep.status, rep.raw)
		}
	}
	if err := s.SetChaos(Chaos{ResetRead: math.NaN()}); err == nil {
		t.Error("NaN taken for a share")
	}
	if s.chaos.Load() != nil {
		t.Error("something was taken")
	}
	must(t, s.SetChaos(Chaos{ResetRead: 0.1, DropAfterAccept: 0.2, SlowAnswer: 0.3, NoBody5xx: 0.2, NoBody5xxAccepted: 0.1, GraphUnknown: 0.1}))
}
