package webhook

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/examples/webhooks"
	"wagate/internal/cloudapi"
	"wagate/internal/pgtest"
)

// What must be true once an example was applied, in SQL: $1 is its WABA, $2 its phone number id.
const (
	noEffect = `NOT EXISTS (SELECT FROM pauses WHERE value LIKE $1 || '%' OR value = $2) AND NOT EXISTS (SELECT FROM account_alerts WHERE waba_id = $1)
		AND NOT EXISTS (SELECT FROM suppressions WHERE waba_id = $1 AND lifted_at IS NULL) AND NOT EXISTS (SELECT FROM account_states WHERE value IN ($1, $2))
		AND (SELECT status FROM messages WHERE waba_id = $1) = 'accepted'`
	windowOpens = `(SELECT bool_and(until = to_timestamp(1790086400) AND wa_id = '447700900123') FROM service_windows WHERE phone_number_id = $2)
		AND (SELECT sum(messages) = 1 FROM inbound_seconds WHERE phone_number_id = $2)`
	counted       = `(SELECT sum(messages) = 1 FROM inbound_seconds WHERE phone_number_id = $2) AND NOT EXISTS (SELECT FROM service_windows WHERE phone_number_id = $2)`
	mediaKnown    = windowOpens + ` AND EXISTS (SELECT FROM graph_ids WHERE kind = 'media' AND waba_id = $1 AND phone_number_id = $2)`
	notPaused     = `NOT EXISTS (SELECT FROM pauses WHERE value IN ($1, $2))`
	lockedForGood = `(SELECT scope = 'waba' AND until IS NULL AND code = 131031 FROM pauses WHERE value = $1)`
)

// message is the message of the example's WABA.
func theMessage(where string) string {
	return `(SELECT ` + where + ` FROM messages m WHERE waba_id = $1)`
}

func theEvents(kinds string) string {
	return `(SELECT string_agg(e.kind, ' ' ORDER BY e.at, e.kind) FROM message_events e JOIN messages m ON m.id = e.message_id WHERE m.waba_id = $1) = '` + kinds + `'`
}

func theAlert(field, event, severity string) string {
	return `(SELECT count(*) = 1 AND bool_and(field = '` + field + `' AND event = '` + event + `' AND severity = ` +
		map[string]string{"info": "0", "warning": "1", "critical": "2"}[severity] + `) FROM account_alerts WHERE waba_id = $1)`
}

func ofPhone(alert string) string {
	return alert + ` AND (SELECT phone_number_id = $2 FROM account_alerts WHERE waba_id = $1)`
}

func theState(scope, topic, word string) string {
	value := map[string]string{"waba": "$1", "phone": "$2"}[scope]
	return `(SELECT word = '` + word + `' AND at = to_timestamp(1790000000) FROM account_states WHERE scope = '` + scope + `' AND value = ` + value + ` AND topic = '` + topic + `')`
}

func theTemplate(code string) string {
	return `(SELECT scope = 'template' AND until IS NULL AND code = ` + code + ` FROM pauses WHERE value = $1 || ':order_update/en_GB')`
}

// knownTemplate says what the list of templates says of the one that the examples are about.
func knownTemplate(where string) string {
	return `(SELECT ` + where + ` FROM templates WHERE waba_id = $1 AND name = 'order_update' AND language = 'en_GB')`
}

