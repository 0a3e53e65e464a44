// Package access knows who may do what: API keys, their scopes, the phone numbers they may use and how many requests a
// second they may make.
package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"wagate/internal/message"
	"wagate/internal/store"
)

// Scope is a right of a key.
type Scope string

// The scopes. Admin includes the others.
const (
	Send   Scope = "send"
	Read   Scope = "read"
	Manage Scope = "manage"
	Admin  Scope = "admin"
)

// ParseScope reads a scope in exactly this spelling.
func ParseScope(s string) (Scope, error) {
	switch sc := Scope(s); sc {
	case Send, Read, Manage, Admin:
		return sc, nil
	}
	return "", fmt.Errorf("must be send, read, manage or admin")
}

// ErrUnknownKey is returned by Authenticate for a key that is not there, malformed or revoked.
var ErrUnknownKey = errors.New("unknown API key")

// LimitedError says that a key has made too many requests.
type LimitedError struct {
	// RetryAfter is when one more is allowed.
	RetryAfter time.Duration
}

// Error implements error.
func (e *LimitedError) Error() string { return "too many requests with this API key" }

// Key is who is asking.
type Key struct {
	ID     uuid.UUID
	Name   string // owner: idempotency keys belong to it
	Scopes []Scope
	// PhoneNumbers are the phone number ids it may use; empty means all.
	PhoneNumbers []string
	// RequestsPerSecond is 0 for no limit, as are the two below.
	RequestsPerSecond int
	// MessagesPerDay bounds what is accepted on a day in UTC, MaxBacklog what may wait.
	MessagesPerDay int64
	MaxBacklog     int64
}

// May says whether the key has a scope.
func (k Key) May(s Scope) bool {
	return slices.Contains(k.Scopes, s) || slices.Contains(k.Scopes, Admin)
}

// MayUse says whether the key may use a phone number id.
func (k Key) MayUse(phoneNumberID string) bool {
	return len(k.PhoneNumbers) == 0 || slices.Contains(k.PhoneNumbers, phoneNumberID)
}

const (
	prefix = "wg_"
	// maxKey bounds what is taken for a key; WAGATE_ADMIN_KEY may have 200 characters.
	maxKey = 256
	// keep is how long a key is believed without asking the database: a revoked key works on for at most so long.
	keep = 2 * time.Second
	// lookup bounds one question to the database.
	lookup = 2 * time.Second
	// maxCached bounds the keys and the limiters that are remembered.
	maxCached = 4096
)

// adminID is the id of the key that WAGATE_ADMIN_KEY makes. It is fixed, so that a changed setting replaces the key.
var adminID = uuid.MustParse("00000000-0000-7000-8000-000000000001")

// Access authenticates keys. It is safe for concurrent use.
type Access struct {
	store *store.Store
	now   func() time.Time

	asking singleflight.Group
	room   chan struct{} // bounds the questions under way
	mu     sync.Mutex
	known  map[[sha256.Size]byte]cached
	limits map[uuid.UUID]*rate.Limiter
}

type cached struct {
	key   Key
	until time.Time
}

// New makes an Access over the keys in the store. now is time.Now or a test's clock.
func New(s *store.Store, now func() time.Time) *Access {
	return &Access{store: s, now: now, known: map[[sha256.Size]byte]cached{}, room: make(chan struct{}, 4), limits: map[uuid.UUID]*rate.Limiter{}}
}

// Authenticate tells whose key this is: ErrUnknownKey, a *LimitedError when it has asked too often in this process, or
// the error of the database.
func (a *Access) Authenticate(ctx context.Context, bearer string) (Key, error) {
	if bearer == "" || len(bearer) > maxKey {
		return Key{}, ErrUnknownKey
	}
	hash := sha256.Sum256([]byte(bearer))
	now := a.now()
	a.mu.Lock()
	c, ok := a.known[hash]
	a.mu.Unlock()
	if !ok || !now.Before(c.until) {
		key, err := a.ask(ctx, hash)
		if err != nil {
			return Key{}, err
		}
		c = cached{key: key, until: now.Add(keep)}
		a.mu.Lock()
		if len(a.known) >= maxCached {
			clear(a.known)
		}
		a.known[hash] = c
		a.mu.Unlock()
	}
	return c.key, a.allow(c.key, now)
}

