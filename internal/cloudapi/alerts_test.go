package cloudapi

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestAlerts(t *testing.T) {
	for _, c := range []struct {
		field, value string
		want         Alert
	}{
		{"phone_number_quality_update", `{"display_phone_number":"12025550100","event":"FLAGGED","current_limit":"TIER_10K"}`,
			Alert{Event: "FLAGGED", Severity: SeverityWarning, DisplayPhone: "12025550100", Detail: map[string]string{"current_limit": "TIER_10K"}}},
		{"phone_number_quality_update", `{"display_phone_number":"12025550100","event":"THROUGHPUT_UPGRADE","max_daily_conversations_per_business":2000}`,
			Alert{Event: "THROUGHPUT_UPGRADE", DisplayPhone: "12025550100", Detail: map[string]string{"max_daily_conversations_per_business": "2000"}}},
		{"phone_number_name_update", `{"display_phone_number":"12025550100","decision":"REJECTED","requested_verified_name":"Shop","rejection_reason":"NAME_EMPLOYEE_CNT"}`,
			Alert{Event: "REJECTED", Severity: SeverityWarning, DisplayPhone: "12025550100", Detail: map[string]string{"requested_verified_name": "Shop", "rejection_reason": "NAME_EMPLOYEE_CNT"}}},
		{"account_update", `{"event":"ACCOUNT_VIOLATION","violation_info":{"violation_type":"ADULT"}}`,
			Alert{Event: "ACCOUNT_VIOLATION", Severity: SeverityWarning, Detail: map[string]string{"violation_info.violation_type": "ADULT"}}},
		{"account_update", `{"event":"DISABLED_UPDATE","ban_info":{"waba_ban_state":"SCHEDULE_FOR_DISABLE","waba_ban_date":"April 17, 2025"}}`,
			Alert{Event: "DISABLED_UPDATE", Severity: SeverityCritical, Detail: map[string]string{"ban_info.waba_ban_state": "SCHEDULE_FOR_DISABLE", "ban_info.waba_ban_date": "April 17, 2025"}}},
		{"account_update", `{"event":"DISABLED_UPDATE","ban_info":{"waba_ban_state":"REINSTATE"}}`,
			Alert{Event: "DISABLED_UPDATE", Detail: map[string]string{"ban_info.waba_ban_state": "REINSTATE"}}},
		{"account_update", `{"event":"ACCOUNT_RESTRICTION","phone_number":"12025550100","restriction_info":[{"restriction_type":"A","expiration":7},{"restriction_type":"B"}]}`,
			Alert{Event: "ACCOUNT_RESTRICTION", Severity: SeverityCritical, DisplayPhone: "12025550100", Detail: map[string]string{"restriction_info.0.restriction_type": "A", "restriction_info.0.expiration": "7", "restriction_info.1.restriction_type": "B"}}},
		{"account_update", `{"event":"PARTNER_REMOVED","waba_info":{"waba_id":"7009","owner_business_id":"5"}}`,
			Alert{Event: "PARTNER_REMOVED", Severity: SeverityWarning, WABAID: "7009", Detail: map[string]string{"waba_info.waba_id": "7009", "waba_info.owner_business_id": "5"}}},
		{"account_update", `{"event":"ACCOUNT_DELETED"}`, Alert{Event: "ACCOUNT_DELETED", Severity: SeverityCritical, Detail: map[string]string{}}},
		{"account_alerts", `{"entity_type":"BUSINESS","entity_id":5,"alert_severity":"CRITICAL","alert_type":"X","alert_description":"d"}`,
			Alert{Event: "X", Severity: SeverityCritical, Detail: map[string]string{"entity_type": "BUSINESS", "entity_id": "5", "alert_severity": "CRITICAL", "alert_description": "d"}}},
		{"account_alerts", `{"entity_type":"PHONE_NUMBER","alert_info":{"severity":"WARNING","type":"Y"}}`,
			Alert{Event: "Y", Severity: SeverityWarning, Detail: map[string]string{"entity_type": "PHONE_NUMBER", "alert_info.severity": "WARNING"}}},
		{"account_review_update", `{"decision":"REJECTED"}`, Alert{Event: "REJECTED", Severity: SeverityCritical, Detail: map[string]string{}}},
		{"account_review_update", `{"decision":"APPROVED"}`, Alert{Event: "APPROVED", Detail: map[string]string{}}},
		{"business_capability_update", `{"max_daily_conversations_per_business":"TIER_2K","max_phone_numbers_per_waba":25,"x":true}`,
			Alert{Event: "BUSINESS_CAPABILITY_UPDATE", Detail: map[string]string{"max_daily_conversations_per_business": "TIER_2K", "max_phone_numbers_per_waba": "25", "x": "true"}}},
		{"security", `{"display_phone_number":"12025550100","event":"PIN_CHANGED","requester":"61555822107539"}`,
			Alert{Event: "PIN_CHANGED", Severity: SeverityWarning, DisplayPhone: "12025550100", Detail: map[string]string{}}},
		{"security", `{"event":"PIN_RESET_REQUEST"}`, Alert{Event: "PIN_RESET_REQUEST", Severity: SeverityCritical, Detail: map[string]string{}}},
		{"messages", `{"metadata":{"phone_number_id":"2001"},"errors":[{"code":130429,"title":"Rate limit hit","error_data":{"details":"d"}}]}`,
			Alert{Event: "130429", Severity: SeverityWarning, PhoneNumberID: "2001", Detail: map[string]string{"title": "Rate limit hit", "details": "d"}}},
	} {
		if got := Alerts(change(c.field, c.value)); len(got) != 1 || !reflect.DeepEqual(got[0], c.want) {
			t.Errorf("%s %s\n got %+v\nwant %+v", c.field, c.value, got, c.want)
		}
	}
	for _, c := range []Change{
		change("messages", `{"statuses":[{"id":"a","status":"sent"}]}`), change("user_preferences", `{"event":"x"}`), change("history", `{"event":"x"}`),
		change("calls", `{"errors":[{"code":1}]}`), change("account_update", `[]`), change("security", ``), change("message_template_status_update", `{"event":"PAUSED"}`),
	} {
		if got := Alerts(c); len(got) != 0 {
			t.Errorf("%s %s: %+v", c.Field, c.Value, got)
		}
	}
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf(`"m%03d":{"a":{"b":{"c":{"d":{"e":{"f":1}}}}},"z":"%s"}`, i, strings.Repeat("x", 1000)))
	}
	got := Alerts(change("account_update", "{"+strings.Join(many, ",")+"}"))
	if len(got) != 1 || len(got[0].Detail) != maxDetails || len(got[0].Detail["m000.z"]) != maxDetailLen {
		t.Errorf("not bounded: %d details, %d bytes", len(got[0].Detail), len(got[0].Detail["m000.z"]))
	}
}