var effects = map[string]string{
	"status.sent": theMessage(`status = 'sent' AND sent_at = to_timestamp(1790000060) AND NOT pricing_billable AND pricing_type = 'free_entry_point'`) + ` AND ` + theEvents("status.sent") +
		` AND (SELECT e.detail #>> '{conversation,origin}' = 'referral_conversion' AND (e.detail #>> '{conversation,expires_at}')::timestamptz = to_timestamp(1790259200)
		       FROM message_events e JOIN messages m ON m.id = e.message_id WHERE m.waba_id = $1)`,
	"status.delivered":         theMessage(`status = 'delivered' AND delivered_at = to_timestamp(1790000060) AND pricing_billable AND pricing_model = 'PMP' AND pricing_category = 'utility'`),
	"status.read":              theMessage(`status = 'read' AND read_at = to_timestamp(1790000060) AND delivered_at IS NULL`),
	"status.played":            theMessage(`status = 'played' AND played_at = to_timestamp(1790000060)`),
	"status.failed":            theMessage(`status = 'failed' AND failed_by_meta AND error_code = 131026 AND error_title = 'Message undeliverable' AND error_details = 'The number cannot be reached.'`),
	"status.deleted":           theMessage(`status = 'accepted'`) + ` AND ` + theEvents("status.deleted"),
	"status.warning":           theMessage(`status = 'accepted' AND error_code IS NULL`) + ` AND ` + theEvents("status.warning"),
	"status.without_recipient": theMessage(`status = 'delivered'`),
	"status.by_our_token":      theMessage(`status = 'sent'`) + ` AND ` + theEvents("duplicate_detected status.sent"),
	"status.no_message_of_ours": theMessage(`status = 'accepted'`) +
		` AND (SELECT error = 'no message for 1 of 1 statuses' FROM webhook_raw WHERE position(convert_to('"id": "' || $1 || '"', 'UTF8') IN body) > 0)`,
	"status.group": theMessage(`status = 'delivered' AND sent_at = to_timestamp(1790000060) AND delivered_at = to_timestamp(1790000065) AND failed_at IS NULL AND error_code IS NULL AND redos = 0`) +
		` AND ` + theEvents("status.sent status.failed status.delivered status.delivered") +
		` AND (SELECT count(DISTINCT detail ->> 'participant') = 3 AND bool_and(detail ->> 'participant' LIKE '44********0_') FROM message_events e JOIN messages m ON m.id = e.message_id WHERE m.waba_id = $1)`,
	"status.several_entries": theMessage(`status = 'read' AND sent_at = to_timestamp(1790000060) AND delivered_at = to_timestamp(1790000070) AND read_at = to_timestamp(1790000090)`),

	"message.text": windowOpens, "message.text.reply": windowOpens, "message.text.forwarded": windowOpens, "message.text.referral": windowOpens, "message.text.product": windowOpens,
	"message.text.group": counted, "message.text.username": strings.ReplaceAll(windowOpens, "447700900123", "GB.104857600"),
	"message.image": mediaKnown, "message.audio": mediaKnown, "message.video": mediaKnown, "message.document": mediaKnown, "message.sticker": mediaKnown,
	"message.location": windowOpens, "message.contacts": windowOpens, "message.reaction": windowOpens, "message.reaction.removed": windowOpens, "message.button": windowOpens,
	"message.interactive.button_reply": windowOpens, "message.interactive.list_reply": windowOpens, "message.interactive.nfm_reply": windowOpens,
	"message.interactive.call_permission_reply": windowOpens, "message.order": windowOpens, "message.edit": windowOpens, "message.revoke": windowOpens,
	"message.unsupported": windowOpens, "message.media_too_large": windowOpens, "message.unknown_type": windowOpens,
	"message.system.user_changed_number":       `(SELECT count(*) = 2 AND bool_and(until = to_timestamp(1790086400)) AND max(wa_id) = '447700900124' FROM service_windows WHERE phone_number_id = $2)`,
	"message.system.customer_identity_changed": `NOT EXISTS (SELECT FROM service_windows WHERE phone_number_id = $2)`,
	"errors": theAlert("errors", "131045", "warning") + ` AND (SELECT phone_number_id = $2 AND detail ->> 'title' = 'Incorrect certificate' FROM account_alerts WHERE waba_id = $1)
		AND (SELECT scope = 'phone' AND until IS NULL AND code = 131045 FROM pauses WHERE value = $2)`,

	"message_template_status_update.approved": noEffect + ` AND ` + knownTemplate(`status = 'APPROVED' AND status_at = to_timestamp(1790000000) AND doubted_at IS NOT NULL`),
	"message_template_status_update.flagged":  noEffect + ` AND ` + knownTemplate(`status = 'FLAGGED' AND doubted_at IS NULL`),
	"message_template_status_update.rejected": theTemplate("132016") + ` AND ` + knownTemplate(`status = 'REJECTED'`),
	"message_template_status_update.disabled": theTemplate("132016") + ` AND ` + knownTemplate(`status = 'DISABLED'`),
	"message_template_status_update.deleted":  theTemplate("132016") + ` AND ` + knownTemplate(`status = 'PENDING_DELETION'`),
	"message_template_status_update.paused":   theTemplate("132015") + ` AND ` + knownTemplate(`status = 'PAUSED' AND category = 'UTILITY'`),
	"message_template_quality_update":         noEffect + ` AND ` + knownTemplate(`quality = 'YELLOW' AND quality_before = 'GREEN' AND quality_at = to_timestamp(1790000000) AND status = 'APPROVED'`),
	"message_template_components_update":      noEffect + ` AND ` + knownTemplate(`doubted_at IS NOT NULL AND status = 'APPROVED' AND components IS NOT NULL`),
	"template_category_update":                noEffect + ` AND ` + knownTemplate(`category = 'MARKETING' AND category_at = to_timestamp(1790000000) AND status = 'APPROVED'`),

	"phone_number_quality_update.flagged":   ofPhone(theAlert("phone_number_quality_update", "FLAGGED", "warning")) + ` AND ` + theState("phone", "quality", "FLAGGED"),
	"phone_number_quality_update.unflagged": theAlert("phone_number_quality_update", "UNFLAGGED", "info") + ` AND ` + theState("phone", "quality", "UNFLAGGED") + ` AND (SELECT tier = 'TIER_10K' AND unique_recipients_per_day = 10000 FROM portfolios WHERE portfolio_id = 'p' || $1)`,
	"phone_number_quality_update.throughput_upgrade": theAlert("phone_number_quality_update", "THROUGHPUT_UPGRADE", "info") +
		` AND (SELECT messages_per_second = 950 AND meta_per_second = 1000 AND throughput_level = 'HIGH' AND limit_source = 'webhook' FROM phone_numbers WHERE phone_number_id = $2)
		  AND (SELECT tier = 'TIER_UNLIMITED' AND unique_recipients_per_day IS NULL AND limit_source = 'webhook' FROM portfolios WHERE portfolio_id = 'p' || $1)`,
	"phone_number_quality_update.onboarding": theAlert("phone_number_quality_update", "ONBOARDING", "info") + ` AND (SELECT unique_recipients_per_day = 250 FROM portfolios WHERE portfolio_id = 'p' || $1)`,
	"phone_number_name_update.approved":      ofPhone(theAlert("phone_number_name_update", "APPROVED", "info")) + ` AND ` + theState("phone", "name", "APPROVED"),
	"phone_number_name_update.rejected": ofPhone(theAlert("phone_number_name_update", "REJECTED", "warning")) + ` AND ` + theState("phone", "name", "REJECTED") +
		` AND (SELECT detail ->> 'rejection_reason' = 'NAME_FORMAT_UNACCEPTABLE' FROM account_alerts WHERE waba_id = $1)`,

	"account_update.violation":               theAlert("account_update", "ACCOUNT_VIOLATION", "warning") + ` AND ` + notPaused + ` AND (SELECT detail ->> 'violation_info.violation_type' = 'ADULT' FROM account_alerts WHERE waba_id = $1)`,
	"account_update.disabled":                theAlert("account_update", "DISABLED_UPDATE", "critical") + ` AND ` + lockedForGood + ` AND ` + theState("waba", "ban", "DISABLE"),
	"account_update.scheduled":               theAlert("account_update", "DISABLED_UPDATE", "critical") + ` AND ` + notPaused,
	"account_update.reinstated":              theAlert("account_update", "DISABLED_UPDATE", "info") + ` AND ` + notPaused + ` AND ` + theState("waba", "ban", "REINSTATE"),
	"account_update.deleted":                 theAlert("account_update", "ACCOUNT_DELETED", "critical") + ` AND ` + lockedForGood,
	"account_update.offboarded":              theAlert("account_update", "ACCOUNT_OFFBOARDED", "critical") + ` AND ` + notPaused,
	"account_update.restricted":              theAlert("account_update", "ACCOUNT_RESTRICTION", "critical") + ` AND (SELECT scope = 'waba' AND until = to_timestamp(4102444800) AND code = 131031 FROM pauses WHERE value = $1)`,
	"account_update.restricted.own_messages": theAlert("account_update", "ACCOUNT_RESTRICTION", "critical") + ` AND ` + notPaused,
	"account_update.partner_removed":         `EXISTS (SELECT FROM account_alerts WHERE waba_id = '79999' AND event = 'PARTNER_REMOVED' AND severity = 1)`,
	"account_update.partner_app_installed":   `EXISTS (SELECT FROM account_alerts WHERE waba_id = '79999' AND event = 'PARTNER_APP_INSTALLED' AND severity = 0)`,
	"account_update.terms_signed":            `EXISTS (SELECT FROM account_alerts WHERE waba_id = '79999' AND event = 'MM_LITE_TERMS_SIGNED' AND severity = 0)`,
	"account_update.certification":           theAlert("account_update", "PARTNER_CLIENT_CERTIFICATION_STATUS_UPDATE", "info"),
	"account_update.auth_international_prices": theAlert("account_update", "AUTH_INTL_PRICE_ELIGIBILITY_UPDATE", "info") +
		` AND (SELECT detail ->> 'auth_international_rate_eligibility.exception_countries.0.country_code' = 'ID' FROM account_alerts WHERE waba_id = $1)`,
	"account_update.volume_tier":     theAlert("account_update", "VOLUME_BASED_PRICING_TIER_UPDATE", "info"),
	"account_alerts":                 theAlert("account_alerts", "INCREASED_CAPABILITIES_ELIGIBILITY_DEFERRED", "warning"),
	"account_alerts.flat":            theAlert("account_alerts", "PROFILE_PICTURE_LOST", "critical"),
	"account_review_update.approved": theAlert("account_review_update", "APPROVED", "info") + ` AND ` + notPaused,
	"account_review_update.rejected": theAlert("account_review_update", "REJECTED", "critical") + ` AND ` + lockedForGood,
	"account_review_update.deferred": theAlert("account_review_update", "DEFERRED", "info") + ` AND ` + notPaused,
	"business_capability_update":     theAlert("business_capability_update", "BUSINESS_CAPABILITY_UPDATE", "info") + ` AND (SELECT tier = 'TIER_2K' AND unique_recipients_per_day = 2000 FROM portfolios WHERE portfolio_id = 'p' || $1)`,
	"security.pin_changed":           ofPhone(theAlert("security", "PIN_CHANGED", "warning")) + ` AND (SELECT detail IS NULL AND at = to_timestamp(1790000000) FROM account_alerts WHERE waba_id = $1)`,
	"security.pin_reset_request":     ofPhone(theAlert("security", "PIN_RESET_REQUEST", "critical")),
	"security.without_time":          ofPhone(theAlert("security", "PIN_REQUEST_SUCCESS", "critical")),
	"user_preferences.stop":          `(SELECT count(*) = 1 AND bool_and(wa_id = '447700900123' AND category = 'marketing' AND until IS NULL) FROM suppressions WHERE waba_id = $1)`,
	"user_preferences.resume":        noEffect,

	"calls.status": noEffect, "history": noEffect, "smb_message_echoes": noEffect, "smb_app_state_sync": noEffect, "partner_solutions": noEffect,
	"payment_configuration_update": noEffect, "automatic_events": noEffect, "flows": noEffect, "group_lifecycle_update": noEffect, "group_participants_update": noEffect,
	"group_settings_update": noEffect, "group_status_update": noEffect, "account_settings_update": noEffect, "a_field_nobody_knows": noEffect,
	"calls.connect": `(SELECT count(*) = 1 AND bool_and(until = to_timestamp(1790086400) AND wa_id = '447700900123') FROM service_windows WHERE phone_number_id = $2) AND ` + noEffect,
}

