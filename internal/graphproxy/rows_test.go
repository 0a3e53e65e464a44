package graphproxy

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func itoa(n int) string { return strconv.Itoa(n) }

// row is one operation of the Graph API as a client does it, and what Meta answers. META stands for its address.
type row struct {
	name, method, path, body, kind string
	answer, want                   string // want "": the answer as it is
	token                          string // "" for the WABA's
}

const form = "multipart/form-data; boundary=b"

// rows are the operations of Meta's reference: media, uploads, templates, profile, phone numbers, accounts.
var rows = []row{
	{name: "media upload", method: "POST", path: "/101/media", kind: form, body: "--b\r\nContent-Disposition: form-data; name=\"messaging_product\"\r\n\r\nwhatsapp\r\n--b--\r\n", answer: `{"id":"5001"}`},
	{
		name: "media get", method: "GET", path: "/5001?phone_number_id=101",
		answer: `{"messaging_product":"whatsapp","url":"https:\/\/lookaside.fbsbx.com\/whatsapp_business\/attachments\/?mid=5001&ext=1&hash=AT","mime_type":"image\/png","sha256":"aa","file_size":12,"id":"5001"}`,
		want:   `{"messaging_product":"whatsapp","url":"GW/v23.0/media-download/SEALED","mime_type":"image\/png","sha256":"aa","file_size":12,"id":"5001"}`,
	},
	{name: "media delete", method: "DELETE", path: "/5001?phone_number_id=101", answer: `{"success":true}`},
	{name: "resumable start", method: "POST", path: "/900/uploads?file_name=a.png&file_length=10&file_type=image%2Fpng", answer: `{"id":"upload:MTphdHQ=?sig=ARZq_-1"}`},
	{name: "resumable send", method: "POST", path: "/upload:MTphdHQ=?sig=ARZq_-1", kind: "application/octet-stream", body: "method=x&batch=", answer: `{"h":"4::aW1hZ2UvcG5n:ARbEAA"}`, token: "OAuth " + token},
	{name: "resumable status", method: "GET", path: "/upload:MTphdHQ=?sig=ARZq_-1", answer: `{"id":"upload:MTphdHQ=?sig=ARZq_-1","file_offset":10}`, token: "OAuth " + token},
	{
		name: "template list", method: "GET", path: "/100/message_templates?fields=id,name,status&limit=1&access_token=KEY",
		answer: `{"data":[{"id":"6001","name":"hello","components":[{"type":"HEADER","example":{"header_handle":["https:\/\/scontent.whatsapp.net\/v\/t61?_nc_ht=x"]}},{"type":"BUTTONS","buttons":[{"type":"URL","url":"https:\/\/shop.example\/{{1}}"}]}]}],` +
			`"paging":{"cursors":{"before":"MAZDZD","after":"MAZDZD"},"next":"META\/v23.0\/100\/message_templates?access_token=` + token + `&fields=id%2Cname&limit=1&after=MAZDZD","previous":"https:\/\/graph.facebook.com\/v23.0\/100\/message_templates?limit=1&access_token=` + token + `"}}`,
		want: `{"data":[{"id":"6001","name":"hello","components":[{"type":"HEADER","example":{"header_handle":["https:\/\/scontent.whatsapp.net\/v\/t61?_nc_ht=x"]}},{"type":"BUTTONS","buttons":[{"type":"URL","url":"https:\/\/shop.example\/{{1}}"}]}]}],` +
			`"paging":{"cursors":{"before":"MAZDZD","after":"MAZDZD"},"next":"GW/v23.0/100/message_templates?fields=id%2Cname&limit=1&after=MAZDZD","previous":"GW/v23.0/100/message_templates?limit=1"}}`,
	},
	{name: "template create", method: "POST", path: "/100/message_templates", kind: "application/json", body: `{"name":"t","language":"en","category":"UTILITY","components":[]}`, answer: `{"id":"6002","status":"PENDING","category":"UTILITY"}`},
	{name: "template get", method: "GET", path: "/6001?fields=status,quality_score,health_status", answer: `{"status":"APPROVED","id":"6001"}`},
	{name: "template edit", method: "POST", path: "/6001", kind: "application/json", body: `{"components":[]}`, answer: `{"success":true}`},
	{name: "template delete", method: "DELETE", path: "/100/message_templates?name=hello&hsm_id=6001", answer: `{"success":true}`},
	{name: "template unpause", method: "POST", path: "/6001/unpause", answer: `{"success":true}`},
	{name: "template compare", method: "GET", path: "/6001/compare?template_ids=[6002]&start=1&end=2", answer: `{"data":[{"metric":"BLOCK_RATE"}]}`},
	{name: "auth preview", method: "GET", path: "/100/message_template_previews?category=AUTHENTICATION&button_types=OTP", answer: `{"data":[{"body":"x","language":"en_US"}]}`},
	{name: "auth bulk upsert", method: "POST", path: "/100/upsert_message_templates", kind: "application/json", body: `{"languages":["en"]}`, answer: `{"data":[{"id":"6003","status":"APPROVED","language":"en"}]}`},
	{name: "template migrate", method: "POST", path: "/100/migrate_message_templates?source_waba_id=9&page_number=0", answer: `{"migrated_templates":["6004"],"failed_templates":{}}`},
	{name: "profile get", method: "GET", path: "/101/whatsapp_business_profile?fields=about,profile_picture_url", answer: `{"data":[{"about":"x","profile_picture_url":"https:\/\/pps.whatsapp.net\/v\/t61?x=1","websites":["https:\/\/shop.example\/"],"messaging_product":"whatsapp"}]}`},
	{name: "profile update", method: "POST", path: "/101/whatsapp_business_profile", kind: "application/json", body: `{"messaging_product":"whatsapp","about":"y"}`, answer: `{"success":true}`},
	{name: "phones list", method: "GET", path: "/100/phone_numbers", answer: `{"data":[{"id":"101","display_phone_number":"+1 650"},{"id":"109"}],"paging":{"cursors":{"before":"a","after":"b"}}}`},
	{name: "phone get", method: "GET", path: "/101?fields=status,throughput,webhook_configuration", answer: `{"throughput":{"level":"STANDARD"},"webhook_configuration":{"application":"https:\/\/app.example\/hook"},"id":"101"}`},
	{name: "phone add", method: "POST", path: "/100/phone_numbers?cc=1&phone_number=6505551234", answer: `{"id":"110"}`},
	{name: "request code", method: "POST", path: "/110/request_code?code_method=SMS&language=en", answer: `{"success":true}`},
	{name: "verify code", method: "POST", path: "/110/verify_code?code=123456", answer: `{"success":true}`},
	{name: "register", method: "POST", path: "/101/register", kind: "application/json", body: `{"messaging_product":"whatsapp","pin":"123456"}`, answer: `{"success":true}`},
	{name: "deregister", method: "POST", path: "/101/deregister", answer: `{"success":true}`},
	{name: "two-step PIN", method: "POST", path: "/101", kind: "application/json", body: `{"pin":"123456"}`, answer: `{"success":true}`},
	{name: "settings", method: "GET", path: "/101/settings", answer: `{"storage_configuration":{"status":"DEFAULT"}}`},
	{name: "settings set", method: "POST", path: "/101/settings", kind: "application/json", body: `{"calling":{"status":"ENABLED"}}`, answer: `{"success":true}`},
	{name: "callback override", method: "POST", path: "/101", kind: "application/json", body: `{"webhook_configuration":{"override_callback_uri":"https://app.example/"}}`, answer: `{"success":true}`},
	{name: "subscribe", method: "POST", path: "/100/subscribed_apps", answer: `{"success":true}`},
	{name: "subscribed", method: "GET", path: "/100/subscribed_apps", answer: `{"data":[{"whatsapp_business_api_data":{"id":"900","link":"https:\/\/www.facebook.com\/games\/?app_id=900","name":"App"}}]}`},
	{name: "unsubscribe", method: "DELETE", path: "/100/subscribed_apps", answer: `{"success":true}`},
	{name: "block", method: "POST", path: "/101/block_users", kind: "application/json", body: `{"messaging_product":"whatsapp","block_users":[{"user":"1"}]}`, answer: `{"messaging_product":"whatsapp","block_users":{"added_users":[{"input":"1","wa_id":"1"}]}}`},
	{name: "unblock", method: "DELETE", path: "/101/block_users", kind: "application/json", body: `{"messaging_product":"whatsapp","block_users":[{"user":"1"}]}`, answer: `{"messaging_product":"whatsapp","block_users":{"removed_users":[]}}`},
	{
		name: "blocked", method: "GET", path: "/101/block_users?limit=1", answer: `{"data":[],"paging":{"next":"META/101/block_users?limit=1&after=x"}}`,
		want: `{"data":[],"paging":{"next":"GW/v23.0/101/block_users?limit=1&after=x"}}`,
	},
	{name: "QR create", method: "POST", path: "/101/message_qrdls?prefilled_message=hi&generate_qr_image=PNG", answer: `{"code":"ABCDEFGHIJKLMN","prefilled_message":"hi","deep_link_url":"https:\/\/wa.me\/message\/ABCDEFGHIJKLMN","qr_image_url":"https:\/\/scontent.whatsapp.net\/q.png"}`},
	{name: "QR get", method: "GET", path: "/101/message_qrdls/ABCDEFGHIJKLMN", answer: `{"data":[{"code":"ABCDEFGHIJKLMN","deep_link_url":"https:\/\/wa.me\/message\/ABCDEFGHIJKLMN"}]}`},
	{name: "QR delete", method: "DELETE", path: "/101/message_qrdls/ABCDEFGHIJKLMN", answer: `{"success":true}`},
	{name: "WABA get", method: "GET", path: "/100?fields=id,name,currency", answer: `{"id":"100","name":"Shop","currency":"EUR"}`},
	{name: "WABA health", method: "GET", path: "/100?fields=health_status", answer: `{"health_status":{"can_send_message":"AVAILABLE","entities":[]},"id":"100"}`},
	{name: "message history", method: "GET", path: "/101/message_history?message_id=wamid.HBg%3D%3D&limit=1", answer: `{"data":[{"id":"7001","message_id":"wamid.HBg==","events":{"data":[{"webhook_uri":"https:\/\/app.example\/hook"}]}}]}`},
	{name: "history events", method: "GET", path: "/7001/events", answer: `{"data":[{"delivery_status":"SENT"}]}`},
	{name: "app webhooks", method: "POST", path: "/900/subscriptions", kind: "application/x-www-form-urlencoded", body: "object=whatsapp_business_account&callback_url=x", answer: `{"success":true}`, token: "Bearer 900|" + appSecret},
	{name: "flow create", method: "POST", path: "/100/flows", kind: "application/json", body: `{"name":"f","categories":["OTHER"]}`, answer: `{"id":"8001","success":true}`},
	{name: "flow list", method: "GET", path: "/100/flows", answer: `{"data":[{"id":"8001","name":"f","status":"DRAFT"}]}`},
	{name: "flow get", method: "GET", path: "/8001?fields=id,preview.invalidate(false)", answer: `{"preview":{"preview_url":"https:\/\/business.facebook.com\/wa\/manage\/flows\/8001\/preview\/?token=abc"},"id":"8001"}`},
	{name: "flow assets", method: "POST", path: "/8001/assets", kind: form, body: "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"flow.json\"\r\nContent-Type: application/json\r\n\r\n{}\r\n--b--\r\n", answer: `{"success":true,"validation_errors":[]}`},
	{name: "flow publish", method: "POST", path: "/8001/publish", answer: `{"success":true}`},
	{name: "flow delete", method: "DELETE", path: "/8001", answer: `{"success":true}`},
	{name: "phone, plain list of what it has", method: "GET", path: "/101?metadata=1", answer: `{"id":"101","metadata":{"connections":{"media":"META\/v23.0\/101\/media?access_token=` + url.QueryEscape(token) + `"}}}`, want: `{"id":"101","metadata":{"connections":{"media":"GW/v23.0/101/media"}}}`},
}

