package httpapi_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// put makes a message and sets its columns.
func (g *gateway) put(set string) string {
	g.t.Helper()
	id := g.must(http.StatusAccepted, "POST", "/v1/messages", text("")).str("id")
	if set != "" {
		if _, err := g.pool.Exec(g.t.Context(), `UPDATE messages SET `+set+` WHERE id = $1::uuid`, uuid.MustParse(id)); err != nil {
			g.t.Fatal(err)
		}
	}
	return id
}

const unknown = `status = 'unknown', try = 1, unknown_at = now(), unknown_reason = 'timeout'`

func TestSettleMessage(t *testing.T) {
	g := start(t)
	id := g.put(unknown)
	list := g.must(http.StatusOK, "GET", "/v1/messages?status=unknown", "")
	if !strings.Contains(list.body, `"unknown":{"since":"2`) || !strings.Contains(list.body, `"reason":"timeout"`) {
		t.Errorf("the list lacks since when, or why: %s", list.body)
	}
	bound := []string{"Authorization", "Bearer " + g.key(`{"name":"bound","scopes":["send"],"phone_numbers":["200000000000009"]}`)}
	viewer := []string{"Authorization", "Bearer " + g.key(`{"name":"viewer","scopes":["read"]}`)}
	path := "/v1/messages/" + id + "/settle"
	for _, c := range []struct {
		path, body string
		headers    []string
		status     int
		pointer    string
	}{
		{path, `{"as":`, nil, 400, ""},
		{path, `{}`, nil, 422, "/as"},
		{path, `{"as":"delivered"}`, nil, 422, "/as"},
		{path, `{"as":"sent","x":1}`, nil, 422, "/x"},
		{path, `{"as":"sent"}`, bound, 404, ""},
		{path, `{"as":"sent"}`, viewer, 403, ""},
		{"/v1/messages/x/settle", `{"as":"sent"}`, nil, 404, ""},
		{"/v1/messages/0198a000-0000-7000-8000-000000000000/settle", `{"as":"sent"}`, nil, 404, ""},
	} {
		a := g.must(c.status, "POST", c.path, c.body, c.headers...)
		if c.pointer != "" && strings.Join(a.pointers(), " ") != c.pointer {
			t.Errorf("%s: %s", c.body, a.body)
		}
	}
	if a := g.must(http.StatusOK, "POST", path, `{"as":"sent"}`); a.str("status") != "sent" || a.str("sent_at") == "" || a.json["unknown"] != nil {
		t.Errorf("settled: %s", a.body)
	}
	if a := g.must(http.StatusConflict, "POST", path, `{"as":"failed"}`); a.str("code") != "wrong_status" || !strings.Contains(a.str("detail"), "The message is sent") {
		t.Errorf("again: %s", a.body)
	}
	if e := g.must(http.StatusOK, "GET", "/v1/messages/"+id+"/events", ""); !strings.Contains(e.body, `"kind":"settled"`) || !strings.Contains(e.body, `"by":"operator"`) {
		t.Errorf("events: %s", e.body)
	}
	if a := g.must(http.StatusOK, "POST", "/v1/messages/"+g.put(unknown)+"/settle", `{"as":"failed"}`); a.str("status") != "failed" ||
		!strings.Contains(a.body, `"title":"Settled as failed by an operator"`) {
		t.Errorf("settled as failed: %s", a.body)
	}
	if a := g.must(http.StatusOK, "POST", "/v1/messages/"+g.put(unknown)+"/settle", `{"as":"resend"}`); a.str("status") != "queued" {
		t.Errorf("settled as resend: %s", a.body)
	}
	if a := g.must(http.StatusConflict, "POST", "/v1/messages/"+g.put(unknown+", body = NULL")+"/settle", `{"as":"resend"}`); a.str("code") != "content_gone" {
		t.Errorf("without its content: %s", a.body)
	}
}

func TestResendMessage(t *testing.T) {
	g := start(t)
	old := g.put(`status = 'failed'`)
	path := "/v1/messages/" + old + "/resend"
	a := g.must(http.StatusAccepted, "POST", path, "", "Idempotency-Key", "k")
	if got := fields(a.json); got != "created_at estimated_send_at from id resend_of status to" {
		t.Errorf("fields %q", got)
	}
	if a.str("id") == old || a.str("resend_of") != old || a.str("status") != "queued" || a.header.Get("Location") != "/v1/messages/"+a.str("id") {
		t.Errorf("answer %s", a.body)
	}
	if m := g.must(http.StatusOK, "GET", a.header.Get("Location"), ""); m.str("resend_of") != old || m.str("status") != "queued" || m.str("to") != "+16505551234" {
		t.Errorf("the new message: %s", m.body)
	}
	if m := g.must(http.StatusOK, "GET", "/v1/messages/"+old, ""); m.str("status") != "failed" {
		t.Errorf("the old message: %s", m.body)
	}
	if b := g.must(http.StatusOK, "POST", path, "", "Idempotency-Key", "k"); b.str("id") != a.str("id") || b.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("again: %s", b.body)
	}
	bound := "Bearer " + g.key(`{"name":"bound","scopes":["send"],"phone_numbers":["200000000000009"]}`)
	g.must(http.StatusNotFound, "POST", path, "", "Authorization", bound)
	g.must(http.StatusNotFound, "POST", "/v1/messages/x/resend", "")
	for set, want := range map[string]string{
		"": "wrong_status The message is queued: it is still to be sent.", `status = 'sending'`: "wrong_status The message is sending: it is still to be sent.",
		unknown: "wrong_status The message is unknown: settle it first.", `status = 'read'`: "wrong_status The message is read: only one that failed, expired or was cancelled can be resent.",
		`status = 'failed', body = NULL`: "content_gone The content of the message is not kept any more, so it cannot be sent again.",
	} {
		a := g.must(http.StatusConflict, "POST", "/v1/messages/"+g.put(set)+"/resend", "")
		if got := a.str("code") + " " + a.str("detail"); got != want {
			t.Errorf("%s: %s, want %s", set, got, want)
		}
	}
	gone := g.put(`status = 'failed'`)
	if _, err := g.pool.Exec(t.Context(), `DELETE FROM phone_numbers`); err != nil {
		t.Fatal(err)
	}
	if a := g.must(http.StatusConflict, "POST", "/v1/messages/"+gone+"/resend", ""); a.str("code") != "phone_number_gone" {
		t.Errorf("without its phone number: %s", a.body)
	}
}

