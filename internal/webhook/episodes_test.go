package webhook

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/cloudapi"
	"wagate/internal/pgtest"
)

// failureAt is a failed status of the first try of a message.
func failureAt(id uuid.UUID, code int, at time.Time) string {
	return failure("wamid."+id.String(), cloudapi.Token(id.String(), 1), code, int(at.Unix()-1_800_000_000))
}

func pausesNow(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	return scalar[string](t, pool, `SELECT coalesce(string_agg(scope || ' ' || value || ' ' || code || ' ' || level, ', ' ORDER BY scope, value), '') FROM pauses`)
}

func TestFailuresOfOneEpisodeRaiseTheLevelOnce(t *testing.T) {
	pool := pgtest.New(t)
	ids := accepted(t, pool, 5)
	r := receiver(t, pool)
	now := time.Now()
	tell := func(id uuid.UUID, at time.Time) {
		t.Helper()
		take(t, r, notification(failureAt(id, 130429, at)))
		drain(t, r)
	}
	ended := func() {
		t.Helper()
		exec(t, pool, `UPDATE pauses SET until = clock_timestamp() - interval '1 millisecond'`)
	}
	tell(ids[0], now.Add(-2*time.Minute))
	if got := pausesNow(t, pool); got != "" {
		t.Errorf("a failure of long ago paused %s", got)
	}
	tell(ids[1], now.Add(-time.Second))
	if got := pausesNow(t, pool); got != "phone 200 130429 1" {
		t.Errorf("paused %q", got)
	}
	ended()
	tell(ids[2], now.Add(-time.Second)) // it failed before the pause, and is told of after its end
	if got := pausesNow(t, pool); got != "phone 200 130429 1" {
		t.Errorf("an older failure: %q", got)
	}
	tell(ids[3], now.Add(time.Hour)) // after the pause, whatever the clocks say
	if got := pausesNow(t, pool); got != "phone 200 130429 2" {
		t.Errorf("a newer failure: %q", got)
	}
	ended()
	exec(t, pool, `UPDATE pauses SET until = now() - interval '2 hours', updated_at = now() - interval '3 hours'`)
	tell(ids[4], now)
	if got := pausesNow(t, pool); got != "phone 200 130429 1" {
		t.Errorf("hours later: %q", got)
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM messages WHERE status = 'queued' AND redos = 1`); n != 5 {
		t.Errorf("%d of 5 are sent again", n)
	}
}

func TestThePauseThatLastsBeatsTheOthersOfASet(t *testing.T) {
	pool := pgtest.New(t)
	exec(t, pool, `INSERT INTO apps (app_id) VALUES ('app-1')`)
	exec(t, pool, `INSERT INTO wabas (waba_id, app_id) VALUES ('100', 'app-1'), ('101', 'app-1'), ('102', NULL)`)
	ids := accepted(t, pool, 6)
	exec(t, pool, `UPDATE messages SET waba_id = CASE id WHEN $1 THEN '101' WHEN $2 THEN '102' ELSE '100' END`, ids[4], ids[5])
	r := receiver(t, pool)
	now := time.Now()
	take(t, r, notification(
		failureAt(ids[0], 80007, now), failureAt(ids[1], 131042, now), failureAt(ids[2], 190, now), // one WABA
		failureAt(ids[3], 4, now), failureAt(ids[4], 4, now), failureAt(ids[5], 4, now))) // two WABAs of one app, and one without
	drain(t, r)
	if got := pausesNow(t, pool); got != "app app-1 4 1, waba 100 131042 1, waba 102 4 1" {
		t.Errorf("paused %q", got)
	}
	if !scalar[bool](t, pool, `SELECT bool_and((until IS NULL) = (code = 131042)) FROM pauses`) {
		t.Error("the wrong pause has no end")
	}
}

func TestBackoffMaxBoundsPauses(t *testing.T) {
	pool := pgtest.New(t)
	r := receiver(t, pool, func(d *Deps) { d.BackoffMax = 2 * time.Minute })
	take(t, r, notification(failureAt(accepted(t, pool, 1)[0], 131048, time.Now())))
	drain(t, r)
	if !scalar[bool](t, pool, `SELECT count(*) = 1 AND bool_and(until BETWEEN now() AND now() + interval '2 minutes') FROM pauses`) {
		t.Error("the pause is longer than the setting")
	}
}

func TestATemplateGetsWorseOnly(t *testing.T) {
	pool := pgtest.New(t)
	r := receiver(t, pool)
	now := time.Now()
	tell := func(event, title, language string, at time.Time) string {
		t.Helper()
		take(t, r, fmt.Appendf(nil, `{"object":"whatsapp_business_account","entry":[{"id":"100","time":%d,"changes":[{"field":"message_template_status_update","value":
			{"event":%q,"message_template_id":1,"message_template_name":"order","message_template_language":%q,"other_info":{"title":%q}}}]}]}`, at.Unix(), event, language, title))
		drain(t, r)
		return scalar[string](t, pool, `SELECT coalesce(string_agg(value || ' ' || code || ' ' || level || ' ' ||
			coalesce(round(extract(epoch FROM until - to_timestamp($1::bigint)) / 60)::text, 'lifted'), ', '), '') FROM pauses`, now.Unix())
	}
	for _, c := range []struct {
		event, title, language string
		at                     time.Duration
		want                   string
	}{
		{"PAUSED", "FIRST_PAUSE", "en_US", -4 * time.Hour, ""}, // told of when it was over
		{"PAUSED", "FIRST_PAUSE", "en-US", -time.Hour, "100:order/en_US 132015 1 120"},
		{"PAUSED", "SECOND_PAUSE", "en_US", 0, "100:order/en_US 132015 1 360"},
		{"PAUSED", "FIRST_PAUSE", "en_US", -time.Hour, "100:order/en_US 132015 1 360"},
		{"FLAGGED", "", "en_US", 0, "100:order/en_US 132015 1 360"},
		{"PAUSED", "RATE_LIMITING_PAUSE", "en_US", 0, "100:order/en_US 132015 1 lifted"},
		{"DISABLED", "", "en_US", 0, "100:order/en_US 132016 1 lifted"},
		{"APPROVED", "", "de", 0, "100:order/en_US 132016 1 lifted"},
		{"APPROVED", "UNPAUSE", "en-US", 0, ""},
	} {
		if got := tell(c.event, c.title, c.language, now.Add(c.at)); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.event, c.title, got, c.want)
		}
	}
}

// What a notification says beside statuses counts once, though it is applied again for a status that waits.
func TestNoticesOfANotificationThatWaitsCountOnce(t *testing.T) {
	pool := pgtest.New(t)
	r := receiver(t, pool)
	value := func(more string) []byte {
		return change("100", "messages", `{"metadata":{"phone_number_id":"200"},`+more+`}`)
	}
	strangers := `"statuses":[` + status("wamid.stranger", "sent", "", 1) + `]`
	take(t, r, value(strangers+`,"errors":[{"code":130429,"title":"Rate limit hit"}],"messages":[{"from":"12025550101","id":"wamid.in","timestamp":"1","type":"text"}]`))
	drain(t, r)
	if got := pausesNow(t, pool); got != "phone 200 130429 1" {
		t.Fatalf("paused %q", got)
	}
	exec(t, pool, `DELETE FROM pauses`)
	for range 2 {
		exec(t, pool, `UPDATE webhook_raw SET received_at = received_at - interval '10 seconds'`)
		drain(t, r)
	}
	if !scalar[bool](t, pool, `SELECT attempts = 3 AND processed_at IS NULL FROM webhook_raw`) {
		t.Fatal("it was not applied again")
	}
	if got := pausesNow(t, pool); got != "" {
		t.Errorf("paused again: %q", got)
	}
	if n := scalar[int](t, pool, `SELECT sum(messages)::integer FROM inbound_seconds`); n != 1 {
		t.Errorf("%d inbound messages counted, want 1", n)
	}
	// Nor does it when a later try fails in the database.
	id := putMessages(t, pool, 1)[0]
	exec(t, pool, `INSERT INTO wamids (wamid, message_id) VALUES ('wamid.stranger', $1)`, id)
	exec(t, pool, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$`)
	exec(t, pool, `CREATE TRIGGER refuse BEFORE INSERT ON message_events FOR EACH ROW EXECUTE FUNCTION refuse()`)
	exec(t, pool, `UPDATE webhook_raw SET attempts = 2, received_at = clock_timestamp() - interval '5 seconds'`)
	drain(t, r)
	exec(t, pool, `DROP TRIGGER refuse ON message_events`)
	if !scalar[bool](t, pool, `SELECT attempts = 3 AND processed_at IS NULL AND error LIKE '%database error P0001' FROM webhook_raw`) {
		t.Fatalf("the try did not fail: %s", scalar[string](t, pool, `SELECT concat_ws('|', attempts, processed_at, error) FROM webhook_raw`))
	}
	exec(t, pool, `DELETE FROM wamids`)
	exec(t, pool, `UPDATE webhook_raw SET received_at = received_at - interval '20 seconds'`)
	drain(t, r)
	if n := scalar[int](t, pool, `SELECT sum(messages)::integer FROM inbound_seconds`); n != 1 {
		t.Errorf("%d inbound messages counted after a try that failed, want 1", n)
	}
	exec(t, pool, `UPDATE webhook_raw SET processed_at = NULL`)
	// A try that failed has told nothing: the next one does.
	exec(t, pool, `UPDATE webhook_raw SET error = 'database error P0001', received_at = received_at - interval '10 seconds'`)
	drain(t, r)
	if n := scalar[int](t, pool, `SELECT sum(messages)::integer FROM inbound_seconds`); n != 2 {
		t.Errorf("%d counted after a try that failed, want 2", n)
	}
}

