package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"wagate/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func load(t *testing.T) config.Config {
	t.Helper()
	cfg, err := config.Load(func(name string) (string, bool) { return os.LookupEnv("WAGATE_TEST_NONE_" + name) })
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestTheDemoAgreesWithItself(t *testing.T) {
	var out bytes.Buffer
	if err := Run(t.Context(), load(t), &out, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	last := lines[len(lines)-1]
	for _, want := range []string{"report and ledger agree", "630 messages", "622 accepted by Meta", "16 failed", "lost 0, sent twice 0, stuck 0"} {
		if !strings.Contains(last, want) {
			t.Errorf("the last line lacks %q: %s", want, last)
		}
	}
	if !strings.Contains(out.String(), "9 provoked and survived") {
		t.Errorf("no word of the throttles:\n%s", out.String())
	}
}

func TestThePlanCoversEveryExampleAndEveryFault(t *testing.T) {
	bodies, kinds, err := plan()
	if err != nil {
		t.Fatal(err)
	}
	if len(bodies) != Total || kinds < 60 {
		t.Errorf("%d messages of %d different payloads", len(bodies), kinds)
	}
	got, recipients := map[string]int{}, map[string]bool{}
	for _, b := range bodies {
		var m struct{ To string }
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		got[m.To[len(m.To)-4:]]++
		recipients[m.To] = true
	}
	for _, p := range planned {
		if got[p.ending] != p.count {
			t.Errorf("%d messages end in %s, want %d", got[p.ending], p.ending, p.count)
		}
	}
	if len(recipients) != Total {
		t.Errorf("%d different recipients of %d", len(recipients), Total)
	}
}

// Dev is ready for a message at once: what is posted after its line is delivered.
func TestDevDelivers(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready := make(chan string, 1)
	done := make(chan error, 1)
	cfg := load(t)
	cfg.Listen, cfg.ListenGiven = "127.0.0.1:0", true
	go func() { done <- Dev(ctx, cfg, lineWriter(ready), slog.New(slog.DiscardHandler)) }()
	var line string
	select {
	case line = <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	words := strings.Fields(line)
	if len(words) != 7 || words[0]+" "+words[1] != "wagate ready" {
		t.Fatalf("ready line %q", line)
	}
	value := func(name string) string {
		for _, w := range words {
			if v, ok := strings.CutPrefix(w, name+"="); ok {
				return v
			}
		}
		t.Fatalf("the ready line has no %s: %q", name, line)
		return ""
	}
	api := newClient(words[2], value("key"))
	var accepted, message struct{ ID, Status string }
	if err := api.call(ctx, "POST", "/v1/messages", map[string]any{"from": value("from"), "to": "+16505551234", "type": "text", "text": map[string]string{"body": "hi"}}, &accepted); err != nil {
		t.Fatal(err)
	}
	bound, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for message.Status != "delivered" {
		if err := api.call(bound, "GET", "/v1/messages/"+accepted.ID, nil, &message); err != nil {
			t.Fatalf("%v; last status %s", err, message.Status)
		}
		<-tick.C
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Dev ended with %v", err)
	}
	api.http.CloseIdleConnections()
}

type lineWriter chan string

func (w lineWriter) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

// A simulator must not drain a real database: dev brings its own, whatever the shell has set.
func TestDevLeavesTheConfiguredDatabaseAlone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg := load(t)
	cfg.Listen, cfg.ListenGiven = "127.0.0.1:0", true
	cfg.DatabaseURL = config.NewSecret("postgres://wagate:secret@127.0.0.1:1/real")
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() { done <- Dev(ctx, cfg, lineWriter(ready), slog.New(slog.DiscardHandler)) }()
	select {
	case line := <-ready:
		if strings.Contains(line, "real") || strings.Contains(line, "secret") {
			t.Errorf("the ready line names the configured database: %q", line)
		}
	case err := <-done:
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
