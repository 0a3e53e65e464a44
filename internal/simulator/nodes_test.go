package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
)

func get(t *testing.T, s *Server, path string) (reply, map[string]any) {
	t.Helper()
	rep := do(t.Context(), t, s, http.MethodGet, path, "", nil)
	var body map[string]any
	if err := json.Unmarshal([]byte(rep.raw), &body); err != nil {
		t.Fatalf("%s: %v in %q", path, err, rep.raw)
	}
	return rep, body
}

func TestReadingAPhoneNumber(t *testing.T) {
	s := New(Config{})
	s.SetPhone("1", PhoneConfig{WABAID: "10", DisplayPhoneNumber: "15550001111"})
	must(t, s.SetThroughput("1", "HIGH"))
	for _, tt := range []struct {
		fields string
		want   map[string]any
	}{
		{"?fields=status,throughput,quality_rating", map[string]any{"id": "1", "status": "CONNECTED", "throughput": map[string]any{"level": "HIGH"}, "quality_rating": "GREEN"}},
		{"?fields=id,display_phone_number", map[string]any{"id": "1", "display_phone_number": "15550001111"}},
		{"?fields=" + url.QueryEscape("throughput{level, x},verified_name.limit(1)"), map[string]any{"id": "1", "throughput": map[string]any{"level": "HIGH"}, "verified_name": "Simulated 1"}},
	} {
		if rep, got := get(t, s, "/v23.0/1"+tt.fields); rep.status != 200 || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %s, want %v", tt.fields, rep.raw, tt.want)
		}
	}
	if rep, got := get(t, s, "/v23.0/1"); rep.status != 200 || got["display_phone_number"] != "15550001111" || got["verified_name"] == "" || got["status"] != nil {
		t.Errorf("without fields: %s", rep.raw)
	}
	for _, path := range []string{"/v23.0/1?fields=colour", "/v23.0/1?fields=id,", "/v23.0/1?fields=throughput{"} {
		if rep, _ := get(t, s, path); rep.status != 400 || rep.code() != 100 {
			t.Errorf("%s: %s", path, rep.raw)
		}
	}
	if rep, _ := get(t, s, "/v23.0/2?fields=id"); rep.status != 404 || rep.code() != 100 || rep.body.Error.Subcode != 33 {
		t.Errorf("unknown: %s", rep.raw)
	}
	if err := s.SetThroughput("1", "FAST"); err == nil {
		t.Error("an unknown level was taken")
	}
	if led := s.Ledger(); len(led.Phones) != 1 || led.Totals != (Totals{}) {
		t.Errorf("reading left traces: %+v", led)
	}
}

func TestReadingAWABA(t *testing.T) {
	s := New(Config{})
	for _, id := range []string{"3", "1", "2"} {
		s.SetPhone(id, PhoneConfig{WABAID: "10"})
	}
	s.SetPhone("4", PhoneConfig{WABAID: "20"})
	rep, got := get(t, s, "/v23.0/10/phone_numbers?fields=status")
	want := []any{map[string]any{"id": "1", "status": "CONNECTED"}, map[string]any{"id": "2", "status": "CONNECTED"}, map[string]any{"id": "3", "status": "CONNECTED"}}
	if rep.status != 200 || !reflect.DeepEqual(got["data"], want) {
		t.Errorf("%s", rep.raw)
	}
	if rep, got := get(t, s, "/v23.0/10"); rep.status != 200 || got["id"] != "10" || got["name"] == "" {
		t.Errorf("the WABA: %s", rep.raw)
	}
	for _, tt := range []struct {
		path string
		want int
	}{{"/v23.0/11/phone_numbers", 404}, {"/v23.0/1/phone_numbers", 404}, {"/v23/10/phone_numbers", 404}, {"/v23.0/ten/phone_numbers", 404},
		{"/v23.0/10/phone_numbers?limit=0", 400}, {"/v23.0/10/phone_numbers?after=%21", 400}, {"/v23.0/10/phone_numbers?fields=x", 400}} {
		if rep, _ := get(t, s, tt.path); rep.status != tt.want || rep.code() != 100 {
			t.Errorf("%s: %s", tt.path, rep.raw)
		}
	}
	if led := s.Ledger(); led.Totals.ManagementCalls != 5 || len(led.Management) != 1 || led.Management[0].Accepted != 5 || led.Apps[0].Accepted != 0 {
		t.Errorf("ledger %+v", led)
	}
}

