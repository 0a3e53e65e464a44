package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// APIKey is an API key without the key itself.
type APIKey struct {
	ID uuid.UUID
	// Name is the owner: idempotency keys belong to it.
	Name string
	// Hash is the SHA-256 of the key.
	Hash   []byte
	Scopes []string
	// PhoneNumbers are the phone number ids it may use; empty means all.
	PhoneNumbers []string
	// RequestsPerSecond is nil for no limit.
	RequestsPerSecond *int
	// MessagesPerDay is nil for no limit.
	MessagesPerDay *int64
	// MaxBacklog is nil for no limit.
	MaxBacklog *int64
	CreatedAt  time.Time
	RevokedAt  *time.Time
}

// PutKey makes a key, or replaces the one with its id, which is then no longer revoked.
func (s *Store) PutKey(ctx context.Context, k APIKey) error {
	if k.PhoneNumbers == nil {
		k.PhoneNumbers = []string{}
	}
	_, err := s.pool.Exec(ctx, `
		INSERT INTO api_keys (key_id, name, hash, scopes, phone_numbers, requests_per_second, messages_per_day, max_backlog)
		VALUES ($1::uuid, $2::text, $3::bytea, $4::text[], $5::text[], $6::integer, $7::bigint, $8::bigint)
		ON CONFLICT (key_id) DO UPDATE SET name = excluded.name, hash = excluded.hash, scopes = excluded.scopes,
			phone_numbers = excluded.phone_numbers, requests_per_second = excluded.requests_per_second,
			messages_per_day = excluded.messages_per_day, max_backlog = excluded.max_backlog, revoked_at = NULL`,
		k.ID, k.Name, k.Hash, k.Scopes, k.PhoneNumbers, k.RequestsPerSecond, k.MessagesPerDay, k.MaxBacklog)
	if err != nil {
		return fmt.Errorf("storing API key %s: %w", k.ID, err)
	}
	return nil
}

// KeyByHash reads the key with that hash, if it is not revoked; else ErrNotFound.
func (s *Store) KeyByHash(ctx context.Context, hash []byte) (APIKey, error) {
	keys, err := s.keys(ctx, hash, nil)
	if err == nil && (len(keys) == 0 || keys[0].RevokedAt != nil) {
		err = ErrNotFound
	}
	if err != nil {
		return APIKey{}, fmt.Errorf("looking an API key up: %w", err)
	}
	return keys[0], nil
}

// Key reads a key, revoked or not; ErrNotFound when there is none.
func (s *Store) Key(ctx context.Context, id uuid.UUID) (APIKey, error) {
	keys, err := s.keys(ctx, nil, &id)
	return one(keys, err, "API key", id.String())
}

// Keys reads every key, revoked ones too, in the order they were made.
func (s *Store) Keys(ctx context.Context) ([]APIKey, error) { return s.keys(ctx, nil, nil) }

func (s *Store) keys(ctx context.Context, hash []byte, id *uuid.UUID) ([]APIKey, error) {
	const columns = `SELECT key_id, name, hash, scopes, phone_numbers, requests_per_second, messages_per_day, max_backlog, created_at, revoked_at FROM api_keys `
	scan := func(r pgx.CollectableRow) (k APIKey, err error) {
		return k, r.Scan(&k.ID, &k.Name, &k.Hash, &k.Scopes, &k.PhoneNumbers, &k.RequestsPerSecond, &k.MessagesPerDay, &k.MaxBacklog, &k.CreatedAt, &k.RevokedAt)
	}
	if hash != nil {
		return collect(ctx, s.pool, "API keys", scan, columns+`WHERE hash = $1::bytea`, hash)
	}
	return collect(ctx, s.pool, "API keys", scan, columns+`WHERE $1::uuid IS NULL OR key_id = $1::uuid ORDER BY created_at, key_id`, id)
}

// RevokeKey ends a key; ErrNotFound when there is none or it was ended before.
func (s *Store) RevokeKey(ctx context.Context, id uuid.UUID) error {
	tag, err := s.pool.Exec(ctx, `UPDATE api_keys SET revoked_at = now() WHERE key_id = $1::uuid AND revoked_at IS NULL`, id)
	if err := changedOne(tag, err); err != nil {
		return fmt.Errorf("revoking API key %s: %w", id, err)
	}
	return nil
}
