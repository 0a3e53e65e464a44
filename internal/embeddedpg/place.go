//go:build unix

package embeddedpg

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	runPrefix = "wagate-pg-"
	lockName  = "wagate.lock"
	systemDir = "/var/lib/wagate" // for root, whose home nobody else may enter

	socketName = ".s.PGSQL." + port
	// maxSocketPath is the shortest limit of the systems we run on, in bytes
	// (sun_path holds 108 on Linux, 104 on macOS, with a zero at the end).
	maxSocketPath = 103

	orphanWait = 5 * time.Second // for the server of a process that just died
	orphanPoll = 20 * time.Millisecond
)

// place is where a server lives on the disk.
type place struct {
	user      *account
	home      string // the folder that holds the data, ours alone
	data      string // PostgreSQL's own data directory, in home
	run       string // the socket's folder, new for each Start; short
	temporary bool   // home is run

	locks []*os.File // held while we live: they tell the living from the dead
}

// newPlace makes and locks the folders for a server.
func newPlace(dataDir, tempDir string, user *account, log *slog.Logger) (_ *place, err error) {
	p := &place{user: user}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.release())
		}
	}()
	if err := p.makeRun(tempDir); err != nil {
		return nil, err
	}
	if p.home, err = p.chooseHome(dataDir, log); err != nil {
		return nil, err
	}
	p.temporary = p.home == p.run
	if !p.temporary {
		if err := p.lock(p.home); err != nil {
			return nil, err
		}
	}
	p.data = filepath.Join(p.home, "pgdata")
	return p, nil
}

// makeRun makes the run folder where the server's user can reach it, and
// removes the ones that dead processes left there.
func (p *place) makeRun(tempDir string) error {
	var errs []error
	if tempDir == "" {
		tempDir = os.TempDir()
	}
	for _, base := range []string{tempDir, os.TempDir(), "/tmp", "/var/tmp", systemDir} {
		base, err := filepath.Abs(base)
		if err != nil || len(base)+len("/"+runPrefix+"4294967295/"+socketName) > maxSocketPath || !p.user.reaches(base) {
			continue
		}
		Sweep(base)
		// Locked before it has the name that a sweep looks for.
		dir, err := os.MkdirTemp(base, "."+runPrefix)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		final := filepath.Join(base, strings.TrimPrefix(filepath.Base(dir), "."))
		err = p.lock(dir)
		if err == nil {
			err = p.user.own(dir)
		}
		if err == nil {
			err = os.Rename(dir, final)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("making the socket's folder: %w", err), os.RemoveAll(dir))
		}
		p.run = final
		return nil
	}
	return fmt.Errorf("making a folder for the socket: no temporary folder is short enough and open to the server's user: %w", errors.Join(errs...))
}

// chooseHome gives the folder for the data; it exists then.
func (p *place) chooseHome(dataDir string, log *slog.Logger) (string, error) {
	if dataDir == "" {
		return p.run, nil
	}
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return "", fmt.Errorf("resolving the data directory: %w", err)
	}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return "", fmt.Errorf("the data directory %s is not a directory", dir)
	}
	if p.user.reaches(dir) {
		if err := makeOpen(dir); err != nil {
			return "", fmt.Errorf("making the data directory: %w", err)
		}
		return dir, nil
	}
	// Told apart by the directory that was asked for, so that two do not meet.
	sum := sha256.Sum256([]byte(dir))
	instead := filepath.Join(systemDir, filepath.Base(dir)+"-"+hex.EncodeToString(sum[:4]))
	if p.user.reaches(instead) {
		if err := makeOpen(instead); err == nil {
			log.Info("the data directory is closed to the server's user; the data lie elsewhere", "asked", dir, "user", p.user.name, "used", instead)
			return instead, nil
		}
	}
	log.Warn("the data directory is closed to the server's user; the data are temporary", "asked", dir, "user", p.user.name, "used", p.run)
	return p.run, nil
}

// makeOpen makes dir and what is missing above it, for all to pass through,
// whatever the umask. What exists is left as it is.
func makeOpen(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := makeOpen(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// emptyDir makes dir anew, for the server's user only.
func (p *place) emptyDir(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err == nil {
		err = p.user.own(dir)
	}
	if err != nil {
		return fmt.Errorf("making an empty data directory: %w", err)
	}
	return nil
}

// lock marks dir as in use until release or our death.
func (p *place) lock(dir string) error {
	f, err := tryLock(filepath.Join(dir, lockName))
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("the data directory %s is in use by another running process: stop that one or choose another directory", dir)
	}
	if err != nil {
		return fmt.Errorf("locking %s: %w", dir, err)
	}
	p.locks = append(p.locks, f)
	return nil
}

func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// release removes what is temporary and gives the locks back.
func (p *place) release() error {
	var err error
	if p.run != "" {
		err = os.RemoveAll(p.run)
	}
	for _, f := range p.locks {
		err = errors.Join(err, f.Close())
	}
	p.locks = nil
	if err != nil {
		return fmt.Errorf("tidying up after embedded Postgres: %w", err)
	}
	return nil
}

// Sweep removes from base, a temporary folder, what servers of ours left whose
// process died before it could. Start does so too. What belongs to others,
// may still be in use or cannot be removed stays.
func Sweep(base string) {
	dirs, err := filepath.Glob(filepath.Join(base, runPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, lockName)); err != nil {
			continue
		}
		f, err := tryLock(filepath.Join(dir, lockName))
		if err != nil {
			continue // alive, or another user's
		}
		lines := readLines(filepath.Join(dir, socketName+".lock")) // pid, data directory …
		if len(lines) < 2 || !serving(lines[0], lines[1]) {
			_ = os.RemoveAll(dir)
		}
		_ = f.Close()
	}
}

// settlePID clears the way for a new server on data that a server may have
// left without a goodbye. Called with the lock held, so the process that ran
// that server is gone, and the server ends with it, or has.
func settlePID(ctx context.Context, data string) error {
	path := filepath.Join(data, "postmaster.pid")
	tick := time.NewTicker(orphanPoll)
	defer tick.Stop()
	giveUp := time.Now().Add(orphanWait)
	for {
		lines := readLines(path)
		if len(lines) == 0 || !serving(lines[0], data) {
			return adoptPID(path, lines)
		}
		if time.Now().After(giveUp) {
			return fmt.Errorf("the data directory %s is in use by a running PostgreSQL server (process %s): stop it or choose another directory", data, lines[0])
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the last server on %s to end: %w", data, ctx.Err())
		}
	}
}

// adoptPID keeps PostgreSQL from taking a stranger, who got the number of a
// dead server, for that server. It takes its parent's number, ours, for a
// leftover, and still makes its own check that the old shared memory is free.
func adoptPID(path string, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	lines[0] = strconv.Itoa(os.Getpid())
	// Written over, not replaced: the file stays the server user's own.
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		return fmt.Errorf("clearing a stale postmaster.pid: %w", err)
	}
	return nil
}

// serving tells whether pid is alive and may be the server of data.
func serving(pid, data string) bool {
	n, err := strconv.Atoi(strings.TrimSpace(pid))
	if err != nil || n <= 0 {
		return false
	}
	// Without permission it is another user's process, so not our server.
	return syscall.Kill(n, 0) == nil && serves(n, data)
}

// readLines gives a small file's lines, none when there is no such file.
func readLines(path string) []string {
	raw, err := os.ReadFile(path)
	if err != nil || len(raw) == 0 {
		return nil
	}
	return strings.Split(string(raw), "\n")
}
