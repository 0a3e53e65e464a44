package webhook

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/cloudapi"
	"wagate/internal/pgtest"
)

// failure is a failed status with an error code.
func failure(wamid, opaque string, code, at int) string {
	return fmt.Sprintf(`{"id":%q,"status":"failed","timestamp":"%d","recipient_id":"16505551234","biz_opaque_callback_data":%q,"errors":[{"code":%d,"title":"title"}]}`,
		wamid, 1_800_000_000+at, opaque, code)
}

// change is a notification of one field of one WABA.
func change(waba, field, value string) []byte {
	return fmt.Appendf(nil, `{"object":"whatsapp_business_account","entry":[{"id":%q,"changes":[{"field":%q,"value":%s}]}]}`, waba, field, value)
}

// accepted makes messages that Meta has accepted, each under wamid.<id>.
func accepted(t *testing.T, pool *pgxpool.Pool, n int) []uuid.UUID {
	t.Helper()
	ids := putMessages(t, pool, n)
	exec(t, pool, `UPDATE messages SET status = 'accepted', slot_at = NULL, wamid = 'wamid.' || id, accepted_at = now() WHERE status = 'sending'`)
	exec(t, pool, `INSERT INTO wamids (wamid, message_id) SELECT wamid, id FROM messages WHERE wamid IS NOT NULL ON CONFLICT DO NOTHING`)
	return ids
}

func jobs(t *testing.T, pool *pgxpool.Pool) int {
	t.Helper()
	return scalar[int](t, pool, `SELECT count(*) FROM river_job`)
}

// A failure that the table lets try again is a new try of the same message, once, in whatever order and however often the
// statuses come.
func TestAFailedWebhookIsANewTry(t *testing.T) {
	for name, order := range map[string][]int{"in order": {0, 1}, "reversed": {1, 0}, "twice": {0, 1, 0, 1}, "reversed and twice": {1, 0, 1, 0}} {
		for _, together := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, together %v", name, together), func(t *testing.T) {
				pool := pgtest.New(t)
				id := accepted(t, pool, 1)[0]
				r := receiver(t, pool)
				opaque, wamid := cloudapi.Token(id.String(), 1), "wamid."+id.String()
				parts := []string{status(wamid, "sent", opaque, 1), failure(wamid, opaque, 131000, 2)}
				var set []string
				for _, i := range order {
					set = append(set, parts[i])
				}
				if together {
					take(t, r, notification(set...))
					drain(t, r)
				} else {
					for _, s := range set {
						take(t, r, notification(s))
						drain(t, r)
					}
				}
				if !scalar[bool](t, pool, `SELECT status = 'queued' AND wamid IS NULL AND redos = 1 AND failed_try = 1 AND try = 1 AND error_code = 131000
					AND NOT failed_by_meta AND accepted_at IS NULL AND sent_at IS NULL AND failed_at IS NULL FROM messages`) {
					t.Errorf("the message is %s", scalar[string](t, pool, `SELECT to_jsonb(m)::text FROM messages m`))
				}
				if n := jobs(t, pool); n != 1 {
					t.Errorf("%d jobs, want one", n)
				}
				if n := scalar[int](t, pool, `SELECT count(*) FROM message_events WHERE kind = 'redo'`); n != 1 {
					t.Errorf("%d redos in the log", n)
				}

				// The new try is accepted under another wamid; what comes late of the first changes nothing but for a delivery.
				exec(t, pool, `UPDATE messages SET try = 2, status = 'accepted', wamid = 'wamid.second', accepted_at = now()`)
				exec(t, pool, `INSERT INTO wamids SELECT 'wamid.second', id FROM messages`)
				take(t, r, notification(parts...))
				drain(t, r)
				if !scalar[bool](t, pool, `SELECT status = 'accepted' AND wamid = 'wamid.second' AND redos = 1 AND sent_at IS NULL FROM messages`) {
					t.Error("a late word of the first try counted")
				}
				take(t, r, notification(failure("wamid.second", cloudapi.Token(id.String(), 2), 131000, 9)))
				drain(t, r)
				if !scalar[bool](t, pool, `SELECT status = 'failed' AND failed_by_meta AND redos = 1 FROM messages`) || jobs(t, pool) != 1 {
					t.Error("a second failure was not final")
				}
				if n := scalar[int](t, pool, `SELECT count(*) FROM message_events WHERE kind = 'duplicate_detected'`); n != 0 {
					t.Errorf("%d duplicates in the log", n)
				}
			})
		}
	}
}

