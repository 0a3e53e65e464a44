package webhook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"wagate/internal/cloudapi"
	"wagate/internal/pgtest"
)

// wrote is a text of a user to phone number 1001 of WABA 100.
func wrote(user, text string, at time.Time) []byte {
	return change("100", "messages", fmt.Sprintf(`{"metadata":{"phone_number_id":"1001"},"messages":[{%s,"id":"wamid.in.%d","timestamp":"%d","type":"text","text":{"body":%q}}]}`,
		user, at.UnixNano(), at.Unix(), text))
}

func keywords(_ context.Context, waba string, texts []string) (stop, resume bool, err error) {
	if waba != "100" {
		return false, false, errors.New("another WABA")
	}
	for _, s := range texts {
		stop, resume = stop || s == "STOP", resume || s == "START"
	}
	return stop, resume, nil
}

func TestKeywords(t *testing.T) {
	pool := pgtest.New(t)
	r := receiver(t, pool, func(d *Deps) { d.Keyword = keywords })
	now := time.Now().Truncate(time.Second)
	suppressed := func() string {
		t.Helper()
		return scalar[string](t, pool, `SELECT coalesce(string_agg(waba_id || ' ' || wa_id || ' ' || source, ', ' ORDER BY wa_id), '') FROM suppressions WHERE lifted_at IS NULL`)
	}
	const user, named = `"from":"12025550101"`, `"from_user_id":"US.7"`
	for _, c := range []struct {
		body []byte
		want string
	}{
		{wrote(user, "hello", now.Add(-9*time.Minute)), ""},
		{wrote(user+`,"group_id":"g"`, "STOP", now.Add(-8*time.Minute)), ""},
		{wrote(user, "STOP", now.Add(-7*time.Minute)), "100 12025550101 keyword"},
		{wrote(named, "STOP", now.Add(-7*time.Minute)), "100 12025550101 keyword, 100 US.7 keyword"},
		{wrote(user, "START", now.Add(-8*time.Minute)), "100 12025550101 keyword, 100 US.7 keyword"}, // it was written before
		{wrote(user, "START", now.Add(-6*time.Minute)), "100 US.7 keyword"},
		{wrote(user, "STOP", now.Add(-7*time.Minute)), "100 US.7 keyword"}, // posted again
		{change("100", "user_preferences", fmt.Sprintf(`{"user_preferences":[{"user_id":"US.7","category":"marketing_messages","value":"resume","timestamp":%d}]}`, now.Add(-time.Minute).Unix())), ""},
		{change("100", "user_preferences", fmt.Sprintf(`{"user_preferences":[{"wa_id":"12025550101","category":"marketing_messages","value":"stop","timestamp":%d}]}`, now.Unix())), "100 12025550101 preference"},
		{wrote(user, "START", now), "100 12025550101 preference"}, // what Meta keeps back is not for us to send
	} {
		for range 2 {
			take(t, r, c.body)
			drain(t, r)
			if got := suppressed(); got != c.want {
				t.Errorf("after %s: %q, want %q", c.body, got, c.want)
			}
		}
	}
}

