package simulator

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// endpointCase is one call of the table in testdata/endpoints.json, and what its answer must
// have: at each path a text that fits the expression, or "absent". $name in path and body
// is what an earlier answer had; keep remembers more.
type endpointCase struct {
	Op     string            `json:"op"`
	Method string            `json:"method"`
	Path   string            `json:"path"`
	Body   string            `json:"body"`
	Bytes  []byte            `json:"bytes"` // in place of Body
	File   string            `json:"file"`  // MIME type of a file to send with Body's fields
	Header map[string]string `json:"header"`
	Status int               `json:"status"`
	Want   map[string]string `json:"want"`
	Keep   map[string]string `json:"keep"` // name to path in the answer
}

// endpointCases gives the table. Its calls are in the order of the reference, and build upon
// each other. WABAs are 10 and 11, the app 5, the phone number 1 with a message from
// 16505551234.
func endpointCases(t *testing.T) (all []endpointCase) {
	t.Helper()
	raw, err := os.ReadFile("testdata/endpoints.json")
	must(t, err)
	must(t, json.Unmarshal(raw, &all))
	return all
}

const (
	post = http.MethodPost
	del  = http.MethodDelete
	read = http.MethodGet
)

var placeholder = regexp.MustCompile(`\$[a-z0-9]+`)

// TestEveryEndpoint walks over every row of the reference's table of management calls.
func TestEveryEndpoint(t *testing.T) {
	s := New(Config{MediaDir: t.TempDir()})
	defer s.Close()
	s.SetPhone("1", PhoneConfig{WABAID: "10", AppID: "5"})
	s.SetPhone("2", PhoneConfig{WABAID: "11", AppID: "5"})
	must(t, s.Inbound(InboundMessages{Phone: "1", From: "16505551234", Count: 1}))
	rep := do(t.Context(), t, s, post, "/v23.0/1/messages", text("1234", ""), nil)
	known := map[string]string{"$wamid": url.QueryEscape(rep.wamid())}
	fill := func(text string) string {
		return placeholder.ReplaceAllStringFunc(text, func(name string) string {
			if known[name] == "" {
				t.Fatalf("nothing is known of %s", name)
			}
			return known[name]
		})
	}
	for _, tt := range endpointCases(t) {
		path, body := fill(tt.Path), fill(tt.Body+string(tt.Bytes))
		if !strings.HasPrefix(path, "http") {
			path = "/v23.0" + path
		}
		path = strings.TrimPrefix(path, "http://example.com")
		header := http.Header{}
		for k, v := range tt.Header {
			header.Set(k, v)
		}
		switch {
		case tt.File != "":
			fields := map[string]string{}
			for _, pair := range strings.Split(body, "&") {
				name, value, _ := strings.Cut(pair, "=")
				fields[name] = value
			}
			file := []byte("\x89PNG!")
			if tt.File == "application/json" {
				file = []byte(`{"version":"7.1","screens":[{"id":"ONE"}]}`)
			}
			body, header = form(t, fields, "file", tt.File, file)
		case strings.Contains(body, "=") && body[0] != '{':
			header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		rep, out := ask(t, s, tt.Method, path, body, header)
		if want := cmp.Or(tt.Status, http.StatusOK); rep.status != want {
			t.Errorf("%s: %s %s: %d %s", tt.Op, tt.Method, path, rep.status, rep.raw)
			continue
		}
		for where, want := range tt.Want {
			got := at(out, where)
			if want == "absent" {
				if got != nil {
					t.Errorf("%s: %s is %v, want nothing", tt.Op, where, got)
				}
				continue
			}
			if text := fmt.Sprint(got); got == nil || !regexp.MustCompile(want).MatchString(text) {
				t.Errorf("%s: %s is %q, want %s, in %s", tt.Op, where, text, want, rep.raw)
			}
		}
		for name, where := range tt.Keep {
			known["$"+name] = fmt.Sprint(at(out, where))
		}
		if tt.Op == "media download" && (rep.raw != "\x89PNG!" || rep.ctype != "image/png") {
			t.Errorf("downloaded %q as %s", rep.raw, rep.ctype)
		}
	}
	checkRows(t)
}

// checkRows looks up whether the table above has every row of the reference.
func checkRows(t *testing.T) {
	t.Helper()
	raw, err := os.ReadFile("../../../shared/reference/endpoints.md")
	if errors.Is(err, fs.ErrNotExist) {
		t.Log("the reference is not here: its rows are not compared with the table")
		return
	}
	must(t, err)
	rows := 0
	for _, line := range strings.Split(string(raw), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 7 || strings.HasPrefix(cells[1], "---") || strings.TrimSpace(cells[1]) == "op" {
			continue
		}
		rows++
		op := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(cells[1]), "*"))
		if !slices.ContainsFunc(endpointCases(t), func(c endpointCase) bool { return c.Op == op }) {
			t.Errorf("no case for %s", op)
		}
	}
	if rows < 37 {
		t.Errorf("the reference has %d rows", rows)
	}
}
