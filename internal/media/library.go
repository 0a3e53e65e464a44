// Package media keeps the files that callers hand in once, by their content, and puts them up at the Cloud API as messages need
// them: Meta forgets a file after 30 days, and has it at one phone number only. The files lie in a blob store; what they are and
// where Meta has them is in our tables.
package media

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"
	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"wagate/internal/content"
	"wagate/internal/message"
	"wagate/internal/store"
)

const (
	// receiveAtOnce bounds the files that are taken in at a time, receiveWait how long one waits for its turn.
	receiveAtOnce = 16
	receiveWait   = 5 * time.Second
	// storeTime bounds one visit of the blob store or the database that moves no file.
	storeTime = 10 * time.Second
	// partSize and partsAtOnce bound the memory that a file takes on its way into a bucket: twice a part, or what it has where that
	// is less than 16 MiB, which the SDK sends in one piece.
	partSize    = 5 << 20
	partsAtOnce = 1
	maxFilename = 240 // bytes
)

var (
	// ErrBusy is for a file for which there was no room among those taken in at once.
	ErrBusy = errors.New("too many files at once")
	// ErrEmpty is for a file without a byte.
	ErrEmpty = errors.New("the file is empty")
	// ErrFileGone is, wrapped, for a media whose file is not in the blob store.
	ErrFileGone = errors.New("the file of the media is not in the store")
)

// TooLargeError says that a file has more bytes than it may.
type TooLargeError struct{ Max int64 }

// Error implements error.
func (e *TooLargeError) Error() string { return fmt.Sprintf("the file has more than %d bytes", e.Max) }

// BodyError is why a file did not come whole.
type BodyError struct{ Err error }

// Error implements error.
func (e *BodyError) Error() string { return "the file did not come whole: " + e.Err.Error() }

// Unwrap gives the cause.
func (e *BodyError) Unwrap() error { return e.Err }

// StoreError says that the blob store did not do what it was asked.
type StoreError struct{ Err error }

// Error implements error.
func (e *StoreError) Error() string { return "the store of media: " + e.Err.Error() }

// Unwrap gives the cause.
func (e *StoreError) Unwrap() error { return e.Err }

// Library takes files in, gives them out and removes them. It is safe for concurrent use.
type Library struct {
	store     *store.Store
	bucket    *blob.Bucket
	keep      time.Duration
	log       *slog.Logger
	receiving chan struct{}
	now       func() time.Time
}

// New makes a Library over a bucket that stays the caller's. Media that nobody has used for longer than keep are removed by
// Run; 0 keeps them until they are deleted.
func New(s *store.Store, bucket *blob.Bucket, keep time.Duration, logger *slog.Logger) *Library {
	return &Library{store: s, bucket: bucket, keep: keep, log: logger, receiving: make(chan struct{}, receiveAtOnce), now: time.Now}
}

// Received is a file that lies in the blob store and is nobody's yet: Keep or Discard it.
type Received struct {
	id   uuid.UUID
	blob string
	sum  [sha256.Size]byte
	// Size is in bytes.
	Size int64
}

// Receive streams a file of at most limit bytes into the blob store. Its errors are ErrBusy, ErrEmpty, *TooLargeError, *BodyError and
// *StoreError; nothing stays behind then.
func (l *Library) Receive(ctx context.Context, from io.Reader, limit int64) (*Received, error) {
	wait, stop := context.WithTimeout(ctx, receiveWait)
	defer stop()
	select {
	case l.receiving <- struct{}{}:
		defer func() { <-l.receiving }()
	case <-wait.Done():
		return nil, ErrBusy
	}
	r := &Received{id: message.NewID(l.now())}
	// No two media share a file, so that one goes with its row whatever others do meanwhile.
	r.blob = blobPrefix + r.id.String()[34:] + "/" + r.id.String()
	write, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := l.bucket.NewWriter(write, r.blob, &blob.WriterOptions{
		BufferSize: partSize, MaxConcurrency: partsAtOnce, ContentType: "application/octet-stream",
	})
	if err != nil {
		return nil, &StoreError{err}
	}
	hash := sha256.New()
	body := &bodyReader{from: io.LimitReader(from, limit+1)}
	r.Size, err = io.Copy(w, io.TeeReader(body, hash))
	switch {
	case body.err != nil:
		err = &BodyError{body.err}
	case err != nil:
		err = &StoreError{err}
	case r.Size > limit:
		err = &TooLargeError{limit}
	case r.Size == 0:
		err = ErrEmpty
	}
	if err != nil {
		cancel() // so that closing does not keep what has come
		_ = w.Close()
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, &StoreError{err}
	}
	hash.Sum(r.sum[:0])
	return r, nil
}