// Every row goes out as it came, but for the key, and comes back as Meta said it, but for tokens and links to follow; the
// rows build on each other: ids come from the answers before.
func TestEveryRow(t *testing.T) {
	r := newRig(t)
	for _, row := range rows {
		at := func(s string) string {
			return strings.NewReplacer("META", r.meta.URL, "GW", r.gw.URL).Replace(s)
		}
		r.says(http.StatusOK, at(row.answer))
		a := r.must(http.StatusOK, row.method, "/v23.0"+row.path, row.body, "Content-Type", row.kind, "Authorization", "Bearer KEY", "Cookie", "c=1", "X-Forwarded-For", "10.0.0.1", "Accept-Language", "de")
		seen := r.requests()
		if len(seen) != 1 {
			t.Errorf("%s: %d requests", row.name, len(seen))
			continue
		}
		g := seen[0]
		path, query, _ := strings.Cut("/v23.0"+row.path, "?")
		query = strings.TrimSuffix(query, "&access_token=KEY")
		if g.method != row.method || g.path != path || g.query != query || g.body != row.body || g.length != int64(len(row.body)) {
			t.Errorf("%s: Meta got %s %s?%s with %d %q", row.name, g.method, g.path, g.query, g.length, g.body)
		}
		want := row.token
		if want == "" {
			want = "Bearer " + token
		}
		wantHeaders := []string{"Accept-Encoding", "Accept-Language", "Authorization", "User-Agent"}
		if row.method != "GET" {
			wantHeaders = append(wantHeaders, "Content-Length", "Content-Type")
		}
		var names []string
		for name := range g.header {
			if name == "Content-Length" && g.length == 0 || name == "Content-Type" && row.kind == "" {
				continue
			}
			names = append(names, name)
		}
		slices.Sort(names)
		wantHeaders = slices.DeleteFunc(wantHeaders, func(n string) bool {
			return n == "Content-Length" && row.body == "" || n == "Content-Type" && row.kind == ""
		})
		slices.Sort(wantHeaders)
		if g.header.Get("Authorization") != want || row.kind != "" && row.method != "GET" && g.header.Get("Content-Type") != row.kind || !slices.Equal(names, wantHeaders) {
			t.Errorf("%s: headers %v, Authorization %q", row.name, names, g.header.Get("Authorization"))
		}
		wantBody := at(row.want)
		if row.want == "" {
			wantBody = at(row.answer)
		}
		if before, after, ok := strings.Cut(wantBody, "SEALED"); ok {
			if !strings.HasPrefix(a.body, before) || !strings.HasSuffix(a.body, after) {
				t.Errorf("%s: answer %s", row.name, a.body)
			}
		} else if a.body != wantBody {
			t.Errorf("%s: answer %s\nwant %s", row.name, a.body, wantBody)
		}
	}
}

