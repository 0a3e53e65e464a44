package app_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/app"
	"wagate/internal/config"
	"wagate/internal/seal"
	"wagate/internal/simulator"
	"wagate/internal/store"
)

const templatesKey, templatesSecret = "an-admin-key-for-tests", "the-app-secret"

// templateRig is a gateway before a simulator whose webhooks reach it, with WABA 100 and number 101.
type templateRig struct {
	*rig
	*testing.T
	gateway, meta string
	client        *http.Client
}

func newTemplateRig(t *testing.T) *templateRig {
	t.Helper()
	r := &templateRig{rig: newRig(t, simulator.Config{}), T: t, client: &http.Client{Timeout: 30 * time.Second}}
	r.meta = r.cfg.GraphURL
	sealer, err := seal.New(r.cfg.SecretKey.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.st.PutApp(t.Context(), store.App{ID: "900", Secret: sealer.Seal([]byte(templatesSecret), seal.AppSecret("900"))}); err != nil {
		t.Fatal(err)
	}
	rate := 200.0
	r.phone(t, "100", "101", &rate)
	r.sim.SetPhone("101", simulator.PhoneConfig{WABAID: "100", PerSecond: -1})
	r.cfg.Listen, r.cfg.AdminKey = "127.0.0.1:0", config.NewSecret(templatesKey)
	g, err := app.StartGateway(t.Context(), r.cfg, r.pool, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	r.gateway = g.URL()
	t.Cleanup(func() {
		r.sim.SetWebhook("", "")
		r.client.CloseIdleConnections()
		if err := g.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	r.sim.SetWebhook(r.gateway+"/webhooks/whatsapp", templatesSecret)
	return r
}

// ask makes a call and gives its answer, which must have the status.
func (r *templateRig) ask(status int, method, address, body string) map[string]any {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), method, address, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+templatesKey)
	if !strings.HasPrefix(address, r.gateway) {
		req.Header.Set("Authorization", "Bearer token")
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := r.client.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		r.Fatalf("%s %s %s: %d %s, %v; want %d", method, address, body, resp.StatusCode, raw, err, status)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		r.Fatalf("%s %s: %s", method, address, raw)
	}
	return out
}

// create makes a template at base, which is Meta's or the gateway's address, and gives its id.
func (r *templateRig) create(base, name, language, category, components string) string {
	r.Helper()
	id, _ := r.ask(http.StatusOK, "POST", base+"/v23.0/100/message_templates",
		fmt.Sprintf(`{"name":%q,"language":%q,"category":%q,"components":%s}`, name, language, category, components))["id"].(string)
	return id
}

// told waits for the webhooks of so many templates: one that comes after a list leaves their components in doubt.
func (r *templateRig) told(n int) {
	r.Helper()
	r.until(r.T, "the webhooks", func() bool { return r.count(r.T, `SELECT count(*) FROM templates`) == n })
}

// refresh reads the list now, as if what came before it had been some time ago.
func (r *templateRig) refresh() map[string]any {
	r.Helper()
	r.age("1 minute")
	return r.ask(http.StatusOK, "GET", r.gateway+"/v1/templates?waba_id=100&refresh=true", "")
}

func (r *templateRig) age(by string) {
	r.Helper()
	for _, sql := range []string{
		`UPDATE templates SET status_at = status_at - $1::text::interval, category_at = category_at - $1::text::interval, quality_at = quality_at - $1::text::interval,
			components_at = components_at - $1::text::interval, doubted_at = doubted_at - $1::text::interval`,
		`UPDATE template_syncs SET synced_at = synced_at - $1::text::interval, stale_at = stale_at - $1::text::interval, version = version + 1`,
		`UPDATE pauses SET updated_at = updated_at - $1::text::interval`,
	} {
		if _, err := r.pool.Exec(r.Context(), sql, by); err != nil {
			r.Fatal(err)
		}
	}
}

func (r *templateRig) message(name, language, components, gateway string) string {
	if components != "" {
		components = `,"components":[` + components + `]`
	}
	if gateway != "" {
		gateway = `,"gateway":` + gateway
	}
	return fmt.Sprintf(`{"from":"101","to":"+12025550123","type":"template","template":{"name":%q,"language":{"code":%q}%s}%s}`, name, language, components, gateway)
}

// verdict posts a message and gives "" where it was taken, else codes and pointers.
func (r *templateRig) verdict(path, body string) string {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, r.gateway+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+templatesKey)
	resp, err := r.client.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		r.Fatal(err)
	}
	var out struct {
		Errors []struct {
			Pointer string
			Code    int
		}
		Error struct{ Code int }
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		r.Fatalf("%s: %s", body, raw)
	}
	var all []string
	for _, e := range out.Errors {
		all = append(all, fmt.Sprintf("%d %s", e.Code, e.Pointer))
	}
	switch {
	case resp.StatusCode == http.StatusUnprocessableEntity && len(all) > 0:
		return strings.Join(all, ", ")
	case resp.StatusCode < 300:
		return ""
	}
	return fmt.Sprintf("%d: %d", resp.StatusCode, out.Error.Code)
}

