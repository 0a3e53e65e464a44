package graphproxy

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"wagate/internal/store"
)

// seenIDs gives what is remembered, as id kind waba phone.
func (r *rig) seenIDs() (all []string) {
	r.t.Helper()
	rows, err := r.pool.Query(r.t.Context(), `SELECT id || ' ' || kind || ' ' || waba_id || ' ' || coalesce(phone_number_id, '-') FROM graph_ids ORDER BY id`)
	if err != nil {
		r.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() { //nolint:forbidigo // a test
		var s string
		if err := rows.Scan(&s); err != nil {
			r.t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

// What answers show of ids is remembered before the caller has it; what proves nothing is not.
func TestLearning(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		method, path, answer string
		status               int
		want                 []string // what is remembered beside what was before
	}{
		{"POST", "/101/media", `{"id":"5001"}`, 200, []string{"5001 media 100 101"}},
		{"POST", "/101/media", `{"error":{"code":100},"id":"5002"}`, 400, nil},
		{"GET", "/100/message_templates", `{"data":[{"id":"6001"},{"id":"6002"},{"name":"x"},{"id":7},{"id":"6 3"},{"id":""}],"id":"6001"}`, 200, []string{"6001 template 100 -", "6002 template 100 -"}},
		{"GET", "/100/message_templates?fields=name.as(id)", `{"data":[{"id":"6666"}]}`, 200, nil},
		{"GET", "/100/message_templates?fields=name%2Eas(id)", `{"data":[{"id":"6666"}]}`, 200, nil},
		{"GET", "/100/message_templates?fields=name.AS(id)", `{"data":[{"id":"6666"}]}`, 200, nil},
		{"GET", "/100/message_templates?fields=name.as+(id)", `{"data":[{"id":"6666"}]}`, 200, nil},
		{"GET", "/100/message_templates?fields[]=name.as(id)", `{"data":[{"id":"6666"}]}`, 200, nil},
		{"GET", "/100/message_templates?fields=[%22name.as%5Cu0028id)%22]", `{"data":[{"id":"6666"}]}`, 200, nil},
		{"POST", "/100/message_templates?fields=name.as(id)", `{"id":"6666"}`, 200, nil},
		{"POST", "/100/message_templates", `{"data":[{"id":"6666"}]}`, 200, nil},
		{"POST", "/100/upsert_message_templates", `{"data":[{"id":"6003","status":"APPROVED","language":"en"},{"id":"6004"}],"id":"6666"}`, 200, []string{"6003 template 100 -", "6004 template 100 -"}},
		{"POST", "/100/upsert_message_templates?fields=name.as(id)", `{"data":[{"id":"6666"}]}`, 200, nil},
		{"DELETE", "/100/upsert_message_templates", `{"data":[{"id":"6666"}]}`, 200, nil},
		{"DELETE", "/100/message_templates?name=x", `{"id":"6667"}`, 200, nil},
		{"POST", "/200/flows", `{"id":"8001"}`, 200, []string{"8001 flow 200 -"}},
		{"POST", "/900/uploads", `{"id":"upload:abc=?sig=x"}`, 200, []string{"upload:abc= upload 100 -"}},
		{"GET", "/101/message_history", `{"data":[{"id":"7001"}]}`, 200, []string{"7001 history 100 101"}},
		{"GET", "/100/phone_numbers", `{"data":[{"id":"110"}]}`, 200, []string{"110 phone 100 -"}},
		{"GET", "/100/assigned_users", `{"data":[{"id":"9101"}]}`, 200, nil},
		{"GET", "/101/message_qrdls/x/media", `{"id":"9102"}`, 200, nil},
		{"GET", "/5003?phone_number_id=201", `{"id":"5003","url":"https:\/\/lookaside.fbsbx.com\/x","sha256":"a"}`, 200, []string{"5003 media 200 201"}},
		{"GET", "/5004?phone_number_id=201", `{"id":"5004"}`, 200, nil},
		{"GET", "/5004?phone_number_id=201", `{"id":"5005","url":"https:\/\/lookaside.fbsbx.com\/x","sha256":"a"}`, 200, nil},
		{"GET", "/5004?phone_number_id=201&fields=x.as(url)", `{"id":"5004","url":"https:\/\/lookaside.fbsbx.com\/x","sha256":"a"}`, 200, nil},
		{"DELETE", "/5004?phone_number_id=201", `{"id":"5004","url":"https:\/\/lookaside.fbsbx.com\/x","sha256":"a"}`, 200, nil},
		{"GET", "/100/message_templates", `[]`, 200, nil},
	} {
		before := r.seenIDs()
		r.says(c.status, c.answer)
		r.must(c.status, c.method, "/v23.0"+c.path, "")
		want := append(slices.Clone(before), c.want...)
		slices.Sort(want)
		got := r.seenIDs()
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s %s: %v, want %v", c.method, c.path, got, want)
		}
	}
	// A key without a bond may use a number that was added through the gateway, before it is set up here; another may not.
	r.says(http.StatusOK, `{"success":true}`)
	r.must(http.StatusOK, "POST", "/v23.0/110/register", "")
	// One WABA's token may reach another's media: that it did says nothing of whose they are.
	r.as([]string{phone}, Admin)
	r.says(http.StatusOK, `{"id":"5009","url":"https:\/\/lookaside.fbsbx.com\/x","sha256":"a"}`)
	r.must(http.StatusOK, "GET", "/v23.0/5009", "")
	if slices.ContainsFunc(r.seenIDs(), func(s string) bool { return s[:4] == "5009" }) {
		t.Error("5009 is remembered")
	}
}

// No caller moves another's id to its own WABA, by what it lets an answer say; that it was tried is logged.
func TestIDsAreNotTaken(t *testing.T) {
	r := newRig(t)
	var log syncBuffer
	r.proxy.Logger = slog.New(slog.NewTextHandler(&log, nil))
	if err := r.store.SeeGraphIDs(t.Context(), []store.GraphID{{ID: "6002", WABAID: other, Kind: "template"}, {ID: "5002", WABAID: other, PhoneNumberID: ptr(otherPhone), Kind: "media"}}); err != nil {
		t.Fatal(err)
	}
	held := r.seenIDs()
	r.as([]string{phone}, Send, Read, Manage)
	r.says(http.StatusOK, `{"id":"6002","data":[{"id":"6002"}]}`)
	const urlencoded = "application/x-www-form-urlencoded"
	for _, c := range []struct {
		method, path, kind, body string
		status                   int
	}{
		{"POST", "/100/message_templates", urlencoded, "method=GET&fields=name.as(id)", 400},
		{"POST", "/100/message_templates", urlencoded, "name=x&fields=name.as(id)", 400}, {"POST", "/100/message_templates", "application/json", `{"name":"x","fields":"name.as(id)"}`, 400},
		{"POST", "/100/upsert_message_templates", "application/json", `{"languages":["en"],"fields":"name.as(id)"}`, 400},
		{"POST", "/101/media", form, "--b\r\nContent-Disposition: form-data; name=\"fields\"\r\n\r\nx.as(id)\r\n--b--\r\n", 400},
		{"POST", "/100/message_templates", "application/json", `{"name":"x"}`, 200}, {"GET", "/100/message_templates", "", "", 200}, {"POST", "/101/media", "", "", 200},
	} {
		log.Reset()
		r.must(c.status, c.method, "/v23.0"+c.path, c.body, "Content-Type", c.kind)
		if now := r.seenIDs(); !slices.Equal(now, held) {
			t.Errorf("%s %s %s: %v", c.method, c.path, c.body, now)
		}
		if said := strings.Contains(log.String(), "level=WARN"); said != (c.status == http.StatusOK) {
			t.Errorf("%s %s: the log has %q", c.method, c.path, log.String())
		}
	}
	// A number that stands under a name which Graph may not take for the parameter has not been looked at.
	r.says(http.StatusOK, `{"id":"5777","url":"https:\/\/lookaside.fbsbx.com\/x","sha256":"a"}`)
	r.requests()
	for _, query := range []string{"PHONE_NUMBER_ID=101", "phone.number.id=101", "phone_number_id[]=101", "phone_number_id%00=101", "+phone_number_id=101", "phone_number_id=101&phone_number_id=", "phone_number_id=&phone_number_id=101"} {
		r.wantError(query, r.do("GET", "/v23.0/5777?"+query, ""), http.StatusBadRequest, codeParameter)
	}
	if n := len(r.requests()); n != 0 || len(r.seenIDs()) != len(held) {
		t.Errorf("%d requests, %v", n, r.seenIDs())
	}
	// The app's webhooks have fields in their bodies, and nothing is learned there.
	r.as(nil, Admin)
	r.says(http.StatusOK, `{"success":true}`)
	r.must(http.StatusOK, "POST", "/v23.0/900/subscriptions", "object=x&fields=messages", "Content-Type", urlencoded)
}

// syncBuffer is a log that a test reads while others write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *syncBuffer) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b.Reset()
}

// A long list is remembered at once, and what is in use stays.
func TestLearningALongList(t *testing.T) {
	r := newRig(t)
	list := `{"data":[`
	for i := range 2000 {
		list += fmt.Sprintf(`{"id":"%d"},`, 60_000+i)
	}
	r.says(http.StatusOK, list+`{"id":"60000"}]}`)
	r.must(http.StatusOK, "GET", "/v23.0/100/message_templates?limit=2000", "")
	if n := len(r.seenIDs()); n != 2000 {
		t.Errorf("%d ids", n)
	}
	if _, err := r.pool.Exec(t.Context(), `UPDATE graph_ids SET seen_at = clock_timestamp() - interval '40 days'`); err != nil {
		t.Fatal(err)
	}
	r.must(http.StatusOK, "GET", "/v23.0/60007", "")
	if _, err := r.pool.Exec(t.Context(), `INSERT INTO graph_ids (id, waba_id, kind, seen_at) SELECT id, '100', 'phone', clock_timestamp() - interval '40 days' FROM unnest(ARRAY['110', '111', '112']) AS u(id)`); err != nil {
		t.Fatal(err)
	}
	r.says(http.StatusOK, `{"id":"110"}`)
	r.must(http.StatusOK, "GET", "/v23.0/110", "")
	r.must(http.StatusOK, "DELETE", "/v23.0/111/message_qrdls/x", "")
	for n := int64(1); n > 0; {
		var err error
		if n, err = r.store.ForgetGraphIDs(t.Context(), 31*24*3600e9, 700); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.seenIDs(); !slices.Equal(got, []string{"110 phone 100 -", "111 phone 100 -", "60007 template 100 -"}) {
		t.Errorf("%v", got)
	}
}

// An id that cannot be remembered costs the call nothing.
func TestLearningFails(t *testing.T) {
	r := newRig(t)
	if _, err := r.pool.Exec(t.Context(), `ALTER TABLE graph_ids ADD CONSTRAINT none CHECK (id = '')`); err != nil {
		t.Fatal(err)
	}
	r.says(http.StatusOK, `{"id":"5001"}`)
	r.must(http.StatusOK, "POST", "/v23.0/101/media", "x")
	if err := r.store.SeeGraphIDs(t.Context(), []store.GraphID{{ID: "1", WABAID: waba, Kind: "media"}}); err == nil {
		t.Error("it was remembered")
	}
}
