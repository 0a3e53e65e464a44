package ctl_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSuppressions(t *testing.T) {
	r := start(t)
	says := func(code int, args ...string) string {
		t.Helper()
		got, out, errs := r.run(args...)
		if got != code {
			t.Fatalf("gatewayctl %q: exit %d: %s%s", args, got, out, errs)
		}
		return out + errs
	}
	if got := says(0, "suppressions"); got != "Nobody is suppressed.\n" {
		t.Errorf("%q", got)
	}
	if got := says(0, "suppressions", "add", "100", "+55 11 98765-4321", "--reason", "by mail", "--for", "720h"); got != "1 users get no marketing from WABA 100.\n" {
		t.Errorf("%q", got)
	}
	file := filepath.Join(t.TempDir(), "users.txt")
	if err := os.WriteFile(file, []byte("\uFEFF# opted out\n+12025550101\r\n\n 12025550102 \nUS.77\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := says(0, "suppressions", "add", "100", "--file", file); got != "3 users get no marketing from WABA 100.\n" {
		t.Errorf("%q", got)
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{nil, []string{"5511987654321", "12025550101", "12025550102", "US.77", "operator", "by mail", "until lifted"}},
		{[]string{"--limit", "2"}, []string{"operator"}},
		{[]string{"--user", "+551187654321", "--waba", "100", "--source", "operator"}, []string{"5511987654321"}},
		{[]string{"--json"}, []string{`"suppressions":[`, `"next_cursor":null`}},
	} {
		got := says(0, append([]string{"suppressions"}, c.args...)...)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%q lacks %q: %s", c.args, want, got)
			}
		}
		if len(c.args) == 2 && strings.Count(got, "\n") != 3 {
			t.Errorf("%q: %s", c.args, got)
		}
	}
	if got := says(0, "suppressions", "lift", "100", "+551187654321", "12025550101"); got != "2 suppressions lifted.\n" {
		t.Errorf("%q", got)
	}
	id := strings.Fields(strings.Split(says(0, "suppressions"), "\n")[1])[0]
	if got := says(0, "suppressions", "lift", id); got != "lifted "+id+"\n" {
		t.Errorf("%q", got)
	}
	says(1, "suppressions", "lift", id)
	for _, args := range [][]string{
		{"add", "100"}, {"add"}, {"lift", "100"}, {"remove"}, {"add", "100", "1202", "--file", file + "x"}, {"--limit", "0"},
		{"add", "100", "12025550101", "--for", "1h", "--until", "2030-01-01T00:00:00Z"}, {"add", "100", "12025550101", "--for", "-1h"},
	} {
		says(2, append([]string{"suppressions"}, args...)...)
	}
	if got := says(1, "suppressions", "add", "100", "nobody"); !strings.Contains(got, "/users/0 must be a phone number") {
		t.Errorf("%q", got)
	}
	if got := says(0, "window", phone, "+12025550101"); got != "unknown: gateways_were_down (window_check off)\n" {
		t.Errorf("%q", got)
	}
	if _, err := r.pool.Exec(t.Context(), `INSERT INTO service_windows (phone_number_id, wa_id, until) VALUES ($1, '12025550101', now() + interval '2 hours 1 minute')`, phone); err != nil {
		t.Fatal(err)
	}
	if got := says(0, "window", phone, "+12025550101"); !strings.HasPrefix(got, "open until ") {
		t.Errorf("%q", got)
	}
	says(2, "window", phone)
	says(1, "window", "999", "+12025550101")
}
