package httpapi_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
)

const graphText = `{"to":"16505551234","type":"text","text":{"body":"hi"}}`

func TestIngressSettings(t *testing.T) {
	g := start(t)
	w := g.must(http.StatusOK, "GET", "/v1/wabas/100", "")
	if w.str("ingress_answer") != "id" || w.json["ingress_wait_seconds"] != 10.0 || w.json["opaque_as_idempotency_key"] != false {
		t.Errorf("presets: %s", w.body)
	}
	g.must(http.StatusOK, "PATCH", "/v1/wabas/100", `{"ingress_answer":"wamid","opaque_as_idempotency_key":true}`)
	w = g.must(http.StatusOK, "PATCH", "/v1/wabas/100", `{"ingress_wait_seconds":30}`)
	if w.str("ingress_answer") != "wamid" || w.json["ingress_wait_seconds"] != 30.0 || w.json["opaque_as_idempotency_key"] != true || w.str("name") != "Shop" {
		t.Errorf("after two PATCHes: %s", w.body)
	}
	for body, pointer := range map[string]string{
		`{"ingress_answer":"both"}`: "/ingress_answer", `{"ingress_answer":1}`: "/ingress_answer", `{"ingress_wait_seconds":0}`: "/ingress_wait_seconds",
		`{"ingress_wait_seconds":31}`: "/ingress_wait_seconds", `{"ingress_wait_seconds":null}`: "/ingress_wait_seconds", `{"opaque_as_idempotency_key":"yes"}`: "/opaque_as_idempotency_key",
	} {
		if a := g.must(http.StatusUnprocessableEntity, "PATCH", "/v1/wabas/100", body); !reflect.DeepEqual(a.pointers(), []string{pointer}) {
			t.Errorf("%s: %s", body, a.body)
		}
	}
	if w = g.must(http.StatusOK, "PUT", "/v1/wabas/100", `{}`); w.str("ingress_answer") != "id" || w.json["opaque_as_idempotency_key"] != false {
		t.Errorf("a PUT that does not name them: %s", w.body)
	}
}

// taken sets what became of the first message that has not ended, once there is one.
func (g *gateway) taken(set string) {
	g.t.Helper()
	for {
		tag, err := g.pool.Exec(g.t.Context(), `UPDATE messages SET `+set+` WHERE status = 'queued'`)
		if err != nil {
			g.t.Fatal(err)
		}
		if tag.RowsAffected() == 1 {
			return
		}
	}
}

