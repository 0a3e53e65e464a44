package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// GraphID says whose an id of the Graph API is.
type GraphID struct {
	ID     string
	WABAID string
	// PhoneNumberID is the phone number a media is of; nil for what belongs to the whole WABA.
	PhoneNumberID *string
	// Kind is media, template, flow, upload, phone or history.
	Kind   string
	SeenAt time.Time
}

// GraphNode is what is known of an id that a caller of the Graph API names.
type GraphNode struct {
	// PhoneWABA is the WABA of the phone number with that id, "" where there is none.
	PhoneWABA string
	// WABA and App say that the id is one of ours.
	WABA, App bool
	// Seen is what graph_ids holds of it, of a WABA that is still there; nil for nothing.
	Seen *GraphID
	// ViaWABA is the WABA of the other phone number asked for, "" where there is none.
	ViaWABA string
	// Mine are WABAs that the caller may use, AppWABAs those of them whose app has that id: two at most, by id.
	Mine, AppWABAs []string
}

// GraphNode looks an id up. via is a phone number id or "". The caller may use the WABAs of phones, and all where phones
// is empty.
func (s *Store) GraphNode(ctx context.Context, id, via string, phones []string) (GraphNode, error) {
	if phones == nil {
		phones = []string{}
	}
	var n GraphNode
	var seen struct {
		waba, phone, kind *string
		at                *time.Time
	}
	err := s.pool.QueryRow(ctx, `
		SELECT coalesce((SELECT p.waba_id FROM phone_numbers p WHERE p.phone_number_id = $1::text), ''),
			EXISTS (SELECT FROM wabas w WHERE w.waba_id = $1::text),
			EXISTS (SELECT FROM apps a WHERE a.app_id = $1::text),
			coalesce((SELECT p.waba_id FROM phone_numbers p WHERE p.phone_number_id = $2::text), ''),
			ARRAY(SELECT w.waba_id FROM wabas w WHERE cardinality($3::text[]) = 0 ORDER BY w.waba_id LIMIT 2)
				|| ARRAY(SELECT DISTINCT p.waba_id FROM phone_numbers p WHERE p.phone_number_id = ANY($3::text[]) ORDER BY p.waba_id LIMIT 2),
			ARRAY(SELECT w.waba_id FROM wabas w WHERE w.app_id = $1::text AND (cardinality($3::text[]) = 0
				OR EXISTS (SELECT FROM phone_numbers p WHERE p.waba_id = w.waba_id AND p.phone_number_id = ANY($3::text[])))
				ORDER BY w.waba_id LIMIT 2),
			g.waba_id, g.phone_number_id, g.kind, g.seen_at
		FROM (SELECT) AS one LEFT JOIN (graph_ids g JOIN wabas w ON w.waba_id = g.waba_id) ON g.id = $1::text`, id, via, phones).
		Scan(&n.PhoneWABA, &n.WABA, &n.App, &n.ViaWABA, &n.Mine, &n.AppWABAs, &seen.waba, &seen.phone, &seen.kind, &seen.at)
	if err != nil {
		return GraphNode{}, fmt.Errorf("looking an id of the Graph API up: %w", err)
	}
	if seen.waba != nil {
		n.Seen = &GraphID{ID: id, WABAID: *seen.waba, PhoneNumberID: seen.phone, Kind: *seen.kind, SeenAt: *seen.at}
	}
	return n, nil
}

// ErrGraphIDHeld is for ids that are remembered as another's.
var ErrGraphIDHeld = errors.New("held as another's")

