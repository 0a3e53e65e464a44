package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

const (
	presetURL = "http://127.0.0.1:8080"
	// askTime bounds one request, maxAnswer its answer.
	askTime   = 30 * time.Second
	maxAnswer = 64 << 20
	maxKey    = 4096
)

// client asks the gateway. Where it is and with which key is read at the first request, so that help needs neither.
type client struct {
	url     *string
	keyFile *string
	lookup  func(string) (string, bool)

	http *http.Client
	base string
	key  string
}

// refusal is an answer that is not a success.
type refusal struct {
	Status     int    `json:"status"`
	Title      string `json:"title"`
	Detail     string `json:"detail"`
	Code       string `json:"code"`
	RequestID  string `json:"request_id"`
	retryAfter string
	Errors     []struct {
		Pointer string `json:"pointer"`
		Detail  string `json:"detail"`
	} `json:"errors"`
}

// Error implements error.
func (r *refusal) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s", r.Status, r.Title)
	if r.Detail != "" {
		fmt.Fprintf(&b, ": %s", r.Detail)
	}
	for _, e := range r.Errors {
		if e.Pointer == "" {
			e.Pointer = "the request"
		}
		fmt.Fprintf(&b, "\n  %s %s", e.Pointer, e.Detail)
	}
	return b.String()
}

// unreachable says that no answer came.
type unreachable struct {
	base string
	err  error
}

// Error implements error.
func (u *unreachable) Error() string { return "no answer from " + u.base + ": " + u.err.Error() }

// Unwrap gives the cause.
func (u *unreachable) Unwrap() error { return u.err }

// advice says what to do about an error.
func advice(err error) string {
	var u *unreachable
	if errors.As(err, &u) {
		return "Is the gateway running there? Name another with --url or WAGATE_URL."
	}
	var r *refusal
	if !errors.As(err, &r) {
		return ""
	}
	switch {
	case r.Status == http.StatusUnauthorized:
		return "Give a valid API key in WAGATE_KEY or --key-file; the first one is the gateway's WAGATE_ADMIN_KEY."
	case r.Status == http.StatusForbidden:
		return "Use a key that may: gatewayctl keys create NAME --scope manage (with an admin key)."
	case r.Status == http.StatusNotFound:
		return "gatewayctl limits, phones, wabas, pauses, keys, messages, templates, subscriptions, callbacks and webhooks list what there is."
	case r.Status == http.StatusConflict && r.Code == "wrong_status":
		return "gatewayctl message ID shows what became of it."
	case r.Status == http.StatusTooManyRequests && r.retryAfter != "":
		return "Try again in " + r.retryAfter + " s."
	case r.Status >= http.StatusInternalServerError:
		next := "Try again; if it lasts, look at the gateway's log"
		if r.RequestID != "" {
			next += " for request_id " + clean(r.RequestID)
		}
		return next + "."
	}
	return ""
}

// open reads the settings.
func (c *client) open() error {
	if c.http != nil {
		return nil
	}
	base := *c.url
	if base == "" {
		base, _ = c.lookup("WAGATE_URL")
	}
	if base == "" {
		base = presetURL
	}
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return wrong("the gateway's URL (--url, WAGATE_URL) must be like %s", presetURL)
	}
	if c.key, err = c.readKey(); err != nil {
		return err
	}
	c.base = strings.TrimRight(base, "/")
	c.http = &http.Client{
		Timeout: askTime, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the key stays here
	}
	return nil
}

// readKey finds the API key. No error names it.
func (c *client) readKey() (string, error) {
	path := *c.keyFile
	if path == "" {
		if key, ok := c.lookup("WAGATE_KEY"); ok && key != "" {
			return key, nil
		}
		path, _ = c.lookup("WAGATE_KEY_FILE")
	}
	if path == "" {
		return "", wrong("an API key is needed: WAGATE_KEY, WAGATE_KEY_FILE or --key-file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", wrong("reading the key file: %v", err)
	}
	defer func() { _ = f.Close() }() // only read
	raw, err := io.ReadAll(io.LimitReader(f, maxKey))
	key := strings.TrimSpace(string(raw))
	if err != nil || key == "" {
		return "", wrong("the key file %s holds no key", path)
	}
	return key, nil
}

func (c *client) close() {
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
}

// ask makes a request and gives the body of its answer; body may be nil. An answer that is no success is a *refusal.
func (c *client) ask(ctx context.Context, method, path string, body any, headers ...string) ([]byte, error) {
	if err := c.open(); err != nil {
		return nil, err
	}
	var send io.Reader = http.NoBody
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encoding the request: %w", err)
		}
		send = bytes.NewReader(raw)
	}
	if body != nil {
		headers = append([]string{"Content-Type", "application/json"}, headers...)
	}
	return c.exchange(ctx, c.http, method, path, send, headers...)
}

// exchange makes a request with a body as it is and gives that of its answer, as ask does. The client is open.
func (c *client) exchange(ctx context.Context, by *http.Client, method, path string, send io.Reader, headers ...string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, send)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	req.Header.Set("User-Agent", "gatewayctl")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := by.Do(req)
	if err != nil {
		var of *url.Error
		if errors.As(err, &of) {
			err = of.Err
		}
		return nil, &unreachable{c.base, err}
	}
	defer func() { _ = resp.Body.Close() }() // read to its end, or given up
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, &unreachable{c.base, err}
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		r := &refusal{}
		if json.Unmarshal(raw, r) != nil || r.Title == "" {
			r = &refusal{Title: http.StatusText(resp.StatusCode), Detail: "This is not how a wagate gateway answers."}
		}
		r.Status, r.retryAfter = resp.StatusCode, resp.Header.Get("Retry-After")
		return nil, r
	}
	return raw, nil
}

// get asks for a document and reads it into v; raw is the document as it came.
func (c *client) get(ctx context.Context, path string, v any) (raw []byte, err error) {
	return c.read(ctx, http.MethodGet, path, nil, v)
}

func (c *client) read(ctx context.Context, method, path string, body, v any, headers ...string) ([]byte, error) {
	raw, err := c.ask(ctx, method, path, body, headers...)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return nil, fmt.Errorf("the answer to %s %s is not of the expected form: %w", method, path, err)
	}
	return raw, nil
}