// By a setting of its WABA the answer has Meta's own id without being asked for it.
func TestIngressAnswersWithTheWAMID(t *testing.T) {
	g := start(t)
	g.must(http.StatusOK, "PATCH", "/v1/wabas/100", `{"ingress_answer":"wamid","ingress_wait_seconds":30}`)
	for set, check := range map[string]func(answer){
		`status = 'accepted', wamid = 'wamid.W'`: func(a answer) {
			if sentID(t, a) != "wamid.W" || a.header.Get("Preference-Applied") != "" {
				t.Errorf("%v %s", a.header, a.body)
			}
		},
		`status = 'failed', error_code = 131026, error_title = 'Message undeliverable'`: func(a answer) { graphError(t, "refused", a, 400, 131026) },
	} {
		done := make(chan answer)
		go func() { done <- g.sendGraph(graphText) }()
		g.taken(set)
		check(<-done)
	}
	// A message for later is not waited for: the client would have given up.
	client := &http.Client{Timeout: 25 * time.Second}
	defer client.CloseIdleConnections()
	later := strings.Replace(graphText, `{`, `{"gateway":{"send_at":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`"},`, 1)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+graphPath, strings.NewReader(later))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+adminKey)
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if _ = res.Body.Close(); res.StatusCode != http.StatusOK {
		t.Errorf("for later: %d", res.StatusCode)
	}
	// Whoever does not want to wait says so; what does not come in time is answered with our id.
	if id := sentID(t, g.sendGraph(graphText, "Prefer", "wait=0")); strings.HasPrefix(id, "wamid.") {
		t.Errorf("without waiting: %s", id)
	}
	g.must(http.StatusOK, "PATCH", "/v1/wabas/100", `{"ingress_wait_seconds":1}`)
	if id := sentID(t, g.sendGraph(graphText)); len(id) != 36 {
		t.Errorf("after waiting: %s", id)
	}
	g.must(http.StatusOK, "PATCH", "/v1/wabas/100", `{"ingress_answer":"id"}`)
	if id := sentID(t, g.sendGraph(graphText)); len(id) != 36 {
		t.Errorf("at once: %s", id)
	}
}

// Many who wait get each its own.
func TestIngressManyWait(t *testing.T) {
	g := start(t)
	g.must(http.StatusOK, "PATCH", "/v1/wabas/100", `{"ingress_answer":"wamid","ingress_wait_seconds":30}`)
	const n = 40
	done := make(chan answer, n)
	for range n {
		go func() { done <- g.sendGraph(graphText) }()
	}
	seen := map[string]bool{}
	for len(seen) < n {
		if _, err := g.pool.Exec(t.Context(), `UPDATE messages SET status = 'accepted', wamid = 'wamid.' || id::text WHERE status = 'queued'`); err != nil {
			t.Fatal(err)
		}
		select {
		case a := <-done:
			if id := sentID(t, a); seen[id] || !strings.HasPrefix(id, "wamid.") {
				t.Fatalf("%s", a.body)
			} else {
				seen[id] = true
			}
		default:
		}
	}
}

func TestOpaqueAsIdempotencyKey(t *testing.T) {
	g := start(t)
	opaque := strings.Repeat("ü", 511) + "1"
	body := strings.Replace(graphText, `{`, `{"biz_opaque_callback_data":"`+opaque+`",`, 1)
	if a, b := sentID(t, g.sendGraph(body)), sentID(t, g.sendGraph(body)); a == b {
		t.Error("it serves as a key without the setting")
	}
	g.must(http.StatusOK, "PATCH", "/v1/wabas/100", `{"opaque_as_idempotency_key":true}`)
	first, again := g.sendGraph(body), g.sendGraph(body)
	if sentID(t, first) != sentID(t, again) || first.header.Get("Idempotent-Replayed") != "" || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%s, then %s", first.body, again.body)
	}
	graphError(t, "another body", g.sendGraph(strings.Replace(body, `"hi"`, `"ho"`, 1)), http.StatusUnprocessableEntity, 135000)
	if longest := strings.Replace(body, opaque, strings.Repeat("ü", 510)+"12", 1); sentID(t, g.sendGraph(longest)) == sentID(t, first) {
		t.Error("another of 512 characters is the same")
	}
	// A key that a request states wins, in the header or in gateway, and is no callback data.
	if a := g.sendGraph(body, "Idempotency-Key", "k"); sentID(t, a) == sentID(t, first) {
		t.Errorf("with a header: %s", a.body)
	}
	if a := g.sendGraph(strings.Replace(body, `{`, `{"gateway":{"idempotency_key":"k2"},`, 1)); sentID(t, a) == sentID(t, first) {
		t.Errorf("with gateway.idempotency_key: %s", a.body)
	}
	if a := g.sendGraph(graphText, "Idempotency-Key", opaque[len(opaque)-1:]); sentID(t, a) == sentID(t, first) {
		t.Errorf("a header of the same text: %s", a.body)
	}
	if a, b := sentID(t, g.sendGraph(graphText)), sentID(t, g.sendGraph(graphText)); a == b {
		t.Error("messages without callback data are one")
	}
	// It belongs to the owner of the API key.
	other := g.key(`{"name":"other","scopes":["send"]}`)
	if a := g.graph("POST", graphPath, body, "Authorization", "Bearer "+other); sentID(t, a) == sentID(t, first) {
		t.Error("another owner's is the same")
	}
	// The gateway's own API is not asked for it.
	one := `{"from":"` + phone + `","biz_opaque_callback_data":"x","to":"+16505551234","type":"text","text":{"body":"hi"}}`
	if a, b := g.must(http.StatusAccepted, "POST", "/v1/messages", one), g.must(http.StatusAccepted, "POST", "/v1/messages", one); a.str("id") == b.str("id") {
		t.Error("/v1/messages took it for a key")
	}
	var plain int
	if err := g.pool.QueryRow(t.Context(), `SELECT count(*)::integer FROM idempotency_keys WHERE key LIKE '%ü%'`).Scan(&plain); err != nil || plain != 0 {
		t.Errorf("%d keys hold the callback data itself, %v", plain, err)
	}
}

// A form has a field for each member, objects as JSON.
func TestGraphMessagesAsForms(t *testing.T) {
	g := start(t)
	post := func(body, kind string) answer {
		return g.graph("POST", graphPath, body, "Authorization", "Bearer "+adminKey, "Content-Type", kind)
	}
	const form = "application/x-www-form-urlencoded"
	for _, c := range []struct{ form, want string }{
		{url.Values{"messaging_product": {"whatsapp"}, "to": {"+16505551234"}, "type": {"text"}, "text": {` {"body":"a&b=ü","preview_url":true}`}}.Encode(),
			`{"messaging_product":"whatsapp","to":"+16505551234","type":"text","text":{"body":"a&b=ü","preview_url":true}}`},
		{"to=16505551234&type=contacts&contacts=" + url.QueryEscape(`[{"name":{"formatted_name":"A"}}]`) + "&biz_opaque_callback_data=" + url.QueryEscape(`{"order":1}`),
			`{"to":"16505551234","type":"contacts","contacts":[{"name":{"formatted_name":"A"}}],"biz_opaque_callback_data":"{\"order\":1}"}`},
		{"&to=16505551234&text=" + url.QueryEscape(`{"body":"1"}`) + "&context=" + url.QueryEscape(`{"message_id":"wamid.1"}`) + "&unknown=7",
			`{"to":"16505551234","text":{"body":"1"},"context":{"message_id":"wamid.1"},"unknown":"7"}`},
		{graphText, graphText}, // what curl calls a form
	} {
		a := post(c.form, form+"; charset=utf-8")
		var stored string
		if err := g.pool.QueryRow(t.Context(), `SELECT convert_from(body, 'UTF8') FROM messages WHERE id = $1::uuid`, sentID(t, a)).Scan(&stored); err != nil {
			t.Fatal(err)
		}
		var got, want any
		if json.Unmarshal([]byte(stored), &got) != nil || json.Unmarshal([]byte(c.want), &want) != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: stored as %s", c.form, stored)
		}
	}
	before := g.stored()
	for form, detail := range map[string]string{
		"": "/to: ", "to=%zz": "form", "=1": "form", "to=%ff": "form", "text%5Bbody%5D=hi&to=16505551234": "whole fields", "text[body]=hi": "whole fields",
		"to=16505551234&to=16505551235&text=%7B%22body%22%3A%22a%22%7D": "twice", "to=16505551234&text=hi": "/text: ",
		"to=16505551234&text=%7B%22body%22%3A%22a%22%7D&access_token=x": "/access_token: ", "status=read&message_id=wamid.1&batch=%5B%5D": "/batch: ",
	} {
		a := post(form, "application/x-www-form-urlencoded")
		graphError(t, form, a, 400, 100)
		if !strings.Contains(a.body, detail) {
			t.Errorf("%s: %s does not tell of %s", form, a.body, detail)
		}
	}
	if g.stored() != before {
		t.Error("a form that was refused was stored")
	}
}

