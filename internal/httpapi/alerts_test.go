package httpapi_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/store"
)

// alert keeps an alert of some time ago.
func (g *gateway) alert(ago time.Duration, a store.Alert) {
	g.t.Helper()
	a.At, a.WebhookID, a.ID = time.Now().Add(-ago), uuid.New(), uuid.New()
	if err := g.store.InTx(g.t.Context(), func(tx pgx.Tx) error {
		_, err := g.store.PutAlerts(g.t.Context(), tx, []store.Alert{a})
		return err
	}); err != nil {
		g.t.Fatal(err)
	}
}

func TestAlertsAreListed(t *testing.T) {
	g := start(t)
	g.must(http.StatusOK, "PATCH", "/v1/phone-numbers/"+phone, `{"display_phone_number":"+1 202-555-0100"}`)
	g.alert(time.Hour, store.Alert{WABAID: "100", DisplayPhoneNumber: "12025550100", Field: "security", Event: "PIN_CHANGED", Severity: 1})
	g.alert(2*time.Hour, store.Alert{WABAID: "100", Field: "account_update", Event: "ACCOUNT_DELETED", Severity: 2, Detail: map[string]string{"a.b": "c"}})
	g.alert(3*time.Hour, store.Alert{WABAID: "900", Field: "account_update", Event: "PARTNER_APP_INSTALLED"})
	g.alert(40*24*time.Hour, store.Alert{WABAID: "100", Field: "account_update", Event: "ACCOUNT_VIOLATION", Severity: 1})
	events := func(query string) string {
		t.Helper()
		var all []string
		for next := ""; ; {
			a := g.must(http.StatusOK, "GET", "/v1/alerts?limit=2"+query+next, "")
			page, _ := a.json["alerts"].([]any)
			for _, row := range page {
				m, _ := row.(map[string]any)
				all = append(all, fmt.Sprint(m["event"]))
				if got := fields(m); got != "at detail display_phone_number event field id phone_number_id severity waba_id webhook_id" {
					t.Errorf("a line has the fields %s", got)
				}
			}
			if a.json["next_cursor"] == nil {
				return strings.Join(all, " ")
			}
			next = "&cursor=" + url.QueryEscape(a.str("next_cursor"))
		}
	}
	since := "&since=" + url.QueryEscape(time.Now().Add(-150*time.Minute).UTC().Format(time.RFC3339Nano))
	for query, want := range map[string]string{
		"":                           "PIN_CHANGED ACCOUNT_DELETED PARTNER_APP_INSTALLED ACCOUNT_VIOLATION",
		"&waba_id=100":               "PIN_CHANGED ACCOUNT_DELETED ACCOUNT_VIOLATION",
		"&phone_number_id=" + phone:  "PIN_CHANGED",
		"&field=account_update":      "ACCOUNT_DELETED PARTNER_APP_INSTALLED ACCOUNT_VIOLATION",
		"&severity=critical":         "ACCOUNT_DELETED",
		"&severity=warning" + since:  "PIN_CHANGED ACCOUNT_DELETED",
		since:                        "PIN_CHANGED ACCOUNT_DELETED",
		"&waba_id=100&severity=info": "PIN_CHANGED ACCOUNT_DELETED ACCOUNT_VIOLATION",
	} {
		if got := events(query); got != want {
			t.Errorf("%s: %s; want %s", query, got, want)
		}
	}
	if a := g.must(http.StatusOK, "GET", "/v1/alerts?severity=critical", ""); !strings.Contains(a.body, `"detail":{"a.b":"c"}`) || !strings.Contains(a.body, `"severity":"critical"`) {
		t.Error(a.body)
	}
	for query, name := range map[string]string{"severity=loud": "severity", "limit=0": "limit", "cursor=x": "cursor", "since=now": "since", "to=1": "to"} {
		if a := g.must(http.StatusBadRequest, "GET", "/v1/alerts?"+query, ""); !strings.Contains(a.str("detail"), `"`+name+`"`) {
			t.Errorf("%s: %s", query, a.body)
		}
	}
}

func TestAccountsShowWhatMetaSaid(t *testing.T) {
	g := start(t)
	at := time.Unix(1_790_000_000, 0)
	for _, s := range []store.AccountState{
		{Scope: "waba", Value: "100", Topic: "ban", Word: "DISABLE", At: at, WebhookID: uuid.New()},
		{Scope: "phone", Value: phone, Topic: "quality", Word: "FLAGGED", At: at, WebhookID: uuid.New()},
	} {
		if err := g.store.InTx(t.Context(), func(tx pgx.Tx) error { _, err := g.store.NoteState(t.Context(), tx, s); return err }); err != nil {
			t.Fatal(err)
		}
	}
	g.alert(time.Hour, store.Alert{WABAID: "100", PhoneNumberID: phone, Field: "phone_number_quality_update", Event: "FLAGGED", Severity: 1})
	g.alert(time.Hour, store.Alert{WABAID: "100", Field: "account_update", Event: "TERMS_SIGNED"})
	g.alert(31*24*time.Hour, store.Alert{WABAID: "100", PhoneNumberID: phone, Field: "security", Event: "PIN_CHANGED", Severity: 1})
	waba := g.must(http.StatusOK, "GET", "/v1/wabas/100", "")
	if !strings.Contains(waba.body, `"notices":{"ban":{"word":"DISABLE","at":"2026-09-21T14:13:20Z","until":null}}`) {
		t.Errorf("the WABA's notices: %s", waba.body)
	}
	of := g.must(http.StatusOK, "GET", "/v1/phone-numbers/"+phone, "")
	if !strings.Contains(of.body, `"notices":{"quality":{"word":"FLAGGED","at":"2026-09-21T14:13:20Z","until":null}}`) {
		t.Errorf("the phone number's notices: %s", of.body)
	}
	for _, a := range []string{waba.body, of.body} {
		if strings.Count(a, `"webhook_id"`) != 1 || !strings.Contains(a, `"event":"FLAGGED"`) {
			t.Errorf("alerts other than the warning of the last month: %s", a)
		}
	}
}

func TestAMessageThatMetaHoldsSaysSo(t *testing.T) {
	g := start(t)
	id := g.must(http.StatusAccepted, "POST", "/v1/messages", `{"from":"`+phone+`","to":"+12025550101","type":"text","text":{"body":"hi"}}`).str("id")
	g.exec(`UPDATE messages SET status = 'accepted', message_status = 'held_for_quality_assessment' WHERE id = $1::uuid`, id)
	if a := g.must(http.StatusOK, "GET", "/v1/messages/"+id, ""); a.str("message_status") != "held_for_quality_assessment" {
		t.Error(a.body)
	}
}