func TestADeliveryOfAFailedTryWins(t *testing.T) {
	pool := pgtest.New(t)
	id := accepted(t, pool, 1)[0]
	r := receiver(t, pool)
	opaque, wamid := cloudapi.Token(id.String(), 1), "wamid."+id.String()
	take(t, r, notification(failure(wamid, opaque, 131000, 2)))
	drain(t, r)
	take(t, r, notification(status(wamid, "delivered", opaque, 3)))
	drain(t, r)
	if got := scalar[string](t, pool, `SELECT status FROM messages`); got != "delivered" {
		t.Errorf("%s, want delivered: nothing is sent again", got)
	}
	// In one set the delivery is known before anything is decided.
	other := accepted(t, pool, 1)[0]
	opaque, wamid = cloudapi.Token(other.String(), 1), "wamid.other"
	before := jobs(t, pool)
	take(t, r, notification(failure(wamid, opaque, 131000, 2), status(wamid, "delivered", opaque, 3)))
	drain(t, r)
	if got := scalar[string](t, pool, `SELECT status FROM messages WHERE id = $1`, other); got != "delivered" || jobs(t, pool) != before {
		t.Errorf("%s and %d jobs, want delivered and none", got, jobs(t, pool)-before)
	}
}

// A failure may come before the answer to its try is recorded: it waits for that.
func TestAFailureBeforeOurOwnRecord(t *testing.T) {
	pool := pgtest.New(t)
	id := putMessages(t, pool, 1)[0] // sending
	r := receiver(t, pool)
	opaque := cloudapi.Token(id.String(), 1)
	take(t, r, notification(failure("wamid.1", opaque, 131000, 2)))
	drain(t, r)
	if got := scalar[string](t, pool, `SELECT status FROM messages`); got != "sending" || jobs(t, pool) != 0 {
		t.Errorf("%s, %d jobs: applied too early", got, jobs(t, pool))
	}
	exec(t, pool, `UPDATE messages SET status = 'accepted', slot_at = NULL, wamid = 'wamid.1'`)
	exec(t, pool, `UPDATE webhook_raw SET received_at = received_at - interval '5 seconds'`)
	drain(t, r)
	if got := scalar[string](t, pool, `SELECT status FROM messages`); got != "queued" || jobs(t, pool) != 1 {
		t.Errorf("%s, %d jobs: want it queued with one", got, jobs(t, pool))
	}
	// A final one has nothing to wait for.
	last := putMessages(t, pool, 1)[0]
	take(t, r, notification(failure("wamid.2", cloudapi.Token(last.String(), 1), 131026, 2)))
	drain(t, r)
	if got := scalar[string](t, pool, `SELECT status FROM messages WHERE id = $1`, last); got != "failed" {
		t.Errorf("%s, want failed", got)
	}
}

