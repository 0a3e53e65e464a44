package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrMediaGone is returned, wrapped, for a message that names a media that is not there.
var ErrMediaGone = errors.New("a media that the message names is not there")

// Media is a file that messages name by its id.
type Media struct {
	ID uuid.UUID
	// Owner is the name of the API key it belongs to.
	Owner    string
	KeyID    uuid.UUID // nil without one
	SHA256   []byte
	MIMEType string
	Size     int64 // bytes
	Filename string
	// Blob is the key of its file in the blob store.
	Blob      string
	CreatedAt time.Time
	UsedAt    time.Time
}

const mediaColumns = `id, owner, coalesce(key_id, '00000000-0000-0000-0000-000000000000'::uuid), sha256, mime_type, size, filename, blob, created_at, used_at`

func scanMedia(r pgx.CollectableRow) (m Media, err error) {
	return m, r.Scan(&m.ID, &m.Owner, &m.KeyID, &m.SHA256, &m.MIMEType, &m.Size, &m.Filename, &m.Blob, &m.CreatedAt, &m.UsedAt)
}

// PutMedia keeps a media and gives it as it is kept: the owner's earlier one where that has the same content and type.
func (s *Store) PutMedia(ctx context.Context, m Media) (Media, error) {
	var keyID *uuid.UUID
	if m.KeyID != uuid.Nil {
		keyID = &m.KeyID
	}
	rows, err := collect(ctx, s.pool, "a media", scanMedia, `
		INSERT INTO media AS m (id, owner, key_id, sha256, mime_type, size, filename, blob)
		VALUES ($1::uuid, $2::text, $3::uuid, $4::bytea, $5::text, $6::bigint, $7::text, $8::text)
		ON CONFLICT (owner, sha256, mime_type) DO UPDATE SET used_at = clock_timestamp()
		RETURNING `+mediaColumns, m.ID, m.Owner, keyID, m.SHA256, m.MIMEType, m.Size, m.Filename, m.Blob)
	return one(rows, err, "media", m.ID.String())
}

// ReplaceMediaBlob gives a media another file of the same content; false when it has another one than from, or is gone.
func (s *Store) ReplaceMediaBlob(ctx context.Context, id uuid.UUID, from, to string) (bool, error) {
	tag, err := s.pool.Exec(ctx, `UPDATE media SET blob = $3::text WHERE id = $1::uuid AND blob = $2::text`, id, from, to)
	if err != nil {
		return false, fmt.Errorf("replacing the file of media %s: %w", id, err)
	}
	return tag.RowsAffected() == 1, nil
}

// GetMedia reads a media, or gives ErrNotFound.
func (s *Store) GetMedia(ctx context.Context, id uuid.UUID) (Media, error) {
	rows, err := collect(ctx, s.pool, "a media", scanMedia, `SELECT `+mediaColumns+` FROM media WHERE id = $1::uuid`, id)
	return one(rows, err, "media", id.String())
}

// OwnMediaTypes gives the MIME types of those of the media that an owner has.
func (s *Store) OwnMediaTypes(ctx context.Context, owner string, ids []uuid.UUID) (map[uuid.UUID]string, error) {
	rows, err := s.pool.Query(ctx, `SELECT id, mime_type FROM media WHERE id = ANY($1::uuid[]) AND owner = $2::text`, ids, owner)
	if err != nil {
		return nil, fmt.Errorf("looking %d media up: %w", len(ids), err)
	}
	types := make(map[uuid.UUID]string, len(ids))
	var id uuid.UUID
	var kind string
	if _, err := pgx.ForEachRow(rows, []any{&id, &kind}, func() error { types[id] = kind; return nil }); err != nil {
		return nil, fmt.Errorf("looking %d media up: %w", len(ids), err)
	}
	return types, nil
}

// maxMediaUses bounds the count of what waits for a media, usesAtOnce what of its notes one statement looks at.
const (
	maxMediaUses = 100_000
	usesAtOnce   = 5000
)

// usesSlack is by how much the id of a message, whose time is that of its request by another clock, may lie before its commit.
const usesSlack = 10 * time.Minute