func TestCancelMessages(t *testing.T) {
	g := start(t)
	cancel := func(filter string, headers ...string) float64 {
		t.Helper()
		a := g.must(http.StatusOK, "POST", "/v1/messages/cancel", `{"filter":`+filter+`}`, headers...)
		if a.json["more"] != false {
			t.Errorf("%s: %s", filter, a.body)
		}
		n, _ := a.json["cancelled"].(float64)
		return n
	}
	g.put(`reference = 'a'`)
	g.put(`reference = 'a'`)
	g.put(`reference = 'a', status = 'sending'`)
	g.put(`tags = '{"campaign":"x"}'`)
	g.put(`priority = 4`)
	left := g.put("")
	for _, c := range []struct {
		body    string
		status  int
		pointer string
	}{
		{`{`, 400, ""},
		{`{}`, 422, "/filter"},
		{`{"filter":{}}`, 422, "/filter"},
		{`{"filter":{"status":"queued"}}`, 422, "/filter"},
		{`{"filter":{"status":"sent","to":"+1"}}`, 422, "/filter/status"},
		{`{"filter":{"form":"1","to":"+1"}}`, 422, "/filter/form"},
		{`{"filter":{"to":"+1"},"dry":true}`, 422, "/dry"},
		{`{"filter":{"to":"+1","priority":"first"}}`, 422, "/filter/priority"},
		{`{"filter":{"created_after":"yesterday","to":"+1"}}`, 422, "/filter/created_after"},
		{`{"filter":{"tag":{"a":1},"to":"+1"}}`, 422, "/filter/tag/a"},
	} {
		if a := g.must(c.status, "POST", "/v1/messages/cancel", c.body); c.pointer != "" && strings.Join(a.pointers(), " ") != c.pointer {
			t.Errorf("%s: %s", c.body, a.body)
		}
	}
	bound := "Bearer " + g.key(`{"name":"bound","scopes":["send"],"phone_numbers":["200000000000009"]}`)
	if n := cancel(`{"created_after":"2020-01-01T00:00:00Z"}`, "Authorization", bound); n != 0 {
		t.Errorf("a key of another phone number cancels %v", n)
	}
	viewer := g.key(`{"name":"viewer","scopes":["read"]}`)
	g.must(http.StatusForbidden, "POST", "/v1/messages/cancel", `{"filter":{"to":"+1"}}`, "Authorization", "Bearer "+viewer)
	for _, c := range []struct {
		filter string
		want   float64
	}{
		{`{"reference":"a","from":"299"}`, 0},
		{`{"reference":"a","from":"` + phone + `","to":"+16505551234","status":"queued"}`, 2},
		{`{"tag":{"campaign":"x"}}`, 1},
		{`{"priority":"low"}`, 1},
		{`{"created_before":"2020-01-01T00:00:00Z"}`, 0},
		{`{"reference":"a"}`, 0},
	} {
		if n := cancel(c.filter); n != c.want {
			t.Errorf("%s cancels %v, want %v", c.filter, n, c.want)
		}
	}
	if m := g.must(http.StatusOK, "GET", "/v1/messages/"+left, ""); m.str("status") != "queued" {
		t.Errorf("another message: %s", m.body)
	}
	if n := cancel(`{"created_after":"2020-01-01T00:00:00Z"}`); n != 1 {
		t.Errorf("the rest is %v", n)
	}
}

// What was cancelled long before its time no longer counts as waiting, in the lane or in the backlog report.
func TestACancelledMessageLeavesItsLane(t *testing.T) {
	g := start(t)
	later := `,"gateway":{"send_at":"` + time.Now().Add(48*time.Hour).UTC().Format(time.RFC3339Nano) + `","reference":"later"}`
	jobs := func(state string) (n int) {
		t.Helper()
		if err := g.pool.QueryRow(t.Context(), `SELECT count(*) FROM river_job WHERE state = $1::river_job_state`, state).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	var ids []string
	for range 4 {
		ids = append(ids, g.must(http.StatusAccepted, "POST", "/v1/messages", text(later)).str("id"))
	}
	if n := jobs("scheduled"); n != 4 {
		t.Fatalf("%d scheduled jobs of 4", n)
	}
	if a := g.must(http.StatusOK, "POST", "/v1/messages/"+ids[0]+"/cancel", ""); a.str("status") != "cancelled" {
		t.Errorf("cancelled: %s", a.body)
	}
	if s, c := jobs("scheduled"), jobs("cancelled"); s != 3 || c != 1 {
		t.Errorf("after one: %d scheduled, %d cancelled jobs", s, c)
	}
	g.must(http.StatusOK, "POST", "/v1/messages/cancel", `{"filter":{"reference":"later"}}`)
	if s, c := jobs("scheduled"), jobs("cancelled"); s != 0 || c != 4 {
		t.Errorf("after all: %d scheduled, %d cancelled jobs", s, c)
	}
}
