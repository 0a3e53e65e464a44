package access_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"wagate/internal/access"
	"wagate/internal/pgtest"
	"wagate/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestAuthenticate(t *testing.T) {
	s := store.New(pgtest.New(t))
	c := &clock{now: time.Now()}
	a := access.New(s, c.Now)
	row, bearer, err := a.Create(t.Context(), access.NewKey{Name: "shop", Scopes: []access.Scope{access.Send}, PhoneNumbers: []string{"1"}})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(row.Hash), bearer) {
		t.Error("the key is stored")
	}
	k, err := a.Authenticate(t.Context(), bearer)
	if err != nil || k.ID != row.ID || k.Name != "shop" || !k.May(access.Send) || k.May(access.Read) || k.May(access.Admin) || !k.MayUse("1") || k.MayUse("2") {
		t.Errorf("key %+v, %v", k, err)
	}
	for _, wrong := range []string{"", "wg_", bearer + "x", bearer[:len(bearer)-1], strings.Repeat("x", 10000)} {
		if _, err := a.Authenticate(t.Context(), wrong); !errors.Is(err, access.ErrUnknownKey) {
			t.Errorf("%.20q: %v", wrong, err)
		}
	}
	// Revoked elsewhere: known here until what is remembered is two seconds old.
	if err := s.RevokeKey(t.Context(), row.ID); err != nil {
		t.Fatal(err)
	}
	c.add(1999 * time.Millisecond)
	if _, err := a.Authenticate(t.Context(), bearer); err != nil {
		t.Errorf("within two seconds: %v", err)
	}
	c.add(time.Millisecond)
	if _, err := a.Authenticate(t.Context(), bearer); !errors.Is(err, access.ErrUnknownKey) {
		t.Errorf("after two seconds: %v", err)
	}
}

func TestAdminMayAll(t *testing.T) {
	a := access.New(store.New(pgtest.New(t)), time.Now)
	const bearer = "a-key-of-the-operator"
	for range 2 {
		if err := a.Bootstrap(t.Context(), bearer); err != nil {
			t.Fatal(err)
		}
	}
	k, err := a.Authenticate(t.Context(), bearer)
	if err != nil || k.Name != "admin" || !k.May(access.Send) || !k.May(access.Read) || !k.May(access.Manage) || !k.May(access.Admin) || !k.MayUse("1") {
		t.Errorf("key %+v, %v", k, err)
	}
}

func TestRequestsPerSecond(t *testing.T) {
	c := &clock{now: time.Now()}
	a := access.New(store.New(pgtest.New(t)), c.Now)
	limit := 4
	_, bearer, err := a.Create(t.Context(), access.NewKey{Name: "shop", Scopes: []access.Scope{access.Send}, RequestsPerSecond: &limit})
	if err != nil {
		t.Fatal(err)
	}
	allowed := func(n int) (ok int, retry time.Duration) {
		for range n {
			_, err := a.Authenticate(t.Context(), bearer)
			if limited, is := errors.AsType[*access.LimitedError](err); is {
				retry = limited.RetryAfter
			} else if err != nil {
				t.Fatal(err)
			} else {
				ok++
			}
		}
		return ok, retry
	}
	if ok, retry := allowed(10); ok != 4 || retry != 250*time.Millisecond {
		t.Errorf("%d of 10 at once, retry after %s", ok, retry)
	}
	c.add(500 * time.Millisecond)
	if ok, _ := allowed(10); ok != 2 {
		t.Errorf("%d of 10 half a second later", ok)
	}
}

func TestDatabaseAway(t *testing.T) {
	pool := pgtest.New(t)
	a := access.New(store.New(pool), time.Now)
	pool.Close()
	if _, err := a.Authenticate(t.Context(), "wg_x"); !store.Unavailable(err) || errors.Is(err, access.ErrUnknownKey) {
		t.Errorf("database away: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Authenticate(ctx, "wg_y"); err == nil {
		t.Error("no error without a database")
	}
}
