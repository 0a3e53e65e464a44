package app_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/app"
	"wagate/internal/config"
	"wagate/internal/seal"
	"wagate/internal/simulator"
	"wagate/internal/store"
	"wagate/internal/upkeep"
)

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// dump gives every row of every table of the database, ours and River's, by table.
func (r *rig) dump(t *testing.T) map[string]string {
	t.Helper()
	rows, err := r.pool.Query(t.Context(), `
		SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < 50 {
		t.Fatalf("%d tables, %v", len(tables), err)
	}
	dump := map[string]string{}
	for _, table := range tables {
		var text string
		if err := r.pool.QueryRow(t.Context(), `SELECT coalesce(string_agg(to_jsonb(x)::text, E'\n'), '') FROM `+table+` x`).Scan(&text); err != nil {
			t.Fatal(err)
		}
		if text != "" {
			dump[table] = text
		}
	}
	return dump
}

// holding names the tables in which a text stands, as it is, in the hexadecimal form of bytea, or in base64 as Meta's wamids
// have it.
func holding(dump map[string]string, text string) (tables []string) {
	forms := []string{text, hex.EncodeToString([]byte(text))}
	for shift := range 3 { // base64 looks different by where it begins; its ends depend on the neighbours
		encoded := base64.StdEncoding.EncodeToString(append(make([]byte, shift), text...))
		if inner := encoded[4 : len(encoded)-4]; len(inner) >= 8 { // shorter ones stand anywhere
			forms = append(forms, inner)
		}
	}
	for table, rows := range dump {
		for _, form := range forms {
			if strings.Contains(rows, form) {
				tables = append(tables, table)
				break
			}
		}
	}
	slices.Sort(tables)
	return tables
}

// What is marked goes through everything the gateway has, and nothing of it is left when its time is over.
func TestWhatIsForgottenStandsNowhere(t *testing.T) {
	const (
		key    = "an-admin-key-for-tests"
		secret = "an-app-secret"
		otp    = "739182" // of the authentication messages
		mark   = "MARKEDCONTENT"
	)
	r := newRig(t, simulator.Config{AppSecret: secret, StatusDelay: -1})
	r.phone(t, "100", "101", nil)
	sealer, err := seal.New(r.cfg.SecretKey.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.st.PutApp(t.Context(), store.App{ID: "1", Secret: sealer.Seal([]byte(secret), seal.AppSecret("1"))}); err != nil {
		t.Fatal(err)
	}
	var log safeBuffer
	logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r.cfg.Listen, r.cfg.AdminKey, r.cfg.Media = "127.0.0.1:0", config.NewSecret(key), "file://"+filepath.ToSlash(t.TempDir())+"/media"
	r.cfg.CallbackLoopback = true
	r.phone(t, "100", "102", nil)
	for _, phone := range []string{"101", "102"} {
		r.sim.SetPhone(phone, simulator.PhoneConfig{WABAID: "100", PerSecond: -1})
	}
	var heard safeBuffer
	ear := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.WriteString(w, req.URL.Query().Get("hub.challenge"))
		_, _ = io.Copy(&heard, req.Body)
	}))
	defer ear.Close()
	g, err := app.StartGateway(t.Context(), r.cfg, r.pool, logger, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	r.sim.SetWebhook(g.URL()+"/webhooks/whatsapp", secret)
	w, err := app.StartWorker(t.Context(), r.cfg, r.pool, logger, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	call := func(want int, method, path, body string) map[string]any {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, g.URL()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+key)
		req.Header.Set("Content-Type", "application/json")
		if strings.HasPrefix(path, "/v1/media") {
			req.Header.Set("Content-Type", "image/png")
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != want {
			t.Fatalf("%s %s: %d %s, %v", method, path, resp.StatusCode, raw, err)
		}
		var answer map[string]any
		if err := json.Unmarshal(raw, &answer); err != nil {
			t.Fatal(err)
		}
		return answer
	}
	call(http.StatusOK, "PATCH", "/v1/wabas/100", `{"opt_out_keywords":{"en":["STOP"]}}`)
	for _, format := range []string{`"format":"wagate"`, `"format":"meta","verify_token":"a-token","secret":"another-secret-of-16"`} {
		call(http.StatusCreated, "POST", "/v1/subscriptions", `{"url":"`+ear.URL+`","events":["message.status","message.inbound"],`+format+`}`)
	}
	// By the simulator's magic numbers: delivered, refused, accepted without a word more, an answer lost, failed by webhook.
	endings := []string{"0014", "0001", "0017", "0007", "0008"}
	var numbers []string
	ids := map[string]string{}
	for i, end := range endings {
		to := fmt.Sprintf("1650713%s", end)
		numbers = append(numbers, to)
		ids[end] = call(http.StatusAccepted, "POST", "/v1/messages", fmt.Sprintf(`{"from":"101","to":"+%s","type":"text","text":{"body":"%s to %s"},
			"gateway":{"idempotency_key":"k%d","ordering_key":"chat with +%s"},"biz_opaque_callback_data":"%s"}`, to, mark, to, i, to, to))["id"].(string)
		// Authentication messages that end; one in four does not, and is looked at later.
		to = fmt.Sprintf("1650714%s", end)
		numbers = append(numbers, to)
		ids["otp"+end] = call(http.StatusAccepted, "POST", "/v1/messages", fmt.Sprintf(`{"from":"101","to":"+%s","type":"template","template":{"name":"login","language":{"code":"en"},
			"components":[{"type":"body","parameters":[{"type":"text","text":"%s"}]}]},"gateway":{"category":"authentication","on_unknown":"hold"}}`, to, otp))["id"].(string)
	}
	// One that is told to a callback_url, one with media of ours, one that becomes its fallback: an authentication template.
	for i, more := range []string{
		`"type":"text","text":{"body":"` + mark + `"},"gateway":{"callback_url":"` + ear.URL + `/told"}`,
		`"type":"image","image":{"id":"%s","caption":"` + mark + `"}`,
		`"from":"102","type":"text","text":{"body":"` + mark + `"},"gateway":{"fallback_template":{"name":"login","language":{"code":"en"},"category":"authentication",
			"components":[{"type":"body","parameters":[{"type":"text","text":"` + otp + `"}]}]}}`,
	} {
		to := fmt.Sprintf("1650718010%d", i)
		numbers = append(numbers, to)
		if i == 1 {
			more = fmt.Sprintf(more, call(http.StatusCreated, "POST", "/v1/media?filename=a.png", "\x89PNG\r\n\x1a\n a picture")["id"])
		}
		if !strings.HasPrefix(more, `"from"`) {
			more = `"from":"101",` + more
		} else if _, err := r.sim.SetError(simulator.ErrorRule{Phone: "102", Code: 131047, By: simulator.ByWebhook, Times: 1}); err != nil {
			t.Fatal(err)
		}
		call(http.StatusAccepted, "POST", "/v1/messages", `{"to":"+`+to+`",`+more+`}`)
	}
	// A user who ends marketing by a word, and one who has another number now.
	const stops, moved, moves = "16507150200", "16507150201", "16507150202"
	numbers = append(numbers, moved, moves)
	if err := r.sim.Inbound(simulator.InboundMessages{Phone: "101", From: stops, Text: "stop", Count: 1}); err != nil {
		t.Fatal(err)
	}
	notify(t, client, g.URL(), secret, fmt.Sprintf(`{"object":"whatsapp_business_account","entry":[{"id":"100","changes":[{"field":"messages","value":{"messaging_product":"whatsapp",
		"metadata":{"display_phone_number":"1","phone_number_id":"101"},"contacts":[{"wa_id":"%s","user_id":"US.77","profile":{"name":"%s"}}],
		"messages":[{"from":"%s","from_user_id":"US.77","id":"wamid.moved","timestamp":"%d","type":"system","system":{"body":"%s","type":"user_changed_number","wa_id":"%s"}}]}}]}]}`,
		moved, mark, moved, time.Now().Unix(), mark, moves))
	const writer = "16507150001"
	numbers = append(numbers, writer)
	if err := r.sim.Inbound(simulator.InboundMessages{Phone: "101", From: writer, Text: mark + " by a user", Count: 1}); err != nil {
		t.Fatal(err)
	}
	// A user who wants no marketing, written to under a spelling that Meta maps to another number.
	const suppressed, other = "16507169999", "16507169998"
	if err := r.st.InTx(t.Context(), func(tx pgx.Tx) error {
		if err := r.st.LearnWAIDs(t.Context(), tx, []store.LearnedWAID{{Input: other, WAID: suppressed}, {Input: "16507170001", WAID: "16507170002"}}); err != nil {
			return err
		}
		return r.st.PutSuppressions(t.Context(), tx, []store.Suppression{{WABAID: "100", WAID: suppressed, Category: "marketing", Reason: "stop"}})
	}); err != nil {
		t.Fatal(err)
	}
	numbers = append(numbers, "16507170001", "16507170002")
	r.await(t, "all ended", func(c map[string]int) bool {
		return c["read"] == 2 && c["failed"] == 4 && c["accepted"] == 2 && c["delivered"]+c["read"] == 7 &&
			r.count(t, `SELECT count(*) FROM service_windows`) == 2 && r.count(t, `SELECT count(*) FROM number_changes`) == 1 &&
			r.count(t, `SELECT count(*) FROM messages WHERE fallback_at IS NOT NULL`) == 1 && r.count(t, `SELECT count(*) FROM media_uploads`) == 1 &&
			r.count(t, `SELECT count(*) FROM suppressions WHERE source = 'keyword'`) == 1 &&
			r.count(t, `SELECT count(*) FROM callback_events`) > 20 && r.count(t, `SELECT count(*) FROM callback_events WHERE delivered_at IS NULL`) == 0 && r.count(t, `SELECT count(*) FROM webhook_raw WHERE processed_at IS NULL`) == 0
	})

	// Authentication messages have lost their content with the status that ended them; one of them cannot be sent again.
	if n := r.count(t, `SELECT count(*) FROM messages WHERE category = 'authentication' AND body IS NOT NULL`); n != 1 {
		t.Errorf("%d authentication messages have their content, want the one that has not ended", n)
	}
	for end, id := range ids {
		if strings.HasPrefix(end, "otp0001") || strings.HasPrefix(end, "otp0008") {
			if p := call(http.StatusConflict, "POST", "/v1/messages/"+id+"/resend", `{}`); p["code"] != "content_gone" {
				t.Errorf("resending it gives %v", p)
			}
			if m := call(http.StatusOK, "GET", "/v1/messages/"+id, ""); m["redacted_at"] == nil || m["status"] != "failed" {
				t.Errorf("it is shown as %v", m)
			}
		}
	}
	hashes := r.hashes(t)
	before := r.dump(t)
	for _, text := range []string{mark + " by a user", numbers[0]} {
		if !strings.Contains(heard.String(), text) {
			t.Errorf("clients were not told of %q", text)
		}
	}
	for _, text := range append([]string{mark, otp, stops}, numbers...) {
		if len(holding(before, text)) == 0 {
			t.Errorf("%q stands nowhere before: the search for it proves nothing", text)
		}
	}
	for _, table := range holding(before, mark) {
		if !strings.HasPrefix(table, "messages_p") && !strings.HasPrefix(table, "webhook_raw_p") && table != "callback_events" {
			t.Errorf("content stands in %s", table)
		}
	}
	for _, text := range append([]string{mark, otp}, numbers...) {
		if strings.Contains(log.String(), text) {
			t.Errorf("%q stands in the log", text)
		}
	}
	if err := w.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	// Forty days later.
	r.age(t, 40)
	keeper := upkeep.New(upkeep.Config{Store: r.st, Logger: logger, Rules: upkeep.Rules{Content: 7 * 24 * time.Hour, RecipientDays: 30, RetentionDays: 365}})
	pass := func(days int) {
		t.Helper()
		if !keeper.Pass(t.Context(), time.Now().AddDate(0, 0, days)) {
			t.Fatal(log.String())
		}
	}
	pass(8) // the content's time is over, the numbers' is not
	after := r.dump(t)
	for _, text := range []string{mark, otp} {
		if tables := holding(after, text); len(tables) > 0 {
			t.Errorf("%q still stands in %v", text, tables)
		}
	}
	if len(holding(after, numbers[0])) == 0 {
		t.Error("a number is gone before its time")
	}
	pass(32)
	if n := r.count(t, `SELECT count(*) FROM redactions_open`); n != 0 {
		t.Errorf("%d messages are open", n)
	}
	after = r.dump(t)
	for _, number := range numbers {
		if tables := holding(after, number); len(tables) > 0 {
			t.Errorf("%s still stands in %v", number, tables)
		}
	}
	// A promise to a user is kept: who is suppressed stays known, under every spelling.
	if tables := holding(after, suppressed); !slices.Equal(tables, []string{"suppressions", "wa_ids"}) || !slices.Equal(holding(after, other), []string{"wa_ids"}) {
		t.Errorf("who is suppressed stands in %v", tables)
	}
	if tables := holding(after, stops); !slices.Equal(tables, []string{"suppressions"}) {
		t.Errorf("who has ended marketing stands in %v", tables)
	}
	// Reports and searches still know one recipient from another, and what Meta took.
	if got := r.hashes(t); !maps.Equal(got, hashes) {
		t.Errorf("report.messages says %v, and said %v", got, hashes)
	}
	found := call(http.StatusOK, "GET", "/v1/messages?to=%2B1+650-713-0014", "")["messages"].([]any)
	if len(found) != 1 {
		t.Fatalf("by its number %d messages are found", len(found))
	}
	if m := found[0].(map[string]any); m["to"] != "16*******14" || m["id"] != ids["0014"] || m["wamid"] != nil || m["delivered_at"] == nil {
		t.Errorf("it is shown as %v", m)
	}
	if err := g.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}

// notify posts a notification as Meta does.
func notify(t *testing.T, client *http.Client, gateway, secret, body string) {
	t.Helper()
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, gateway+"/webhooks/whatsapp", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the notification: %d", resp.StatusCode)
	}
}

// hashes gives what report.messages says of each message and its recipient.
func (r *rig) hashes(t *testing.T) map[string]string {
	t.Helper()
	rows, err := r.pool.Query(t.Context(), `SELECT id::text, recipient_masked || ' ' || recipient_hash || ' ' || accepted || ' ' || status FROM report.messages`)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	var id, what string
	if _, err := pgx.ForEachRow(rows, []any{&id, &what}, func() error { all[id] = what; return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// age lets days pass for what goes by the database's clock, and what ends with its own time end.
func (r *rig) age(t *testing.T, days int) {
	t.Helper()
	for _, sql := range []string{
		`UPDATE messages SET accepted_at = accepted_at - make_interval(days => $1)`,
		`UPDATE service_windows SET until = until - make_interval(days => $1)`,
		`UPDATE pair_states SET tat = tat - make_interval(days => $1)`,
		`UPDATE callback_events SET created_at = created_at - make_interval(days => $1), delivered_at = delivered_at - make_interval(days => $1)`,
		`UPDATE user_ids SET seen_at = seen_at - make_interval(days => $1)`,
		`UPDATE number_changes SET at = at - make_interval(days => $1)`,
		`UPDATE idempotency_keys SET created_at = created_at - make_interval(days => $1)`,
	} {
		if _, err := r.pool.Exec(t.Context(), sql, days); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := r.st.SweepWindows(t.Context(), store.Window{}, 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := r.st.ForgetCallbacks(t.Context(), 7*24*time.Hour, 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := r.st.SweepUserIDs(t.Context(), 30, 1000); err != nil {
		t.Fatal(err)
	}
	if err := r.st.SweepAccountNews(t.Context(), 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := r.st.SweepPairStates(t.Context(), 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := r.st.ForgetIdempotencyKeys(t.Context(), 24*time.Hour, 1000); err != nil {
		t.Fatal(err)
	}
}