// placeOf gives the WABA and the phone number of an example.
func placeOf(t *testing.T, e webhooks.Example) (waba, phone string) {
	t.Helper()
	n, err := cloudapi.ParseNotification(e.Body)
	if err != nil || len(n.Entries) == 0 {
		t.Fatalf("%s: %v", e.Name, err)
	}
	return n.Entries[0].ID, "80" + strings.TrimPrefix(n.Entries[0].ID, "70")
}

// stage makes what the examples are about: by WABA a phone number, a portfolio, an accepted message and the template that
// the examples name, as the list of templates had it.
func stage(t *testing.T, pool *pgxpool.Pool) []webhooks.Example {
	t.Helper()
	all, err := webhooks.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		waba, phone := placeOf(t, e)
		shown := "+1 202-555-01" + waba[len(waba)-2:]
		exec(t, pool, `INSERT INTO portfolios (portfolio_id, unique_recipients_per_day) VALUES ('p' || $1::text, 1000)`, waba)
		exec(t, pool, `INSERT INTO wabas (waba_id, portfolio_id) VALUES ($1, 'p' || $1::text)`, waba)
		exec(t, pool, `INSERT INTO phone_numbers (phone_number_id, waba_id, display_phone_number, messages_per_second) VALUES ($1, $2, $3, 76)`, phone, waba, shown)
		exec(t, pool, `INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, status, try, wamid, accepted_at)
			VALUES (('019a0000-0000-7000-8000-0000000' || $1::text)::uuid, $2, $1::text, '+447700900123', 'text', 3, 'accepted', 1, 'wamid.EXAMPLE.' || $1::text, to_timestamp(1790000050))`, waba, phone)
		exec(t, pool, `INSERT INTO wamids (wamid, message_id) SELECT wamid, id FROM messages WHERE waba_id = $1`, waba)
		exec(t, pool, `INSERT INTO templates (waba_id, name, language, meta_id, status, status_at, approved_at, category, category_at, quality, quality_at, components, components_at, listed_at)
			SELECT $1, 'order_update', 'en_GB', '5550010', 'APPROVED', at, at, 'UTILITY', at, 'GREEN', at, '[]', at, at FROM to_timestamp(1789999000) at`, waba)
	}
	return all
}

