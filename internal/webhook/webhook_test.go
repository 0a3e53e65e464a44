package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"wagate/internal/cloudapi"
	"wagate/internal/message"
	"wagate/internal/pgtest"
	"wagate/internal/queue"
	"wagate/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }

var secret = []byte("the app's secret")

func secrets(context.Context) ([]AppSecret, error) {
	return []AppSecret{{AppID: "app0", Secret: []byte("another")}, {AppID: "app1", Secret: secret}}, nil
}

func receiver(t *testing.T, pool *pgxpool.Pool, change ...func(*Deps)) *Receiver {
	t.Helper()
	jobs, err := queue.NewInserter(pool, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	d := Deps{Store: store.New(pool), Jobs: jobs, Secrets: secrets, VerifyToken: "verify-me"}
	for _, f := range change {
		f(&d)
	}
	r := New(d)
	t.Cleanup(r.Close)
	return r
}

func sign(body, secret []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func post(t *testing.T, r *Receiver, body []byte, signature string) int {
	t.Helper()
	return postFrom(t, r, bytes.NewReader(body), signature)
}

func postFrom(t *testing.T, r *Receiver, body io.Reader, signature string) int {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/webhooks/whatsapp", body)
	if signature != "" {
		req.Header.Set("X-Hub-Signature-256", signature)
	}
	rec := httptest.NewRecorder()
	r.Handler().ServeHTTP(rec, req)
	if rec.Code == http.StatusServiceUnavailable && rec.Header().Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	return rec.Code
}

func take(t *testing.T, r *Receiver, bodies ...[]byte) {
	t.Helper()
	for _, body := range bodies {
		if code := post(t, r, body, sign(body, secret)); code != http.StatusOK {
			t.Fatalf("answered %d", code)
		}
	}
}

func drain(t *testing.T, r *Receiver) {
	t.Helper()
	if err := r.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func scalar[T any](t *testing.T, pool *pgxpool.Pool, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := pool.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func putMessages(t *testing.T, pool *pgxpool.Pool, n int) []uuid.UUID {
	t.Helper()
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = message.NewID(time.Now())
	}
	exec(t, pool, `INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, status, try, slot_at)
		SELECT id, '200', '100', '+16505551234', 'text', 3, 'sending', 1, now() FROM unnest($1::uuid[]) id`, ids)
	return ids
}

// status is one element of statuses[] as Meta writes it.
func status(wamid, word, opaque string, second int) string {
	extra := ""
	if word == "failed" {
		extra = `,"errors":[{"code":131026,"title":"Message undeliverable","error_data":{"details":"as \u00e4 rule"}}]`
	}
	if opaque != "" {
		extra += fmt.Sprintf(`,"biz_opaque_callback_data":%q`, opaque)
	}
	return fmt.Sprintf(`{"id":%q,"status":%q,"timestamp":"%d","recipient_id":"16505551234"%s}`, wamid, word, 1790000000+second, extra)
}

func notification(statuses ...string) []byte {
	return fmt.Appendf(nil, `{"object":"whatsapp_business_account","entry":[{"id":"100","changes":[{"field":"messages","value":{
		"messaging_product":"whatsapp","metadata":{"display_phone_number":"1","phone_number_id":"200"},"statuses":[%s]}}]}]}`, strings.Join(statuses, ","))
}

func TestHandshake(t *testing.T) {
	r := receiver(t, pgtest.New(t))
	get := func(token string) (int, string) {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet,
			"/webhooks/whatsapp?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token="+token, nil)
		rec := httptest.NewRecorder()
		r.Handler().ServeHTTP(rec, req)
		return rec.Code, rec.Body.String()
	}
	if code, body := get("verify-me"); code != 200 || body != "1158201444" {
		t.Errorf("%d %q", code, body)
	}
	if code, body := get("wrong"); code != http.StatusForbidden || body != "" {
		t.Errorf("wrong token: %d %q", code, body)
	}
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/webhooks/whatsapp", nil)
	rec := httptest.NewRecorder()
	if r.Handler().ServeHTTP(rec, req); rec.Code != http.StatusMethodNotAllowed {
		t.Errorf("PUT: %d", rec.Code)
	}
}

func TestWhatIsNotSignedIsNotStoredAndNotLogged(t *testing.T) {
	pool := pgtest.New(t)
	var log bytes.Buffer
	r := receiver(t, pool, func(d *Deps) {
		d.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	body := notification(status("wamid.confidential", "sent", "", 1))
	for name, signature := range map[string]string{
		"missing": "", "other secret": sign(body, []byte("guess")), "other body": sign([]byte("{}"), secret),
		"empty secret": sign(body, nil), "no prefix": strings.TrimPrefix(sign(body, secret), "sha256="), "nonsense": "sha256=zz",
	} {
		if code := post(t, r, body, signature); code != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, code)
		}
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM webhook_raw`); n != 0 {
		t.Errorf("%d stored", n)
	}
	if log.Len() == 0 || strings.Contains(log.String(), "confidential") {
		t.Errorf("log: %q", log.String())
	}
	big := bytes.Repeat([]byte(" "), cloudapi.MaxNotification+1)
	if code := post(t, r, big, sign(big, secret)); code != http.StatusRequestEntityTooLarge {
		t.Errorf("too large: %d", code)
	}
	if code := postFrom(t, r, io.MultiReader(bytes.NewReader(big)), sign(big, secret)); code != http.StatusRequestEntityTooLarge {
		t.Errorf("too large, of unknown length: %d", code)
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM webhook_raw`); n != 0 {
		t.Errorf("%d stored", n)
	}
	take(t, r, body)
	if !scalar[bool](t, pool, `SELECT body = $1 AND app_id = 'app1' AND processed_at IS NULL FROM webhook_raw`, body) {
		t.Error("not kept byte for byte")
	}
}

func TestASecretSetJustNowCounts(t *testing.T) {
	pool := pgtest.New(t)
	var known []AppSecret
	reads := 0
	r := receiver(t, pool, func(d *Deps) {
		d.Secrets = func(context.Context) ([]AppSecret, error) { reads++; return known, nil }
	})
	body := notification()
	for range 3 {
		if code := post(t, r, body, sign(body, secret)); code != http.StatusUnauthorized {
			t.Fatalf("%d", code)
		}
	}
	if reads == 0 || reads > 2 {
		t.Errorf("%d reads for three requests at once", reads)
	}
	known = []AppSecret{{AppID: "app1", Secret: secret}}
	r.mu.Lock()
	r.secretsAt = r.secretsAt.Add(-secretsAgain)
	r.mu.Unlock()
	take(t, r, body)
}

func TestDatabaseAwayIs503(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), "postgres://nobody@127.0.0.1:1/none?connect_timeout=2")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	r := receiver(t, pool)
	body := notification()
	if code := post(t, r, body, sign(body, secret)); code != http.StatusServiceUnavailable {
		t.Errorf("%d", code)
	}
	r = receiver(t, pool, func(d *Deps) {
		d.Secrets = func(context.Context) ([]AppSecret, error) { return nil, io.ErrUnexpectedEOF }
	})
	if code := post(t, r, body, sign(body, secret)); code != http.StatusServiceUnavailable {
		t.Errorf("secrets away: %d", code)
	}
	if err := r.drain(t.Context()); err == nil || faultOf(err) != passing {
		t.Errorf("applier: %v", err)
	}
}

func TestTheHandlerWakesTheApplier(t *testing.T) {
	pool := pgtest.New(t)
	id := putMessages(t, pool, 1)[0]
	r := receiver(t, pool, func(d *Deps) { d.Poll = time.Hour })
	applied := make(chan struct{})
	r.applied = func(done outcome) {
		if len(done.finished) > 0 {
			close(applied)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	take(t, r, notification(status("wamid.1", "sent", cloudapi.Token(id.String(), 1), 1)))
	select {
	case <-applied:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was applied")
	}
	if got := scalar[string](t, pool, `SELECT status FROM messages WHERE id = $1`, id); got != "sent" {
		t.Error(got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
