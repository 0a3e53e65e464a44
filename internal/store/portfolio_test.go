package store_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/pgtest"
	"wagate/internal/store"
)

func reserve(t *testing.T, s *store.Store, wants ...store.RecipientWant) []store.RecipientGrant {
	t.Helper()
	grants, err := s.ReserveRecipients(t.Context(), wants)
	if err != nil {
		t.Fatal(err)
	}
	if len(grants) != len(wants) {
		t.Fatalf("%d grants for %d wants", len(grants), len(wants))
	}
	return grants
}

// counts gives the usage of a portfolio, which has to be its rows.
func counts(t *testing.T, pool *pgxpool.Pool, portfolio string) int {
	t.Helper()
	var used, rows int
	if err := pool.QueryRow(t.Context(), `
		SELECT coalesce((SELECT used FROM portfolio_usage WHERE portfolio_id = $1), 0), (SELECT count(*) FROM portfolio_recipients WHERE portfolio_id = $1)`, portfolio).Scan(&used, &rows); err != nil {
		t.Fatal(err)
	}
	if used != rows {
		t.Errorf("portfolio %s: %d used, %d recipients", portfolio, used, rows)
	}
	return used
}

func TestReserveRecipients(t *testing.T) {
	pool := pgtest.New(t)
	s := store.New(pool)
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	want := func(user string, limit int, after time.Duration) store.RecipientWant {
		return store.RecipientWant{PortfolioID: "p", Limit: limit, WAID: user, At: start.Add(after)}
	}
	got := reserve(t, s, want("1", 2, 0), want("1", 2, time.Second), want("2", 2, time.Hour), want("3", 2, time.Hour), want("4", 2, time.Hour),
		store.RecipientWant{PortfolioID: "q", Limit: 1, WAID: "3", At: start}, store.RecipientWant{PortfolioID: "free", WAID: "3"})
	for i, ok := range []bool{true, true, true, false, false, true, true} {
		if got[i].OK != ok {
			t.Errorf("want %d: %+v", i, got[i])
		}
	}
	if got[0].New || got[1].New || !got[2].New || !got[5].New || got[6].New {
		t.Errorf("new ones: %+v", got)
	}
	// Each that was refused is told of a place of its own.
	if first, second := start.Add(time.Second+store.RecipientKept), start.Add(time.Hour+store.RecipientKept); !got[3].FreeAt.Equal(first) || !got[4].FreeAt.Equal(second) {
		t.Errorf("places are free at %v and %v, not %v and %v", got[3].FreeAt, got[4].FreeAt, first, second)
	}
	// One that counts costs nothing, and counts from the new slot.
	if got := reserve(t, s, want("1", 2, 2*time.Hour)); !got[0].OK || got[0].New {
		t.Errorf("again: %+v", got)
	}
	got = reserve(t, s, want("3", 2, 3*time.Hour))
	if free := start.Add(time.Hour + store.RecipientKept); got[0].OK || !got[0].FreeAt.Equal(free) {
		t.Errorf("after the first has moved on: %+v, not %v", got, free)
	}
	if n := counts(t, pool, "p"); n != 2 {
		t.Errorf("%d are counted", n)
	}
	// A lower limit refuses until enough have left; those that count still cost nothing.
	got = reserve(t, s, want("2", 1, 4*time.Hour), want("3", 1, 4*time.Hour))
	if free := start.Add(4*time.Hour + store.RecipientKept); !got[0].OK || got[1].OK || !got[1].FreeAt.Equal(free) {
		t.Errorf("under a lower limit: %+v, free at %v", got, free)
	}
	// A higher one gives room at once.
	got = reserve(t, s, want("3", 3, 5*time.Hour))
	if !got[0].OK || !got[0].New {
		t.Errorf("under a higher limit: %+v", got)
	}
	// Given back, its place is free; used by another message meanwhile, it stays.
	given := want("3", 3, 5*time.Hour)
	given.At = got[0].At
	if err := s.ReturnRecipients(t.Context(), []store.RecipientWant{given, given, {PortfolioID: "free", WAID: "3"}}); err != nil {
		t.Fatal(err)
	}
	if n := counts(t, pool, "p"); n != 2 {
		t.Errorf("%d are counted after one was given back", n)
	}
	got = reserve(t, s, want("4", 3, 6*time.Hour))
	given = want("4", 3, 6*time.Hour)
	given.At = got[0].At
	reserve(t, s, want("4", 3, 6*time.Hour-time.Second)) // by another message, with an earlier slot
	if err := s.ReturnRecipients(t.Context(), []store.RecipientWant{given}); err != nil {
		t.Fatal(err)
	}
	if n := counts(t, pool, "p"); n != 3 {
		t.Errorf("%d are counted after one in use was given back", n)
	}
	// The day after, those of the day before are no hindrance, though nobody has swept.
	got = reserve(t, s, want("5", 3, 31*time.Hour), want("1", 3, 31*time.Hour))
	if !got[0].OK || !got[0].New || !got[1].OK || !got[1].New {
		t.Errorf("the day after: %+v", got)
	}
	counts(t, pool, "p")
}