// bodyReader remembers why a body broke off: it is not the store's fault then.
type bodyReader struct {
	from io.Reader
	err  error
}

// Read implements io.Reader.
func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// blobPrefix begins the keys of files.
const blobPrefix = "media/"

// Discard removes a file that is nobody's. What cannot be removed now is found and removed by Run.
func (l *Library) Discard(ctx context.Context, r *Received) { l.remove(ctx, r.blob) }

func (l *Library) remove(ctx context.Context, keys ...string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
	defer cancel()
	for _, key := range keys {
		if err := l.bucket.Delete(ctx, key); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
			l.log.WarnContext(ctx, "a file of a media was not removed, will be tried again within a day", "blob", key, "err", err)
		}
	}
}

// Keep makes a media of a file, or gives the earlier one where the owner has the same content of the same type: fresh is false
// then. It takes ten seconds at the most. The file must be no larger than its type may be: *TooLargeError, and it is removed.
func (l *Library) Keep(ctx context.Context, r *Received, owner string, keyID uuid.UUID, t content.MediaType, filename string) (m store.Media, fresh bool, err error) {
	if r.Size > t.Max {
		l.Discard(ctx, r)
		return m, false, &TooLargeError{t.Max}
	}
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	m, err = l.store.PutMedia(ctx, store.Media{
		ID: r.id, Owner: owner, KeyID: keyID, SHA256: r.sum[:], MIMEType: t.MIME, Size: r.Size, Filename: Filename(filename), Blob: r.blob,
	})
	if err != nil {
		// Whether it was stored may not be known: a file without a media is removed by Run.
		return m, false, err
	}
	if m.ID == r.id {
		return m, true, nil
	}
	there, err := l.bucket.Exists(ctx, m.Blob)
	if err == nil && !there {
		// The store has lost the earlier file: this one is as good.
		if replaced, err := l.store.ReplaceMediaBlob(ctx, m.ID, m.Blob, r.blob); err != nil || replaced {
			m.Blob = r.blob
			return m, false, err
		}
	}
	l.Discard(ctx, r)
	return m, false, nil
}

// Open gives the file of a media to read and close; an error that wraps ErrFileGone when it is not there, else a *StoreError.
func (l *Library) Open(ctx context.Context, m store.Media) (*blob.Reader, error) {
	return open(ctx, l.bucket, m)
}

func open(ctx context.Context, bucket *blob.Bucket, m store.Media) (*blob.Reader, error) {
	r, err := bucket.NewReader(ctx, m.Blob, nil)
	switch {
	case err == nil && r.Size() == m.Size:
		return r, nil
	case err == nil:
		_ = r.Close()
		return nil, fmt.Errorf("media %s: %w whole", m.ID, ErrFileGone)
	case gcerrors.Code(err) == gcerrors.NotFound:
		return nil, fmt.Errorf("media %s: %w", m.ID, ErrFileGone)
	}
	return nil, &StoreError{err}
}

// Delete removes a media and its file. While messages that name it wait, nothing is removed, and waiting is how many they are.
func (l *Library) Delete(ctx context.Context, id uuid.UUID) (waiting int, err error) {
	key, waiting, err := l.store.DeleteMedia(ctx, id)
	if err == nil && waiting == 0 {
		l.remove(ctx, key)
	}
	return waiting, err
}

// Filename makes a caller's name of a file fit to be shown and passed on: its last element, without control characters, in at
// most 240 bytes.
func Filename(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	s = strings.TrimSpace(path.Base(strings.TrimSpace(strings.ReplaceAll(s, `\`, "/"))))
	if len(s) > maxFilename {
		ext := path.Ext(s)
		if len(ext) > 16 {
			ext = ""
		}
		s = strings.TrimSpace(strings.ToValidUTF8(s[:maxFilename-len(ext)], "") + ext)
	}
	if s == "." || s == "/" || s == ".." {
		return ""
	}
	return s
}
