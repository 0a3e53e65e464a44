// Package graph forwards every management call of the Cloud API through a gateway to the simulator.
package graph

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/app"
	"wagate/internal/config"
	"wagate/internal/pgtest"
	"wagate/internal/seal"
	"wagate/internal/simulator"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	metaToken = "EAAxTheTokenOfTheWABA0123456789"
	apiKey    = "wg_test_0123456789abcdef"
)

// row is one call: see the simulator, whose own test walks over the same table.
type row struct {
	Op     string            `json:"op"`
	Method string            `json:"method"`
	Path   string            `json:"path"`
	Body   string            `json:"body"`
	Bytes  []byte            `json:"bytes"`
	File   string            `json:"file"`
	Header map[string]string `json:"header"`
	Status int               `json:"status"`
	Want   map[string]string `json:"want"`
	Keep   map[string]string `json:"keep"`
}

var placeholder = regexp.MustCompile(`\$[a-z0-9]+`)

// A client that knows the gateway's address and an API key does everything that Meta's management calls offer; no answer shows
// Meta's address or token.
func TestEveryEndpointThroughTheGateway(t *testing.T) {
	pool, err := app.OpenPool(t.Context(), pgtest.DSN(t), 8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	sim := simulator.New(simulator.Config{MediaDir: t.TempDir()})
	meta := httptest.NewServer(sim.Handler())
	t.Cleanup(func() { sim.Close(); meta.Close() })
	sim.SetPhone("1", simulator.PhoneConfig{WABAID: "10", AppID: "5"})
	sim.SetPhone("2", simulator.PhoneConfig{WABAID: "11", AppID: "5"})
	if err := sim.Inbound(simulator.InboundMessages{Phone: "1", From: "16505551234", Count: 1}); err != nil {
		t.Fatal(err)
	}
	gateway, err := app.StartGateway(t.Context(), config.Config{
		Listen: "127.0.0.1:0", GraphURL: meta.URL, GraphVersion: "v23.0", SecretKey: config.NewSecret(string(seal.NewKey())), AdminKey: config.NewSecret(apiKey),
		IdempotencyKeep: 24 * time.Hour,
	}, pool, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := gateway.Stop(t.Context()); err != nil && t.Context().Err() == nil {
			t.Errorf("stopping the gateway: %v", err)
		}
	})
	c := &client{t: t, base: gateway.URL(), meta: meta.URL, http: &http.Client{Timeout: 30 * time.Second}}
	c.must("PUT", "/v1/apps/5", `{"app_secret":"an app secret of this test"}`)
	for _, waba := range []string{"10", "11"} {
		c.must("PUT", "/v1/wabas/"+waba, `{"name":"w","app_id":"5","access_token":"`+metaToken+`"}`)
	}
	c.must("PUT", "/v1/phone-numbers/1", `{"waba_id":"10"}`)
	c.must("PUT", "/v1/phone-numbers/2", `{"waba_id":"11"}`)
	// A bound key says whose the app's uploads are.
	bound := c.must("POST", "/v1/keys", `{"name":"one","scopes":["send","read","manage","admin"],"phone_numbers":["1"]}`)
	c.bound, _ = bound["key"].(string)

	known := map[string]string{"$wamid": url.QueryEscape(c.send(meta.URL))}
	raw, err := os.ReadFile("../../internal/simulator/testdata/endpoints.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	if err := json.Unmarshal(raw, &rows); err != nil || len(rows) < 57 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, r := range rows {
		fill := func(text string) string {
			return placeholder.ReplaceAllStringFunc(text, func(name string) string {
				if known[name] == "" {
					t.Errorf("%s: nothing is known of %s", r.Op, name)
				}
				return known[name]
			})
		}
		path := fill(r.Path)
		if !strings.HasPrefix(path, "http") {
			path = c.base + "/v23.0" + path
		}
		status, out, body := c.call(r, path, fill(r.Body+string(r.Bytes)))
		if want := cmp.Or(r.Status, http.StatusOK); status != want {
			t.Errorf("%s: %s %s: %d %s", r.Op, r.Method, path, status, body)
			continue
		}
		for where, want := range r.Want {
			got := at(out, where)
			switch {
			case want == "absent":
				if got != nil {
					t.Errorf("%s: %s is %v, want nothing", r.Op, where, got)
				}
			case strings.Contains(want, "example\\.com/_media/"): // it points to the gateway here
				if !strings.HasPrefix(fmt.Sprint(got), c.base+"/v23.0/") {
					t.Errorf("%s: %s is %v", r.Op, where, got)
				}
			case got == nil || !regexp.MustCompile(want).MatchString(fmt.Sprint(got)):
				t.Errorf("%s: %s is %v, want %s, in %s", r.Op, where, got, want, body)
			}
		}
		for name, where := range r.Keep {
			known["$"+name] = fmt.Sprint(at(out, where))
		}
		if r.Op == "media download" && body != "\x89PNG!" {
			t.Errorf("downloaded %q", body)
		}
	}
}

