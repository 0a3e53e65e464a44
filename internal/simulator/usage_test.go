package simulator

import (
	"net/http"
	"testing"
	"time"
)

const useHeader = "X-Business-Use-Case-Usage"

func TestUsageAsGiven(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.s.SetPhone("1", PhoneConfig{WABAID: "10"})
		r.s.SetPhone("2", PhoneConfig{WABAID: "20"})
		if rep := r.postTo("1", "+16505551234"); rep.header.Get("X-App-Usage")+rep.header.Get(useHeader) != "" {
			t.Errorf("without a usage: %v", rep.header)
		}
		must(t, r.s.SetUsage(Usage{App: &AppUsage{28, 25, 24}, WABA: map[string]int{"10": 93}}))
		const app = `{"call_count":28,"total_cputime":25,"total_time":24}`
		for _, tt := range []struct{ phone, last4, business string }{
			{"1", "1234", `{"10":[{"type":"whatsapp","call_count":93,"total_cputime":0,"total_time":0,"estimated_time_to_regain_access":0}]}`},
			{"1", "0001", `{"10":[{"type":"whatsapp","call_count":93,"total_cputime":0,"total_time":0,"estimated_time_to_regain_access":0}]}`},
			{"2", "1234", ""},
		} {
			rep := r.postTo(tt.phone, "+1650555"+tt.last4)
			if got := rep.header.Get("X-App-Usage"); got != app {
				t.Errorf("app usage %s", got)
			}
			if got := rep.header.Get(useHeader); got != tt.business {
				t.Errorf("phone %s: business usage %s, want %s", tt.phone, got, tt.business)
			}
		}
		must(t, r.s.SetUsage(Usage{}))
		if rep := r.postTo("1", "+16505551234"); rep.header.Get("X-App-Usage")+rep.header.Get(useHeader) != "" {
			t.Errorf("taken back: %v", rep.header)
		}
	})
}

func TestRegainOnAnAnswer(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.s.SetPhone("1", PhoneConfig{WABAID: "10"})
		if _, err := r.s.SetError(ErrorRule{Code: 80007, RegainMinutes: 12, Times: 1}); err != nil {
			t.Fatal(err)
		}
		const want = `{"10":[{"type":"whatsapp","call_count":100,"total_cputime":0,"total_time":0,"estimated_time_to_regain_access":12}]}`
		rep := r.postTo("1", "+16505551234")
		if got := rep.header.Get(useHeader); rep.code() != 80007 || got != want || rep.header.Get("X-App-Usage") != "" {
			t.Errorf("code %d, business usage %s", rep.code(), got)
		}
		if rep := r.postTo("1", "+16505551234"); rep.header.Get(useHeader) != "" {
			t.Errorf("afterwards %v", rep.header)
		}
	})
}

// TestUsageDerived: percent of the limits that are longer than a second, and minutes
// until the WABA may send again.
func TestUsageDerived(t *testing.T) {
	inBubble(t, Config{WABAPerSecond: 100}, func(r *rig) {
		must(t, r.s.SetUsage(Usage{Auto: true}))
		if rep := r.post(text("1234", "")); rep.header.Get("X-App-Usage")+rep.header.Get(useHeader) != "" {
			t.Errorf("with limits of a second: %v", rep.header)
		}
		must(t, r.s.SetLimits("app", "", Limit{Max: 8, Window: time.Hour}))
		must(t, r.s.SetLimits("waba", "0", Limit{Max: 3, Window: time.Hour}))
		pass(90 * time.Second)
		for _, want := range []struct {
			app, business string
			code          int
		}{
			{`{"call_count":25,"total_cputime":0,"total_time":0}`, `{"0":[{"type":"whatsapp","call_count":66,"total_cputime":0,"total_time":0,"estimated_time_to_regain_access":0}]}`, 0},
			{`{"call_count":37,"total_cputime":0,"total_time":0}`, `{"0":[{"type":"whatsapp","call_count":100,"total_cputime":0,"total_time":0,"estimated_time_to_regain_access":0}]}`, 0},
			{`{"call_count":37,"total_cputime":0,"total_time":0}`, `{"0":[{"type":"whatsapp","call_count":100,"total_cputime":0,"total_time":0,"estimated_time_to_regain_access":59}]}`, 80007},
		} {
			rep := r.post(text("1234", ""))
			if rep.code() != want.code || rep.header.Get("X-App-Usage") != want.app || rep.header.Get(useHeader) != want.business {
				t.Errorf("code %d, %s, %s\nwant %+v", rep.code(), rep.header.Get("X-App-Usage"), rep.header.Get(useHeader), want)
			}
		}
	})
}

func TestWrongUsage(t *testing.T) {
	s := New(Config{})
	for _, u := range []Usage{{App: &AppUsage{CallCount: -1}}, {App: &AppUsage{TotalTime: 1001}}, {WABA: map[string]int{"1": -1}}} {
		if err := s.SetUsage(u); err == nil {
			t.Errorf("%+v was taken", u)
		}
	}
}

// TestUsageIsCopied: what the caller changes afterwards changes nothing.
func TestUsageIsCopied(t *testing.T) {
	s := New(Config{})
	u := Usage{App: &AppUsage{CallCount: 1}, WABA: map[string]int{"0": 2}}
	must(t, s.SetUsage(u))
	u.App.CallCount, u.WABA["0"] = 50, 50
	rep := do(t.Context(), t, s, http.MethodPost, "/v23.0/1/messages", text("1234", ""), nil)
	if got := rep.header.Get("X-App-Usage"); got != `{"call_count":1,"total_cputime":0,"total_time":0}` {
		t.Errorf("app usage %s", got)
	}
}
