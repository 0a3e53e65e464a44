package simulator

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func (r *rig) inboundMessages() (out []hookMessage, values []hookValue) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.posts {
		for _, e := range p.hook.Entry {
			for _, c := range e.Changes {
				if out = append(out, c.Value.Messages...); len(c.Value.Messages) > 0 {
					values = append(values, c.Value)
				}
			}
		}
	}
	return out, values
}

func TestInboundMessages(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.s.SetPhone("1", PhoneConfig{WABAID: "10", DisplayPhoneNumber: "15550001111"})
		must(t, r.s.Inbound(InboundMessages{Phone: "1", From: "+52 55 1234 5678", Text: "olá <b>", Count: 3}))
		r.quiet()
		got, values := r.inboundMessages()
		if len(got) != 3 || len(r.posts) != 1 || r.posts[0].hook.Entry[0].ID != "10" || r.posts[0].signature != sign(testSecret, r.posts[0].body) {
			t.Fatalf("messages %+v in %d POSTs", got, len(r.posts))
		}
		ids := map[string]bool{}
		for _, m := range got {
			ids[m.ID] = strings.HasPrefix(m.ID, "wamid.")
			if m.From != "5215512345678" || m.Type != "text" || m.Text.Body != "olá <b>" || m.Timestamp != "946684800" { // virtual time starts in 2000
				t.Errorf("message %+v", m)
			}
		}
		v := values[0]
		if len(ids) != 3 || v.Metadata != (hookMetadata{"15550001111", "1"}) || v.MessagingProduct != "whatsapp" ||
			len(v.Contacts) != 1 || v.Contacts[0].WaID != "5215512345678" || strings.Contains(string(r.posts[0].body), `"statuses"`) {
			t.Errorf("webhook %s", r.posts[0].body)
		}
		if led := r.s.Ledger(); led.Totals.Inbound != 3 || led.Totals.InboundPosted != 3 || led.Totals.StatusesPosted != 0 || led.Totals.WebhookPosts != 1 || led.Phones[0].Inbound != 3 {
			t.Errorf("totals %+v", led.Totals)
		}
	})
}

// TestInboundSharesTheThroughput: inbound messages use the phone number's limit at
// their own times, and are never refused.
func TestInboundSharesTheThroughput(t *testing.T) {
	inBubble(t, Config{PhonePerSecond: 10}, func(r *rig) {
		burst := func() (n int) {
			for r.post(text("1234", "")).code() == 0 {
				n++
			}
			return n
		}
		must(t, r.s.Inbound(InboundMessages{Phone: testPhone, From: "16505551234", Count: 12, PerSecond: 4}))
		must(t, r.s.Inbound(InboundMessages{Phone: testPhone, From: "16505551235", Count: 2}))
		for second, want := range []int{7, 6, 6, 7, 10} { // beside 1+2, then 4 in the last second, 4, 3 and none
			if got := burst(); got != want {
				t.Errorf("second %d: %d sent, want %d", second, got, want)
			}
			pass(time.Second)
		}
		r.quiet()
		got, _ := r.inboundMessages()
		if p := r.s.Ledger().Phones[0]; len(got) != 14 || p.PeakInWindow != 10 || p.Accepted != 36 || p.Inbound != 14 || p.PeakPerSecond != 10 {
			t.Errorf("%d posted, ledger %+v", len(got), p)
		}
	})
}

func TestInboundIsSpaced(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		start := time.Now()
		must(t, r.s.Inbound(InboundMessages{Phone: "1", From: "16505551234", Count: 4, PerSecond: 2}))
		r.quiet()
		var at []time.Duration
		for _, p := range r.posts {
			at = append(at, p.at.Sub(start))
		}
		if want := every(0, 500*time.Millisecond, 4); !reflect.DeepEqual(at, want) {
			t.Errorf("posted at %v, want %v", at, want)
		}
	})
}

func TestInboundIsBounded(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.s.scopes.phone("1").inbound.times = every(0, 0, maxInboundKept-1)
		one := InboundMessages{Phone: "1", From: "16505551234", Count: 1}
		must(t, r.s.Inbound(one))
		if err := r.s.Inbound(one); err == nil {
			t.Error("more than the bound was taken")
		}
		pass(time.Hour)
		r.s.SetWebhook("", "")
		must(t, r.s.Inbound(one))
		r.quiet()
		if got := r.s.Ledger().Totals; got.StatusesDiscarded != 1 || got.InboundPosted != 1 || got.Inbound != 2 {
			t.Errorf("totals %+v", got)
		}
	})
}

