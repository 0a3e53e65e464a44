package httpapi_test

import (
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
)

const graphPath = "/v23.0/" + phone + "/messages"

// sendGraph posts a message as a Cloud API client does, with an API key for its token.
func (g *gateway) sendGraph(body string, headers ...string) answer {
	g.t.Helper()
	return g.graph("POST", graphPath, body, append([]string{"Authorization", "Bearer " + adminKey, "Content-Type", "application/json"}, headers...)...)
}

// sentID is the id in an answer of Meta's shape.
func sentID(t *testing.T, a answer) string {
	t.Helper()
	var m struct {
		Product  string `json:"messaging_product"`
		Contacts []struct {
			Input  string `json:"input"`
			WAID   string `json:"wa_id"`
			UserID string `json:"user_id"`
		} `json:"contacts"`
		Messages []struct {
			ID string `json:"id"`
		} `json:"messages"`
	}
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || json.Unmarshal([]byte(a.body), &m) != nil ||
		m.Product != "whatsapp" || len(m.Contacts) != 1 || m.Contacts[0].Input == "" || (m.Contacts[0].WAID == "") == (m.Contacts[0].UserID == "") || len(m.Messages) != 1 {
		t.Fatalf("%d %v %s", a.status, a.header, a.body)
	}
	return m.Messages[0].ID
}

func TestGraphMessagesAreQueued(t *testing.T) {
	g := start(t)
	for _, c := range []struct{ body, to, contact string }{
		{`{"messaging_product":"whatsapp","to":"16505551234","text":{"body":"hi"}}`, "16505551234", `"wa_id":"16505551234"`},
		{`{"messaging_product":"whatsapp","recipient_type":"individual","to":"+1 (650) 555-1234","type":"text","text":{"preview_url":false,"body":"hi"}}`, "+1 (650) 555-1234", `"wa_id":"16505551234"`},
		{`{"messaging_product":"whatsapp","recipient":"US.1234567890","type":"text","text":{"body":"hi"}}`, "US.1234567890", `"user_id":"US.1234567890"`},
		{`{"messaging_product":"whatsapp","recipient_type":"group","to":"Y2FwaV9ncm91cDox","type":"text","text":{"body":"hi"}}`, "Y2FwaV9ncm91cDox", `"wa_id":"Y2FwaV9ncm91cDox"`},
	} {
		a := g.sendGraph(c.body)
		id, err := uuid.Parse(sentID(t, a))
		if err != nil || !strings.Contains(a.body, c.contact) {
			t.Fatalf("%s: %s", c.body, a.body)
		}
		var to, from, stored string
		if err := g.pool.QueryRow(t.Context(), `SELECT recipient, phone_number_id, convert_from(body, 'UTF8') FROM messages WHERE id = $1`, id).Scan(&to, &from, &stored); err != nil {
			t.Fatal(err)
		}
		var want, got any
		_ = json.Unmarshal([]byte(c.body), &want)
		_ = json.Unmarshal([]byte(stored), &got)
		if to != c.to || from != phone || !reflect.DeepEqual(got, want) {
			t.Errorf("stored for %s from %s: %s", to, from, stored)
		}
	}
	// Chunked, by OAuth, under another version, the key in the query.
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/v24.0/"+phone+"/messages?access_token="+adminKey,
		io.MultiReader(strings.NewReader(`{"to":"16505551234",`), strings.NewReader(`"text":{"body":"hi"}}`)))
	if err != nil {
		t.Fatal(err)
	}
	res, err := g.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK || g.stored() != 2*5 {
		t.Errorf("chunked: %d, %d messages", res.StatusCode, g.stored())
	}
}

