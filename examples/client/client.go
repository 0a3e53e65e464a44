// Package client is what the examples share: calls of the gateway's API, a receiver for its callbacks, and, in place of
// people with phones, a customer who writes through the simulator. It uses the standard library only, so that it can be read
// as what any language would do.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"time"
)

// Gateway is where the gateway listens and who asks. Ledger is the simulator's address, without a slash at its end.
type Gateway struct {
	URL, Key, From, Simulator string
	// Version is the version of the Graph API before management calls.
	Version string
	http    *http.Client
}

// Main runs an example: it reads -url, -key, -from and -ledger (or WAGATE_URL, WAGATE_KEY, WAGATE_FROM, WAGATE_LEDGER), what
// `gateway dev` prints in its ready line. status is the process's: 1 when run failed.
func Main(run func(ctx context.Context, g *Gateway, out io.Writer) error) (status int) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	g := &Gateway{Version: "v23.0", http: &http.Client{Timeout: 60 * time.Second}}
	flag.StringVar(&g.URL, "url", os.Getenv("WAGATE_URL"), "the gateway's address")
	flag.StringVar(&g.Key, "key", os.Getenv("WAGATE_KEY"), "an API key")
	flag.StringVar(&g.From, "from", os.Getenv("WAGATE_FROM"), "the phone number id that sends")
	flag.StringVar(&g.Simulator, "ledger", os.Getenv("WAGATE_LEDGER"), "the simulator's ledger")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "Start `go run ./cmd/gateway dev`; give what its ready line says:\n\n  go run ./examples/NAME -url http://127.0.0.1:8080 -key … -from … -ledger …\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	g.URL, g.Simulator = strings.TrimSuffix(g.URL, "/"), strings.TrimSuffix(g.Simulator, "/_sim/ledger")
	err := errors.New("-url, -key, -from and -ledger are needed: they stand in the ready line of `gateway dev`")
	if g.URL != "" && g.Key != "" && g.From != "" && g.Simulator != "" {
		err = run(ctx, g, os.Stdout)
	}
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Call sends body as JSON and reads the answer into into; either may be nil.
func (g *Gateway) Call(ctx context.Context, method, path string, body, into any) error {
	return g.call(ctx, method, g.URL+path, "application/json", body, into)
}

// Graph is Call of a Cloud API address, as any Cloud API client would make it.
func (g *Gateway) Graph(ctx context.Context, method, path string, body, into any) error {
	return g.call(ctx, method, g.URL+"/"+g.Version+"/"+path, "application/json", body, into)
}

