package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestCommandLine(t *testing.T) {
	for _, name := range []string{"DATABASE_URL", "WAGATE_SECRET_KEY", "WAGATE_LISTEN"} {
		t.Setenv(name, "")
	}
	for _, c := range []struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		{"help", 0, "gateway demo", ""},
		{"serve --help", 0, "gateway demo", ""},
		{"bogus", 2, "", `no such command "bogus"`},
		{"serve --wroker", 2, "", `no such flag "--wroker"`},
		{"migrate --worker", 2, "", `no such flag "--worker"`},
		{"", 1, "", "DATABASE_URL is required"},
		{"serve", 1, "", "DATABASE_URL is required"},
		{"serve --embedded", 1, "", "WAGATE_SECRET_KEY is required"},
		{"migrate", 1, "", "DATABASE_URL is required"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(strings.Fields(c.args), &stdout, &stderr); code != c.code {
			t.Errorf("gateway %s: exit %d, want %d; %s", c.args, code, c.code, stderr.String())
		}
		if !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) {
			t.Errorf("gateway %s: stdout %q, stderr %q", c.args, stdout.String(), stderr.String())
		}
	}
	t.Setenv("WAGATE_LISTEN", "nonsense")
	var stderr bytes.Buffer
	if code := run([]string{"healthcheck"}, &stderr, &stderr); code != 1 || !strings.Contains(stderr.String(), "WAGATE_LISTEN") {
		t.Errorf("a wrong setting: exit %d, %q", code, stderr.String())
	}
}
