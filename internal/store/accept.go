package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// NewMessage is a message to be accepted. Empty strings and zero times are stored as null.
type NewMessage struct {
	ID            uuid.UUID // a UUIDv7 of CreatedAt
	PhoneNumberID string
	KeyID         uuid.UUID
	// Owner and IdempotencyKey name an earlier request; without a key there is none. RequestHash tells whether it was
	// the same request.
	Owner            string
	IdempotencyKey   string
	RequestHash      []byte
	Recipient        string
	Type             string
	Priority         int // 1 to 4
	Category         string
	OnUnknown        string
	TemplateName     string
	TemplateLanguage string
	Reference        string
	Tags             string // a JSON object
	OrderingKey      string
	// OrderingAfter is what the next of the OrderingKey waits for: accepted, delivered or nothing said. OrderingSeconds bounds
	// the wait for delivered; 0 is none given.
	OrderingAfter   string
	OrderingSeconds float64
	CallbackURL     string
	Opaque          string
	API             string // the endpoint of Meta's: marketing_messages; empty for messages
	SendWindow      string // a JSON object
	SendAt          time.Time
	ExpiresAt       time.Time
	// FallbackTemplate, FallbackLanguage and FallbackCategory are of the template that goes where the service window is closed;
	// it stands in the body, as gateway.fallback_template.
	FallbackTemplate string
	FallbackLanguage string
	FallbackCategory string
	Body             []byte
	CreatedAt        time.Time
	// Media are those that it names by our ids.
	Media []uuid.UUID
}

// Verdict is what became of a NewMessage.
type Verdict int

// The verdicts.
const (
	// Stored: the message is new and stored.
	Stored Verdict = iota + 1
	// Replayed: its idempotency key was used before, for the same request.
	Replayed
	// Conflicting: its idempotency key was used before, for another request. Nothing is stored.
	Conflicting
)

// Acceptance is the answer to one NewMessage.
type Acceptance struct {
	Verdict Verdict
	// ID and CreatedAt are those of the message stored now, or of the earlier one.
	ID        uuid.UUID
	CreatedAt time.Time
}

// ErrPhoneGone is returned, wrapped, by Accept when the phone number of one of the messages is not there.
var ErrPhoneGone = errors.New("the phone number is not there")

// Accept stores messages in the caller's transaction and gives one answer each, in order. The caller puts the jobs of
// those that are Stored into the same transaction. An idempotency key that another transaction is using at the moment
// is waited for. After an error (ErrPhoneGone, ErrMediaGone) the transaction is of no more use, and all of the messages may be
// tried again.
func (s *Store) Accept(ctx context.Context, tx pgx.Tx, messages []NewMessage) ([]Acceptance, error) {
	winners, err := claimKeys(ctx, tx, messages)
	if err != nil {
		return nil, err
	}
	answers := make([]Acceptance, len(messages))
	fresh := make([]*NewMessage, 0, len(messages))
	for i := range messages {
		m := &messages[i]
		answers[i] = Acceptance{Verdict: Stored, ID: m.ID, CreatedAt: m.CreatedAt}
		if m.IdempotencyKey != "" {
			w := winners[ownedKey{m.Owner, m.IdempotencyKey}]
			switch {
			case w.ID == m.ID:
			case w.hash == string(m.RequestHash):
				answers[i] = Acceptance{Verdict: Replayed, ID: w.ID, CreatedAt: w.createdAt}
			default:
				answers[i] = Acceptance{Verdict: Conflicting, ID: w.ID, CreatedAt: w.createdAt}
			}
		}
		if answers[i].Verdict == Stored {
			fresh = append(fresh, m)
		}
	}
	if err := insertMessages(ctx, tx, fresh); err != nil {
		return answers, err
	}
	var uses map[uuid.UUID][]uuid.UUID
	for _, m := range fresh {
		if len(m.Media) > 0 {
			if uses == nil {
				uses = map[uuid.UUID][]uuid.UUID{}
			}
			uses[m.ID] = m.Media
		}
	}
	return answers, s.UseMedia(ctx, tx, uses)
}

type ownedKey struct{ owner, key string }

// winner is the message that an idempotency key stands for.
type winner struct {
	ID        uuid.UUID
	hash      string
	createdAt time.Time
}

