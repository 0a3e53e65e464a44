//go:build unix

package embeddedpg

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// childVar makes this test binary run a server until it is killed, see
// TestKilledParentTakesServerAlong.
const childVar = "EMBEDDEDPG_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVar); dir != "" {
		runChild(dir)
	}
	goleak.VerifyTestMain(m)
}

func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func query(t *testing.T, dsn, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var out string
	if err := conn.QueryRow(t.Context(), sql).Scan(&out); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return out
}

func execute(t *testing.T, dsn, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// openDir is a folder that the server's user can reach also when we are root,
// whose test folders are closed to it. In memory, where there is such a folder.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "embeddedpg-test-")
	if err != nil {
		dir, err = os.MkdirTemp("/tmp", "embeddedpg-test-")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTemporaryServer(t *testing.T) {
	began := time.Now()
	s := start(t, Config{Settings: map[string]string{"max_connections": "33"}})
	t.Logf("ready after %v", time.Since(began).Round(time.Millisecond))

	for sql, want := range map[string]string{
		"SELECT current_database()":                         "wagate",
		"SELECT current_user":                               "postgres",
		"SELECT current_setting('listen_addresses')":        "",
		"SELECT current_setting('fsync')":                   "on",
		"SELECT current_setting('synchronous_commit')":      "on",
		"SELECT current_setting('max_connections')":         "33",
		"SELECT current_setting('server_encoding')":         "UTF8",
		"SELECT current_setting('TimeZone')":                "UTC",
		"SELECT current_setting('wal_level')":               "minimal",
		"SELECT current_setting('unix_socket_directories')": s.place.run,
	} {
		if got := query(t, s.DSN(), sql); got != want {
			t.Errorf("%s = %q, want %q", sql, got, want)
		}
	}
	info, err := os.Stat(s.place.run)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the socket's folder has mode %v: anyone could connect", info.Mode())
	}

	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.place.run); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary folder is still there: %v", err)
	}
	if err := s.Restart(t.Context()); err == nil {
		t.Error("a stopped server was restarted")
	}
}

func TestDataSurviveStopKillAndRestart(t *testing.T) {
	dir := filepath.Join(openDir(t), "deep", "data")
	s := start(t, Config{DataDir: dir})
	dsn := s.DSN()
	if s.DataDir() != dir {
		t.Errorf("data in %s, want %s", s.DataDir(), dir)
	}
	execute(t, dsn, "CREATE TABLE kept AS SELECT 1 AS n")

	if _, err := Start(t.Context(), Config{DataDir: dir}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second server on the directory: %v, want it to be in use", err)
	}

	postmaster := s.proc.cmd.Process.Pid
	children, err := childrenOf(postmaster)
	if err != nil || len(children) == 0 {
		t.Fatalf("children of the running server: %v, %v", children, err)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range append(children, postmaster) {
		if serves(pid, s.place.data) {
			t.Errorf("process %d of the killed server lives", pid)
		}
	}
	if _, err := pgx.Connect(t.Context(), dsn); err == nil {
		t.Error("a killed server answered")
	}
	if err := s.Restart(t.Context()); err != nil { // after a kill
		t.Fatal(err)
	}
	execute(t, dsn, "INSERT INTO kept VALUES (2)")
	if err := s.Restart(t.Context()); err != nil { // while running
		t.Fatal(err)
	}
	if s.DSN() != dsn {
		t.Errorf("the DSN changed from %s to %s", dsn, s.DSN())
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	again := start(t, Config{DataDir: dir})
	t.Logf("ready again after %v", time.Since(began).Round(time.Millisecond))
	if got := query(t, again.DSN(), "SELECT string_agg(n::text, ',' ORDER BY n) FROM kept"); got != "1,2" {
		t.Errorf("kept rows %q, want 1,2", got)
	}
}

// Under a folder that only root may enter, as its home is, the data go to a
// place of their own, the same one each time.
func TestClosedDataDirectory(t *testing.T) {
	home := t.TempDir()
	if err := os.Chmod(home, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(home, "data")
	s := start(t, Config{DataDir: dir})
	used := s.DataDir()
	if os.Geteuid() == 0 {
		t.Cleanup(func() {
			if err := os.RemoveAll(used); err != nil {
				t.Error(err)
			}
		})
	}
	if moved := used != dir; moved != (os.Geteuid() == 0) {
		t.Errorf("asked for %s, the data lie in %s", dir, used)
	}
	execute(t, s.DSN(), "CREATE TABLE kept AS SELECT 1 AS n")
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := start(t, Config{DataDir: dir})
	if got := query(t, again.DSN(), "SELECT n::text FROM kept"); got != "1" {
		t.Errorf("kept %q, want 1", got)
	}
}

// A live process that got the number of a dead server is no reason not to start.
func TestStalePIDOfAnotherProcess(t *testing.T) {
	dir := openDir(t)
	s := start(t, Config{DataDir: dir})
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	stranger := exec.Command("sleep", "60")
	stranger.SysProcAttr = &syscall.SysProcAttr{Credential: s.place.user.credential()}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stranger.Process.Kill()
		_ = stranger.Wait()
	})
	path := filepath.Join(s.place.data, "postmaster.pid")
	lines := readLines(path)
	if len(lines) < 2 {
		t.Fatalf("a killed server left no postmaster.pid: %q", lines)
	}
	lines[0] = strconv.Itoa(stranger.Process.Pid)
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	query(t, s.DSN(), "SELECT 'alive'")
}

// runChild starts a server, says where, and lives until it is killed.
func runChild(dir string) {
	s, err := Start(context.Background(), Config{DataDir: dir})
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	os.Stdout.WriteString(strconv.Itoa(s.proc.cmd.Process.Pid) + " " + s.place.run + "\n")
	select {}
}

func TestKilledParentTakesServerAlong(t *testing.T) {
	dir := openDir(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), childVar+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 1024)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	pid, run, _ := strings.Cut(strings.TrimSpace(string(line[:n])), " ")
	data := filepath.Join(dir, "pgdata")
	if !serving(pid, data) {
		t.Fatalf("the server %s of the child does not run", pid)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // killed

	// The next one waits for the orphan to end, recovers, and tidies up.
	next := start(t, Config{DataDir: dir})
	query(t, next.DSN(), "SELECT 'alive'")
	if serving(pid, data) {
		t.Errorf("the orphaned server %s still runs", pid)
	}
	if err := next.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A sweep leaves what may still be in use, so the next server's may have.
	Sweep(filepath.Dir(run))
	if _, err := os.Stat(run); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead process' folder %s is still there: %v", run, err)
	}
}

func TestStartErrors(t *testing.T) {
	file := filepath.Join(openDir(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		cfg  Config
		want string
	}{
		"a file as data directory": {Config{DataDir: file}, "not a directory"},
		"a wrong setting":          {Config{Settings: map[string]string{"fsync": "perhaps"}}, `parameter "fsync" requires`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s, err := Start(t.Context(), c.cfg)
			if err == nil {
				t.Fatal("started", s.Stop(t.Context()))
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
		})
	}
}
