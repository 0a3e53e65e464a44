package store_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/pgtest"
	"wagate/internal/store"
)

func managed(t *testing.T, perHour int, registered ...*bool) (*store.Store, *pgxpool.Pool) {
	t.Helper()
	pool := pgtest.New(t, pgtest.MaxConns(10))
	s := store.New(pool)
	if err := s.PutWABA(t.Context(), store.WABA{ID: "100", Burst: 1, ManagementCallsPerHour: perHour}, nil); err != nil {
		t.Fatal(err)
	}
	for i, r := range registered {
		id := string(rune('a' + i))
		if err := s.PutPhoneNumber(t.Context(), store.PhoneNumber{ID: id, WABAID: "100", Burst: 1, WindowCheck: "off"}); err != nil {
			t.Fatal(err)
		}
		exec(t, pool, `UPDATE phone_numbers SET registered = $1::boolean WHERE phone_number_id = $2::text`, r, id)
	}
	return s, pool
}

func TestTakeManagementCallAtOnce(t *testing.T) {
	s, _ := managed(t, 50, nil)
	var taken, refused atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				ok, again, err := s.TakeManagementCall(t.Context(), "100")
				if err != nil {
					t.Errorf("taking: %v", err)
				}
				if ok {
					taken.Add(1)
				} else {
					refused.Add(1)
					if left := time.Until(again); left < 58*time.Minute || left > 62*time.Minute {
						t.Errorf("refused for %v", left)
					}
				}
			}
		})
	}
	wg.Wait()
	if taken.Load() != 50 || refused.Load() != 30 {
		t.Errorf("%d taken and %d refused of a limit of 50", taken.Load(), refused.Load())
	}
	if _, _, err := s.TakeManagementCall(t.Context(), "999"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of no WABA: %v", err)
	}
}

