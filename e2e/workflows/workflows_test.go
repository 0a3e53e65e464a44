// Package workflows runs the examples of the four workflows as a new user would: against `gateway dev`, by its ready line.
package workflows

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

func TestWorkflows(t *testing.T) {
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "wagate/cmd/gateway", "wagate/examples/onboarding", "wagate/examples/support", "wagate/examples/orders", "wagate/examples/twofactor")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	url, key, from, ledger := dev(t, filepath.Join(bin, "gateway"))
	for _, w := range []struct {
		name string
		says []string
	}{
		{"onboarding", []string{"1. WABA", "2. Phone number", "3. Template", "4. Welcome delivered", "5. The other is marked as not reachable: failed (131026)", `answered with a list: delivered`, `7. The customer chose "Orders"`}},
		{"support", []string{`1. A customer writes: "My parcel is broken"`, "2. The customer sees", "3. The desk may write freely", "4. The form is stored", "5. 3 replies delivered", "6. A user was blocked"}},
		{"orders", []string{"1. A campaign of 300 messages", "2. confirmed: posted twice, one message, delivered", "3. shipped:", "4. arriving:", `was cancelled (1); "delivered" was delivered`}},
		{"twofactor", []string{"1. a user with WhatsApp: code ", "2. a number without WhatsApp: failed (131026)", "3. a phone that is off: no word after 10s"}},
	} {
		t.Run(w.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), filepath.Join(bin, w.name), "-url", url, "-key", key, "-from", from, "-ledger", ledger)
			var failed bytes.Buffer
			cmd.Stderr = &failed
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s\nIt had said:\n%s", err, failed.Bytes(), out)
			}
			rest := string(out)
			for _, line := range append(w.says, w.name+": done") {
				_, after, found := strings.Cut(rest, line)
				if !found {
					t.Fatalf("did not say %q, in this order:\n%s", line, out)
				}
				rest = after
			}
		})
	}
}

// dev starts `gateway dev` and gives what its ready line says; the process ends with the test.
func dev(t *testing.T, gateway string) (url, key, from, ledger string) {
	t.Helper()
	cmd := exec.Command(gateway, "dev")
	cmd.Env = []string{"WAGATE_LISTEN=127.0.0.1:0", "WAGATE_DATA_DIR=" + t.TempDir()}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME"} {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	var logs bytes.Buffer
	cmd.Stderr = &logs
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("gateway dev ended: %v", err)
		}
		if t.Failed() {
			t.Logf("gateway dev logged:\n%s", logs.Bytes())
		}
	})
	ready := regexp.MustCompile(`^wagate ready (\S+) key=(\S+) from=(\S+) ledger=(\S+) `)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := ready.FindStringSubmatch(lines.Text()); m != nil {
			return m[1], m[2], m[3], m[4]
		}
	}
	t.Fatal("gateway dev ended without a ready line")
	return "", "", "", ""
}
