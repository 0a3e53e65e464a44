package ctl_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"wagate/internal/message"
)

// webhook keeps a notification; an empty problem means that it was applied, "waiting" that it waits.
func (r *rig) webhook(body, problem string, ago time.Duration) string {
	r.t.Helper()
	at := time.Now().Add(-ago)
	id := message.NewID(at)
	_, err := r.pool.Exec(r.t.Context(), `INSERT INTO webhook_raw (id, app_id, body, received_at, processed_at, attempts, error)
		VALUES ($1, 'app1', $2, $3, CASE WHEN $4 <> 'waiting' THEN now() END, CASE WHEN $4 = 'waiting' THEN 0 ELSE 1 END, nullif(nullif($4, ''), 'waiting'))`,
		id, []byte(body), at, problem)
	if err != nil {
		r.t.Fatal(err)
	}
	return id.String()
}

// waits gives the ids that wait, the oldest first, and lets them be as they were.
func (r *rig) waits(problem string) (ids string) {
	r.t.Helper()
	err := r.pool.QueryRow(r.t.Context(), `WITH w AS (UPDATE webhook_raw SET processed_at = now(), attempts = attempts + 1, error = nullif($1, '')
		WHERE processed_at IS NULL RETURNING id, attempts) SELECT coalesce(string_agg(id || ' ' || attempts, ' ' ORDER BY id), '') FROM w`, problem).Scan(&ids)
	if err != nil {
		r.t.Fatal(err)
	}
	return ids
}

const (
	aside     = "database error 23514"
	unmatched = "no message for 1 of 2 statuses"
)

func TestWebhooksListAndShow(t *testing.T) {
	r := start(t)
	longAgo, waits := r.webhook(`{}`, aside, 30*time.Hour), r.webhook(`{}`, "waiting", 50*time.Hour)
	recent, stranger, applied := r.webhook(`{"entry":`, aside, 2*time.Hour), r.webhook(`{}`, unmatched, time.Hour), r.webhook("{\"entry\":[{\"id\":100,\"text\":\"a\u009bb\"}]}", "", 0)
	out := r.want(0, []string{"\n0 waiting, 1 set aside, 1 unmatched, 1 applied since "}, "webhooks")
	for _, line := range []string{
		`(?m)^` + waits + ` +\S+Z +waiting +app1 +2 +0 +-$`, `(?m)^` + recent + ` +\S+Z +set_aside +app1 +9 +1 +database error 23514$`,
	} {
		if !regexp.MustCompile(line).MatchString(out) {
			t.Errorf("no line %s:\n%s", line, out)
		}
	}
	for name, id := range map[string]string{"of long ago": longAgo, "unmatched": stranger, "applied": applied} {
		if strings.Contains(out, id) {
			t.Errorf("one %s is listed:\n%s", name, out)
		}
	}
	r.want(0, []string{longAgo, recent, waits, "1 waiting, 2 set aside"}, "webhooks", "--since", "72h")
	r.want(0, []string{longAgo}, "webhooks", "--until", "24h")
	if out := r.want(0, []string{stranger, unmatched}, "webhooks", "--state", "unmatched"); strings.Contains(out, recent) || strings.Contains(out, waits) {
		t.Errorf("another state is listed:\n%s", out)
	}
	out = r.want(0, []string{recent, "There are more: --state set_aside --cursor " + recent}, "webhooks", "--state", "set_aside", "--since", "72h", "--limit", "1")
	if strings.Contains(out, longAgo) {
		t.Errorf("more than one is listed:\n%s", out)
	}
	r.want(0, []string{longAgo}, "webhooks", "--state", "set_aside", "--since", "72h", "--cursor", recent)
	var page struct {
		Webhooks []struct{ ID string } `json:"webhooks"`
	}
	if err := json.Unmarshal([]byte(r.want(0, nil, "webhooks", "--state", "set_aside", "--json")), &page); err != nil || len(page.Webhooks) != 2 {
		t.Errorf("as JSON: %+v, %v", page, err)
	}

	out = r.want(0, []string{applied, "\"id\": 100", "state      applied"}, "webhooks", "show", applied)
	if strings.ContainsRune(out, '\u009b') {
		t.Error("what a terminal obeys is shown as it is")
	}
	r.want(0, []string{"no JSON", `"{\"entry\":"`, "reason     " + aside}, "webhooks", "show", recent)
	r.want(0, []string{`"body": {`}, "webhooks", "show", applied, "--json")
	r.want(1, []string{"404", "webhooks list what there is"}, "webhooks", "show", "01997b32-8a00-7000-8000-000000000009")
	r.want(1, []string{"400", `"state"`}, "webhooks", "--state", "late")
	_, key, _ := r.run("keys", "create", "ops", "--scope", "manage")
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	r.want(0, []string{recent}, "webhooks", "--key-file", file)
	r.want(1, []string{"403", "admin"}, "webhooks", "show", applied, "--key-file", file)
}

