package graph

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"wagate/examples/messages"
)

func decoded(t *testing.T, body []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return v
}

// wanted is what of a caller's body goes to Meta: the same, but for what docs/reference/messages.md names.
func wanted(t *testing.T, body []byte, token string) map[string]any {
	t.Helper()
	m := decoded(t, body)
	delete(m, "from")
	delete(m, "gateway")
	m["messaging_product"] = "whatsapp"
	m["biz_opaque_callback_data"] = token
	if inner, ok := m["contacts"].(string); ok && m["type"] == "contacts" {
		var list []any
		d := json.NewDecoder(strings.NewReader(inner))
		d.UseNumber()
		if err := d.Decode(&list); err != nil {
			t.Fatal(err)
		}
		m["contacts"] = list
	}
	if _, text := m["text"]; text && m["type"] == nil {
		m["type"] = "text"
	}
	return m
}

var sharedCases = filepath.Join("..", "..", "..", "shared", "cases", "messages")

// shared gives the bodies of a folder of the payload collection; none, said in the log, where there is none.
func shared(t *testing.T, folder string) map[string][]byte {
	t.Helper()
	bodies := map[string][]byte{}
	entries, err := os.ReadDir(filepath.Join(sharedCases, folder))
	if errors.Is(err, fs.ErrNotExist) {
		t.Log("the payload collection is not beside the repository: only the examples of the repository were sent")
		return bodies
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if bodies[e.Name()], err = os.ReadFile(filepath.Join(sharedCases, folder, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if len(bodies) < 50 {
		t.Fatalf("only %d cases in %s", len(bodies), folder)
	}
	return bodies
}

// odd are shapes that clients send and that work, beside the examples.
var odd = map[string]string{
	"text without a type":      `{"messaging_product":"whatsapp","to":"16505551234","text":{"body":"hi"},"preview_url":true}`,
	"contacts as JSON text":    `{"messaging_product":"whatsapp","to":"16505551234","type":"contacts","contacts":"[{\"name\":{\"formatted_name\":\"A\",\"first_name\":\"A\"},\"n\":1.50}]"}`,
	"a user id":                `{"messaging_product":"whatsapp","recipient":"US.13491208655302741918","type":"text","text":{"body":"hi"}}`,
	"a number and a user id":   `{"messaging_product":"whatsapp","to":"+16505551234","recipient":"US.13491208655302741918","type":"text","text":{"body":"hi"}}`,
	"a group":                  `{"messaging_product":"whatsapp","recipient_type":"group","to":"Y2FwaV9ncm91cDox","type":"image","image":{"link":"https://example.com/a.jpg","caption":null}}`,
	"a number as a number":     `{"messaging_product":"whatsapp","to":16505551234,"type":"image","image":{"id":1013859600285441}}`,
	"a button in capitals":     `{"to":"16505551234","type":"interactive","interactive":{"type":"BUTTON","body":{"text":"b"},"footer":{},"action":{"buttons":[{"type":"reply","reply":{"id":"1","title":"Yes"}}]}}}`,
	"unknown type":             `{"to":"16505551234","type":"pin","pin":{"message_id":"wamid.1","type":"pin","expiration_days":7}}`,
	"unknown interactive type": `{"to":"16505551234","type":"interactive","interactive":{"type":"holograms","body":{"text":"b"},"action":{"a":[1,{"b":null}]}}}`,
	"numbers and escapes":      `{"to":"16505551234","type":"location","location":{"latitude":"1.50","longitude":-1e1,"name":"\u00e4\/ä"},"x":12345678901234567890.10}`,
	"callback data":            `{"to":"16505551234","type":"text","text":{"body":"hi"},"biz_opaque_callback_data":"order 17","recipient_identity_key_hash":"h"}`,
}

// Whatever is valid comes to the Cloud API as its caller wrote it, by the ingress and by the gateway's own API.
func TestEveryMessageComesAsItWasWritten(t *testing.T) {
	p := newPath(t)
	bodies := shared(t, "valid")
	for name, body := range odd {
		bodies[name] = []byte(body)
	}
	all, err := messages.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		bodies[e.Name] = e.Body
	}
	type sent struct {
		name, way string
		body      []byte
	}
	ids := map[string]sent{}
	for _, name := range slices.Sorted(maps.Keys(bodies)) {
		body := bodies[name]
		m := decoded(t, body)
		if m["status"] == "read" {
			p.receipt(name, body)
			continue
		}
		status, answer := p.post(ingress, string(body))
		var graph struct {
			Contacts []struct {
				Input  string `json:"input"`
				WAID   string `json:"wa_id"`
				UserID string `json:"user_id"`
			} `json:"contacts"`
			Messages []struct {
				ID string `json:"id"`
			} `json:"messages"`
		}
		if err := json.Unmarshal([]byte(answer), &graph); err != nil || status != http.StatusOK || len(graph.Contacts) != 1 || len(graph.Messages) != 1 {
			t.Errorf("%s by the ingress: %d %s", name, status, answer)
			continue
		}
		input := fmt.Sprint(m["to"])
		if m["to"] == nil {
			input = fmt.Sprint(m["recipient"])
		}
		if c := graph.Contacts[0]; c.Input != input || (c.WAID == "") == (c.UserID == "") || (c.UserID != "") != (m["to"] == nil) {
			t.Errorf("%s: contacts %+v of %s", name, c, input)
		}
		ids[graph.Messages[0].ID] = sent{name, ingress, body}

		// The gateway's own API wants from, and a number with its country code.
		m["from"], m["gateway"] = from, map[string]any{"reference": name}
		if to, ok := m["to"].(json.Number); ok {
			m["to"] = to.String()
		}
		if to, ok := m["to"].(string); ok && m["recipient_type"] != "group" && !strings.HasPrefix(to, "+") {
			m["to"] = "+" + to
		}
		body, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		status, answer = p.post(own, string(body))
		var accepted struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal([]byte(answer), &accepted); err != nil || status != http.StatusAccepted {
			t.Errorf("%s by %s: %d %s", name, own, status, answer)
			continue
		}
		ids[accepted.ID] = sent{name, own, body}
	}
	ledger := p.accepted(len(ids))
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, s := range ids {
		a, ok := ledger[id]
		if !ok || a.Try != 1 || a.Phone != from || a.API != "" {
			t.Errorf("%s by %s: the ledger has %+v", s.name, s.way, a)
			continue
		}
		token := fmt.Sprintf("g1:%s:%d", id, a.Try)
		came := p.came[token]
		if got, want := decoded(t, came.body), wanted(t, s.body, token); came.path != ingress || !reflect.DeepEqual(got, want) {
			t.Errorf("%s by %s: came to %s as\n%s\nwant\n%s", s.name, s.way, came.path, came.body, s.body)
		}
	}
	if l := p.sim.Ledger(); l.Totals.Accepted != int64(len(ids)) || l.Totals.Refused != 0 || l.Totals.Duplicates != 0 {
		t.Errorf("the ledger: %+v", l.Totals)
	}
}

// receipt sends a read receipt, which goes to Meta at once and is no message.
func (p *path) receipt(name string, body []byte) {
	p.t.Helper()
	if status, answer := p.post(ingress, string(body)); status != http.StatusOK || strings.TrimSpace(answer) != `{"success":true}` {
		p.t.Errorf("%s: %d %s", name, status, answer)
		return
	}
	m := decoded(p.t, body)
	p.mu.Lock()
	came := p.came[fmt.Sprint(m["message_id"])]
	p.mu.Unlock()
	if !reflect.DeepEqual(decoded(p.t, came.body), m) {
		p.t.Errorf("%s came as %s", name, came.body)
	}
	m["from"] = from
	raw, err := json.Marshal(m)
	if err != nil {
		p.t.Fatal(err)
	}
	if status, answer := p.post(own, string(raw)); status != http.StatusUnprocessableEntity || !strings.Contains(answer, `"/status"`) {
		p.t.Errorf("%s by %s: %d %s", name, own, status, answer)
	}
}

var subscript = regexp.MustCompile(`\[([0-9]+)\]`)

// Whatever breaks a documented rule is refused with the field named, in either API's words, and costs no call.
func TestEveryFaultIsNamed(t *testing.T) {
	p := newPath(t)
	wrong := map[string][2]string{ // a body and the place of its fault
		"no recipient":        {`{"type":"text","text":{"body":"hi"}}`, "/to"},
		"no object":           {`"text"`, ""},
		"no JSON":             {`{"to":`, ""},
		"too many characters": {`{"to":"+16505551234","type":"text","text":{"body":"` + strings.Repeat("ü", 4097) + `"}}`, "/text/body"},
		"a row too many":      {`{"to":"+16505551234","type":"image","image":{"id":"1","link":"https://example.com"}}`, "/image"},
		"no language":         {`{"to":"+16505551234","type":"template","template":{"name":"a"}}`, "/template/language"},
		"another call":        {`{"to":"+16505551234","text":{"body":"hi"},"batch":"[]"}`, "/batch"},
	}
	if bodies := shared(t, "invalid"); len(bodies) > 0 {
		lines, err := csv.NewReader(bytes.NewReader(bodies["index.csv"])).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines[1:] {
			pointer := ""
			if line[2] != "$" {
				pointer = "/" + strings.ReplaceAll(subscript.ReplaceAllString(line[2], ".$1"), ".", "/")
			}
			wrong[line[0]] = [2]string{string(bodies[line[0]]), pointer}
		}
	}
	for name, c := range wrong {
		body, at := c[0], c[1]
		place := at
		if at == "" {
			place = "the body"
		}
		status, answer := p.post(ingress, body)
		var graph struct {
			Error struct {
				Code int `json:"code"`
				Data struct {
					Details string `json:"details"`
				} `json:"error_data"`
			} `json:"error"`
		}
		if err := json.Unmarshal([]byte(answer), &graph); err != nil || status != http.StatusBadRequest || graph.Error.Code != 100 || !strings.HasPrefix(graph.Error.Data.Details, place+": ") {
			t.Errorf("%s by the ingress: %d %s, want a fault at %q", name, status, answer, place)
		}
		for _, way := range []string{own, validate} {
			status, answer := p.post(way, withFrom(body))
			var problem struct {
				Errors []struct {
					Pointer string `json:"pointer"`
				} `json:"errors"`
			}
			if err := json.Unmarshal([]byte(answer), &problem); err != nil || (status != http.StatusUnprocessableEntity && (status != http.StatusBadRequest || at != "")) ||
				len(problem.Errors) == 0 || problem.Errors[0].Pointer != at {
				t.Errorf("%s by %s: %d %s, want a fault at %q", name, way, status, answer, at)
			}
		}
	}
	if l := p.sim.Ledger(); l.Totals.Accepted+l.Totals.Refused != 0 {
		t.Errorf("the simulator was asked: %+v", l.Totals)
	}
}

// withFrom makes a body one for the gateway's own API, where it is a message at all: it names its sender, and its recipient
// with the country code.
func withFrom(body string) string {
	var m map[string]json.RawMessage
	if json.Unmarshal([]byte(body), &m) != nil || m == nil {
		return body
	}
	m["from"] = json.RawMessage(`"` + from + `"`)
	if to := string(m["to"]); len(to) > 2 && to[0] == '"' && to[1] >= '0' && to[1] <= '9' {
		m["to"] = json.RawMessage(`"+` + to[1:])
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return body
	}
	return string(raw)
}

// A marketing message goes to the endpoint of its own, with its own fields, and is priced as such; by its answer's wamid the
// caller knows it, where the WABA is set so.
func TestMarketingMessagesGoToTheirEndpoint(t *testing.T) {
	p := newPath(t)
	p.must(http.MethodPatch, "/v1/wabas/"+waba, `{"ingress_answer":"wamid","ingress_wait_seconds":30,"opaque_as_idempotency_key":true}`)
	const body = `{"messaging_product":"whatsapp","to":"16505551234","type":"template","template":{"name":"sale","language":{"code":"en"}},` +
		`"product_policy":"CLOUD_API_FALLBACK","message_activity_sharing":true,"biz_opaque_callback_data":"spring 1"}`
	for range 2 { // the second is the same message
		status, answer := p.post(lite, body)
		if status != http.StatusOK || !strings.Contains(answer, `"id":"wamid.`) {
			t.Fatalf("%d %s", status, answer)
		}
	}
	ledger := p.accepted(1)
	for id, a := range ledger {
		token := "g1:" + id + ":1"
		p.mu.Lock()
		came := p.came[token]
		p.mu.Unlock()
		if len(ledger) != 1 || a.API != "marketing_messages" || a.Template != "sale" || came.path != lite || !reflect.DeepEqual(decoded(t, came.body), wanted(t, []byte(body), token)) {
			t.Errorf("the ledger: %+v; came to %s as %s", ledger, came.path, came.body)
		}
		p.priced(id, "marketing_lite")
	}
}

// priced waits until a message has its price.
func (p *path) priced(id, category string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		status, answer := p.ask(http.MethodGet, own+"/"+id, "")
		var m struct {
			API     string `json:"api"`
			Pricing *struct {
				Category string `json:"category"`
			} `json:"pricing"`
		}
		if err := json.Unmarshal([]byte(answer), &m); err != nil || status != http.StatusOK || m.API != "marketing_messages" {
			p.t.Fatalf("%d %s", status, answer)
		}
		if m.Pricing != nil {
			if m.Pricing.Category != category {
				p.t.Errorf("priced as %s", answer)
			}
			return
		}
		select {
		case <-ctx.Done():
			p.t.Fatalf("no price: %s", answer)
		case <-tick.C:
		}
	}
}
