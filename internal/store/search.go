package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/message"
)

// Filter picks messages. Zero fields pick all.
type Filter struct {
	Status string
	From   string
	// To is the recipient in any spelling.
	To        string
	Reference string
	Tags      map[string]string
	WAMID     string
	// PhoneNumberIDs are the ones the asker may see; empty means all.
	PhoneNumberIDs []string
	CreatedAfter   time.Time
	CreatedBefore  time.Time
	// Before is where the page before ended; the answer goes on with older ones.
	Before uuid.UUID
	// Limit is 1 or more.
	Limit int
}

const (
	// searchAtOnce bounds the messages that a page looks at, whatever it finds: a page has its time, and the next one goes on.
	searchAtOnce = 10_000
	// searchScattered is the same for messages that lie apart.
	searchScattered = 4_000
	// searchPhones is how many phone numbers are looked up one by one; with more, the messages of all are walked.
	searchPhones = 20
	// searchSpellings bounds the spellings of a recipient.
	searchSpellings = `20`
)

// searchIndexes remembers that the indexes of the search are complete; they stay so.
type searchIndexes struct {
	complete atomic.Bool
	// looked is when that was asked last, in Unix seconds.
	looked atomic.Int64
}

// query is a Filter as the statements take it.
type query struct {
	status, reference string
	phones            []string
	keys              []string // of the recipient; nil: any
	tags              *string
	lo, hi            uuid.UUID // [lo, hi)
	limit             int
	examine           int
}

// ListMessages reads the newest messages that a filter picks, newest first. It goes by the index of what the filter says that
// is likely to pick least (wamid, reference, recipient, failed or unknown, tags, phone number), and looks at 10,000 messages
// at most: next is where to go on from, uuid.Nil at the end. So a page may hold fewer than the limit, or none, and still have
// a next one.
func (s *Store) ListMessages(ctx context.Context, f Filter) (page []Message, next uuid.UUID, err error) {
	return s.listMessages(ctx, f, searchAtOnce)
}

func (s *Store) listMessages(ctx context.Context, f Filter, examine int) (page []Message, next uuid.UUID, err error) {
	q, some, err := s.newQuery(f, examine)
	if err != nil || !some {
		return []Message{}, uuid.Nil, err
	}
	if err := s.lookForIndexes(ctx); err != nil {
		return nil, uuid.Nil, err
	}
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		if f.To != "" {
			if q.keys, err = recipientKeys(ctx, tx, f.To, s.indexed.complete.Load()); err != nil {
				return err
			}
		}
		ids, err := s.find(ctx, tx, f, q, &next)
		if err != nil || len(ids) == 0 {
			page = []Message{}
			return err
		}
		lo, hi := bounds(ids)
		rows, err := tx.Query(ctx, `SELECT `+messageColumns+` FROM messages m `+heldJoin+`
			WHERE m.id = ANY($1::uuid[]) AND m.id BETWEEN $2::uuid AND $3::uuid ORDER BY m.id DESC`, ids, lo, hi)
		if err != nil {
			return err
		}
		page, err = pgx.CollectRows(rows, scanMessage)
		return err
	})
	if err != nil {
		return nil, uuid.Nil, fmt.Errorf("searching messages: %w", err)
	}
	return page, next, nil
}

// newQuery turns a filter into a query; false says that it can pick nothing.
func (s *Store) newQuery(f Filter, examine int) (query, bool, error) {
	q := query{status: f.Status, reference: f.Reference, phones: notNil(f.PhoneNumberIDs), limit: f.Limit, examine: examine}
	if f.From != "" {
		if len(q.phones) > 0 && !slices.Contains(q.phones, f.From) {
			return q, false, nil
		}
		q.phones = []string{f.From}
	}
	if len(f.Tags) > 0 {
		raw, err := json.Marshal(f.Tags)
		if err != nil {
			return q, false, fmt.Errorf("encoding the tags of a filter: %w", err)
		}
		t := string(raw)
		q.tags = &t
	}
	q.hi = uuid.Max
	if !f.CreatedAfter.IsZero() {
		q.lo = floorID(f.CreatedAfter)
	}
	if !f.CreatedBefore.IsZero() {
		q.hi = floorID(f.CreatedBefore)
	}
	if f.Before != uuid.Nil && less(f.Before, q.hi) {
		q.hi = f.Before
	}
	return q, less(q.lo, q.hi), nil
}

// find gives the ids of a page, newest first, by the way that suits the filter.
func (s *Store) find(ctx context.Context, tx pgx.Tx, f Filter, q query, next *uuid.UUID) ([]uuid.UUID, error) {
	more := q.status != "" || q.tags != nil // than what the ways by recipient and phone number find
	switch indexed := s.indexed.complete.Load(); {
	case f.WAMID != "":
		var id uuid.UUID
		err := tx.QueryRow(ctx, `SELECT message_id FROM wamids WHERE wamid = $1::text`, f.WAMID).Scan(&id)
		if errors.Is(err, pgx.ErrNoRows) || (err == nil && (less(id, q.lo) || !less(id, q.hi))) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		q.lo, q.hi = id, follow(id)
		return walk(ctx, tx, byID, q, next)
	case indexed && q.reference != "":
		return walk(ctx, tx, byReference, q, next)
	case indexed && q.keys != nil:
		if !more && len(q.phones) == 0 {
			q.examine = q.limit + 1
		}
		return walk(ctx, tx, byRecipient, q, next)
	case indexed && q.status == string(message.Failed):
		return walk(ctx, tx, byFailure, q, next)
	case indexed && q.status == string(message.Unknown):
		return walk(ctx, tx, byUnknown, q, next)
	case indexed && q.tags != nil:
		return walkTags(ctx, tx, q, next)
	case indexed && len(q.phones) == 1 || (indexed && !more && len(q.phones) > 0 && len(q.phones) <= searchPhones):
		if !more {
			q.examine = q.limit + 1
		}
		return walk(ctx, tx, byPhone, q, next)
	}
	return walk(ctx, tx, byID, q, next)
}

// follow is the smallest id above another.
func follow(id uuid.UUID) uuid.UUID {
	for i := len(id) - 1; i >= 0; i-- {
		if id[i]++; id[i] != 0 {
			break
		}
	}
	return id
}
