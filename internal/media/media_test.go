package media

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"
	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"wagate/internal/content"
	"wagate/internal/pgtest"
	"wagate/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }

var png, _ = content.MediaTypeOf("image/png")

func memory(t *testing.T) *blob.Bucket {
	t.Helper()
	b := memblob.OpenBucket(nil)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func library(t *testing.T, bucket *blob.Bucket, keep time.Duration) (*Library, *store.Store) {
	t.Helper()
	s := store.New(pgtest.New(t))
	return New(s, bucket, keep, slog.New(slog.DiscardHandler)), s
}

// put hands a file in.
func put(t *testing.T, l *Library, owner, body string) (store.Media, bool) {
	t.Helper()
	r, err := l.Receive(t.Context(), strings.NewReader(body), content.MaxMedia)
	if err != nil {
		t.Fatal(err)
	}
	m, fresh, err := l.Keep(t.Context(), r, owner, uuid.Nil, png, "a.png")
	if err != nil {
		t.Fatal(err)
	}
	return m, fresh
}

func keys(t *testing.T, b *blob.Bucket) (all []string) {
	t.Helper()
	for files := b.List(nil); ; {
		f, err := files.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, f.Key)
	}
}

func read(t *testing.T, l *Library, m store.Media) string {
	t.Helper()
	r, err := l.Open(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestAFileIsKeptOnceAnOwner(t *testing.T) {
	bucket := memory(t)
	l, _ := library(t, bucket, 0)
	first, fresh := put(t, l, "a", "one")
	if sum := sha256.Sum256([]byte("one")); !fresh || first.Size != 3 || !bytes.Equal(first.SHA256, sum[:]) || first.Filename != "a.png" {
		t.Errorf("%v %+v", fresh, first)
	}
	if again, fresh := put(t, l, "a", "one"); fresh || again.ID != first.ID || read(t, l, again) != "one" {
		t.Errorf("%v %+v", fresh, again)
	}
	if other, fresh := put(t, l, "b", "one"); !fresh || other.ID == first.ID {
		t.Errorf("%v %+v", fresh, other)
	}
	if all := keys(t, bucket); len(all) != 2 {
		t.Errorf("files %v", all)
	}
	if waiting, err := l.Delete(t.Context(), first.ID); err != nil || waiting != 0 {
		t.Errorf("%d, %v", waiting, err)
	}
	if all := keys(t, bucket); len(all) != 1 || all[0] == first.Blob {
		t.Errorf("files %v", all)
	}
	if _, err := l.Open(t.Context(), first); !errors.Is(err, ErrFileGone) {
		t.Errorf("the file of a deleted media: %v", err)
	}
}

// The store has lost a file: handing it in again mends its media.
func TestALostFileIsMended(t *testing.T) {
	bucket := memory(t)
	l, s := library(t, bucket, 0)
	first, _ := put(t, l, "a", "one")
	if err := bucket.Delete(t.Context(), first.Blob); err != nil {
		t.Fatal(err)
	}
	again, fresh := put(t, l, "a", "one")
	if fresh || again.ID != first.ID || read(t, l, again) != "one" {
		t.Errorf("%v %+v", fresh, again)
	}
	if kept, err := s.GetMedia(t.Context(), first.ID); err != nil || kept.Blob != again.Blob || kept.Blob == first.Blob {
		t.Errorf("%+v, %v", kept, err)
	}
}

func TestNothingStaysOfWhatIsNotTaken(t *testing.T) {
	for name, open := range map[string]func() *blob.Bucket{
		"memory": func() *blob.Bucket { return memory(t) },
		"a folder": func() *blob.Bucket {
			b, err := Open(t.Context(), "file://"+filepath.ToSlash(t.TempDir())+"/new/folder")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.Close() })
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			bucket := open()
			l, _ := library(t, bucket, 0)
			broken := errors.New("the line broke")
			var large *TooLargeError
			var body *BodyError
			if _, err := l.Receive(t.Context(), strings.NewReader("12345"), 4); !errors.As(err, &large) || large.Max != 4 {
				t.Errorf("too large: %v", err)
			}
			if _, err := l.Receive(t.Context(), strings.NewReader(""), 4); !errors.Is(err, ErrEmpty) {
				t.Errorf("empty: %v", err)
			}
			if _, err := l.Receive(t.Context(), io.MultiReader(strings.NewReader("1"), iotest.ErrReader(broken)), 4); !errors.As(err, &body) || !errors.Is(err, broken) {
				t.Errorf("broken off: %v", err)
			}
			r, err := l.Receive(t.Context(), io.LimitReader(zeros{}, png.Max+1), content.MaxMedia)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := l.Keep(t.Context(), r, "a", uuid.Nil, png, ""); !errors.As(err, &large) || large.Max != png.Max {
				t.Errorf("too large for its type: %v", err)
			}
			if all := keys(t, bucket); len(all) != 0 {
				t.Errorf("files stay behind: %v", all)
			}
		})
	}
}