func TestPhoneNumbersInPages(t *testing.T) {
	s := New(Config{})
	for i := range 60 {
		s.SetPhone(fmt.Sprint(1000+i), PhoneConfig{WABAID: "10"})
	}
	var sizes []int
	seen := map[string]bool{}
	for path := "/v23.0/10/phone_numbers?fields=id"; path != ""; {
		rep := do(t.Context(), t, s, http.MethodGet, path, "", nil)
		var page struct {
			Data   []struct{ ID string }
			Paging struct {
				Cursors struct{ After string }
				Next    string
			}
		}
		if err := json.Unmarshal([]byte(rep.raw), &page); err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(page.Data))
		for _, p := range page.Data {
			seen[p.ID] = true
		}
		_, path, _ = strings.Cut(page.Paging.Next, "http://example.com")
	}
	if !reflect.DeepEqual(sizes, []int{25, 25, 10}) || len(seen) != 60 {
		t.Errorf("pages of %v with %d numbers", sizes, len(seen))
	}
}

func TestReadsNeedTheToken(t *testing.T) {
	s := New(Config{Token: "right"})
	s.SetPhone("1", PhoneConfig{WABAID: "10"})
	for _, path := range []string{"/v23.0/1", "/v23.0/10", "/v23.0/10/phone_numbers", "/v23.0/99"} {
		if rep, _ := get(t, s, path); rep.status != 401 || rep.code() != 190 {
			t.Errorf("%s: %s", path, rep.raw)
		}
	}
	if got := s.Ledger().Totals; got != (Totals{}) {
		t.Errorf("totals %+v", got)
	}
}

// TestManagementCallsAreLimited: so many in a rolling hour for each WABA, apart from
// messages.
func TestManagementCallsAreLimited(t *testing.T) {
	inBubble(t, Config{Latency: time.Second}, func(r *rig) {
		r.s.SetPhone("1", PhoneConfig{WABAID: "10"})
		r.s.SetPhone("2", PhoneConfig{WABAID: "20"})
		must(t, r.s.SetLimits("management", "", Limit{Max: 2, Window: time.Hour}))
		must(t, r.s.SetLimits("management", "20", Limit{Max: 3, Window: time.Hour}))
		must(t, r.s.SetUsage(Usage{Auto: true}))
		for i, tt := range []struct {
			path string
			code int
			use  int
		}{
			{"/v23.0/10/phone_numbers", 0, 50},
			{"/v23.0/10", 0, 100},
			{"/v23.0/10/phone_numbers", 80008, 100},
			{"/v23.0/20/phone_numbers", 0, 33},
			{"/v23.0/1", 0, -1}, // a phone number is not counted
		} {
			start := time.Now()
			rep, _ := get(r.t, r.s, tt.path)
			if rep.code() != tt.code || (rep.status == 200) != (tt.code == 0) || time.Since(start) != time.Second {
				t.Errorf("call %d: %s", i, rep.raw)
			}
			use := rep.header.Get(useHeader)
			if want := fmt.Sprintf(`"type":"whatsapp_business_management","call_count":%d,`, tt.use); tt.use >= 0 && !strings.Contains(use, want) || tt.use < 0 && use != "" {
				t.Errorf("call %d: usage %s", i, use)
			}
			if got := strings.Contains(use, `regain_access":60}`); got != (tt.code != 0) {
				t.Errorf("call %d: usage %s", i, use)
			}
		}
		if rep := r.postTo("1", "+16505551234"); rep.status != 200 {
			t.Errorf("a message: %s", rep.raw)
		}
		pass(time.Hour - 6*time.Second - 1) // the calls and the message took six
		if rep, _ := get(r.t, r.s, "/v23.0/10"); rep.code() != 80008 {
			t.Errorf("just before an hour: %s", rep.raw)
		}
		if rep, _ := get(r.t, r.s, "/v23.0/10"); rep.status != 200 {
			t.Errorf("after an hour: %s", rep.raw)
		}
		got := r.s.Ledger()
		if got.Totals.ManagementCalls != 4 || got.Totals.ThrottledManagement != 2 || got.Totals.Refused != 0 || got.Management[0].ThrottledLimit != 2 ||
			got.Management[0].PeakInWindow != 2 || got.Management[1].Limit != 3 {
			t.Errorf("totals %+v, management %+v", got.Totals, got.Management)
		}
	})
}
