package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// MediaUse is how long an id that Meta gave an uploaded media is used. Source: Meta's page on media; it keeps them for 30 days.
const MediaUse = 29 * 24 * time.Hour

// MediaAt is a media at a phone number.
type MediaAt struct {
	ID            uuid.UUID
	PhoneNumberID string
}

// MediaUpload is a media that Meta has.
type MediaUpload struct {
	PhoneNumberID string
	MetaID        string
	UploadedAt    time.Time
	// ValidUntil is up to when the id is used; not after now when Meta could not use it.
	ValidUntil time.Time
}

// inUse says of an upload u whether its id is used.
const inUse = `(u.uploaded_at > clock_timestamp() - make_interval(secs => $1::double precision) AND (u.refused_at IS NULL OR u.refused_at < u.uploaded_at))`

// MetaIDs gives the ids under which Meta has media at phone numbers. What it does not have, or not for long enough, is not in
// the map.
func (s *Store) MetaIDs(ctx context.Context, at []MediaAt) (map[MediaAt]string, error) {
	ids, phones := make([]uuid.UUID, len(at)), make([]string, len(at))
	for i, a := range at {
		ids[i], phones[i] = a.ID, a.PhoneNumberID
	}
	rows, err := s.pool.Query(ctx, `
		SELECT u.media_id, u.phone_number_id, u.meta_id
		FROM unnest($2::uuid[], $3::text[]) AS w(media, phone)
		JOIN media_uploads u ON u.media_id = w.media AND u.phone_number_id = w.phone WHERE `+inUse, MediaUse.Seconds(), ids, phones)
	if err != nil {
		return nil, fmt.Errorf("reading where Meta has %d media: %w", len(at), err)
	}
	found := make(map[MediaAt]string, len(at))
	var a MediaAt
	var id string
	if _, err := pgx.ForEachRow(rows, []any{&a.ID, &a.PhoneNumberID, &id}, func() error { found[a] = id; return nil }); err != nil {
		return nil, fmt.Errorf("reading where Meta has %d media: %w", len(at), err)
	}
	return found, nil
}

// MediaUploads lists where Meta has a media, by phone number, those included whose ids are used no more.
func (s *Store) MediaUploads(ctx context.Context, id uuid.UUID) ([]MediaUpload, error) {
	scan := func(r pgx.CollectableRow) (u MediaUpload, err error) {
		return u, r.Scan(&u.PhoneNumberID, &u.MetaID, &u.UploadedAt, &u.ValidUntil)
	}
	return collect(ctx, s.pool, "where Meta has a media", scan, `
		SELECT u.phone_number_id, u.meta_id, u.uploaded_at,
		       CASE WHEN u.refused_at >= u.uploaded_at THEN u.refused_at ELSE u.uploaded_at + make_interval(secs => $1::double precision) END
		FROM media_uploads u WHERE u.media_id = $2::uuid ORDER BY u.phone_number_id`, MediaUse.Seconds(), id)
}

// KeepMediaUpload notes that Meta has a media at a phone number, and under which id. ErrMediaGone when it was deleted
// meanwhile.
func (s *Store) KeepMediaUpload(ctx context.Context, at MediaAt, metaID string) error {
	_, err := s.pool.Exec(ctx, `
		INSERT INTO media_uploads (media_id, phone_number_id, meta_id, uploaded_at)
		VALUES ($1::uuid, $2::text, $3::text, clock_timestamp())
		ON CONFLICT (media_id, phone_number_id) DO UPDATE SET meta_id = excluded.meta_id, uploaded_at = excluded.uploaded_at`,
		at.ID, at.PhoneNumberID, metaID)
	if err != nil {
		return fmt.Errorf("noting where Meta has media %s: %w", at.ID, mediaGone(err))
	}
	return nil
}

// Renewal is a message whose media Meta could not use.
type Renewal struct {
	MessageID     uuid.UUID
	PhoneNumberID string
	// TriedAt is about when it was sent: an id that is younger is not to blame.
	TriedAt time.Time
}

// renewalSlack is by how much TriedAt, which may come from another clock, may lie before the upload it speaks of.
const renewalSlack = 5 * time.Second

// RenewMedia notes that messages get the one more try that a new upload of their media is worth, and returns those that do: one
// that had it before does not. The ids they were sent with are used no more. A media that Meta refuses again and again is
// uploaded once a minute at most, whatever messages ask for it.
func (s *Store) RenewMedia(ctx context.Context, tx pgx.Tx, set []Renewal) (map[uuid.UUID]bool, error) {
	ids, phones, tried := make([]uuid.UUID, len(set)), make([]string, len(set)), make([]time.Time, len(set))
	for i, r := range set {
		ids[i], phones[i], tried[i] = r.MessageID, r.PhoneNumberID, r.TriedAt
	}
	rows, err := tx.Query(ctx, `
		WITH renewed AS (
			UPDATE media_uses u SET renewed = true
			FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS w(message, phone, tried)
			WHERE u.message_id = w.message AND u.message_id = ANY($1::uuid[]) AND NOT u.renewed
			RETURNING u.message_id, u.media_id, w.phone, w.tried
		), due AS MATERIALIZED (
			SELECT p.media_id, p.phone_number_id
			FROM (SELECT r.media_id, r.phone, max(r.tried) AS tried FROM renewed r GROUP BY r.media_id, r.phone) r
			JOIN media_uploads p ON p.media_id = r.media_id AND p.phone_number_id = r.phone
			WHERE p.uploaded_at < r.tried + make_interval(secs => $4::double precision)
			  AND (p.refused_at IS NULL OR (p.refused_at < p.uploaded_at AND p.refused_at < clock_timestamp() - interval '1 minute'))
			ORDER BY p.media_id, p.phone_number_id FOR NO KEY UPDATE OF p
		), refused AS (
			UPDATE media_uploads p SET refused_at = clock_timestamp() FROM due
			WHERE p.media_id = due.media_id AND p.phone_number_id = due.phone_number_id
		)
		SELECT DISTINCT message_id FROM renewed`, ids, phones, tried, renewalSlack.Seconds())
	if err != nil {
		return nil, fmt.Errorf("renewing the media of %d messages: %w", len(set), err)
	}
	renewed, err := idSet(rows)
	if err != nil {
		return nil, fmt.Errorf("renewing the media of %d messages: %w", len(set), err)
	}
	return renewed, nil
}

// ReleaseMedia takes up to limit holds away that wait for the upload of a media at a phone number.
func (s *Store) ReleaseMedia(ctx context.Context, tx pgx.Tx, wabaID string, at MediaAt, limit int) ([]Hold, error) {
	return s.release(ctx, tx, "media holds", `
		WITH due AS MATERIALIZED (
			SELECT message_id FROM holds WHERE waba_id = $1::text AND kind = 'media' AND value = $2::text AND phone_number_id = $3::text
			ORDER BY message_id LIMIT $4::integer FOR UPDATE SKIP LOCKED
		)
		DELETE FROM holds h USING due WHERE h.message_id = due.message_id
		RETURNING `+holdColumns, wabaID, at.ID.String(), at.PhoneNumberID, limit)
}
