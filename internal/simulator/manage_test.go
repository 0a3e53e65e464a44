package simulator

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// endpointCase is one call of the table, and what its answer must have: at each path a
// text that fits the expression, or "absent". $name in path and body is what an earlier
// answer had; keep remembers more.
type endpointCase struct {
	op, method, path, body string
	file                   string // MIME type of a file to send with body's fields
	header                 map[string]string
	status                 int
	want                   map[string]string
	keep                   map[string]string // name to path in the answer
}

const (
	post = http.MethodPost
	del  = http.MethodDelete
	read = http.MethodGet
)

var succeeded = map[string]string{"success": "true"}

// endpointCases are in the order of the reference, and build upon each other. WABAs are
// 10 and 11, the app 5, the phone number 1 with a message from 16505551234.
var endpointCases = []endpointCase{
	{op: "media upload", method: post, path: "/1/media", body: "messaging_product=whatsapp&type=image/png", file: "image/png", want: map[string]string{"id": `^\d{16}$`}, keep: map[string]string{"media": "id"}},
	{op: "media get", method: read, path: "/$media?phone_number_id=1", want: map[string]string{
		"messaging_product": "whatsapp", "url": `^http://example\.com/_media/\d{16}\?ext=\d+&hash=[0-9a-f]+$`, "mime_type": "image/png", "sha256": "^[0-9a-f]{64}$", "file_size": "5", "id": `^\d{16}$`,
	}, keep: map[string]string{"url": "url"}},
	{op: "media download", method: read, path: "$url"},
	{op: "media delete", method: del, path: "/$media?phone_number_id=1", want: succeeded},
	{op: "resumable start", method: post, path: "/5/uploads?file_name=a.png&file_length=5&file_type=image/png", want: map[string]string{"id": `^upload:\S+\?sig=`}, keep: map[string]string{"session": "id"}},
	{op: "resumable status", method: read, path: "/$session", want: map[string]string{"id": "^upload:", "file_offset": "0"}},
	{op: "resumable send", method: post, path: "/$session", body: "\x89PNG!", header: map[string]string{"Authorization": "OAuth token", "File_offset": "0"}, want: map[string]string{"h": "^4:"}, keep: map[string]string{"handle": "h"}},

	{op: "template create", method: post, path: "/10/message_templates", body: templateBody("welcome", "en_US", "UTILITY", "Hello {{1}}, welcome."), want: map[string]string{"id": `^\d{16}$`, "status": "APPROVED", "category": "UTILITY"}, keep: map[string]string{"t": "id"}},
	{op: "template list", method: read, path: "/10/message_templates?status=approved&name=welcome&limit=5", want: map[string]string{
		"data.0.id": `^\d{16}$`, "data.0.name": "welcome", "data.0.language": "en_US", "data.0.status": "APPROVED", "data.0.category": "UTILITY",
		"data.0.components.0.type": "BODY", "data.0.parameter_format": "POSITIONAL", "paging.cursors.after": ".", "data.1": "absent", "data.0.quality_score": "absent",
	}},
	{op: "template get", method: read, path: "/$t?fields=status,quality_score,health_status", want: map[string]string{"status": "APPROVED", "quality_score.score": "UNKNOWN", "health_status.can_send_message": "AVAILABLE", "name": "absent"}},
	{op: "template edit", method: post, path: "/$t", body: `{"components":[{"type":"BODY","text":"Hello {{1}}, good to see you."}],"message_send_ttl_seconds":600}`, want: succeeded},
	{op: "template create", method: post, path: "/10/message_templates", body: templateBody("welcome", "es", "UTILITY", "Hola {{1}}, ¿qué tal?"), keep: map[string]string{"t2": "id"}},
	{op: "template unpause", method: post, path: "/$t/unpause", want: map[string]string{"success": "false", "reason": "."}},
	{op: "template compare", method: read, path: "/$t/compare?template_ids=[$t2]&start=1674844791&end=1675449591", want: map[string]string{
		"data.0.metric": "BLOCK_RATE", "data.0.order_by_relative_metric.1": ".", "data.1.metric": "MESSAGE_SENDS", "data.1.number_values.0.value": "0", "data.2.metric": "TOP_BLOCK_REASON",
	}},
	{op: "template library", method: read, path: "/message_template_library?search=balance&language=en_US&topic=PAYMENTS&usecase=LOW_BALANCE_WARNING&industry=FINANCIAL_SERVICES", want: map[string]string{"data.0.name": "low_balance_warning_1", "data.0.body_params.2": "1234", "data.1": "absent"}},
	{op: "template library", method: post, path: "/10/message_templates", body: `{"name":"my_balance","language":"en_US","category":"UTILITY","library_template_name":"low_balance_warning_1",
		"library_template_button_inputs":"[{\"type\":\"URL\",\"url\":{\"base_url\":\"https://shop.example/{{1}}\"}},{\"type\":\"PHONE_NUMBER\",\"phone_number\":\"+16505550101\"}]"}`, want: map[string]string{"status": "APPROVED"}},
	{op: "auth preview", method: read, path: "/10/message_template_previews?category=AUTHENTICATION&button_types=OTP&languages=en_US,es_ES&add_security_recommendation=true&code_expiration_minutes=10", want: map[string]string{
		"data.0.language": "en_US", "data.0.body": "do not share", "data.0.footer": "10 minutes", "data.0.buttons.0.text": "Copy code", "data.1.language": "es_ES", "data.2": "absent",
	}},
	{op: "auth bulk upsert", method: post, path: "/10/upsert_message_templates", body: `{"name":"code","languages":["en_US","fr"],"category":"AUTHENTICATION","components":[{"type":"BODY","add_security_recommendation":true},
		{"type":"FOOTER","code_expiration_minutes":10},{"type":"BUTTONS","buttons":[{"type":"OTP","otp_type":"COPY_CODE"}]}]}`, want: map[string]string{"data.0.id": ".", "data.0.status": "APPROVED", "data.1.language": "fr", "data.2": "absent"}},
	{op: "template migrate", method: post, path: "/11/migrate_message_templates?source_waba_id=10&page_number=0&count=2", want: map[string]string{"migrated_templates.1": ".", "migrated_templates.2": "absent", "failed_templates": `map\[\]`}},
	{op: "template delete", method: del, path: "/10/message_templates?hsm_id=$t2&name=welcome", want: succeeded},

	{op: "profile update", method: post, path: "/1/whatsapp_business_profile", body: `{"messaging_product":"whatsapp","about":"Plants","address":"1 Way","description":"All plants","email":"a@b.example","websites":["https://a.example","https://b.example"],"vertical":"RETAIL","profile_picture_handle":"$handle"}`, want: succeeded},
	{op: "profile get", method: read, path: "/1/whatsapp_business_profile?fields=about,address,description,email,profile_picture_url,websites,vertical", want: map[string]string{
		"data.0.messaging_product": "whatsapp", "data.0.about": "Plants", "data.0.websites.1": "b.example", "data.0.vertical": "RETAIL", "data.0.profile_picture_url": "/_media/",
	}},
	{op: "phones list", method: read, path: "/10/phone_numbers?fields=display_phone_number,verified_name,quality_rating,code_verification_status", want: map[string]string{
		"data.0.id": "1", "data.0.display_phone_number": ".", "data.0.quality_rating": "GREEN", "data.0.code_verification_status": "^VERIFIED$", "paging.cursors.before": ".",
	}},
	{op: "phone get", method: read, path: "/1?fields=status,quality_rating,throughput,name_status,whatsapp_business_manager_messaging_limit,health_status,webhook_configuration", want: map[string]string{
		"status": "CONNECTED", "throughput.level": "STANDARD", "name_status": "APPROVED", "health_status.entities.0.entity_type": "PHONE_NUMBER", "webhook_configuration": "map",
	}},
	{op: "phone add", method: post, path: "/10/phone_numbers", body: `{"cc":"1","phone_number":"6505559999","verified_name":"Plants"}`, want: map[string]string{"id": `^\d{16}$`}, keep: map[string]string{"p": "id"}},
	{op: "request code", method: post, path: "/$p/request_code", body: "code_method=SMS&language=en_US", want: succeeded},
	{op: "verify code", method: post, path: "/$p/verify_code", body: `{"code":"123456"}`, want: succeeded},
	{op: "register", method: post, path: "/$p/register", body: `{"messaging_product":"whatsapp","pin":"123456"}`, want: succeeded},
	{op: "deregister", method: post, path: "/$p/deregister", want: succeeded},
	{op: "two-step PIN", method: post, path: "/1", body: `{"pin":"654321"}`, want: succeeded},
	{op: "settings", method: post, path: "/1/settings", body: `{"calling":{"status":"ENABLED"}}`, want: succeeded},
	{op: "settings", method: read, path: "/1/settings", want: map[string]string{"calling.status": "ENABLED", "payload_encryption.status": "disabled", "storage_configuration.status": "default"}},
	{op: "callback override", method: post, path: "/1", body: `{"webhook_configuration":{"override_callback_uri":"https://hooks.example/p","verify_token":"v"}}`, want: succeeded},
	{op: "callback override", method: read, path: "/1?fields=webhook_configuration", want: map[string]string{"webhook_configuration.phone_number": "https://hooks.example/p"}},

	{op: "subscribe", method: post, path: "/10/subscribed_apps", body: `{"override_callback_uri":"https://hooks.example/w","verify_token":"v"}`, want: succeeded},
	{op: "subscribe", method: read, path: "/10/subscribed_apps", want: map[string]string{"data.0.whatsapp_business_api_data.id": "^5$", "data.0.whatsapp_business_api_data.link": ".", "data.0.whatsapp_business_api_data.name": ".", "data.0.override_callback_uri": "hooks"}},
	{op: "subscribe", method: del, path: "/10/subscribed_apps", want: succeeded},
	{op: "block", method: post, path: "/1/block_users", body: `{"messaging_product":"whatsapp","block_users":[{"user":"+1 650 555 1234"}]}`, want: map[string]string{"messaging_product": "whatsapp", "block_users.added_users.0.wa_id": "16505551234", "block_users.failed_users": "absent"}},
	{op: "block", method: post, path: "/1/block_users", body: `{"messaging_product":"whatsapp","block_users":[{"user":"16505551234"},{"user":"16505550000"}]}`, status: 400, want: map[string]string{
		"block_users.added_users.0.input": "16505551234", "block_users.failed_users.0.wa_id": "16505550000", "block_users.failed_users.0.errors.0.code": "131047", "error.code": "139100", "error.fbtrace_id": ".",
	}},
	{op: "block", method: read, path: "/1/block_users?limit=10", want: map[string]string{"data.0.wa_id": "16505551234", "data.1": "absent", "paging.cursors.after": "."}},
	{op: "block", method: del, path: "/1/block_users", body: `{"messaging_product":"whatsapp","block_users":[{"user":"16505551234"}]}`, want: map[string]string{"block_users.removed_users.0.wa_id": "16505551234"}},
	{op: "QR", method: post, path: "/1/message_qrdls", body: `{"prefilled_message":"Show me plants","generate_qr_image":"SVG"}`, want: map[string]string{"code": "^[A-Z2-7]{14}$", "prefilled_message": "plants", "deep_link_url": "^https://wa.me/message/", "qr_image_url": `\.svg$`}, keep: map[string]string{"code": "code"}},
	{op: "QR", method: post, path: "/1/message_qrdls", body: `{"code":"$code","prefilled_message":"Show me trees"}`, want: map[string]string{"prefilled_message": "trees", "qr_image_url": "absent"}},
	{op: "QR", method: read, path: "/1/message_qrdls", want: map[string]string{"data.0.prefilled_message": "trees", "data.1": "absent"}},
	{op: "QR", method: read, path: "/1/message_qrdls/$code?fields=code,qr_image_url.format(PNG)", want: map[string]string{"data.0.qr_image_url": `\.png$`, "data.0.prefilled_message": "absent"}},
	{op: "QR", method: del, path: "/1/message_qrdls/$code", want: succeeded},
	{op: "WABA get", method: read, path: "/10", want: map[string]string{"id": "10", "name": "Simulated", "message_template_namespace": ".", "timezone_id": "."}},
	{op: "WABA get", method: read, path: "/10?fields=health_status", want: map[string]string{"health_status.can_send_message": "AVAILABLE", "health_status.entities.0.entity_type": "WABA", "health_status.entities.2.entity_type": "APP"}},
	{op: "message history", method: read, path: "/1/message_history?message_id=$wamid&fields=id,message_id,events{delivery_status,timestamp}&limit=5", want: map[string]string{
		"data.0.message_id": "^wamid", "data.0.events.data.0.delivery_status": "ACCEPTED", "data.0.events.data.0.webhook_update_state": ".", "data.0.events.data.0.timestamp": `\d`,
	}, keep: map[string]string{"history": "data.0.id"}},
	{op: "history events", method: read, path: "/$history/events", want: map[string]string{"data.0.node.delivery_status": "ACCEPTED", "data.0.cursor": ".", "data.0.node.occurrence_timestamp": `\d`}},
	{op: "app webhooks", method: post, path: "/5/subscriptions", body: `{"object":"whatsapp_business_account","callback_url":"https://hooks.example/a","verify_token":"v","fields":"messages,message_template_status_update"}`, want: succeeded},
	{op: "app webhooks", method: read, path: "/5/subscriptions", want: map[string]string{"data.0.object": "whatsapp_business_account", "data.0.fields.1.name": "message_template_status_update"}},

	{op: "flows", method: post, path: "/10/flows", body: `{"name":"survey","categories":["SURVEY"]}`, want: map[string]string{"id": `^\d{16}$`, "success": "true"}, keep: map[string]string{"f": "id"}},
	{op: "flows", method: post, path: "/$f/assets", body: "name=flow.json&asset_type=FLOW_JSON", file: "application/json", want: map[string]string{"success": "true", "validation_errors": `^\[\]$`}},
	{op: "flows", method: read, path: "/$f/assets", want: map[string]string{"data.0.asset_type": "FLOW_JSON", "data.0.download_url": "/_media/"}},
	{op: "flows", method: post, path: "/$f", body: `{"name":"poll"}`, want: succeeded},
	{op: "flows", method: read, path: "/10/flows", want: map[string]string{"data.0.name": "poll", "data.0.status": "DRAFT", "data.0.categories.0": "SURVEY"}},
	{op: "flows", method: post, path: "/$f/publish", want: succeeded},
	{op: "flows", method: post, path: "/$f/deprecate", want: succeeded},
	{op: "flows", method: read, path: "/$f?fields=status,json_version,preview,health_status", want: map[string]string{"status": "DEPRECATED", "json_version": "7.1", "preview.preview_url": "."}},
	{op: "flows", method: post, path: "/10/flows", body: `{"name":"draft","categories":["OTHER"]}`, keep: map[string]string{"f2": "id"}},
	{op: "flows", method: del, path: "/$f2", want: succeeded},
}

