package simulator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

// TestAcceptsSayWhenTheyWereFirstTold: a status counts as told when the receiver has
// answered 200, and only the first one's time is kept.
func TestAcceptsSayWhenTheyWereFirstTold(t *testing.T) {
	inBubble(t, Config{StatusDelay: 10 * time.Second}, func(r *rig) {
		r.answer = func(n int) (int, error) {
			switch n {
			case 0:
				return 0, errors.New("connection reset")
			case 1:
				<-time.After(2 * time.Second) // virtual: a slow receiver
			}
			return http.StatusOK, nil
		}
		r.post(text("0014", "g1:a:1"))
		r.post(text("0017", "g1:b:1"))
		start := time.Now()
		pass(12 * time.Second) // the second POST began between 10.05 and 10.1 s
		synctest.Wait()
		if a := r.s.Accepts(0, 1)[0]; a.FirstToldUnixNS != 0 || a.Told != "" {
			t.Errorf("before the first 200: told %q at %d", a.Told, a.FirstToldUnixNS)
		}
		r.quiet()
		accepts := r.s.Accepts(0, 2)
		first := time.Duration(accepts[0].FirstToldUnixNS - start.UnixNano())
		if first < 12050*time.Millisecond || first > 12100*time.Millisecond || accepts[0].Told != "read" {
			t.Errorf("told %q, first after %v", accepts[0].Told, first)
		}
		if accepts[1].FirstToldUnixNS != 0 || accepts[1].Told != "" {
			t.Errorf("never told: %+v", accepts[1])
		}
	})
}

func TestToldIsTheFurthestStatus(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		want := []string{}
		for _, tt := range [][2]string{{"1234", "delivered"}, {"0003", "sent"}, {"0006", "read"}, {"0008", "failed"}, {"0017", ""}, {"0019", "played"}} {
			r.post(text(tt[0], ""))
			want = append(want, tt[1])
		}
		r.quiet()
		got := []string{}
		for _, a := range r.s.Accepts(0, 10) {
			got = append(got, a.Told)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	})
}

func TestMissedAreOursThatWereNotAccepted(t *testing.T) {
	inBubble(t, Config{PhonePerSecond: 1}, func(r *rig) {
		if _, err := r.s.SetError(ErrorRule{Code: 131042, To: "+16505559999"}); err != nil {
			t.Fatal(err)
		}
		start := time.Now().UnixNano()
		worker := http.Header{"X-Wagate-Worker": {"w1"}}
		for _, tt := range [][2]string{
			{"1234", "g1:accepted:1"}, {"1234", "g1:no-uuid:1"}, {"0012", "g1:0198c0de-0000-7000-8000-00000000000a:3"},
			{"0015", "g1:b:2"}, {"9999", "g1:c:1"}, {"1234", "not ours"}, {"0012", ""},
		} {
			do(r.t.Context(), r.t, r.s, http.MethodPost, "/v23.0/"+testPhone+"/messages", text(tt[0], tt[1]), worker)
		}
		miss := func(seq int64, id string, try int, what string, code int) Miss {
			return Miss{Seq: seq, OurID: id, Try: try, Phone: testPhone, ArrivalUnixNS: start, Worker: "w1", What: what, Code: code}
		}
		want := []Miss{
			miss(1, "no-uuid", 1, "phone", 130429), miss(2, "0198c0de-0000-7000-8000-00000000000a", 3, "digits", 0),
			miss(3, "b", 2, "digits", 131000), miss(4, "c", 1, "error", 131042),
		}
		if got := r.s.Missed(0, 10); !reflect.DeepEqual(got, want) {
			t.Errorf("missed %+v\nwant %+v", got, want)
		}
		if got := r.s.Missed(1, 2); !reflect.DeepEqual(got, want[1:3]) {
			t.Errorf("page %+v", got)
		}
		rep := do(r.t.Context(), r.t, r.s, http.MethodGet, "/_sim/ledger/missed?after=3", "", nil)
		if want := fmt.Sprintf(`{"missed":[{"seq":4,"our_id":"c","try":1,"phone":%q,"arrival_unix_ns":%d,"worker":"w1","what":"error","code":131042}],"next":4}`, testPhone, start); rep.raw != want {
			t.Errorf("page %s", rep.raw)
		}
		if len(r.s.Ledger().Workers) != 1 {
			t.Errorf("workers %v", r.s.Ledger().Workers)
		}
		r.s.Reset()
		r.post(text("0015", "g1:d:1"))
		if got := r.s.Missed(0, 10); len(got) != 1 || got[0].Seq != 5 || got[0].OurID != "d" {
			t.Errorf("after reset %+v", got)
		}
	})
}

func TestMissesAreBounded(t *testing.T) {
	s := New(Config{})
	p := s.scopes.phone("1")
	s.missed = newMissLog(41)
	for i := range keptMisses + 3 {
		s.missed.add(&request{p, &message{ours: ourID{1}, try: int32(i)}, 0, ""}, scopePhone, 130429)
	}
	first, last := s.Missed(0, 1), s.Missed(41+keptMisses+2, 10)
	if len(s.missed.ring) != keptMisses || first[0].Seq != 45 || first[0].Try != 3 || len(last) != 1 || last[0].Try != keptMisses+2 {
		t.Errorf("%d kept, from %+v to %+v", len(s.missed.ring), first, last)
	}
}

func TestInFlightCountsRequestsUnderWay(t *testing.T) {
	inBubble(t, Config{Latency: time.Second}, func(r *rig) {
		ctx, kill := context.WithCancel(r.t.Context())
		for i, worker := range []string{"w1", "w1", "w2"} {
			ctx := ctx
			if worker == "w2" {
				ctx = r.t.Context()
			}
			go do(ctx, r.t, r.s, http.MethodPost, "/v23.0/"+testPhone+"/messages", text("1234", fmt.Sprintf("g1:%d:1", i)), http.Header{"X-Wagate-Worker": {worker}})
		}
		synctest.Wait()
		led := r.s.Ledger()
		if want := map[string]int64{"w1": 2, "w2": 1}; !reflect.DeepEqual(led.InFlight, want) || led.Totals.InFlight != 3 || r.s.InFlight() != 3 {
			t.Errorf("under way: %v, %d", led.InFlight, led.Totals.InFlight)
		}
		kill()
		synctest.Wait()
		if got := r.s.Ledger().InFlight; !reflect.DeepEqual(got, map[string]int64{"w2": 1}) {
			t.Errorf("after the kill: %v", got)
		}
		pass(2 * time.Second)
		if got := r.s.InFlight(); got != 0 {
			t.Errorf("at the end: %d", got)
		}
		gone := map[string]int{}
		for _, a := range r.s.Accepts(0, 10) {
			if a.ClientGone {
				gone[a.Worker]++
			}
		}
		if !reflect.DeepEqual(gone, map[string]int{"w1": 2}) {
			t.Errorf("clients gone: %v", gone)
		}
	})
}

func TestWorkersUnderWayAreBounded(t *testing.T) {
	var f flights
	for i := range maxFlights + 10 {
		f.of(fmt.Sprint(i)).Add(1)
	}
	by, all := f.view()
	if len(by) != maxFlights+1 || by["(other)"] != 10 || all != maxFlights+10 {
		t.Errorf("%d workers, %d others, %d in all", len(by), by["(other)"], all)
	}
	f.of("0").Add(1)
	if by, _ := f.view(); by["0"] != 2 {
		t.Errorf("a known worker has %d", by["0"])
	}
}