// SeeGraphIDs remembers ids; SeenAt is now, to the day. An id that is remembered of another WABA, phone number or kind stays
// what it is, and ErrGraphIDHeld says so once the others are remembered: an answer may be what its caller made it. Two may
// move: a phone number, which its list alone shows, and what is of a WABA that is no longer here.
func (s *Store) SeeGraphIDs(ctx context.Context, ids []GraphID) error {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b GraphID) int { return strings.Compare(a.ID, b.ID) })
	ids = slices.CompactFunc(ids, func(a, b GraphID) bool { return a.ID == b.ID }) // no id twice
	if len(ids) == 0 {
		return nil
	}
	var names, wabas, kinds []string
	var phones []*string
	for _, g := range ids {
		names, wabas, phones, kinds = append(names, g.ID), append(wabas, g.WABAID), append(phones, g.PhoneNumberID), append(kinds, g.Kind)
	}
	var held int
	// What is known already is left out before anything is written: a conflict locks its row even where it changes nothing.
	// Both conditions are the same; the second meets what others have written since. One order of locks.
	err := s.pool.QueryRow(ctx, `
		WITH u AS (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS u(id, waba, phone, kind)),
		put AS (
			INSERT INTO graph_ids AS g (id, waba_id, phone_number_id, kind)
			SELECT u.* FROM u LEFT JOIN graph_ids k ON k.id = u.id
			WHERE k.id IS NULL OR NOT EXISTS (SELECT FROM wabas w WHERE w.waba_id = k.waba_id)
				OR k.kind = 'phone' AND u.kind = 'phone' AND k.waba_id <> u.waba
				OR k.waba_id = u.waba AND k.phone_number_id IS NOT DISTINCT FROM u.phone AND k.kind = u.kind AND k.seen_at < clock_timestamp() - interval '1 day'
			ORDER BY u.id
			ON CONFLICT (id) DO UPDATE SET waba_id = excluded.waba_id, phone_number_id = excluded.phone_number_id, kind = excluded.kind, seen_at = excluded.seen_at
			WHERE NOT EXISTS (SELECT FROM wabas w WHERE w.waba_id = g.waba_id)
				OR g.kind = 'phone' AND excluded.kind = 'phone' AND g.waba_id <> excluded.waba_id
				OR g.waba_id = excluded.waba_id AND g.phone_number_id IS NOT DISTINCT FROM excluded.phone_number_id AND g.kind = excluded.kind
					AND g.seen_at < excluded.seen_at - interval '1 day'
		)
		SELECT count(*) FROM u JOIN graph_ids k ON k.id = u.id JOIN wabas w ON w.waba_id = k.waba_id
		WHERE k.kind <> u.kind OR k.kind <> 'phone' AND (k.waba_id <> u.waba OR k.phone_number_id IS DISTINCT FROM u.phone)`,
		names, wabas, phones, kinds).Scan(&held)
	if err != nil {
		return fmt.Errorf("remembering %d ids of the Graph API: %w", len(ids), err)
	}
	if held > 0 {
		return fmt.Errorf("remembering ids of the Graph API, %d of %d: %w", held, len(ids), ErrGraphIDHeld)
	}
	return nil
}

// SeeInboundMedia remembers media that users sent, by media id the phone number id that got it. Meta has signed that: it goes
// before what an answer has shown. Media of phone numbers that are not set up are left out.
func (s *Store) SeeInboundMedia(ctx context.Context, tx pgx.Tx, media map[string]string) error {
	if len(media) == 0 {
		return nil
	}
	var ids, phones []string
	for id, phone := range media {
		ids, phones = append(ids, id), append(phones, phone)
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO graph_ids AS g (id, waba_id, phone_number_id, kind)
		SELECT u.id, p.waba_id, p.phone_number_id, 'media'
		FROM unnest($1::text[], $2::text[]) AS u(id, phone) JOIN phone_numbers p ON p.phone_number_id = u.phone
		WHERE NOT EXISTS (SELECT FROM graph_ids k WHERE k.id = u.id AND k.waba_id = p.waba_id AND k.phone_number_id = p.phone_number_id AND k.kind = 'media')
		ORDER BY u.id
		ON CONFLICT (id) DO UPDATE SET waba_id = excluded.waba_id, phone_number_id = excluded.phone_number_id, kind = excluded.kind, seen_at = excluded.seen_at`, ids, phones)
	if err != nil {
		return fmt.Errorf("remembering %d inbound media: %w", len(media), err)
	}
	return nil
}

// ForgetGraphIDs removes up to limit ids that were not seen for longer than keep and returns how many.
func (s *Store) ForgetGraphIDs(ctx context.Context, keep time.Duration, limit int) (int64, error) {
	tag, err := s.pool.Exec(ctx, `
		DELETE FROM graph_ids g USING (
			SELECT id FROM graph_ids WHERE seen_at < clock_timestamp() - make_interval(secs => $1::double precision)
			ORDER BY seen_at LIMIT $2::integer
		) old WHERE g.id = old.id AND g.seen_at < clock_timestamp() - make_interval(secs => $1::double precision)`, keep.Seconds(), limit)
	if err != nil {
		return 0, fmt.Errorf("forgetting old ids of the Graph API: %w", err)
	}
	return tag.RowsAffected(), nil
}