// drainAll drains, also what waits for a message that never comes.
func drainAll(t *testing.T, pool *pgxpool.Pool, r *Receiver) {
	t.Helper()
	drain(t, r)
	exec(t, pool, `UPDATE webhook_raw SET received_at = received_at - interval '61 seconds' WHERE processed_at IS NULL`)
	drain(t, r)
}

// Every kind of notification that Meta posts is taken in, and has the effect that docs/reference/webhooks.md says.
func TestEveryKindHasItsEffect(t *testing.T) {
	pool := pgtest.New(t)
	all := stage(t, pool)
	r := receiver(t, pool)
	for _, e := range all {
		take(t, r, e.Body)
	}
	drainAll(t, pool, r)
	if n := scalar[int](t, pool, `SELECT count(*) FROM webhook_raw WHERE processed_at IS NOT NULL AND (error IS NULL OR error LIKE 'no message for %')`); n != len(all) {
		t.Errorf("%d of %d applied: %s", n, len(all), scalar[string](t, pool, `SELECT coalesce(string_agg(DISTINCT error, ', '), '') FROM webhook_raw`))
	}
	left := map[string]bool{}
	for name := range effects {
		left[name] = true
	}
	for _, e := range all {
		effect, ok := effects[e.Name]
		if !ok {
			t.Errorf("%s: no effect is asserted", e.Name)
			continue
		}
		delete(left, e.Name)
		waba, phone := placeOf(t, e)
		if !scalar[bool](t, pool, `SELECT coalesce((`+effect+`), false) AND $1::text <> $2::text`, waba, phone) {
			t.Errorf("%s of WABA %s: not so: %s\n%s", e.Name, waba, effect, scalar[string](t, pool, `SELECT concat_ws(E'\n', (SELECT to_jsonb(m)::text FROM messages m WHERE waba_id = $1),
				(SELECT string_agg(to_jsonb(p)::text, ',') FROM pauses p WHERE value LIKE $1 || '%' OR value = $2), (SELECT string_agg(to_jsonb(a)::text, ',') FROM account_alerts a WHERE waba_id = $1),
				(SELECT string_agg(to_jsonb(w)::text, ',') FROM service_windows w WHERE phone_number_id = $2), (SELECT string_agg(to_jsonb(s)::text, ',') FROM account_states s WHERE value IN ($1, $2)))`, waba, phone))
		}
	}
	if len(left) > 0 {
		t.Errorf("asserted, and there is no example: %v", left)
	}
}