func TestOnlyAUsersMessageOpensAWindow(t *testing.T) {
	pool := pgtest.New(t)
	r := receiver(t, pool)
	take(t, r, change("100", "messages", `{"metadata":{"phone_number_id":"200"},"messages":[
		{"from":"1","id":"wamid.1","timestamp":"1","type":"system"},{"from":"2","group_id":"g","id":"wamid.2","timestamp":"1","type":"text"},
		{"from_user_id":"US.1","id":"wamid.3","timestamp":"1","type":"text"},{"from":"4","id":"wamid.4","type":"text"}]}`))
	drain(t, r)
	if got := scalar[string](t, pool, `SELECT string_agg(wa_id, ',') FROM service_windows WHERE until BETWEEN now() + interval '23 hours' AND now() + interval '24 hours'`); got != "4" {
		t.Errorf("windows of %s", got)
	}
	if n := scalar[int](t, pool, `SELECT sum(messages)::integer FROM inbound_seconds`); n != 4 {
		t.Errorf("%d inbound messages counted, want 4: each uses throughput", n)
	}
}

func TestANoticeConcernsPhoneNumbersOfItsWABA(t *testing.T) {
	pool := pgtest.New(t)
	exec(t, pool, `INSERT INTO wabas (waba_id) VALUES ('100'), ('101')`)
	exec(t, pool, `INSERT INTO phone_numbers (phone_number_id, waba_id, display_phone_number, messages_per_second)
		VALUES ('1001', '100', '+1 202-555-0100', 80), ('1002', '101', '12025550100', 80)`)
	r := receiver(t, pool)
	take(t, r, change("101", "phone_number_quality_update", `{"display_phone_number":"+1 (202) 555-0100","event":"THROUGHPUT_UPGRADE"}`))
	drain(t, r)
	if got := scalar[string](t, pool, `SELECT string_agg(phone_number_id || ' ' || messages_per_second, ', ' ORDER BY phone_number_id) FROM phone_numbers`); got != "1001 80, 1002 1000" {
		t.Error(got)
	}
}

