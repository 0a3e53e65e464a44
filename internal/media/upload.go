package media

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"gocloud.dev/blob"

	"wagate/internal/content"
	"wagate/internal/sender"
	"wagate/internal/store"
)

// Uploader puts media up at the Cloud API. It is safe for concurrent use.
type Uploader struct {
	store  *store.Store
	bucket *blob.Bucket
	graph  *sender.Sender
	log    *slog.Logger
	// opening bounds how long a file may take to be opened.
	opening time.Duration
}

// NewUploader makes an Uploader over a bucket that stays the caller's.
func NewUploader(s *store.Store, bucket *blob.Bucket, graph *sender.Sender, logger *slog.Logger) *Uploader {
	return &Uploader{store: s, bucket: bucket, graph: graph, log: logger, opening: storeTime}
}

// Upload puts a media up at a phone number of a WABA, in one attempt that takes one of its management calls, and remembers the
// id that Meta gave. Errors, wrapped: store.ErrMediaGone when there is no such media or its file is gone, *store.SpentError,
// *sender.UploadError; others are of the database or the blob store.
func (u *Uploader) Upload(ctx context.Context, wabaID string, at store.MediaAt, token string) error {
	look, cancel := context.WithTimeout(ctx, storeTime)
	m, err := u.store.GetMedia(look, at.ID)
	cancel()
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("media %s: %w", at.ID, store.ErrMediaGone)
	}
	if err != nil {
		return err
	}
	// What reads the file lives as long as the upload may take. A blob store that does not answer would else keep its place for ever.
	ctx, cancel = context.WithTimeout(ctx, u.opening+storeTime+sender.UploadTime(m.Size))
	defer cancel()
	late := time.AfterFunc(u.opening, cancel)
	file, err := open(ctx, u.bucket, m)
	late.Stop()
	if errors.Is(err, ErrFileGone) {
		return fmt.Errorf("%w: %w", store.ErrMediaGone, err)
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // only read
	if err := u.spend(ctx, wabaID); err != nil {
		return err
	}
	name := m.Filename
	if name == "" {
		t, _ := content.MediaTypeOf(m.MIMEType)
		name = m.ID.String() + t.Ext
	}
	start := time.Now()
	id, err := u.graph.Upload(ctx, sender.MediaFile{
		PhoneNumberID: at.PhoneNumberID, WABAID: wabaID, Token: token, Name: name, MIMEType: m.MIMEType, Size: m.Size, From: file,
	})
	if err != nil {
		return fmt.Errorf("uploading media %s at phone number %s: %w", at.ID, at.PhoneNumberID, err)
	}
	u.log.InfoContext(ctx, "media uploaded", "media", at.ID, "phone_number_id", at.PhoneNumberID, "bytes", m.Size, "took", time.Since(start))
	return u.remember(ctx, wabaID, at, id)
}

func (u *Uploader) spend(ctx context.Context, wabaID string) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	ok, again, err := u.store.TakeManagementCall(ctx, wabaID)
	if err == nil && !ok {
		err = &store.SpentError{Until: again}
	}
	return err
}

// remember keeps the id, also when the process is about to stop: the next owner need not upload it again.
func (u *Uploader) remember(ctx context.Context, wabaID string, at store.MediaAt, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
	defer cancel()
	if err := u.store.KeepMediaUpload(ctx, at, id); err != nil {
		return err
	}
	// So that calls of the Cloud API ingress that name Meta's id go to the right WABA.
	err := u.store.SeeGraphIDs(ctx, []store.GraphID{{ID: id, WABAID: wabaID, PhoneNumberID: &at.PhoneNumberID, Kind: "media"}})
	if err != nil {
		u.log.WarnContext(ctx, "the id of an uploaded media was not noted for the Cloud API ingress", "media", at.ID, "err", err)
	}
	return nil
}
