package pgtest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"wagate/internal/embeddedpg"
)

const (
	// reaperVar, "kind:name", holds what a process is to remove when its
	// standard input ends.
	reaperVar = "WAGATE_PGTEST_REAPER"

	reapContainer = "container"
	reapFolder    = "folder" // of an embedded server

	reapAttempts = 10
	reapPause    = 200 * time.Millisecond // what is to go may be about to be made, or in use a moment longer
)

// A test binary that was started with reaperVar is no test: it removes what
// another one leaves.
func init() {
	if what := os.Getenv(reaperVar); what != "" {
		os.Exit(reap(what, os.Stdin))
	}
}

// startReaper starts this binary again to remove the named thing when stop is
// called or this process dies, kill -9 included.
func startReaper(kind, name string) (stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding the test binary: %w", err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), reaperVar+"="+kind+":"+name)
	cmd.Dir = os.TempDir() // go test removes ours
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the reaper: %w", err)
	}
	// Its output goes nowhere: go test would wait for who holds ours.
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the reaper: %w", err)
	}
	return func() error {
		if err := errors.Join(pipe.Close(), cmd.Wait()); err != nil {
			return fmt.Errorf("removing the %s %s: %w", kind, name, err)
		}
		return nil
	}, nil
}

// reap is the reaper's whole life; it gives its exit code.
func reap(what string, parent io.Reader) int {
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP) // a terminal's, meant for the tests
	_, _ = io.Copy(io.Discard, parent)
	kind, name, _ := strings.Cut(what, ":")
	remove := removeContainer
	if kind == reapFolder {
		remove = removeFolder
	}
	for range reapAttempts {
		if remove(name) == nil {
			return 0
		}
		<-time.After(reapPause)
	}
	return 1
}

// removeFolder fails while the folder's server is not gone.
func removeFolder(dir string) error {
	embeddedpg.Sweep(filepath.Dir(dir))
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is still there", dir)
	}
	return nil
}
