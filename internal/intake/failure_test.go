package intake_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"wagate/internal/intake"
	"wagate/internal/store"
)

// A row that the database refuses, past every check, must not fail the others of its group.
func TestOneFailureHitsNoOther(t *testing.T) {
	in, pool := setup(t)
	if _, err := pool.Exec(t.Context(), `ALTER TABLE messages ADD CONSTRAINT poison CHECK (reference <> 'poison')`); err != nil {
		t.Fatal(err)
	}
	const n = 40
	requests := make([]intake.Request, n)
	for i := range requests {
		requests[i] = intake.Request{Caller: caller, Body: text(""), IdempotencyKey: fmt.Sprint(i)}
	}
	requests[17].Body, requests[31].Body = text(`,"gateway":{"reference":"poison"}`), text(`,"gateway":{"reference":"poison"}`)
	check := func(name string, errs []error) {
		t.Helper()
		for i, err := range errs {
			if poisoned := i == 17 || i == 31; poisoned != (err != nil) || kindOf(err) != 0 {
				t.Errorf("%s: %d: %v", name, i, err)
			}
		}
	}
	errs := make([]error, n)
	for i, r := range in.AcceptMany(t.Context(), requests) {
		errs[i] = r.Err
	}
	check("batch", errs)
	wantRows(t, pool, n-2, n-2)
	var wg sync.WaitGroup
	for i := range requests {
		requests[i].IdempotencyKey = fmt.Sprint("single", i)
		wg.Go(func() { _, errs[i] = in.Accept(t.Context(), requests[i]) })
	}
	wg.Wait()
	check("group", errs)
	wantRows(t, pool, 2*n-4, 2*n-4)
}

func TestPhoneNumberGone(t *testing.T) {
	in, pool := setup(t)
	if _, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: text("")}); err != nil {
		t.Fatal(err)
	}
	if err := store.New(pool).DeletePhoneNumber(t.Context(), phone); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: text(""), IdempotencyKey: "k"}); kindOf(err) != intake.UnknownPhone {
		t.Errorf("a phone number that was there a moment ago: %v", err)
	}
	wantRows(t, pool, 1, 0)
}

func TestDatabaseAway(t *testing.T) {
	in, pool := setup(t)
	if _, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: text("")}); err != nil {
		t.Fatal(err)
	}
	pool.Close()
	_, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: text("")})
	if e, ok := errors.AsType[*intake.Error](err); !ok || e.Kind != intake.Unavailable || e.RetryAfter <= 0 {
		t.Errorf("database away: %v", err)
	}
	for _, r := range in.AcceptMany(t.Context(), []intake.Request{{Caller: caller, Body: text("")}}) {
		if kindOf(r.Err) != intake.Unavailable {
			t.Errorf("database away, batch: %v", r.Err)
		}
	}
}

// A database whose every connection is taken is away too, for an accept.
func TestNoConnection(t *testing.T) {
	in, pool := setup(t)
	if err := in.Check(t.Context(), intake.Request{Caller: caller, Body: text("")}); err != nil {
		t.Fatal(err)
	}
	for range pool.Config().MaxConns {
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
	}
	if _, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: text("")}); kindOf(err) != intake.Unavailable {
		t.Errorf("no connection: %v", err)
	}
}

func TestClosed(t *testing.T) {
	in, _ := setup(t)
	if err := in.Check(t.Context(), intake.Request{Caller: caller, Body: text("")}); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if _, err := in.Accept(context.Background(), intake.Request{Caller: caller, Body: text("")}); kindOf(err) != intake.Unavailable {
		t.Errorf("after Close: %v", err)
	}
}

// After the database had no disk nothing is tried for five seconds; then one commit tries.
func TestDiskFull(t *testing.T) {
	in, pool, h := clocked(t)
	exec(t, pool, `CREATE TABLE tries (n serial)`)
	exec(t, pool, `CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		PERFORM nextval('tries_n_seq'); RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END $$`)
	exec(t, pool, `CREATE TRIGGER full_disk BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION full_disk()`)
	want := func(what string, tries int) {
		t.Helper()
		var tried int
		if err := pool.QueryRow(t.Context(), `SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM tries_n_seq`).Scan(&tried); err != nil || tried != tries {
			t.Errorf("%s: %d tries, %v, want %d", what, tried, err, tries)
		}
	}
	refused := func(what string, err error) {
		t.Helper()
		if e, ok := errors.AsType[*intake.Error](err); !ok || e.Kind != intake.Unavailable || e.RetryAfter <= 0 {
			t.Errorf("%s: %v", what, err)
		}
	}
	accept := func() error {
		_, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: text("")})
		return err
	}
	refused("the first", accept())
	want("the first", 1)
	refused("at once", accept())
	refused("a check", in.Check(t.Context(), intake.Request{Caller: caller, Body: text("")}))
	for _, r := range in.AcceptMany(t.Context(), []intake.Request{{Caller: caller, Body: text("")}}) {
		refused("a batch", r.Err)
	}
	want("within five seconds", 1)
	h.move(5 * time.Second)
	refused("the one that tries", accept())
	want("after five seconds", 2)
	exec(t, pool, `DROP TRIGGER full_disk ON messages`)
	refused("within the next five seconds", accept())
	h.move(5 * time.Second)
	if err := accept(); err != nil {
		t.Errorf("with room: %v", err)
	}
	if err := accept(); err != nil {
		t.Errorf("with room, again: %v", err)
	}
	wantRows(t, pool, 2, 0)
}

func BenchmarkAccept(b *testing.B) {
	in, _ := setup(b)
	b.SetParallelism(64)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := in.Accept(b.Context(), intake.Request{Caller: caller, Body: text("")}); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "accepted/s")
}
