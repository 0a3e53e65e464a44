package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// notices are the values of the webhooks of a field, in the order of their POSTs.
func (r *rig) notices(field string) (out []map[string]any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.posts {
		var body struct {
			Entry []struct {
				ID      string
				Changes []struct {
					Field string
					Value map[string]any
				}
			}
		}
		if err := json.Unmarshal(p.body, &body); err != nil {
			r.t.Fatal(err)
		}
		for _, e := range body.Entry {
			for _, c := range e.Changes {
				if c.Field == field {
					c.Value["waba"] = e.ID
					out = append(out, c.Value)
				}
			}
		}
	}
	return out
}

func (r *rig) events() (out []string) {
	for _, n := range r.notices(templateField) {
		out = append(out, fmt.Sprint(n["event"]))
	}
	return out
}

// TestATemplatesLife: create, list, get, edit, delete, and the webhooks of its reviews.
func TestATemplatesLife(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		t := r.t
		s := r.s
		s.SetPhone("1", PhoneConfig{WABAID: "10"})
		must(t, s.ReviewTemplates(TemplateReview{Delay: time.Minute}))
		created := okay(t, s, post, "/v23.0/10/message_templates", templateBody("welcome", "en_US", "utility", "Hello {{1}}, welcome."))
		id, _ := created["id"].(string)
		if created["status"] != "PENDING" || created["category"] != "UTILITY" {
			t.Errorf("created %v", created)
		}
		status := func() any { return okay(t, s, read, "/v23.0/"+id+"?fields=status", "")["status"] }
		edit := func(body string) (reply, map[string]any) { return ask(t, s, post, "/v23.0/"+id, body, nil) }
		if rep, _ := edit(`{"category":"MARKETING"}`); rep.status != 400 || rep.body.Error.Subcode != 2388039 {
			t.Errorf("editing in review: %s", rep.raw)
		}
		pass(time.Minute - 1)
		synctest.Wait()
		if status() != "PENDING" || len(r.events()) != 0 {
			t.Errorf("before its time: %v, %v", status(), r.events())
		}
		pass(time.Second)
		synctest.Wait()
		n := r.notices(templateField)
		if status() != "APPROVED" || len(n) != 1 {
			t.Fatalf("after a minute: %v, %v", status(), n)
		}
		if v := n[0]; v["event"] != "APPROVED" || fmt.Sprintf("%.0f", v["message_template_id"]) != id || v["message_template_name"] != "welcome" ||
			v["message_template_language"] != "en_US" || v["message_template_category"] != "UTILITY" || v["reason"] != "NONE" || v["waba"] != "10" {
			t.Errorf("webhook %v", v)
		}
		if r.posts[0].signature != sign(testSecret, r.posts[0].body) {
			t.Error("the webhook's signature is wrong")
		}

		if rep, _ := edit(`{"category":"MARKETING"}`); rep.status != 400 || rep.body.Error.Subcode != 2388039 {
			t.Errorf("another category for an approved template: %s", rep.raw)
		}
		must(t, s.ReviewTemplates(TemplateReview{Decision: "REJECTED", Reason: "INVALID_FORMAT"}))
		if rep, _ := edit(`{"components":[{"type":"BODY","text":"Hello {{1}}, hello."}]}`); rep.status != 200 {
			t.Fatalf("editing: %s", rep.raw)
		}
		got := okay(t, s, read, "/v23.0/"+id+"?fields=status,rejected_reason,components", "")
		if got["status"] != "REJECTED" || got["rejected_reason"] != "INVALID_FORMAT" || at(got, "components.0.text") != "Hello {{1}}, hello." {
			t.Errorf("edited %v", got)
		}
		r.quiet()
		if n := r.notices(templateField); len(n) != 2 || n[1]["event"] != "REJECTED" || at(n[1], "rejection_info.reason") == nil {
			t.Errorf("webhooks %v", n)
		}
		must(t, s.ReviewTemplates(TemplateReview{}))
		if rep, _ := edit(`{"category":"MARKETING","message_send_ttl_seconds":43200}`); rep.status != 200 {
			t.Errorf("another category for a rejected template: %s", rep.raw)
		}
		got = okay(t, s, read, "/v23.0/"+id+"?fields=status,category,previous_category,message_send_ttl_seconds", "")
		if got["status"] != "APPROVED" || got["category"] != "MARKETING" || got["previous_category"] != "UTILITY" || got["message_send_ttl_seconds"] != 43200.0 {
			t.Errorf("edited again %v", got)
		}

		if rep, _ := ask(t, s, post, "/v23.0/10/message_templates", templateBody("welcome", "en_US", "UTILITY", "Hello."), nil); rep.status != 400 || rep.body.Error.Subcode != 2388024 || !strings.Contains(rep.raw, "error_user_title") {
			t.Errorf("a second one: %s", rep.raw)
		}
		okay(t, s, post, "/v23.0/10/message_templates", templateBody("welcome", "es", "UTILITY", "Hola."))
		okay(t, s, post, "/v23.0/10/message_templates", templateBody("other", "es", "UTILITY", "Hola."))
		okay(t, s, del, "/v23.0/10/message_templates?name=welcome", "")
		if rep, _ := ask(t, s, read, "/v23.0/"+id, "", nil); rep.status != 404 {
			t.Errorf("a deleted template: %d", rep.status)
		}
		if got := okay(t, s, read, "/v23.0/10/message_templates", ""); at(got, "data.0.name") != "other" || at(got, "data.1") != nil {
			t.Errorf("the rest %v", got)
		}
	})
}

