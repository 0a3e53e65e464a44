package simulator

import (
	"fmt"
	"net/http"
	"reflect"
	"testing"
	"time"
)

func TestErrorsOnDemandAreAnswered(t *testing.T) {
	tests := []struct {
		name   string
		rule   ErrorRule
		status int
		title  string
	}{
		{"payment", ErrorRule{Code: 131042}, 400, "Business eligibility payment issue"},
		{"token", ErrorRule{Code: 190, Subcode: 463}, 401, "Access token has expired"},
		{"policy", ErrorRule{Code: 368}, 403, "Temporarily blocked for policies violations"},
		{"permission range", ErrorRule{Code: 210}, 403, "Unknown error"},
		{"certificate", ErrorRule{Code: 131045}, 500, "Incorrect certificate"},
		{"template", ErrorRule{Code: 132001}, 404, "Template name does not exist in the translation"},
		{"overload", ErrorRule{Code: 2, Transient: true}, 503, "API Service"},
		{"a code that nobody knows", ErrorRule{Code: 987654}, 400, "Unknown error"},
		{"zero", ErrorRule{Code: 0}, 401, "AuthException"},
		{"all given", ErrorRule{Code: 80007, HTTPStatus: 429, Title: "Slow down", Details: "Later.", RetryAfterS: 7}, 429, "Slow down"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, Config{PhonePerSecond: 1}, func(r *rig) {
				tt.rule.Times = 2
				if _, err := r.s.SetError(tt.rule); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					rep := r.post(text("1234", ""))
					e := rep.body.Error
					if rep.status != tt.status || e == nil || e.Code != tt.rule.Code || e.Subcode != tt.rule.Subcode || e.ErrorData.Details != tt.rule.Details ||
						e.Message != fmt.Sprintf("(#%d) %s", tt.rule.Code, tt.title) || e.Type != "OAuthException" {
						t.Fatalf("answer %d %s", rep.status, rep.raw)
					}
					if got := rep.header.Get("Retry-After"); (got == "7") != (tt.rule.RetryAfterS == 7) {
						t.Errorf("Retry-After %q", got)
					}
				}
				if rep := r.post(text("1234", "")); rep.status != 200 { // and the two did not use up the limit
					t.Errorf("after its times: %s", rep.raw)
				}
				if got := r.s.Ledger().Totals; got.ErrorsOnDemand != 2 || got.Refused != 2 || got.ThrottledLimit != 0 || len(r.s.Errors()) != 0 {
					t.Errorf("totals %+v", got)
				}
			})
		})
	}
}

func TestErrorWithoutABody(t *testing.T) {
	s := New(Config{})
	if _, err := s.SetError(ErrorRule{NoBody: true, HTTPStatus: 429, RetryAfterS: 3}); err != nil {
		t.Fatal(err)
	}
	rep := do(t.Context(), t, s, http.MethodPost, "/v23.0/1/messages", text("1234", ""), nil)
	if rep.status != 429 || rep.raw != "" || rep.header.Get("Retry-After") != "3" {
		t.Errorf("answer %d %q %v", rep.status, rep.raw, rep.header)
	}
	if got := s.Refusals(0, 10); len(got) != 1 || got[0].Code != 429 {
		t.Errorf("refusals %+v", got)
	}
}