type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestTheSweep(t *testing.T) {
	bucket := memory(t)
	l, s := library(t, bucket, 48*time.Hour)
	old, _ := put(t, l, "a", "old")
	young, _ := put(t, l, "a", "young")
	if _, err := s.Pool().Exec(t.Context(), `UPDATE media SET used_at = now() - interval '49 hours' WHERE id = $1`, old.ID); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{blobPrefix + "xx/orphan", "another/program"} {
		if err := bucket.WriteAll(t.Context(), key, []byte("x"), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(keys(t, bucket), " "); got != "another/program "+young.Blob+" "+blobPrefix+"xx/orphan" {
		t.Errorf("files %s", got)
	}
	// A day later the file that belongs to no media goes too, and no other.
	l.now = func() time.Time { return time.Now().Add(25 * time.Hour) }
	if _, err := s.Pool().Exec(t.Context(), `UPDATE chores SET done_at = now() - interval '1 day'`); err != nil {
		t.Fatal(err)
	}
	if err := l.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(keys(t, bucket), " "); got != "another/program "+young.Blob {
		t.Errorf("files %s", got)
	}
}

func TestTheMarkOfAStore(t *testing.T) {
	s := store.New(pgtest.New(t))
	first, second := memory(t), memory(t)
	for range 2 {
		if err := Attach(t.Context(), s, first, true); err != nil {
			t.Fatal(err)
		}
	}
	for _, write := range []bool{true, false} {
		if err := Attach(t.Context(), s, second, write); !errors.Is(err, ErrOtherStore) {
			t.Errorf("another store: %v", err)
		}
	}
	// A new database takes over the store of before.
	if err := Attach(t.Context(), store.New(pgtest.New(t)), first, true); err != nil {
		t.Error(err)
	}
	if got := keys(t, first); len(got) != 1 || got[0] != markKey {
		t.Errorf("files %v", got)
	}
	// Two that mark a store at the same moment agree.
	third := memory(t)
	one, err := putMark(t.Context(), third)
	if err != nil {
		t.Fatal(err)
	}
	if two, err := putMark(t.Context(), third); err != nil || two != one {
		t.Errorf("%v and %v, %v", one, two, err)
	}
}

func TestAFolderThatCannotBeUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"file://" + filepath.ToSlash(file), "file://" + filepath.ToSlash(file) + "/under", "gs://bucket", "s3://bucket?nonsense=1"} {
		if b, err := Open(t.Context(), address); err == nil {
			t.Errorf("%s was opened: %v", address, b.Close())
		}
	}
}

func TestFilename(t *testing.T) {
	for in, want := range map[string]string{
		"a.pdf": "a.pdf", "/etc/passwd": "passwd", `C:\my files\b.pdf`: "b.pdf", "": "", "..": "", "/": "", "a\r\nb\x00.pdf": "ab.pdf", "\xff.pdf": ".pdf",
		strings.Repeat("é", 200) + ".pdf": strings.Repeat("é", 118) + ".pdf",
	} {
		if got := Filename(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func FuzzFilename(f *testing.F) {
	f.Add(`..\x.pdf`)
	f.Fuzz(func(t *testing.T, s string) {
		got := Filename(s)
		if len(got) > maxFilename || strings.ContainsAny(got, "/\\\r\n\x00") || got == ".." || Filename(got) != got {
			t.Errorf("%q from %q", got, s)
		}
	})
}

func TestNoRoom(t *testing.T) {
	l := &Library{receiving: make(chan struct{}, 1)}
	l.receiving <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Receive(ctx, strings.NewReader("x"), 1); !errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
}