func TestGraphMessagesRepeated(t *testing.T) {
	g := start(t)
	body := `{"to":"16505551234","type":"text","text":{"body":"hi"}}`
	first := g.sendGraph(body, "Idempotency-Key", "k")
	again := g.sendGraph(body, "Idempotency-Key", "k")
	if sentID(t, first) != sentID(t, again) || again.header.Get("Idempotent-Replayed") != "true" || g.stored() != 3 {
		t.Errorf("%s, then %s", first.body, again.body)
	}
	graphError(t, "another body", g.sendGraph(strings.Replace(body, "hi", "ho", 1), "Idempotency-Key", "k"), http.StatusUnprocessableEntity, 135000)
	g.must(http.StatusOK, "PUT", "/v1/phone-numbers/200000000000002", `{"waba_id":"100"}`)
	other := g.graph("POST", "/v23.0/200000000000002/messages", body, "Authorization", "Bearer "+adminKey, "Idempotency-Key", "k")
	graphError(t, "another phone number", other, http.StatusUnprocessableEntity, 135000)
}

func TestGraphMessagesRefused(t *testing.T) {
	g := start(t)
	for _, c := range []struct {
		name, body   string
		status, code int
		details      []string
	}{
		{"no JSON", `{"to":`, 400, 100, nil},
		{"too long", `{"to":"16505551234","type":"text","text":{"body":"` + strings.Repeat("x", 4097) + `"}}`, 400, 100, []string{"/text/body: "}},
		{"every fault at once", `{"to":"","type":"image","image":{},"gateway":{"priority":"huge"}}`, 400, 100, []string{"/to: ", "/image: ", "/gateway/priority: "}},
		{"another phone number", `{"from":"1","to":"16505551234","type":"text","text":{"body":"hi"}}`, 400, 100, []string{"/from: "}},
		{"a reply to nothing", `{"to":"16505551234","type":"text","text":{"body":"hi"},"context":{"message_id":"` + uuid.Must(uuid.NewV7()).String() + `"}}`, 400, 131009, []string{"/context/message_id: "}},
	} {
		a := g.sendGraph(c.body)
		graphError(t, c.name, a, c.status, c.code)
		for _, d := range c.details {
			if !strings.Contains(a.body, d) || !strings.Contains(a.body, `"error_data":{"messaging_product":"whatsapp"`) {
				t.Errorf("%s: %s does not tell of %s", c.name, a.body, d)
			}
		}
	}
	body := `{"to":"16505551234","type":"text","text":{"body":"hi"}}`
	graphError(t, "no such phone number", g.graph("POST", "/v23.0/209999999999999/messages", body, "Authorization", "Bearer "+adminKey), 400, 100)
	graphError(t, "no key", g.graph("POST", graphPath, body), 401, 190)
	graphError(t, "marketing", g.graph("POST", "/v23.0/"+phone+"/marketing_messages", body, "Authorization", "Bearer "+adminKey), 400, 100)
	reader := g.must(http.StatusCreated, "POST", "/v1/keys", `{"name":"r","scopes":["read"]}`).str("key")
	graphError(t, "no right to send", g.graph("POST", graphPath, body, "Authorization", "Bearer "+reader), 403, 10)
	if n := g.stored(); n != 0 {
		t.Errorf("%d messages were stored", n)
	}
	g.pool.Close()
	if a := g.sendGraph(body); a.header.Get("Retry-After") == "" {
		t.Errorf("with the database away: %v", a.header)
	} else {
		graphError(t, "with the database away", a, 503, 2)
	}
}

