package httpapi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/message"
	"wagate/internal/store"
)

// receiver answers Meta's handshake for one token.
func receiver(t *testing.T, token string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("hub.verify_token") != token {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, r.URL.Query().Get("hub.challenge"))
	}))
	t.Cleanup(s.Close)
	return s
}

func TestSubscriptions(t *testing.T) {
	g := start(t)
	made := g.must(http.StatusCreated, "POST", "/v1/subscriptions", `{"url":"https://app.example.com/hook","events":["message.status","message.status"],"statuses":["failed","read"],"waba_id":"100","key":"shop"}`)
	id, secret := made.str("id"), made.str("secret")
	if !strings.HasPrefix(secret, "whsec_") || made.header.Get("Location") != "/v1/subscriptions/"+id || made.str("format") != "wagate" {
		t.Errorf("made %s", made.body)
	}
	shown := g.must(http.StatusOK, "GET", "/v1/subscriptions/"+id, "")
	if strings.Contains(shown.body, secret) || strings.Contains(shown.body, `"secret"`) {
		t.Errorf("the secret is shown again: %s", shown.body)
	}
	if !strings.Contains(shown.body, `"events":["message.status"],"statuses":["failed","read"],"waba_id":"100","phone_number_id":null,"key":"shop","active":true`) ||
		!strings.Contains(shown.body, `"circuit":"closed"`) {
		t.Errorf("shown %s", shown.body)
	}
	if a := g.must(http.StatusOK, "GET", "/v1/subscriptions", ""); strings.Contains(a.body, secret) || strings.Count(a.body, id) != 1 {
		t.Errorf("listed %s", a.body)
	}
	patched := g.must(http.StatusOK, "PATCH", "/v1/subscriptions/"+id, `{"statuses":null,"waba_id":null,"active":false}`)
	if !strings.Contains(patched.body, `"statuses":[],"waba_id":null,"phone_number_id":null,"key":"shop","active":false,"inactive_reason":"stopped"`) {
		t.Errorf("patched %s", patched.body)
	}
	g.must(http.StatusOK, "PATCH", "/v1/subscriptions/"+id, `{"active":true}`)

	own := "whsec_" + strings.Repeat("QUFB", 8)
	rotated := g.must(http.StatusOK, "POST", "/v1/subscriptions/"+id+"/rotate-secret", `{"secret":"`+own+`","overlap_hours":1}`)
	if rotated.str("secret") != own || rotated.json["old_secret_until"] == nil {
		t.Errorf("rotated %s", rotated.body)
	}
	if again := g.must(http.StatusOK, "POST", "/v1/subscriptions/"+id+"/rotate-secret", ""); !strings.HasPrefix(again.str("secret"), "whsec_") || again.str("secret") == own {
		t.Errorf("rotated %s", again.body)
	}
	if strings.Contains(g.log.String(), own) || strings.Contains(g.log.String(), secret) {
		t.Error("a secret is in the log")
	}
	g.must(http.StatusNoContent, "DELETE", "/v1/subscriptions/"+id, "")
	g.must(http.StatusNotFound, "GET", "/v1/subscriptions/"+id, "")
	g.must(http.StatusNotFound, "DELETE", "/v1/subscriptions/"+id, "")
	g.must(http.StatusNotFound, "PATCH", "/v1/subscriptions/x", `{}`)
}

func TestSubscriptionsThatAreRefused(t *testing.T) {
	g := start(t)
	for body, want := range map[string][]string{
		`{}`:             {"/url"},
		`{"url":"http"}`: {"/url"},
		`{"url":"https://169.254.169.254/","events":["x"],"statuses":["queued"],"format":"xml","active":1}`: {"/active", "/events/0", "/format", "/statuses/0", "/url"},
		`{"url":"https://a.example.com","events":[]}`:                                                       {"/events"},
		`{"url":"https://a.example.com","secret":"short"}`:                                                  {"/secret"},
		`{"url":"https://a.example.com","secret":7}`:                                                        {"/secret"},
		`{"url":"https://a.example.com","format":"meta"}`:                                                   {"/verify_token"},
		`{"url":"https://a.example.com","verify_token":"x"}`:                                                {"/verify_token"},
		`{"url":"https://a.example.com","waba_id":"../x","phone_number_id":7,"key":7,"more":1}`:             {"/key", "/more", "/phone_number_id", "/waba_id"},
		`[]`: {""},
	} {
		if a := g.must(http.StatusUnprocessableEntity, "POST", "/v1/subscriptions", body); !slices.Equal(a.pointers(), want) {
			t.Errorf("%s: %v, want %v", body, a.pointers(), want)
		}
	}
	g.must(http.StatusBadRequest, "POST", "/v1/subscriptions", `{`)
	if a := g.must(http.StatusOK, "GET", "/v1/subscriptions", ""); a.body != `{"subscriptions":[]}`+"\n" {
		t.Errorf("what was refused is there: %s", a.body)
	}
}

