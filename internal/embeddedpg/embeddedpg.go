//go:build unix

package embeddedpg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// database is the one that DSN names, made on the first start.
	database = "wagate"
	// port only names the socket's file; each server has a folder of its own.
	port = "5432"

	startTimeout = 60 * time.Second // crash recovery included
	readyPoll    = 10 * time.Millisecond
	fastShutdown = 20 * time.Second // SIGINT, before SIGQUIT
	immediate    = 5 * time.Second  // SIGQUIT, before SIGKILL
)

// Config says where a server keeps its data and how it runs. The zero value is
// a temporary server.
type Config struct {
	// DataDir keeps the database between runs; it is made when missing. Empty
	// means a temporary one, removed by Stop. Run as root, a DataDir that the
	// server's user cannot reach is replaced, see [Server.DataDir].
	DataDir string
	// TempDir is where the socket and temporary data go, if its path is short
	// and open to the server's user; else, and when empty, the system's.
	TempDir string
	// Logger gets the server's own log at debug level; nil for none.
	Logger *slog.Logger
	// Settings are PostgreSQL settings (postgresql.conf names) that replace
	// the ones chosen here.
	Settings map[string]string
}

// Server is a running PostgreSQL server. Its methods may be called from any
// goroutine; Stop must be called once at the end.
type Server struct {
	log      *slog.Logger
	settings map[string]string
	bin      binaries
	place    *place
	tail     *logTail

	mu   sync.Mutex // one of Stop, Kill and Restart at a time
	proc *process   // nil when not running
	done bool       // stopped for good
}

// defaults suit a small machine. Every commit is durable: what looks accepted
// to a caller is on the disk, in a demo as well.
func defaults() map[string]string {
	return map[string]string{
		"shared_buffers":     "256MB",
		"max_connections":    "200",
		"fsync":              "on",
		"synchronous_commit": "on",
		"wal_level":          "minimal", // nobody replicates from it
		"max_wal_senders":    "0",
		"max_wal_size":       "2GB",
		"jit":                "off", // short queries only
		"timezone":           "UTC",
		"log_timezone":       "UTC",
		"logging_collector":  "off",
		"log_destination":    "stderr",
		// Files in the data directory, so that nothing stays behind elsewhere
		// when the server is killed.
		"dynamic_shared_memory_type": "mmap",
	}
}

// Start starts a server and returns once it answers queries: about a second
// for a new data directory, less for an old one. Cancelling ctx gives up the
// start; it does not stop a server that has started.
func Start(ctx context.Context, cfg Config) (_ *Server, err error) {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout+fetchTimeout)
	defer cancel()

	user, err := serverUser()
	if err != nil {
		return nil, err
	}
	place, err := newPlace(cfg.DataDir, cfg.TempDir, user, log)
	if err != nil {
		return nil, err
	}
	s := &Server{log: log, settings: defaults(), place: place, tail: &logTail{log: log}}
	defer func() {
		if err != nil {
			err = errors.Join(err, place.release())
		}
	}()
	for name, value := range cfg.Settings {
		s.settings[name] = value
	}
	version, err := clusterVersion(place.data)
	if err != nil {
		return nil, err
	}
	if s.bin, err = findBinaries(ctx, user, version, place.run, log); err != nil {
		return nil, err
	}
	if version == 0 {
		if err := s.initdb(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.launch(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// DSN is the URL of the database wagate as the superuser postgres, for
// pgxpool.ParseConfig or psql. It stays the same over Restart.
func (s *Server) DSN() string { return s.dsn(database) }

func (s *Server) dsn(db string) string {
	q := url.Values{"host": {s.place.run}, "port": {port}}
	return "postgres://postgres@/" + db + "?" + q.Encode()
}

// DataDir is where the data lies in fact. As root this is not Config.DataDir
// when the server's user cannot reach that one: then it is a folder for it
// under /var/lib/wagate or, failing that, a temporary one.
func (s *Server) DataDir() string { return s.place.home }

// Stop ends the server: a fast shutdown within ctx and 20 seconds, then by
// force. A temporary server's data are removed. A second Stop does nothing.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return nil
	}
	s.done = true
	return errors.Join(s.shutdown(ctx), s.place.release())
}

// Kill ends the server and all its child processes with SIGKILL, as a power
// cut would, and returns when they are gone. Restart brings it back.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kill()
}

