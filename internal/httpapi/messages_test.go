package httpapi_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestPostMessage(t *testing.T) {
	g := start(t)
	a := g.must(http.StatusAccepted, "POST", "/v1/messages", text(`,"gateway":{"reference":"order-17","tags":{"campaign":"x"}}`))
	if got := fields(a.json); got != "created_at estimated_send_at from id status to" {
		t.Errorf("fields %q", got)
	}
	if a.str("status") != "queued" || a.str("from") != phone || a.str("to") != "+16505551234" || a.header.Get("Location") != "/v1/messages/"+a.str("id") {
		t.Errorf("answer %s, Location %q", a.body, a.header.Get("Location"))
	}
	if created, err := time.Parse(time.RFC3339, a.str("created_at")); err != nil || created.Location() != time.UTC || time.Since(created).Abs() > time.Minute {
		t.Errorf("created_at %q", a.str("created_at"))
	}

	m := g.must(http.StatusOK, "GET", a.header.Get("Location"), "")
	for _, name := range strings.Fields("id from waba_id to type status wamid tries error held_by created_at accepted_at sent_at delivered_at read_at failed_at pricing reference tags resend_of") {
		if _, ok := m.json[name]; !ok {
			t.Errorf("GET lacks %s: %s", name, m.body)
		}
	}
	if m.str("id") != a.str("id") || m.str("waba_id") != "100" || m.str("created_at") != a.str("created_at") || m.str("reference") != "order-17" {
		t.Errorf("GET gives %s", m.body)
	}
	if e := g.must(http.StatusOK, "GET", a.header.Get("Location")+"/events", ""); e.body != "{\"events\":[]}\n" {
		t.Errorf("events %s", e.body)
	}
	list := func(query string) int {
		t.Helper()
		l, _ := g.must(http.StatusOK, "GET", "/v1/messages?"+query, "").json["messages"].([]any)
		return len(l)
	}
	if n := list("reference=order-17&tag.campaign=x&from=" + phone + "&status=queued&created_after=2026-01-01T00:00:00Z"); n != 1 {
		t.Errorf("the list has %d messages", n)
	}
	for _, none := range []string{"reference=order-18", "tag.campaign=y", "status=sent", "created_before=2020-01-01T00:00:00Z", "cursor=" + a.str("id"), "wamid=wamid.x", "to=16505551235", "tag.campaign=x&tag.shop=y"} {
		if n := list(none); n != 0 {
			t.Errorf("?%s gives %d messages", none, n)
		}
	}
	for _, to := range []string{"%2B16505551234", "16505551234", "%2B1+(650)+555-1234", "1.650.555.1234"} {
		if n := list("to=" + to); n != 1 {
			t.Errorf("?to=%s gives %d messages", to, n)
		}
	}
	for _, bad := range []string{"to=%2B+", "wamid=", "cursor=00000000-0000-0000-0000-000000000000", "tag.=x", "tag.%FF=x", "tag.x=%FF",
		"tag.1=a&tag.2=a&tag.3=a&tag.4=a&tag.5=a&tag.6=a&tag.7=a&tag.8=a&tag.9=a&tag.10=a&tag.11=a", "status=lost", "limit=0", "limit=1000", "cursor=x", "colour=red", "created_after=yesterday", "to=%00"} {
		if p := g.must(http.StatusBadRequest, "GET", "/v1/messages?"+bad, ""); !strings.Contains(p.str("detail"), `"`+bad[:strings.IndexAny(bad, "=.")]) {
			t.Errorf("?%s: %s does not name it", bad, p.body)
		}
	}
	if c := g.must(http.StatusOK, "POST", a.header.Get("Location")+"/cancel", ""); c.str("status") != "cancelled" {
		t.Errorf("cancel gives %s", c.body)
	}
	if _, err := g.pool.Exec(t.Context(), `UPDATE messages SET status = 'sent', try = 1, wamid = 'wamid.X', error_code = 131026, error_title = 'x'`); err != nil {
		t.Fatal(err)
	}
	g.must(http.StatusConflict, "POST", a.header.Get("Location")+"/cancel", "")
	if m := g.must(http.StatusOK, "GET", a.header.Get("Location"), ""); m.str("wamid") != "wamid.X" || !strings.Contains(m.body, `"error":{"code":131026,"subcode":null,"title":"x"`) {
		t.Errorf("GET gives %s", m.body)
	}
	if strings.Contains(g.log.String(), "16505551234") || strings.Contains(g.log.String(), "hello") {
		t.Error("the log shows a number or a body")
	}
}

