package app_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
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
	r.cfg.Listen, r.cfg.AdminKey = "127.0.0.1:0", config.NewSecret(key)
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
		return c["read"] == 2 && c["failed"] == 4 && c["accepted"] == 2 && c["delivered"]+c["read"] == 4 &&
			r.count(t, `SELECT count(*) FROM service_windows`) == 1 && r.count(t, `SELECT count(*) FROM webhook_raw WHERE processed_at IS NULL`) == 0
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
	for _, text := range append([]string{mark, otp}, numbers...) {
		if len(holding(before, text)) == 0 {
			t.Errorf("%q stands nowhere before: the search for it proves nothing", text)
		}
	}
	for _, table := range holding(before, mark) {
		if !strings.HasPrefix(table, "messages_p") && !strings.HasPrefix(table, "webhook_raw_p") {
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
		`UPDATE idempotency_keys SET created_at = created_at - make_interval(days => $1)`,
	} {
		if _, err := r.pool.Exec(t.Context(), sql, days); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := r.st.SweepWindows(t.Context(), store.Window{}, 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := r.st.SweepPairStates(t.Context(), 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := r.st.ForgetIdempotencyKeys(t.Context(), 24*time.Hour, 1000); err != nil {
		t.Fatal(err)
	}
}