// DeleteMedia removes a media and gives the key of its file, which is the caller's to remove. While messages that name it wait,
// are being sent or are unknown, nothing is removed, and waiting is how many they are, up to 100,000. Other errors: ErrNotFound.
func (s *Store) DeleteMedia(ctx context.Context, id uuid.UUID) (blob string, waiting int, err error) {
	// The media may have been sent a million times: that is looked through, and its notes removed, without the lock, for which
	// everybody waits whose message names it. Under it only the messages of the last minutes are left.
	since := floorID(time.Now().Add(-usesSlack))
	if waiting, err = s.waitingFor(ctx, s.pool, id, uuid.Nil); err == nil && waiting == 0 {
		err = s.forgetUses(ctx, id, since)
	}
	if err != nil || waiting > 0 {
		return "", waiting, err
	}
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		// The lock first: whoever accepts a message that names it holds a share of its row, and the count then sees that message.
		err := tx.QueryRow(ctx, `SELECT blob FROM media WHERE id = $1::uuid FOR UPDATE`, id).Scan(&blob)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		if waiting, err = s.waitingFor(ctx, tx, id, since); err != nil || waiting > 0 {
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM media WHERE id = $1::uuid`, id)
		return err
	})
	if err != nil {
		return "", 0, fmt.Errorf("deleting media %s: %w", id, err)
	}
	return blob, waiting, nil
}

// waitingFor counts the messages after one, by id, that name a media and wait, up to 100,000.
func (s *Store) waitingFor(ctx context.Context, q interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, id, after uuid.UUID) (waiting int, err error) {
	for waiting < maxMediaUses {
		var last *uuid.UUID
		var seen, found int
		// One by one: otherwise all messages there are may be read for the few that wait.
		err = q.QueryRow(ctx, `
			WITH part AS MATERIALIZED (
				SELECT u.message_id FROM media_uses u WHERE u.media_id = $1::uuid AND u.message_id > $2::uuid ORDER BY u.message_id LIMIT $3::integer
			)
			SELECT (SELECT p.message_id FROM part p ORDER BY p.message_id DESC LIMIT 1), count(*)::integer, count(w.waits)::integer
			FROM part p LEFT JOIN LATERAL (
				SELECT true AS waits FROM messages m WHERE m.id = p.message_id AND m.status IN ('queued', 'sending', 'unknown') OFFSET 0
			) w ON true`, id, after, usesAtOnce).Scan(&last, &seen, &found)
		if err != nil {
			return 0, fmt.Errorf("counting what waits for media %s: %w", id, err)
		}
		if waiting += found; seen < usesAtOnce {
			break
		}
		after = *last
	}
	return min(waiting, maxMediaUses), nil
}

// forgetUses removes the notes of a media that belong to messages before one, by id.
func (s *Store) forgetUses(ctx context.Context, id, before uuid.UUID) error {
	for {
		tag, err := s.pool.Exec(ctx, `
			DELETE FROM media_uses u USING (
				SELECT p.message_id FROM media_uses p WHERE p.media_id = $1::uuid AND p.message_id < $2::uuid ORDER BY p.message_id LIMIT $3::integer
			) p WHERE u.media_id = $1::uuid AND u.message_id = p.message_id`, id, before, usesAtOnce)
		if err != nil {
			return fmt.Errorf("forgetting what has named media %s: %w", id, err)
		}
		if tag.RowsAffected() < usesAtOnce {
			return nil
		}
	}
}

// DropUnusedMedia removes up to limit media that nobody has used for longer than keep, at least two hours, and that no message
// waits for. It gives the keys of their files, which are the caller's to remove.
func (s *Store) DropUnusedMedia(ctx context.Context, keep time.Duration, limit int) (blobs []string, err error) {
	// A message that is accepted at this moment has touched used_at, which is looked at again under the lock. Its uses are looked at
	// one by one: otherwise all messages there are may be read for the few that wait.
	return collect(ctx, s.pool, "unused media", pgx.RowTo[string], `
		WITH old AS MATERIALIZED (
			SELECT m.id FROM media m
			WHERE m.used_at < clock_timestamp() - make_interval(secs => $1::double precision) AND NOT EXISTS (
				SELECT FROM media_uses u CROSS JOIN LATERAL (
					SELECT FROM messages x WHERE x.id = u.message_id AND x.status IN ('queued', 'sending', 'unknown') OFFSET 0
				) w WHERE u.media_id = m.id OFFSET 0)
			ORDER BY m.used_at LIMIT $2::integer FOR UPDATE OF m SKIP LOCKED
		)
		DELETE FROM media m USING old WHERE m.id = old.id RETURNING m.blob`, keep.Seconds(), limit)
}

// KnownBlobs says which keys of files belong to media.
func (s *Store) KnownBlobs(ctx context.Context, keys []string) (map[string]bool, error) {
	known, err := collect(ctx, s.pool, "files of media", pgx.RowTo[string], `SELECT blob FROM media WHERE blob = ANY($1::text[])`, keys)
	if err != nil {
		return nil, err
	}
	set := make(map[string]bool, len(known))
	for _, k := range known {
		set[k] = true
	}
	return set, nil
}

// MarkMediaStore gives the mark of the blob store, which becomes mark where there was none.
func (s *Store) MarkMediaStore(ctx context.Context, mark uuid.UUID) (uuid.UUID, error) {
	rows, err := collect(ctx, s.pool, "the mark of the media store", pgx.RowTo[uuid.UUID], `
		INSERT INTO media_store AS s (id) VALUES ($1::uuid) ON CONFLICT (one) DO UPDATE SET id = s.id RETURNING id`, mark)
	return one(rows, err, "the mark of the media", "store")
}

// MediaStoreMark gives the mark of the blob store; ErrNotFound when it has none yet.
func (s *Store) MediaStoreMark(ctx context.Context) (uuid.UUID, error) {
	rows, err := collect(ctx, s.pool, "the mark of the media store", pgx.RowTo[uuid.UUID], `SELECT id FROM media_store`)
	return one(rows, err, "the mark of the media", "store")
}

// mediaGone turns a foreign key violation of media_uses or media_uploads into ErrMediaGone.
func mediaGone(err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "23503" {
		return ErrMediaGone
	}
	return err
}

// UseMedia notes which media messages name, in the transaction that stores them: media by message. ErrMediaGone, wrapped, when
// one is not there; the transaction is then of no more use.
func (s *Store) UseMedia(ctx context.Context, tx pgx.Tx, uses map[uuid.UUID][]uuid.UUID) error {
	var messages, media []uuid.UUID
	for id, all := range uses {
		for _, m := range all {
			messages, media = append(messages, id), append(media, m)
		}
	}
	if len(media) == 0 {
		return nil
	}
	// Touched once an hour, and by one of those that would at the same moment.
	b := &pgx.Batch{}
	b.Queue(`
		WITH stale AS MATERIALIZED (
			SELECT id FROM media WHERE id = ANY($1::uuid[]) AND used_at < clock_timestamp() - interval '1 hour'
			ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
		)
		UPDATE media m SET used_at = clock_timestamp() FROM stale WHERE m.id = stale.id`, media)
	b.Queue(`
		INSERT INTO media_uses (message_id, media_id)
		SELECT DISTINCT u.message, u.media FROM unnest($1::uuid[], $2::uuid[]) AS u(message, media) ORDER BY u.media, u.message
		ON CONFLICT DO NOTHING`, messages, media)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("noting the media of %d messages: %w", len(uses), mediaGone(err))
	}
	return nil
}

// MessageBody reads the content of a message within a transaction.
func (s *Store) MessageBody(ctx context.Context, tx pgx.Tx, id uuid.UUID) (body []byte, err error) {
	err = tx.QueryRow(ctx, `SELECT m.body FROM messages m WHERE m.id = $1::uuid`, id).Scan(&body)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("reading the content of message %s: %w", id, err)
	}
	return body, nil
}

// SweepMediaUses removes the notes of messages that have ended, looking at up to limit of them from after on, in the order of
// their ids. Of a message that is accepted or sent it stays for eight days, as Meta may fail it by webhook for seven. next is
// the nil id when all were looked at.
func (s *Store) SweepMediaUses(ctx context.Context, after uuid.UUID, limit int) (next uuid.UUID, err error) {
	var last *uuid.UUID
	var seen int
	err = s.pool.QueryRow(ctx, `
		WITH part AS MATERIALIZED (SELECT u.message_id FROM media_uses u WHERE u.message_id > $1::uuid ORDER BY u.message_id LIMIT $2::integer)
		SELECT (SELECT p.message_id FROM part p ORDER BY p.message_id DESC LIMIT 1), count(*)::integer FROM part`, after, limit).Scan(&last, &seen)
	if err == nil && last != nil {
		// By their range, so that no more is read of either table.
		_, err = s.pool.Exec(ctx, `
			DELETE FROM media_uses u WHERE u.message_id > $1::uuid AND u.message_id <= $2::uuid AND NOT EXISTS (
				SELECT FROM messages m WHERE m.id = u.message_id AND m.id > $1::uuid AND m.id <= $2::uuid
				AND (m.status IN ('queued', 'sending', 'unknown')
					OR (m.status IN ('accepted', 'sent') AND coalesce(m.accepted_at, m.sent_at, m.created_at) >= clock_timestamp() - interval '8 days')))`, after, *last)
	}
	if err != nil {
		return uuid.Nil, fmt.Errorf("sweeping the notes of media: %w", err)
	}
	if last != nil && seen >= limit {
		return *last, nil
	}
	return uuid.Nil, nil
}
