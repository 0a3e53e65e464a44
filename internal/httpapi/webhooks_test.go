package httpapi_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"wagate/internal/message"
)

// webhook keeps a notification of an hour ago, or of ago before now, and gives its id. An empty problem means that it was
// applied, "waiting" that it waits.
func (g *gateway) webhook(body, problem string, ago time.Duration) string {
	g.t.Helper()
	at := time.Now().Add(-ago)
	id := message.NewID(at)
	_, err := g.pool.Exec(g.t.Context(), `INSERT INTO webhook_raw (id, app_id, body, received_at, processed_at, attempts, error)
		VALUES ($1, 'app1', $2, $3, CASE WHEN $4 <> 'waiting' THEN now() END, CASE WHEN $4 = 'waiting' THEN 0 ELSE 1 END, nullif(nullif($4, ''), 'waiting'))`,
		id, []byte(body), at, problem)
	if err != nil {
		g.t.Fatal(err)
	}
	return id.String()
}

// listed gives the ids of a page, the newest first, and its next cursor.
func (g *gateway) listed(query string) (ids []string, next any) {
	g.t.Helper()
	a := g.must(http.StatusOK, "GET", "/v1/webhooks"+query, "")
	all, _ := a.json["webhooks"].([]any)
	for _, w := range all {
		row, _ := w.(map[string]any)
		id, _ := row["id"].(string)
		ids = append(ids, id)
		if got := fields(row); got != "app_id attempts error id processed_at received_at size state" {
			g.t.Errorf("a line has the fields %s", got)
		}
	}
	return ids, a.json["next_cursor"]
}

func (g *gateway) waiting() (n int) {
	g.t.Helper()
	if err := g.pool.QueryRow(g.t.Context(), `SELECT count(*) FROM webhook_raw WHERE processed_at IS NULL`).Scan(&n); err != nil {
		g.t.Fatal(err)
	}
	return n
}

const (
	aside     = "database error 23514"
	unmatched = "no message for 1 of 1 statuses"
)

func TestWebhooksAreListedCountedAndShown(t *testing.T) {
	g := start(t)
	body := `{"entry":[{"n":12345678901234567890,"text":"<héllo>"}]}`
	applied := g.webhook(body, "", 3*time.Hour)
	old := g.webhook(`{}`, aside, 26*time.Hour)
	cut := g.webhook(`{"entry":`, aside, 2*time.Hour)
	stranger := g.webhook(`{}`, unmatched, time.Hour)
	waits := g.webhook(`{}`, "waiting", time.Minute)

	hourAgo := func(h float64) string {
		return url.QueryEscape(time.Now().Add(-time.Duration(h * float64(time.Hour))).UTC().Format(time.RFC3339Nano))
	}
	for query, want := range map[string][]string{
		"":                 {waits, stranger, cut, applied, old},
		"?state=set_aside": {cut, old},
		"?state=unmatched": {stranger},
		"?state=waiting":   {waits},
		"?state=applied":   {applied},
		"?limit=200":       {waits, stranger, cut, applied, old},
		"?cursor=" + cut:   {applied, old},
		"?since=" + hourAgo(2.5) + "&until=" + hourAgo(0.5): {stranger, cut},
		"?state=set_aside&since=" + hourAgo(24):             {cut},
		"?state=applied&until=" + hourAgo(24):               nil,
	} {
		if got, next := g.listed(query); !slices.Equal(got, want) || next != nil {
			t.Errorf("%s: %v, next %v; want %v", query, got, next, want)
		}
	}
	if got, next := g.listed("?limit=2"); !slices.Equal(got, []string{waits, stranger}) || next != stranger {
		t.Errorf("a page: %v, next %v", got, next)
	}
	if a := g.must(http.StatusOK, "GET", "/v1/webhooks?state=set_aside&limit=1", ""); !strings.Contains(a.body, `"error":"`+aside+`"`) || !strings.Contains(a.body, `"state":"set_aside","size":9,`) {
		t.Errorf("why it was set aside is not said: %s", a.body)
	}

	counts := g.must(http.StatusOK, "GET", "/v1/webhooks/counts", "")
	if counts.body != `{"applied":1,"complete":true,"set_aside":2,"since":null,"unmatched":1,"waiting":1}`+"\n" {
		t.Errorf("counts: %s", counts.body)
	}
	if a := g.must(http.StatusOK, "GET", "/v1/webhooks/counts?since="+hourAgo(24), ""); a.json["set_aside"] != 1.0 || a.json["since"] == nil {
		t.Errorf("counts of a day: %s", a.body)
	}

	shown := g.must(http.StatusOK, "GET", "/v1/webhooks/"+applied, "")
	if !strings.Contains(shown.body, `12345678901234567890`) || shown.json["body_base64"] != nil || shown.str("state") != "applied" {
		t.Errorf("shown: %s", shown.body)
	}
	entry, _ := shown.json["body"].(map[string]any)["entry"].([]any)
	if len(entry) != 1 || entry[0].(map[string]any)["text"] != "<héllo>" {
		t.Errorf("the body: %v", shown.json["body"])
	}
	for body, id := range map[string]string{`{"entry":`: cut, "{\"a\":\"\xff\"}": g.webhook("{\"a\":\"\xff\"}", aside, 0)} {
		shown = g.must(http.StatusOK, "GET", "/v1/webhooks/"+id, "")
		if raw, err := base64.StdEncoding.DecodeString(shown.str("body_base64")); err != nil || string(raw) != body || shown.json["body"] != nil {
			t.Errorf("%q is shown as %s", body, shown.body)
		}
	}
	if !strings.Contains(g.log.String(), cut) || strings.Contains(g.log.String(), "héllo") {
		t.Error("the log must say that a body was shown, and not the body")
	}
	g.must(http.StatusNotFound, "GET", "/v1/webhooks/01997b32-8a00-7000-8000-000000000009", "")
	g.must(http.StatusNotFound, "GET", "/v1/webhooks/x", "")
	for query, name := range map[string]string{
		"?state=late": "state", "?limit=0": "limit", "?limit=201": "limit", "?cursor=x": "cursor", "?since=yesterday": "since", "?until=1": "until",
		"?to=1": "to", "?state=": "state", "?state=waiting&state=applied": "state", "?since=" + hourAgo(1) + "&until=" + hourAgo(2): "until",
	} {
		if a := g.must(http.StatusBadRequest, "GET", "/v1/webhooks"+query, ""); !strings.Contains(a.str("detail"), `"`+name+`"`) {
			t.Errorf("%s: %s", query, a.body)
		}
	}
	g.must(http.StatusBadRequest, "GET", "/v1/webhooks/counts?state=applied", "")
}

