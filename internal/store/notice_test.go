package store

import (
	"testing"

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