func TestMetaFormatTakesAHandshake(t *testing.T) {
	g := start(t)
	r := receiver(t, "the token")
	body := func(url, token string) string {
		return `{"url":"` + url + `","format":"meta","verify_token":"` + token + `","secret":"an-app-secret-of-mine"}`
	}
	if a := g.must(http.StatusUnprocessableEntity, "POST", "/v1/subscriptions", body(r.URL, "another token")); a.str("code") != "handshake_failed" || !slices.Equal(a.pointers(), []string{"/url"}) {
		t.Errorf("a receiver that refuses: %s", a.body)
	}
	made := g.must(http.StatusCreated, "POST", "/v1/subscriptions", body(r.URL, "the token"))
	if strings.Contains(made.body, "the token") || made.str("secret") != "an-app-secret-of-mine" {
		t.Errorf("made %s", made.body)
	}
	id := made.str("id")
	// The address changes: the handshake is made again, by the token that is kept.
	g.must(http.StatusOK, "PATCH", "/v1/subscriptions/"+id, `{"url":"`+r.URL+`/other"}`)
	other := receiver(t, "a new token")
	g.must(http.StatusUnprocessableEntity, "PATCH", "/v1/subscriptions/"+id, `{"url":"`+other.URL+`"}`)
	g.must(http.StatusOK, "PATCH", "/v1/subscriptions/"+id, `{"url":"`+other.URL+`","verify_token":"a new token"}`)
	if a := g.must(http.StatusUnprocessableEntity, "PATCH", "/v1/subscriptions/"+id, `{"format":"wagate"}`); !slices.Equal(a.pointers(), []string{"/format"}) {
		t.Errorf("another format: %s", a.body)
	}
	// One that is not active is not asked.
	other.Close()
	g.must(http.StatusOK, "PATCH", "/v1/subscriptions/"+id, `{"active":false,"url":"https://away.example.com"}`)
}

func TestCallbackSecretBelongsToTheNameOfAKey(t *testing.T) {
	g := start(t)
	key := func(name string, more string) []string {
		a := g.must(http.StatusCreated, "POST", "/v1/keys", `{"name":"`+name+`","scopes":["send"]`+more+`}`)
		return []string{"Authorization", "Bearer " + a.str("key")}
	}
	one, two, other := key("shop", ""), key("shop", `,"phone_numbers":["`+phone+`"]`), key("else", "")
	secret := func(of []string) string {
		return g.must(http.StatusOK, "GET", "/v1/callback-secret", "", of...).str("secret")
	}
	first := secret(one)
	if !strings.HasPrefix(first, "whsec_") || secret(one) != first || secret(two) != first || secret(other) == first {
		t.Error("the secret is not that of the name")
	}
	rotated := g.must(http.StatusOK, "POST", "/v1/callback-secret/rotate", `{"overlap_hours":2}`, two...)
	if rotated.str("secret") == first || rotated.json["old_secret_until"] == nil || secret(one) != rotated.str("secret") {
		t.Errorf("rotated %s", rotated.body)
	}
	g.must(http.StatusUnprocessableEntity, "POST", "/v1/callback-secret/rotate", `{"overlap_hours":-1}`, one...)
	g.must(http.StatusForbidden, "GET", "/v1/subscriptions", "", one...)
	g.must(http.StatusForbidden, "GET", "/v1/callbacks", "", one...)
}

// tellStatus has a message accepted by Meta, as its worker records it.
func (g *gateway) tellStatus(id uuid.UUID) {
	g.t.Helper()
	if _, err := g.pool.Exec(g.t.Context(), `UPDATE messages SET status = 'sending', try = 1 WHERE id = $1`, id); err != nil {
		g.t.Fatal(err)
	}
	err := g.store.InTx(g.t.Context(), func(tx pgx.Tx) error {
		return g.store.RecordOutcomes(g.t.Context(), tx, []store.Outcome{{ID: id, Try: 1, Status: "accepted", Event: "try.accepted", WAMID: "wamid." + id.String(), At: time.Now()}}, nil)
	})
	if err != nil {
		g.t.Fatal(err)
	}
}