// Our id stands for the wamid wherever a message names another one.
func TestGraphIDsOfOurs(t *testing.T) {
	g, _ := forwarded(t)
	var mu sync.Mutex
	var receipts []string
	g.meta = func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		mu.Lock()
		receipts = append(receipts, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization")+" "+r.Header.Get("Content-Type")+" "+string(raw))
		mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"success":true}`)
	}
	id := sentID(t, g.sendGraph(`{"to":"16505551234","type":"text","text":{"body":"hi"}}`))
	if _, err := g.pool.Exec(t.Context(), `UPDATE messages SET status = 'accepted', wamid = 'wamid.W'`); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{
		`{"to":"16505551234","type":"reaction","reaction":{"message_id":"` + id + `","emoji":"\ud83d\udc4d"}}`,
		`{"to":"16505551234","type":"text","text":{"body":"yes"},"context":{"message_id":"` + id + `"}}`,
	} {
		reply := sentID(t, g.sendGraph(body))
		var ok bool
		if err := g.pool.QueryRow(t.Context(), `SELECT convert_from(body, 'UTF8') LIKE '%"message_id":"wamid.W"%' FROM messages WHERE id = $1::uuid`, reply).Scan(&ok); err != nil || !ok {
			t.Errorf("%s: %v %v", body, ok, err)
		}
	}
	stored := g.stored()
	for _, body := range []string{
		`{"messaging_product":"whatsapp","status":"read","message_id":"` + id + `","typing_indicator":{"type":"text"}}`,
		`{"messaging_product":"whatsapp","status":"read","message_id":"wamid.OfAUser"}`,
	} {
		a := g.sendGraph(body)
		if a.status != http.StatusOK || a.json["success"] != true {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	// Nothing that could be taken for a message goes past the queue with one.
	graphError(t, "a message in a receipt", g.sendGraph(`{"status":"read","message_id":"wamid.1","to":"16505551234","type":"text","text":{"body":"hi"}}`), 400, 100)
	if a := g.sendGraph(`{"status":"read","message_id":7}`); !strings.Contains(a.body, "/message_id: ") || strings.Contains(a.body, "queued") {
		t.Errorf("a wrong receipt: %s", a.body)
	}
	if a := g.sendGraph(`{"status":"read","message_id":"wamid.2","template":{"name":"x"}}`); a.status != http.StatusOK || receipts[len(receipts)-1] != "POST "+graphPath+" Bearer "+metaToken+
		` application/json {"messaging_product":"whatsapp","status":"read","message_id":"wamid.2"}` {
		t.Errorf("Meta saw %q", receipts[len(receipts)-1])
	}
	// Its version goes on as it is meant, and none of this is a management call.
	if a := g.graph("POST", "/v23%2E0/"+phone+"/messages", `{"status":"read","message_id":"wamid.3"}`, "Authorization", "Bearer "+adminKey); a.status != http.StatusOK ||
		!strings.HasPrefix(receipts[len(receipts)-1], "POST "+graphPath+" ") {
		t.Errorf("Meta saw %q", receipts[len(receipts)-1])
	}
	var calls int
	if err := g.pool.QueryRow(t.Context(), `SELECT coalesce(sum(calls), 0)::integer FROM management_calls`).Scan(&calls); err != nil || calls != 0 {
		t.Errorf("%d management calls, %v", calls, err)
	}
	receipts = receipts[:2]
	if len(receipts) != 2 || !strings.HasPrefix(receipts[0], "POST "+graphPath+" Bearer "+metaToken) || !strings.Contains(receipts[0], `"wamid.W"`) || strings.Contains(receipts[0], id) ||
		!strings.Contains(receipts[0], "typing_indicator") || !strings.Contains(receipts[1], `"wamid.OfAUser"`) {
		t.Errorf("Meta saw %q", receipts)
	}
	if g.stored() != stored {
		t.Error("a read receipt was stored")
	}
	// A bound key reaches its own phone numbers only, with receipts too.
	bound := g.must(http.StatusCreated, "POST", "/v1/keys", `{"name":"b","scopes":["send"],"phone_numbers":["209999999999999"]}`).str("key")
	graphError(t, "a receipt of another's", g.graph("POST", graphPath, `{"messaging_product":"whatsapp","status":"read","message_id":"wamid.X"}`, "Authorization", "Bearer "+bound), 400, 100)
	graphError(t, "another's number", g.graph("POST", graphPath, `{"to":"1650","type":"text","text":{"body":"x"},"context":{"message_id":"`+id+`"}}`, "Authorization", "Bearer "+bound), 400, 100)
	g.must(http.StatusOK, "PUT", "/v1/phone-numbers/209999999999999", `{"waba_id":"100"}`)
	graphError(t, "another's id", g.graph("POST", "/v23.0/209999999999999/messages", `{"to":"1650","type":"text","text":{"body":"x"},"context":{"message_id":"`+id+`"}}`, "Authorization", "Bearer "+bound), 400, 131009)
}

// A repetition gets the answer of the first time, whatever has become of the message that it names; and what is sent is what
// was checked.
func TestGraphIDsOfOursRepeated(t *testing.T) {
	g := start(t)
	id := sentID(t, g.sendGraph(`{"to":"16505551234","type":"text","text":{"body":"hi"}}`))
	set := func(status, wamid string) {
		t.Helper()
		if _, err := g.pool.Exec(t.Context(), `UPDATE messages SET status = $2, wamid = nullif($3, '') WHERE id = $1::uuid`, id, status, wamid); err != nil {
			t.Fatal(err)
		}
	}
	set("accepted", "wamid.A")
	reply := `{"to":"16505551234","type":"text","text":{"body":"yes"},"context":{"message_id":"` + id + `"}}`
	first := sentID(t, g.sendGraph(reply, "Idempotency-Key", "k"))
	for _, now := range [][2]string{{"accepted", "wamid.B"}, {"failed", ""}} {
		set(now[0], now[1])
		if again := g.sendGraph(reply, "Idempotency-Key", "k"); sentID(t, again) != first || again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%v: %s", now, again.body)
		}
	}
	graphError(t, "another body", g.sendGraph(strings.Replace(reply, "yes", "no", 1), "Idempotency-Key", "k"), http.StatusUnprocessableEntity, 135000)
	graphError(t, "ended without a wamid", g.sendGraph(reply), 400, 131009)
	set("accepted", "wamid.A")
	graphError(t, "a name twice", g.sendGraph(strings.Replace(reply, `"text":{`, `"text":{"body":"no"},"text":{`, 1)), 400, 100)
	if a := g.graph("POST", "/v23.0/%00/messages", reply, "Authorization", "Bearer "+adminKey); a.status != 400 {
		t.Errorf("no phone number id: %d %s", a.status, a.body)
	}
	// One that is still to be taken may be taken in a moment.
	set("queued", "")
	if a := g.sendGraph(reply); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, `"is_transient":true`) {
		t.Errorf("not taken yet: %d %s", a.status, a.body)
	}
}

// Whoever waits gets the wamid, or what the message was refused with.
func TestGraphPreferWait(t *testing.T) {
	g := start(t)
	body := `{"to":"16505551234","type":"text","text":{"body":"hi"}}`
	for set, check := range map[string]func(answer){
		`status = 'accepted', wamid = 'wamid.W'`: func(a answer) {
			if sentID(t, a) != "wamid.W" || a.header.Get("Preference-Applied") != "wait=30" {
				t.Errorf("%v %s", a.header, a.body)
			}
			var told bool
			if err := g.pool.QueryRow(t.Context(), `SELECT coalesce(told_wamid, false) FROM messages`).Scan(&told); err != nil || !told {
				t.Errorf("it is not kept which id the client knows: %v, %v", told, err)
			}
		},
		`status = 'expired'`: func(a answer) { graphError(t, "expired", a, 400, 100) },
		`status = 'failed', error_code = 131026, error_title = 'Message undeliverable'`: func(a answer) { graphError(t, "refused", a, 400, 131026) },
	} {
		if _, err := g.pool.Exec(t.Context(), `DELETE FROM messages`); err != nil {
			t.Fatal(err)
		}
		done := make(chan answer)
		go func() { done <- g.sendGraph(body, "Prefer", "wait=30") }()
		for {
			tag, err := g.pool.Exec(t.Context(), `UPDATE messages SET `+set)
			if err != nil {
				t.Fatal(err)
			}
			if tag.RowsAffected() == 1 {
				break
			}
		}
		check(<-done)
	}
}