func TestSweepRecipients(t *testing.T) {
	pool := pgtest.New(t)
	s := store.New(pool)
	exec(t, pool, `INSERT INTO portfolio_recipients SELECT p, 'u' || n, clock_timestamp() - make_interval(hours => n) FROM generate_series(1, 40) n, unnest(ARRAY['p', 'q']) p`)
	exec(t, pool, `INSERT INTO portfolio_usage VALUES ('p', 40), ('q', 40)`)
	swept := int64(0)
	for {
		n, err := s.SweepRecipients(t.Context(), 10)
		if err != nil || n > 10 {
			t.Fatalf("swept %d: %v", n, err)
		}
		if swept += n; n == 0 {
			break
		}
	}
	if swept != 32 || counts(t, pool, "p") != 24 || counts(t, pool, "q") != 24 {
		t.Errorf("%d were swept", swept)
	}
}

// Eight at once over three days: no 24 hours have more recipients than the limit, and whenever somebody is refused the
// limit is used up.
func TestReserveRecipientsAtOnce(t *testing.T) {
	pool := pgtest.New(t, pgtest.MaxConns(10))
	s := store.New(pool)
	const limit = 40
	type use struct {
		at   time.Time
		user string
	}
	var mu sync.Mutex
	uses := map[string][]use{}
	refused := map[string]int{}
	base := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	rng := rand.New(rand.NewPCG(7, 7)) //nolint:gosec // the same each time
	for round := range 30 {
		var wg sync.WaitGroup
		for g := range 8 {
			rng := rand.New(rand.NewPCG(uint64(round), uint64(g))) //nolint:gosec // the same each time
			at := base
			wg.Go(func() {
				for range 3 {
					wants := make([]store.RecipientWant, 4)
					for i := range wants {
						wants[i] = store.RecipientWant{PortfolioID: []string{"p", "q"}[rng.IntN(2)], Limit: limit, WAID: fmt.Sprint(rng.IntN(150)), At: at.Add(time.Duration(rng.IntN(3000)) * time.Millisecond)}
					}
					grants, err := s.ReserveRecipients(t.Context(), wants)
					if err != nil {
						t.Errorf("reserving: %v", err)
						return
					}
					var back []store.RecipientWant
					mu.Lock()
					for i, grant := range grants {
						w := wants[i]
						switch {
						case !grant.OK:
							refused[w.PortfolioID]++
							if !grant.FreeAt.After(at) {
								t.Errorf("a place was free at %v, and refused from %v on", grant.FreeAt, at)
							}
						case grant.New && rng.IntN(3) == 0:
							w.At = grant.At
							back = append(back, w)
						default:
							uses[w.PortfolioID] = append(uses[w.PortfolioID], use{w.At, w.WAID})
						}
					}
					mu.Unlock()
					if err := s.ReturnRecipients(t.Context(), back); err != nil {
						t.Errorf("giving back: %v", err)
					}
				}
			})
		}
		wg.Wait()
		base = base.Add(10*time.Second + time.Duration(rng.IntN(4))*time.Hour)
	}
	for _, portfolio := range []string{"p", "q"} {
		all := uses[portfolio]
		slices.SortFunc(all, func(a, b use) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
		most := 0
		for i, last := range all {
			users := map[string]bool{}
			for j := i; j >= 0 && last.at.Sub(all[j].at) < 24*time.Hour; j-- {
				users[all[j].user] = true
			}
			most = max(most, len(users))
		}
		if most > limit {
			t.Errorf("portfolio %s: %d recipients in 24 hours, allowed are %d", portfolio, most, limit)
		}
		if most < limit-2 || refused[portfolio] < 20 {
			t.Errorf("portfolio %s: %d recipients in 24 hours at the most, %d refused: the limit of %d was not tried", portfolio, most, refused[portfolio], limit)
		}
		if n := counts(t, pool, portfolio); n > limit {
			t.Errorf("portfolio %s: %d are counted", portfolio, n)
		}
	}
}