func TestWebhooksAreReplayed(t *testing.T) {
	g := start(t)
	first, second := g.webhook(`{}`, aside, 26*time.Hour), g.webhook(`{}`, aside, time.Hour)
	stranger, applied := g.webhook(`{}`, unmatched, time.Hour), g.webhook(`{}`, "", time.Hour)
	replay := func(body, want string, waiting int) {
		t.Helper()
		if a := g.must(http.StatusOK, "POST", "/v1/webhooks/replay", body); a.body != want+"\n" {
			t.Errorf("%s: %s, want %s", body, a.body, want)
		}
		if n := g.waiting(); n != waiting {
			t.Errorf("%s: %d wait, want %d", body, n, waiting)
		}
	}
	since := time.Now().Add(-24 * time.Hour).UTC().Format(time.RFC3339)
	replay(`{"state":"set_aside","since":"`+since+`"}`, `{"more":false,"next_cursor":null,"replayed":1}`, 1)
	replay(`{"state":"set_aside","until":"`+since+`","since":null}`, `{"more":false,"next_cursor":null,"replayed":1}`, 2)
	replay(`{"state":"set_aside"}`, `{"more":false,"next_cursor":null,"replayed":0}`, 2)
	replay(`{"state":"unmatched","cursor":"`+stranger+`"}`, `{"more":false,"next_cursor":null,"replayed":0}`, 2)
	replay(`{"state":"unmatched"}`, `{"more":false,"next_cursor":null,"replayed":1}`, 3)
	replay(`{"ids":["`+applied+`","`+first+`","`+applied+`"]}`, `{"more":false,"next_cursor":null,"replayed":2}`, 4)
	if _, err := g.pool.Exec(t.Context(), `UPDATE webhook_raw SET processed_at = now(), attempts = 1`); err != nil {
		t.Fatal(err)
	}
	attempts := func(body string, want int) {
		t.Helper()
		g.must(http.StatusOK, "POST", "/v1/webhooks/replay", body)
		var n int
		if err := g.pool.QueryRow(t.Context(), `SELECT attempts FROM webhook_raw WHERE id = $1`, second).Scan(&n); err != nil || n != want {
			t.Errorf("%s: attempts %d, want %d; %v", body, n, want, err)
		}
	}
	attempts(`{"state":"applied","since":"`+since+`"}`, 1)
	attempts(`{"ids":["`+second+`"],"notices":true}`, 0)
	if !strings.Contains(g.log.String(), "webhooks replayed by an operator") {
		t.Error("the log does not say who replayed")
	}

	// 1,001 in two calls.
	if _, err := g.pool.Exec(t.Context(), `INSERT INTO webhook_raw (id, app_id, body, processed_at, attempts, error)
		SELECT (left($1::text, 24) || lpad(to_hex(n), 12, '0'))::uuid, 'app1', '{}', now(), 1, $2 FROM generate_series(1, 1001) n`, message.NewID(time.Now()).String(), aside); err != nil {
		t.Fatal(err)
	}
	a := g.must(http.StatusOK, "POST", "/v1/webhooks/replay", `{"state":"set_aside"}`)
	if a.json["replayed"] != 1000.0 || a.json["more"] != true || a.str("next_cursor") == "" {
		t.Errorf("%s", a.body)
	}
	if a = g.must(http.StatusOK, "POST", "/v1/webhooks/replay", `{"state":"set_aside","cursor":"`+a.str("next_cursor")+`"}`); a.json["replayed"] != 1.0 || a.json["more"] != false {
		t.Errorf("the rest: %s", a.body)
	}
}