// Restart starts the server again on the same data and DSN, after a fast
// shutdown when it is running.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return errors.New("restarting embedded Postgres: it was stopped")
	}
	if err := s.shutdown(ctx); err != nil {
		return err
	}
	return s.launch(ctx)
}

func (s *Server) initdb(ctx context.Context) error {
	// Made beside and renamed when complete: a half-made one is never used.
	fresh := s.place.data + ".new"
	var last error
	for _, locale := range []string{"C.UTF-8", "C"} { // the first is not everywhere
		if err := s.place.emptyDir(fresh); err != nil {
			return err
		}
		args := []string{"-D", fresh, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=" + locale, "--no-instructions"}
		if s.place.temporary {
			args = append(args, "--no-sync")
		}
		cmd := exec.CommandContext(ctx, s.bin.path("initdb"), args...)
		if _, last = runTied(cmd, s.place.user, s.place.run); last == nil {
			if err := os.Rename(fresh, s.place.data); err != nil {
				return fmt.Errorf("placing the new data directory: %w", err)
			}
			return nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("making a data directory with %s: %w", s.bin.path("initdb"), last)
}

// launch starts the server and waits until it answers.
func (s *Server) launch(ctx context.Context) error {
	if err := settlePID(ctx, s.place.data); err != nil {
		return err
	}
	for _, name := range []string{socketName, socketName + ".lock"} { // of a killed server
		if err := os.Remove(filepath.Join(s.place.run, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("clearing a stale socket: %w", err)
		}
	}
	args := []string{"-D", s.place.data, "-p", port, "-k", s.place.run,
		"-c", "listen_addresses=", "-c", "unix_socket_permissions=0700"}
	for _, name := range sortedKeys(s.settings) {
		args = append(args, "-c", name+"="+s.settings[name])
	}
	cmd := exec.Command(s.bin.path("postgres"), args...)
	cmd.Stderr = s.tail
	proc, err := startTied(cmd, s.place.user, s.place.run, syscall.SIGQUIT)
	if err != nil {
		return fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	s.proc = proc
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.ready(ctx); err != nil {
		return errors.Join(err, s.kill())
	}
	s.log.DebugContext(ctx, "embedded postgres ready", "version", s.bin.version, "data", s.place.home)
	return nil
}

// ready waits for the server to accept connections and makes the database.
func (s *Server) ready(ctx context.Context) error {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		err := s.ensureDatabase(ctx)
		if err == nil {
			return nil
		}
		// Anything that a server which is up answers is final; the rest is
		// one that does not listen yet or is still recovering.
		if refused := (*pgconn.PgError)(nil); errors.As(err, &refused) && refused.Code != "57P03" {
			return fmt.Errorf("preparing the embedded database: %w", err)
		}
		select {
		case <-s.proc.exited:
			return fmt.Errorf("embedded Postgres ended while starting: %s", s.tail)
		case <-ctx.Done():
			return fmt.Errorf("waiting for embedded Postgres to answer: %w (%w); its last words: %s", ctx.Err(), err, s.tail)
		case <-tick.C:
		}
	}
}

func (s *Server) ensureDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.dsn("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is lost with it
	var exists bool
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1::text)`, database).Scan(&exists)
	if err == nil && !exists {
		_, err = conn.Exec(ctx, `CREATE DATABASE `+database)
	}
	return err
}

// shutdown asks ever more firmly. It leaves the server ended in any case.
func (s *Server) shutdown(ctx context.Context) error {
	if s.proc == nil {
		return nil
	}
	if s.proc.end(ctx, syscall.SIGINT, fastShutdown) {
		s.proc = nil
		return nil
	}
	s.log.WarnContext(ctx, "embedded postgres did not shut down in time; ending it by force")
	// The harder step has its own short time, whatever is left of ctx.
	if s.proc.end(context.WithoutCancel(ctx), syscall.SIGQUIT, immediate) {
		s.proc = nil
		return nil
	}
	return s.kill()
}

func (s *Server) kill() error {
	if s.proc == nil {
		return nil
	}
	err := s.proc.killAll()
	s.proc = nil
	if err != nil {
		return fmt.Errorf("killing embedded Postgres: %w", err)
	}
	return nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// clusterVersion is the major version that made the data, 0 when there are none.
func clusterVersion(data string) (int, error) {
	raw, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("looking at the data directory: %w", err)
	}
	var major int
	if _, err := fmt.Sscanf(string(raw), "%d", &major); err != nil {
		return 0, fmt.Errorf("reading PG_VERSION in %s: %w", data, err)
	}
	return major, nil
}