const (
	helloBody  = `[{"type":"BODY","text":"Hello {{1}}, that is {{2}} today."}]`
	twoSent    = `{"type":"body","parameters":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}`
	oneSent    = `{"type":"body","parameters":[{"type":"text","text":"a"}]}`
	imageBody  = `[{"type":"HEADER","format":"IMAGE"},{"type":"BODY","text":"Look"},{"type":"BUTTONS","buttons":[{"type":"URL","text":"Open","url":"https://shop.example/{{1}}"}]}]`
	imageSent  = `{"type":"header","parameters":[{"type":"image","image":{"id":"1"}}]}`
	buttonSent = `{"type":"button","sub_type":"url","index":"0","parameters":[{"type":"text","text":"x"}]}`
)

// A list of several pages is read by the worker that owns the WABA, and answers GET /v1/templates; messages that Meta would
// refuse are refused with its code, the same as the simulator gives where it is told to look.
func TestTemplatesAreReadAndChecked(t *testing.T) {
	r := newTemplateRig(t)
	for i := range 300 {
		r.create(r.meta, fmt.Sprintf("filler_%03d", i), "en", "MARKETING", `[{"type":"BODY","text":"Hello"}]`)
	}
	r.create(r.meta, "hello", "en_US", "UTILITY", helloBody)
	r.create(r.meta, "picture", "en", "MARKETING", imageBody)
	if err := r.sim.ReviewTemplates(simulator.TemplateReview{Decision: "REJECTED", Reason: "INVALID_FORMAT"}); err != nil {
		t.Fatal(err)
	}
	r.create(r.meta, "rejected", "en", "MARKETING", `[{"type":"BODY","text":"Hello"}]`)
	if err := r.sim.ReviewTemplates(simulator.TemplateReview{Delay: time.Hour}); err != nil {
		t.Fatal(err)
	}
	r.create(r.meta, "pending", "en", "MARKETING", `[{"type":"BODY","text":"Hello"}]`)
	r.told(303) // of the last one nothing is told yet
	r.worker(t)
	r.until(t, "the first list", func() bool {
		return r.count(t, `SELECT count(*) FROM template_syncs WHERE complete AND pages = 2`) == 1
	})
	list := r.ask(http.StatusOK, "GET", r.gateway+"/v1/templates?name=hello", "")
	one, _ := list["templates"].([]any)[0].(map[string]any)
	if list["complete"] != true || list["synced_at"] == nil || one["status"] != "APPROVED" || one["category"] != "UTILITY" || one["components_sure"] != true || one["components"] == nil || one["id"] == nil {
		t.Fatalf("%v", list)
	}

	r.sim.StrictTemplates(true)
	r.age("1 second") // whatever was told while the templates were made
	for _, c := range []struct{ name, language, components, want string }{
		{"hello", "en_US", twoSent, ""},
		{"hello", "en-us", twoSent, ""}, // Meta may take it
		{"hello", "en_US", oneSent, "132000 /template/components/0/parameters"},
		{"hello", "en_US", "", "132000 /template/components"},
		{"hello", "de", twoSent, "132001 /template/language/code"},
		{"picture", "en", imageSent + "," + buttonSent, ""},
		{"picture", "en", buttonSent, "132012 /template/components"},
		{"picture", "en", strings.Replace(imageSent, `"type":"image","image"`, `"type":"video","video"`, 1) + "," + buttonSent, "132012 /template/components/0/parameters/0/type"},
		{"picture", "en", imageSent, "131008 /template/components"},
		{"rejected", "en", "", "132001 /template/name"},
		{"pending", "en", "", "132001 /template/name"},
		{"never_seen", "en", "", ""}, // it may have been made a moment ago
	} {
		body := r.message(c.name, c.language, c.components, "")
		if got := r.verdict("/v1/messages/validate", body); got != c.want {
			t.Errorf("%s %s %s: %q, want %q", c.name, c.language, c.components, got, c.want)
		}
		// What is refused Meta refuses, with the same code.
		if c.want == "" {
			continue
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.meta+"/v23.0/101/messages", bytes.NewReader([]byte(strings.Replace(body, `{"from":"101"`, `{"messaging_product":"whatsapp"`, 1))))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer token")
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var meta struct{ Error struct{ Code int } }
		err = json.NewDecoder(resp.Body).Decode(&meta)
		_ = resp.Body.Close()
		if err != nil || !strings.HasPrefix(c.want, fmt.Sprint(meta.Error.Code)) {
			t.Errorf("%s %s %s: Meta says %d, %v; the gateway %s", c.name, c.language, c.components, meta.Error.Code, err, c.want)
		}
		// The Cloud API ingress answers as Meta does.
		want := fmt.Sprintf("%d: %d", resp.StatusCode, meta.Error.Code)
		if got := r.verdict("/v23.0/101/messages", strings.Replace(body, `"from":"101",`, "", 1)); got != want {
			t.Errorf("%s %s %s by the ingress: %q, want %q", c.name, c.language, c.components, got, want)
		}
	}

	// A template's category is its messages', with the priority of that; what the caller says goes before it.
	for body, want := range map[string]string{
		r.message("hello", "en_US", twoSent, ""):                                    "utility 3",
		r.message("picture", "en", imageSent+","+buttonSent, ""):                    "marketing 4",
		r.message("hello", "en_US", twoSent, `{"category":"authentication"}`):       "authentication 1",
		r.message("picture", "en", imageSent+","+buttonSent, `{"priority":"high"}`): "marketing 2",
		r.message("never_seen", "en", "", ""):                                       " 3",
	} {
		id, _ := r.ask(http.StatusAccepted, "POST", r.gateway+"/v1/messages", body)["id"].(string)
		var got string
		if err := r.pool.QueryRow(t.Context(), `SELECT coalesce(category, '') || ' ' || priority FROM messages WHERE id = $1::uuid`, id).Scan(&got); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", body, got, err, want)
		}
	}
	// So in a batch, which has its own results.
	batch := r.ask(http.StatusOK, "POST", r.gateway+"/v1/messages/batch", `{"messages":[`+r.message("hello", "en_US", twoSent, "")+`,`+r.message("hello", "en_US", oneSent, "")+`,`+r.message("never_seen", "en", "", "")+`]}`)
	results, _ := batch["results"].([]any)
	if first, second := results[0].(map[string]any), results[1].(map[string]any); first["error"] != nil || second["error"] == nil || results[2].(map[string]any)["error"] != nil {
		t.Errorf("a batch: %v", batch)
	}
	if got := r.count(t, `SELECT count(*) FROM messages WHERE template_name = 'hello' AND category = 'utility'`); got != 2 {
		t.Errorf("%d messages with the category of their template", got)
	}
}