// stateOf is everything that notifications change, but for when it was written, and for how often the log says it.
const stateOf = `SELECT string_agg(line, E'\n' ORDER BY line) FROM (
	SELECT 'message ' || (to_jsonb(m) - 'created_at' - 'slot_at')::text AS line FROM messages m
	UNION SELECT DISTINCT 'event ' || (to_jsonb(e) - 'id')::text FROM message_events e
	UNION ALL SELECT 'wamid ' || to_jsonb(w)::text FROM wamids w
	UNION ALL SELECT 'wa_id ' || (to_jsonb(w) - 'learned_at')::text FROM wa_ids w
	UNION ALL SELECT 'window ' || to_jsonb(w)::text FROM service_windows w
	UNION ALL SELECT 'number ' || to_jsonb(c)::text FROM number_changes c
	UNION ALL SELECT 'suppression ' || (to_jsonb(s) - 'created_at' - 'id' - 'said_at' - 'lifted_at')::text FROM suppressions s
	UNION ALL SELECT 'pause ' || (to_jsonb(p) - 'id' - 'created_at' - 'updated_at')::text FROM pauses p
	UNION ALL SELECT 'alert ' || (to_jsonb(a) - 'webhook_id' - 'at')::text || CASE WHEN at < now() - interval '1 day' THEN at::text ELSE '' END FROM account_alerts a
	UNION ALL SELECT 'state ' || (to_jsonb(s) - 'webhook_id' - 'at')::text || CASE WHEN at < now() - interval '1 day' THEN at::text ELSE '' END FROM account_states s
	UNION ALL SELECT 'phone ' || (to_jsonb(p) - 'created_at' - 'updated_at' - 'limit_changed_at')::text FROM phone_numbers p
	UNION ALL SELECT 'portfolio ' || (to_jsonb(p) - 'created_at' - 'updated_at' - 'limit_changed_at')::text FROM portfolios p
	UNION ALL SELECT 'template ' || (to_jsonb(t) - 'first_seen_at' - 'doubted_at')::text || (doubted_at IS NULL)::text FROM templates t
	UNION ALL SELECT 'graph id ' || (to_jsonb(g) - 'seen_at')::text FROM graph_ids g
	UNION ALL SELECT 'job ' || (args ->> 'id') FROM river_job
	UNION SELECT DISTINCT 'webhook ' || encode(sha256(body), 'hex') || coalesce(error, '') FROM webhook_raw) x`