func TestPaging(t *testing.T) {
	g := start(t)
	var want []string
	for range 5 {
		want = append([]string{g.must(http.StatusAccepted, "POST", "/v1/messages", text("")).str("id")}, want...)
	}
	var got []string
	cursor := ""
	for {
		page := g.must(http.StatusOK, "GET", "/v1/messages?limit=2"+cursor, "")
		list, _ := page.json["messages"].([]any)
		for _, m := range list {
			view, _ := m.(map[string]any)
			got = append(got, fmt.Sprint(view["id"]))
		}
		if page.str("next_cursor") == "" {
			break
		}
		cursor = "&cursor=" + page.str("next_cursor")
	}
	if !slices.Equal(got, want) {
		t.Errorf("pages give %v, want %v", got, want)
	}
}

// Every line of "Bad input": the right status, a pointer at the field, and nothing stored.
func TestBadInput(t *testing.T) {
	g := start(t)
	readOnly := g.key(`{"name":"viewer","scopes":["read"]}`)
	bound := g.key(`{"name":"bound","scopes":["send","read","manage"],"phone_numbers":["200000000000009"]}`)
	to := func(s string) string { return strings.Replace(text(""), "+16505551234", s, 1) }
	for _, c := range []struct {
		name, body string
		headers    []string
		status     int
		pointers   []string
	}{
		{"malformed", `{"from":`, nil, 400, []string{""}},
		{"empty", ``, nil, 400, []string{""}},
		{"a string", `"x"`, nil, 422, []string{""}},
		{"unknown phone number", strings.Replace(text(""), phone, "299", 1), nil, 404, []string{"/from"}},
		{"another key's phone number", text(""), []string{"Authorization", "Bearer " + bound}, 404, []string{"/from"}},
		{"wrong key", text(""), []string{"Authorization", "Bearer wg_wrong"}, 401, nil},
		{"no key", text(""), []string{"Authorization", ""}, 401, nil},
		{"basic", text(""), []string{"Authorization", "Basic " + adminKey}, 401, nil},
		{"a key of 1 MB", text(""), []string{"Authorization", "Bearer " + strings.Repeat("x", 30000)}, 401, nil},
		{"no right", text(""), []string{"Authorization", "Bearer " + readOnly}, 403, nil},
		{"over 1 MiB", text(`,"x":"` + strings.Repeat("x", 1<<20) + `"`), nil, 413, []string{""}},
		{"without +", to("16505551234"), nil, 422, []string{"/to"}},
		{"no number", to("bob"), nil, 422, []string{"/to"}},
		{"without its type's object", strings.Replace(text(""), `"text":{`, `"txt":{`, 1), nil, 422, []string{"/text"}},
		{"all at once", `{"to":"1650","type":"image","gateway":{"priority":"first","x":1}}`, nil, 422,
			[]string{"/from", "/gateway/priority", "/gateway/x", "/image", "/to"}},
		{"NUL", text(`,"gateway":{"reference":"a\u0000"}`), nil, 422, []string{"/gateway/reference"}},
		{"not UTF-8", text(`,"x":"` + "\xff" + `"`), nil, 422, []string{"/x"}},
		{"a name twice", text(`,"x":{"a":1,"a":2}`), nil, 422, []string{"/x/a"}},
		{"inside its type", `{"from":"` + phone + `","to":"+16505551234","type":"interactive","interactive":{"type":"button","body":{"text":"b"},
			"action":{"buttons":[{"type":"reply","reply":{"id":"1"}},{}]}}}`, nil, 422, []string{
			"/interactive/action/buttons/0/reply/title", "/interactive/action/buttons/1/reply", "/interactive/action/buttons/1/type"}},
		{"long idempotency key", text(""), []string{"Idempotency-Key", strings.Repeat("k", 256)}, 422, []string{""}},
		{"gzip", text(""), []string{"Content-Encoding", "gzip"}, 415, nil},
	} {
		for _, path := range []string{"/v1/messages", "/v1/messages/validate"} {
			a := g.do("POST", path, c.body, c.headers...)
			if a.status != c.status || !slices.Equal(a.pointers(), c.pointers) {
				t.Errorf("%s to %s: %d at %q, want %d at %q: %.300s", c.name, path, a.status, a.pointers(), c.status, c.pointers, a.body)
			}
		}
	}
	// A body without Content-Length, over the limit.
	r, err := http.NewRequestWithContext(t.Context(), "POST", g.url+"/v1/messages", io.MultiReader(strings.NewReader(text(strings.Repeat(" ", 2<<20)))))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+adminKey)
	resp, err := g.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("chunked and over 1 MiB: %d", resp.StatusCode)
	}
	g.must(http.StatusOK, "POST", "/v1/messages/validate", text(""))
	if n := g.stored(); n != 0 {
		t.Errorf("%d rows were stored", n)
	}
}

