package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"gocloud.dev/blob"
)

const (
	// sweepEvery is how often it is swept, by one gateway; orphansEvery how often files without a media are looked for.
	sweepEvery   = time.Hour
	orphansEvery = 24 * time.Hour
	// orphanAge is how old a file without a media must be to be removed: one that is being handed in has none yet.
	orphanAge = 24 * time.Hour
	// sweepTime bounds one sweep; what is left is for the next.
	sweepTime = 30 * time.Minute
	// dropAtOnce and notesAtOnce bound what one statement looks at.
	dropAtOnce  = 100
	notesAtOnce = 5000
	pageSize    = 1000
)

// Run removes media that were not used for long, notes of messages that have ended, and files without a media, until ctx ends,
// whose error it gives.
func (l *Library) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		if err := l.sweep(ctx); err != nil && ctx.Err() == nil {
			l.log.WarnContext(ctx, "sweeping media failed, will be tried again in an hour", "err", err)
		}
		timer.Reset(sweepEvery)
	}
}

func (l *Library) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	if mine, err := l.store.ClaimChore(ctx, "media", sweepEvery*5/6); err != nil || !mine {
		return err
	}
	if err := l.sweepNotes(ctx); err != nil {
		return err
	}
	if err := l.dropUnused(ctx); err != nil {
		return err
	}
	if mine, err := l.store.ClaimChore(ctx, "media_orphans", orphansEvery*5/6); err != nil || !mine {
		return err
	}
	return l.dropOrphans(ctx)
}

func (l *Library) sweepNotes(ctx context.Context) error {
	for after := uuid.Nil; ; {
		next, err := l.store.SweepMediaUses(ctx, after, notesAtOnce)
		if err != nil || next == uuid.Nil {
			return err
		}
		after = next
	}
}

func (l *Library) dropUnused(ctx context.Context) error {
	for l.keep > 0 {
		blobs, err := l.store.DropUnusedMedia(ctx, l.keep, dropAtOnce)
		if err != nil {
			return err
		}
		l.remove(ctx, blobs...)
		if len(blobs) > 0 {
			l.log.InfoContext(ctx, "media that were not used for long were removed", "media", len(blobs), "keep", l.keep)
		}
		if len(blobs) < dropAtOnce {
			return nil
		}
	}
	return nil
}

// dropOrphans removes files that belong to no media: of uploads that were cut off, or that could not be removed with theirs.
func (l *Library) dropOrphans(ctx context.Context) error {
	files := l.bucket.List(&blob.ListOptions{Prefix: blobPrefix})
	before := l.now().Add(-orphanAge)
	var old []string
	for {
		f, err := files.Next(ctx)
		end := errors.Is(err, io.EOF)
		if err != nil && !end {
			return fmt.Errorf("listing the files of media: %w", err)
		}
		if !end && !f.IsDir && f.ModTime.Before(before) {
			old = append(old, f.Key)
		}
		if end || len(old) == pageSize {
			known, err := l.store.KnownBlobs(ctx, old)
			if err != nil {
				return err
			}
			for _, key := range old {
				if !known[key] {
					l.remove(ctx, key)
				}
			}
			old = old[:0]
		}
		if end {
			return nil
		}
	}
}