func TestSeverityWords(t *testing.T) {
	for _, s := range []Severity{SeverityInfo, SeverityWarning, SeverityCritical} {
		if got, ok := ParseSeverity(s.String()); !ok || got != s {
			t.Errorf("%s is read as %v, %v", s, got, ok)
		}
	}
	if _, ok := ParseSeverity("loud"); ok || Severity(9).String() != "info" {
		t.Error("a word that is none was taken")
	}
}

func TestAccountStanding(t *testing.T) {
	at := time.Unix(1790000000, 0).UTC()
	for _, c := range []struct {
		field, value string
		want         AccountWord
		ok           bool
	}{
		{"account_update", `{"event":"DISABLED_UPDATE","ban_info":{"waba_ban_state":"DISABLE"}}`, AccountWord{Topic: TopicBan, Word: "DISABLE"}, true},
		{"account_update", `{"event":"DISABLED_UPDATE","ban_info":{"waba_ban_state":"REINSTATE"}}`, AccountWord{Topic: TopicBan, Word: "REINSTATE"}, true},
		{"account_update", `{"event":"ACCOUNT_DELETED"}`, AccountWord{Topic: TopicBan, Word: "DELETED"}, true},
		{"account_review_update", `{"decision":"REJECTED"}`, AccountWord{Topic: TopicReview, Word: "REJECTED"}, true},
		{"account_review_update", `{"decision":"APPROVED"}`, AccountWord{Topic: TopicReview, Word: "APPROVED"}, true},
		{"account_update", `{"event":"ACCOUNT_RESTRICTION","restriction_info":[{"restriction_type":"RESTRICTED_BIZ_INITIATED_MESSAGING","expiration":1790000000}]}`,
			AccountWord{Topic: TopicRestriction, Word: "RESTRICTED_BIZ_INITIATED_MESSAGING", Until: at}, true},
		{"account_update", `{"event":"ACCOUNT_RESTRICTION","restriction_info":[{"restriction_type":"RESTRICTED_ADD_PHONE_NUMBER_ACTION","expiration":"1700000000"},
			{"restriction_type":"RESTRICTED_BIZ_INITIATED_MESSAGING","expiration":"1790000009"},{"restriction_type":"RESTRICTED_CUSTOMER_INITIATED_MESSAGING","expiration":"1790000000"}]}`,
			AccountWord{Topic: TopicRestriction, Word: "RESTRICTED_ADD_PHONE_NUMBER_ACTION RESTRICTED_BIZ_INITIATED_MESSAGING RESTRICTED_CUSTOMER_INITIATED_MESSAGING", Until: at}, true},
		{field: "account_update", value: `{"event":"ACCOUNT_RESTRICTION","restriction_info":[]}`, want: AccountWord{Topic: TopicRestriction}},
		{field: "account_update", value: `{"event":"ACCOUNT_VIOLATION"}`},
		{field: "security", value: `{"event":"ACCOUNT_DELETED"}`},
	} {
		if got, ok := AccountStanding(change(c.field, c.value)); got != c.want || ok != c.ok {
			t.Errorf("%s %s: %+v, %v", c.field, c.value, got, ok)
		}
	}
	if _, ok := AccountStanding(change("account_update", `{"event":"DISABLED_UPDATE","ban_info":{"waba_ban_state":"SCHEDULE_FOR_DISABLE"}}`)); ok {
		t.Error("what is to come was taken for what is")
	}
}