func TestRoutesThatAreNotThere(t *testing.T) {
	g := start(t)
	g.must(http.StatusNotFound, "GET", "/v1/nothing", "")
	if a := g.must(http.StatusMethodNotAllowed, "DELETE", "/v1/messages", ""); !strings.Contains(a.header.Get("Allow"), "POST") {
		t.Errorf("Allow: %q", a.header.Get("Allow"))
	}
	g.must(http.StatusNotFound, "GET", "/v1/messages/not-an-id", "")
	g.must(http.StatusNotFound, "GET", "/v1/messages/019a0000-0000-7000-8000-000000000000", "")
	if a := g.must(http.StatusInternalServerError, "POST", "/webhooks/whatsapp", ""); strings.Contains(a.body, "a bug") || a.str("request_id") == "" {
		t.Errorf("a panic gives %s", a.body)
	}
	if a := g.must(http.StatusOK, "GET", "/livez", "", "X-Request-Id", "mine-1"); a.header.Get("X-Request-Id") != "mine-1" {
		t.Errorf("request id %q", a.header.Get("X-Request-Id"))
	}
	g.must(http.StatusOK, "GET", "/readyz", "")
	if a := g.must(http.StatusOK, "GET", "/metrics", ""); !strings.Contains(a.body, `wagate_http_requests_total{method="any",route="none",status="404"}`) {
		t.Errorf("metrics: %s", a.body)
	}
}

func TestIdempotency(t *testing.T) {
	g := start(t)
	first := g.must(http.StatusAccepted, "POST", "/v1/messages", text(""), "Idempotency-Key", "k")
	again := g.must(http.StatusOK, "POST", "/v1/messages", text(""), "Idempotency-Key", "k")
	if again.body != first.body || again.header.Get("Idempotent-Replayed") != "true" || first.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("replay %s of %s", again.body, first.body)
	}
	if a := g.must(http.StatusUnprocessableEntity, "POST", "/v1/messages", text(`,"x":1`), "Idempotency-Key", "k"); a.str("code") != "idempotency_key_reused" {
		t.Errorf("another body: %s", a.body)
	}
	before := g.stored()
	const n = 200
	ids := make([]string, n)
	statuses := make([]int, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			a := g.do("POST", "/v1/messages", text(""), "Idempotency-Key", "many")
			ids[i], statuses[i] = a.str("id"), a.status
		})
	}
	wg.Wait()
	fresh := 0
	for i := range n {
		if statuses[i] == http.StatusAccepted {
			fresh++
		}
		if ids[i] == "" || ids[i] != ids[0] {
			t.Fatalf("ids %q and %q (status %d)", ids[0], ids[i], statuses[i])
		}
	}
	if fresh != 1 || g.stored() != before+3 {
		t.Errorf("%d answers of 202, %d rows more", fresh, g.stored()-before)
	}
}

func TestBatch(t *testing.T) {
	g := start(t)
	a := g.must(http.StatusOK, "POST", "/v1/messages/batch", `{"messages":[`+text("")+`,7,`+text(`,"gateway":{"priority":"x"}`)+`,`+strings.Replace(text(""), phone, "299", 1)+`,`+
		text(`,"x":"`+strings.Repeat("x", 1<<20)+`"`)+`,`+text("")+`,`+strings.Replace(text(""), "hello", "", 1)+`]}`)
	want := []struct {
		status  float64
		pointer string
	}{{}, {422, ""}, {422, "/gateway/priority"}, {404, "/from"}, {413, ""}, {}, {422, "/text/body"}}
	results, _ := a.json["results"].([]any)
	if len(results) != len(want) {
		t.Fatalf("results %.500s", a.body)
	}
	for i, r := range results {
		r, _ := r.(map[string]any)
		problem, failed := r["error"].(map[string]any)
		if r["index"] != float64(i) || failed == (want[i].status == 0) {
			t.Errorf("%d: %v", i, r)
			continue
		}
		if !failed {
			g.must(http.StatusOK, "GET", fmt.Sprint("/v1/messages/", r["id"]), "")
		} else if p := (answer{json: problem}).pointers(); problem["status"] != want[i].status || !slices.Equal(p, []string{want[i].pointer}) {
			t.Errorf("%d: %v", i, problem)
		}
	}
	if n := g.stored(); n != 4 {
		t.Errorf("%d rows stored", n)
	}
	for body, pointers := range map[string][]string{
		`{"messages":[]}`:        {"/messages"},
		`{"messages":{}}`:        {"/messages"},
		`{}`:                     {"/messages"},
		`[]`:                     {""},
		`{"messages":[1],"x":1}`: {"/x"},
		`{"messages":[1` + strings.Repeat(",1", 1000) + `]}`: {"/messages"},
	} {
		if a := g.must(http.StatusUnprocessableEntity, "POST", "/v1/messages/batch", body); !slices.Equal(a.pointers(), pointers) {
			t.Errorf("%.40s: %q", body, a.pointers())
		}
	}
	g.must(http.StatusBadRequest, "POST", "/v1/messages/batch", `{"messages":[`)
	g.must(http.StatusBadRequest, "POST", "/v1/messages/batch", `{"messages":[`+text("")+`]}`, "Idempotency-Key", "k")
	if n := g.stored(); n != 4 {
		t.Errorf("%d rows stored", n)
	}
}

