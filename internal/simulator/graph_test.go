package simulator

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestBodiesAreChecked(t *testing.T) {
	const head = `{"messaging_product":"whatsapp","to":"+16505551234",`
	tests := []struct {
		name, body string
		status     int
		code       int
	}{
		{"text", head + `"type":"text","text":{"body":"hi"}}`, 200, 0},
		{"text without a type", head + `"text":{"body":"hi"}}`, 200, 0},
		{"recipient as a number", `{"messaging_product":"whatsapp","to":16505551234,"type":"text","text":{"body":"hi"}}`, 200, 0},
		{"contacts as a list", head + `"type":"contacts","contacts":[{}]}`, 200, 0},
		{"contacts as JSON text", head + `"type":"contacts","contacts":"[{}]"}`, 200, 0},
		{"unknown type with its object", head + `"type":"pin","pin":{"a":1}}`, 200, 0},
		{"recipient in place of to", `{"messaging_product":"whatsapp","recipient":"US.13491208655302741918","type":"text","text":{}}`, 200, 0},
		{"read receipt", `{"messaging_product":"whatsapp","status":"read","message_id":"wamid.x"}`, 200, 0},
		{"read receipt without a message", `{"messaging_product":"whatsapp","status":"read"}`, 400, 131008},
		{"unknown status", `{"messaging_product":"whatsapp","status":"seen","message_id":"wamid.x"}`, 400, 100},
		{"no JSON", `to=me`, 400, 100},
		{"null", `null`, 400, 100},
		{"empty", ``, 400, 100},
		{"list", `[]`, 400, 100},
		{"no product", `{"to":"+1","type":"text","text":{}}`, 400, 100},
		{"wrong product", `{"messaging_product":"mail","to":"+1","type":"text","text":{}}`, 400, 100},
		{"no recipient", `{"messaging_product":"whatsapp","type":"text","text":{}}`, 400, 131008},
		{"recipient that is no id", `{"messaging_product":"whatsapp","to":1.5,"type":"text","text":{}}`, 400, 100},
		{"no object", head + `"type":"image"}`, 400, 131008},
		{"null object", head + `"type":"image","image":null}`, 400, 131008},
		{"object of another type", head + `"type":"image","text":{}}`, 400, 131008},
		{"object is text", head + `"type":"image","image":"x"}`, 400, 100},
		{"template without a name", head + `"type":"template","template":{}}`, 400, 131008},
		{"template name is a number", head + `"type":"template","template":{"name":1}}`, 400, 100},
		{"template name too long", head + `"type":"template","template":{"name":"` + strings.Repeat("x", 513) + `"}}`, 400, 100},
		{"callback data too long", head + `"biz_opaque_callback_data":"` + strings.Repeat("x", 513) + `","type":"text","text":{}}`, 400, 100},
		{"too large", head + `"type":"text","text":{"body":"` + strings.Repeat("x", maxBody) + `"}}`, 400, 100},
	}
	s := New(Config{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rep := do(t.Context(), t, s, http.MethodPost, "/v23.0/1/messages", tt.body, nil)
			if rep.status != tt.status || rep.code() != tt.code || rep.ctype != "application/json" {
				t.Errorf("%d code %d %q, want %d code %d", rep.status, rep.code(), rep.ctype, tt.status, tt.code)
			}
			isRead := strings.Contains(tt.body, `"status":"read"`)
			if tt.status == 200 && (rep.wamid() != "") == isRead || rep.body.Success != (isRead && tt.status == 200) {
				t.Errorf("answer %+v", rep.body)
			}
			if tt.status == 200 && !isRead && (!strings.HasPrefix(rep.wamid(), "wamid.") || rep.body.Product != "whatsapp" ||
				rep.body.Contacts[0].WaID == "" && rep.body.Contacts[0].UserID == "") {
				t.Errorf("answer %+v", rep.body)
			}
		})
	}
	if got := s.Ledger().Totals; got.Accepted != 7 || got.Refused != got.Invalid || got.Invalid != 19 {
		t.Errorf("totals %+v", got)
	}
}

func TestUnknownRoutesGetTheEnvelope(t *testing.T) {
	s := New(Config{})
	for _, tt := range []struct{ method, path string }{
		{http.MethodGet, "/v23.0/1/messages"},
		{http.MethodPost, "/v23.0/1/pictures"},
		{http.MethodPost, "/v23/1/messages"},
		{http.MethodPost, "/vx.y/1/messages"},
		{http.MethodPost, "/v1.0/me/messages"},
		{http.MethodPost, "/v1.0/" + strings.Repeat("1", 33) + "/messages"},
		{http.MethodGet, "/v23.0/"},
	} {
		rep := do(t.Context(), t, s, tt.method, tt.path, text("1234", ""), nil)
		if rep.status != 404 || rep.code() != 100 || rep.body.Error.Subcode != 33 || rep.ctype != "application/json" {
			t.Errorf("%s %s: %d %+v", tt.method, tt.path, rep.status, rep.body.Error)
		}
	}
	if n := len(s.Ledger().Phones); n != 0 {
		t.Errorf("%d phones registered", n)
	}
}

func TestTokens(t *testing.T) {
	for _, tt := range []struct {
		name, want, header, query string
		status                    int
	}{
		{"any", "", "Bearer x", "", 200},
		{"none", "", "", "", 401},
		{"empty bearer", "", "Bearer ", "", 401},
		{"basic", "", "Basic x", "", 401},
		{"right", "s", "Bearer s", "", 200},
		{"OAuth", "s", "OAuth s", "", 200},
		{"in the query", "s", "", "?access_token=s", 200},
		{"wrong", "s", "Bearer x", "", 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := New(Config{Token: tt.want})
			rep := do(t.Context(), t, s, http.MethodPost, "/v23.0/1/messages"+tt.query, text("1234", ""), http.Header{"Authorization": {tt.header}})
			if rep.status != tt.status || tt.status == 401 && rep.code() != 190 {
				t.Errorf("%d code %d, want %d", rep.status, rep.code(), tt.status)
			}
		})
	}
}

func TestLatencyOfEachAnswer(t *testing.T) {
	inBubble(t, Config{Latency: 300 * time.Millisecond}, func(r *rig) {
		for _, body := range []string{text("1234", ""), text("0001", ""), "{}", `{"messaging_product":"whatsapp","status":"read","message_id":"wamid.x"}`} {
			start := time.Now()
			r.post(body)
			if d := time.Since(start); d != 300*time.Millisecond {
				t.Errorf("answered %.20s… after %v", body, d)
			}
		}
		r.s.SetLatency(time.Second, time.Second)
		start := time.Now()
		r.post(text("1234", ""))
		if d := time.Since(start); d < time.Second || d >= 2*time.Second {
			t.Errorf("answered after %v", d)
		}
	})
}

// TestArrivalIsBeforeTheLatency: the limits look at when a request came, not at when
// its answer left.
func TestArrivalIsBeforeTheLatency(t *testing.T) {
	inBubble(t, Config{PhonePerSecond: 1, Latency: 5 * time.Second}, func(r *rig) {
		start := time.Now()
		for range 2 {
			if rep := r.post(text("1234", "")); rep.status != 200 {
				t.Errorf("code %d", rep.code())
			}
		}
		a := r.s.Accepts(0, 2)
		if a[0].ArrivalUnixNS != start.UnixNano() || a[1].ArrivalUnixNS-a[0].ArrivalUnixNS != (5*time.Second).Nanoseconds() {
			t.Errorf("arrivals %d, %d from %d", a[0].ArrivalUnixNS, a[1].ArrivalUnixNS, start.UnixNano())
		}
	})
}