// TestInboundAndStatusesInOnePost: each has a change of its own.
func TestInboundAndStatusesInOnePost(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.s.Hold()
		r.post(text("0003", ""))
		must(t, r.s.Inbound(InboundMessages{Phone: testPhone, From: "16505551234", Count: 1}))
		r.post(text("0003", ""))
		pass(time.Second)
		r.s.Release()
		r.quiet()
		if len(r.posts) != 1 {
			t.Fatalf("%d POSTs", len(r.posts))
		}
		ch := r.posts[0].hook.Entry[0].Changes
		if len(ch) != 2 || len(ch[0].Value.Messages) != 1 || len(ch[0].Value.Statuses) != 0 || len(ch[1].Value.Statuses) != 2 || len(ch[1].Value.Messages) != 0 {
			t.Errorf("webhook %s", r.posts[0].body)
		}
	})
}

func TestNotifications(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.s.Hold()
		r.post(text("0003", ""))
		pass(time.Second)
		must(t, r.s.Notify("phone_number_quality_update", "10", map[string]string{"display_phone_number": "15550001111", "event": "THROUGHPUT_UPGRADE"}))
		must(t, r.s.Notify("messages", "0", json.RawMessage(`{"messaging_product":"whatsapp","errors":[{"code":130429,"title":"é"}]}`)))
		r.post(text("0003", ""))
		pass(time.Second)
		r.answer = func(n int) (int, error) {
			if n%2 == 0 {
				return 0, errors.New("connection refused")
			}
			return http.StatusOK, nil
		}
		r.s.Release()
		r.quiet()
		bodies := map[string]int{}
		for _, p := range r.posts {
			if p.signature != sign(testSecret, p.body) {
				t.Errorf("signature of %s", p.body)
			}
			bodies[string(p.body)]++
		}
		for _, want := range []string{
			`{"object":"whatsapp_business_account","entry":[{"id":"10","time":946684801,"changes":[{"value":{"display_phone_number":"15550001111","event":"THROUGHPUT_UPGRADE"},"field":"phone_number_quality_update"}]}]}`,
			`{"object":"whatsapp_business_account","entry":[{"id":"0","time":946684801,"changes":[{"value":{"messaging_product":"whatsapp","errors":[{"code":130429,"title":"\u00e9"}]},"field":"messages"}]}]}`,
		} {
			if bodies[want] == 0 {
				t.Errorf("not posted: %s\nbut %v", want, bodies)
			}
		}
		if got := r.s.Ledger().Totals; got.NoticesPosted != 2 || got.StatusesPosted != 2 || got.WebhookRetries < 2 || len(bodies) != 4 {
			t.Errorf("%d bodies, totals %+v", len(bodies), got)
		}
	})
}

func TestNotificationsAreForgottenByReset(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.s.Hold()
		must(t, r.s.Notify("account_update", "10", struct{}{}))
		must(t, r.s.Inbound(InboundMessages{Phone: "1", From: "16505551234", Count: 5, PerSecond: 1}))
		synctest.Wait()
		if got := r.s.Ledger().Totals.StatusesPending; got != 6 {
			t.Errorf("%d pending", got)
		}
		r.s.Reset()
		pass(time.Minute)
		if got := r.s.Ledger().Totals; len(r.posts) != 0 || got != (Totals{}) {
			t.Errorf("%d POSTs, totals %+v", len(r.posts), got)
		}
	})
}

func TestNotificationsAreBounded(t *testing.T) {
	s := New(Config{})
	s.queue.notices = maxNotices
	if err := s.Notify("account_update", "10", struct{}{}); err == nil {
		t.Error("one more was taken")
	}
}

func TestWrongWebhooksOnDemand(t *testing.T) {
	s := New(Config{})
	good := InboundMessages{Phone: "1", From: "16505551234", Count: 1}
	for what, spoil := range map[string]func(*InboundMessages){
		"phone": func(m *InboundMessages) { m.Phone = "me" }, "from": func(m *InboundMessages) { m.From = "me" },
		"text": func(m *InboundMessages) { m.Text = strings.Repeat("x", 4097) }, "none": func(m *InboundMessages) { m.Count = 0 },
		"count": func(m *InboundMessages) { m.Count = maxInbound + 1 }, "rate": func(m *InboundMessages) { m.PerSecond = -1 },
	} {
		m := good
		spoil(&m)
		if err := s.Inbound(m); err == nil {
			t.Errorf("%s: %+v was taken", what, m)
		}
	}
	for _, tt := range []struct {
		field, waba string
		value       any
	}{
		{"", "1", struct{}{}}, {"Account Update", "1", struct{}{}}, {"account_update", "", struct{}{}},
		{"account_update", "1", []int{}}, {"account_update", "1", nil}, {"account_update", "1", func() {}},
		{"account_update", "1", map[string]string{"x": strings.Repeat("x", maxNotice)}},
	} {
		if err := s.Notify(tt.field, tt.waba, tt.value); err == nil {
			t.Errorf("%+v was taken", tt)
		}
	}
}