func TestTheLastWordOfAUserCounts(t *testing.T) {
	pool := pgtest.New(t)
	r := receiver(t, pool)
	say := func(waID, value string, at int) string {
		return fmt.Sprintf(`{"wa_id":%q,"category":"marketing_messages","value":%q,"timestamp":%d}`, waID, value, at)
	}
	take(t, r, change("100", "user_preferences", `{"user_preferences":[`+say("1", "resume", 20)+`,`+say("1", "stop", 10)+`,`+say("2", "stop", 10)+`,`+
		say("2", "stop", 11)+`,`+say("3", "resume", 10)+`,`+say("3", "stop", 10)+`,{"wa_id":"4","category":"other","value":"stop","timestamp":1}]}`))
	drain(t, r)
	if got := scalar[string](t, pool, `SELECT string_agg(wa_id, ',' ORDER BY wa_id) FROM suppressions WHERE lifted_at IS NULL`); got != "2,3" {
		t.Errorf("suppressed: %s", got)
	}
}

func TestASpellingIsLearnedByAStatus(t *testing.T) {
	pool := pgtest.New(t)
	id := accepted(t, pool, 1)[0]
	exec(t, pool, `UPDATE messages SET recipient = '+55 11 98765-4321', category = 'marketing'`)
	r := receiver(t, pool)
	take(t, r, notification(fmt.Sprintf(`{"id":"wamid.%s","status":"failed","timestamp":"%d","recipient_id":"551187654321","errors":[{"code":131050}]}`, id, time.Now().Unix())))
	drain(t, r)
	if got := scalar[string](t, pool, `SELECT input || ' ' || n.wa_id || ' ' || s.wa_id FROM wa_ids n, suppressions s`); got != "5511987654321 551187654321 551187654321" {
		t.Errorf("learned %s", got)
	}
}

func TestCodesThatNobodyKnowsAreCounted(t *testing.T) {
	pool := pgtest.New(t)
	reg := prometheus.NewRegistry()
	r := receiver(t, pool, func(d *Deps) { d.Registerer = reg })
	ids := accepted(t, pool, 2)
	take(t, r, notification(failureAt(ids[0], 987654, time.Now()), failureAt(ids[1], 131026, time.Now())),
		change("100", "messages", `{"metadata":{"phone_number_id":"200"},"errors":[{"code":987655,"title":"new"}]}`))
	drain(t, r)
	if n := scalar[int](t, pool, `SELECT count(*) FROM message_events WHERE detail -> 'errors' -> 0 ->> 'code' = '987654'`); n != 1 {
		t.Errorf("kept in %d events", n)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "wagate_webhook_unknown_codes_total" {
			if got := f.GetMetric()[0].GetCounter().GetValue(); got != 2 {
				t.Errorf("%v counted, want 2", got)
			}
			return
		}
	}
	t.Error("there is no such metric")
}
