package simulator

import (
	"fmt"
	"net/http"
	"reflect"
	"testing"
	"time"
)

func TestDuplicatesAreCountedByOurID(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		a, b := "0198c0de-0000-7000-8000-00000000000a", "0198c0de-0000-7000-8000-00000000000b"
		for _, opaque := range []string{"g1:" + a + ":1", "g1:" + b + ":1", "", "", "g1:" + a + ":2", "g1:" + a + ":2", "g1:no-uuid:7", "g1:no-uuid:8", "g2:" + b + ":1"} {
			if rep := r.post(text("1234", opaque)); rep.status != 200 {
				t.Fatalf("status %d", rep.status)
			}
		}
		got := r.s.Ledger()
		if got.Totals.Accepted != 9 || got.Totals.Duplicates != 2 || got.Totals.ExtraAccepts != 3 || !reflect.DeepEqual(got.Duplicates, []string{a, "no-uuid"}) {
			t.Errorf("totals %+v, ids %v", got.Totals, got.Duplicates)
		}
		page := r.s.Accepts(4, 2)
		if len(page) != 2 || page[0].Seq != 5 || page[0].OurID != a || page[0].Try != 2 || page[1].Seq != 6 {
			t.Errorf("page %+v", page)
		}
		if last := r.s.Accepts(8, 10); len(last) != 1 || last[0].OurID != "" {
			t.Errorf("last page %+v", last)
		}
	})
}

func TestARefusedTryIsNoDuplicate(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		for range 2 {
			r.post(text("0002", "g1:x:1"))
		}
		if got := r.s.Ledger().Totals; got.Accepted != 1 || got.Duplicates != 0 {
			t.Errorf("totals %+v", got)
		}
	})
}

func TestDeliveriesAreCumulative(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		for _, last4 := range []string{"1234", "0003", "0004", "0005", "0006", "0008", "0014", "0017", "0019"} {
			r.post(text(last4, ""))
		}
		do(r.t.Context(), r.t, r.s, http.MethodPost, "/v23.0/"+testPhone+"/marketing_messages",
			`{"messaging_product":"whatsapp","to":"+16505550014","type":"template","template":{"name":"sale"}}`, nil)
		r.quiet()
		accepts := r.s.Accepts(0, 100)
		if last := accepts[len(accepts)-1]; last.API != "marketing_messages" || accepts[0].API != "" {
			t.Errorf("a marketing message: %+v, a text: %+v", last, accepts[0])
		}
		got := r.s.Ledger()
		want := []Delivery{
			{Phone: testPhone, Template: "", Accepted: 9, StatusCounts: StatusCounts{Sent: 7, Delivered: 6, Read: 4, Played: 1, Failed: 1}},
			{Phone: testPhone, Template: "sale", Accepted: 1, StatusCounts: StatusCounts{Sent: 1, Delivered: 1, Read: 1}},
		}
		if !reflect.DeepEqual(got.Deliveries, want) {
			t.Errorf("deliveries %+v\nwant %+v", got.Deliveries, want)
		}
		posted := StatusCounts{Sent: 8, Delivered: 6, Read: 4, Played: 1, Failed: 1} // distinct, as posted
		if got.Phones[0].Statuses != posted {
			t.Errorf("statuses %+v, want %+v", got.Phones[0].Statuses, posted)
		}
		if got.Totals.DuplicateStatuses != 2 || got.Totals.StatusesPosted != 22 {
			t.Errorf("totals %+v", got.Totals)
		}
	})
}

// TestLimitsOfEachScope sends one under and one over each scope's limit.
func TestLimitsOfEachScope(t *testing.T) {
	tests := []struct {
		scope string
		cfg   Config
		code  int
		to    func(i int) string // recipient of the i-th message
	}{
		{"phone", Config{PhonePerSecond: 5}, 130429, func(i int) string { return fmt.Sprint(2000 + i) }},
		{"waba", Config{WABAPerSecond: 5}, 80007, func(i int) string { return fmt.Sprint(2000 + i) }},
		{"app", Config{AppPerSecond: 5}, 4, func(i int) string { return fmt.Sprint(2000 + i) }},
		{"pair", Config{Pair: Limit{Max: 5, Window: time.Second}}, 131056, func(int) string { return "2000" }},
	}
	for _, tt := range tests {
		t.Run(tt.scope, func(t *testing.T) {
			inBubble(t, tt.cfg, func(r *rig) {
				for i := range 5 {
					if rep := r.post(text(tt.to(i), "")); rep.status != 200 {
						t.Fatalf("message %d: %d", i, rep.code())
					}
					<-time.After(100 * time.Millisecond) // virtual
				}
				over := r.post(text(tt.to(5), ""))
				if over.status != 400 || over.code() != tt.code || over.body.Error.Type != "OAuthException" || over.body.Error.ErrorData.Product != "whatsapp" || over.body.Error.TraceID == "" {
					t.Errorf("one over: %d %+v", over.status, over.body.Error)
				}
				<-time.After(500*time.Millisecond - 1) // virtual: a nanosecond before the first leaves the window
				if rep := r.post(text(tt.to(6), "")); rep.code() != tt.code {
					t.Errorf("just before a second: code %d", rep.code())
				}
				<-time.After(1) // virtual
				if rep := r.post(text(tt.to(7), "")); rep.status != 200 {
					t.Errorf("after a second: code %d", rep.code())
				}
				got := r.s.Ledger()
				if got.Totals.ThrottledLimit != 2 || got.Totals.Refused != 2 || got.Totals.Accepted != 6 || got.Totals.ThrottledProvoked != 0 {
					t.Errorf("totals %+v", got.Totals)
				}
				if got.Phones[0].PeakPerSecond != 5 || got.WABAs[0].PeakPerSecond != 5 || got.Apps[0].PeakPerSecond != 5 {
					t.Errorf("peaks %d %d %d", got.Phones[0].PeakPerSecond, got.WABAs[0].PeakPerSecond, got.Apps[0].PeakPerSecond)
				}
			})
		})
	}
}

