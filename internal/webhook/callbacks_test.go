package webhook

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/message"
	"wagate/internal/pgtest"
	"wagate/internal/store"
)

func subscribed(t *testing.T, pool *pgxpool.Pool, format string, events ...string) {
	t.Helper()
	err := store.New(pool).PutSubscription(t.Context(), store.CallbackEndpoint{
		ID: message.NewID(time.Now()), Owner: "shop", URL: "https://app.example.com/", Format: format, Events: events, Active: true, Secret: []byte("sealed"),
	})
	if err != nil {
		t.Fatal(err)
	}
}

const all = `{"object":"whatsapp_business_account","entry":[{"id":"100","changes":[
	{"field":"messages","value":{"messaging_product":"whatsapp","metadata":{"phone_number_id":"200"},
		"contacts":[{"wa_id":"1","profile":{"name":"one"}},{"wa_id":"2","profile":{"name":"two"}}],
		"messages":[{"id":"wamid.a","from":"1","type":"text","text":{"body":"x"}},{"id":"wamid.b","from":"2","type":"text","text":{"body":"y"}}],
		"statuses":[{"id":"wamid.nobody","status":"sent","timestamp":"1790000000","recipient_id":"3"}]}},
	{"field":"account_update","value":{"event":"ACCOUNT_VIOLATION"}},
	{"field":"security","value":{"event":"PIN_CHANGED"}},
	{"field":"phone_number_quality_update","value":{"event":"FLAGGED"}},
	{"field":"message_template_status_update","value":{"event":"APPROVED","message_template_name":"offer"}},
	{"field":"template_category_update","value":{"message_template_name":"offer"}},
	{"field":"user_preferences","value":{}}]}]}`

// What Meta says beside statuses is told once, though the notification is applied again for a status that finds no message.
func TestNoticesAreToldOnce(t *testing.T) {
	pool := pgtest.New(t)
	subscribed(t, pool, "wagate", store.TellInbound, store.TellAccount, store.TellTemplate)
	r := receiver(t, pool)
	take(t, r, []byte(all))
	drain(t, r)
	exec(t, pool, `UPDATE webhook_raw SET received_at = now() - interval '1 hour'`)
	drain(t, r)
	if n := scalar[int](t, pool, `SELECT attempts FROM webhook_raw WHERE processed_at IS NOT NULL`); n != 2 {
		t.Fatalf("it was applied %d times", n)
	}
	got := scalar[string](t, pool, `SELECT string_agg(kind || ' ' || field || ' ' || coalesce(phone_number_id, '-'), ', ' ORDER BY seq) FROM callback_events`)
	want := "message.inbound messages 200, message.inbound messages 200, account.alert account_update -, account.alert security -, " +
		"account.alert phone_number_quality_update -, template.status message_template_status_update -, template.status template_category_update -"
	if got != want {
		t.Errorf("told %s\nwant %s", got, want)
	}
	// Each message by itself, with its own contact.
	first := scalar[string](t, pool, `SELECT convert_from(value, 'UTF8') FROM callback_events ORDER BY seq LIMIT 1`)
	if !strings.Contains(first, `"wamid.a"`) || !strings.Contains(first, `"one"`) || strings.Contains(first, "wamid.b") || strings.Contains(first, `"two"`) || strings.Contains(first, "statuses") {
		t.Errorf("the first message is told as %s", first)
	}
	if n := scalar[int](t, pool, `SELECT count(DISTINCT event_id) FROM callback_events`); n != 7 {
		t.Errorf("%d webhook-ids for 7 events", n)
	}
}

// A status is told with Meta's own words to whoever reads Meta's format, by itself.
func TestStatusesAreToldAsTheyCame(t *testing.T) {
	pool := pgtest.New(t)
	subscribed(t, pool, "meta", store.TellStatus)
	subscribed(t, pool, "wagate", store.TellStatus)
	r := receiver(t, pool)
	ids := putMessages(t, pool, 2)
	body := `{"object":"whatsapp_business_account","entry":[{"id":"100","changes":[{"field":"messages","value":{"messaging_product":"whatsapp","metadata":{"phone_number_id":"200"},"statuses":[` +
		`{"id":"wamid.1","status":"sent","timestamp":"1790000000","recipient_id":"16505551234","biz_opaque_callback_data":"g1:` + ids[0].String() + `:1","conversation":{"id":"c1"}},` +
		`{"id":"wamid.2","status":"sent","timestamp":"1790000000","recipient_id":"16505551234","biz_opaque_callback_data":"g1:` + ids[1].String() + `:1"}]}}]}]}`
	take(t, r, []byte(body))
	drain(t, r)
	if n := scalar[int](t, pool, `SELECT count(*) FROM callback_events WHERE value IS NULL AND field IS NULL`); n != 2 {
		t.Errorf("%d events without Meta's words, want the two of our own format", n)
	}
	value := scalar[string](t, pool, `SELECT convert_from(value, 'UTF8') FROM callback_events WHERE chain = $1 AND value IS NOT NULL`, ids[0])
	if !strings.Contains(value, `"conversation":{"id":"c1"}`) || strings.Contains(value, "wamid.2") {
		t.Errorf("told as %s", value)
	}
}

// Without anybody who listens nothing is written.
func TestNobodyListens(t *testing.T) {
	pool := pgtest.New(t)
	r := receiver(t, pool)
	take(t, r, []byte(all))
	drain(t, r)
	if n := scalar[int](t, pool, `SELECT count(*) FROM callback_events`); n != 0 {
		t.Errorf("%d events", n)
	}
}
