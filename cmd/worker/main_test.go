package main

import "testing"

func TestCommandLine(t *testing.T) {
	for _, name := range []string{"DATABASE_URL", "WAGATE_SECRET_KEY", "WAGATE_WORKER_LISTEN"} {
		t.Setenv(name, "")
	}
	for args, want := range map[string]int{"": 1, "help": 0, "bogus": 2} {
		var list []string
		if args != "" {
			list = []string{args}
		}
		if code := run(list); code != want {
			t.Errorf("worker %s: exit %d, want %d", args, code, want)
		}
	}
}
