package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"wagate/internal/embeddedpg"
)

const (
	localTimeout = 5 * time.Minute // with a fetch
	stopTimeout  = 30 * time.Second
)

// The one server of this process, and why there is none.
var shared struct {
	mu    sync.Mutex
	tried bool
	srv   *server
	err   error
}

// sharedServer gives the process' server, started by the first who asks.
func sharedServer() (*server, error) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.tried {
		shared.tried = true
		shared.srv, shared.err = findServer()
	}
	return shared.srv, shared.err
}

// stopServer ends the server if there is one; no test gets one any more.
func stopServer() error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	s := shared.srv
	shared.tried, shared.srv, shared.err = true, nil, errors.New("the tests are over")
	if s == nil || s.stop == nil {
		return nil
	}
	return s.stop()
}

func findServer() (*server, error) {
	began := time.Now()
	s, err := pick(os.Getenv("WAGATE_TEST_PG"), os.Getenv("TEST_DATABASE_URL"))
	if err != nil {
		return nil, err
	}
	version, err := version(s)
	if err != nil {
		if s.stop != nil {
			err = errors.Join(err, s.stop())
		}
		return nil, fmt.Errorf("asking %s for its version: %w", s.about, err)
	}
	say("PostgreSQL %s, %s, after %v", version, s.about, time.Since(began).Round(time.Millisecond))
	return s, nil
}

func pick(forced, url string) (*server, error) {
	switch forced {
	case "testcontainers":
		return container()
	case "local":
		return local()
	case "":
	default:
		return nil, fmt.Errorf("WAGATE_TEST_PG is %q: it must be testcontainers or local", forced)
	}
	if url != "" {
		return &server{admin: url, about: "the server of TEST_DATABASE_URL"}, nil
	}
	s, containerErr := container()
	if containerErr == nil {
		return s, nil
	}
	s, err := local()
	if err != nil {
		return nil, errors.Join(containerErr, err)
	}
	s.about += " (no container: " + containerErr.Error() + ")"
	return s, nil
}

// local runs a server with this machine's binaries, or fetched ones. What a
// test commits need not survive a power cut.
func local() (*server, error) {
	ctx, cancel := context.WithTimeout(context.Background(), localTimeout)
	defer cancel()
	pg, err := embeddedpg.Start(ctx, embeddedpg.Config{TempDir: memoryDir(), Settings: map[string]string{
		"fsync":            "off",
		"full_page_writes": "off",
		"shared_buffers":   "128MB",
	}})
	if err != nil {
		return nil, err
	}
	stop := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		return pg.Stop(ctx)
	}
	// The server ends with this process by itself; its folder does not.
	stopReaper, err := startReaper(reapFolder, pg.DataDir())
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return &server{admin: pg.DSN(), about: "a local server", ours: true, stop: func() error {
		return errors.Join(stop(), stopReaper())
	}}, nil
}

func version(s *server) (v string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.admin)
	if err != nil {
		return "", err
	}
	defer closeConn(conn)
	err = conn.QueryRow(ctx, `SHOW server_version`).Scan(&v)
	return v, err
}

// say tells people which server it is; go test shows it when it shows output.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "pgtest: "+format+"\n", args...)
}