// TestADeletedTemplateIsNotApproved: no webhook tells of a review that was withdrawn.
func TestADeletedTemplateIsNotApproved(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		t := r.t
		r.s.SetPhone("1", PhoneConfig{WABAID: "10"})
		must(t, r.s.ReviewTemplates(TemplateReview{Delay: time.Minute}))
		okay(t, r.s, post, "/v23.0/10/message_templates", templateBody("a", "en", "UTILITY", "Hello."))
		id := okay(t, r.s, post, "/v23.0/10/message_templates", templateBody("b", "en", "UTILITY", "Hello."))["id"]
		okay(t, r.s, del, "/v23.0/10/message_templates?name=a", "")
		must(t, r.s.SetTemplate(fmt.Sprint(id), "PAUSED", "", "RED"))
		pass(2 * time.Minute)
		r.quiet()
		if got := r.events(); fmt.Sprint(got) != "[PAUSED]" {
			t.Errorf("webhooks %v", got)
		}
		q := r.notices("message_template_quality_update")
		if len(q) != 1 || q[0]["previous_quality_score"] != "UNKNOWN" || q[0]["new_quality_score"] != "RED" || q[0]["event"] != nil {
			t.Errorf("quality %v", q)
		}
		if got := okay(t, r.s, read, fmt.Sprint("/v23.0/", id, "?fields=status,quality_score"), ""); got["status"] != "PAUSED" || at(got, "quality_score.score") != "RED" {
			t.Errorf("template %v", got)
		}
		if got := okay(t, r.s, post, fmt.Sprint("/v23.0/", id, "/unpause"), ""); got["success"] != true {
			t.Errorf("unpaused %v", got)
		}
		r.quiet()
		n := r.notices(templateField)
		if last := n[len(n)-1]; last["event"] != "APPROVED" || at(last, "other_info.title") != "UNPAUSED" {
			t.Errorf("webhook %v", last)
		}
		if pending, _ := r.s.queue.counts(); pending != 0 || r.s.queue.notices != 0 {
			t.Errorf("%d pending, %d notices", pending, r.s.queue.notices)
		}
	})
}

