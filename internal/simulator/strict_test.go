package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
)

// send posts a message body from phone number 1.
func send(t *testing.T, s *Server, edge, body string) reply {
	t.Helper()
	return do(t.Context(), t, s, post, "/v23.0/1/"+edge, body, nil)
}

func TestStrictTemplates(t *testing.T) {
	s := New(Config{})
	s.SetPhone("1", PhoneConfig{WABAID: "10"})
	s.SetPhone("2", PhoneConfig{WABAID: "11"})
	create := func(body string) string {
		return fmt.Sprint(okay(t, s, post, "/v23.0/10/message_templates", body)["id"])
	}
	paused := create(templateBody("paused", "en", "UTILITY", "Hello."))
	disabled := create(templateBody("disabled", "en", "UTILITY", "Hello."))
	rejected := create(templateBody("rejected", "en", "UTILITY", "Hello."))
	must(t, s.SetTemplate(paused, "PAUSED", "", ""))
	must(t, s.SetTemplate(disabled, "DISABLED", "", ""))
	must(t, s.SetTemplate(rejected, "REJECTED", "SCAM", ""))
	create(templateBody("two", "en", "MARKETING", "Hello {{1}}, it is {{2}} now, {{1}}."))
	create(`{"name":"named","language":"en","category":"UTILITY","parameter_format":"NAMED","components":[{"type":"BODY","text":"Hello {{who}}, it is {{day}} now."}]}`)
	create(`{"name":"rich","language":"en","category":"UTILITY","components":[{"type":"HEADER","format":"IMAGE"},{"type":"BODY","text":"Hello."},
		{"type":"BUTTONS","buttons":[{"type":"QUICK_REPLY","text":"Yes"},{"type":"URL","text":"Track","url":"https://x.example/{{1}}"}]}]}`)
	create(`{"name":"code","language":"en","category":"AUTHENTICATION","components":[{"type":"BODY"},{"type":"BUTTONS","buttons":[{"type":"OTP","otp_type":"COPY_CODE"}]}]}`)
	create(`{"name":"cards","language":"en","category":"MARKETING","components":[{"type":"BODY","text":"Hello."},{"type":"CAROUSEL","cards":[{},{}]}]}`)

	body := func(params ...string) string {
		out := `{"type":"body","parameters":[`
		for i, p := range params {
			if i > 0 {
				out += ","
			}
			out += p
		}
		return out + `]}`
	}
	const word, link = `{"type":"text","text":"x"}`, `{"type":"image","image":{"link":"https://x.example/a.png"}}`
	const header = `{"type":"header","parameters":[` + link + `]}`
	const button = `{"type":"button","sub_type":"url","index":"1","parameters":[` + word + `]}`
	named := func(name string) string {
		return `{"type":"text","text":"x","parameter_name":"` + name + `"}`
	}
	cases := []struct {
		name, language, components string
		status, code               int
	}{
		{"none", "en", "[]", 404, 132001},
		{"two", "fr", "[" + body(word, word) + "]", 404, 132001},
		{"rejected", "en", "[]", 404, 132001},
		{"paused", "en", "[]", 400, 132015},
		{"disabled", "en", "[]", 400, 132016},
		{"two", "en", "[" + body(word) + "]", 400, 132000},
		{"two", "en", "[" + body(word, word, word) + "]", 400, 132000},
		{"two", "en", "[]", 400, 132000},
		{"two", "en", "[" + body(word, word) + "]", 200, 0},
		{"named", "en", "[" + body(named("day"), named("who")) + "]", 200, 0},
		{"named", "en", "[" + body(named("day"), named("name")) + "]", 400, 132000},
		{"rich", "en", "[" + header + "," + button + "]", 200, 0},
		{"rich", "en", "[" + button + "]", 400, 132012},
		{"rich", "en", `[{"type":"header","parameters":[` + word + `]},` + button + "]", 400, 132012},
		{"rich", "en", "[" + header + "]", 400, 131008},
		{"code", "en", "[" + body(word) + `,{"type":"button","sub_type":"URL","index":0,"parameters":[` + word + "]}]", 200, 0},
		{"code", "en", "[" + body(word) + "]", 400, 131008},
		{"cards", "en", `[{"type":"carousel","cards":[{},{}]}]`, 200, 0},
		{"cards", "en", `[{"type":"carousel","cards":[{}]}]`, 400, 132000},
	}
	for _, tt := range cases { // any template is taken until this is wanted
		if rep := send(t, s, "messages", templateMessage(tt.name, tt.language, tt.components)); rep.status != 200 {
			t.Errorf("%s without strictness: %s", tt.name, rep.raw)
		}
	}
	if rep := do(t.Context(), t, s, http.MethodPut, "/_sim/strict_templates", `{"on":true}`, nil); rep.status != 204 {
		t.Fatalf("control: %s", rep.raw)
	}
	accepted := s.Ledger().Totals.Accepted
	for _, tt := range cases {
		rep := send(t, s, "messages", templateMessage(tt.name, tt.language, tt.components))
		if rep.status != tt.status || rep.code() != tt.code {
			t.Errorf("%s %s %s: %d %s", tt.name, tt.language, tt.components, rep.status, rep.raw)
		}
		if rep.status == 200 {
			accepted++
		}
	}
	if got := s.Ledger().Totals; got.Accepted != accepted || got.ThrottledLimit != 0 || got.Refused != int64(len(cases))-5 {
		t.Errorf("totals %+v", got)
	}
	if rep := send(t, s, "marketing_messages", templateMessage("named", "en", "[]")); rep.code() != 134100 {
		t.Errorf("no marketing: %s", rep.raw)
	}
	if rep := do(t.Context(), t, s, post, "/v23.0/2/messages", templateMessage("two", "en", "["+body(word, word)+"]"), nil); rep.code() != 132001 {
		t.Errorf("another account's: %s", rep.raw)
	}
	if rep := send(t, s, "messages", text("1234", "")); rep.status != 200 {
		t.Errorf("a text: %s", rep.raw)
	}
	// Strictness holds for edits and deleted names, too.
	id := create(templateBody("edited", "en", "UTILITY", "Hello."))
	edit := func() int {
		rep, _ := ask(t, s, post, "/v23.0/"+id, `{"components":[{"type":"BODY","text":"Hi."}]}`, nil)
		return rep.status
	}
	if edit() != 200 || edit() != 400 {
		t.Error("an approved template is edited twice a day")
	}
	okay(t, s, del, "/v23.0/10/message_templates?name=edited", "")
	if rep, _ := ask(t, s, post, "/v23.0/10/message_templates", templateBody("edited", "en", "UTILITY", "Hello."), nil); rep.status != 400 || rep.body.Error.Subcode != 2388023 {
		t.Errorf("a deleted name: %s", rep.raw)
	}
}