// Each posted twice, and all in reverse order, gives the same state as each once.
func TestExamplesTwiceAndInReverseGiveTheSameState(t *testing.T) {
	files, err := filepath.Glob("../../../shared/cases/webhooks/*.json")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d real payloads beside the repository", len(files))
	state := func(reverse bool) string {
		pool := pgtest.New(t)
		r := receiver(t, pool)
		var bodies [][]byte
		for _, e := range stage(t, pool) {
			bodies = append(bodies, e.Body)
		}
		for _, file := range files {
			body, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			bodies = append(bodies, body)
		}
		if reverse {
			slices.Reverse(bodies)
		}
		for i, body := range bodies {
			take(t, r, body)
			if reverse {
				if i%5 == 0 {
					drain(t, r)
				}
				take(t, r, body)
			}
		}
		drainAll(t, pool, r)
		return scalar[string](t, pool, stateOf)
	}
	once, twice := strings.Split(state(false), "\n"), strings.Split(state(true), "\n")
	for _, line := range once {
		if !slices.Contains(twice, line) {
			t.Errorf("only once and in order: %s", line)
		}
	}
	for _, line := range twice {
		if !slices.Contains(once, line) {
			t.Errorf("only twice and in reverse: %s", line)
		}
	}
	if len(once) != len(twice) || len(once) < 400 {
		t.Errorf("%d lines of state once, %d twice", len(once), len(twice))
	}
}