func (g *Gateway) call(ctx context.Context, method, url, contentType string, body, into any) error {
	var payload io.Reader
	switch b := body.(type) {
	case nil:
	case io.Reader:
		payload = b
	default:
		raw, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encoding the body: %w", err)
		}
		payload = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, payload)
	if err != nil {
		return fmt.Errorf("making the request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+g.Key)
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := g.http.Do(req)
	if err != nil {
		return err //nolint:wrapcheck // names the request
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	if err != nil {
		return fmt.Errorf("reading the answer of %s %s: %w", method, req.URL.Path, err)
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s answered %d: %s", method, req.URL.Path, res.StatusCode, bytes.TrimSpace(raw))
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("answer of %s %s: %w", method, req.URL.Path, err)
	}
	return nil
}

// Message is what an example looks at of a message.
type Message struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Error  *struct {
		Code  int    `json:"code"`
		Title string `json:"title"`
	} `json:"error"`
}

// Final is whether nothing more will be done about the message.
func (m Message) Final() bool {
	switch m.Status {
	case "failed", "expired", "cancelled":
		return true
	}
	return false
}

// Send posts a message. key is its idempotency key: the same key gives the same message, however often it is posted.
func (g *Gateway) Send(ctx context.Context, key string, message map[string]any) (Message, error) {
	body := map[string]any{"from": g.From}
	for k, v := range message {
		body[k] = v
	}
	options, _ := body["gateway"].(map[string]any)
	with := map[string]any{"idempotency_key": key}
	for k, v := range options {
		with[k] = v
	}
	body["gateway"] = with
	var m Message
	err := g.Call(ctx, http.MethodPost, "/v1/messages", body, &m)
	return m, err
}

// Upload stores a file in the gateway and gives its media id, which lasts longer than Meta's.
func (g *Gateway) Upload(ctx context.Context, name, mimeType string, content io.Reader) (string, error) {
	var media struct {
		ID string `json:"id"`
	}
	err := g.call(ctx, http.MethodPost, g.URL+"/v1/media?filename="+name, mimeType, content, &media)
	return media.ID, err
}

// Text is a text message.
func Text(to, body string) map[string]any {
	return map[string]any{"to": to, "type": "text", "text": map[string]any{"body": body}}
}

// Template is a template message whose body has the given parameters; buttons are its further components.
func Template(to, name, language string, parameters []string, buttons ...any) map[string]any {
	values := make([]any, len(parameters))
	for i, p := range parameters {
		values[i] = map[string]any{"type": "text", "text": p}
	}
	components := append([]any{map[string]any{"type": "body", "parameters": values}}, buttons...)
	return map[string]any{"to": to, "type": "template", "template": map[string]any{
		"name": name, "language": map[string]any{"code": language}, "components": components,
	}}
}

// Question is a list message: the user chooses one of the answers, whose ids are choice-1, choice-2 and so on.
func Question(to, body, button string, answers ...string) map[string]any {
	rows := make([]any, len(answers))
	for i, a := range answers {
		rows[i] = map[string]any{"id": fmt.Sprintf("choice-%d", i+1), "title": a}
	}
	return map[string]any{"to": to, "type": "interactive", "interactive": map[string]any{
		"type": "list", "body": map[string]any{"text": body},
		"action": map[string]any{"button": button, "sections": []any{map[string]any{"title": body[:min(len(body), 24)], "rows": rows}}},
	}}
}

// With adds what the gateway is to do with a message.
func With(message, gateway map[string]any) map[string]any {
	message["gateway"] = gateway
	return message
}

// WaitForTemplate waits until Meta has approved a template, and fails when it was rejected.
func (g *Gateway) WaitForTemplate(ctx context.Context, id string) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var t struct {
			Status string `json:"status"`
		}
		if err := g.Graph(ctx, http.MethodGet, id+"?fields=status", nil, &t); err != nil {
			return err
		}
		switch t.Status {
		case "APPROVED":
			return nil
		case "REJECTED":
			return fmt.Errorf("template %s was rejected", id)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for template %s: %w", id, ctx.Err())
		case <-tick.C:
		}
	}
}

// Customer writes to the business through the simulator: in production this is a person with a phone.
type Customer struct {
	Number string // with +
	g      *Gateway
}

// Customer is a user of WhatsApp with that number.
func (g *Gateway) Customer(number string) Customer { return Customer{Number: number, g: g} }

// Writes sends a text to the business.
func (c Customer) Writes(ctx context.Context, text string) error {
	return c.g.call(ctx, http.MethodPost, c.g.Simulator+"/_sim/webhooks/inbound", "application/json",
		map[string]any{"phone": c.g.From, "from": c.Number, "text": text, "count": 1}, nil)
}

// Chooses answers a list message: Meta tells the id and the title of the row.
func (c Customer) Chooses(ctx context.Context, id, title string) error {
	digits := strings.TrimPrefix(c.Number, "+")
	var own struct {
		WABA string `json:"waba_id"`
	}
	if err := c.g.Call(ctx, http.MethodGet, "/v1/phone-numbers/"+c.g.From, nil, &own); err != nil {
		return err
	}
	now := time.Now()
	return c.g.call(ctx, http.MethodPost, c.g.Simulator+"/_sim/webhooks/field", "application/json", map[string]any{
		"field": "messages", "waba": own.WABA, "value": map[string]any{
			"messaging_product": "whatsapp",
			"metadata":          map[string]any{"display_phone_number": "12025550100", "phone_number_id": c.g.From},
			"contacts":          []any{map[string]any{"profile": map[string]any{"name": "A customer"}, "wa_id": digits}},
			"messages": []any{map[string]any{
				"from": digits, "id": fmt.Sprintf("wamid.choice%d", now.UnixNano()), "timestamp": fmt.Sprint(now.Unix()), "type": "interactive",
				"interactive": map[string]any{"type": "list_reply", "list_reply": map[string]any{"id": id, "title": title}},
			}},
		},
	}, nil)
}