// TestMediaInMessages: what becomes of messages with files, by id and by link.
func TestMediaInMessages(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		t, s := r.t, r.s
		s.SetPhone("2", PhoneConfig{WABAID: "10"})
		good, over := uploadMedia(t, s, "1", "image/png", []byte("x")), uploadMedia(t, s, "1", "image/png", []byte("x"))
		other := uploadMedia(t, s, "2", "image/png", []byte("x"))
		must(t, s.ExpireMedia(over, 0))
		message := func(typ string, content any) string {
			raw, err := json.Marshal(map[string]any{"messaging_product": "whatsapp", "to": "+16505551234", "type": typ, typ: content})
			must(t, err)
			return string(raw)
		}
		file := func(id string) map[string]any { return map[string]any{"id": id} }
		inTemplate := func(id string) map[string]any {
			return map[string]any{"name": "x", "components": []any{map[string]any{"type": "header", "parameters": []any{map[string]any{"type": "image", "image": file(id)}}}}}
		}
		inHeader := func(id string) map[string]any {
			return map[string]any{"type": "button", "header": map[string]any{"type": "video", "video": file(id)}}
		}
		link := message("document", map[string]any{"link": "https://files.example/a.pdf"})
		// fate is what a send comes to: the code of its answer, of its webhook, or 0.
		fate := func(body string) (answered, told int) {
			t.Helper()
			rep := send(t, s, "messages", body)
			r.quiet()
			for _, st := range r.hookStatuses(rep.wamid()) {
				if st.Status == "failed" {
					told = st.Errors[0].Code
				}
			}
			return rep.code(), told
		}
		check := func(why, body string, answered, told int) {
			t.Helper()
			if a, b := fate(body); a != answered || b != told {
				t.Errorf("%s: answered %d and told %d, want %d and %d", why, a, b, answered, told)
			}
		}
		check("a live file", message("image", file(good)), 0, 0)
		check("an unknown file", message("image", file("123")), 0, 0)
		check("another number's file", message("image", file(other)), 0, 0)
		check("an expired file", message("image", file(over)), 0, 131053)
		check("an expired file in a template", message("template", inTemplate(over)), 0, 131053)
		check("an expired file in a header", message("interactive", inHeader(over)), 0, 131053)
		check("a link", link, 0, 0)
		check("the id in a text", message("text", map[string]any{"body": over, "id": over}), 0, 0)

		put := func(path, body string) {
			t.Helper()
			if rep := do(t.Context(), t, s, http.MethodPut, path, body, nil); rep.status != 204 {
				t.Fatalf("%s: %s", path, rep.raw)
			}
		}
		put("/_sim/strict_media", `{"on":true,"gone":"answer"}`)
		check("strict: a live file", message("image", file(good)), 0, 0)
		check("strict: an unknown file", message("image", file("123")), 100, 0)
		check("strict: another number's file", message("template", inTemplate(other)), 100, 0)
		check("strict: an expired file", message("audio", file(over)), 100, 0)
		if rep := send(t, s, "messages", message("template", inTemplate(other))); rep.body.Error.Message !=
			"(#100) Param template['components'][0]['parameters'][0]['image']['id'] is not a valid whatsapp business account media attachment ID" {
			t.Errorf("message %s", rep.raw)
		}
		put("/_sim/strict_media", `{"on":false}`)
		check("lenient again: an expired file", message("image", file(over)), 0, 131053)
		put("/_sim/links", `{"fail":true,"containing":"bad.example"}`)
		check("another link", link, 0, 0)
		put("/_sim/links", `{"fail":true}`)
		check("a link that cannot be fetched", link, 0, 131053)
		put("/_sim/links", `{"fail":false}`)
		check("a link again", link, 0, 0)
		okay(t, s, del, "/v23.0/"+good, "")
		check("a deleted file", message("image", file(good)), 0, 131053)
		if s.StrictMedia(true, "later") == nil {
			t.Error("an unknown way was taken")
		}
	})
}

