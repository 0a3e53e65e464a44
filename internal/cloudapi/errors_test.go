package cloudapi

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseError(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       Error
	}{
		{"whole", `{"error":{"message":"(#131056) Pair rate limit hit","type":"OAuthException","code":131056,"error_subcode":2494055,
			"error_data":{"messaging_product":"whatsapp","details":"too many to one"},"is_transient":true,"error_user_title":"T","error_user_msg":"M","fbtrace_id":"Ab1"}}`,
			Error{Code: 131056, Subcode: 2494055, Type: "OAuthException", Title: "Pair rate limit hit", Message: "(#131056) Pair rate limit hit",
				Details: "too many to one", UserTitle: "T", UserMsg: "M", FBTraceID: "Ab1", IsTransient: true, HTTPStatus: 400}},
		{"data is a text", `{"error":{"code":100,"message":"(#100) Invalid parameter","error_data":"bad \u00fc"}}`,
			Error{Code: 100, Title: "Invalid parameter", Message: "(#100) Invalid parameter", Details: "bad ü", HTTPStatus: 400}},
		{"data is an object in a text", `{"error":{"code":100,"title":"T","error_data":"{\"details\":\"inner\"}"}}`,
			Error{Code: 100, Title: "T", Details: "inner", HTTPStatus: 400}},
		{"data is a text like an object", `{"error":{"code":100,"title":"T","error_data":"{not json"}}`,
			Error{Code: 100, Title: "T", Details: "{not json", HTTPStatus: 400}},
		{"data is null", `{"error":{"code":100,"title":"T","error_data":null}}`, Error{Code: 100, Title: "T", HTTPStatus: 400}},
		{"code as text", `{"error":{"code":" 131047","title":"T","error_subcode":"12"}}`, Error{Code: 131047, Subcode: 12, Title: "T", HTTPStatus: 400}},
		{"code as float", `{"error":{"code":4.0,"title":"T"}}`, Error{Code: 4, Title: "T", HTTPStatus: 400}},
		{"code 0, title of the table", `{"error":{"code":0}}`, Error{Code: 0, Title: "AuthException", HTTPStatus: 400}},
		{"wrong types", `{"error":{"code":2,"message":7,"type":{},"is_transient":"true","fbtrace_id":[1]}}`, Error{Code: 2, Title: "API Service", HTTPStatus: 400}},
		{"last wins", `{"error":{"code":1},"error":{"code":2,"title":"T"}}`, Error{Code: 2, Title: "T", HTTPStatus: 400}},
	} {
		got, ok := ParseError(400, []byte(c.body))
		if !ok {
			t.Errorf("%s: no error found", c.name)
		} else if *got != c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, *got, c.want)
		}
	}
}

func TestParseErrorFindsNone(t *testing.T) {
	for _, body := range []string{
		"", "null", `"error"`, "[]", "{}", `{"error":"text"}`, `{"error":null}`, `{"error":[{"code":1}]}`, `{"error":{}}`,
		`{"error":{"code":null}}`, `{"error":{"code":"x"}}`, `{"error":{"code":1.5}}`, `{"error":{"code":1e30}}`, `{"error":{"code":99999999999}}`,
		`{"error":{"code":1}`, "<html>502 Bad Gateway</html>", `{"messages":[{"id":"wamid.1"}]}`,
	} {
		if got, ok := ParseError(502, []byte(body)); ok {
			t.Errorf("%s gives %+v", body, got)
		}
	}
}

func TestErrorTextsAreBounded(t *testing.T) {
	long := strings.Repeat("ü", 5000)
	got, ok := ParseError(500, []byte(`{"error":{"code":1,"message":"a`+long+`","title":"a`+long+`","error_data":{"details":"a`+long+`"},"fbtrace_id":"\u0000\ud800"}}`))
	if !ok {
		t.Fatal("no error found")
	}
	for name, c := range map[string]struct {
		got   string
		limit int
	}{"message": {got.Message, maxErrorText}, "title": {got.Title, maxErrorWord}, "details": {got.Details, maxErrorText}} {
		if len(c.got) > c.limit || len(c.got) < c.limit-1 || !utf8.ValidString(c.got) {
			t.Errorf("%s has %d bytes, valid %v", name, len(c.got), utf8.ValidString(c.got))
		}
	}
	if got.FBTraceID != "\uFFFD\uFFFD" {
		t.Errorf("fbtrace_id = %q", got.FBTraceID)
	}
}

func TestErrorString(t *testing.T) {
	e := &Error{Code: 100, Subcode: 33, Title: "T", Message: "private", Details: "private"}
	if e.Error() != "cloud api error 100/33: T" {
		t.Errorf("%q", e.Error())
	}
	e.Subcode = 0
	if e.Error() != "cloud api error 100: T" {
		t.Errorf("%q", e.Error())
	}
}

func TestParseSendAnswer(t *testing.T) {
	body := `{"messaging_product":"whatsapp","contacts":[{"input":"+12025550101","wa_id":"12025550101","user_id":"US.1"}],
		"messages":[{"id":"wamid.HBgL","message_status":"held_for_quality_assessment"}]}`
	got, err := ParseSendAnswer(200, []byte(body))
	want := SendAnswer{WAMID: "wamid.HBgL", WAID: "12025550101", UserID: "US.1", MessageStatus: "held_for_quality_assessment"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseSendAnswer(200, []byte(`{"messages":[{"id":"wamid.1"}]}`)); err != nil || got.WAMID != "wamid.1" {
		t.Errorf("without contacts: %+v, %v", got, err)
	}
	if _, err := ParseSendAnswer(400, []byte(body)); !errors.Is(err, ErrNotSuccess) {
		t.Errorf("status 400: %v", err)
	}
	for _, body := range []string{
		"", "OK", "{}", `{"success":true}`, `{"messages":[]}`, `{"messages":[{}]}`, `{"messages":[{"id":""}]}`, `{"messages":[{"id":7}]}`,
		`{"messages":{"id":"wamid.1"}}`, `{"messages":[{"id":"wamid.1"}]`, `[{"messages":[{"id":"wamid.1"}]}]`, `{"messages":[{"id":"a\u0000b"}]}`,
		`{"messages":[{"id":"` + strings.Repeat("w", maxID+1) + `"}]}`,
	} {
		if got, err := ParseSendAnswer(200, []byte(body)); !errors.Is(err, ErrNoMessageID) {
			t.Errorf("%.60s gives %+v, %v", body, got, err)
		}
	}
}

func TestNoMedia(t *testing.T) {
	const said = "(#100) Param image['id'] is not a valid whatsapp business account media attachment ID"
	for _, c := range []struct {
		code  int
		texts []string
		want  bool
	}{
		{100, []string{"", said}, true},
		{131009, []string{"Parameter value is not valid", "Media ID does not exist"}, true},
		{100, []string{"(#100) Param image['link'] must be a URL"}, false},
		{131026, []string{said}, false},
		{100, nil, false},
	} {
		if got := NoMedia(c.code, c.texts...); got != c.want {
			t.Errorf("%d %q: %v", c.code, c.texts, got)
		}
	}
}