func TestStandingBlocks(t *testing.T) {
	const own, answers = "RESTRICTED_BIZ_INITIATED_MESSAGING", "RESTRICTED_CUSTOMER_INITIATED_MESSAGING"
	for word, want := range map[[2]string]bool{
		{TopicBan, "DISABLE"}: true, {TopicBan, "DELETED"}: true, {TopicBan, "REINSTATE"}: false,
		{TopicReview, "REJECTED"}: true, {TopicReview, "APPROVED"}: false, {TopicReview, "DEFERRED"}: false,
		{TopicRestriction, own}: false, {TopicRestriction, answers}: false, {TopicRestriction, own + " " + answers}: true, {TopicRestriction, own + answers}: false,
		{"quality", "DISABLE"}: false,
	} {
		if StandingBlocks(word[0], word[1]) != want {
			t.Errorf("%v blocks: %t", word, !want)
		}
	}
}

func TestPhoneName(t *testing.T) {
	if shown, decision, ok := PhoneName(change("phone_number_name_update", `{"display_phone_number":12025550100,"decision":"APPROVED"}`)); shown != "12025550100" || decision != "APPROVED" || !ok {
		t.Errorf("%q %q %v", shown, decision, ok)
	}
	if _, _, ok := PhoneName(change("phone_number_quality_update", `{"decision":"APPROVED"}`)); ok {
		t.Error("another field")
	}
}