// What failed webhooks pause, suppress and count.
func TestAFailedWebhookPausesItsScope(t *testing.T) {
	type pause struct {
		Scope, Value string
		Endless      bool
	}
	for _, c := range []struct {
		code   int
		pause  string // scope:value, "" for none
		until  string // lifted, or an upper bound
		status string
	}{
		{131026, "", "", "failed"},
		{130429, "phone", "1 minute", "queued"},
		{80007, "waba", "1 hour", "queued"},
		{4, "app", "1 hour", "queued"},
		{131048, "phone", "1 day", "queued"},
		{131042, "waba", "lifted", "failed"},
		{131031, "waba", "lifted", "failed"},
		{131045, "phone", "lifted", "failed"},
		{190, "waba", "1 hour", "failed"},
		{132015, "template", "6 hours", "queued"},
		{132016, "template", "lifted", "failed"},
		{987654, "", "", "failed"},
	} {
		t.Run(fmt.Sprint(c.code), func(t *testing.T) {
			pool := pgtest.New(t)
			id := accepted(t, pool, 3)
			exec(t, pool, `INSERT INTO apps (app_id) VALUES ('app-1')`)
			exec(t, pool, `INSERT INTO wabas (waba_id, app_id) SELECT DISTINCT waba_id, 'app-1' FROM messages ON CONFLICT (waba_id) DO UPDATE SET app_id = 'app-1'`)
			exec(t, pool, `UPDATE messages SET template_name = 'order', template_language = 'en_US'`)
			r := receiver(t, pool)
			var set []string
			for i, id := range id {
				set = append(set, failure("wamid."+id.String(), cloudapi.Token(id.String(), 1), c.code, i))
			}
			take(t, r, notification(set...))
			drain(t, r)
			if n := scalar[int](t, pool, `SELECT count(*) FROM messages WHERE status = $1`, c.status); n != 3 {
				t.Errorf("%d of 3 are %s", n, c.status)
			}
			rows := scalar[int](t, pool, `SELECT count(*) FROM pauses`)
			if c.pause == "" {
				if rows != 0 {
					t.Errorf("%d pauses", rows)
				}
				return
			}
			var p pause
			err := pool.QueryRow(t.Context(), `SELECT scope, value, until IS NULL FROM pauses WHERE code = $1 AND level = 1 AND source = 'throttle'`, c.code).Scan(&p.Scope, &p.Value, &p.Endless)
			if err != nil || rows != 1 || p.Scope != c.pause || p.Endless != (c.until == "lifted") {
				t.Fatalf("%d pauses, %+v, %v; want one of %s", rows, p, err, c.pause)
			}
			want := map[string]string{
				"phone": scalar[string](t, pool, `SELECT min(phone_number_id) FROM messages`), "waba": scalar[string](t, pool, `SELECT min(waba_id) FROM messages`),
				"app": "app-1", "template": scalar[string](t, pool, `SELECT min(waba_id) FROM messages`) + ":order/en_US",
			}[c.pause]
			if p.Value != want {
				t.Errorf("paused %s, want %s", p.Value, want)
			}
			if c.until != "lifted" && !scalar[bool](t, pool, `SELECT until > now() - interval '1 second' AND until <= now() + $1::interval FROM pauses`, c.until) {
				t.Error("the pause ends at another time")
			}
		})
	}
}

func TestSuppressionsAndSpellings(t *testing.T) {
	pool := pgtest.New(t)
	ids := accepted(t, pool, 2)
	exec(t, pool, `UPDATE messages SET recipient = '+55 11 98765-4321', category = 'marketing', waba_id = '100'`)
	exec(t, pool, `INSERT INTO wa_ids (input, wa_id) VALUES ('5511987654321', '551187654321')`)
	r := receiver(t, pool)
	failed := func(id uuid.UUID, code int) []byte {
		return notification(strings.Replace(failure("wamid."+id.String(), cloudapi.Token(id.String(), 1), code, 1), "16505551234", "551187654321", 1))
	}
	take(t, r, failed(ids[0], 131049))
	drain(t, r)
	if !scalar[bool](t, pool, `SELECT count(*) = 1 AND bool_and(wa_id = '551187654321' AND waba_id = '100' AND code = 131049 AND until > now() + interval '23 hours') FROM suppressions`) {
		t.Error("the cap on marketing was not kept for a day")
	}
	if !scalar[bool](t, pool, `SELECT count(*) = 1 AND min(scheduled_at) > now() + interval '23 hours' FROM river_job`) {
		t.Error("the new try does not wait a day")
	}
	take(t, r, failed(ids[1], 131050))
	drain(t, r)
	if !scalar[bool](t, pool, `SELECT count(*) = 1 AND bool_and(until IS NULL AND code = 131050) FROM suppressions`) {
		t.Error("the opt-out was not kept for good")
	}
	prefer := func(value string) {
		take(t, r, change("100", "user_preferences", `{"user_preferences":[{"wa_id":"551187654321","category":"marketing_messages","value":"`+value+`","timestamp":1800000000}]}`))
		drain(t, r)
	}
	prefer("resume")
	if n := scalar[int](t, pool, `SELECT count(*) FROM suppressions WHERE lifted_at IS NULL`); n != 0 {
		t.Errorf("%d suppressions after resume", n)
	}
	prefer("stop")
	if !scalar[bool](t, pool, `SELECT count(*) = 1 AND bool_and(until IS NULL AND reason = 'stop' AND source = 'preference') FROM suppressions WHERE lifted_at IS NULL`) {
		t.Error("stop was not kept")
	}
}

