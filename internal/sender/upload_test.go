package sender

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func uploader(t *testing.T, h http.HandlerFunc) *Sender {
	t.Helper()
	srv := httptest.NewServer(h)
	s, err := New(Config{BaseURL: srv.URL, Version: "v23.0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); srv.Close() })
	return s
}

func TestUploadStreamsAForm(t *testing.T) {
	const size = 3 << 20
	var got string
	s := uploader(t, func(w http.ResponseWriter, r *http.Request) {
		form, err := r.MultipartReader()
		if err != nil {
			t.Error(err)
			return
		}
		got = fmt.Sprintf("%s %s %s %t", r.Method, r.URL.Path, r.Header.Get("Authorization"), r.ContentLength > size)
		for {
			part, err := form.NextPart()
			if err != nil {
				break
			}
			if part.FormName() != "file" {
				value, _ := io.ReadAll(part)
				got += fmt.Sprintf("|%s=%s", part.FormName(), value)
				continue
			}
			sum := sha256.New()
			n, err := io.Copy(sum, part)
			got += fmt.Sprintf("|%s %s %d %x %v", part.FileName(), part.Header.Get("Content-Type"), n, sum.Sum(nil)[:4], err)
		}
		_, _ = io.WriteString(w, `{"id":"12345"}`)
	})
	id, err := s.Upload(t.Context(), MediaFile{PhoneNumberID: "101", Token: "tok", Name: `a "b".pdf`, MIMEType: "application/pdf", Size: size, From: zeros{}})
	if err != nil || id != "12345" {
		t.Fatalf("%s, %v", id, err)
	}
	sum := sha256.Sum256(make([]byte, size))
	want := fmt.Sprintf(`POST /v23.0/101/media Bearer tok true|messaging_product=whatsapp|type=application/pdf|a "b".pdf application/pdf %d %x <nil>`, size, sum[:4])
	if got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestUploadErrors(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		header map[string]string
		body   string
		file   MediaFile
		want   string
	}{
		"Meta's error":         {400, nil, `{"error":{"code":100,"message":"(#100) Invalid","error_data":{"details":"no"}}}`, MediaFile{}, "100 400 0s"},
		"a throttle":           {400, map[string]string{"Retry-After": "90"}, `{"error":{"code":80008,"message":"m"}}`, MediaFile{}, "80008 400 1m30s"},
		"an answer without id": {200, nil, `{}`, MediaFile{}, "0 200 0s"},
		"an id that is none":   {200, nil, `{"id":"1 2"}`, MediaFile{}, "0 200 0s"},
		"no Graph error":       {502, nil, `<html>`, MediaFile{}, "0 502 0s"},
		"no phone number id":   {200, nil, `{"id":"1"}`, MediaFile{PhoneNumberID: "../1"}, "0 0 0s"},
		"no token":             {200, nil, `{"id":"1"}`, MediaFile{PhoneNumberID: "1", Token: "a b"}, "0 0 0s"},
		"a file that is short": {200, nil, `{"id":"1"}`, MediaFile{PhoneNumberID: "1", Token: "t", Size: 9, From: strings.NewReader("short")}, "0 0 0s"},
	} {
		s := uploader(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			for k, v := range c.header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		})
		f := c.file
		if f.PhoneNumberID == "" {
			f = MediaFile{PhoneNumberID: "101", Token: "secret-token", Name: "a", MIMEType: "image/png", Size: 1, From: strings.NewReader("x")}
		}
		id, err := s.Upload(t.Context(), f)
		var e *UploadError
		if !errors.As(err, &e) || id != "" {
			t.Errorf("%s: %q, %v", name, id, err)
			continue
		}
		code := 0
		if e.Err != nil {
			code = e.Err.Code
		}
		if got := fmt.Sprintf("%d %d %v", code, e.HTTPStatus, e.Wait.Round(time.Second)); got != c.want || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %s (%v), want %s", name, got, err, c.want)
		}
	}
}

// watched is a file that knows whether it is read when it should not be.
type watched struct {
	over, late atomic.Bool
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	if w.over.Load() {
		w.late.Store(true)
	}
	clear(p)
	return len(p), nil
}

// Meta may answer before it has the whole file. The caller closes it then.
func TestNothingReadsTheFileWhenItsUploadIsOver(t *testing.T) {
	s := uploader(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":{"message":"no","code":100}}`)
		_ = http.NewResponseController(w).Flush()
	})
	for range 50 {
		file := &watched{}
		_, err := s.Upload(t.Context(), MediaFile{PhoneNumberID: "101", Token: "tok", Name: "a.pdf", MIMEType: "application/pdf", Size: 100 << 20, From: file})
		file.over.Store(true)
		if err == nil {
			t.Fatal("an id")
		}
		s.uploads.CloseIdleConnections()
		if file.late.Load() {
			t.Fatal("the file was read after its upload")
		}
		defer func() {
			if file.late.Load() {
				t.Error("a file was read after its upload")
			}
		}()
	}
}
