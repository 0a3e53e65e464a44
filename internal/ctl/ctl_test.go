package ctl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"gocloud.dev/blob/memblob"

	"wagate/internal/access"
	"wagate/internal/callback"
	"wagate/internal/consent"
	"wagate/internal/ctl"
	"wagate/internal/httpapi"
	"wagate/internal/intake"
	"wagate/internal/media"
	"wagate/internal/pgtest"
	"wagate/internal/queue"
	"wagate/internal/reach"
	"wagate/internal/seal"
	"wagate/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }

const (
	phone    = "200000000000001"
	adminKey = "wg_test-admin-key-0123456789"
)

// rig is gatewayctl before a real API.
type rig struct {
	t     *testing.T
	env   map[string]string
	url   string
	pool  *pgxpool.Pool
	store *store.Store
}

func start(t *testing.T) *rig {
	t.Helper()
	return startWith(t, func(*httpapi.Deps) {})
}

// startWith is start with other dependencies of the API.
func startWith(t *testing.T, change func(*httpapi.Deps)) *rig {
	t.Helper()
	pool := pgtest.New(t)
	sealer, err := seal.New(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	st := store.New(pool)
	keys := access.New(st, time.Now)
	if err := keys.Bootstrap(t.Context(), adminKey); err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	jobs, err := queue.NewInserter(pool, logger)
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	in := intake.New(st, jobs, logger, registry, time.Now)
	t.Cleanup(in.Close)
	windows := consent.NewWindows(st)
	t.Cleanup(windows.Close)
	bucket := memblob.OpenBucket(nil)
	t.Cleanup(func() { _ = bucket.Close() })
	callbacks := callback.NewClient(reach.New(nil, false))
	t.Cleanup(callbacks.Close)
	deps := httpapi.Deps{
		Callbacks: callbacks, Windows: windows,
		Intake: in, Access: keys, Store: st, Sealer: sealer, Ready: pool.Ping, Registerer: registry, Gatherer: registry,
		Backlog: func(ctx context.Context, id string) (map[int]int64, error) { return jobs.Backlog(ctx, pool, id) },
		Logger:  logger, Now: time.Now, Media: media.New(st, bucket, 0, logger),
	}
	change(&deps)
	api, err := httpapi.New(deps)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config = api.Server()
	server.Start()
	t.Cleanup(server.Close)
	waba := store.WABA{ID: "100", Name: "Shop", AccessToken: sealer.Seal([]byte("hunter2"), seal.AccessToken("100")), ManagementCallsPerHour: 5000, Burst: 1}
	if err := st.PutWABA(t.Context(), waba, nil); err != nil {
		t.Fatal(err)
	}
	eighty, six := 80.0, 6.0
	number := store.PhoneNumber{ID: phone, WABAID: "100", DisplayPhoneNumber: "+1 650", MessagesPerSecond: &eighty, Burst: 1, PairSeconds: &six, PairBurst: 45, WindowCheck: "off"}
	if err := st.PutPhoneNumber(t.Context(), number); err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, url: server.URL, pool: pool, store: st, env: map[string]string{"WAGATE_URL": server.URL, "WAGATE_KEY": adminKey}}
}

// run is gatewayctl with arguments; a secret in what it says fails the test.
func (r *rig) run(args ...string) (code int, stdout, stderr string) {
	r.t.Helper()
	var out, errs bytes.Buffer
	code = ctl.Run(r.t.Context(), args, func(name string) (string, bool) { v, ok := r.env[name]; return v, ok }, &out, &errs)
	for _, secret := range []string{adminKey, "hunter2"} {
		if strings.Contains(out.String()+errs.String(), secret) {
			r.t.Errorf("gatewayctl %q shows a secret: %s%s", args, out.String(), errs.String())
		}
	}
	return code, out.String(), errs.String()
}

// want runs gatewayctl and looks for texts in what it says.
func (r *rig) want(code int, texts []string, args ...string) string {
	r.t.Helper()
	got, stdout, stderr := r.run(args...)
	if got != code {
		r.t.Fatalf("gatewayctl %q: exit %d, want %d: %s%s", args, got, code, stdout, stderr)
	}
	for _, text := range texts {
		if !strings.Contains(stdout+stderr, text) {
			r.t.Errorf("gatewayctl %q does not say %q: %s%s", args, text, stdout, stderr)
		}
	}
	return stdout
}

