package cloudapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cases gives the collection of real payloads, where it lies beside the
// repository; nil, said in the log, where it does not.
func cases(t *testing.T, folder string) map[string][]byte {
	t.Helper()
	dir := filepath.Join("..", "..", "..", "shared", "cases", folder)
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		t.Log("the payload collection is not beside the repository: this part was not run")
	}
	found := map[string][]byte{}
	for _, name := range names {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found[filepath.Base(name)] = body
	}
	return found
}

func sign(body, secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func TestVerifySignature(t *testing.T) {
	const body, secret = `{"a":"\u00e4"}`, "app-secret"
	good := sign(body, secret)
	if !VerifySignature([]byte(body), good, []byte(secret)) {
		t.Error("the right signature is refused")
	}
	// RFC 4231, test case 2: a value that this test did not compute itself.
	if !VerifySignature([]byte("what do ya want for nothing?"), "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", []byte("Jefe")) {
		t.Error("RFC 4231's signature is refused")
	}
	for name, c := range map[string]struct{ body, header, secret string }{
		"other body":       {body + " ", good, secret},
		"other secret":     {body, good, "other"},
		"no secret":        {body, sign(body, ""), ""},
		"no header":        {body, "", secret},
		"no prefix":        {body, strings.TrimPrefix(good, "sha256="), secret},
		"other prefix":     {body, "sha1=" + strings.TrimPrefix(good, "sha256="), secret},
		"short":            {body, good[:len(good)-2], secret},
		"long":             {body, good + "00", secret},
		"no hexadecimal":   {body, "sha256=" + strings.Repeat("zz", 32), secret},
		"one bit is wrong": {body, good[:len(good)-1] + string(good[len(good)-1]^1), secret},
	} {
		if VerifySignature([]byte(c.body), c.header, []byte(c.secret)) {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestVerifyHandshake(t *testing.T) {
	query := func(mode, token, challenge string) url.Values {
		return url.Values{"hub.mode": {mode}, "hub.verify_token": {token}, "hub.challenge": {challenge}}
	}
	if got, ok := VerifyHandshake(query("subscribe", "tok", "12345"), "tok"); !ok || got != "12345" {
		t.Errorf("%q, %v", got, ok)
	}
	for name, c := range map[string]struct {
		query url.Values
		token string
	}{
		"wrong token":    {query("subscribe", "other", "1"), "tok"},
		"empty token":    {query("subscribe", "", "1"), ""},
		"wrong mode":     {query("unsubscribe", "tok", "1"), "tok"},
		"no challenge":   {query("subscribe", "tok", ""), "tok"},
		"long challenge": {query("subscribe", "tok", strings.Repeat("1", 1025)), "tok"},
		"nothing":        {url.Values{}, "tok"},
	} {
		if got, ok := VerifyHandshake(c.query, c.token); ok || got != "" {
			t.Errorf("%s: %q, %v", name, got, ok)
		}
	}
}

func TestNotificationWithStatuses(t *testing.T) {
	body := `{"object":"whatsapp_business_account","entry":[
	 {"id":"7001","time":1760000000,"changes":[{"field":"messages","value":{"messaging_product":"whatsapp",
	  "metadata":{"display_phone_number":"12025550100","phone_number_id":"2001"},
	  "statuses":[
	   {"id":"wamid.A","status":"sent","timestamp":"1760000001","recipient_id":"12025550101","recipient_user_id":"US.5","biz_opaque_callback_data":"g1:x:1",
	    "conversation":{"id":"conv1","expiration_timestamp":"1760086400","origin":{"type":"referral_conversion"}},"recipient_type":"group","recipient_participant_id":"12025550109","pricing":{"billable":true,"pricing_model":"PMP","type":"regular","category":"utility"}},
	   {"id":"wamid.B","status":"failed","timestamp":1760000002,"recipient_id":12025550102,
	    "errors":[{"code":131026,"title":"Message undeliverable","message":"Message undeliverable","error_data":{"details":"no"},"href":"h"},{"x":1}]},
	   {"id":"wamid.C","status":"warning","timestamp":"1760000003000","pricing":{"billable":false}},
	   {"status":"sent"},{"id":"wamid.D"},"text",{"id":"bad\u0000","status":"sent"}],
	  "errors":[{"code":130429,"title":"Rate limit hit"}]}}]},
	 {"id":7002,"time":"x","changes":[{"field":"account_update","value":{"event":"X","statuses":[{"id":"a","status":"b"}]}}]},
	 {"id":"7003"},0,{"id":"7004","changes":[{},1,{"value":{"statuses":[]}}]}]}`
	n, err := ParseNotification([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if n.Object != "whatsapp_business_account" || len(n.Entries) != 2 || n.Entries[1].ID != "7002" || !n.Entries[1].Time.IsZero() {
		t.Fatalf("%+v", n)
	}
	if got := n.Entries[0]; got.ID != "7001" || !got.Time.Equal(time.Unix(1760000000, 0)) || len(got.Changes) != 1 || got.Changes[0].Field != "messages" {
		t.Fatalf("%+v", got)
	}
	if got := Statuses(n.Entries[1].Changes[0]); got != nil {
		t.Errorf("statuses of account_update: %+v", got)
	}
	if string(n.Entries[1].Changes[0].Value) != `{"event":"X","statuses":[{"id":"a","status":"b"}]}` {
		t.Errorf("value = %s", n.Entries[1].Changes[0].Value)
	}
	got := Statuses(n.Entries[0].Changes[0])
	if len(got) != 3 {
		t.Fatalf("%d statuses: %+v", len(got), got)
	}
	a := got[0]
	if a.PhoneNumberID != "2001" || a.DisplayPhone != "12025550100" || a.WAMID != "wamid.A" || a.Status != "sent" || !a.Timestamp.Equal(time.Unix(1760000001, 0)) ||
		a.RecipientID != "12025550101" || a.RecipientUserID != "US.5" || a.Opaque != "g1:x:1" || a.ConversationID != "conv1" || a.ConversationOrigin != "referral_conversion" ||
		!a.ConversationEnds.Equal(time.Unix(1760086400, 0)) || a.ParticipantID != "12025550109" || len(a.Errors) != 0 ||
		!strings.HasPrefix(string(a.Raw), `{"id":"wamid.A"`) || !strings.HasSuffix(string(a.Raw), `"utility"}}`) {
		t.Errorf("%+v", a)
	}
	if p := a.Pricing; p == nil || p.Billable == nil || !*p.Billable || p.Model != "PMP" || p.Type != "regular" || p.Category != "utility" {
		t.Errorf("pricing %+v", a.Pricing)
	}
	b := got[1]
	if b.RecipientID != "12025550102" || !b.Timestamp.Equal(time.Unix(1760000002, 0)) || b.Pricing != nil || len(b.Errors) != 1 ||
		b.Errors[0] != (Error{Code: 131026, Title: "Message undeliverable", Message: "Message undeliverable", Details: "no", Href: "h"}) {
		t.Errorf("%+v", b)
	}
	c := got[2]
	if c.Status != "warning" || !c.Timestamp.Equal(time.Unix(1760000003, 0)) || c.Pricing == nil || c.Pricing.Billable == nil || *c.Pricing.Billable {
		t.Errorf("%+v", c)
	}
}

func TestParseNotificationRefuses(t *testing.T) {
	for _, body := range []string{
		"", "null", "[]", "{}", `{"object":"x"}`, `{"entry":[]}`, `{"object":7,"entry":[]}`, `{"object":"x","entry":{}}`, `{"object":"x","entry":[]`,
	} {
		if n, err := ParseNotification([]byte(body)); !errors.Is(err, ErrNotNotification) {
			t.Errorf("%s gives %+v, %v", body, n, err)
		}
	}
	if _, err := ParseNotification([]byte(`{"object":"x","entry":[]}` + strings.Repeat(" ", MaxNotification))); !errors.Is(err, ErrNotificationTooLarge) {
		t.Errorf("too large: %v", err)
	}
}

func TestStatusTextsAndErrorsAreBounded(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	value := `{"metadata":{"phone_number_id":"` + long + `"},"statuses":[{"id":"w","status":"` + long + `","recipient_id":"` + long + `","biz_opaque_callback_data":"` + long + `",
		"errors":[` + strings.TrimSuffix(strings.Repeat(`{"code":1},`, 50), ",") + `]},{"id":"` + long + `","status":"sent"}]}`
	got := Statuses(Change{Field: "messages", Value: []byte(value)})
	if len(got) != 1 {
		t.Fatalf("%d statuses", len(got))
	}
	u := got[0]
	if len(u.PhoneNumberID) != maxWord || len(u.Status) != maxWord || len(u.RecipientID) != maxRecipient || len(u.Opaque) != 4*maxOpaque || len(u.Errors) != maxErrors {
		t.Errorf("%d %d %d %d %d", len(u.PhoneNumberID), len(u.Status), len(u.RecipientID), len(u.Opaque), len(u.Errors))
	}
}

func TestMoment(t *testing.T) {
	for in, want := range map[string]time.Time{
		`"1760000000"`: time.Unix(1760000000, 0), `1760000000`: time.Unix(1760000000, 0), `1760000000123`: time.UnixMilli(1760000000123),
		`0`: {}, `-5`: {}, `1.5`: {}, `""`: {}, `"soon"`: {}, `null`: {}, `99999999999999999999`: {},
		`253402300799`: time.Unix(253402300799, 0), `253402300799999`: time.UnixMilli(253402300799999), `253402300800000`: {}, `999999999999999`: {},
	} {
		if got := moment([]byte(in)); !got.Equal(want) {
			t.Errorf("%s gives %v, want %v", in, got, want)
		}
	}
}

func TestRealNotificationsAreRead(t *testing.T) {
	for name, body := range cases(t, "webhooks") {
		n, err := ParseNotification(body)
		if err != nil || len(n.Entries) == 0 || len(n.Entries[0].Changes) == 0 {
			t.Errorf("%s: %+v, %v", name, n, err)
			continue
		}
		change := n.Entries[0].Changes[0]
		got := Statuses(change)
		word, isStatus := strings.CutPrefix(name, "status.")
		if !isStatus || change.Field != "messages" {
			if len(got) != 0 {
				t.Errorf("%s: statuses %+v", name, got)
			}
			continue
		}
		word = word[:strings.IndexAny(word, "+_")]
		if len(got) == 0 || got[0].Status != word || got[0].Timestamp.IsZero() ||
			(got[0].Pricing != nil) != strings.Contains(name, "+pricing") ||
			(got[0].ConversationID != "") != strings.Contains(name, "+conversation") ||
			(len(got[0].Errors) > 0) != strings.Contains(name, "+errors") ||
			(got[0].Opaque != "") != strings.Contains(name, "+callback_data") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestClip(t *testing.T) {
	for in, want := range map[string]string{
		"":      "",
		"12345": "12345", "1234567": "12345",
		"123\u00e4": "123\u00e4", "1234\u00e4": "1234", "12\U0001F600": "12",
		"\x00": "\uFFFD", "1234\x00": "1234", "a\x00b": "a\uFFFDb", "\x00\x00": "\uFFFD", "12345\xff": "12345", "\xff\xff1": "\uFFFD1",
	} {
		if got := clip(in, 5); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}