// Over ten hours no sixty minutes have more calls than the limit, each refusal says rightly until when, and the limit is
// used.
func TestTakeManagementCallRollingHour(t *testing.T) {
	const limit = 30
	s, pool := managed(t, limit, nil)
	rng := rand.New(rand.NewPCG(3, 3)) //nolint:gosec // the same each time
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	var taken []time.Time
	refused, most := 0, 0
	for end := now.Add(10 * time.Hour); now.Before(end); now = now.Add(time.Duration(rng.IntN(200)) * time.Second) {
		for range 1 + rng.IntN(5) {
			ok, again, err := s.TakeManagementCallAt(t.Context(), "100", now)
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				taken = append(taken, now)
				continue
			}
			refused++
			if !again.After(now) || again.Sub(now) > 61*time.Minute {
				t.Fatalf("at %v refused until %v", now, again)
			}
			if ok, _, err := s.TakeManagementCallAt(t.Context(), "100", again.Add(-time.Microsecond)); ok || err != nil {
				t.Fatalf("before the end of the refusal: %t, %v", ok, err)
			}
			if rng.IntN(2) == 0 {
				now = again
				if ok, _, err := s.TakeManagementCallAt(t.Context(), "100", now); !ok || err != nil {
					t.Fatalf("at the end of the refusal: %t, %v", ok, err)
				}
				taken = append(taken, now)
			}
		}
	}
	for i, last := range taken {
		n := 0
		for j := i; j >= 0 && last.Sub(taken[j]) <= time.Hour; j-- {
			n++
		}
		most = max(most, n)
	}
	if most != limit || refused < 20 {
		t.Errorf("%d calls in an hour at the most, %d refused, the limit is %d", most, refused, limit)
	}
	var rows int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM management_calls`).Scan(&rows); err != nil || rows > 61 {
		t.Errorf("%d minutes are kept, %v", rows, err)
	}
}

func TestManagementCallsWithoutRegisteredNumber(t *testing.T) {
	yes, no := true, false
	for _, c := range []struct {
		name       string
		perHour    int
		registered []*bool
		used       int
		ok         bool
	}{
		{"none", 5000, nil, 200, false},
		{"none, below", 5000, nil, 199, true},
		{"none, a lower limit", 100, nil, 100, false},
		{"one that is not", 5000, []*bool{&no}, 200, false},
		{"one that is", 5000, []*bool{&no, &yes}, 200, true},
		{"one nobody has looked at", 5000, []*bool{&no, nil}, 4999, true},
		{"one that is, all used", 5000, []*bool{&yes}, 5000, false},
		{"no calls at all", 0, []*bool{&yes}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, pool := managed(t, c.perHour, c.registered...)
			exec(t, pool, `INSERT INTO management_calls VALUES ('100', date_trunc('minute', clock_timestamp()) - interval '5 minutes', $1::integer)`, c.used)
			if ok, _, err := s.TakeManagementCall(t.Context(), "100"); ok != c.ok || err != nil {
				t.Errorf("%t, %v", ok, err)
			}
		})
	}
}

func TestPairStates(t *testing.T) {
	pool := pgtest.New(t)
	s := store.New(pool)
	exec(t, pool, `INSERT INTO pair_states VALUES ('200', '1', clock_timestamp() + interval '1 minute'), ('200', '2', clock_timestamp()),
		('200', '3', clock_timestamp() - interval '1 hour'), ('201', '1', clock_timestamp() + interval '1 minute')`)
	got, err := s.PairStates(t.Context(), []string{"200", "202"})
	if err != nil || len(got) != 1 || got[0].PhoneNumberID != "200" || got[0].User != "1" || time.Until(got[0].TAT) < 50*time.Second {
		t.Errorf("%+v, %v", got, err)
	}
	for i, want := range []int64{1, 1, 0} {
		if n, err := s.SweepPairStates(t.Context(), 1); n != want || err != nil {
			t.Errorf("sweep %d removed %d, %v", i, n, err)
		}
	}
}

func TestRates(t *testing.T) {
	s, _ := managed(t, 1, nil)
	at := time.Now().Truncate(time.Microsecond)
	keep := func(scope, value string, ceiling float64, at time.Time) {
		t.Helper()
		if err := s.KeepRate(t.Context(), scope, value, ceiling, 130429, at); err != nil {
			t.Fatal(err)
		}
	}
	keep("phone", "a", 80, at)
	keep("phone", "a", 40, at.Add(time.Second))
	keep("phone", "a", 60, at.Add(-time.Second)) // late
	keep("phone", "z", 80, at)
	keep("waba", "100", 200, at)
	if err := s.DropRate(t.Context(), "phone", "a", at); err != nil { // of an older throttle
		t.Fatal(err)
	}
	got, err := s.Rates(t.Context(), []string{"100"})
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if r := got[0]; r.Scope != "phone" || r.Value != "a" || r.Ceiling != 40 || r.Code != 130429 || !r.SlowedAt.Equal(at.Add(time.Second)) {
		t.Errorf("of the phone number: %+v", r)
	}
	if r := got[1]; r.Scope != "waba" || r.Value != "100" || r.Ceiling != 200 {
		t.Errorf("of the WABA: %+v", r)
	}
	if err := s.DropRate(t.Context(), "phone", "a", at.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Rates(t.Context(), []string{"100"}); err != nil || len(got) != 1 || got[0].Scope != "waba" {
		t.Errorf("after one was dropped: %+v, %v", got, err)
	}
}

func inTx(t *testing.T, s *store.Store, f func(pgx.Tx) error) {
	t.Helper()
	if err := s.InTx(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func TestInbound(t *testing.T) {
	pool := pgtest.New(t)
	s := store.New(pool)
	now := time.Now().Truncate(time.Second).Add(500 * time.Millisecond)
	second := now.Unix()
	inTx(t, s, func(tx pgx.Tx) error {
		return s.AddInbound(t.Context(), tx, map[string]map[int64]int{
			"200": {second: 5, second - 5: 10, second - 6: 1000, second - 61: 1, second - 62: 1}, "201": {second - 1: 11}, "202": {second: 0},
		})
	})
	inTx(t, s, func(tx pgx.Tx) error {
		return s.AddInbound(t.Context(), tx, map[string]map[int64]int{"200": {second: 2, second - 5: 5}})
	})
	inTx(t, s, func(tx pgx.Tx) error { return s.AddInbound(t.Context(), tx, nil) })
	got, err := s.InboundRatesAt(t.Context(), []string{"200", "201", "202"}, now)
	if err != nil || len(got) != 2 || math.Abs(got["200"]-22/5.5) > 1e-6 || math.Abs(got["201"]-11/5.5) > 1e-6 {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := s.InboundRates(t.Context(), []string{"203"}); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	for i, want := range []int64{1, 1, 0} {
		if n, err := s.SweepInbound(t.Context(), 1); n != want || err != nil {
			t.Errorf("sweep %d removed %d, %v", i, n, err)
		}
	}
}

func TestWindows(t *testing.T) {
	pool := pgtest.New(t)
	s := store.New(pool)
	until := time.Now().Add(24 * time.Hour).Truncate(time.Microsecond)
	past := until.Add(-48 * time.Hour)
	inTx(t, s, func(tx pgx.Tx) error {
		return s.OpenWindows(t.Context(), tx, []store.Window{
			{"200", "1", until}, {"200", "1", past}, {"200", "2", past}, {"200", "3", past}, {"201", "1", past}, {"201", "2", until},
		})
	})
	inTx(t, s, func(tx pgx.Tx) error {
		return s.OpenWindows(t.Context(), tx, []store.Window{{"200", "1", until.Add(-time.Hour)}, {"200", "3", until}})
	})
	inTx(t, s, func(tx pgx.Tx) error { return s.OpenWindows(t.Context(), tx, nil) })
	open := func() map[string]time.Time {
		t.Helper()
		asks := []store.WindowAsk{{"200", "1"}, {"200", "2"}, {"200", "3"}, {"200", "4"}}
		evidence, err := s.WindowEvidence(t.Context(), asks)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]time.Time{}
		for i, e := range evidence {
			if !e.Until.IsZero() {
				got[asks[i].Recipient] = e.Until
			}
		}
		return got
	}
	if got := open(); len(got) != 2 || !got["1"].Equal(until) || !got["3"].Equal(until) {
		t.Errorf("%v", got)
	}
	var after store.Window
	var removed int64
	for rounds := 0; ; rounds++ {
		next, n, err := s.SweepWindows(t.Context(), after, 2)
		if err != nil || rounds > 3 {
			t.Fatalf("round %d: %v", rounds, err)
		}
		if removed += n; next == (store.Window{}) {
			break
		}
		after = next
	}
	var left int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM service_windows WHERE until > clock_timestamp()`).Scan(&left); err != nil {
		t.Fatal(err)
	}
	if removed != 2 || left != 3 || len(open()) != 2 {
		t.Errorf("%d were removed, %d are open", removed, left)
	}
}