// send posts a message and gives its id.
func (r *rig) send(options string) string {
	r.t.Helper()
	body := `{"from":"` + phone + `","to":"+16505551234","type":"text","text":{"body":"hello"},"gateway":` + options + `}`
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.url+"/v1/messages", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminKey)
	client := &http.Client{Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	var m struct{ ID string }
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil || resp.StatusCode != http.StatusAccepted {
		r.t.Fatal(resp.StatusCode, err)
	}
	return m.ID
}

func TestLimits(t *testing.T) {
	r := start(t)
	state := `{"phone":{"configured":80,"in_force":38,"tokens":0.4,"slowed":{"ceiling":76,"at":"2026-11-24T09:00:00Z","code":130429}}}`
	if err := r.store.PublishLanes(t.Context(), "w1", []store.LaneNews{{PhoneNumberID: phone, PerSecond: 38, State: []byte(state)}}); err != nil {
		t.Fatal(err)
	}
	if err := r.store.SetBacklog(t.Context(), phone, [4]int64{1, 2, 3, 3794}); err != nil {
		t.Fatal(err)
	}
	if err := r.store.KeepRate(t.Context(), "phone", phone, 76, 130429, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.pool.Exec(t.Context(), `INSERT INTO holds (message_id, phone_number_id, waba_id, kind, value, priority, place) VALUES (gen_random_uuid(), $1, '100', 'pair', '1', 3, now())`, phone); err != nil {
		t.Fatal(err)
	}
	r.want(0, nil, "pause", "waba", "100", "--for", "90m")
	out := r.want(0, nil, "limits")
	line := `(?m)^200000000000001 +100 +80 +38 +0.4 +1/2/3/3794 +1 +1m40s +waba operator until \S+ \(1h(29|30)m\) +130429 at 76/s, \S+ ago$`
	if !regexp.MustCompile(line).MatchString(out) {
		t.Errorf("limits:\n%s", out)
	}
	if !strings.Contains(out, "1 phone numbers, 3800 waiting (1/2/3/3794), 1 held, 38 messages/s now, desired_workers 1\n") {
		t.Errorf("totals:\n%s", out)
	}
	var doc struct {
		DesiredWorkers int `json:"desired_workers"`
	}
	if err := json.Unmarshal([]byte(r.want(0, nil, "limits", "--json")), &doc); err != nil || doc.DesiredWorkers != 1 {
		t.Errorf("as JSON: %v, %+v", err, doc)
	}

	r.want(0, []string{"phone " + phone + ": messages_per_second=40 burst=2 pair.seconds=0.06 pair.burst=45 max_backlog=none"},
		"limits", "set", "phone", phone, "messages_per_second=40", "burst=2", "pair.seconds=0.06")
	r.want(0, []string{"pair=none"}, "limits", "set", "phone", phone, "pair=none")
	r.want(0, []string{"waba 100: messages_per_second=50 messages_per_hour=none burst=1 management_calls_per_hour=200"},
		"limits", "set", "waba", "100", "messages_per_second=50", "management_calls_per_hour=200")
	if w, err := r.store.WABA(t.Context(), "100"); err != nil || w.Name != "Shop" || w.AccessToken == nil || w.MessagesPerSecond == nil || *w.MessagesPerSecond != 50 {
		t.Errorf("the WABA after that: %v", err)
	}
	r.want(1, []string{"422", "/messages_per_second must be a number from 0.001 to 10000"}, "limits", "set", "phone", phone, "messages_per_second=-1")
	r.want(1, []string{"422", "/burst must not be above messages_per_second"}, "limits", "set", "phone", phone, "burst=41")
	r.want(1, []string{"404"}, "limits", "set", "app", "404", "calls_per_hour=5")
	for _, args := range [][]string{
		{"set"}, {"set", "phone", phone}, {"set", "lane", "1", "burst=1"}, {"set", "phone", phone, "speed=1"}, {"set", "phone", phone, "burst"},
		{"set", "phone", phone, "burst=many"}, {"set", "phone", phone, "burst="}, {"set", "waba", "100", "access_token=hunter3"}, {"get"},
	} {
		r.want(2, nil, append([]string{"limits"}, args...)...)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	r := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	out := &untilSeen{text: "desired_workers", seen: cancel}
	code := ctl.Run(ctx, []string{"limits", "--watch"}, func(name string) (string, bool) { v, ok := r.env[name]; return v, ok }, out, out)
	if code != 0 {
		t.Errorf("exit %d: %s", code, out.all)
	}
}

// untilSeen takes output and calls seen when a text has been written.
type untilSeen struct {
	text string
	seen func()
	all  []byte
}

func (u *untilSeen) Write(p []byte) (int, error) {
	u.all = append(u.all, p...)
	if bytes.Contains(u.all, []byte(u.text)) {
		u.seen()
	}
	return len(p), nil
}

func TestPauseAndResume(t *testing.T) {
	r := start(t)
	r.want(0, []string{"Nothing is paused."}, "pauses")
	for _, args := range [][]string{
		{"all"}, {"waba", "100"}, {"phone", phone, "--reason", "told to"}, {"template", "order_shipped/en_US"}, {"tag", "campaign=black-friday", "--for", "2h"},
		{"--until", time.Now().Add(time.Hour).UTC().Format(time.RFC3339), "priority", "low"}, {"flow", "100:123"},
	} {
		r.want(0, []string{"paused ", "Lift it with: gatewayctl resume "}, append([]string{"pause"}, args...)...)
	}
	if err := r.store.Throttled(t.Context(), store.Pause{Scope: "phone", Value: phone, Reason: "Spam\x1b[2J limit", Source: "throttle", Code: 131048, Until: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	listed := r.want(0, []string{"campaign=black-friday", "until lifted", "told to", "131048", "(59m", "order_shipped/en_US"}, "pauses")
	if strings.Contains(listed, "\x1b") {
		t.Error("what a pause says reaches the terminal as it is")
	}
	r.want(0, []string{"operator", "throttle"}, "resume", "phone", phone) // both
	r.want(1, []string{"there is no pause of phone", "gatewayctl pauses"}, "resume", "phone", phone)
	r.want(0, []string{"lifted all"}, "resume", "all")
	var rest struct {
		Pauses []struct{ ID, Scope string } `json:"pauses"`
	}
	if err := json.Unmarshal([]byte(r.want(0, nil, "pauses", "--json")), &rest); err != nil || len(rest.Pauses) != 5 {
		t.Fatalf("%v, %+v", err, rest)
	}
	for _, p := range rest.Pauses {
		r.want(0, []string{"lifted " + p.ID}, "resume", p.ID)
		r.want(1, []string{"404"}, "resume", p.ID)
	}
	r.want(0, []string{"Nothing is paused."}, "pauses")
	r.want(1, []string{"422", "/scope must be all, app, waba"}, "pause", "world", "x")
	r.want(1, []string{"404", "/value is not there"}, "pause", "waba", "404")
	for _, args := range [][]string{{}, {"waba"}, {"waba", "1", "2"}, {"all", "--for", "-2h"}, {"all", "--for", "soon"}, {"all", "--until", "soon"}, {"all", "--for", "1h", "--until", "2027-01-01T00:00:00Z"}} {
		r.want(2, []string{"See gatewayctl pause --help."}, append([]string{"pause"}, args...)...)
	}
	r.want(2, nil, "resume", "waba")
}

func TestMessages(t *testing.T) {
	r := start(t)
	first, second := r.send(`{"tags":{"campaign":"x"},"reference":"order-1"}`), r.send(`{"tags":{"campaign":"y"},"priority":"low"}`)
	third := r.send(`{"tags":{"campaign":"y"}}`)
	r.want(0, []string{first, second, third, "queued"}, "messages", "--status", "queued", "--from", phone)
	if out := r.want(0, []string{first}, "messages", "--tag", "campaign=x"); strings.Contains(out, second) {
		t.Errorf("a tag does not pick: %s", out)
	}
	r.want(0, []string{"--cursor " + second}, "messages", "--limit", "2")
	r.want(0, nil, "pause", "phone", phone, "--reason", "told to")
	r.want(0, []string{"order-1", "queued", "pause of phone " + phone + " (told to)"}, "message", first)
	r.want(0, []string{`"message": {`, `"events": [`}, "message", first, "--json")
	r.want(0, []string{"message " + first + " is cancelled"}, "cancel", first)
	r.want(0, []string{"cancelled"}, "message", first)
	r.want(0, []string{"cancelled 2 messages"}, "cancel", "--tag", "campaign=y", "--after", time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
	again := regexp.MustCompile(`message (\S+) is queued`)
	m := again.FindStringSubmatch(r.want(0, nil, "resend", first, "--idempotency-key", "again-1"))
	if m == nil || m[1] == first {
		t.Fatalf("resent as %v", m)
	}
	r.want(0, []string{m[1]}, "resend", first, "--idempotency-key", "again-1")
	r.want(1, []string{"409", "only one that is unknown can be settled", "gatewayctl message ID"}, "settle", first, "sent")
	if _, err := r.pool.Exec(t.Context(), `UPDATE messages SET status = 'unknown', unknown_at = now(), try = 1 WHERE id = $1::uuid`, m[1]); err != nil {
		t.Fatal(err)
	}
	r.want(0, []string{"message " + m[1] + " is sent"}, "settle", m[1], "sent")
	r.want(1, []string{"404"}, "message", "01997b32-8a00-7000-8000-000000000001")
	r.want(1, []string{"400", "status"}, "messages", "--status", "flying")
	if out := r.want(0, []string{first, m[1]}, "messages", "--to", "1 (650) 555-1234", "--reference", "order-1"); strings.Contains(out, second) {
		t.Errorf("a reference does not pick: %s", out)
	}
	if out := r.want(0, nil, "messages", "--wamid", "wamid.x"); strings.Contains(out, first) {
		t.Errorf("a wamid does not pick: %s", out)
	}
	// More than one page looks at stands before what is looked for.
	if _, err := r.pool.Exec(t.Context(), `INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, status)
		SELECT (left(wagate_uuid_floor(now() + interval '1 minute')::text, 24) || lpad(to_hex(n), 12, '0'))::uuid, '9', '9', '+1', 'text', 3, 'delivered'
		FROM generate_series(1, 21000) n`); err != nil {
		t.Fatal(err)
	}
	if out := r.want(0, []string{third, second, "--cursor " + second}, "messages", "--status", "cancelled", "--limit", "2"); strings.Contains(out, first) {
		t.Errorf("two of three were asked for: %s", out)
	}
	for _, args := range [][]string{{"message"}, {"cancel"}, {"cancel", first, "--to", "1"}, {"cancel", "--tag", "x"}, {"settle", first}, {"settle", first, "maybe"}, {"resend"}, {"messages", "x"}, {"messages", "--colour"}} {
		r.want(2, []string{"See gatewayctl " + args[0] + " --help."}, args...)
	}
}

func TestIngressOfAWABA(t *testing.T) {
	r := start(t)
	r.want(0, []string{"ANSWER", "id"}, "wabas")
	r.want(0, []string{"waba 100: ingress_answer=wamid ingress_wait_seconds=15 opaque_as_idempotency_key=true"},
		"wabas", "set", "100", "ingress_answer=wamid", "ingress_wait_seconds=15", "opaque_as_idempotency_key=true")
	r.want(0, []string{"wamid"}, "wabas")
	w, err := r.store.WABA(t.Context(), "100")
	if err != nil || w.Ingress != (store.Ingress{Answer: store.AnswerWAMID, WaitSeconds: 15, OpaqueIsKey: true}) || w.Name != "Shop" || w.AccessToken == nil {
		t.Errorf("%+v, %v", w, err)
	}
	for _, arg := range []string{"ingress_answer=both", "ingress_wait_seconds=0", "ingress_wait_seconds=soon", "opaque_as_idempotency_key=1"} {
		name, _, _ := strings.Cut(arg, "=")
		r.want(1, []string{"422", name}, "wabas", "set", "100", arg)
	}
	r.want(1, []string{"404"}, "wabas", "set", "999", "ingress_answer=id")
	for _, args := range [][]string{{"show"}, {"set", "100"}, {"set", "100", "ingress_answer"}, {"set", "100", "ingress_answer="}, {"set", "100", "name=x"}} {
		r.want(2, []string{"See gatewayctl wabas --help."}, append([]string{"wabas"}, args...)...)
	}
}

func TestAccountsAndKeys(t *testing.T) {
	r := start(t)
	r.want(0, []string{"100", "Shop", "set", "5000"}, "wabas")
	r.want(0, []string{phone, "+1 650", "1 per 6 s, burst 45"}, "phones")
	r.want(0, []string{`"limits": {`, `"display_phone_number": "+1 650"`}, "phones", phone)
	code, key, told := r.run("keys", "create", "ops", "--scope", "manage", "--scope", "read", "--requests-per-second", "50")
	if key = strings.TrimSpace(key); code != 0 || !strings.HasPrefix(key, "wg_") || strings.Contains(told, key) {
		t.Fatalf("exit %d, %q, %q", code, key, told)
	}
	id := regexp.MustCompile(`made key (\S+) of ops`).FindStringSubmatch(told)
	if id == nil {
		t.Fatal(told)
	}
	if listed := r.want(0, []string{id[1], "manage,read", "50", "in force"}, "keys"); strings.Contains(listed, key) {
		t.Error("a key is listed")
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.want(0, []string{phone}, "--key-file", file, "phones")
	r.want(0, []string{phone}, "phones", "--key-file", file)
	r.want(1, []string{"403", "admin", "Use a key that may"}, "keys", "--key-file", file)
	r.want(0, []string{"revoked"}, "keys", "revoke", id[1])
	r.want(1, []string{"401", "WAGATE_KEY or --key-file"}, "phones", "--key-file", file)
	r.want(0, []string{"revoked 2"}, "keys")
	r.want(1, []string{"422", "/scopes"}, "keys", "create", "x", "--scope", "root")
	for _, args := range [][]string{{"create"}, {"create", "x"}, {"revoke"}, {"x"}} {
		r.want(2, nil, append([]string{"keys"}, args...)...)
	}
}

func TestCommandLine(t *testing.T) {
	r := &rig{t: t, env: map[string]string{}}
	r.want(0, []string{"limits", "settle", "Exit status"})
	r.want(0, []string{"limits", "settle"}, "--help")
	for _, name := range []string{"limits", "wabas", "phones", "pauses", "pause", "resume", "messages", "message", "cancel", "resend", "settle", "webhooks", "keys"} {
		r.want(0, []string{"gatewayctl " + name, "Example"}, name, "--help")
	}
	r.want(2, []string{`no command "fly"`}, "fly")
	r.want(2, []string{"colour"}, "--colour")
	r.want(2, []string{"an API key is needed"}, "limits")
	r.env["WAGATE_KEY_FILE"] = filepath.Join(t.TempDir(), "none")
	r.want(2, []string{"reading the key file"}, "limits")
	r.env["WAGATE_KEY"] = "k"
	r.want(2, []string{"must be like http://127.0.0.1:8080"}, "limits", "--url", "ftp://x")

	// What answers otherwise than a gateway, what sends elsewhere, and what is not there.
	mux := http.NewServeMux()
	mux.HandleFunc("/html/", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		fmt.Fprint(w, "<html>")
	})
	mux.HandleFunc("/ok/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") })
	mux.HandleFunc("/away/", func(w http.ResponseWriter, req *http.Request) { http.Redirect(w, req, "/ok/", http.StatusFound) })
	mux.HandleFunc("/busy/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(w, `{"title":"Too Many Requests","detail":"slow down"}`)
	})
	server := httptest.NewServer(mux)
	r.want(1, []string{"502", "not how a wagate gateway answers"}, "limits", "--url", server.URL+"/html")
	r.want(1, []string{"not of the expected form"}, "limits", "--url", server.URL+"/ok")
	r.want(1, []string{"302"}, "limits", "--url", server.URL+"/away")
	r.want(1, []string{"429", "slow down", "Try again in 7 s."}, "limits", "--url", server.URL+"/busy")
	server.Close()
	r.want(1, []string{"no answer from " + server.URL, "Is the gateway running there?"}, "limits", "--url", server.URL)
}
