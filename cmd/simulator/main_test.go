package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func noEnv(string) (string, bool) { return "", false }

// output tells of each write, and keeps it all.
type output struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	wrote chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.wrote <- struct{}{}:
	default:
	}
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func TestRunHealthcheckAndStop(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &output{wrote: make(chan struct{}, 1)}
	done := make(chan error, 1)
	go func() { done <- run(ctx, []string{"-listen", "127.0.0.1:0"}, noEnv, out) }()
	ready := regexp.MustCompile(`url=http://(127\.0\.0\.1:\d+)`)
	var addr string
	for addr == "" {
		select {
		case <-out.wrote:
			if m := ready.FindStringSubmatch(out.String()); m != nil {
				addr = m[1]
			}
		case err := <-done:
			t.Fatalf("ended: %v", err)
		case <-time.After(time.Minute):
			t.Fatal("not ready")
		}
	}
	_, port, _ := strings.Cut(addr, ":")
	for _, listen := range []string{addr, ":" + port, "0.0.0.0:" + port} {
		if err := run(t.Context(), []string{"healthcheck", "-listen", listen}, noEnv, out); err != nil {
			t.Errorf("healthcheck of %s: %v", listen, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("stopping: %v", err)
	}
	if err := run(t.Context(), []string{"healthcheck", "-listen", addr}, noEnv, out); err == nil {
		t.Error("healthy after the stop")
	}
}

func TestFlagsAndEnvironment(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("from the file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := func(vars map[string]string) func(string) (string, bool) {
		return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
	}
	cfg, listen, err := parse([]string{"-latency", "5ms"}, env(map[string]string{
		"WAGATE_SIM_LISTEN": ":9", "WAGATE_SIM_LATENCY": "1s", "WAGATE_SIM_APP_SECRET_FILE": secret, "WAGATE_SIM_WABA_LIMIT": "150",
		"WAGATE_SIM_MEDIA_BYTES": "1000", "WAGATE_SIM_MEDIA_DIR": "/media",
	}), &output{})
	if err != nil || listen != ":9" || cfg.Latency != 5*time.Millisecond || cfg.AppSecret != "from the file" || cfg.WABAPerSecond != 150 || cfg.PhonePerSecond != 80 ||
		cfg.MediaBytes != 1000 || cfg.MediaDir != "/media" {
		t.Errorf("listen %q, config %+v, error %v", listen, cfg, err)
	}
	if _, listen, err := parse(nil, noEnv, &output{}); err != nil || listen != "127.0.0.1:8090" {
		t.Errorf("listen %q, error %v", listen, err)
	}
	_, _, err = parse(nil, env(map[string]string{"WAGATE_SIM_PHONE_LIMIT": "many", "WAGATE_SIM_TOKEN_FILE": "/nowhere/token"}), &output{})
	if err == nil || !strings.Contains(err.Error(), "WAGATE_SIM_PHONE_LIMIT") || !strings.Contains(err.Error(), "WAGATE_SIM_TOKEN_FILE") || strings.Contains(err.Error(), "many") {
		t.Errorf("error %v", err)
	}
	if _, _, err := parse([]string{"serve"}, noEnv, &output{}); err == nil {
		t.Error("unknown argument taken")
	}
	var help output
	if err := run(t.Context(), []string{"-help"}, noEnv, &help); !errors.Is(err, flag.ErrHelp) || !strings.Contains(help.String(), "Example:") {
		t.Errorf("error %v, help %q", err, help.String())
	}
}
