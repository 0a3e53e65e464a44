package simulator

import (
	"cmp"
	"encoding/json"
	"fmt"
	"image/png"
	"net/http"
	"strings"
	"sync"
	"testing"
)

func TestProfilesKeepWhatIsNotNamed(t *testing.T) {
	s := New(Config{})
	update := func(body string) {
		t.Helper()
		okay(t, s, post, "/v23.0/1/whatsapp_business_profile", body)
	}
	update(`{"messaging_product":"whatsapp","about":"Plants","websites":["https://a.example"],"vertical":"retail"}`)
	update(`{"messaging_product":"whatsapp","email":"a@b.example","websites":[]}`)
	got := okay(t, s, read, "/v23.0/1/whatsapp_business_profile", "")
	if at(got, "data.0.about") != "Plants" || at(got, "data.0.email") != "a@b.example" || at(got, "data.0.vertical") != "RETAIL" || at(got, "data.0.websites") != nil {
		t.Errorf("profile %v", got)
	}
	if got := okay(t, s, read, "/v23.0/1/whatsapp_business_profile?fields=about", ""); at(got, "data.0.email") != nil || at(got, "data.0.about") != "Plants" {
		t.Errorf("one field: %v", got)
	}
}

func TestQRImages(t *testing.T) {
	s := New(Config{})
	image := func(format string) *http.Response {
		out := okay(t, s, post, "/v23.0/1/message_qrdls", `{"prefilled_message":"x","generate_qr_image":"`+format+`"}`)
		rep := do(t.Context(), t, s, read, local(t, out["qr_image_url"]), "", http.Header{"Authorization": {""}})
		return &http.Response{StatusCode: rep.status, Header: rep.header, Status: rep.raw}
	}
	res := image("PNG")
	if _, err := png.Decode(strings.NewReader(res.Status)); err != nil || res.Header.Get("Content-Type") != "image/png" {
		t.Errorf("PNG: %v, %v", err, res.Header)
	}
	if res := image("SVG"); !strings.HasPrefix(res.Status, "<svg") || res.Header.Get("Content-Type") != "image/svg+xml" {
		t.Errorf("SVG: %q, %v", res.Status, res.Header)
	}
	for range maxQRCodes - 2 {
		okay(t, s, post, "/v23.0/1/message_qrdls", `{"prefilled_message":"x"}`)
	}
	if rep, _ := ask(t, s, post, "/v23.0/1/message_qrdls", `{"prefilled_message":"x"}`, nil); rep.status != 400 {
		t.Errorf("too many: %s", rep.raw)
	}
}

func TestBlockLists(t *testing.T) {
	s := New(Config{})
	s.SetPhone("1", PhoneConfig{DisplayPhoneNumber: "+1 650 555 0000"})
	users := ""
	for i := range 60 {
		number := fmt.Sprint(16505551000 + i)
		must(t, s.Inbound(InboundMessages{Phone: "1", From: number, Count: 1}))
		users += `{"user":"+` + number + `"},`
	}
	okay(t, s, post, "/v23.0/1/block_users", `{"messaging_product":"whatsapp","block_users":[`+strings.TrimSuffix(users, ",")+`]}`)
	seen := map[string]bool{}
	for path := "/v23.0/1/block_users?limit=25"; path != ""; {
		page := okay(t, s, read, path, "")
		for _, one := range at(page, "data").([]any) {
			seen[fmt.Sprint(at(one, "wa_id"))] = true
		}
		if path = ""; at(page, "paging.next") != nil {
			path = local(t, at(page, "paging.next"))
		}
	}
	if len(seen) != 60 {
		t.Errorf("%d blocked", len(seen))
	}
	rep, out := ask(t, s, post, "/v23.0/1/block_users", `{"messaging_product":"whatsapp","block_users":[{"user":"16505550000"}]}`, nil)
	if rep.status != 400 || at(out, "block_users.failed_users.0.errors.0.code") != 131021.0 || len(at(out, "block_users.added_users").([]any)) != 0 {
		t.Errorf("itself: %s", rep.raw)
	}
	many := strings.Repeat(`{"user":"16505551000"},`, maxBlockUsers) + `{"user":"16505551000"}`
	if rep, _ := ask(t, s, post, "/v23.0/1/block_users", `{"messaging_product":"whatsapp","block_users":[`+many+`]}`, nil); rep.code() != 130429 {
		t.Errorf("too many: %d %.200s", rep.status, rep.raw)
	}
	n := s.scopes.phones["1"].change()
	for i := range maxBlocked {
		n.blocked[fmt.Sprint(i)] = true
	}
	must(t, s.Inbound(InboundMessages{Phone: "1", From: "16505559999", Count: 1}))
	if _, out := ask(t, s, post, "/v23.0/1/block_users", `{"messaging_product":"whatsapp","block_users":[{"user":"16505559999"}]}`, nil); at(out, "block_users.failed_users.0.errors.0.code") != 139101.0 {
		t.Errorf("a full list: %v", out)
	}
}

