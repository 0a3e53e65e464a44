package callback

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/message"
	"wagate/internal/store"
)

// same compares JSON.
func same(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(got, &g); err != nil {
		t.Fatalf("%s: %v: %s", what, err, got)
	}
	a, _ := json.MarshalIndent(g, "", " ")
	b, _ := json.MarshalIndent(w, "", " ")
	if !bytes.Equal(a, b) {
		t.Errorf("%s\n%s\nwant\n%s", what, a, b)
	}
}

// meta is a rig with a subscription of format meta to everything, whose job is run by hand.
func meta(t *testing.T) (*rig, *endpoint, func() got, string) {
	t.Helper()
	r := newRig(t)
	e := newEndpoint(t, nil)
	sub, secret := r.subscribe(e.URL, func(c *store.CallbackEndpoint) {
		c.Format, c.Events = FormatMeta, []string{store.TellStatus, store.TellInbound, store.TellAccount, store.TellTemplate}
	})
	return r, e, func() got {
		t.Helper()
		r.run(r.d, sub)
		return e.next(t, 1)[0]
	}, secret
}

// A client that sends through the gateway gets what Meta would have posted to it: its ids, its own callback data.
func TestMetaFormatOfStatuses(t *testing.T) {
	r, e, next, secret := meta(t)
	id := r.accept("", func(m *store.NewMessage) { m.Opaque = "order 17" })
	r.accepted(id) // Meta posts nothing for it
	r.apply(status(id, "delivered"))
	g := next()
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(g.body)
	if want := "sha256=" + hex.EncodeToString(mac.Sum(nil)); g.header.Get("X-Hub-Signature-256") != want {
		t.Errorf("signed %q, want %q", g.header.Get("X-Hub-Signature-256"), want)
	}
	entry := func(g got) string {
		var b struct {
			Entry []struct{ Time int64 }
		}
		_ = json.Unmarshal(g.body, &b)
		raw, _ := json.Marshal(b.Entry[0].Time)
		return string(raw)
	}
	same(t, "a delivered", g.body, `{"object":"whatsapp_business_account","entry":[{"id":"100","time":`+entry(g)+`,"changes":[{"field":"messages","value":{
		"messaging_product":"whatsapp","metadata":{"display_phone_number":"12025550100","phone_number_id":"200"},
		"statuses":[{"id":"`+id.String()+`","status":"delivered","timestamp":"1700000000","recipient_id":"16505551234","biz_opaque_callback_data":"order 17"}]}}]}]}`)

	// A client that gave none gets none: ours is ours.
	bare := r.accept("")
	r.accepted(bare)
	r.apply(status(bare, "sent"))
	if g := next(); strings.Contains(string(g.body), "biz_opaque") || strings.Contains(string(g.body), "g1:") || !strings.Contains(string(g.body), bare.String()) {
		t.Errorf("told %s", g.body)
	}
	// One that was answered with the wamid knows the message by it.
	if err := r.store.ToldWAMID(t.Context(), bare); err != nil {
		t.Fatal(err)
	}
	r.apply(status(bare, "delivered"))
	if g := next(); !strings.Contains(string(g.body), `"id":"wamid.`+bare.String()) {
		t.Errorf("told %s", g.body)
	}
	// A late status is passed on as Meta posts it; the same notification again is not.
	late := status(bare, "sent")
	r.apply(late)
	if g := next(); !strings.Contains(string(g.body), `"status":"sent"`) {
		t.Errorf("told %s", g.body)
	}
	r.apply(late)
	// A word that nobody knows.
	r.apply(status(bare, "warning"))
	if g := next(); !strings.Contains(string(g.body), `"status":"warning"`) {
		t.Errorf("told %s", g.body)
	}
	// The message is kept no more: ours still does not leak.
	r.apply(status(id, "read"))
	r.exec(`DELETE FROM messages WHERE id = $1`, id)
	if g := next(); strings.Contains(string(g.body), "biz_opaque") || !strings.Contains(string(g.body), id.String()) {
		t.Errorf("told %s", g.body)
	}
	for _, g := range e.requests() {
		if strings.Contains(string(g.body), "g1:") {
			t.Errorf("our own callback data: %s", g.body)
		}
	}
}