// claimKeys puts in the idempotency keys of the messages and tells, for each key, which message has it: the first of
// this set, or one of before.
func claimKeys(ctx context.Context, tx pgx.Tx, messages []NewMessage) (map[ownedKey]winner, error) {
	winners := map[ownedKey]winner{}
	var keys []ownedKey
	for _, m := range messages {
		k := ownedKey{m.Owner, m.IdempotencyKey}
		if _, seen := winners[k]; m.IdempotencyKey == "" || seen {
			continue
		}
		winners[k] = winner{ID: m.ID, hash: string(m.RequestHash), createdAt: m.CreatedAt}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, nil
	}
	// Two transactions that want the same keys must wait for each other in one order, else they deadlock.
	slices.SortFunc(keys, func(a, b ownedKey) int {
		if c := strings.Compare(a.owner, b.owner); c != 0 {
			return c
		}
		return strings.Compare(a.key, b.key)
	})
	owners, names := make([]string, len(keys)), make([]string, len(keys))
	hashes, ids, created := make([][]byte, len(keys)), make([]uuid.UUID, len(keys)), make([]time.Time, len(keys))
	for i, k := range keys {
		w := winners[k]
		owners[i], names[i], hashes[i], ids[i], created[i] = k.owner, k.key, []byte(w.hash), w.ID, w.createdAt
	}
	rows, err := tx.Query(ctx, `
		INSERT INTO idempotency_keys (owner, key, request_hash, message_id, created_at)
		SELECT u.owner, u.key, u.hash, u.id, u.created_at
		FROM unnest($1::text[], $2::text[], $3::bytea[], $4::uuid[], $5::timestamptz[]) WITH ORDINALITY AS u(owner, key, hash, id, created_at, n)
		ORDER BY u.n
		ON CONFLICT (owner, key) DO NOTHING
		RETURNING owner, key`, owners, names, hashes, ids, created)
	if err != nil {
		return nil, fmt.Errorf("claiming %d idempotency keys: %w", len(keys), err)
	}
	claimed := make(map[ownedKey]bool, len(keys))
	var k ownedKey
	if _, err := pgx.ForEachRow(rows, []any{&k.owner, &k.key}, func() error { claimed[k] = true; return nil }); err != nil {
		return nil, fmt.Errorf("claiming %d idempotency keys: %w", len(keys), err)
	}
	if len(claimed) == len(keys) {
		return winners, nil
	}
	return winners, readKeys(ctx, tx, keys, claimed, winners)
}