func TestTemplateFilters(t *testing.T) {
	s := New(Config{})
	s.SetPhone("1", PhoneConfig{WABAID: "10"})
	for _, body := range []string{
		templateBody("a", "en", "UTILITY", "Your parcel."), templateBody("a", "es", "UTILITY", "Su paquete."), templateBody("b", "en", "MARKETING", "A parcel and more."),
	} {
		okay(t, s, post, "/v23.0/10/message_templates", body)
	}
	all := s.managed.templatesOf("10")
	must(t, s.SetTemplate(all[2].id, "PAUSED", "", "YELLOW"))
	for query, want := range map[string]string{
		"": "a.en a.es b.en ", "name=a": "a.en a.es ", "language=en": "a.en b.en ", "status=PAUSED": "b.en ", "category=utility": "a.en a.es ",
		"content=PARCEL": "a.en b.en ", "name_or_content=b": "b.en ", "quality_score=yellow": "b.en ", "name=c": "",
	} {
		got := ""
		for _, one := range at(okay(t, s, read, "/v23.0/10/message_templates?fields=name,language&"+query, ""), "data").([]any) {
			got += fmt.Sprint(at(one, "name"), ".", at(one, "language"), " ")
		}
		if got != want {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
}

func TestSettingATemplate(t *testing.T) {
	s := New(Config{})
	s.SetPhone("1", PhoneConfig{WABAID: "10"})
	id := fmt.Sprint(okay(t, s, post, "/v23.0/10/message_templates", templateBody("a", "en", "UTILITY", "Hello."))["id"])
	put := func(path, body string) int {
		return do(t.Context(), t, s, http.MethodPut, "/_sim/"+path, body, nil).status
	}
	if put("templates/"+id, `{"status":"DISABLED","quality":"RED"}`) != 204 || s.managed.templates[id].status != "DISABLED" {
		t.Error("not disabled")
	}
	if rep, _ := ask(t, s, del, "/v23.0/10/message_templates?name=a", "", nil); rep.status != 400 || rep.body.Error.Subcode != 2388039 {
		t.Errorf("deleting it: %s", rep.raw)
	}
	for path, body := range map[string]string{
		"templates/" + id: `{"status":"FINE"}`, "templates/99": `{"status":"PAUSED"}`, "templates": `{"decision":"MAYBE"}`, "strict_media": `{"gone":"never"}`,
	} {
		if got := put(path, body); got != 400 {
			t.Errorf("%s %s: %d", path, body, got)
		}
	}
	if s.SetTemplate(id, "", "", "PINK") == nil || s.SetTemplate(id, "", strings.Repeat("x", 65), "") == nil {
		t.Error("a wrong quality or reason was taken")
	}
	if put("templates", `{"review_ms":60000,"decision":"REJECTED","reason":"SCAM","max":10,"per_hour":100}`) != 204 {
		t.Error("the review is not set")
	}
	if got := okay(t, s, post, "/v23.0/10/message_templates", templateBody("b", "en", "UTILITY", "Hello.")); got["status"] != "PENDING" {
		t.Errorf("created %v", got)
	}
}

// TestResetForgetsWhatCallsMade, but no settings and no phone numbers; ids are not used
// again.
func TestResetForgetsWhatCallsMade(t *testing.T) {
	s := New(Config{})
	s.SetPhone("1", PhoneConfig{WABAID: "10", AppID: "5"})
	s.StrictTemplates(true)
	build := func() string {
		okay(t, s, post, "/v23.0/1/whatsapp_business_profile", `{"messaging_product":"whatsapp","about":"x"}`)
		okay(t, s, post, "/v23.0/10/subscribed_apps", "")
		okay(t, s, post, "/v23.0/10/flows", `{"name":"a","categories":["OTHER"],"flow_json":"{}"}`)
		uploadMedia(t, s, "1", "image/png", []byte("x"))
		return fmt.Sprint(okay(t, s, post, "/v23.0/10/message_templates", templateBody("a", "en", "UTILITY", "Hello."))["id"])
	}
	first := build()
	s.Reset()
	for path, where := range map[string]string{
		"1/whatsapp_business_profile": "data.0.about", "10/subscribed_apps": "data.0", "10/flows": "data.0", "10/message_templates": "data.0",
	} {
		if got := okay(t, s, read, "/v23.0/"+path, ""); at(got, where) != nil {
			t.Errorf("%s: %v", path, got)
		}
	}
	m := s.managed
	if len(s.Media()) != 0 || m.depot.bytes() != 0 || m.flowBytes != 0 || !m.strictTemplates {
		t.Errorf("media %v, %d bytes, flows of %d bytes", s.Media(), m.depot.bytes(), m.flowBytes)
	}
	if second := build(); second == first {
		t.Errorf("the id %s was used twice", first)
	}
}

// TestUploadsBesideAReset: whatever is on its way, no file stays behind and every byte is
// counted off.
func TestUploadsBesideAReset(t *testing.T) {
	dir := t.TempDir()
	s := New(Config{MediaDir: dir, MediaBytes: 1 << 20})
	defer s.Close()
	file := make([]byte, 300<<10)
	body, header := form(t, map[string]string{"messaging_product": "whatsapp"}, "a", "image/png", file)
	call := func(method, path, body string, header http.Header) (out map[string]string) {
		rep := do(t.Context(), t, s, method, path, body, header)
		_ = json.Unmarshal([]byte(rep.raw), &out) // numbers and files do not matter
		return out
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				id := call(post, "/v23.0/1/media", body, header)["id"]
				link := strings.TrimPrefix(call(read, "/v23.0/"+id, "", nil)["url"], "http://example.com")
				call(read, cmp.Or(link, "/"), "", nil)
				call(del, "/v23.0/"+id, "", nil)
			}
		})
		wg.Go(func() {
			for range 20 {
				id := call(post, fmt.Sprintf("/v23.0/5/uploads?file_name=a&file_length=%d&file_type=image/png", len(file)), "", nil)["id"]
				call(post, "/v23.0/"+id, string(file), http.Header{"File_offset": {"0"}})
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			s.Reset()
			s.Media()
		}
	})
	wg.Wait()
	s.Reset()
	if left := files(t, dir); len(left) != 0 || s.managed.depot.bytes() != 0 || s.managed.depot.inMemory != 0 {
		t.Errorf("files %v, %d bytes, %d in memory", left, s.managed.depot.bytes(), s.managed.depot.inMemory)
	}
}