// client is a Cloud API client that was given another base URL.
type client struct {
	t          *testing.T
	base, meta string
	bound      string
	http       *http.Client
}

func (c *client) call(r row, address, body string) (status int, out any, text string) {
	c.t.Helper()
	header := http.Header{"Authorization": {"Bearer " + apiKey}}
	switch {
	case r.File != "":
		body = c.form(r, body, header)
	case strings.HasPrefix(body, "{"):
		header.Set("Content-Type", "application/json")
	case strings.Contains(body, "="):
		header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if strings.HasPrefix(r.Op, "resumable") || strings.Contains(r.Path, "/message_template_library") { // of no WABA by itself
		header.Set("Authorization", "OAuth "+c.bound)
	}
	if offset := r.Header["File_offset"]; offset != "" {
		header.Set("file_offset", offset)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), r.Method, address, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header = header
	res, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	text = string(raw)
	plain := strings.ReplaceAll(text, `\/`, "/")
	for _, secret := range []string{metaToken, apiKey, c.bound, strings.TrimPrefix(c.meta, "http://") + "/v"} {
		if secret != "" && strings.Contains(plain, secret) || secret != "" && strings.Contains(fmt.Sprint(res.Header), secret) {
			c.t.Errorf("%s: the answer shows %q: %s", r.Op, secret, text)
		}
	}
	_ = json.Unmarshal(raw, &out) // a file is none
	return res.StatusCode, out, text
}

func (c *client) form(r row, body string, header http.Header) string {
	c.t.Helper()
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	for pair := range strings.SplitSeq(body, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if err := w.WriteField(name, value); err != nil {
			c.t.Fatal(err)
		}
	}
	part, err := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="file"; filename="file"`}, "Content-Type": {r.File}})
	if err != nil {
		c.t.Fatal(err)
	}
	file := "\x89PNG!"
	if r.File == "application/json" {
		file = `{"version":"7.1","screens":[{"id":"ONE"}]}`
	}
	if _, err := io.WriteString(part, file); err != nil {
		c.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		c.t.Fatal(err)
	}
	header.Set("Content-Type", w.FormDataContentType())
	return buf.String()
}

// must asks the gateway's own API.
func (c *client) must(method, path, body string) map[string]any {
	c.t.Helper()
	status, out, text := c.call(row{Op: path, Method: method}, c.base+path, body)
	if status >= 300 {
		c.t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	m, _ := out.(map[string]any) // what is none has no members
	return m
}

// send has a message accepted by the simulator, whose history is then asked for.
func (c *client) send(meta string) string {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, meta+"/v23.0/1/messages",
		strings.NewReader(`{"messaging_product":"whatsapp","to":"+16505551234","type":"text","text":{"body":"hi"}}`))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+metaToken)
	res, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var out any
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		c.t.Fatal(err)
	}
	return fmt.Sprint(at(out, "messages.0.id"))
}

// at follows a path like data.0.id into an answer.
func at(v any, path string) any {
	for step := range strings.SplitSeq(path, ".") {
		switch here := v.(type) {
		case map[string]any:
			v = here[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(here) {
				return nil
			}
			v = here[i]
		default:
			return nil
		}
	}
	return v
}
