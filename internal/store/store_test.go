package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/message"
	"wagate/internal/pgtest"
	"wagate/internal/store"
)

func TestUnavailable(t *testing.T) {
	for _, code := range []string{"08006", "53300", "53100", "57P01", "57P03", "57014", "25006"} {
		if err := fmt.Errorf("x: %w", &pgconn.PgError{Code: code}); !store.Unavailable(err) {
			t.Errorf("%s is no reason", code)
		}
	}
	for _, code := range []string{"23505", "23514", "22P05", "42P01", "40P01"} {
		if err := fmt.Errorf("x: %w", &pgconn.PgError{Code: code}); store.Unavailable(err) {
			t.Errorf("%s is a reason", code)
		}
	}
	for _, err := range []error{io.ErrUnexpectedEOF, context.DeadlineExceeded, &net.OpError{Op: "dial", Err: errors.New("refused")}} {
		if !store.Unavailable(fmt.Errorf("x: %w", err)) {
			t.Errorf("%v is no reason", err)
		}
	}
	for _, err := range []error{nil, errors.New("x"), store.ErrNotFound} {
		if store.Unavailable(err) {
			t.Errorf("%v is a reason", err)
		}
	}
	// A real refused connection.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), "postgres://u:p@"+address+"/x")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := pool.Ping(t.Context()); !store.Unavailable(err) {
		t.Errorf("a refused connection is no reason: %v", err)
	}
}

// Two transactions that want the same keys in opposite order wait for each other; neither is a deadlock's victim.
func TestAcceptSameKeysAtOnce(t *testing.T) {
	pool := pgtest.New(t)
	s := store.New(pool)
	if err := s.PutWABA(t.Context(), store.WABA{ID: "100", Burst: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.PutPhoneNumber(t.Context(), store.PhoneNumber{ID: "200", WABAID: "100", Burst: 1, WindowCheck: "off"}); err != nil {
		t.Fatal(err)
	}
	set := func(backwards bool) []store.NewMessage {
		var all []store.NewMessage
		for i := range 200 {
			if backwards {
				i = 199 - i
			}
			now := time.Now().Truncate(time.Microsecond)
			all = append(all, store.NewMessage{ID: message.NewID(now), CreatedAt: now, PhoneNumberID: "200", Owner: "o", IdempotencyKey: fmt.Sprint(i),
				RequestHash: []byte("h"), Recipient: "+1", Type: "text", Priority: 3, OnUnknown: "hold", Body: []byte("{}")})
		}
		return all
	}
	results := make(chan []store.Acceptance, 8)
	for i := range 8 {
		go func() {
			var answers []store.Acceptance
			err := s.InTx(t.Context(), func(tx pgx.Tx) (err error) {
				answers, err = s.Accept(t.Context(), tx, set(i%2 == 0))
				return err
			})
			if err != nil {
				t.Error(err)
			}
			results <- answers
		}()
	}
	stored := map[uuid.UUID]bool{}
	replayed := 0
	for range 8 {
		for _, a := range <-results {
			switch a.Verdict {
			case store.Stored:
				stored[a.ID] = true
			case store.Replayed:
				replayed++
			case store.Conflicting:
				t.Error("a conflict between equal requests")
			}
		}
	}
	var rows int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM messages`).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if len(stored) != 200 || replayed != 1400 || rows != 200 {
		t.Errorf("%d stored, %d replayed, %d rows", len(stored), replayed, rows)
	}
}

// Keys are claimed in one order, whatever the order of the messages: a transaction that waits for its first key holds no
// other one.
func TestAcceptClaimsKeysInOrder(t *testing.T) {
	pool := pgtest.New(t)
	s := store.New(pool)
	if err := s.PutWABA(t.Context(), store.WABA{ID: "100", Burst: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.PutPhoneNumber(t.Context(), store.PhoneNumber{ID: "200", WABAID: "100", Burst: 1, WindowCheck: "off"}); err != nil {
		t.Fatal(err)
	}
	accept := func(tx pgx.Tx, keys ...string) error {
		now := time.Now()
		var set []store.NewMessage
		for _, key := range keys {
			set = append(set, store.NewMessage{ID: message.NewID(now), CreatedAt: now, PhoneNumberID: "200", Owner: "o", IdempotencyKey: key,
				RequestHash: []byte("h"), Recipient: "+1", Type: "text", Priority: 3, OnUnknown: "hold"})
		}
		_, err := s.Accept(t.Context(), tx, set)
		return err
	}
	other := make(chan error, 1)
	err := s.InTx(t.Context(), func(tx pgx.Tx) error {
		if err := accept(tx, "1"); err != nil {
			return err
		}
		go func() {
			other <- s.InTx(t.Context(), func(tx pgx.Tx) error { return accept(tx, "2", "1") })
		}()
		for waiting := false; !waiting; {
			err := pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')`).Scan(&waiting)
			if err != nil {
				return err
			}
		}
		return accept(tx, "2") // a deadlock, if the other one had claimed it
	})
	if err != nil {
		t.Error(err)
	}
	if err := <-other; err != nil {
		t.Error(err)
	}
}

func TestHeldBy(t *testing.T) {
	pool := pgtest.New(t)
	s := store.New(pool)
	app := store.App{ID: "app", Secret: []byte("x")}
	appID := app.ID
	if err := s.PutWABA(t.Context(), store.WABA{ID: "100", Burst: 1, AppID: &appID}, &app); err != nil {
		t.Fatal(err)
	}
	if err := s.PutPhoneNumber(t.Context(), store.PhoneNumber{ID: "200", WABAID: "100", Burst: 1, WindowCheck: "off"}); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	id := message.NewID(now)
	err := s.InTx(t.Context(), func(tx pgx.Tx) error {
		_, err := s.Accept(t.Context(), tx, []store.NewMessage{{ID: id, CreatedAt: now, PhoneNumberID: "200", Recipient: "+1", Type: "text", Priority: 3, OnUnknown: "hold"}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	held := func() string {
		t.Helper()
		m, err := s.GetMessage(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if m.Held == nil {
			return ""
		}
		return m.Held.Scope + " " + m.Held.Value
	}
	if h := held(); h != "" {
		t.Errorf("held by %q without a pause", h)
	}
	pause := func(scope, value string, until time.Duration) {
		t.Helper()
		if err := s.Throttled(t.Context(), store.Pause{Scope: scope, Value: value, Source: "throttle", Until: time.Now().Add(until)}); err != nil {
			t.Fatal(err)
		}
	}
	pause("phone", "201", time.Hour)
	pause("waba", "100", -time.Second)
	if h := held(); h != "" {
		t.Errorf("held by %q, of another phone or over", h)
	}
	pause("phone", "200", time.Minute)
	if h := held(); h != "phone 200" {
		t.Errorf("held by %q", h)
	}
	pause("app", "app", time.Hour)
	if h := held(); h != "app app" {
		t.Errorf("held by %q, want the pause that ends last", h)
	}
}