var placeholder = regexp.MustCompile(`\$[a-z0-9]+`)

// TestEveryEndpoint walks over every row of the reference's table of management calls.
func TestEveryEndpoint(t *testing.T) {
	s := New(Config{MediaDir: t.TempDir()})
	defer s.Close()
	s.SetPhone("1", PhoneConfig{WABAID: "10", AppID: "5"})
	s.SetPhone("2", PhoneConfig{WABAID: "11", AppID: "5"})
	must(t, s.Inbound(InboundMessages{Phone: "1", From: "16505551234", Count: 1}))
	rep := do(t.Context(), t, s, post, "/v23.0/1/messages", text("1234", ""), nil)
	known := map[string]string{"$wamid": url.QueryEscape(rep.wamid())}
	fill := func(text string) string {
		return placeholder.ReplaceAllStringFunc(text, func(name string) string {
			if known[name] == "" {
				t.Fatalf("nothing is known of %s", name)
			}
			return known[name]
		})
	}
	for _, tt := range endpointCases {
		path, body := fill(tt.path), fill(tt.body)
		if !strings.HasPrefix(path, "http") {
			path = "/v23.0" + path
		}
		path = strings.TrimPrefix(path, "http://example.com")
		header := http.Header{}
		for k, v := range tt.header {
			header.Set(k, v)
		}
		switch {
		case tt.file != "":
			fields := map[string]string{}
			for _, pair := range strings.Split(body, "&") {
				name, value, _ := strings.Cut(pair, "=")
				fields[name] = value
			}
			file := []byte("\x89PNG!")
			if tt.file == "application/json" {
				file = []byte(`{"version":"7.1","screens":[{"id":"ONE"}]}`)
			}
			body, header = form(t, fields, "file", tt.file, file)
		case strings.Contains(body, "=") && body[0] != '{':
			header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		rep, out := ask(t, s, tt.method, path, body, header)
		if want := cmp.Or(tt.status, http.StatusOK); rep.status != want {
			t.Errorf("%s: %s %s: %d %s", tt.op, tt.method, path, rep.status, rep.raw)
			continue
		}
		for where, want := range tt.want {
			got := at(out, where)
			if want == "absent" {
				if got != nil {
					t.Errorf("%s: %s is %v, want nothing", tt.op, where, got)
				}
				continue
			}
			if text := fmt.Sprint(got); got == nil || !regexp.MustCompile(want).MatchString(text) {
				t.Errorf("%s: %s is %q, want %s, in %s", tt.op, where, text, want, rep.raw)
			}
		}
		for name, where := range tt.keep {
			known["$"+name] = fmt.Sprint(at(out, where))
		}
		if tt.op == "media download" && (rep.raw != "\x89PNG!" || rep.ctype != "image/png") {
			t.Errorf("downloaded %q as %s", rep.raw, rep.ctype)
		}
	}
	checkRows(t)
}

// checkRows looks up whether the table above has every row of the reference.
func checkRows(t *testing.T) {
	t.Helper()
	raw, err := os.ReadFile("../../../shared/reference/endpoints.md")
	if errors.Is(err, fs.ErrNotExist) {
		t.Log("the reference is not here: its rows are not compared with the table")
		return
	}
	must(t, err)
	rows := 0
	for _, line := range strings.Split(string(raw), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 7 || strings.HasPrefix(cells[1], "---") || strings.TrimSpace(cells[1]) == "op" {
			continue
		}
		rows++
		op := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(cells[1]), "*"))
		if !slices.ContainsFunc(endpointCases, func(c endpointCase) bool { return c.op == op }) {
			t.Errorf("no case for %s", op)
		}
	}
	if rows < 37 {
		t.Errorf("the reference has %d rows", rows)
	}
}