func TestCallbacksAreListedAndReplayed(t *testing.T) {
	g := start(t)
	sub := g.must(http.StatusCreated, "POST", "/v1/subscriptions", `{"url":"https://app.example.com/hook"}`).str("id")
	const hook = "https://app.example.com/own?x=1"
	var ids []string
	for range 3 {
		a := g.must(http.StatusAccepted, "POST", "/v1/messages", `{"from":"`+phone+`","to":"+16505551234","type":"text","text":{"body":"x"},"gateway":{"callback_url":"`+hook+`"}}`)
		ids = append(ids, a.str("id"))
		g.tellStatus(uuid.MustParse(a.str("id")))
	}
	count := func(query string) int {
		a := g.must(http.StatusOK, "GET", "/v1/callbacks"+query, "")
		list, _ := a.json["callbacks"].([]any)
		return len(list)
	}
	for query, want := range map[string]int{
		"": 6, "?subscription_id=" + sub: 3, "?url=https%3A%2F%2Fapp.example.com%2Fown%3Fx%3D1": 3, "?url=https%3A%2F%2Fapp.example.com%2Fown": 0, "?url=https%3A%2F%2Felse.example.com": 0,
		"?message_id=" + ids[0]: 2, "?state=waiting": 6, "?state=delivered": 0, "?state=given_up": 0, "?since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z": 0,
	} {
		if n := count(query); n != want {
			t.Errorf("%s: %d, want %d", query, n, want)
		}
	}
	seen, cursor := map[string]bool{}, ""
	for range 4 {
		a := g.must(http.StatusOK, "GET", "/v1/callbacks?limit=2"+cursor, "")
		list, _ := a.json["callbacks"].([]any)
		for _, e := range list {
			m, _ := e.(map[string]any)
			seen[fmt.Sprint(m["webhook_id"], m["endpoint_id"])] = true
		}
		if a.json["next_cursor"] == nil {
			break
		}
		cursor = "&cursor=" + a.str("next_cursor")
	}
	if len(seen) != 6 {
		t.Errorf("the pages hold %d of 6", len(seen))
	}
	endpoints := g.must(http.StatusOK, "GET", "/v1/callback-endpoints", "")
	if !strings.Contains(endpoints.body, `"origin":"https://app.example.com"`) || !strings.Contains(endpoints.body, `"waiting":3`) {
		t.Errorf("endpoints %s", endpoints.body)
	}

	since := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	for body, want := range map[string]float64{
		`{"subscription_id":"` + sub + `","since":"` + since + `"}`:                        3,
		`{"url":"` + hook + `","since":"` + since + `"}`:                                   3,
		`{"url":"https://else.example.com","since":"` + since + `"}`:                       0,
		`{"message_id":"` + ids[1] + `"}`:                                                  2,
		`{"subscription_id":"` + sub + `","since":"` + since + `","state":"given_up"}`:     0,
		`{"subscription_id":"` + sub + `","since":"` + since + `","until":"` + since + `x`: -1,
	} {
		if want < 0 {
			g.must(http.StatusBadRequest, "POST", "/v1/callbacks/replay", body)
			continue
		}
		a := g.must(http.StatusOK, "POST", "/v1/callbacks/replay", body)
		if a.json["replayed"] != want || a.json["more"] != false {
			t.Errorf("%s: %s", body, a.body)
		}
	}
	for body, want := range map[string][]string{
		`{}`:                                {""},
		`{"subscription_id":"` + sub + `"}`: {"/since"},
		`{"subscription_id":"` + sub + `","message_id":"` + ids[0] + `","since":"` + since + `"}`: {""},
		`{"message_id":"x"}`: {"/message_id"},
		`{"message_id":"` + ids[0] + `","state":"dead","cursor":"x","since":"2026-01-02T00:00:00Z","until":"2026-01-01T00:00:00Z","more":1}`: {"/cursor", "/more", "/state", "/until"},
	} {
		if a := g.must(http.StatusUnprocessableEntity, "POST", "/v1/callbacks/replay", body); !slices.Equal(a.pointers(), want) {
			t.Errorf("%s: %v, want %v", body, a.pointers(), want)
		}
	}
	g.must(http.StatusNotFound, "POST", "/v1/callbacks/replay", `{"subscription_id":"`+message.NewID(time.Now()).String()+`","since":"`+since+`"}`)
	for _, query := range []string{"?x=1", "?state=dead", "?message_id=x", "?cursor=0", "?subscription_id=x", "?subscription_id=" + sub + "&url=https%3A%2F%2Fa.example.com", "?message_id=" + ids[0] + "&endpoint_id=" + sub} {
		g.must(http.StatusBadRequest, "GET", "/v1/callbacks"+query, "")
	}
}