// Who has stopped marketing has stopped it under the number that they have now, whatever spelling or id they are known by, and in
// whatever order that is heard.
func TestOptOutsFollowAChangedNumber(t *testing.T) {
	pool := pgtest.New(t)
	r := receiver(t, pool, func(d *Deps) { d.Keyword = keywords })
	now := time.Now().Truncate(time.Second)
	ago := func(minutes int) time.Time { return now.Add(-time.Duration(minutes) * time.Minute) }
	if _, err := pool.Exec(t.Context(), `INSERT INTO wabas (waba_id) VALUES ('100'); INSERT INTO phone_numbers (phone_number_id, waba_id) VALUES ('1001', '100')`); err != nil {
		t.Fatal(err)
	}
	const old, spelled, now1 = "551187654321", "5511987654321", "12025550109"
	moves := change("100", "messages", fmt.Sprintf(`{"metadata":{"phone_number_id":"1001"},"messages":[{"from":%q,"id":"w","timestamp":"%d","type":"system",
		"system":{"body":"changed","type":"user_changed_number","wa_id":%q}}]}`, old, ago(5).Unix(), now1))
	for name, c := range map[string]struct {
		before string
		words  [][]byte
		want   string
	}{
		"a word":           {"", [][]byte{wrote(`"from":"`+old+`"`, "STOP", ago(9)), moves}, "keyword"},
		"another spelling": {`INSERT INTO suppressions (waba_id, wa_id, category, source, reason) VALUES ('100', '` + spelled + `', 'marketing', 'operator', 'x')`, [][]byte{moves}, "operator"},
		"a user id": {`INSERT INTO user_ids (user_id, wa_id) VALUES ('BR.1', '` + old + `'); INSERT INTO suppressions (waba_id, wa_id, category, source, reason, said_at)
			VALUES ('100', 'BR.1', 'marketing', 'preference', 'stop', now() - interval '1 hour')`, [][]byte{moves}, "preference"},
		"a number that was let off": {`INSERT INTO suppressions (waba_id, wa_id, category, source, reason, said_at, lifted_at)
			VALUES ('100', '` + now1 + `', 'marketing', 'keyword', 'resume', now() - interval '1 hour', now())`, [][]byte{wrote(`"from":"`+old+`"`, "STOP", ago(9)), moves}, "keyword"},
		"an operator's entry stays": {`INSERT INTO suppressions (waba_id, wa_id, category, source, reason, said_at, lifted_at) VALUES
			('100', '` + now1 + `', 'marketing', 'operator', 'x', now() - interval '1 hour', NULL), ('100', '` + old + `', 'marketing', 'operator', 'x', now() - interval '8 minutes', now())`, [][]byte{moves}, "operator"},
		"taken up again":          {"", [][]byte{wrote(`"from":"`+old+`"`, "STOP", ago(9)), wrote(`"from":"`+old+`"`, "START", ago(8)), moves}, ""},
		"somebody else's by then": {"", [][]byte{moves, wrote(`"from":"`+old+`"`, "STOP", ago(2))}, ""},
	} {
		for _, backwards := range []bool{false, true} {
			if _, err := pool.Exec(t.Context(), `TRUNCATE suppressions, number_changes, user_ids; `+c.before); err != nil {
				t.Fatal(err)
			}
			words := slices.Clone(c.words)
			if backwards {
				slices.Reverse(words)
			}
			for range 2 {
				for _, w := range words {
					take(t, r, w)
					drain(t, r)
				}
				if got := scalar[string](t, pool, `SELECT coalesce(string_agg(source, ' '), '') FROM suppressions WHERE wa_id = '`+now1+`' AND lifted_at IS NULL`); got != c.want {
					t.Errorf("%s, backwards %v: %q keeps marketing from the new number, want %q", name, backwards, got, c.want)
				}
			}
		}
	}
}

// While keywords cannot be read, webhooks wait: an opt-out is not lost.
func TestAnOptOutWaitsForTheKeywords(t *testing.T) {
	pool := pgtest.New(t)
	away := true
	r := receiver(t, pool, func(d *Deps) {
		d.Keyword = func(ctx context.Context, waba string, texts []string) (bool, bool, error) {
			if away {
				return false, false, context.DeadlineExceeded
			}
			return keywords(ctx, waba, texts)
		}
	})
	take(t, r, wrote(`"from":"12025550101"`, "STOP", time.Now()))
	if err := r.drain(t.Context()); err == nil {
		t.Error("applied without keywords")
	}
	away = false
	drain(t, r)
	if n := scalar[int](t, pool, `SELECT count(*) FROM suppressions WHERE source = 'keyword'`); n != 1 {
		t.Errorf("%d opt-outs", n)
	}
}

func TestWindowsOpenByCallsAndUserIDs(t *testing.T) {
	pool := pgtest.New(t)
	exec(t, pool, `INSERT INTO wabas (waba_id) VALUES ('100'); INSERT INTO phone_numbers (phone_number_id, waba_id) VALUES ('1001', '100')`)
	r := receiver(t, pool)
	now := time.Now()
	call := func(extra string) []byte {
		return change("100", "calls", fmt.Sprintf(`{"metadata":{"phone_number_id":"1001"},"calls":[{"id":"wacid.1","event":"connect","timestamp":"%d",%s}]}`, now.Unix(), extra))
	}
	take(t, r, call(`"direction":"USER_INITIATED","from":"12025550101"`), call(`"direction":"BUSINESS_INITIATED","from":"12025550100"`),
		wrote(`"from_user_id":"US.7"`, "hi", now), wrote(`"from":"12025550103","from_user_id":"US.8"`, "hi", now))
	drain(t, r)
	if got := scalar[string](t, pool, `SELECT string_agg(wa_id, ' ' ORDER BY wa_id) FROM service_windows WHERE until > now() + interval '23 hours'`); got != "12025550101 12025550103 US.7" {
		t.Errorf("open for %s", got)
	}
	if got := scalar[string](t, pool, `SELECT string_agg(user_id || ' ' || wa_id, ',') FROM user_ids`); got != "US.8 12025550103" {
		t.Errorf("learned %s", got)
	}
	if !scalar[bool](t, pool, `SELECT nameless_at > now() - interval '1 minute' FROM phone_spans`) {
		t.Error("it was not noted that somebody wrote whose number is not known")
	}
	exec(t, pool, `UPDATE phone_spans SET nameless_at = NULL`)
	take(t, r, wrote(`"from_user_id":"US.8"`, "hi", now))
	drain(t, r)
	if !scalar[bool](t, pool, `SELECT nameless_at IS NULL FROM phone_spans`) {
		t.Error("US.8 is known")
	}
}