func TestWebhooksReplay(t *testing.T) {
	r := start(t)
	first, second := r.webhook(`{}`, aside, 30*time.Hour), r.webhook(`{}`, aside, time.Hour)
	applied := r.webhook(`{}`, "", time.Hour)
	r.want(0, []string{"replayed 2 webhooks; they are applied within seconds"}, "webhooks", "replay", applied, first)
	if got := r.waits(""); got != first+" 1 "+applied+" 2" {
		t.Errorf("%s", got)
	}
	r.want(0, []string{"replayed 1 webhooks"}, "webhooks", "replay", "--state", "set_aside")
	if got := r.waits(aside); got != second+" 1" {
		t.Errorf("%s", got)
	}
	r.want(0, []string{"replayed 1 webhooks"}, "webhooks", "replay", "--state", "applied", "--since", "24h", "--until", "30m", "--notices")
	if got := r.waits(""); got != applied+" 1" {
		t.Errorf("with notices: %s", got)
	}
	r.want(0, []string{"replayed 1 webhooks"}, "webhooks", "replay", "--state", "applied", "--since", "26h", "--until", "30m")
	if got := r.waits(""); got != applied+" 2" {
		t.Errorf("without notices: %s", got)
	}
	r.want(0, []string{"replayed 0 webhooks\n"}, "webhooks", "replay", "--state", "unmatched", "--since", "24h")
	r.want(1, []string{"404", "/ids/1 is not there"}, "webhooks", "replay", first, "01997b32-8a00-7000-8000-000000000009")
	r.want(1, []string{"422", "/ids/0 must be the id of a webhook"}, "webhooks", "replay", "x")
	r.want(1, []string{"422", "/state must be set_aside, unmatched or applied"}, "webhooks", "replay", "--state", "waiting")
	if got := r.waits(""); got != "" {
		t.Errorf("replayed in spite of it: %s", got)
	}

	// More than the gateway takes at once; what comes meanwhile is not run after.
	if _, err := r.pool.Exec(t.Context(), `INSERT INTO webhook_raw (id, app_id, body, processed_at, attempts, error)
		SELECT (left($1::text, 24) || lpad(to_hex(n), 12, '0'))::uuid, 'app1', '{}', now(), 1, $2 FROM generate_series(1, 1001) n`,
		message.NewID(time.Now().Add(-3*time.Hour)).String(), unmatched); err != nil {
		t.Fatal(err)
	}
	r.webhook(`{}`, unmatched, -time.Hour)
	r.want(0, []string{"replayed 1001 webhooks"}, "webhooks", "replay", "--state", "unmatched")

	// The next portion is asked for from where the last one ended, and to the same end.
	var asked []map[string]any
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var body map[string]any
		if err := json.NewDecoder(req.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		asked = append(asked, body)
		switch len(asked) {
		case 1:
			fmt.Fprint(w, `{"replayed":0,"more":true,"next_cursor":"a"}`)
		case 2:
			fmt.Fprint(w, `{"replayed":1000,"more":true,"next_cursor":"b"}`)
		case 3:
			fmt.Fprint(w, `{"replayed":7,"more":false,"next_cursor":null}`)
		default:
			http.Error(w, "asked too often", http.StatusTeapot)
		}
	}))
	defer server.Close()
	r.want(0, []string{"replayed 1007 webhooks"}, "webhooks", "replay", "--state", "set_aside", "--url", server.URL)
	if len(asked) != 3 || asked[0]["cursor"] != nil || asked[1]["cursor"] != "a" || asked[2]["cursor"] != "b" || asked[0]["until"] == nil || asked[2]["until"] != asked[0]["until"] {
		t.Errorf("asked for %v", asked)
	}
	r.want(1, []string{"418"}, "webhooks", "replay", "--state", "set_aside", "--url", server.URL)

	for _, args := range [][]string{
		{"replay"}, {"replay", first, "--state", "set_aside"}, {"replay", first, "--since", "1h"}, {"replay", "--since", "1h"}, {"replay", "--state", "applied"},
		{"replay", "--state", "set_aside", "--since", "yesterday"}, {"replay", "--state", "set_aside", "--limit", "5"}, {"replay", "--state", "set_aside", "--until", "-5m"},
		{"show"}, {"show", first, second}, {"x"}, {"--notices"}, {"--limit", "0"}, {"--cursor", uuid.NewString()},
	} {
		r.want(2, []string{"See gatewayctl webhooks --help."}, append([]string{"webhooks"}, args...)...)
	}
}
