package store_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"wagate/internal/pgtest"
	"wagate/internal/store"
)

func TestFairShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(0, 1e6).Draw(t, "rate")
		demands := rapid.SliceOfN(rapid.OneOf(
			rapid.Float64Range(0, 2e6), rapid.Float64Range(0, 1),
			rapid.SampledFrom([]float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1), rate}),
		), 1, 40).Draw(t, "demands")
		shares := store.FairShares(rate, demands)
		if len(shares) != len(demands) {
			t.Fatalf("%d shares for %d demands", len(shares), len(demands))
		}
		floor, eps, sum, most := rate*store.ShareFloor/float64(len(demands)), rate*1e-6, 0., 0.
		for _, s := range shares {
			if s < floor-eps || math.IsNaN(s) {
				t.Fatalf("a share of %v is below the floor of %v", s, floor)
			}
			sum, most = sum+s, max(most, s)
		}
		if sum > rate || sum < rate-eps {
			t.Fatalf("shares add up to %v of %v", sum, rate)
		}
		over := 0. // the most that anybody has beyond its demand
		for i, s := range shares {
			if !math.IsNaN(demands[i]) {
				over = max(over, s-max(demands[i], floor))
			}
		}
		for i, s := range shares {
			// Who has less than it asks for has as much as anybody, and nobody has more than it asks for.
			if s < demands[i]-eps && (s < most-eps || over > eps) {
				t.Fatalf("%v is asked for and %v given, while another has %v, and one %v more than its demand", demands[i], s, most, over)
			}
		}
	})
}