// TestWhoCannotSend: a number that was deregistered, and users on its block list.
func TestWhoCannotSend(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		t, s := r.t, r.s
		must(t, s.Inbound(InboundMessages{Phone: "1", From: "16505551234", Count: 1}))
		block := `{"messaging_product":"whatsapp","block_users":[{"user":"16505551234"}]}`
		okay(t, s, post, "/v23.0/1/block_users", block)
		if a, b := send(t, s, "messages", text("1234", "")), send(t, s, "messages", text("1235", "")); a.code() != 130403 || b.status != 200 {
			t.Errorf("blocked: %s, not blocked: %s", a.raw, b.raw)
		}
		okay(t, s, del, "/v23.0/1/block_users", block)
		if rep := send(t, s, "messages", text("1234", "")); rep.status != 200 {
			t.Errorf("unblocked: %s", rep.raw)
		}
		okay(t, s, post, "/v23.0/1/deregister", "")
		if rep := send(t, s, "messages", text("1235", "")); rep.code() != 133010 {
			t.Errorf("deregistered: %s", rep.raw)
		}
		pass(wroteIn)
		if rep, _ := ask(t, s, post, "/v23.0/1/block_users", block, nil); rep.status != 400 || rep.code() != 139100 {
			t.Errorf("a day later: %s", rep.raw)
		}
		s.Reset()
		if rep := send(t, s, "messages", text("1235", "")); rep.status != 200 {
			t.Errorf("after a reset: %s", rep.raw)
		}
	})
}