// Nothing is refused by a list that is old, not whole, or from before a template was written; nor what goes out much later.
func TestWhatIsNotKnownPasses(t *testing.T) {
	r := newTemplateRig(t)
	r.create(r.meta, "hello", "en_US", "UTILITY", helloBody)
	wrong, other := r.message("hello", "en_US", oneSent, ""), r.message("hello", "de", twoSent, "")
	refused := func(what string, want bool) {
		t.Helper()
		for _, body := range []string{wrong, other} {
			if want { // what is new is known within two seconds; a refusal looks first whether it still holds
				r.until(t, what, func() bool { return r.verdict("/v1/messages/validate", body) != "" })
			} else if got := r.verdict("/v1/messages/validate", body); got != "" {
				t.Errorf("%s: %q", what, got)
			}
		}
	}
	refused("before the first list", false)
	r.told(1)
	r.refresh()
	refused("by a list", true)
	later := time.Now().Add(2 * time.Hour).UTC().Format(time.RFC3339)
	if got := r.verdict("/v1/messages/validate", r.message("hello", "de", twoSent, `{"send_at":"`+later+`"}`)); got != "" {
		t.Errorf("a language that may be there by then: %s", got)
	}
	if got := r.verdict("/v1/messages/validate", r.message("hello", "en_US", oneSent, `{"send_at":"`+later+`"}`)); got == "" {
		t.Error("the wrong number of parameters passes for later")
	}
	r.age("61 minutes")
	refused("by a list of an hour ago", false)
	r.refresh()
	refused("by a new list", true)

	// A language that was added a moment ago, at Meta or through the gateway, passes; also before its webhook came.
	r.create(r.gateway, "hello", "fr", "UTILITY", helloBody)
	refused("after a write through the gateway", false)
	if got := r.verdict("/v1/messages/validate", r.message("hello", "fr", twoSent, "")); got != "" {
		t.Errorf("the new language: %s", got)
	}
	r.refresh()
	refused("by a list of after it", true)
	r.create(r.meta, "hello", "it", "UTILITY", helloBody)
	r.until(t, "its webhook", func() bool { return r.count(t, `SELECT count(*) FROM templates WHERE language = 'it'`) == 1 })
	for _, components := range []string{twoSent, oneSent} { // its components are not known yet
		if got := r.verdict("/v1/messages/validate", r.message("hello", "it", components, "")); got != "" {
			t.Errorf("a language told of by a webhook: %s", got)
		}
	}
	refused("of the others still", true)
	r.refresh()
	r.until(t, "its components", func() bool { return r.verdict("/v1/messages/validate", r.message("hello", "it", oneSent, "")) != "" })

	// The same request gets its answer again, whatever has become of the template.
	body := r.message("hello", "en_US", twoSent, `{"idempotency_key":"k"}`)
	first := r.ask(http.StatusAccepted, "POST", r.gateway+"/v1/messages", body)
	r.ask(http.StatusOK, "DELETE", r.meta+"/v23.0/100/message_templates?name=hello", "")
	r.refresh()
	r.until(t, "the deletion", func() bool {
		return r.verdict("/v1/messages/validate", r.message("hello", "en_US", twoSent, "")) == "132001 /template/name"
	})
	if again := r.ask(http.StatusOK, "POST", r.gateway+"/v1/messages", body); again["id"] != first["id"] {
		t.Errorf("%v, want the answer %v again", again, first)
	}

	// A list that is not whole: the rest is too much for the WABA's calls of the hour.
	for i := range 260 {
		r.create(r.meta, fmt.Sprintf("filler_%03d", i), "en", "MARKETING", `[{"type":"BODY","text":"Hello"}]`)
	}
	r.age("2 hours")
	if _, err := r.pool.Exec(t.Context(), `UPDATE wabas SET management_calls_per_hour = 1 + (SELECT sum(calls) FROM management_calls)`); err != nil {
		t.Fatal(err)
	}
	spent := r.ask(http.StatusTooManyRequests, "GET", r.gateway+"/v1/templates?waba_id=100&refresh=1", "")
	if spent["code"] != "management_calls_spent" {
		t.Errorf("%v", spent)
	}
	if list := r.ask(http.StatusOK, "GET", r.gateway+"/v1/templates?waba_id=100", ""); list["wabas"].([]any)[0].(map[string]any)["problem"] == nil {
		t.Errorf("%v", list["wabas"])
	}
	refused("by a list of before", false)
}

