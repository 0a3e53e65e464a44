package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/access"
	"wagate/internal/intake"
	"wagate/internal/queue"
	"wagate/internal/store"
)

// withoutDatabase is an API on which whatever gets as far as the database is answered with 503.
func withoutDatabase(f *testing.F) *API {
	config, err := pgxpool.ParseConfig("postgres://nobody@127.0.0.1:1/none?sslmode=disable")
	if err != nil {
		f.Fatal(err)
	}
	config.ConnConfig.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("there is no database")
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(pool.Close)
	logger := slog.New(slog.DiscardHandler)
	jobs, err := queue.NewInserter(pool, logger)
	if err != nil {
		f.Fatal(err)
	}
	in := intake.New(store.New(pool), jobs, logger, prometheus.NewRegistry(), time.Now)
	f.Cleanup(in.Close)
	return &API{Deps: Deps{Intake: in, Now: time.Now}, logger: logger, batches: make(chan struct{}, 1)}
}

// How a body is handed in.
const (
	asMessage = iota
	asBatch
	asStream
	ways
)

var jsonPointer = regexp.MustCompile(`^(/([^~/]|~0|~1)*)*$`)

// FuzzPost hands any bytes to the routes that take messages: what does not get as far as the database is refused with
// what is wrong with it and where, a batch has one result a message, and nothing is a fault of ours.
func FuzzPost(f *testing.F) {
	const good, bad = `{"from":"200000000000001","to":"+12025550101","type":"text","text":{"body":"hi"}}`, `{"from":1,"type":"~/","gateway":{"":0,"tags":7}}`
	for _, s := range []string{
		good, bad, "", " \n", "null", "[]", `{"messages":[` + good + `,` + bad + `,null,7]}`, `{"messages":[]}`, `{"messages":null,"more":1,"":2}`, `{"messages":{},"messages":[` + good + `]}`,
		`{"messages":[` + strings.Repeat("0,", maxBatch) + `0]}`, good + "\n" + bad + "\r\n\n" + good, "{\n\x00\n\xff\n" + good + "\n", `{"messages":[{"text":"` + "\xff" + `"}]}`,
	} {
		for way := range byte(ways) {
			f.Add([]byte(s), way)
		}
	}
	a, e := withoutDatabase(f), echo.New()
	f.Fuzz(func(t *testing.T, body []byte, way byte) {
		way %= ways
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/messages", bytes.NewReader(body))
		handle := a.postMessage
		if way != asMessage {
			handle = a.postBatch
		}
		if way == asStream {
			r.Header.Set(echo.HeaderContentType, "application/x-ndjson")
			r.ProtoMajor, r.ProtoMinor = 2, 0 // a recorder cannot do full duplex as HTTP/1 does
		}
		rec := httptest.NewRecorder()
		c := e.NewContext(r, rec)
		if err := handle(c, access.Key{Name: "shop"}); err != nil {
			a.handleError(err, c)
		}
		answer := rec.Body.Bytes()
		if len(answer) > 20_000+400*len(body) || !utf8.Valid(answer) {
			t.Fatalf("%d bytes are answered with %d", len(body), len(answer))
		}
		switch {
		case rec.Code >= 400:
			wantProblem(t, body, answer, rec.Code)
		case way == asBatch:
			var in map[string]json.RawMessage
			var messages []json.RawMessage
			var out struct{ Results []json.RawMessage }
			if json.Unmarshal(body, &in) != nil || json.Unmarshal(in["messages"], &messages) != nil || json.Unmarshal(answer, &out) != nil ||
				len(messages) == 0 || len(messages) != len(out.Results) {
				t.Fatalf("%q is answered with %q", body, answer)
			}
			wantResults(t, body, out.Results)
		case way == asStream:
			wantResults(t, body, lines(answer))
			if want := lines(body); len(want) != len(lines(answer)) {
				t.Fatalf("%d lines of %q are answered with %d", len(want), body, len(lines(answer)))
			}
		default:
			t.Fatalf("%q is accepted without a database: %d %q", body, rec.Code, answer)
		}
	})
}

// lines gives the lines of a stream that are not blank.
func lines(b []byte) []json.RawMessage {
	var all []json.RawMessage
	for line := range bytes.SplitSeq(b, []byte("\n")) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			all = append(all, line)
		}
	}
	return all
}

func wantResults(t *testing.T, body []byte, results []json.RawMessage) {
	t.Helper()
	for i, raw := range results {
		var r struct {
			Index int
			ID    *string
			Error json.RawMessage
		}
		if err := json.Unmarshal(raw, &r); err != nil || r.Index != i || r.ID != nil {
			t.Fatalf("%q has the result %q", body, raw)
		}
		wantProblem(t, body, r.Error, 0)
	}
}

// wantProblem checks a problem document; status 0 stands for its own.
func wantProblem(t *testing.T, body, document []byte, status int) {
	t.Helper()
	var p struct {
		Title  string
		Status int
		Code   string
		Errors []struct{ Pointer, Detail *string }
	}
	if err := json.Unmarshal(document, &p); err != nil || p.Title == "" || p.Code == "" || (status != 0 && p.Status != status) {
		t.Fatalf("%q is answered with %q: %v", body, document, err)
	}
	switch p.Status {
	case http.StatusServiceUnavailable: // as far as the database
		return
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
	default:
		t.Fatalf("%q is answered with %q", body, document)
	}
	if len(p.Errors) == 0 {
		t.Fatalf("%q is refused without a reason: %q", body, document)
	}
	for _, fault := range p.Errors {
		if fault.Pointer == nil || fault.Detail == nil || *fault.Detail == "" || !jsonPointer.MatchString(*fault.Pointer) {
			t.Fatalf("%q has a fault that leads nowhere: %q", body, document)
		}
	}
}