func TestTemplatesRefused(t *testing.T) {
	s := New(Config{})
	s.SetPhone("1", PhoneConfig{WABAID: "10"})
	components := func(list string) string {
		return `{"name":"x","language":"en","category":"UTILITY","components":` + list + `}`
	}
	for _, tt := range []struct {
		why, body string
		subcode   int
	}{
		{"no name", `{"language":"en","category":"UTILITY","components":[{"type":"BODY","text":"x"}]}`, 0},
		{"a wrong name", templateBody("Welcome", "en", "UTILITY", "x"), 0},
		{"a long name", templateBody(strings.Repeat("x", 513), "en", "UTILITY", "x"), 0},
		{"no language", templateBody("x", "", "UTILITY", "x"), 0},
		{"a wrong language", templateBody("x", "English", "UTILITY", "x"), 0},
		{"a wrong category", templateBody("x", "en", "FUN", "x"), 0},
		{"no components", components(`[]`), 0},
		{"components of another form", components(`"x"`), 0},
		{"an unknown component", components(`[{"type":"TAIL"}]`), 0},
		{"no body", components(`[{"type":"FOOTER","text":"x"}]`), 2388072},
		{"two bodies", components(`[{"type":"BODY","text":"x"},{"type":"body","text":"x"}]`), 0},
		{"a long body", templateBody("x", "en", "UTILITY", strings.Repeat("é", 1025)), 2388040},
		{"a variable at the end", templateBody("x", "en", "UTILITY", "Hello {{1}}"), 2388299},
		{"a gap in the variables", templateBody("x", "en", "UTILITY", "Hello {{1}} and {{3}}."), 2388072},
		{"names for numbers", templateBody("x", "en", "UTILITY", "Hello {{name}}."), 2388072},
		{"a long header", components(`[{"type":"BODY","text":"x"},{"type":"HEADER","format":"TEXT","text":"` + strings.Repeat("x", 61) + `"}]`), 2388047},
		{"an unknown header", components(`[{"type":"BODY","text":"x"},{"type":"HEADER","format":"SOUND"}]`), 2388047},
		{"a long footer", components(`[{"type":"BODY","text":"x"},{"type":"FOOTER","text":"` + strings.Repeat("x", 61) + `"}]`), 2388073},
		{"many buttons", components(`[{"type":"BODY","text":"x"},{"type":"BUTTONS","buttons":[` + strings.Repeat(`{"type":"QUICK_REPLY","text":"x"},`, 10) + `{"type":"QUICK_REPLY","text":"x"}]}]`), 0},
		{"a long button", components(`[{"type":"BODY","text":"x"},{"type":"BUTTONS","buttons":[{"type":"QUICK_REPLY","text":"` + strings.Repeat("x", 26) + `"}]}]`), 2388040},
		{"one card", components(`[{"type":"BODY","text":"x"},{"type":"CAROUSEL","cards":[{}]}]`), 0},
		{"no such one in the library", `{"name":"x","language":"en_US","category":"UTILITY","library_template_name":"none"}`, 0},
		{"too few buttons for the library", `{"name":"x","language":"en_US","category":"UTILITY","library_template_name":"delivery_update_1"}`, 0},
	} {
		rep, _ := ask(t, s, post, "/v23.0/10/message_templates", tt.body, nil)
		if rep.status != 400 || rep.code() != 100 || rep.body.Error.Subcode != tt.subcode {
			t.Errorf("%s: %d %s", tt.why, rep.status, rep.raw)
		}
	}
	if n := len(s.managed.templates); n != 0 {
		t.Errorf("%d templates", n)
	}
	okay(t, s, post, "/v23.0/10/message_templates", `{"name":"named","language":"en","category":"UTILITY","parameter_format":"named","components":[{"type":"BODY","text":"Hello {{first_name}}!"}]}`)
}

func TestTemplatesAreBounded(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		t := r.t
		s := r.s
		s.SetPhone("1", PhoneConfig{WABAID: "10"})
		must(t, s.ReviewTemplates(TemplateReview{Max: 3, PerHour: 2}))
		create := func(i int) reply {
			rep, _ := ask(t, s, post, "/v23.0/10/message_templates", templateBody(fmt.Sprint("t", i), "en", "UTILITY", "Hello."), nil)
			return rep
		}
		for i, want := range []int{0, 0, 80008} {
			if rep := create(i); rep.code() != want {
				t.Errorf("%d: %s", i, rep.raw)
			}
		}
		pass(time.Hour)
		for i, want := range []int{0, 2388019} {
			if rep := create(10 + i); want == 0 && rep.status != 200 || want != 0 && rep.body.Error.Subcode != want {
				t.Errorf("after an hour %d: %s", i, rep.raw)
			}
		}
		for _, bad := range []TemplateReview{{Delay: -1}, {Delay: 25 * time.Hour}, {Decision: "PAUSED"}, {Max: -1}, {PerHour: -1}, {Reason: strings.Repeat("x", 65)}} {
			if s.ReviewTemplates(bad) == nil {
				t.Errorf("%+v was taken", bad)
			}
		}
	})
}