// TestARefusalChargesNoScope: what the WABA refuses must not use up the phone's limit.
func TestARefusalChargesNoScope(t *testing.T) {
	inBubble(t, Config{PhonePerSecond: 3, WABAPerSecond: 1}, func(r *rig) {
		r.post(text("1234", ""))
		for range 5 {
			if got := r.post(text("1234", "")).code(); got != 80007 {
				t.Fatalf("code %d", got)
			}
		}
		if err := r.s.SetLimits("waba", "0", Limit{}); err != nil {
			t.Fatal(err)
		}
		for i, want := range []int{0, 0, 130429} {
			if got := r.post(text("1234", "")).code(); got != want {
				t.Errorf("message %d: code %d, want %d", i, got, want)
			}
		}
		if got := r.s.Ledger().Phones[0]; got.Accepted != 3 || got.PeakPerSecond != 3 || got.ThrottledLimit != 1 || got.Refused != 6 {
			t.Errorf("phone %+v", got)
		}
	})
}

func TestLimitsAtRunTime(t *testing.T) {
	inBubble(t, Config{PhonePerSecond: 1}, func(r *rig) {
		r.s.SetPhone("1", PhoneConfig{PerSecond: 2})
		r.s.SetPhone("2", PhoneConfig{PerSecond: -1})
		for _, tt := range []struct {
			phone string
			n     int
			want  int64
		}{{"1", 4, 2}, {"2", 4, 4}, {"3", 4, 1}} {
			for range tt.n {
				do(r.t.Context(), r.t, r.s, http.MethodPost, "/v23.0/"+tt.phone+"/messages", text("1234", ""), nil)
			}
		}
		for i, want := range []int64{2, 4, 1} {
			if got := r.s.Ledger().Phones[i]; got.Accepted != want {
				t.Errorf("phone %s accepted %d, want %d", got.ID, got.Accepted, want)
			}
		}
		if err := r.s.SetLimits("planet", "", Limit{Max: 1}); err == nil {
			t.Error("unknown scope taken")
		}
		if err := r.s.SetLimits("phone", "", Limit{Max: -1}); err == nil {
			t.Error("negative limit taken")
		}
	})
}

func TestReset(t *testing.T) {
	inBubble(t, Config{PhonePerSecond: 2}, func(r *rig) {
		r.s.Hold()
		first := r.post(text("1234", "g1:x:1")).wamid()
		r.post(text("0002", "g1:y:1"))
		r.s.Reset()
		got := r.s.Ledger()
		if got.Totals != (Totals{}) || got.Phones[0].Accepted != 0 || got.Phones[0].PeakPerSecond != 0 || len(got.Deliveries) != 0 || len(r.s.Accepts(0, 10)) != 0 {
			t.Errorf("after reset %+v", got)
		}
		if rep := r.post(text("0002", "g1:y:1")); rep.code() != 130429 {
			t.Errorf("provoked throttle not forgotten: %d", rep.code())
		}
		second := r.post(text("1234", "g1:x:1")).wamid()
		if second == "" || second == first {
			t.Errorf("wamids %q, %q", first, second)
		}
		r.quiet()
		if got := r.s.Ledger().Totals; got.Duplicates != 0 || got.Accepted != 1 || got.StatusesPosted != 2 || len(r.statuses(first)) != 0 {
			t.Errorf("totals %+v, statuses of the first %v", got, r.statuses(first))
		}
	})
}

func TestLedgerForgetsOldestRecords(t *testing.T) {
	const chunks = 3
	l := newLedger(1)
	l.maxChunks = chunks
	p := &phone{}
	m := &message{last4: -1}
	for i := range (chunks + 1) * chunkSize {
		m.ours = ourID{byte(i), byte(i >> 8), byte(i >> 16), 1}
		l.accept(p, m, 0, "")
	}
	if got := int64(len(l.seen)); len(l.chunks) != chunks || l.base != chunkSize+1 || l.at(chunkSize) != nil || l.at(l.base) == nil || got != chunks*chunkSize {
		t.Errorf("%d chunks from %d, %d ids", len(l.chunks), l.base, got)
	}
	if l.totals.Accepted != (chunks+1)*chunkSize {
		t.Errorf("accepted %d", l.totals.Accepted)
	}
	l.settle(1, statusSent, 0, []*phone{p}) // a late status of a forgotten one
	if p.statuses[statusSent] != 0 {
		t.Error("status of a forgotten record counted")
	}
}

func TestPairsAreSwept(t *testing.T) {
	for name, limit := range map[string]Limit{"window": {Max: 1, Window: time.Second}, "bucket": {Burst: 2, Window: time.Second}} {
		t.Run(name, func(t *testing.T) {
			s := newScopes(Config{Pair: limit})
			p := s.phone("1")
			for i := range 50_000 {
				if fault, _, _ := s.admit(p, fmt.Sprint(i), time.Duration(i)*10*time.Millisecond); fault != nil {
					t.Fatal(fault.message)
				}
			}
			if len(s.pairs.of) > 4096 {
				t.Errorf("%d pairs kept", len(s.pairs.of))
			}
		})
	}
}
