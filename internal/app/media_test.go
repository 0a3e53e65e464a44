package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/app"
	"wagate/internal/config"
	"wagate/internal/seal"
	"wagate/internal/simulator"
	"wagate/internal/store"
)

// mediaRig is a gateway, a worker and a simulator that takes no media but those that were uploaded.
type mediaRig struct {
	*rig
	url, key string
	client   *http.Client
}

func newMediaRig(t *testing.T, gone string) *mediaRig {
	t.Helper()
	r := &mediaRig{rig: newRig(t, simulator.Config{}), key: "an-admin-key-for-tests", client: &http.Client{Timeout: 30 * time.Second}}
	t.Cleanup(r.client.CloseIdleConnections)
	if err := r.sim.StrictMedia(true, gone); err != nil {
		t.Fatal(err)
	}
	for _, p := range [][2]string{{"100", "101"}, {"100", "102"}, {"200", "201"}} {
		r.phone(t, p[0], p[1], nil)
		r.sim.SetPhone(p[1], simulator.PhoneConfig{WABAID: p[0], PerSecond: -1})
	}
	sealer, err := seal.New(r.cfg.SecretKey.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.st.PutApp(t.Context(), store.App{ID: "900", Secret: sealer.Seal([]byte("app-secret"), seal.AppSecret("900"))}); err != nil {
		t.Fatal(err)
	}
	r.cfg.Listen, r.cfg.AdminKey, r.cfg.Media = "127.0.0.1:0", config.NewSecret(r.key), "file://"+filepath.ToSlash(t.TempDir())+"/media"
	g, err := app.StartGateway(t.Context(), r.cfg, r.pool, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		if err := g.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	r.url = g.URL()
	r.sim.SetWebhook(r.url+"/webhooks/whatsapp", "app-secret")
	t.Cleanup(func() { r.sim.SetWebhook("", "") })
	r.worker(t)
	return r
}

// call makes a request and reads its answer, which has to have a status, into v.
func (r *mediaRig) call(t *testing.T, method, path, kind, body string, status int, v any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.key)
	req.Header.Set("Content-Type", kind)
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		t.Fatalf("%s %s: %d %s, %v", method, path, resp.StatusCode, raw, err)
	}
	if v != nil {
		if err := json.Unmarshal(raw, v); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
	}
}

func (r *mediaRig) upload(t *testing.T, content string) string {
	t.Helper()
	var m struct{ ID string }
	r.call(t, http.MethodPost, "/v1/media?filename=a.png", "image/png", content, http.StatusCreated, &m)
	return m.ID
}

// send posts an image message and gives its id.
func (r *mediaRig) send(t *testing.T, from, media, extra string) uuid.UUID {
	t.Helper()
	var m struct{ ID uuid.UUID }
	body := fmt.Sprintf(`{"from":%q,"to":"+120255501%02d","type":"image","image":{"id":%q}%s}`, from, len(extra)%100, media, extra)
	r.call(t, http.MethodPost, "/v1/messages", "application/json", body, http.StatusAccepted, &m)
	return m.ID
}

// uploads counts the files that Meta has got at a phone number.
func (r *mediaRig) uploads(phone string) (n int) {
	for _, c := range r.sim.Calls(0, 10_000) {
		if c.Method == http.MethodPost && strings.HasSuffix(c.Path, "/"+phone+"/media") && c.Status == http.StatusOK {
			n++
		}
	}
	return n
}

func (r *mediaRig) awaitStatus(t *testing.T, id uuid.UUID, want string) {
	t.Helper()
	r.until(t, "message "+want, func() bool {
		return r.count(t, `SELECT count(*) FROM messages WHERE id = $1 AND status = $2`, id, want) == 1
	})
}

func TestMediaAreUploadedOnceAPhoneNumber(t *testing.T) {
	r := newMediaRig(t, simulator.ByWebhook)
	media := r.upload(t, "a picture")
	const each = 20
	var ids []uuid.UUID
	for i := range each {
		for _, phone := range []string{"101", "102", "201"} {
			ids = append(ids, r.send(t, phone, media, fmt.Sprintf(`,"biz_opaque_callback_data":%q`, strings.Repeat("x", i))))
		}
	}
	for _, id := range ids {
		r.awaitStatus(t, id, "delivered")
	}
	for _, phone := range []string{"101", "102", "201"} {
		if n := r.uploads(phone); n != 1 {
			t.Errorf("phone number %s got it %d times", phone, n)
		}
	}
	if l := r.sim.Ledger().Totals; l.Accepted != 3*each || l.Duplicates != 0 {
		t.Errorf("the ledger: %+v", l)
	}
	var view struct {
		Uploads []struct {
			PhoneNumberID string    `json:"phone_number_id"`
			ValidUntil    time.Time `json:"valid_until"`
		}
	}
	r.call(t, http.MethodGet, "/v1/media/"+media, "", "", http.StatusOK, &view)
	if len(view.Uploads) != 3 || view.Uploads[0].ValidUntil.Before(time.Now().Add(28*24*time.Hour)) {
		t.Errorf("%+v", view)
	}
	// Meta got the very bytes.
	for _, m := range r.sim.Media() {
		if m.Size != int64(len("a picture")) || m.MIMEType != "image/png" {
			t.Errorf("%+v", m)
		}
	}

	// What is older than 29 days is uploaded again, at its phone number alone.
	if _, err := r.pool.Exec(t.Context(), `UPDATE media_uploads SET uploaded_at = now() - interval '29 days 1 minute' WHERE phone_number_id = '101'`); err != nil {
		t.Fatal(err)
	}
	r.awaitStatus(t, r.send(t, "101", media, ""), "delivered")
	r.awaitStatus(t, r.send(t, "102", media, ""), "delivered")
	if a, b := r.uploads("101"), r.uploads("102"); a != 2 || b != 1 {
		t.Errorf("uploaded %d and %d times", a, b)
	}
}