func shareStore(t *testing.T, perHour map[string]*int) (*store.Store, *pgxpool.Pool) {
	t.Helper()
	pool := pgtest.New(t, pgtest.MaxConns(10))
	s := store.New(pool)
	for app, n := range perHour {
		if err := s.PutApp(t.Context(), store.App{ID: app, CallsPerHour: n}); err != nil {
			t.Fatal(err)
		}
	}
	return s, pool
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func lease(t *testing.T, s *store.Store, wants ...store.ShareWant) map[string]store.ShareGrant {
	t.Helper()
	grants, err := s.LeaseShares(t.Context(), wants, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return grants
}

// afterGrace ends what is kept from others for a moment.
func afterGrace(t *testing.T, pool *pgxpool.Pool) {
	exec(t, pool, `UPDATE shares SET expires_at = clock_timestamp() WHERE scope = 'app-ending'`)
}

func TestLeaseSharesConverges(t *testing.T) {
	perHour := 360_000
	s, pool := shareStore(t, map[string]*int{"a": &perHour, "b": &perHour})
	demands := map[string]float64{"w1": 1000, "w2": 3, "w3": 20, "w4": 0, "w5": 45, "w6": 1000}
	settle := func(what string, rate float64) {
		t.Helper()
		got := map[string]store.ShareGrant{}
		for range 3 {
			for w, d := range demands { // in another order each time
				for holder, g := range lease(t, s, store.ShareWant{AppID: "a", Holder: w, Demand: d}, store.ShareWant{AppID: "b", Holder: "x" + w, Demand: d}) {
					got[holder] = g
				}
			}
			afterGrace(t, pool)
		}
		var names []string
		var ds []float64
		for w, d := range demands {
			names, ds = append(names, w), append(ds, d)
		}
		fair := store.FairShares(rate, ds)
		for i, w := range names {
			g := got[w]
			if !g.Limited || math.Abs(g.PerSecond-fair[i]) > 0.02*fair[i] || math.Abs(g.Target-fair[i]) > 1e-6 || g.Limit != rate {
				t.Errorf("%s: %s has %+v, fair were %v", what, w, g, fair[i])
			}
			if g := got["x"+w]; what == "start" && math.Abs(g.PerSecond-fair[i]) > 0.02*fair[i] {
				t.Errorf("%s: x%s has %+v, fair were %v", what, w, g, fair[i])
			}
		}
	}
	settle("start", 100)
	demands["w2"], demands["w7"] = 500, 30
	settle("one asks for more, one has come", 100)
	exec(t, pool, `UPDATE shares SET expires_at = clock_timestamp() WHERE holder = 'w1'`)
	delete(demands, "w1")
	settle("one has died", 100)
	exec(t, pool, `UPDATE apps SET calls_per_hour = 36000 WHERE app_id = 'a'`)
	settle("the rate is lower", 10)
	exec(t, pool, `UPDATE apps SET calls_per_hour = 720000 WHERE app_id = 'a'`)
	settle("the rate is higher", 200)
}

func TestLeaseSharesOfOne(t *testing.T) {
	perHour := 36_000
	s, pool := shareStore(t, map[string]*int{"a": &perHour, "free": nil})
	grants := lease(t, s, store.ShareWant{AppID: "free", Holder: "w0", Demand: 5}, store.ShareWant{AppID: "nobody knows", Holder: "w9", Demand: 5})
	if len(grants) != 2 || grants["w0"] != (store.ShareGrant{}) || grants["w9"] != (store.ShareGrant{}) {
		t.Errorf("without a limit: %+v", grants)
	}
	var rows int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM shares`).Scan(&rows); err != nil || rows != 0 {
		t.Errorf("without a limit: %d rows, %v", rows, err)
	}
	if g := lease(t, s, store.ShareWant{AppID: "a", Holder: "w1"})["w1"]; math.Abs(g.PerSecond-10) > 1e-6 {
		t.Errorf("the only one has %+v of 10", g)
	}
	// A newcomer waits for the others to renew, and for what they gave back.
	if g := lease(t, s, store.ShareWant{AppID: "a", Holder: "w2", Demand: 100})["w2"]; g.PerSecond > 1e-6 || g.Target < 9 {
		t.Errorf("beside one that has all: %+v", g)
	}
	if g := lease(t, s, store.ShareWant{AppID: "a", Holder: "w1"})["w1"]; g.PerSecond > 1 || g.PerSecond < 0.09 {
		t.Errorf("without demand beside a newcomer: %+v", g)
	}
	if g := lease(t, s, store.ShareWant{AppID: "a", Holder: "w2", Demand: 100})["w2"]; g.PerSecond > 1e-6 {
		t.Errorf("at once after another has given back: %+v", g)
	}
	afterGrace(t, pool)
	if g := lease(t, s, store.ShareWant{AppID: "a", Holder: "w2", Demand: 100})["w2"]; g.PerSecond < 9 {
		t.Errorf("after another has given back: %+v", g)
	}
}

// Eight at once, each with its own connection, that die, ask for this and that, and lose their answers, under a rate
// that changes: shares in force never grow above the rate. What is checked is every write, beside what the writer found in force: it has
// removed the others.
func TestLeaseSharesNeverAboveTheRate(t *testing.T) {
	perHour := 360_000
	s, pool := shareStore(t, map[string]*int{"a": &perHour, "b": &perHour})
	exec(t, pool, `
		CREATE TABLE seen (n bigint GENERATED ALWAYS AS IDENTITY, app text, rate float8, before float8, after float8);
		CREATE FUNCTION in_force(app text) RETURNS float8 LANGUAGE sql AS
			$$ SELECT coalesce(sum(per_second), 0) FROM shares WHERE value = app $$;
		CREATE FUNCTION look_before() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			PERFORM set_config('test.a', in_force('a')::text, true), set_config('test.b', in_force('b')::text, true);
			RETURN NULL;
		END $$;
		CREATE FUNCTION look_after() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO seen (app, rate, before, after)
			SELECT a.app_id, a.calls_per_hour / 3600.0, current_setting('test.' || a.app_id)::float8, in_force(a.app_id)
			FROM apps a WHERE a.app_id IN (SELECT value FROM written);
			RETURN NULL;
		END $$;
		CREATE TRIGGER look_before BEFORE INSERT ON shares EXECUTE FUNCTION look_before();
		CREATE TRIGGER look_after_insert AFTER INSERT ON shares REFERENCING NEW TABLE AS written EXECUTE FUNCTION look_after();
		CREATE TRIGGER look_after_update AFTER UPDATE ON shares REFERENCING NEW TABLE AS written EXECUTE FUNCTION look_after()`)
	const ttl = 60 * time.Millisecond
	var wg sync.WaitGroup
	for g := range 8 {
		rng := rand.New(rand.NewPCG(1, uint64(g))) //nolint:gosec // the same each time
		wg.Go(func() {
			name := 0
			for range 60 {
				var wants []store.ShareWant
				for _, app := range []string{"a", "b"} {
					if rng.IntN(4) > 0 {
						wants = append(wants, store.ShareWant{AppID: app, Holder: fmt.Sprint(app, g, ".", name), Demand: []float64{0, 1, 30, 1000}[rng.IntN(4)] * rng.Float64()})
					}
				}
				grants, err := s.LeaseShares(t.Context(), wants, ttl)
				if err != nil {
					t.Errorf("leasing: %v", err)
					return
				}
				for holder, got := range grants {
					if got.PerSecond > got.Limit || got.PerSecond < 0 {
						t.Errorf("%s has %+v", holder, got)
					}
				}
				switch rng.IntN(12) {
				case 0:
					name++ // it dies, and another comes in its stead
				case 1:
					if _, err := pool.Exec(t.Context(), `UPDATE apps SET calls_per_hour = $1::integer WHERE app_id = $2::text`, 3600*(1+rng.IntN(200)), []string{"a", "b"}[rng.IntN(2)]); err != nil {
						t.Errorf("changing the rate: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	var writes, grown, full, wrong int
	var worst float64
	err := pool.QueryRow(t.Context(), `
		SELECT count(*), count(*) FILTER (WHERE after > before), count(*) FILTER (WHERE after BETWEEN rate * 0.98 AND rate),
		       count(*) FILTER (WHERE after > greatest(rate, before) + 1e-9), coalesce(max(after - greatest(rate, before)), 0) FROM seen`).Scan(&writes, &grown, &full, &wrong, &worst)
	if err != nil {
		t.Fatal(err)
	}
	if wrong > 0 {
		t.Errorf("%d of %d writes made shares grow above the rate, by up to %v a second", wrong, writes, worst)
	}
	if grown < 50 || full < 50 {
		t.Errorf("of %d writes only %d made shares grow, %d used the rate fully", writes, grown, full)
	}
}
