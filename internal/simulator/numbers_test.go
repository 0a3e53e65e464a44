package simulator

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

func TestANumbersWay(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		t, s := r.t, r.s
		s.SetPhone("1", PhoneConfig{WABAID: "10", AppID: "5"})
		added := okay(t, s, post, "/v23.0/10/phone_numbers", `{"cc":"44","phone_number":"20 7946 0000","verified_name":"Plants"}`)
		base := fmt.Sprint("/v23.0/", added["id"])
		state := func() string {
			got := okay(t, s, read, base+"?fields=status,code_verification_status,platform_type,display_phone_number,verified_name,is_pin_enabled", "")
			return fmt.Sprint(got["status"], got["code_verification_status"], got["platform_type"], got["display_phone_number"], got["verified_name"], got["is_pin_enabled"])
		}
		code := func(edge, body string) int {
			rep, _ := ask(t, s, post, base+edge, body, nil)
			return rep.code()
		}
		register := func(pin string) int { return code("/register", `{"messaging_product":"whatsapp","pin":"`+pin+`"}`) }
		if got := state(); got != "PENDINGNOT_VERIFIEDNOT_APPLICABLE442079460000Plantsfalse" {
			t.Errorf("added: %s", got)
		}
		if rep, _ := ask(t, s, post, "/v23.0/10/phone_numbers", `{"cc":"44","phone_number":"2079460000","verified_name":"x"}`, nil); rep.body.Error == nil || rep.body.Error.Subcode != 2388012 {
			t.Errorf("added twice: %s", rep.raw)
		}
		if got := [...]int{register("111111"), code("/request_code", `{"code_method":"VOICE","language":"en"}`), code("/verify_code", `{"code":"000000"}`), code("/verify_code", `{"code":"123456"}`), register("111111")}; got != [...]int{133006, 0, 136025, 0, 0} {
			t.Errorf("codes %v", got)
		}
		if got := state(); got != "CONNECTEDVERIFIEDCLOUD_API442079460000Plantstrue" {
			t.Errorf("registered: %s", got)
		}
		if got := [...]int{register("222222"), code("", `{"pin":"222222"}`), register("222222"), code("/deregister", ""), code("/deregister", "")}; got != [...]int{133005, 0, 0, 0, 133010} {
			t.Errorf("PINs %v", got)
		}
		if got := state(); got != "DISCONNECTEDVERIFIEDNOT_APPLICABLE442079460000Plantstrue" {
			t.Errorf("deregistered: %s", got)
		}
		for range 4 {
			register("222222")
		}
		if got := register("222222"); got != 133016 {
			t.Errorf("the eleventh: %d", got)
		}
		pass(movesIn)
		if got := register("222222"); got != 0 {
			t.Errorf("after 72 hours: %d", got)
		}
		okay(t, s, post, base, `{"webhook_configuration":{"override_callback_uri":"https://a.example","verify_token":"v"}}`)
		okay(t, s, post, "/v23.0/10/subscribed_apps", `{"override_callback_uri":"https://b.example","verify_token":"v"}`)
		okay(t, s, post, "/v23.0/5/subscriptions", `{"object":"whatsapp_business_account","callback_url":"https://c.example","verify_token":"v","fields":["messages"]}`)
		if got := okay(t, s, read, base+"?fields=webhook_configuration", "")["webhook_configuration"]; fmt.Sprint(got) != "map[application:https://c.example phone_number:https://a.example whatsapp_business_account:https://b.example]" {
			t.Errorf("webhooks %v", got)
		}
		okay(t, s, post, base, `{"webhook_configuration":{"override_callback_uri":""}}`)
		okay(t, s, del, "/v23.0/10/subscribed_apps", "")
		okay(t, s, del, "/v23.0/5/subscriptions", "")
		if got := okay(t, s, read, base+"?fields=webhook_configuration", "")["webhook_configuration"]; fmt.Sprint(got) != "map[application:"+testHook+"]" {
			t.Errorf("webhooks %v", got)
		}
		if got := okay(t, s, read, "/v23.0/10/subscribed_apps", ""); len(at(got, "data").([]any)) != 0 {
			t.Errorf("subscribed %v", got)
		}
	})
}

func TestHealth(t *testing.T) {
	s := New(Config{})
	s.SetPhone("1", PhoneConfig{WABAID: "10", AppID: "5"})
	health := func(id string) map[string]any { return okay(t, s, read, "/v23.0/"+id+"?fields=health_status", "") }
	put := func(body string) int {
		return do(t.Context(), t, s, http.MethodPut, "/_sim/health_status", body, nil).status
	}
	if put(`{"id":"5","can_send_message":"LIMITED","additional_info":"No webhook."}`) != 204 {
		t.Error("control")
	}
	if got := health("10"); at(got, "health_status.can_send_message") != "LIMITED" || at(got, "health_status.entities.2.additional_info.0") != "No webhook." {
		t.Errorf("limited: %v", got)
	}
	if put(`{"id":"10","can_send_message":"BLOCKED","error_code":141006,"error_description":"Payment","possible_solution":"Pay"}`) != 204 {
		t.Error("control")
	}
	if got := health("1"); at(got, "health_status.can_send_message") != "BLOCKED" || at(got, "health_status.entities.1.errors.0.error_code") != 141006.0 ||
		at(got, "health_status.entities.0.can_send_message") != "AVAILABLE" {
		t.Errorf("blocked: %v", got)
	}
	for _, bad := range []string{`{"id":"x","can_send_message":"BLOCKED"}`, `{"id":"1","can_send_message":"MAYBE"}`, `{"id":"1"}`, `[]`} {
		if put(bad) != 400 {
			t.Errorf("%s was taken", bad)
		}
	}
}

// TestHistoryHasWhatWasPosted: the statuses that the receiver took, of the number's
// messages only.
func TestHistoryHasWhatWasPosted(t *testing.T) {
	inBubble(t, Config{StatusDelay: time.Second}, func(r *rig) {
		t := r.t
		wamid := r.postTo("1", "+16505550014").wamid()
		r.postTo("2", "+16505550003")
		r.postTo("1", "+16505550008")
		r.quiet()
		got := okay(t, r.s, read, "/v23.0/1/message_history?fields=message_id,events", "")
		if at(got, "data.0.message_id") != wamid || at(got, "data.2") != nil {
			t.Fatalf("history %v", got)
		}
		told := ""
		for _, e := range at(got, "data.0.events.data").([]any) {
			told += fmt.Sprint(at(e, "delivery_status"), " ", int64(at(e, "timestamp").(float64))-946684800, " ")
		}
		if told != "ACCEPTED 0 SENT 1 DELIVERED 2 READ 3 " || at(got, "data.1.events.data.1.delivery_status") != "ERROR" {
			t.Errorf("events %s of %v", told, got)
		}
		events := okay(t, r.s, read, fmt.Sprint("/v23.0/", at(got, "data.0.id"), "/events?status_filter=READ"), "")
		if at(events, "data.0.node.delivery_status") != "READ" || at(events, "data.1") != nil {
			t.Errorf("filtered %v", events)
		}
		for _, wrong := range []string{"wamid.x", "", r.postTo("2", "+16505550003").wamid()} {
			if got := okay(t, r.s, read, "/v23.0/1/message_history?limit=1&message_id="+wrong, ""); wrong != "" && at(got, "data.0") != nil {
				t.Errorf("%s: %v", wrong, got)
			}
		}
	})
}
