package simulator

import (
	"fmt"
	"net/http"
	"reflect"
	"testing"
	"time"
)

func TestRefusalsAreRemembered(t *testing.T) {
	inBubble(t, Config{Token: "token"}, func(r *rig) {
		r.s.SetPhone("1", PhoneConfig{WABAID: "10", AppID: "20", PerSecond: 1})
		must(t, r.s.SetLimits("waba", "30", Limit{Max: 1}))
		must(t, r.s.SetLimits("app", "40", Limit{Max: 1}))
		must(t, r.s.SetLimits("management", "10", Limit{Max: 1, Window: time.Hour}))
		must(t, r.s.SetPairLimit("5", 1, time.Hour))
		r.s.SetPhone("2", PhoneConfig{WABAID: "30"})
		r.s.SetPhone("3", PhoneConfig{AppID: "40"})
		if _, err := r.s.SetError(ErrorRule{Phone: "4", Code: 131042}); err != nil {
			t.Fatal(err)
		}
		for _, phone := range []string{"1", "2", "3", "5"} {
			r.postTo(phone, "+16505551234")
			pass(100 * time.Millisecond)
			r.postTo(phone, "+16505551234")
		}
		r.postTo("4", "+16505551234")
		r.postTo("6", "+16505550002")
		r.s.Reset() // keeps the record
		r.postTo("6", "")
		do(r.t.Context(), r.t, r.s, http.MethodPost, "/v23.0/6/messages", text("1234", ""), http.Header{"Authorization": {"Bearer x"}})
		for range 2 {
			do(r.t.Context(), r.t, r.s, http.MethodGet, "/v23.0/10", "", nil)
		}
		want := []Refusal{
			{1, 100, "1", "phone", "1", 130429},
			{2, 200, "2", "waba", "30", 80007},
			{3, 300, "3", "app", "40", 4},
			{4, 400, "5", "pair", "5", 131056},
			{5, 400, "4", "error", "4", 131042},
			{6, 400, "6", "digits", "6", 130429},
			{7, 400, "6", "request", "6", 131008},
			{8, 400, "6", "request", "6", 190},
			{9, 400, "", "management", "10", 80008},
		}
		if got := r.s.Refusals(0, 100); !reflect.DeepEqual(got, want) {
			t.Errorf("refusals %+v\nwant %+v", got, want)
		}
		if got := r.s.Refusals(3, 2); !reflect.DeepEqual(got, want[3:5]) {
			t.Errorf("page %+v", got)
		}
		if got := r.s.Refusals(9, 2); len(got) != 0 {
			t.Errorf("after the last %+v", got)
		}
		if got := r.s.Elapsed(); got != 400*time.Millisecond {
			t.Errorf("elapsed %v", got)
		}
	})
}

func TestThrottlesAreCountedByScope(t *testing.T) {
	inBubble(t, Config{PhonePerSecond: 1}, func(r *rig) {
		r.post(text("1234", ""))
		r.post(text("1234", ""))
		must(t, r.s.SetLimits("phone", "", Limit{}))
		for i, scope := range []string{"waba", "app", "pair"} {
			must(t, r.s.SetLimits(scope, "", Limit{Max: 1}))
			for range i + 2 {
				r.post(text("1234", ""))
			}
			must(t, r.s.SetLimits(scope, "", Limit{}))
		}
		got := r.s.Ledger().Totals
		if got.ThrottledPhone != 1 || got.ThrottledWABA != 2 || got.ThrottledApp != 3 || got.ThrottledPair != 3 || got.ThrottledLimit != 9 {
			t.Errorf("totals %+v", got)
		}
	})
}

func TestRefusalsAreBounded(t *testing.T) {
	var l refusalLog
	for i := range keptRefusals + 10 {
		l.add(Refusal{AtMS: int64(i)})
	}
	s := New(Config{})
	s.refusals = l
	if got := s.Refusals(0, 1); len(l.ring) != keptRefusals || got[0].Seq != 11 || got[0].AtMS != 10 {
		t.Errorf("%d kept, oldest %+v", len(l.ring), got)
	}
	if got := s.Refusals(keptRefusals+9, 5); len(got) != 1 || got[0].AtMS != keptRefusals+9 {
		t.Errorf("newest %+v", got)
	}
}

func TestRates(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		for i := range 25 {
			r.postTo("1", fmt.Sprintf("+1650555%04d", 2000+i))
			if i%5 == 0 {
				r.postTo("2", "+16505551234")
			}
			pass(100 * time.Millisecond)
		}
		r.postTo("1", "+16505551234") // in the instant of the question
		for _, tt := range []struct {
			bucket, from, to time.Duration
			want             map[string][]int
		}{
			{time.Second, 0, 0, map[string][]int{"1": {10, 10, 6}, "2": {2, 2, 1}}},
			{time.Second, 0, time.Hour, map[string][]int{"1": {10, 10, 6}, "2": {2, 2, 1}}},
			{500 * time.Millisecond, 500 * time.Millisecond, 1500 * time.Millisecond, map[string][]int{"1": {5, 5}, "2": {1, 1}}},
			{time.Second, 600 * time.Millisecond, 900 * time.Millisecond, map[string][]int{"1": {3}}},
			{time.Second, time.Hour, 0, map[string][]int{}},
			{time.Second, 2 * time.Second, time.Second, map[string][]int{}},
		} {
			got, err := r.s.Rates(tt.bucket, tt.from, tt.to)
			if err != nil || !reflect.DeepEqual(got.Phones, tt.want) || got.NowMS != 2500 || got.FromMS != tt.from.Milliseconds() || got.BucketMS != tt.bucket.Milliseconds() {
				t.Errorf("%v from %v to %v: %+v, %v\nwant %v", tt.bucket, tt.from, tt.to, got, err, tt.want)
			}
		}
		if _, err := r.s.Rates(time.Microsecond, 0, 0); err == nil {
			t.Error("a bucket of a microsecond was taken")
		}
		pass(time.Hour)
		if _, err := r.s.Rates(time.Millisecond, 0, 0); err == nil {
			t.Error("an endless answer was given")
		}
		r.s.Reset()
		if got, err := r.s.Rates(time.Second, 0, 0); err != nil || len(got.Phones) != 0 {
			t.Errorf("after Reset %+v, %v", got, err)
		}
	})
}