func TestReplayRefuses(t *testing.T) {
	g := start(t)
	id, gone := g.webhook(`{}`, aside, time.Hour), "01997b32-8a00-7000-8000-000000000009"
	for body, pointers := range map[string][]string{
		`[]`:                                  {""},
		`{}`:                                  {""},
		`{"ids":null,"state":null}`:           {""},
		`{"ids":[ ]}`:                         {"/ids"},
		`{"ids":"` + id + `"}`:                {"/ids"},
		`{"ids":["` + id + `","x",7]}`:        {"/ids/1", "/ids/2"},
		`{"state":"waiting"}`:                 {"/state"},
		`{"state":7}`:                         {"/state"},
		`{"state":"applied"}`:                 {"/since"},
		`{"state":"applied","since":"today"}`: {"/since"},
		`{"state":"set_aside","since":"2026-12-01T09:00:00Z","until":"2026-12-01T09:00:00Z"}`: {"/until"},
		`{"state":"set_aside","cursor":"x","notices":"yes","limit":5}`:                        {"/cursor", "/limit", "/notices"},
		`{"ids":["` + id + `"],"state":"set_aside","since":"2026-12-01T09:00:00Z"}`:           {"/since", "/state"},
		`{"ids":["` + strings.Repeat(id+`","`, 1000) + id + `"]}`:                             {"/ids"},
	} {
		if a := g.must(http.StatusUnprocessableEntity, "POST", "/v1/webhooks/replay", body); !slices.Equal(a.pointers(), pointers) {
			t.Errorf("%.100s: %q, want %q", body, a.pointers(), pointers)
		}
	}
	g.must(http.StatusBadRequest, "POST", "/v1/webhooks/replay", `{"state":`)
	if a := g.must(http.StatusNotFound, "POST", "/v1/webhooks/replay", fmt.Sprintf(`{"ids":[%q,%q,%q]}`, gone, id, gone)); !slices.Equal(a.pointers(), []string{"/ids/0", "/ids/2"}) {
		t.Errorf("one that is not there: %s", a.body)
	}
	if n := g.waiting(); n != 0 {
		t.Errorf("%d replayed in spite of it", n)
	}

	as := func(body string) []string { return []string{"Authorization", "Bearer " + g.key(body)} }
	for name, c := range map[string]struct {
		headers []string
		status  [4]int
	}{
		"send and read": {as(`{"name":"app","scopes":["send","read"]}`), [4]int{403, 403, 403, 403}},
		"manage":        {as(`{"name":"ops","scopes":["manage"]}`), [4]int{200, 200, 200, 403}},
		"admin":         {as(`{"name":"boss","scopes":["admin"]}`), [4]int{200, 200, 200, 200}},
		"bound manage":  {as(`{"name":"bound","scopes":["manage"],"phone_numbers":["` + phone + `"]}`), [4]int{403, 403, 403, 403}},
		"bound admin":   {as(`{"name":"bound","scopes":["admin"],"phone_numbers":["` + phone + `"]}`), [4]int{403, 403, 403, 403}},
		"nobody":        {[]string{"Authorization", "Bearer no"}, [4]int{401, 401, 401, 401}},
	} {
		for i, r := range [][3]string{
			{"GET", "/v1/webhooks", ""}, {"GET", "/v1/webhooks/counts", ""}, {"POST", "/v1/webhooks/replay", `{"state":"unmatched"}`}, {"GET", "/v1/webhooks/" + id, ""},
		} {
			if a := g.do(r[0], r[1], r[2], c.headers...); a.status != c.status[i] {
				t.Errorf("%s: %s %s: %d, want %d", name, r[0], r[1], a.status, c.status[i])
			}
		}
	}
}