func TestMigratingAndUpserting(t *testing.T) {
	s := New(Config{})
	s.SetPhone("1", PhoneConfig{WABAID: "10"})
	s.SetPhone("2", PhoneConfig{WABAID: "11"})
	var ids []string
	for i := range 5 {
		ids = append(ids, fmt.Sprint(okay(t, s, post, "/v23.0/10/message_templates", templateBody(fmt.Sprint("t", i), "en", "UTILITY", "Hello."))["id"]))
	}
	must(t, s.SetTemplate(ids[1], "PAUSED", "", ""))
	must(t, s.SetTemplate(ids[2], "", "", "RED"))
	got := okay(t, s, post, "/v23.0/11/migrate_message_templates", `{"source_waba_id":"10","count":3,"page_number":0}`)
	if at(got, "migrated_templates.0") != ids[0] || at(got, "migrated_templates.1") != nil || at(got, "failed_templates."+ids[1]) == nil || at(got, "failed_templates."+ids[2]) == nil {
		t.Errorf("first page %v", got)
	}
	got = okay(t, s, post, "/v23.0/11/migrate_message_templates", `{"source_waba_id":10,"count":3,"page_number":1}`)
	if at(got, "migrated_templates.1") != ids[4] || at(got, "migrated_templates.2") != nil {
		t.Errorf("second page %v", got)
	}
	got = okay(t, s, post, "/v23.0/11/migrate_message_templates", `{"source_waba_id":"10","template_ids":["`+ids[4]+`"]}`)
	if at(got, "failed_templates."+ids[4]) == nil {
		t.Errorf("again %v", got)
	}
	if got := okay(t, s, read, "/v23.0/11/message_templates", ""); len(at(got, "data").([]any)) != 3 || at(got, "data.0.id") == ids[0] {
		t.Errorf("there: %v", got)
	}
	upsert := func(minutes int) map[string]any {
		return okay(t, s, post, "/v23.0/10/upsert_message_templates", fmt.Sprintf(`{"name":"code","languages":["en_US","fr"],"category":"AUTHENTICATION",
			"components":[{"type":"BODY"},{"type":"FOOTER","code_expiration_minutes":%d},{"type":"BUTTONS","buttons":[{"type":"OTP","otp_type":"COPY_CODE"}]}]}`, minutes))
	}
	first, second := upsert(5), upsert(9)
	if at(first, "data.1.id") != at(second, "data.1.id") || at(second, "data.1.language") != "fr" {
		t.Errorf("upserts %v, %v", first, second)
	}
	if got := okay(t, s, read, fmt.Sprint("/v23.0/", at(second, "data.0.id")), ""); at(got, "components.1.code_expiration_minutes") != 9.0 {
		t.Errorf("upserted %v", got)
	}
}

func TestComparingCountsSends(t *testing.T) {
	s := New(Config{})
	s.SetPhone("1", PhoneConfig{WABAID: "10"})
	s.SetPhone("2", PhoneConfig{WABAID: "11"})
	a := fmt.Sprint(okay(t, s, post, "/v23.0/10/message_templates", templateBody("a", "en", "UTILITY", "Hello."))["id"])
	b := fmt.Sprint(okay(t, s, post, "/v23.0/10/message_templates", templateBody("b", "en", "UTILITY", "Hello."))["id"])
	other := fmt.Sprint(okay(t, s, post, "/v23.0/11/message_templates", templateBody("a", "en", "UTILITY", "Hello."))["id"])
	for _, phone := range []string{"1", "1", "2"} {
		do(t.Context(), t, s, post, "/v23.0/"+phone+"/messages", templateMessage("a", "en", ""), nil)
	}
	got := okay(t, s, read, "/v23.0/"+a+"/compare?template_ids="+b+"&start=1674844791182&end=1677436791182", "")
	if at(got, "data.1.number_values.0.value") != 2.0 || at(got, "data.1.number_values.1.value") != 0.0 {
		t.Errorf("%v", got)
	}
	for _, query := range []string{"template_ids=" + other + "&start=1674844791&end=1675449591", "template_ids=" + b + "&start=1674844791&end=1675849591", "template_ids=[" + a + "," + b + "]&start=1674844791&end=1675449591"} {
		if rep, _ := ask(t, s, read, "/v23.0/"+a+"/compare?"+query, "", nil); rep.status != http.StatusBadRequest && rep.status != http.StatusNotFound {
			t.Errorf("%s: %s", query, rep.raw)
		}
	}
}

// templateMessage is the body of a template message with components, which may be empty.
func templateMessage(name, language, components string) string {
	if components == "" {
		components = "[]"
	}
	return `{"messaging_product":"whatsapp","to":"+16505551234","type":"template","template":{"name":"` + name + `","language":{"code":"` + language + `"},"components":` + components + `}}`
}