// readKeys fills in the winners of the keys that were there before.
func readKeys(ctx context.Context, tx pgx.Tx, keys []ownedKey, claimed map[ownedKey]bool, winners map[ownedKey]winner) error {
	var owners, names []string
	for _, k := range keys {
		if !claimed[k] {
			owners, names = append(owners, k.owner), append(names, k.key)
		}
	}
	rows, err := tx.Query(ctx, `
		SELECT i.owner, i.key, i.request_hash, i.message_id, i.created_at
		FROM unnest($1::text[], $2::text[]) AS u(owner, key) JOIN idempotency_keys i ON i.owner = u.owner AND i.key = u.key`, owners, names)
	if err != nil {
		return fmt.Errorf("reading %d idempotency keys: %w", len(names), err)
	}
	n := 0
	var k ownedKey
	var hash []byte
	var w winner
	_, err = pgx.ForEachRow(rows, []any{&k.owner, &k.key, &hash, &w.ID, &w.createdAt}, func() error {
		n++
		w.hash = string(hash)
		winners[k] = w
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading %d idempotency keys: %w", len(names), err)
	}
	if n < len(names) {
		return errors.New("an idempotency key was dropped while it was looked at")
	}
	return nil
}

// Accepted gives the answer that an idempotency key has had, Replayed or Conflicting; ErrNotFound when it has had none.
func (s *Store) Accepted(ctx context.Context, owner, key string, requestHash []byte) (Acceptance, error) {
	a := Acceptance{Verdict: Conflicting}
	var hash []byte
	err := s.pool.QueryRow(ctx, `SELECT request_hash, message_id, created_at FROM idempotency_keys WHERE owner = $1::text AND key = $2::text`,
		owner, key).Scan(&hash, &a.ID, &a.CreatedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return Acceptance{}, fmt.Errorf("reading an idempotency key: %w", err)
	}
	if bytes.Equal(hash, requestHash) {
		a.Verdict = Replayed
	}
	return a, nil
}

// insertMessages stores the rows in one statement. The WABA comes from the phone number's row of this moment.
func insertMessages(ctx context.Context, tx pgx.Tx, messages []*NewMessage) error {
	n := len(messages)
	if n == 0 {
		return nil
	}
	ids, phones, keyIDs, recipients, types := make([]uuid.UUID, n), make([]string, n), make([]*uuid.UUID, n), make([]string, n), make([]string, n)
	priorities, categories, onUnknown := make([]int16, n), make([]string, n), make([]string, n)
	templates, languages, references, tags := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	orderingKeys, callbacks, opaques, windows := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	orderingAfter, orderingSeconds, apis := make([]string, n), make([]float64, n), make([]string, n)
	fallbacks, fallbackLanguages, fallbackCategories := make([]string, n), make([]string, n), make([]string, n)
	sendAt, expiresAt, bodies, created := make([]*time.Time, n), make([]*time.Time, n), make([][]byte, n), make([]time.Time, n)
	for i, m := range messages {
		ids[i], phones[i], recipients[i], types[i] = m.ID, m.PhoneNumberID, m.Recipient, m.Type
		priorities[i], categories[i], onUnknown[i] = int16(m.Priority), m.Category, m.OnUnknown //nolint:gosec // 1 to 4
		templates[i], languages[i], references[i], tags[i] = m.TemplateName, m.TemplateLanguage, m.Reference, m.Tags
		orderingKeys[i], callbacks[i], opaques[i], windows[i] = m.OrderingKey, m.CallbackURL, m.Opaque, m.SendWindow
		orderingAfter[i], orderingSeconds[i], apis[i] = m.OrderingAfter, m.OrderingSeconds, m.API
		bodies[i], created[i] = m.Body, m.CreatedAt
		fallbacks[i], fallbackLanguages[i], fallbackCategories[i] = m.FallbackTemplate, m.FallbackLanguage, m.FallbackCategory
		if m.KeyID != uuid.Nil {
			keyIDs[i] = &m.KeyID
		}
		if !m.SendAt.IsZero() {
			sendAt[i] = &m.SendAt
		}
		if !m.ExpiresAt.IsZero() {
			expiresAt[i] = &m.ExpiresAt
		}
	}
	endpoints, err := putCallbackOrigins(ctx, tx, messages)
	if err != nil {
		return err
	}
	tag, err := tx.Exec(ctx, `
		INSERT INTO messages (id, phone_number_id, waba_id, key_id, recipient, type, priority, category, on_unknown, template_name,
			template_language, reference, tags, ordering_key, callback_url, opaque, send_window, send_at, expires_at, body, created_at,
			ordering_after, ordering_seconds, api, callback_endpoint,
			fallback_template, fallback_language, fallback_category)
		SELECT u.id, p.phone_number_id, p.waba_id, u.key_id, u.recipient, u.type, u.priority, nullif(u.category, ''), u.on_unknown,
			nullif(u.template, ''), nullif(u.language, ''), nullif(u.reference, ''), nullif(u.tags, '')::jsonb, nullif(u.ordering_key, ''),
			nullif(u.callback_url, ''), nullif(u.opaque, ''), nullif(u.send_window, '')::jsonb, u.send_at, u.expires_at, u.body, u.created_at,
			nullif(u.ordering_after, ''), nullif(u.ordering_seconds, 0), nullif(u.api, ''), u.callback_endpoint,
			nullif(u.fallback, ''), nullif(u.fallback_language, ''), nullif(u.fallback_category, '')
		FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::smallint[], $7::text[], $8::text[], $9::text[], $10::text[],
		            $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::timestamptz[], $18::timestamptz[],
		            $19::bytea[], $20::timestamptz[], $21::text[], $22::double precision[], $23::text[], $24::uuid[],
		            $25::text[], $26::text[], $27::text[])
		     AS u(id, phone, key_id, recipient, type, priority, category, on_unknown, template, language, reference, tags, ordering_key,
		          callback_url, opaque, send_window, send_at, expires_at, body, created_at, ordering_after, ordering_seconds, api, callback_endpoint,
		          fallback, fallback_language, fallback_category)
		JOIN phone_numbers p ON p.phone_number_id = u.phone`,
		ids, phones, keyIDs, recipients, types, priorities, categories, onUnknown, templates, languages, references, tags, orderingKeys,
		callbacks, opaques, windows, sendAt, expiresAt, bodies, created, orderingAfter, orderingSeconds, apis, endpoints,
		fallbacks, fallbackLanguages, fallbackCategories)
	if err != nil {
		return fmt.Errorf("inserting %d messages: %w", n, err)
	}
	if tag.RowsAffected() != int64(n) {
		return fmt.Errorf("inserting %d messages: %w", n, ErrPhoneGone)
	}
	return nil
}
