package cloudapi

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func change(field, value string) Change { return Change{Field: field, Value: []byte(value)} }

func TestInbound(t *testing.T) {
	const value = `{"messaging_product":"whatsapp","metadata":{"display_phone_number":"12025550100","phone_number_id":"2001"},
	 "contacts":[{"profile":{"name":"A"},"wa_id":"12025550101"}],
	 "messages":[
	  {"from":"12025550101","id":"wamid.I1","timestamp":"1760000001","type":"text","text":{"body":"hi"}},
	  {"from":12025550102,"from_user_id":"US.7","id":"wamid.I2","timestamp":1760000002,"type":"image","image":{"id":"9"}},
	  {"from_user_id":"US.8","id":"wamid.I3","timestamp":"never","type":"text","group_id":"g-1"},
	  {"from":"12025550103","id":"wamid.I4","timestamp":"1760000004","type":"system","system":{"type":"user_changed_number","wa_id":"12025550104","id":"7"}},
	  {"from":"12025550103","id":"wamid.I6","timestamp":"1760000004","type":"system","system":{"type":"user_changed_number","new_wa_id":12025550104}},
	  {"from":"12025550103","id":"wamid.I7","timestamp":"1760000004","type":"system","system":{"type":"customer_identity_changed","wa_id":"12025550104"}},
	  {"from":"12025550105","id":"wamid.I5","timestamp":"1760000005","type":"sticker","sticker":{"id":12},"image":{"id":"8"}}]}`
	want := []InboundMessage{
		{PhoneNumberID: "2001", From: "12025550101", ID: "wamid.I1", Timestamp: time.Unix(1760000001, 0).UTC(), Type: "text", Said: []string{"hi"}},
		{PhoneNumberID: "2001", From: "12025550102", FromUserID: "US.7", ID: "wamid.I2", Timestamp: time.Unix(1760000002, 0).UTC(), Type: "image", MediaID: "9"},
		{PhoneNumberID: "2001", FromUserID: "US.8", GroupID: "g-1", ID: "wamid.I3", Type: "text"},
		{PhoneNumberID: "2001", From: "12025550103", ID: "wamid.I4", Timestamp: time.Unix(1760000004, 0).UTC(), Type: "system", NewWAID: "12025550104"},
		{PhoneNumberID: "2001", From: "12025550103", ID: "wamid.I6", Timestamp: time.Unix(1760000004, 0).UTC(), Type: "system", NewWAID: "12025550104"},
		{PhoneNumberID: "2001", From: "12025550103", ID: "wamid.I7", Timestamp: time.Unix(1760000004, 0).UTC(), Type: "system"},
		{PhoneNumberID: "2001", From: "12025550105", ID: "wamid.I5", Timestamp: time.Unix(1760000005, 0).UTC(), Type: "sticker", MediaID: "12"},
	}
	got := Inbound(change("messages", value))
	for i := range got {
		if !json.Valid(got[i].Raw) || !bytes.Contains([]byte(value), got[i].Raw) {
			t.Errorf("%s: not the element: %s", got[i].ID, got[i].Raw)
		}
		got[i].Raw = nil
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
	if got := Inbound(change("smb_message_echoes", value)); got != nil {
		t.Errorf("another field: %+v", got)
	}
	for _, none := range []string{"", "[]", `{"messages":{}}`, `{"statuses":[{"id":"wamid.A","status":"sent"}]}`} {
		if got := Inbound(change("messages", none)); len(got) != 0 {
			t.Errorf("%q: %+v", none, got)
		}
	}
	many := `{"messages":[` + strings.Repeat(`{"id":"wamid.I"},`, maxInbound+5) + `{"id":"wamid.I"}]}`
	if got := Inbound(change("messages", many)); len(got) != maxInbound {
		t.Errorf("%d messages are kept", len(got))
	}
}

func TestValueErrors(t *testing.T) {
	const value = `{"metadata":{"display_phone_number":"12025550100","phone_number_id":"2001"},
	 "errors":[{"code":130429,"title":"Rate limit hit","error_data":{"details":"d"}},{"title":"without a code"},{"code":"0","message":"m"}]}`
	phone, errs := ValueErrors(change("messages", value))
	if phone != "2001" || len(errs) != 2 || errs[0].Code != 130429 || errs[0].Details != "d" || errs[1].Code != 0 || errs[1].Message != "m" {
		t.Errorf("%q, %+v", phone, errs)
	}
	for _, c := range []Change{
		change("account_alerts", value), change("messages", `{"metadata":{"phone_number_id":"2001"}}`),
		// An error of a message or of a status is not the change's own.
		change("messages", `{"metadata":{"phone_number_id":"2001"},"statuses":[{"errors":[{"code":131026}]}],"messages":[{"errors":[{"code":131051}]}]}`),
	} {
		if phone, errs := ValueErrors(c); phone != "" || errs != nil {
			t.Errorf("%s: %q, %+v", c.Value, phone, errs)
		}
	}
}

func TestPhoneQuality(t *testing.T) {
	for _, c := range []struct {
		value string
		want  QualityNotice
		ok    bool
	}{
		{`{"display_phone_number":"12025550100","event":"THROUGHPUT_UPGRADE","current_limit":"TIER_2K","max_daily_conversations_per_business":"TIER_UNLIMITED"}`, QualityNotice{"12025550100", "THROUGHPUT_UPGRADE", "TIER_UNLIMITED"}, true},
		{`{"display_phone_number":"12025550100","event":"FLAGGED","current_limit":"TIER_10K"}`, QualityNotice{"12025550100", "FLAGGED", "TIER_10K"}, true},
		{`{"display_phone_number":12025550100,"event":"ONBOARDING","max_daily_conversations_per_business":2000}`, QualityNotice{"12025550100", "ONBOARDING", "2000"}, true},
		{`{"display_phone_number":"12025550100","current_limit":"TIER_10K"}`, QualityNotice{"12025550100", "", "TIER_10K"}, false},
		{``, QualityNotice{}, false},
	} {
		if got, ok := PhoneQuality(change("phone_number_quality_update", c.value)); got != c.want || ok != c.ok {
			t.Errorf("%s: %+v, %v", c.value, got, ok)
		}
		if got, ok := PhoneQuality(change("phone_number_name_update", c.value)); ok || got != (QualityNotice{}) {
			t.Errorf("another field: %+v", got)
		}
	}
}

func TestCapability(t *testing.T) {
	for value, want := range map[string]string{
		`{"max_daily_conversations_per_business":"TIER_10K","max_phone_numbers_per_waba":25}`: "TIER_10K",
		`{"max_daily_conversations_per_business":100000}`:                                     "100000",
		`{"max_daily_conversations_per_business":-1}`:                                         "-1",
		`{"max_daily_conversation_per_phone":1000}`:                                           "1000",
		`{"max_phone_numbers_per_business":20}`:                                               "",
		`{"max_daily_conversations_per_business":null}`:                                       "",
	} {
		if got, ok := Capability(change("business_capability_update", value)); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v", value, got, ok)
		}
	}
	if got, ok := Capability(change("account_update", `{"max_daily_conversations_per_business":1}`)); ok {
		t.Errorf("another field: %q", got)
	}
}

