package app_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/app"
	"wagate/internal/config"
	"wagate/internal/simulator"
)

// What one gateway has seen another knows, and its links open there: a media goes up at the first, is found at the second
// and comes down at the first.
func TestGatewaysShareWhatTheySee(t *testing.T) {
	var meta *httptest.Server
	meta = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer token":
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/file":
			_, _ = io.WriteString(w, "a file")
		case r.Method == http.MethodPost:
			_, _ = io.WriteString(w, `{"id":"5001"}`)
		default:
			_, _ = io.WriteString(w, `{"id":"5001","url":"`+meta.URL+`/file"}`)
		}
	}))
	defer meta.Close()
	r := newRig(t, simulator.Config{})
	r.phone(t, "100", "101", nil)
	r.phone(t, "200", "201", nil) // so that only what was seen tells whose the media is
	const key = "an-admin-key-for-tests"
	r.cfg.GraphURL, r.cfg.Listen, r.cfg.AdminKey = meta.URL, "127.0.0.1:0", config.NewSecret(key)
	client := &http.Client{Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	var gateways [2]*app.Gateway
	for i := range gateways {
		g, err := app.StartGateway(t.Context(), r.cfg, r.pool, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		gateways[i] = g
		defer func() {
			if err := g.Stop(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		}()
	}
	call := func(method, address string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, address, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+key)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s: %d %s, %v", method, address, resp.StatusCode, body, err)
		}
		return string(body)
	}
	call(http.MethodPost, gateways[0].URL()+"/v23.0/101/media")
	var media struct{ URL string }
	if err := json.Unmarshal([]byte(call(http.MethodGet, gateways[1].URL()+"/v23.0/5001")), &media); err != nil {
		t.Fatal(err)
	}
	path, ok := strings.CutPrefix(media.URL, gateways[1].URL())
	if !ok {
		t.Fatalf("the media is at %s", media.URL)
	}
	if got := call(http.MethodGet, gateways[0].URL()+path); got != "a file" {
		t.Errorf("%q", got)
	}
	if got := call(http.MethodGet, media.URL); got != "a file" {
		t.Errorf("%q", got)
	}
}