// ask reads the key, once for all that ask at the same time; no caller's end ends the question of the others.
func (a *Access) ask(ctx context.Context, hash [sha256.Size]byte) (Key, error) {
	done := a.asking.DoChan(string(hash[:]), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookup)
		defer cancel()
		select { // so that a flood of wrong keys does not take every connection
		case a.room <- struct{}{}:
			defer func() { <-a.room }()
		case <-ctx.Done():
			return Key{}, ctx.Err()
		}
		row, err := a.store.KeyByHash(ctx, hash[:])
		if errors.Is(err, store.ErrNotFound) {
			return Key{}, ErrUnknownKey
		}
		if err != nil {
			return Key{}, err
		}
		return fromRow(row), nil
	})
	select {
	case r := <-done:
		key, _ := r.Val.(Key)
		return key, r.Err
	case <-ctx.Done():
		return Key{}, ctx.Err()
	}
}

func fromRow(row store.APIKey) Key {
	k := Key{ID: row.ID, Name: row.Name, PhoneNumbers: row.PhoneNumbers}
	for _, s := range row.Scopes {
		k.Scopes = append(k.Scopes, Scope(s))
	}
	if row.RequestsPerSecond != nil {
		k.RequestsPerSecond = *row.RequestsPerSecond
	}
	if row.MessagesPerDay != nil {
		k.MessagesPerDay = *row.MessagesPerDay
	}
	if row.MaxBacklog != nil {
		k.MaxBacklog = *row.MaxBacklog
	}
	return k
}

// allow counts a request against the key's limit, which holds for each process.
func (a *Access) allow(k Key, now time.Time) error {
	if k.RequestsPerSecond <= 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.limits[k.ID]
	if l == nil || l.Burst() != k.RequestsPerSecond {
		if len(a.limits) >= maxCached {
			clear(a.limits)
		}
		l = rate.NewLimiter(rate.Limit(k.RequestsPerSecond), k.RequestsPerSecond)
		a.limits[k.ID] = l
	}
	if l.AllowN(now, 1) {
		return nil
	}
	wait := (1 - l.TokensAt(now)) / float64(k.RequestsPerSecond)
	return &LimitedError{RetryAfter: time.Duration(math.Ceil(wait*1000)) * time.Millisecond}
}

// NewKey is a key to be made.
type NewKey struct {
	Name              string
	Scopes            []Scope
	PhoneNumbers      []string
	RequestsPerSecond *int
	MessagesPerDay    *int64
	MaxBacklog        *int64
}

// Create makes a key and gives it with the key itself, which is kept nowhere and shown only here.
func (a *Access) Create(ctx context.Context, n NewKey) (store.APIKey, string, error) {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails, says its documentation
	bearer := prefix + base64.RawURLEncoding.EncodeToString(secret)
	row := newRow(message.NewID(a.now()), bearer, n)
	if err := a.store.PutKey(ctx, row); err != nil {
		return store.APIKey{}, "", err
	}
	row, err := a.store.Key(ctx, row.ID)
	return row, bearer, err
}

// Bootstrap makes the key of WAGATE_ADMIN_KEY, named admin, with every right; a changed setting replaces the former key.
func (a *Access) Bootstrap(ctx context.Context, bearer string) error {
	if err := a.store.PutKey(ctx, newRow(adminID, bearer, NewKey{Name: "admin", Scopes: []Scope{Admin}})); err != nil {
		return fmt.Errorf("storing the key of WAGATE_ADMIN_KEY: %w", err)
	}
	return nil
}

// Revoke ends a key: at once in this process, within two seconds in others.
func (a *Access) Revoke(ctx context.Context, id uuid.UUID) error {
	if err := a.store.RevokeKey(ctx, id); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for hash, c := range a.known {
		if c.key.ID == id {
			delete(a.known, hash)
		}
	}
	return nil
}

func newRow(id uuid.UUID, bearer string, n NewKey) store.APIKey {
	hash := sha256.Sum256([]byte(bearer))
	row := store.APIKey{
		ID: id, Name: n.Name, Hash: hash[:], PhoneNumbers: n.PhoneNumbers, RequestsPerSecond: n.RequestsPerSecond, MessagesPerDay: n.MessagesPerDay,
		MaxBacklog: n.MaxBacklog,
	}
	for _, s := range n.Scopes {
		row.Scopes = append(row.Scopes, string(s))
	}
	return row
}
