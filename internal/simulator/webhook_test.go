package simulator

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWebhookIsSignedAndEscaped(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		opaque := "über 漢 \U0001f600 <&> \"q\" \u007f\x01"
		rep := r.post(text("1234", opaque))
		r.quiet()
		if len(r.posts) != 2 {
			t.Fatalf("%d POSTs, want 2", len(r.posts))
		}
		for _, p := range r.posts {
			mac := hmac.New(sha256.New, []byte(testSecret))
			mac.Write(p.body)
			if want := "sha256=" + hex.EncodeToString(mac.Sum(nil)); p.signature != want {
				t.Errorf("signature %q, want %q", p.signature, want)
			}
			if i := bytes.IndexFunc(p.body, func(c rune) bool { return c > 126 && c != 127 }); i >= 0 {
				t.Errorf("non-ASCII at byte %d", i)
			}
			for _, want := range []string{`\u00fcber \u6f22 \ud83d\ude00 <&> \"q\"`, `Empf\u00e4nger`} {
				if !strings.Contains(string(p.body), want) {
					t.Errorf("body lacks %s", want)
				}
			}
		}
		for _, st := range r.hookStatuses(rep.wamid()) {
			if st.Opaque != opaque {
				t.Errorf("callback data came back as %q", st.Opaque)
			}
		}
	})
}

func TestSignatureOfAKnownBody(t *testing.T) {
	// RFC 4231's second test case
	want := "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
	if got := sign("Jefe", []byte("what do ya want for nothing?")); got != want {
		t.Errorf("sign = %s, want %s", got, want)
	}
}

func TestEscapeNonASCII(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":"plain"}`: `{"a":"plain"}`,
		`"äÖ/"`:         `"\u00e4\u00d6/"`,
		`"😀"`:           `"\ud83d\ude00"`,
		`"\u00ff"`:      `"\u00ff"`,
		`"\\é"`:         `"\\\u00e9"`,
	} {
		if got := string(escapeNonASCII([]byte(in))); got != want {
			t.Errorf("escape %s = %s, want %s", in, got, want)
		}
	}
}

func TestWebhookShape(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.s.SetPhone(testPhone, PhoneConfig{WABAID: "100000000000001", AppID: "5", DisplayPhoneNumber: "15550001111"})
		rep := do(r.t.Context(), r.t, r.s, http.MethodPost, "/v24.0/"+testPhone+"/messages",
			`{"messaging_product":"whatsapp","to":"+1 650 555-0014","type":"template","template":{"name":"order_shipped","language":{"code":"en"}}}`, nil)
		if rep.body.Contacts[0].Input != "+1 650 555-0014" || rep.body.Contacts[0].WaID != "16505550014" || rep.body.Messages[0].Status != "accepted" {
			t.Errorf("answer %+v", rep.body)
		}
		r.quiet()
		e := r.posts[0].hook.Entry[0]
		v := e.Changes[0].Value
		if e.ID != "100000000000001" || e.Changes[0].Field != "messages" || v.Metadata != (hookMetadata{"15550001111", testPhone}) ||
			v.MessagingProduct != "whatsapp" || v.Contacts[0].WaID != "16505550014" {
			t.Errorf("entry %+v", e)
		}
		statuses := r.hookStatuses(rep.wamid())
		if len(statuses) != 3 {
			t.Fatalf("%d statuses", len(statuses))
		}
		sent, delivered, read := statuses[0], statuses[1], statuses[2]
		want := hookPricing{Billable: true, Model: "PMP", Type: "regular", Category: "utility"}
		if sent.Pricing == nil || *sent.Pricing != want || delivered.Pricing == nil || *delivered.Pricing != want || read.Pricing != nil {
			t.Errorf("pricing %v %v %v", sent.Pricing, delivered.Pricing, read.Pricing)
		}
		if sent.Conversation == nil || sent.Conversation.Expiration == "" || delivered.Conversation == nil || delivered.Conversation.Expiration != "" ||
			sent.Conversation.ID != delivered.Conversation.ID || read.Conversation != nil {
			t.Errorf("conversation %v %v %v", sent.Conversation, delivered.Conversation, read.Conversation)
		}
		if sent.RecipientID != "16505550014" || len(sent.Timestamp) != 9 { // virtual time starts in 2000
			t.Errorf("sent %+v", sent)
		}
	})
}

func TestFailedWebhookCarriesTheError(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		rep := r.post(text("0008", ""))
		r.quiet()
		st := r.hookStatuses(rep.wamid())
		if len(st) != 1 || len(st[0].Errors) != 1 || st[0].Errors[0].Code != 131026 || st[0].Errors[0].ErrorData.Details == "" || st[0].Pricing != nil {
			t.Errorf("statuses %+v", st)
		}
	})
}

func TestReadWithoutDeliveredCarriesThePrice(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		rep := r.post(text("0004", ""))
		r.quiet()
		if st := r.hookStatuses(rep.wamid()); len(st) != 2 || st[1].Pricing == nil || st[1].Pricing.Type != "free_customer_service" {
			t.Errorf("statuses %+v", st)
		}
	})
}