// A pause that Meta tells of holds the template's messages within a second or so, and the word that it is over lets them go.
func TestAPausedTemplateHoldsItsMessages(t *testing.T) {
	r := newTemplateRig(t)
	id := r.create(r.meta, "hello", "en_US", "UTILITY", helloBody)
	r.sim.StrictTemplates(true)
	r.worker(t)
	r.until(t, "the list", func() bool { return r.count(t, `SELECT count(*) FROM templates WHERE listed_at IS NOT NULL`) == 1 })
	set := func(status, quality string) {
		t.Helper()
		if err := r.sim.SetTemplate(id, status, "", quality); err != nil {
			t.Fatal(err)
		}
		r.until(t, cmp.Or(status, quality), func() bool {
			return r.count(t, `SELECT count(*) FROM templates WHERE ($1::text = '' OR status = $1::text) AND ($2::text = '' OR quality = $2::text)`, status, quality) == 1
		})
	}
	// A second goes by between, as webhooks have whole ones.
	set("", "GREEN")
	r.age("2 seconds")
	set("", "RED")
	list := r.ask(http.StatusOK, "GET", r.gateway+"/v1/templates/100/hello", "")
	if one, _ := list["languages"].([]any)[0].(map[string]any); one["quality"] != "RED" || one["quality_before"] != "GREEN" {
		t.Errorf("%v", one)
	}
	r.age("2 seconds")
	set("PAUSED", "")
	r.until(t, "the pause", func() bool { return r.paused(t, "100:hello/en_US") })
	// The first one may meet the pause at Meta: the worker hears of it within a second.
	r.ask(http.StatusAccepted, "POST", r.gateway+"/v1/messages", r.message("hello", "en_US", twoSent, ""))
	r.until(t, "the first hold", func() bool { return r.count(t, `SELECT count(*) FROM holds WHERE kind = 'template'`) == 1 })
	for range 5 {
		r.ask(http.StatusAccepted, "POST", r.gateway+"/v1/messages", r.message("hello", "en_US", twoSent, "")) // held, not refused
	}
	r.ask(http.StatusAccepted, "POST", r.gateway+"/v1/messages", `{"from":"101","to":"+12025550124","type":"text","text":{"body":"hi"}}`)
	r.until(t, "the holds", func() bool { return r.count(t, `SELECT count(*) FROM holds WHERE kind = 'template'`) == 6 })
	r.until(t, "what is no template", func() bool {
		return r.count(t, `SELECT count(*) FROM messages WHERE type = 'text' AND wamid IS NOT NULL`) == 1
	})
	if n := r.count(t, `SELECT count(*) FROM messages WHERE type = 'template' AND (status <> 'queued' OR wamid IS NOT NULL OR try > 0 AND id <> (SELECT id FROM messages ORDER BY id LIMIT 1))`); n != 0 {
		t.Errorf("%d messages of a paused template were tried", n)
	}
	r.age("2 seconds")
	r.ask(http.StatusOK, "POST", r.meta+"/v23.0/"+id+"/unpause", "{}")
	r.until(t, "the messages", func() bool {
		return r.count(t, `SELECT count(*) FROM messages WHERE type = 'template' AND wamid IS NOT NULL`) == 6
	})
	if r.paused(t, "100:hello/en_US") {
		t.Error("the pause is still there")
	}
}