const marketingTemplate = `{"to":"16505551234","type":"template","template":{"name":"sale","language":{"code":"en"}},"product_policy":"STRICT","message_activity_sharing":true`

// A marketing message is queued like any other, and knows the endpoint that it goes to.
func TestMarketingMessages(t *testing.T) {
	g := start(t)
	auth := []string{"Authorization", "Bearer " + adminKey, "Content-Type", "application/json"}
	path := "/v23.0/" + phone + "/marketing_messages"
	kept := func(id string) [3]string {
		t.Helper()
		m := g.must(http.StatusOK, "GET", "/v1/messages/"+id, "")
		return [3]string{m.str("api"), m.str("category"), m.str("priority")}
	}
	want := [3]string{"marketing_messages", "marketing", "low"}
	sent := g.graph("POST", path, marketingTemplate+`}`, append(auth, "Idempotency-Key", "k")...)
	if got := kept(sentID(t, sent)); got != want {
		t.Errorf("by its own path: %v", got)
	}
	if got := kept(sentID(t, g.sendGraph(marketingTemplate+`,"gateway":{"api":"marketing_messages"}}`))); got != want {
		t.Errorf("by gateway.api: %v", got)
	}
	posted := `{"from":"` + phone + `",` + strings.Replace(marketingTemplate[1:], "16505551234", "+16505551234", 1)
	if got := kept(g.must(http.StatusAccepted, "POST", "/v1/messages", posted+`,"gateway":{"api":"marketing_messages","category":"marketing","priority":"high"}}`).str("id")); got != [3]string{"marketing_messages", "marketing", "high"} {
		t.Errorf("by /v1/messages: %v", got)
	}
	if got := kept(g.must(http.StatusAccepted, "POST", "/v1/messages", posted+`,"gateway":{"api":"messages"}}`).str("id")); got != [3]string{"messages", "", "normal"} {
		t.Errorf("to messages: %v", got)
	}
	for body, pointer := range map[string]string{
		posted + `,"gateway":{"api":"mm_lite"}}`: "/gateway/api", posted + `,"gateway":{"api":7}}`: "/gateway/api",
		posted + `,"gateway":{"api":"marketing_messages","category":"utility"}}`:                                                 "/gateway/category",
		`{"from":"` + phone + `","to":"+16505551234","type":"text","text":{"body":"hi"},"gateway":{"api":"marketing_messages"}}`: "/type",
	} {
		if a := g.must(http.StatusUnprocessableEntity, "POST", "/v1/messages", body); !reflect.DeepEqual(a.pointers(), []string{pointer}) {
			t.Errorf("%s: %s", body, a.body)
		}
	}
	for body, detail := range map[string]string{
		graphText: "/type: ", marketingTemplate + `,"gateway":{"api":"messages"}}`: "/gateway/api: ", `{"status":"read","message_id":"wamid.1"}`: "/status: ",
	} {
		a := g.graph("POST", path, body, auth...)
		graphError(t, body, a, 400, 100)
		if !strings.Contains(a.body, detail) {
			t.Errorf("%s: %s does not tell of %s", body, a.body, detail)
		}
	}
	// The same body to another endpoint is another request.
	graphError(t, "a key of the other endpoint", g.sendGraph(marketingTemplate+`}`, "Idempotency-Key", "k"), http.StatusUnprocessableEntity, 135000)
	// A message that is sent again goes to the endpoint of the first.
	id := sentID(t, sent)
	if _, err := g.pool.Exec(t.Context(), `UPDATE messages SET status = 'failed' WHERE id = $1::uuid`, id); err != nil {
		t.Fatal(err)
	}
	if got := kept(g.must(http.StatusAccepted, "POST", "/v1/messages/"+id+"/resend", "").str("id")); got != want {
		t.Errorf("resent: %v", got)
	}
}
