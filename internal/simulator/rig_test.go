package simulator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testSecret = "not a secret"
	testPhone  = "200000000000001"
	testHook   = "http://hook.invalid/webhooks/whatsapp"
)

// rig is a simulator in a bubble of virtual time, with a webhook receiver in memory.
type rig struct {
	t *testing.T
	s *Server

	mu     sync.Mutex
	posts  []hookPost
	answer func(n int) (int, error) // HTTP status of the n-th POST, from 0; nil: 200
}

type hookPost struct {
	url, signature string
	body           []byte
	at             time.Time
	hook           hook
}

// RoundTrip receives a webhook.
func (r *rig) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the webhook: %w", err)
	}
	p := hookPost{url: req.URL.String(), signature: req.Header.Get("X-Hub-Signature-256"), body: body, at: time.Now()}
	if err := json.Unmarshal(body, &p.hook); err != nil {
		r.t.Errorf("webhook is not JSON: %v", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.posts = append(r.posts, p)
	status := http.StatusOK
	if r.answer != nil {
		if status, err = r.answer(len(r.posts) - 1); err != nil {
			return nil, err
		}
	}
	return &http.Response{StatusCode: status, Body: http.NoBody, Request: req}, nil
}

// inBubble runs f with a started simulator in virtual time.
func inBubble(t *testing.T, cfg Config, f func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t}
		cfg.transport = r
		cfg.AppSecret = testSecret
		if cfg.WebhookURL == "" {
			cfg.WebhookURL = testHook
		}
		r.s = New(cfg)
		r.s.Start(t.Context())
		defer r.s.Close()
		f(r)
	})
}

// quiet lets virtual time pass until no status is pending.
func (r *rig) quiet() {
	r.t.Helper()
	for range 10_000 {
		synctest.Wait()
		if r.s.Ledger().Totals.StatusesPending == 0 {
			return
		}
		<-time.After(10 * time.Millisecond) // virtual
	}
	r.t.Fatal("statuses still pending")
}

type reply struct {
	status  int
	dropped bool
	ctype   string
	header  http.Header
	raw     string
	body    struct {
		Product  string `json:"messaging_product"`
		Success  bool
		Contacts []struct {
			Input  string
			WaID   string `json:"wa_id"`
			UserID string `json:"user_id"`
		}
		Messages []struct {
			ID     string
			Status string `json:"message_status"`
		}
		Error *struct {
			Message   string
			Type      string
			Code      int
			Subcode   int `json:"error_subcode"`
			ErrorData struct {
				Product string `json:"messaging_product"`
				Details string
			} `json:"error_data"`
			TraceID string `json:"fbtrace_id"`
		}
	}
}

func (rep reply) code() int {
	if rep.body.Error == nil {
		return 0
	}
	return rep.body.Error.Code
}

func (rep reply) wamid() string {
	if len(rep.body.Messages) == 0 {
		return ""
	}
	return rep.body.Messages[0].ID
}

// do serves one request in process.
func do(ctx context.Context, t *testing.T, s *Server, method, path, body string, header http.Header) (rep reply) {
	t.Helper()
	req := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	req.Header.Set("Authorization", "Bearer token")
	for k, v := range header {
		req.Header[k] = v
	}
	rec := httptest.NewRecorder()
	defer func() {
		if err, ok := recover().(error); ok && errors.Is(err, http.ErrAbortHandler) {
			rep.dropped = true
		} else if err != nil {
			t.Errorf("handler: %v", err)
		}
	}()
	s.Handler().ServeHTTP(rec, req)
	rep.status, rep.ctype = rec.Code, rec.Header().Get("Content-Type")
	rep.header, rep.raw = rec.Header(), rec.Body.String()
	if rec.Body.Len() > 0 && strings.HasPrefix(path, "/v") {
		if err := json.Unmarshal(rec.Body.Bytes(), &rep.body); err != nil {
			t.Errorf("answer is not JSON: %v", err)
		}
	}
	return rep
}

func (r *rig) post(body string) reply {
	r.t.Helper()
	return do(r.t.Context(), r.t, r.s, http.MethodPost, "/v23.0/"+testPhone+"/messages", body, nil)
}

// postTo sends a text to a recipient from a phone number.
func (r *rig) postTo(phone, to string) reply {
	r.t.Helper()
	body := `{"messaging_product":"whatsapp","to":"` + to + `","type":"text","text":{"body":"hello"}}`
	return do(r.t.Context(), r.t, r.s, http.MethodPost, "/v23.0/"+phone+"/messages", body, nil)
}

// pass lets virtual time pass.
func pass(d time.Duration) { <-time.After(d) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// text is a text body for a recipient with these last four digits.
func text(last4, opaque string) string {
	body := map[string]any{
		"messaging_product": "whatsapp", "to": "+1650555" + last4, "type": "text", "text": map[string]string{"body": "hello"},
	}
	if opaque != "" {
		body["biz_opaque_callback_data"] = opaque
	}
	out, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return string(out)
}

// statuses are the names of the statuses of a message in the order of their POSTs.
func (r *rig) statuses(wamid string) (names []string) {
	for _, st := range r.hookStatuses(wamid) {
		names = append(names, st.Status)
	}
	return names
}

func (r *rig) hookStatuses(wamid string) (out []hookStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.posts {
		for _, e := range p.hook.Entry {
			for _, c := range e.Changes {
				for _, st := range c.Value.Statuses {
					if st.ID == wamid {
						out = append(out, st)
					}
				}
			}
		}
	}
	return out
}
