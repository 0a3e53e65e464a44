package intake

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"wagate/internal/store"
)

const (
	// diskClosed is how long nothing is stored after the database had no disk left; then one commit tries.
	diskClosed = 5 * time.Second
	// lookEvery is how often free space is looked at, where it can be seen.
	lookEvery = 5 * time.Second
	// findEvery is how often the data directory is looked for while the database cannot be asked.
	findEvery = time.Minute
	// A disk is short with less than minFree (a quarter of a disk so small that this is less), or with less than 2 % while
	// that is below wantFree.
	minFree  = 256 << 20
	wantFree = 2 << 30
)

// disk keeps messages from being taken that the database has no room for. It is safe for concurrent use.
type disk struct {
	store  *store.Store
	logger *slog.Logger
	// space gives the bytes that are free and all that there are, of the file system of a directory.
	space func(dir string) (free, total uint64, err error)

	mu      sync.Mutex
	until   time.Time // until when nothing is tried after a failure
	probing bool
	full    bool // a commit has failed, and none has succeeded since
	short   bool // by the last look

	// Of look only.
	dirs  []string
	found bool // that there are dirs to look at, or that there are none
	next  time.Time
}

// closed says for how long nothing is to be stored; 0 when it may be tried.
func (d *disk) closed(now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.wait(now)
}

func (d *disk) wait(now time.Time) time.Duration {
	switch {
	case d.short:
		return diskClosed
	case d.full && now.Before(d.until):
		return max(d.until.Sub(now), time.Second)
	case d.full && d.probing:
		return time.Second
	}
	return 0
}

// enter is closed, and makes the caller the one that tries when a failure is that long ago. It then has to say how it ended.
func (d *disk) enter(now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	wait := d.wait(now)
	if wait == 0 && d.full {
		d.probing = true
	}
	return wait
}

// left says how a commit ended that was entered for.
func (d *disk) left(now time.Time, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.probing = false
	switch {
	case store.DiskFull(err):
		d.full, d.until = true, now.Add(diskClosed)
	case err == nil:
		d.full = false
	}
}

// look looks at the free space of a database on this machine, when it is time.
func (d *disk) look(ctx context.Context, now time.Time) {
	if now.Before(d.next) || d.space == nil {
		return
	}
	if !d.found {
		ctx, cancel := context.WithTimeout(ctx, connectionWait)
		defer cancel()
		dir, started, err := d.store.DataDirectory(ctx)
		d.found = err == nil || !store.Unavailable(err)
		if err == nil && isHere(dir, started) {
			d.dirs = []string{dir, filepath.Join(dir, "pg_wal")}
		}
	}
	d.next = now.Add(lookEvery)
	if len(d.dirs) == 0 {
		d.next = now.Add(findEvery)
	}
	short := false
	for _, dir := range d.dirs {
		free, total, err := d.space(dir)
		short = short || (err == nil && free < max(min(minFree, total/4), min(total/50, wantFree)))
	}
	d.mu.Lock()
	changed := short != d.short
	d.short = short
	d.mu.Unlock()
	if changed && short {
		d.logger.ErrorContext(ctx, "the database is short of disk: nothing is accepted")
	} else if changed {
		d.logger.InfoContext(ctx, "the database has disk again")
	}
}

// isHere says whether a directory is that of the server which started then: its postmaster.pid says when, in its third line.
func isHere(dir string, started time.Time) bool {
	raw, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(raw), "\n")
	if len(lines) < 3 {
		return false
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(lines[2]), 10, 64)
	return err == nil && started.Sub(time.Unix(seconds, 0)).Abs() < time.Minute
}