func TestMetaFormatOfOwnStatuses(t *testing.T) {
	r, e, next, _ := meta(t)
	sees := func(what string, id uuid.UUID, word, errors string) {
		t.Helper()
		g := next()
		var b struct {
			Entry []struct {
				Time    int64
				Changes []struct {
					Value struct {
						Statuses []struct{ Timestamp string }
					}
				}
			}
		}
		if err := json.Unmarshal(g.body, &b); err != nil {
			t.Fatal(err)
		}
		at, stamp := b.Entry[0].Time, b.Entry[0].Changes[0].Value.Statuses[0].Timestamp
		if time.Since(time.Unix(at, 0)) > time.Hour {
			t.Errorf("%s at %d", what, at)
		}
		raw, _ := json.Marshal(at)
		same(t, what, g.body, `{"object":"whatsapp_business_account","entry":[{"id":"100","time":`+string(raw)+`,"changes":[{"field":"messages","value":{
			"messaging_product":"whatsapp","metadata":{"display_phone_number":"12025550100","phone_number_id":"200"},
			"statuses":[{"id":"`+id.String()+`","status":"`+word+`","timestamp":"`+stamp+`","recipient_id":"16505551234","biz_opaque_callback_data":"mine"`+errors+`}]}}]}]}`)
	}
	errorOf := func(code, title, details string) string {
		return `,"errors":[{"code":` + code + `,"title":"` + title + `","message":"` + title + `","error_data":{"details":"` + details + `"},"href":"` + errorsPage + `"}]`
	}
	mine := func(m *store.NewMessage) { m.Opaque = "mine" }
	id := r.accept("", mine)
	r.outcome(id, store.Outcome{Status: "failed", Event: "try.refused", ErrorCode: 131009, ErrorTitle: "Parameter value is not valid", ErrorDetails: "no body"})
	sees("a refusal", id, "failed", errorOf("131009", "Parameter value is not valid", "no body"))
	id = r.accept("", mine)
	r.outcome(id, store.Outcome{Status: "expired", Event: "expired"})
	sees("an expiry", id, "failed", errorOf("131000", "The message expired", "It was not sent before its expires_at."))
	id = r.accept("", mine)
	r.outcome(id, store.Outcome{Status: "unknown", Event: "try.unknown", Reason: "timeout"})
	r.tx(func(tx pgx.Tx) error {
		_, err := r.store.Settle(t.Context(), tx, id, store.DecideSent, time.Now())
		return err
	})
	sees("settled as sent", id, "sent", "")
	if n := len(e.requests()); n != 3 {
		t.Errorf("%d posts: accepted and unknown are no words of Meta's", n)
	}
}

func TestInboundInBothFormats(t *testing.T) {
	r, _, next, _ := meta(t)
	ours := newEndpoint(t, nil)
	sub, _ := r.subscribe(ours.URL, func(c *store.CallbackEndpoint) { c.Events = []string{store.TellInbound} })
	id := r.accept("")
	r.accepted(id)
	notice := store.Notice{
		ID: message.NewID(time.Now()), Kind: store.TellInbound, WABAID: "100", PhoneNumberID: "200", At: time.Unix(1_790_000_000, 0), Field: "messages",
		Value: []byte(`{"messaging_product":"whatsapp","metadata":{"phone_number_id":"200"},"contacts":[{"wa_id":"16505551234","profile":{"name":"A"}}],
			"messages":[{"id":"wamid.in","from":"16505551234","timestamp":"1790000000","type":"text","text":{"body":"yes"},"context":{"from":"1","id":"wamid.` + id.String() + `"}}]}`),
	}
	r.tx(func(tx pgx.Tx) error { return r.store.TellNotices(t.Context(), tx, []store.Notice{notice}) })
	same(t, "a reply, as Meta posts it", next().body, `{"object":"whatsapp_business_account","entry":[{"id":"100","time":1790000000,"changes":[{"field":"messages","value":{
		"messaging_product":"whatsapp","metadata":{"phone_number_id":"200"},"contacts":[{"wa_id":"16505551234","profile":{"name":"A"}}],
		"messages":[{"id":"wamid.in","from":"16505551234","timestamp":"1790000000","type":"text","text":{"body":"yes"},"context":{"from":"1","id":"`+id.String()+`"}}]}}]}]}`)
	r.run(r.d, sub)
	g := ours.next(t, 1)[0]
	if g.header.Get("webhook-id") != notice.ID.String() {
		t.Errorf("webhook-id %q", g.header.Get("webhook-id"))
	}
	same(t, "a reply, in our words", g.body, `{"type":"message.inbound","timestamp":"2026-09-21T14:13:20Z","data":{"id":"wamid.in","phone_number_id":"200","waba_id":"100",
		"from":"16505551234","type":"text","in_reply_to":"`+id.String()+`","contact":{"wa_id":"16505551234","profile":{"name":"A"}},
		"message":{"id":"wamid.in","from":"16505551234","timestamp":"1790000000","type":"text","text":{"body":"yes"},"context":{"from":"1","id":"wamid.`+id.String()+`"}}}}`)

	notice = store.Notice{
		ID: message.NewID(time.Now()), Kind: store.TellInbound, WABAID: "100", PhoneNumberID: "200", At: time.Unix(1_790_000_000, 0), Field: "messages",
		Value: []byte(`{"messages":[{"id":"wamid.r","from":"16505551234","type":"reaction","reaction":{"message_id":"wamid.` + id.String() + `","emoji":"x"}}]}`),
	}
	r.tx(func(tx pgx.Tx) error { return r.store.TellNotices(t.Context(), tx, []store.Notice{notice}) })
	if g := next(); !strings.Contains(string(g.body), `"message_id":"`+id.String()) {
		t.Errorf("told %s", g.body)
	}
}

