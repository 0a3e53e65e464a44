//go:build unix

package embeddedpg

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// packed is a repository's answer: testdata/postgres.txz, which holds two
// scripts that stand for the binaries, in a jar.
func packed(t *testing.T) []byte {
	t.Helper()
	txz, err := os.ReadFile(filepath.Join("testdata", "postgres.txz"))
	if err != nil {
		t.Fatal(err)
	}
	var jar bytes.Buffer
	z := zip.NewWriter(&jar)
	f, err := z.Create("postgres.txz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(txz); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return jar.Bytes()
}

// serve makes a repository that gives jar, and counts how often.
func serve(t *testing.T, jar []byte) *atomic.Int32 {
	t.Helper()
	sum := sha256.Sum256(jar)
	var fetched atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case jar == nil:
			http.NotFound(w, r)
		case strings.HasSuffix(r.URL.Path, ".sha256"):
			_, _ = w.Write([]byte(hex.EncodeToString(sum[:])))
		default:
			fetched.Add(1)
			_, _ = w.Write(jar)
		}
	}))
	repository = srv.URL
	t.Cleanup(func() {
		repository = ""
		srv.Close() // with http's default idle connections, which the library uses
	})
	return &fetched
}

// cacheDir makes a folder of the test's own the user's cache.
func cacheDir(t *testing.T) string {
	t.Helper()
	cache := openDir(t)
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv("HOME", cache)         // whose Library/Caches it is on macOS
	t.Setenv("TMPDIR", t.TempDir()) // where the library leaves a log
	return cache
}

func TestFetchOnce(t *testing.T) {
	cache := cacheDir(t)
	fetched := serve(t, packed(t))
	user, err := serverUser()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	for range 2 {
		b, err := fetch(t.Context(), user, 0, t.TempDir(), log)
		if err != nil {
			t.Fatal(err)
		}
		if b.version != 17 || !strings.HasPrefix(b.dir, cache) {
			t.Errorf("fetched %+v, want version 17 below %s", b, cache)
		}
	}
	if n := fetched.Load(); n != 1 {
		t.Errorf("fetched %d times, want once", n)
	}
	if left, err := filepath.Glob(filepath.Join(cache, "wagate", "fetch-*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFetchRefused(t *testing.T) {
	cacheDir(t)
	serve(t, nil)
	user, err := serverUser()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if b, err := fetch(t.Context(), user, 0, t.TempDir(), log); err == nil {
		t.Errorf("fetched %+v from a repository without any", b)
	}
	// A version that no machine has and no repository offers.
	if b, err := findBinaries(context.Background(), user, 99, t.TempDir(), log); err == nil || !strings.Contains(err.Error(), "DATABASE_URL") {
		t.Errorf("found %+v, %v, want an error that says what to do", b, err)
	}
}

func TestLastNumber(t *testing.T) {
	for path, want := range map[string]int{
		"/usr/lib/postgresql/17/bin":                              17,
		"/opt/homebrew/opt/postgresql@16/bin":                     16,
		"/Applications/Postgres.app/Contents/Versions/latest/bin": 0,
	} {
		if got := lastNumber(path); got != want {
			t.Errorf("lastNumber(%q) = %d, want %d", path, got, want)
		}
	}
}