func TestInboundMessages(t *testing.T) {
	pool := pgtest.New(t)
	r := receiver(t, pool)
	at := time.Now().Add(-time.Hour).Unix()
	body := change("100", "messages", fmt.Sprintf(`{"messaging_product":"whatsapp","metadata":{"phone_number_id":"1001"},
		"messages":[{"from":"12025550101","id":"wamid.in.1","timestamp":"%d","type":"text","text":{"body":"hi"}},
		            {"from":"12025550101","id":"wamid.in.2","timestamp":"%d","type":"text","text":{"body":"hi"}},
		            {"from":"12025550102","id":"wamid.in.3","timestamp":"%d","type":"text","text":{"body":"hi"}}]}`, at, at+60, at))
	take(t, r, body)
	drain(t, r)
	if !scalar[bool](t, pool, `SELECT count(*) = 2 AND max(until) = to_timestamp($1::bigint) + interval '24 hours' FROM service_windows WHERE phone_number_id = '1001'`, at+60) {
		t.Error("the service windows are not open until 24 hours after the last message")
	}
	if n := scalar[int](t, pool, `SELECT coalesce(sum(messages), 0)::integer FROM inbound_seconds WHERE phone_number_id = '1001'`); n != 3 {
		t.Errorf("%d inbound messages counted, want 3", n)
	}
}

// Media that users send are known as their phone number's, so that the Cloud API ingress finds whose they are.
func TestInboundMediaIsKnown(t *testing.T) {
	pool := pgtest.New(t)
	exec(t, pool, `INSERT INTO wabas (waba_id) VALUES ('100')`)
	exec(t, pool, `INSERT INTO phone_numbers (phone_number_id, waba_id) VALUES ('1001', '100')`)
	r := receiver(t, pool)
	for phone, media := range map[string]string{"1001": "501", "1002": "502"} {
		take(t, r, change("100", "messages", `{"metadata":{"phone_number_id":"`+phone+`"},
			"messages":[{"from":"12025550101","id":"wamid.`+media+`","timestamp":"1800000000","type":"document","document":{"id":"`+media+`","filename":"a.pdf"}}]}`))
	}
	drain(t, r)
	if got := scalar[string](t, pool, `SELECT string_agg(concat_ws(' ', id, kind, waba_id, phone_number_id), ',') FROM graph_ids`); got != "501 media 100 1001" {
		t.Errorf("known: %q", got)
	}
}