func TestWebhookIsRetriedUntilTaken(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.answer = func(n int) (int, error) {
			switch n {
			case 0:
				return 0, errors.New("connection refused")
			case 1:
				return http.StatusInternalServerError, nil
			case 2:
				return http.StatusAccepted, nil // only a 200 counts
			}
			return http.StatusOK, nil
		}
		r.post(text("0003", ""))
		r.quiet()
		got := r.s.Ledger().Totals
		if len(r.posts) != 4 || got.WebhookRetries != 3 || got.StatusesPosted != 1 || got.WebhookPosts != 1 {
			t.Errorf("%d POSTs, totals %+v", len(r.posts), got)
		}
		for _, p := range r.posts[1:] {
			if !bytes.Equal(p.body, r.posts[0].body) {
				t.Error("a retry has another body")
			}
		}
		if d := r.posts[3].at.Sub(r.posts[0].at); d < 350*time.Millisecond || d > 700*time.Millisecond {
			t.Errorf("three waits took %v", d)
		}
	})
}

func TestWebhookIsGivenUp(t *testing.T) {
	inBubble(t, Config{WebhookRetryFor: time.Minute}, func(r *rig) {
		r.answer = func(int) (int, error) { return http.StatusServiceUnavailable, nil }
		r.post(text("0003", ""))
		r.quiet()
		got := r.s.Ledger().Totals
		if got.StatusesLost != 1 || got.StatusesPosted != 0 || got.WebhookRetries < 30 || got.WebhookRetries > 80 {
			t.Errorf("totals %+v", got)
		}
		if a := r.s.Accepts(0, 1); len(a[0].Statuses) != 0 {
			t.Errorf("statuses %v", a[0].Statuses)
		}
	})
}

func TestHeldWebhooksGoInBatches(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.s.Hold()
		for range 250 {
			r.post(text("0003", ""))
		}
		<-time.After(time.Minute) // virtual
		synctest.Wait()
		if len(r.posts) != 0 || r.s.Ledger().Totals.StatusesPending != 250 {
			t.Fatalf("%d POSTs while held, %d pending", len(r.posts), r.s.Ledger().Totals.StatusesPending)
		}
		r.s.Release()
		r.quiet()
		total, most := 0, 0
		for _, p := range r.posts {
			n := len(p.hook.Entry[0].Changes[0].Value.Statuses)
			total, most = total+n, max(most, n)
		}
		if total != 250 || most != batchSize || len(r.posts) != 3 {
			t.Errorf("%d statuses in %d POSTs, at most %d", total, len(r.posts), most)
		}
	})
}

func TestBatchSpansPhonesAndWABAs(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.s.SetPhone("1", PhoneConfig{WABAID: "10"})
		r.s.SetPhone("2", PhoneConfig{WABAID: "10"})
		r.s.SetPhone("3", PhoneConfig{WABAID: "20"})
		r.s.Hold()
		for _, id := range []string{"1", "2", "3", "1"} {
			do(r.t.Context(), r.t, r.s, http.MethodPost, "/v23.0/"+id+"/messages", text("0003", ""), nil)
		}
		<-time.After(time.Second) // virtual
		r.s.Release()
		r.quiet()
		if len(r.posts) != 1 {
			t.Fatalf("%d POSTs", len(r.posts))
		}
		e := r.posts[0].hook.Entry
		if len(e) != 2 || e[0].ID != "10" || len(e[0].Changes) != 2 || len(e[0].Changes[0].Value.Statuses) != 2 ||
			e[1].ID != "20" || len(e[1].Changes) != 1 {
			t.Errorf("entries %+v", e)
		}
	})
}

func TestWebhookSetAtRunTime(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.s.SetWebhook("", "")
		r.post(text("0003", ""))
		r.quiet()
		if got := r.s.Ledger().Totals; got.StatusesDiscarded != 1 || len(r.posts) != 0 {
			t.Errorf("totals %+v", got)
		}
		r.s.SetWebhook("http://other.invalid/", "other")
		r.post(text("0003", ""))
		r.quiet()
		if len(r.posts) != 1 || r.posts[0].url != "http://other.invalid/" || r.posts[0].signature != sign("other", r.posts[0].body) {
			t.Errorf("POSTs %+v", r.posts)
		}
	})
}

func TestStatusesAreSpacedByTheDelay(t *testing.T) {
	inBubble(t, Config{StatusDelay: 2 * time.Second}, func(r *rig) {
		start := time.Now()
		r.post(text("0014", ""))
		r.quiet()
		for i, p := range r.posts {
			if want := time.Duration(i+1) * 2 * time.Second; p.at.Sub(start) != want {
				t.Errorf("POST %d after %v, want %v", i, p.at.Sub(start), want)
			}
		}
		if len(r.posts) != 3 {
			t.Errorf("%d POSTs", len(r.posts))
		}
	})
}

func TestCloseStopsRetries(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.answer = func(int) (int, error) { return http.StatusServiceUnavailable, nil }
		r.post(text("1234", ""))
		<-time.After(time.Second) // virtual
		start := time.Now()
		r.s.Close()
		if time.Since(start) != 0 {
			t.Errorf("Close took %v", time.Since(start))
		}
		n := len(r.posts)
		<-time.After(time.Minute) // virtual
		if len(r.posts) != n {
			t.Error("posts after Close")
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	var q statusQueue
	q.init()
	q.pending = maxPending - 1
	p := &pending{generation: 1, statuses: ordinary.statuses, settled: make(chan struct{})}
	p.left.Store(2)
	q.add(p, 0)
	pendingNow, lost := q.counts()
	if pendingNow != maxPending-1 || lost != 2 || len(q.schedule) != 0 {
		t.Errorf("pending %d, lost %d", pendingNow, lost)
	}
	<-p.settled
}

func TestHookBodyIsValidJSON(t *testing.T) {
	s := New(Config{})
	body, err := s.hookBody([]event{{p: &pending{opaque: "\xff\u2028"}, status: statusSent}})
	if err != nil || !json.Valid(body) {
		t.Errorf("body %s, error %v", body, err)
	}
}