// A client that follows what it was given stays with the gateway, to the last page.
func TestFollowingPages(t *testing.T) {
	r := newRig(t)
	r.on(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/javascript; charset=UTF-8") // as Graph has it at times
		switch after := req.URL.Query().Get("after"); after {
		case "", "a":
			next := after + "a"
			_, _ = io.WriteString(w, `{"data":[{"id":"60`+next+`"}],"paging":{"next":"`+r.meta.URL+req.URL.Path+`?access_token=`+token+`&after=`+next+`"}}`)
		default:
			_, _ = io.WriteString(w, `{"data":[{"id":"609"}]}`)
		}
	})
	next, pages := "/v24.0/100/message_templates", 0
	for next != "" {
		a := r.must(http.StatusOK, "GET", next, "")
		if kind := a.header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
			t.Errorf("JSON is called %s", kind)
		}
		var page struct{ Paging struct{ Next string } }
		if err := json.Unmarshal([]byte(a.body), &page); err != nil {
			t.Fatal(err)
		}
		next = page.Paging.Next
		pages++
	}
	if pages != 3 {
		t.Errorf("%d pages", pages)
	}
	for _, g := range r.requests() {
		if g.path != "/v24.0/100/message_templates" || g.header.Get("Authorization") != "Bearer "+token {
			t.Errorf("%s with %s", g.path, g.header.Get("Authorization"))
		}
	}
}

// With WAGATE_PUBLIC_URL links point there, whatever the request was addressed to, and whatever a proxy says of it.
func TestPublicURL(t *testing.T) {
	r := newRig(t)
	r.says(http.StatusOK, `{"data":[],"paging":{"next":"`+r.meta.URL+`/v23.0/100/flows?after=x"}}`)
	a := r.must(http.StatusOK, "GET", "/v23.0/100/flows", "", "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "https", "Forwarded", "host=evil.example")
	if want := r.gw.URL + "/v23.0/100/flows?after=x"; !strings.Contains(a.body, `"`+want+`"`) {
		t.Errorf("%s, want %s", a.body, want)
	}
	r.proxy.PublicURL = "https://app.example/wa"
	a = r.must(http.StatusOK, "GET", "/v23.0/100/flows", "")
	if !strings.Contains(a.body, `"https://app.example/wa/v23.0/100/flows?after=x"`) {
		t.Errorf("%s", a.body)
	}
}