func TestStream(t *testing.T) {
	g := start(t)
	body, lines := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), "POST", g.url+"/v1/messages/batch", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+adminKey)
	r.Header.Set("Content-Type", "application/x-ndjson; charset=utf-8")
	write := func(s string) {
		if _, err := io.WriteString(lines, s); err != nil {
			t.Error(err)
		}
	}
	go write(text("") + "\n")
	resp, err := g.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	results := bufio.NewScanner(resp.Body)
	next := func() (index int, status int) {
		t.Helper()
		var v struct {
			Index int
			ID    string
			Error struct{ Status int }
		}
		if !results.Scan() || json.Unmarshal(results.Bytes(), &v) != nil || (v.ID == "") == (v.Error.Status == 0) {
			t.Fatalf("no result: %q, %v", results.Text(), results.Err())
		}
		return v.Index, v.Error.Status
	}
	expect := func(wantIndex, wantStatus int) {
		t.Helper()
		if index, status := next(); index != wantIndex || status != wantStatus {
			t.Errorf("result %d with error %d, want %d with %d", index, status, wantIndex, wantStatus)
		}
	}
	expect(0, 0) // the first answer is there before the second line is written
	write("\n{\n" + text("") + "\n")
	expect(1, 400)
	expect(2, 0)
	go write(text(`,"x":"`+strings.Repeat("x", 3<<20)+`"`) + "\n" + text("") + "\n")
	expect(3, 413)
	expect(4, 0)
	write(strings.Replace(text(""), "hello", "", 1) + "\n")
	expect(5, 422)
	const many = 1500
	go func() {
		write(strings.Repeat(text("")+"\n", many-1) + text("")) // the last without an end of line
		if err := lines.Close(); err != nil {
			t.Error(err)
		}
	}()
	for i := range many {
		expect(6+i, 0)
	}
	if results.Scan() {
		t.Errorf("one result too many: %s", results.Text())
	}
	if n := g.stored(); n != 2*(many+3) {
		t.Errorf("%d rows stored", n)
	}
}

func TestPreferWait(t *testing.T) {
	g := start(t)
	done := make(chan answer)
	go func() { done <- g.do("POST", "/v1/messages", text(""), "Prefer", "respond-async, wait=30") }()
	for {
		tag, err := g.pool.Exec(t.Context(), `UPDATE messages SET status = 'accepted', wamid = 'wamid.W'`)
		if err != nil {
			t.Fatal(err)
		}
		if tag.RowsAffected() == 1 {
			break
		}
	}
	if a := <-done; a.status != http.StatusOK || a.str("wamid") != "wamid.W" || a.header.Get("Preference-Applied") != "wait=30" {
		t.Errorf("wait=30: %d %s", a.status, a.body)
	}
	if a := g.must(http.StatusAccepted, "POST", "/v1/messages", text(""), "Prefer", "wait=1"); a.header.Get("Preference-Applied") != "" || a.str("status") != "queued" {
		t.Errorf("nothing came in time: %s", a.body)
	}
}

func TestDatabaseAway(t *testing.T) {
	g := start(t)
	g.must(http.StatusAccepted, "POST", "/v1/messages", text(""))
	g.pool.Close()
	for _, path := range []string{"/v1/messages", "/v1/messages/batch"} {
		body := map[string]string{"/v1/messages": text(""), "/v1/messages/batch": `{"messages":[` + text("") + `]}`}[path]
		if a := g.must(http.StatusServiceUnavailable, "POST", path, body); a.header.Get("Retry-After") != "2" {
			t.Errorf("%s: Retry-After %q", path, a.header.Get("Retry-After"))
		}
	}
	g.must(http.StatusServiceUnavailable, "GET", "/v1/messages", "")
	g.must(http.StatusServiceUnavailable, "GET", "/v1/messages", "", "Authorization", "Bearer wg_another")
	g.must(http.StatusServiceUnavailable, "GET", "/readyz", "")
	g.must(http.StatusOK, "GET", "/livez", "")
}
