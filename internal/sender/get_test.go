package sender

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"wagate/internal/cloudapi"
)

func TestGet(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer token":
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(graphBody(190)))
		case r.URL.Path == "/v23.0/300":
			_, _ = w.Write(make([]byte, maxAnswer+1))
		case r.Method != http.MethodGet || r.URL.Path != "/v23.0/100/phone_numbers" || r.URL.Query().Get("fields") != "id,status":
			w.WriteHeader(http.StatusNotFound)
		default:
			_, _ = w.Write([]byte(`{"data":[]}`))
		}
	}))
	defer server.Close()
	s, err := New(Config{BaseURL: server.URL, Version: "v23.0"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fields := url.Values{"fields": {"id,status"}}
	if body, err := s.Get(t.Context(), "100/phone_numbers", fields, "token"); err != nil || string(body) != `{"data":[]}` {
		t.Errorf("%s, %v", body, err)
	}
	_, err = s.Get(t.Context(), "100/phone_numbers", fields, "another")
	if e, ok := errors.AsType[*cloudapi.Error](err); !ok || e.Code != 190 {
		t.Errorf("a wrong token: %v", err)
	}
	if _, err := s.Get(t.Context(), "200", nil, "token"); err == nil {
		t.Error("404 is no error")
	}
	if _, err := s.Get(t.Context(), "300", nil, "token"); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("an answer over 1 MiB: %v", err)
	}
	for _, path := range []string{"", "/100", "100/../200", "100?x=y", "100 200", "1%2f"} {
		if _, err := s.Get(t.Context(), path, nil, "token"); !errors.Is(err, errBadPath) {
			t.Errorf("path %q: %v", path, err)
		}
	}
	if _, err := s.Get(t.Context(), "100", nil, "two\r\nlines"); err == nil {
		t.Error("a token with a line break was taken")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(gone, "100", nil, "token"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}