func TestErrorsOnDemandByWebhook(t *testing.T) {
	for name, sentFirst := range map[string]bool{"at once": false, "after sent": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{PhonePerSecond: 2}, func(r *rig) {
				rule := ErrorRule{Code: 131049, Details: "Not now.", By: ByWebhook, Times: 2, SentFirst: sentFirst}
				if _, err := r.s.SetError(rule); err != nil {
					t.Fatal(err)
				}
				want := []string{"failed"}
				if sentFirst {
					want = []string{"sent", "failed"}
				}
				first, second := r.post(text("0014", "g1:a:1")), r.post(text("1234", ""))
				if third := r.post(text("1234", "")); third.code() != 130429 {
					t.Errorf("over the limit: code %d", third.code())
				}
				pass(time.Second)
				last := r.post(text("1234", ""))
				r.quiet()
				for _, rep := range []reply{first, second} {
					st := r.hookStatuses(rep.wamid())
					if got := r.statuses(rep.wamid()); rep.status != 200 || !reflect.DeepEqual(got, want) {
						t.Fatalf("answer %d, statuses %v", rep.status, got)
					}
					e := st[len(st)-1].Errors
					if len(e) != 1 || e[0].Code != 131049 || e[0].ErrorData.Details != "Not now." || e[0].Title == "" || e[0].Title != e[0].Message || e[0].Href == "" {
						t.Errorf("errors %+v", e)
					}
				}
				if got := r.statuses(last.wamid()); !reflect.DeepEqual(got, []string{"sent", "delivered"}) {
					t.Errorf("after its times: %v", got)
				}
				if got := r.s.Ledger().Totals; got.FailuresOnDemand != 2 || got.Accepted != 3 || got.ErrorsOnDemand != 0 {
					t.Errorf("totals %+v", got)
				}
			})
		})
	}
}

func TestAReactionFailsOnDemand(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		if _, err := r.s.SetError(ErrorRule{Code: 131047, By: ByWebhook, SentFirst: true}); err != nil {
			t.Fatal(err)
		}
		rep := r.post(`{"messaging_product":"whatsapp","to":"+16505551234","type":"reaction","reaction":{}}`)
		r.quiet()
		if got := r.statuses(rep.wamid()); !reflect.DeepEqual(got, []string{"sent", "failed"}) {
			t.Errorf("statuses %v", got)
		}
	})
}

// TestWhomAnErrorMeets: phone, template and recipient all have to match; of several
// rules the one set first counts, before the last digits.
func TestWhomAnErrorMeets(t *testing.T) {
	s := New(Config{})
	send := func(phone, to, template string) int {
		body := `{"messaging_product":"whatsapp","to":"` + to + `","type":"template","template":{"name":"` + template + `"}}`
		return do(t.Context(), t, s, http.MethodPost, "/v23.0/"+phone+"/messages", body, nil).code()
	}
	for i, rule := range []ErrorRule{
		{Code: 131037, Phone: "1", Times: 1},
		{Code: 132015, Template: "sale", Phone: "2"},
		{Code: 131050, To: "+55 41 98765 4321"},
		{Code: 131048, Phone: "1", Template: "otp"},
	} {
		if id, err := s.SetError(rule); err != nil || id != int64(i+1) {
			t.Fatalf("rule %d: %d, %v", i+1, id, err)
		}
	}
	for i, tt := range []struct {
		phone, to, template string
		want                int
	}{
		{"2", "+16505551234", "otp", 0},
		{"1", "+554187654321", "sale", 131037},
		{"1", "+554187654321", "sale", 131050},
		{"1", "+16505551234", "sale", 0},
		{"2", "+554187654321", "sale", 132015},
		{"1", "+16505550001", "otp", 131048},
		{"1", "+16505550001", "sale", 131026},
	} {
		if got := send(tt.phone, tt.to, tt.template); got != tt.want {
			t.Errorf("message %d: code %d, want %d", i, got, tt.want)
		}
	}
	hits := map[int64]int{}
	for _, e := range s.Errors() {
		hits[e.ID] = e.Hits
	}
	if want := map[int64]int{2: 1, 3: 1, 4: 1}; !reflect.DeepEqual(hits, want) {
		t.Errorf("hits %v, want %v", hits, want)
	}
	s.ClearErrors()
	if got := send("1", "+554187654321", "otp"); got != 0 {
		t.Errorf("after ClearErrors: code %d", got)
	}
}

func TestErrorRulesAreBounded(t *testing.T) {
	s := New(Config{})
	for range maxRules {
		if _, err := s.SetError(ErrorRule{Code: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.SetError(ErrorRule{Code: 1}); err == nil {
		t.Error("one more was taken")
	}
}
