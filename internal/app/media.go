package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"wagate/internal/config"
	"wagate/internal/media"
	"wagate/internal/sender"
	"wagate/internal/store"
)

// openLibrary opens the store of media for a gateway; without WAGATE_MEDIA there is none, and nil. done closes it.
func openLibrary(ctx context.Context, cfg config.Config, st *store.Store, logger *slog.Logger) (l *media.Library, done func() error, err error) {
	if cfg.Media == "" {
		return nil, func() error { return nil }, nil
	}
	bucket, err := media.Open(ctx, cfg.Media)
	if err == nil {
		if err = media.Attach(ctx, st, bucket, true); err != nil {
			err = errors.Join(err, bucket.Close())
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("WAGATE_MEDIA: %w", err)
	}
	return media.New(st, bucket, cfg.MediaKeep, logger), bucket.Close, nil
}

// openUploader opens the store of media for a worker, as openLibrary does.
func openUploader(ctx context.Context, cfg config.Config, st *store.Store, graph *sender.Sender, logger *slog.Logger) (u *media.Uploader, done func() error, err error) {
	if cfg.Media == "" {
		return nil, func() error { return nil }, nil
	}
	bucket, err := media.Open(ctx, cfg.Media)
	if err == nil {
		if err = media.Attach(ctx, st, bucket, false); err != nil {
			err = errors.Join(err, bucket.Close())
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("WAGATE_MEDIA: %w", err)
	}
	return media.NewUploader(st, bucket, graph, logger), bucket.Close, nil
}