func TestNoticesInBothFormats(t *testing.T) {
	r, _, next, _ := meta(t)
	ours := newEndpoint(t, nil)
	sub, _ := r.subscribe(ours.URL, func(c *store.CallbackEndpoint) { c.Events = []string{store.TellAccount, store.TellTemplate} })
	for _, n := range []struct{ kind, field, value, event string }{
		{store.TellAccount, "account_update", `{"event":"DISABLED_UPDATE","ban_info":{"waba_ban_state":"DISABLE"}}`, "DISABLED_UPDATE"},
		{store.TellTemplate, "message_template_status_update", `{"event":"PAUSED","message_template_name":"offer"}`, "PAUSED"},
	} {
		notice := store.Notice{ID: message.NewID(time.Now()), Kind: n.kind, WABAID: "100", At: time.Unix(1_790_000_000, 0), Field: n.field, Value: []byte(n.value)}
		r.tx(func(tx pgx.Tx) error { return r.store.TellNotices(t.Context(), tx, []store.Notice{notice}) })
		same(t, n.kind, next().body, `{"object":"whatsapp_business_account","entry":[{"id":"100","time":1790000000,"changes":[{"field":"`+n.field+`","value":`+n.value+`}]}]}`)
		r.run(r.d, sub)
		same(t, n.kind, ours.next(t, 1)[0].body, `{"type":"`+n.kind+`","timestamp":"2026-09-21T14:13:20Z","data":{"waba_id":"100","field":"`+n.field+`","event":"`+n.event+`","value":`+n.value+`}}`)
	}
}

// Subscriptions get what they asked for, and nothing else.
func TestFilters(t *testing.T) {
	r := newRig(t)
	r.exec(`INSERT INTO phone_numbers (phone_number_id, waba_id) VALUES ('201', '100')`)
	name := func(s string) *string { return &s }
	subs := map[string]uuid.UUID{}
	e := newEndpoint(t, nil)
	for what, change := range map[string]func(*store.CallbackEndpoint){
		"all":            func(*store.CallbackEndpoint) {},
		"failed only":    func(c *store.CallbackEndpoint) { c.Statuses = []string{"failed", "delivered"} },
		"the WABA":       func(c *store.CallbackEndpoint) { c.WABAID = name("100") },
		"another WABA":   func(c *store.CallbackEndpoint) { c.WABAID = name("101") },
		"the number":     func(c *store.CallbackEndpoint) { c.PhoneNumberID = name("200") },
		"another number": func(c *store.CallbackEndpoint) { c.PhoneNumberID = name("201") },
		"the key":        func(c *store.CallbackEndpoint) { c.KeyName = name(owner) },
		"another key":    func(c *store.CallbackEndpoint) { c.KeyName = name("else") },
		"inbound":        func(c *store.CallbackEndpoint) { c.Events = []string{store.TellInbound} },
		"not active":     func(c *store.CallbackEndpoint) { c.Active = false },
	} {
		subs[what], _ = r.subscribe(e.URL, change)
	}
	id := r.accept("")
	r.accepted(id)
	r.apply(status(id, "sent"), status(id, "delivered"))
	r.tx(func(tx pgx.Tx) error {
		return r.store.TellNotices(t.Context(), tx, []store.Notice{{ID: uuid.New(), Kind: store.TellInbound, WABAID: "100", PhoneNumberID: "200", At: time.Now(), Field: "messages", Value: []byte(`{}`)}})
	})
	want := map[string]string{
		"all": "accepted sent delivered", "failed only": "delivered", "the WABA": "accepted sent delivered", "the number": "accepted sent delivered",
		"the key": "accepted sent delivered", "inbound": "message.inbound",
	}
	for what, sub := range subs {
		got := scalar[string](r, `SELECT coalesce(string_agg(coalesce(status, kind), ' ' ORDER BY seq), '') FROM callback_events WHERE endpoint_id = $1`, sub)
		if got != want[what] {
			t.Errorf("%s: %q, want %q", what, got, want[what])
		}
	}
}

func TestSecretsAreChecked(t *testing.T) {
	for _, format := range []string{FormatWagate, FormatMeta} {
		if err := CheckSecret(format, NewSecret(format)); err != nil {
			t.Errorf("%s: a secret of our own: %v", format, err)
		}
		for _, secret := range []string{"", "short", "whsec_", "whsec_AAAA", "with space and enough length", strings.Repeat("x", 300)} {
			if err := CheckSecret(format, secret); err == nil {
				t.Errorf("%s took %q", format, secret)
			}
		}
	}
	if one, two := NewSecret(FormatWagate), NewSecret(FormatWagate); one == two {
		t.Error("secrets repeat")
	}
}
