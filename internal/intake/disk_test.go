package intake

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"wagate/internal/pgtest"
	"wagate/internal/store"
)

func TestDiskCircuit(t *testing.T) {
	d, now := &disk{}, time.Unix(1_800_000_000, 0)
	full := fmt.Errorf("inserting: %w", &pgconn.PgError{Code: "53100"})
	enter := func(what string, want time.Duration) {
		t.Helper()
		if got := d.enter(now); got != want {
			t.Errorf("%s: wait %v, want %v", what, got, want)
		}
	}
	enter("at first", 0)
	d.left(now, errors.New("another fault"))
	enter("after another fault", 0)
	d.left(now, full)
	enter("full", diskClosed)
	now = now.Add(diskClosed - 1)
	enter("nearly over", time.Second)
	now = now.Add(1)
	if d.closed(now) != 0 {
		t.Error("a look is a try")
	}
	enter("the one that tries", 0)
	enter("another meanwhile", time.Second)
	d.left(now, full)
	enter("still full", diskClosed)
	now = now.Add(diskClosed)
	enter("the second try", 0)
	d.left(now, nil)
	enter("with room", 0)
	enter("and another", 0)
}

func TestDiskIsSeen(t *testing.T) {
	pool := pgtest.New(t)
	var free, total uint64
	var dirs []string
	d := &disk{store: store.New(pool), logger: slog.New(slog.DiscardHandler), space: func(dir string) (uint64, uint64, error) {
		dirs = append(dirs, dir)
		return free, total, nil
	}}
	// The directory of a server of another user or machine is not seen: this stands for one that is.
	d.found, d.dirs = true, []string{"data"}
	now := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		free, total uint64
		short       bool
	}{
		{51 << 20, 200 << 20, false}, {49 << 20, 200 << 20, true}, {300 << 20, 1 << 30, false}, {255 << 20, 1 << 30, true}, {300 << 20, 100 << 30, true}, {2049 << 20, 100 << 30, false},
		{2049 << 20, 10 << 40, false}, {2047 << 20, 10 << 40, true},
	} {
		free, total = c.free, c.total
		now = now.Add(lookEvery)
		d.look(t.Context(), now)
		if short := d.closed(now) > 0; short != c.short {
			t.Errorf("%d MiB of %d: short is %t", c.free>>20, c.total>>20, short)
		}
	}
	looks := len(dirs)
	if d.look(t.Context(), now.Add(lookEvery-1)); len(dirs) != looks || looks == 0 {
		t.Errorf("%d looks, then %d", looks, len(dirs))
	}
}

func TestDataDirectoryOfThisServer(t *testing.T) {
	dir, started := t.TempDir(), time.Now()
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "postmaster.pid"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if isHere(dir, started) {
		t.Error("a directory without a server")
	}
	for content, want := range map[string]bool{
		fmt.Sprintf("17\n%s\n%d\n5432\n", dir, started.Unix()-1):    true,
		fmt.Sprintf("17\n%s\n%d\n5432\n", dir, started.Unix()-3600): false,
		"17\n": false, "17\nx\ny\n": false,
	} {
		write(content)
		if got := isHere(dir, started); got != want {
			t.Errorf("%q: %t", content, got)
		}
	}
	found, at, err := store.New(pgtest.New(t)).DataDirectory(t.Context())
	if err != nil || found == "" || at.IsZero() || at.After(time.Now().Add(time.Minute)) {
		t.Errorf("the server says %q, %s, %v", found, at, err)
	}
	if space := (&disk{space: freeSpace}).space; space != nil {
		if free, total, err := space(dir); err != nil || total == 0 || free > total {
			t.Errorf("%d of %d bytes are free, %v", free, total, err)
		}
	}
}