// Meta's words about an account count by their times, in whatever order they come and however often.
func TestNoticesOfAnAccountInEveryOrder(t *testing.T) {
	pool := pgtest.New(t)
	r := receiver(t, pool)
	restricted := func(until int) string {
		return fmt.Sprintf(`{"event":"ACCOUNT_RESTRICTION","restriction_info":[{"restriction_type":"RESTRICTED_BIZ_INITIATED_MESSAGING","expiration":%d},{"restriction_type":"RESTRICTED_CUSTOMER_INITIATED_MESSAGING","expiration":%d}]}`, until, until)
	}
	ban := func(state string) string {
		return `{"event":"DISABLED_UPDATE","ban_info":{"waba_ban_state":"` + state + `"}}`
	}
	type notice struct{ field, value string }
	for name, c := range map[string]struct {
		notices []notice // in the order of their times
		want    string   // the pause
	}{
		"reinstated":               {[]notice{{"account_update", ban("DISABLE")}, {"account_update", ban("SCHEDULE_FOR_DISABLE")}, {"account_update", ban("REINSTATE")}}, ""},
		"disabled again":           {[]notice{{"account_update", ban("DISABLE")}, {"account_update", ban("REINSTATE")}, {"account_update", ban("DISABLE")}}, "The account is disabled <nil>"},
		"approved, still disabled": {[]notice{{"account_review_update", `{"decision":"REJECTED"}`}, {"account_update", ban("DISABLE")}, {"account_review_update", `{"decision":"APPROVED"}`}}, "The account is disabled <nil>"},
		"still restricted":         {[]notice{{"account_update", restricted(4102444800)}, {"account_update", ban("DISABLE")}, {"account_update", ban("REINSTATE")}}, "The account is restricted: it may not send 4102444800"},
		"a shorter restriction":    {[]notice{{"account_update", restricted(4102444800)}, {"account_update", restricted(4102444700)}, {"account_update", ban("REINSTATE")}}, "The account is restricted: it may not send 4102444700"},
		"a restriction is over":    {[]notice{{"account_update", restricted(1790000000)}, {"account_review_update", `{"decision":"APPROVED"}`}}, ""},
	} {
		for n, order := range orders(len(c.notices)) {
			waba := fmt.Sprintf("%s-%d", strings.ReplaceAll(name, " ", "-"), n)
			for _, i := range order {
				body, err := json.Marshal(map[string]any{"object": "whatsapp_business_account", "entry": []any{map[string]any{
					"id": waba, "time": 1790000000 + i, "changes": []any{map[string]any{"field": c.notices[i].field, "value": json.RawMessage(c.notices[i].value)}},
				}}})
				if err != nil {
					t.Fatal(err)
				}
				take(t, r, body)
				drain(t, r)
				take(t, r, body)
				drain(t, r)
			}
			var got string
			err := pool.QueryRow(t.Context(), `SELECT coalesce((SELECT reason || ' ' || coalesce(extract(epoch FROM until)::bigint::text, '<nil>') FROM pauses WHERE scope = 'waba' AND value = $1), '')`, waba).Scan(&got)
			if err != nil || got != c.want {
				t.Errorf("%s, in the order %v: paused %q, want %q (%v)", name, order, got, c.want, err)
			}
			if n := scalar[int](t, pool, `SELECT count(*) FROM account_alerts WHERE waba_id = $1`, waba); n != len(c.notices) {
				t.Errorf("%s: %d alerts of %d notices", name, n, len(c.notices))
			}
		}
	}
}

// orders gives every order of n things.
func orders(n int) [][]int {
	if n == 0 {
		return [][]int{nil}
	}
	var all [][]int
	for _, rest := range orders(n - 1) {
		for at := range n {
			all = append(all, slices.Insert(slices.Clone(rest), at, n-1))
		}
	}
	return all
}