// Meta has lost the file, and says so by a failed webhook or by its answer: it is uploaded once more and the message arrives.
func TestMediaThatMetaHasLostAreUploadedOnceMore(t *testing.T) {
	for _, by := range []string{simulator.ByWebhook, simulator.ByAnswer} {
		t.Run(by, func(t *testing.T) {
			r := newMediaRig(t, by)
			media := r.upload(t, "a picture")
			r.awaitStatus(t, r.send(t, "101", media, ""), "delivered")
			if err := r.sim.ExpireMedia("", 0); err != nil {
				t.Fatal(err)
			}
			id := r.send(t, "101", media, "")
			r.awaitStatus(t, id, "delivered")
			if n := r.uploads("101"); n != 2 {
				t.Errorf("uploaded %d times", n)
			}
			if n := r.count(t, `SELECT try FROM messages WHERE id = $1`, id); n != 2 {
				t.Errorf("%d tries", n)
			}
			// The same again, within the minute in which Meta is not asked to take it anew: the message fails with Meta's word.
			if err := r.sim.ExpireMedia("", 0); err != nil {
				t.Fatal(err)
			}
			last := r.send(t, "101", media, "")
			r.awaitStatus(t, last, "failed")
			if n, code := r.uploads("101"), r.count(t, `SELECT error_code FROM messages WHERE id = $1`, last); n != 2 || code != 131053 && code != 100 {
				t.Errorf("uploaded %d times, failed with %d", n, code)
			}
		})
	}
}

// A message that waits for its media keeps its place among those of its ordering key, and holds nobody else up.
func TestAMessageThatWaitsForItsMediaKeepsItsOrder(t *testing.T) {
	r := newMediaRig(t, simulator.ByWebhook)
	media := r.upload(t, "a picture")
	if _, err := r.pool.Exec(t.Context(), `UPDATE wabas SET management_calls_per_hour = 0 WHERE waba_id = '100'`); err != nil {
		t.Fatal(err)
	}
	first := r.send(t, "101", media, `,"gateway":{"ordering_key":"chat"}`)
	text := func(extra string) uuid.UUID {
		var m struct{ ID uuid.UUID }
		r.call(t, http.MethodPost, "/v1/messages", "application/json", `{"from":"101","to":"+12025550177","type":"text","text":{"body":"hi"}`+extra+`}`, http.StatusAccepted, &m)
		return m.ID
	}
	second, free := text(`,"gateway":{"ordering_key":"chat"}`), text("")
	r.awaitStatus(t, free, "delivered")
	r.until(t, "the first held for its media", func() bool {
		return r.count(t, `SELECT count(*) FROM holds WHERE message_id = $1 AND kind = 'media' AND value = $2`, first, media) == 1
	})
	if n := r.count(t, `SELECT count(*) FROM messages WHERE id = $1 AND status = 'queued'`, second); n != 1 {
		t.Error("the second has not waited for the first")
	}
	var held struct {
		HeldBy struct{ Kind, Value string } `json:"held_by"`
	}
	r.call(t, http.MethodGet, "/v1/messages/"+first.String(), "", "", http.StatusOK, &held)
	if held.HeldBy.Kind != "media" || held.HeldBy.Value != media {
		t.Errorf("held by %+v", held.HeldBy)
	}
	var conflict struct {
		Code    string
		Waiting int
	}
	r.call(t, http.MethodDelete, "/v1/media/"+media, "", "", http.StatusConflict, &conflict)
	if conflict.Code != "in_use" || conflict.Waiting != 1 {
		t.Errorf("%+v", conflict)
	}
	r.call(t, http.MethodPost, "/v1/messages/"+first.String()+"/cancel", "", "", http.StatusOK, nil)
	r.awaitStatus(t, second, "delivered")
	r.call(t, http.MethodDelete, "/v1/media/"+media, "", "", http.StatusNoContent, nil)
	if n := r.uploads("101"); n != 0 {
		t.Errorf("uploaded %d times without a management call", n)
	}
}

// A process whose WAGATE_MEDIA is another store does not start: its files would be nobody's.
func TestProcessesShareOneStoreOfMedia(t *testing.T) {
	r := newMediaRig(t, simulator.ByWebhook)
	cfg := r.cfg
	cfg.Media = "file://" + filepath.ToSlash(t.TempDir())
	for name, start := range map[string]func() error{
		"a worker": func() error {
			_, err := app.StartWorker(t.Context(), cfg, r.pool, slog.New(slog.DiscardHandler), nil)
			return err
		},
		"a gateway": func() error {
			_, err := app.StartGateway(t.Context(), cfg, r.pool, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
			return err
		},
	} {
		if err := start(); err == nil || !strings.Contains(err.Error(), "WAGATE_MEDIA: is another store") || bytes.ContainsRune([]byte(err.Error()), '\n') {
			t.Errorf("%s: %v", name, err)
		}
	}
}