// The span in which the webhooks of a phone number have come begins anew when one comes late, or cannot be read.
func TestLateAndUnreadWebhooksBreakSpans(t *testing.T) {
	pool := pgtest.New(t)
	exec(t, pool, `INSERT INTO wabas (waba_id) VALUES ('100'); INSERT INTO phone_numbers (phone_number_id, waba_id) VALUES ('1001', '100'), ('200', '100')`)
	exec(t, pool, `INSERT INTO listening (since, at) VALUES (now() - interval '2 days', now())`)
	r := receiver(t, pool)
	reset := func() {
		t.Helper()
		exec(t, pool, `TRUNCATE phone_spans`)
		exec(t, pool, `INSERT INTO phone_spans (phone_number_id, since, at) VALUES ('1001', now() - interval '2 days', now() - interval '1 hour'), ('200', now() - interval '2 days', now() - interval '1 hour')`)
	}
	sent := func(word string, ago time.Duration) []byte {
		s := status("wamid.x", word, "", 0)
		return notification(strings.Replace(s, "1790000000", fmt.Sprint(time.Now().Add(-ago).Unix()), 1))
	}
	for _, c := range []struct {
		name string
		body []byte
		want string // the phone numbers whose spans go on
	}{
		{"in time", wrote(`"from":"12025550101"`, "hi", time.Now()), "1001 200"},
		{"late", wrote(`"from":"12025550101"`, "hi", time.Now().Add(-10*time.Minute)), "200"},
		{"a status in time", sent("sent", time.Second), "1001 200"},
		{"a status that is late", sent("sent", 10*time.Minute), "1001"},
		{"read long after", sent("read", 10*time.Minute), "1001 200"},
	} {
		reset()
		take(t, r, c.body)
		drain(t, r)
		if got := scalar[string](t, pool, `SELECT string_agg(phone_number_id, ' ' ORDER BY phone_number_id) FROM phone_spans WHERE since < now() - interval '1 day'`); got != c.want {
			t.Errorf("%s: %q go on, want %q", c.name, got, c.want)
		}
	}
	listened := func() bool {
		t.Helper()
		return scalar[bool](t, pool, `SELECT since < now() - interval '1 day' FROM listening`)
	}
	if !listened() {
		t.Error("broken without a reason")
	}
	take(t, r, []byte(`{"object":"whatsapp_business_account","entry":7`))
	drain(t, r)
	if listened() {
		t.Error("a webhook that cannot be read may have been anybody's")
	}
}

// Meta refuses by webhook for want of a service window: the fallback template goes, once.
func TestAFailedWebhookSendsTheFallback(t *testing.T) {
	pool := pgtest.New(t)
	ids := accepted(t, pool, 2)
	exec(t, pool, `UPDATE messages SET category = 'service', fallback_template = 'hello', fallback_language = 'en', fallback_category = 'utility' WHERE id = $1`, ids[0])
	r := receiver(t, pool)
	for range 2 {
		for _, id := range ids {
			take(t, r, notification(failure("wamid."+id.String(), cloudapi.Token(id.String(), 1), 131047, 1)))
		}
		drain(t, r)
		if !scalar[bool](t, pool, `SELECT status = 'queued' AND type = 'template' AND template_name = 'hello' AND category = 'utility' AND fallback_from = 'text' AND redos = 1 FROM messages WHERE id = $1`, ids[0]) {
			t.Errorf("%s", scalar[string](t, pool, `SELECT to_jsonb(m)::text FROM messages m WHERE id = $1`, ids[0]))
		}
		if !scalar[bool](t, pool, `SELECT status = 'failed' AND type = 'text' AND error_code = 131047 FROM messages WHERE id = $1`, ids[1]) || jobs(t, pool) != 1 {
			t.Errorf("%d jobs; one message had no fallback", jobs(t, pool))
		}
	}
	// Its template is refused too: that is the end.
	exec(t, pool, `UPDATE messages SET try = 2, status = 'accepted', wamid = 'wamid.second', accepted_at = now() WHERE id = $1`, ids[0])
	exec(t, pool, `INSERT INTO wamids SELECT 'wamid.second', $1::uuid`, ids[0])
	take(t, r, notification(failure("wamid.second", cloudapi.Token(ids[0].String(), 2), 131047, 9)))
	drain(t, r)
	if !scalar[bool](t, pool, `SELECT status = 'failed' AND type = 'template' FROM messages WHERE id = $1`, ids[0]) || jobs(t, pool) != 1 {
		t.Error("it was tried a third time")
	}
}
