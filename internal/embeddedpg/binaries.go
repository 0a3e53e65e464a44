//go:build unix

package embeddedpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

const (
	minVersion   = 15 // the oldest major version whose SQL we may use
	probeTimeout = 10 * time.Second
	fetchTimeout = 3 * time.Minute
)

// repository replaces the library's place to fetch from, in a test.
var repository string

type release struct {
	major int
	full  embeddedpostgres.PostgresVersion
}

// fetchable are the releases to fetch; the first is the choice for new data.
var fetchable = []release{{17, embeddedpostgres.V17}, {18, embeddedpostgres.V18}, {16, embeddedpostgres.V16}, {15, embeddedpostgres.V15}}

// binaries is a folder with initdb and postgres of one major version.
type binaries struct {
	dir     string
	version int
}

func (b binaries) path(name string) string { return filepath.Join(b.dir, name) }

// findBinaries gives the first binaries of the machine that user can run, of
// the major version want unless that is 0, or fetches some.
func findBinaries(ctx context.Context, user *account, want int, run string, log *slog.Logger) (binaries, error) {
	for _, dir := range installed() {
		b, err := probe(ctx, dir, user)
		switch {
		case err != nil:
			log.DebugContext(ctx, "no use as embedded postgres", "dir", dir, "error", err)
		case fits(b, want):
			return b, nil
		}
	}
	b, err := fetch(ctx, user, want, run, log)
	if err != nil {
		need := "15 or later"
		if want != 0 {
			need = strconv.Itoa(want) + ", which made the data directory"
		}
		return binaries{}, fmt.Errorf("no PostgreSQL %s on this machine, and it could not be fetched: install it, or set DATABASE_URL to a running server: %w", need, err)
	}
	return b, nil
}

func fits(b binaries, want int) bool {
	return b.version >= minVersion && (want == 0 || b.version == want)
}

// installed lists the folders where PostgreSQL's binaries may be, best first.
func installed() []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
		if real, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", // Debian, Ubuntu
		"/usr/pgsql-*/bin",          // PostgreSQL's own RPMs
		"/opt/homebrew/opt/postgresql@*/bin",
		"/usr/local/opt/postgresql@*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			continue // only for a malformed pattern
		}
		slices.SortFunc(found, func(a, b string) int { return lastNumber(b) - lastNumber(a) })
		dirs = append(dirs, found...)
	}
	return dirs
}

var number = regexp.MustCompile(`\d+`)

// lastNumber is the version in such a path; 0 for none ("latest").
func lastNumber(path string) int {
	all := number.FindAllString(path, -1)
	if len(all) == 0 {
		return 0
	}
	n, err := strconv.Atoi(all[len(all)-1])
	if err != nil {
		return 0
	}
	return n
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// probe runs the binaries in dir as user: being there is not enough.
func probe(ctx context.Context, dir string, user *account) (binaries, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	b := binaries{dir: dir}
	if _, err := os.Stat(b.path("initdb")); err != nil {
		return binaries{}, err
	}
	out, err := runTied(exec.CommandContext(ctx, b.path("postgres"), "--version"), user, "/")
	if err != nil {
		return binaries{}, fmt.Errorf("running %s: %w", b.path("postgres"), err)
	}
	found := versionLine.FindStringSubmatch(out)
	if found == nil {
		return binaries{}, fmt.Errorf("%s gives no version", b.path("postgres"))
	}
	b.version, err = strconv.Atoi(found[1])
	return b, err
}

// fetch gives the binaries that an earlier fetch left, or fetches them.
func fetch(ctx context.Context, user *account, want int, run string, log *slog.Logger) (binaries, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	at := 0
	if want != 0 {
		if at = slices.IndexFunc(fetchable, func(r release) bool { return r.major == want }); at < 0 {
			return binaries{}, fmt.Errorf("PostgreSQL %d is not among the versions to fetch", want)
		}
	}
	choice := fetchable[at]
	base := fetchDir(user, run)
	final := filepath.Join(base, "postgresql-"+strconv.Itoa(choice.major))
	if b, err := probe(ctx, filepath.Join(final, "bin"), user); err == nil {
		return b, nil
	}
	work, err := os.MkdirTemp(base, "fetch-")
	if err != nil {
		return binaries{}, fmt.Errorf("making a folder to fetch PostgreSQL into: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }() // a leftover does no harm
	if err := os.Chmod(work, 0o755); err != nil {
		return binaries{}, err
	}
	log.InfoContext(ctx, "fetching PostgreSQL, once", "release", string(choice.full), "into", final)
	fetchErr := download(ctx, choice.full, work)
	if _, err := probe(ctx, filepath.Join(work, "pg", "bin"), user); err != nil {
		return binaries{}, errors.Join(fetchErr, err)
	}
	// Another process may have been faster; then its files are as good.
	renameErr := os.Rename(filepath.Join(work, "pg"), final)
	b, err := probe(ctx, filepath.Join(final, "bin"), user)
	if err != nil {
		return binaries{}, errors.Join(renameErr, err)
	}
	return b, nil
}

// fetchDir is the folder that keeps fetched binaries, where user can reach it;
// the run folder, and so not for long, when there is none.
func fetchDir(user *account, run string) string {
	if cache, err := os.UserCacheDir(); err == nil {
		dir := filepath.Join(cache, "wagate")
		if user.reaches(dir) && os.MkdirAll(dir, 0o755) == nil {
			return dir
		}
	}
	if user.reaches(systemDir) && makeOpen(systemDir) == nil {
		return systemDir
	}
	return run
}

// download puts that version's files into work/pg. The library fetches and
// unpacks only as the beginning of a start, so it gets a data path on which
// the rest of its start fails; the caller looks whether the files are there.
func download(ctx context.Context, version embeddedpostgres.PostgresVersion, work string) error {
	cfg := embeddedpostgres.DefaultConfig().
		Version(version).
		Port(0).
		CachePath(filepath.Join(work, "archive")).
		RuntimePath(filepath.Join(work, "run")).
		BinariesPath(filepath.Join(work, "pg")).
		DataPath(filepath.Join(os.DevNull, "none")).
		Logger(io.Discard)
	if repository != "" {
		cfg = cfg.BinaryRepositoryURL(repository)
	}
	done := make(chan error, 1)
	// The library takes no context: past the deadline it is left to fail alone.
	go func() { done <- embeddedpostgres.NewDatabase(cfg).Start() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("fetching PostgreSQL: %w", ctx.Err())
	}
}