// An operator's decision stands when Meta posts the same notice again, as it may for a week.
func TestANoticePostedAgainOverrulesNobody(t *testing.T) {
	pool := pgtest.New(t)
	exec(t, pool, `INSERT INTO wabas (waba_id) VALUES ('100')`)
	exec(t, pool, `INSERT INTO phone_numbers (phone_number_id, waba_id, display_phone_number, messages_per_second) VALUES ('1001', '100', '+1 202-555-0100', 76)`)
	r := receiver(t, pool)
	say := func(field, value string) {
		take(t, r, fmt.Appendf(nil, `{"object":"whatsapp_business_account","entry":[{"id":"100","time":1790000000,"changes":[{"field":%q,"value":%s}]}]}`, field, value))
		drain(t, r)
	}
	for range 2 {
		say("account_update", `{"event":"DISABLED_UPDATE","ban_info":{"waba_ban_state":"DISABLE"}}`)
		say("phone_number_quality_update", `{"display_phone_number":"12025550100","event":"THROUGHPUT_UPGRADE"}`)
		if scalar[int](t, pool, `SELECT count(*) FROM account_alerts`) != 2 {
			t.Error("not two alerts")
		}
		exec(t, pool, `DELETE FROM pauses`)
		exec(t, pool, `UPDATE phone_numbers SET messages_per_second = 10, meta_per_second = 80`)
	}
	say("account_update", `{"event":"DISABLED_UPDATE","ban_info":{"waba_ban_state":"DISABLE"}}`)
	say("phone_number_quality_update", `{"display_phone_number":"12025550100","event":"THROUGHPUT_UPGRADE"}`)
	if !scalar[bool](t, pool, `SELECT NOT EXISTS (SELECT FROM pauses) AND messages_per_second = 10 FROM phone_numbers`) {
		t.Error("a notice that came again overruled the operator")
	}
}

// What a user had under an old number goes on under the new one, whichever of the two is heard of first.
func TestAChangedNumber(t *testing.T) {
	say := func(from, text string, at int) string {
		return fmt.Sprintf(`{"from":%q,"id":"wamid.%d","timestamp":"%d",%s}`, from, at, at, text)
	}
	const text, moved = `"type":"text","text":{"body":"hi"}`, `"type":"system","system":{"type":"user_changed_number","wa_id":"%s"}`
	parts := []string{
		say("12025550101", text, 1790000000), say("12025550101", fmt.Sprintf(moved, "12025550102"), 1790000100),
		say("12025550102", fmt.Sprintf(moved, "12025550103"), 1790000200), say("12025550101", text, 1790000300), // somebody else's by now
	}
	for _, order := range orders(3) {
		pool := pgtest.New(t)
		exec(t, pool, `INSERT INTO wabas (waba_id) VALUES ('100')`)
		exec(t, pool, `INSERT INTO phone_numbers (phone_number_id, waba_id) VALUES ('1001', '100')`)
		exec(t, pool, `INSERT INTO suppressions (waba_id, wa_id, category, reason, said_at) VALUES ('100', '12025550101', 'marketing', 'stop', to_timestamp(1790000000))`)
		r := receiver(t, pool)
		for _, i := range append(order, 3) {
			take(t, r, change("100", "messages", `{"metadata":{"phone_number_id":"1001"},"messages":[`+parts[i]+`]}`))
			drain(t, r)
		}
		got := scalar[string](t, pool, `SELECT string_agg(wa_id || ' ' || extract(epoch FROM until)::bigint, ', ' ORDER BY wa_id) FROM service_windows`)
		if got != "12025550101 1790086700, 12025550102 1790086400, 12025550103 1790086400" {
			t.Errorf("in the order %v: %s", order, got)
		}
		if !scalar[bool](t, pool, `SELECT count(*) = 3 AND bool_and(category = 'marketing' AND until IS NULL AND reason = 'stop') FROM suppressions`) {
			t.Errorf("in the order %v the opt-out did not follow: %s", order, scalar[string](t, pool, `SELECT string_agg(wa_id, ' ') FROM suppressions`))
		}
	}
}