// What Meta says of throughput, tiers, quality, templates and accounts.
func TestNoticesOfAccounts(t *testing.T) {
	pool := pgtest.New(t)
	exec(t, pool, `INSERT INTO portfolios (portfolio_id, unique_recipients_per_day) VALUES ('p1', 250)`)
	exec(t, pool, `INSERT INTO wabas (waba_id, portfolio_id) VALUES ('100', 'p1')`)
	exec(t, pool, `INSERT INTO phone_numbers (phone_number_id, waba_id, display_phone_number, messages_per_second) VALUES ('1001', '100', '+1 202-555-0100', 76)`)
	exec(t, pool, `INSERT INTO pauses (id, scope, value, reason, source, code, level, until) VALUES (gen_random_uuid(), 'phone', '1001', 'spam', 'throttle', 131048, 1, now() + interval '1 day'),
		(gen_random_uuid(), 'phone', '1001', 'told to', 'operator', NULL, 0, NULL)`)
	r := receiver(t, pool)
	tell := func(field, value string) {
		t.Helper()
		for range 2 { // repeated notices change nothing more
			take(t, r, change("100", field, value))
			drain(t, r)
		}
	}
	tell("phone_number_quality_update", `{"display_phone_number":"12025550100","event":"FLAGGED","max_daily_conversations_per_business":"TIER_2K"}`)
	if n := scalar[int](t, pool, `SELECT count(*) FROM pauses`); n != 2 {
		t.Errorf("%d pauses after a flag, want both", n)
	}
	tell("phone_number_quality_update", `{"display_phone_number":"12025550100","event":"THROUGHPUT_UPGRADE","max_daily_conversations_per_business":"TIER_10K"}`)
	if !scalar[bool](t, pool, `SELECT messages_per_second = 950 AND meta_per_second = 1000 AND limit_source = 'webhook' AND limit_changed_at IS NOT NULL FROM phone_numbers`) {
		t.Error("the throughput upgrade did not raise the limit in its proportion: " + scalar[string](t, pool, `SELECT to_jsonb(p)::text FROM phone_numbers p`))
	}
	if got := scalar[string](t, pool, `SELECT string_agg(source, ',') FROM pauses`); got != "operator" {
		t.Errorf("pauses of %s are left, want the operator's", got)
	}
	if !scalar[bool](t, pool, `SELECT unique_recipients_per_day = 10000 AND limit_source = 'webhook' AND tier = 'TIER_10K' FROM portfolios`) {
		t.Error("the tier was not taken in")
	}
	tell("business_capability_update", `{"max_daily_conversations_per_business":"TIER_UNLIMITED","max_phone_numbers_per_business":25}`)
	if !scalar[bool](t, pool, `SELECT unique_recipients_per_day IS NULL FROM portfolios`) {
		t.Error("unlimited was not taken in")
	}
	exec(t, pool, `DELETE FROM pauses`)

	template := func(event, title string) string {
		return fmt.Sprintf(`{"event":%q,"message_template_id":1,"message_template_name":"order","message_template_language":"en_US","other_info":{"title":%q}}`, event, title)
	}
	paused := func() string {
		return scalar[string](t, pool, `SELECT coalesce(string_agg(scope || ' ' || value || ' ' || code || ' ' || CASE WHEN until IS NULL THEN 'lifted'
			ELSE round(extract(epoch FROM until - now()) / 3600)::text || 'h' END, ',' ORDER BY scope), '') FROM pauses`)
	}
	for _, c := range []struct{ field, value, want string }{
		{"message_template_status_update", template("PAUSED", "FIRST_PAUSE"), "template 100:order/en_US 132015 3h"},
		{"message_template_status_update", template("APPROVED", ""), ""},
		{"message_template_status_update", template("PAUSED", "SECOND_PAUSE"), "template 100:order/en_US 132015 6h"},
		{"message_template_status_update", template("DISABLED", ""), "template 100:order/en_US 132016 lifted"},
		{"message_template_status_update", template("REINSTATED", ""), ""},
		{"account_update", `{"event":"DISABLED_UPDATE","ban_info":{"waba_ban_state":"DISABLE"}}`, "waba 100 131031 lifted"},
		{"account_update", `{"event":"DISABLED_UPDATE","ban_info":{"waba_ban_state":"REINSTATE"}}`, ""},
		{"account_update", `{"event":"PARTNER_ADDED"}`, ""},
		{"messages", `{"metadata":{"phone_number_id":"1001"},"errors":[{"code":131048,"title":"Spam rate limit hit"}]}`, "phone 1001 131048 "},
	} {
		tell(c.field, c.value)
		got := paused()
		if len(c.want) > 0 && c.want[len(c.want)-1] == ' ' && len(got) > len(c.want) {
			got = got[:len(c.want)] // how long is drawn at random
		}
		if got != c.want {
			t.Errorf("%s %s: paused %q, want %q", c.field, c.value, got, c.want)
		}
	}
	if n := scalar[int](t, pool, `SELECT max(level) FROM pauses`); n != 1 {
		t.Error("a repeated notice raised the level")
	}
}