func TestTierLimit(t *testing.T) {
	for tier, want := range map[string]int{
		"TIER_50": 50, "TIER_250": 250, "TIER_1K": 1000, "TIER_2K": 2000, "TIER_10K": 10_000, "TIER_100K": 100_000, "2000": 2000, "100000": 100_000,
	} {
		if n, unlimited, ok := TierLimit(tier); n != want || unlimited || !ok {
			t.Errorf("%s: %d, %v, %v", tier, n, unlimited, ok)
		}
	}
	for _, tier := range []string{"TIER_UNLIMITED", "-1"} {
		if n, unlimited, ok := TierLimit(tier); n != 0 || !unlimited || !ok {
			t.Errorf("%s: %d, %v, %v", tier, n, unlimited, ok)
		}
	}
	for _, tier := range []string{"", "TIER_NOT_SET", "TIER_3K", "tier_50", "0", "-2", "1e5", "99999999999"} {
		if n, unlimited, ok := TierLimit(tier); n != 0 || unlimited || ok {
			t.Errorf("%s: %d, %v, %v", tier, n, unlimited, ok)
		}
	}
}

func TestUserPreferences(t *testing.T) {
	const value = `{"metadata":{"phone_number_id":"2001"},"user_preferences":[
	 {"wa_id":"12025550101","category":"marketing_messages","value":"stop","timestamp":1760000001},
	 {"wa_id":12025550102,"category":"marketing_messages","value":"RESUME","timestamp":"1760000002"},
	 {"wa_id":"12025550103","category":"marketing_messages","value":"pause"},
	 {"user_id":"US.7","category":"marketing_messages","value":"stop"},
	 {"category":"marketing_messages","value":"stop"}]}`
	want := []Preference{
		{WAID: "12025550101", Category: "marketing_messages", Stop: true, At: time.Unix(1760000001, 0).UTC()},
		{WAID: "12025550102", Category: "marketing_messages", At: time.Unix(1760000002, 0).UTC()},
		{UserID: "US.7", Category: "marketing_messages", Stop: true},
	}
	if got := UserPreferences(change("user_preferences", value)); !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
	if got := UserPreferences(change("messages", value)); got != nil {
		t.Errorf("another field: %+v", got)
	}
}
