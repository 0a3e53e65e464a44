package store

import (
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"wagate/internal/pgtest"
)

func TestAThrottlesLevelIsForgottenInAnHour(t *testing.T) {
	pool := pgtest.New(t)
	s := New(pool)
	for _, c := range []struct {
		until   string
		level   int
		endless bool
	}{
		{"now() + interval '1 minute'", 3, false}, {"now() - interval '59 minutes'", 3, false}, {"now() - interval '61 minutes'", 0, false}, {"NULL", 3, true},
	} {
		if _, err := pool.Exec(t.Context(), `DELETE FROM pauses`); err != nil {
			t.Fatal(err)
		}
		if _, err := pool.Exec(t.Context(), `INSERT INTO pauses (id, scope, value, reason, source, code, level, until)
			VALUES (gen_random_uuid(), 'phone', '200', 'x', 'throttle', 130429, 3, `+c.until+`), (gen_random_uuid(), 'phone', '200', 'x', 'operator', NULL, 0, NULL)`); err != nil {
			t.Fatal(err)
		}
		err := s.InTx(t.Context(), func(tx pgx.Tx) error {
			got, err := s.LockThrottle(t.Context(), tx, "phone", "200")
			if got.Level != c.level || got.Code != 130429 || got.Endless != c.endless || (got.Until == nil) != c.endless || got.Since.IsZero() || got.Now.IsZero() {
				t.Errorf("%s: %+v", c.until, got)
			}
			none, errOfNone := s.LockThrottle(t.Context(), tx, "phone", "201")
			if errOfNone != nil || none.Level != 0 || !none.Since.IsZero() || none.Until != nil || none.Endless || none.Now.IsZero() {
				t.Errorf("of none: %+v, %v", none, errOfNone)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestSuppressions(t *testing.T) {
	pool := pgtest.New(t)
	s := New(pool)
	day, week := time.Now().Add(24*time.Hour), time.Now().Add(7*24*time.Hour)
	put := func(set ...Suppression) {
		t.Helper()
		if err := s.InTx(t.Context(), func(tx pgx.Tx) error { return s.PutSuppressions(t.Context(), tx, set) }); err != nil {
			t.Fatal(err)
		}
	}
	kept := func() []string {
		t.Helper()
		return scalarList(t, pool, `SELECT waba_id || ' ' || wa_id || ' ' || reason FROM suppressions ORDER BY waba_id, wa_id`)
	}
	put(Suppression{"100", "1", "marketing", &day, "cap", 131049}, Suppression{"100", "1", "marketing", &week, "longer", 131049}, Suppression{"101", "1", "marketing", nil, "stop", 0})
	if got := kept(); !slices.Equal(got, []string{"100 1 longer", "101 1 stop"}) {
		t.Errorf("%v", got)
	}
	put(Suppression{"100", "1", "marketing", &day, "shorter", 131049}, Suppression{"101", "1", "marketing", &week, "cap", 131049})
	if got := kept(); !slices.Equal(got, []string{"100 1 longer", "101 1 stop"}) {
		t.Errorf("made shorter: %v", got)
	}
	err := s.InTx(t.Context(), func(tx pgx.Tx) error {
		for _, want := range []int64{1, 0} {
			if n, err := s.DropSuppressions(t.Context(), tx, "101", "marketing", []string{"1", "2"}); err != nil || n != want {
				t.Errorf("%d removed, %v, want %d", n, err, want)
			}
		}
		_, err := s.DropSuppressions(t.Context(), tx, "100", "marketing", nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := kept(); !slices.Equal(got, []string{"100 1 longer"}) {
		t.Errorf("after the removal: %v", got)
	}
	past := time.Now().Add(-time.Hour)
	put(Suppression{"100", "2", "marketing", &past, "over", 131049}, Suppression{"100", "3", "marketing", nil, "stop", 0})
	for after, want := range map[string][]string{"": {"1", "3"}, "1": {"3"}, "3": {}} {
		all, err := s.ListSuppressions(t.Context(), "100", after, 2)
		if err != nil {
			t.Fatal(err)
		}
		got := []string{}
		for _, x := range all {
			got = append(got, x.WAID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("after %q: %v, want %v", after, got, want)
		}
	}
}
