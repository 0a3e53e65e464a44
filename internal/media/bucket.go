package media

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/google/uuid"
	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	_ "gocloud.dev/blob/s3blob" // for s3:// URLs
	"gocloud.dev/gcerrors"

	"wagate/internal/store"
)

// markKey is where the mark lies in a blob store.
const markKey = "wagate-store"

// Open opens the blob store of a WAGATE_MEDIA: file:///a/folder, which is made when missing, or s3://bucket?region=…. The caller
// closes it. Nothing is asked of a bucket yet.
func Open(ctx context.Context, address string) (*blob.Bucket, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("cannot be read as a URL") // its text may hold a key
	}
	if u.Scheme != "file" {
		return blob.OpenBucket(ctx, address)
	}
	// The temporary file of a write lies beside its last place: another folder may be another disk. Types are in the database.
	return fileblob.OpenBucket(u.Path, &fileblob.Options{CreateDir: true, DirFileMode: 0o750, NoTempDir: true, Metadata: fileblob.MetadataDontWrite})
}

// ErrOtherStore is for a blob store that is not the one in which the media of the database lie.
var ErrOtherStore = errors.New("is another store than the one in which the media of this database lie: gateways and workers must share one, see docs/how-to/send-media.md")

// Attach says whether a blob store can be used, and is the one of the database: both get the same mark when the first process
// starts. A file of one process is of no use to another that looks elsewhere, so that one does not start. With write it is also
// tried whether files can be put in.
func Attach(ctx context.Context, s *store.Store, bucket *blob.Bucket, write bool) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	there, err := readMark(ctx, bucket)
	if err != nil {
		return err
	}
	ours, err := s.MediaStoreMark(ctx)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err != nil {
		if there == uuid.Nil {
			if there, err = putMark(ctx, bucket); err != nil {
				return err
			}
		}
		if ours, err = s.MarkMediaStore(ctx, there); err != nil {
			return err
		}
	}
	if there != ours {
		return ErrOtherStore
	}
	if !write {
		return nil
	}
	probe := "probe/" + uuid.NewString()
	if err := bucket.WriteAll(ctx, probe, []byte("wagate"), nil); err != nil {
		return fmt.Errorf("cannot be written to: %w", err)
	}
	if err := bucket.Delete(ctx, probe); err != nil {
		return fmt.Errorf("cannot be deleted from: %w", err)
	}
	return nil
}

// readMark gives the mark of a blob store, the nil id where it has none.
func readMark(ctx context.Context, bucket *blob.Bucket) (uuid.UUID, error) {
	raw, err := bucket.ReadAll(ctx, markKey)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return uuid.Nil, nil
	}
	if err != nil {
		return uuid.Nil, fmt.Errorf("cannot be read: %w", err)
	}
	mark, err := uuid.ParseBytes(bytes.TrimSpace(raw))
	if err != nil {
		return uuid.Nil, fmt.Errorf("holds no mark in %s: %w", markKey, err)
	}
	return mark, nil
}

// putMark marks a blob store, unless another process has at the same moment, and gives its mark.
func putMark(ctx context.Context, bucket *blob.Bucket) (uuid.UUID, error) {
	mark := uuid.New()
	err := bucket.WriteAll(ctx, markKey, []byte(mark.String()), &blob.WriterOptions{IfNotExist: true, ContentType: "text/plain"})
	switch {
	case err == nil:
		return mark, nil
	case gcerrors.Code(err) == gcerrors.FailedPrecondition:
		return readMark(ctx, bucket)
	}
	return uuid.Nil, fmt.Errorf("cannot be written to: %w", err)
}
