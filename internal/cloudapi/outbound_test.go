package cloudapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

const someID = "019a0000-0000-7000-8000-0123456789ab"

func TestBuildOutbound(t *testing.T) {
	token := Token(someID, 2)
	for _, c := range []struct {
		name, body, wire string
		set              Overrides
		want             string
	}{
		{"kept byte for byte and in order", `{ "type" : "text", "to":"+12025550101", "text": {"body":"\u00e4 \/ ä", "n": 1.50e1 } }`, token, Overrides{},
			`{"messaging_product":"whatsapp","type":"text","to":"+12025550101","text":{"body":"\u00e4 \/ ä", "n": 1.50e1 },"biz_opaque_callback_data":"` + token + `"}`},
		{"ours taken off, theirs replaced", `{"from":"1","biz_opaque_callback_data":"x","to":"+1","gateway":{"tags":{}},"type":"a","a":[],"messaging_product":"other","\u0066rom":2}`, token, Overrides{},
			`{"messaging_product":"whatsapp","to":"+1","type":"a","a":[],"biz_opaque_callback_data":"` + token + `"}`},
		{"a type that is null", `{"type":null,"to":"+1","text":{}}`, token, Overrides{},
			`{"messaging_product":"whatsapp","to":"+1","text":{},"type":"text","biz_opaque_callback_data":"` + token + `"}`},
		{"type added", `{"to":"+1","text":{}}`, token, Overrides{},
			`{"messaging_product":"whatsapp","to":"+1","text":{},"type":"text","biz_opaque_callback_data":"` + token + `"}`},
		{"no token: theirs kept", `{"to":"+1","type":"a","a":1,"biz_opaque_callback_data":"x"}`, "", Overrides{},
			`{"messaging_product":"whatsapp","to":"+1","type":"a","a":1,"biz_opaque_callback_data":"x"}`},
		{"to replaced in its place", `{"to":"+1 202","type":"a","to":"+9","a":1}`, "", Overrides{To: `+"ü`},
			`{"messaging_product":"whatsapp","to":"+\"ü","type":"a","a":1}`},
		{"to added", `{"type":"a","a":1}`, "", Overrides{To: "+1202"}, `{"messaging_product":"whatsapp","type":"a","a":1,"to":"+1202"}`},
		{"read receipt", `{"status":"read","message_id":"wamid.1","text":{}}`, "", Overrides{To: "+1"},
			`{"messaging_product":"whatsapp","status":"read","message_id":"wamid.1","text":{}}`},
		{"empty", `{}`, "", Overrides{}, `{"messaging_product":"whatsapp"}`},
	} {
		got, err := BuildOutbound([]byte(c.body), c.wire, c.set)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		// Space between members is ours; inside a value it is the caller's.
		if string(got) != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
	for _, body := range []string{"", "[]", `"x"`, `{"a":}`, `{"a":1}x`, "null"} {
		if got, err := BuildOutbound([]byte(body), token, Overrides{}); !errors.Is(err, ErrNotObject) {
			t.Errorf("%q gives %s, %v", body, got, err)
		}
	}
}

func TestBuildOutboundAllocatesLittle(t *testing.T) {
	body := []byte(`{"from":"1","to":"+12025550101","type":"text","text":{"body":"hello"},"gateway":{"priority":"high"}}`)
	token := Token(someID, 1)
	if n := testing.AllocsPerRun(100, func() { _, _ = BuildOutbound(body, token, Overrides{}) }); n > 2 { // 1; the race detector adds one
		t.Errorf("%v allocations", n)
	}
}

func decode(b []byte, into any) error {
	if !json.Valid(b) {
		return errors.New("not JSON")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode(into)
}

func TestTokenComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		try := rapid.IntRange(1, 1<<31-1).Draw(t, "try")
		id, back, ok := ParseToken(Token(someID, try))
		if !ok || id != someID || back != try {
			t.Fatalf("%s, %d, %v", id, back, ok)
		}
	})
	if got := Token(someID, 3); got != "g1:"+someID+":3" {
		t.Errorf("Token = %s", got)
	}
}

func TestParseTokenRefuses(t *testing.T) {
	for _, s := range []string{
		"", "g1:", "order-17", "g1:" + someID, "g1:" + someID + ":", "g1:" + someID + ":0", "g1:" + someID + ":-1", "g1:" + someID + ":+1",
		"g1:" + someID + ":01", "g1:" + someID + ":1x", "g1:" + someID + ":2147483648", "g1:" + someID + ":99999999999",
		"g2:" + someID + ":1", "g1:019A0000-0000-7000-8000-0123456789AB:1", "g1:019a00000000-7000-8000-0123456789abc:1",
		"g1:019a0000-0000-7000-8000-0123456789ag:1", " g1:" + someID + ":1",
	} {
		if id, try, ok := ParseToken(s); ok {
			t.Errorf("%q gives %s, %d", s, id, try)
		}
	}
}
