package cloudapi

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestWhatIsSaid(t *testing.T) {
	for _, c := range []struct {
		message string
		want    []string
	}{
		{`{"type":"text","text":{"body":"STOP"}}`, []string{"STOP"}},
		{`{"type":"button","button":{"text":"Stop promotions","payload":"STOP"}}`, []string{"Stop promotions", "STOP"}},
		{`{"type":"interactive","interactive":{"type":"button_reply","button_reply":{"id":"stop","title":"No more"}}}`, []string{"No more", "stop"}},
		{`{"type":"interactive","interactive":{"type":"list_reply","list_reply":{"id":"stop","title":"No more"}}}`, nil},
		{`{"type":"image","image":{"caption":"STOP"},"text":{"body":"STOP"}}`, nil},
		{`{"type":"text","text":{"body":"` + strings.Repeat("a", 600) + `"}}`, nil},
		{`{"type":"text","text":{"body":5}}`, nil},
		{`{"type":"text"}`, nil},
	} {
		got := Inbound(change("messages", `{"metadata":{"phone_number_id":"1"},"messages":[{"id":"wamid.1","from":"1202",`+c.message[1:]+`]}`))
		if len(got) != 1 || !reflect.DeepEqual(got[0].Said, c.want) {
			t.Errorf("%s: %+v, want %q", c.message, got, c.want)
		}
	}
}

func TestInboundCalls(t *testing.T) {
	const value = `{"metadata":{"phone_number_id":"2001"},"calls":[
	 {"id":"wacid.1","from":"12025550101","to":"12025550100","event":"connect","timestamp":"1760000001","direction":"USER_INITIATED"},
	 {"id":"wacid.2","from_user_id":"US.7","event":"terminate","timestamp":1760000002,"direction":"USER_INITIATED","status":"FAILED"},
	 {"id":"wacid.3","from":"12025550100","to":"12025550101","event":"connect","direction":"BUSINESS_INITIATED"},
	 {"id":"wacid.4","direction":"USER_INITIATED"}]}`
	want := []InboundCall{
		{PhoneNumberID: "2001", From: "12025550101", Timestamp: time.Unix(1760000001, 0).UTC()},
		{PhoneNumberID: "2001", FromUserID: "US.7", Timestamp: time.Unix(1760000002, 0).UTC()},
	}
	if got := InboundCalls(change("calls", value)); !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
	if got := InboundCalls(change("messages", value)); got != nil {
		t.Errorf("another field: %+v", got)
	}
}

func TestFallbackBody(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{
			`{"from":"1","to":"+1202","type":"text","text":{"body":"hi"},"context":{"message_id":"wamid.1"},"gateway":{"fallback_template":{"category":"utility","name":"hello","language":{"code":"en"},"components":[]}}}`,
			`{"to":"+1202","context":{"message_id":"wamid.1"},"type":"template","template":{"name":"hello","language":{"code":"en"},"components":[]}}`,
		},
		{
			`{"recipient":"US.1","text":{"body":"hi"},"gateway":{"fallback_template":{"name":"hello"}}}`,
			`{"recipient":"US.1","type":"template","template":{"name":"hello"}}`,
		},
		{`{"gateway":{"fallback_template":{}}}`, `{"type":"template","template":{}}`},
	} {
		got, err := FallbackBody([]byte(c.body))
		if err != nil || string(got) != c.want {
			t.Errorf("%s:\n got %s, %v\nwant %s", c.body, got, err, c.want)
		}
		if _, err := BuildOutbound(got, "g1:x:1", Overrides{}); err != nil || !json.Valid(got) {
			t.Errorf("%s is not sent: %v", got, err)
		}
	}
	for _, body := range []string{`{"to":"+1202","type":"text","text":{"body":"hi"}}`, `{"gateway":{"fallback_template":"hello"}}`, `[]`, ``} {
		if got, err := FallbackBody([]byte(body)); err == nil {
			t.Errorf("%s has none: %s", body, got)
		}
	}
}
