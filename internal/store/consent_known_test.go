package store

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/pgtest"
)

// Who is suppressed stays known by all names, however long ago they were learned.
func TestSuppressedUsersStayKnown(t *testing.T) {
	pool := pgtest.New(t)
	s := New(pool)
	must(t, pool, `INSERT INTO wabas (waba_id) VALUES ('100')`)
	must(t, pool, `INSERT INTO user_ids (user_id, wa_id, seen_at) VALUES ('US.1', '12025550101', now() - interval '99 days'),
		('BR.2', '551187654321', now() - interval '99 days'), ('US.3', '12025550103', now() - interval '99 days'), ('US.4', '12025550104', now() - interval '99 days')`)
	must(t, pool, `INSERT INTO wa_ids (input, wa_id, learned_at) VALUES
		('33612345678', '5511987654322', now() - interval '99 days'), ('33612345679', '12025550103', now() - interval '99 days'),
		('33612345670', '12025550104', now() - interval '99 days')`)
	must(t, pool, `INSERT INTO suppressions (waba_id, wa_id, category, reason) VALUES
		('100', '12025550101', 'marketing', 'x'), ('100', '5511987654321', 'marketing', 'x'), ('100', 'US.3', 'marketing', 'x'), ('100', '551187654322', 'marketing', 'x')`)
	for range 2 {
		if _, _, err := s.ForgetSpellings(t.Context(), "", time.Now(), 100); err != nil {
			t.Fatal(err)
		}
		if _, err := s.SweepUserIDs(t.Context(), 60, 100); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(scalarList(t, pool, `SELECT user_id FROM user_ids ORDER BY 1`), " "); got != "BR.2 US.1 US.3" {
		t.Errorf("user ids of %s are left", got)
	}
	if got := strings.Join(scalarList(t, pool, `SELECT input FROM wa_ids ORDER BY 1`), " "); got != "33612345678 33612345679" {
		t.Errorf("spellings %s are left", got)
	}
}

// What a fallback is decides who gets it: its category is the known template's where the caller has said none.
func TestAFallbackHasItsTemplatesCategory(t *testing.T) {
	pool := pgtest.New(t)
	s := New(pool)
	must(t, pool, `INSERT INTO wabas (waba_id) VALUES ('100'), ('101')`)
	must(t, pool, `INSERT INTO templates (waba_id, name, language, status, status_at, category) VALUES
		('100', 'offer', 'en', 'APPROVED', now(), 'MARKETING'), ('100', 'odd', 'en', 'APPROVED', now(), 'NEWS'), ('101', 'unknown', 'en', 'APPROVED', now(), 'MARKETING')`)
	for _, c := range []struct{ template, said, had, want string }{
		{"offer", "NULL", "NULL", "marketing"}, {"offer", "'utility'", "'service'", "utility"}, {"unknown", "NULL", "'service'", ""},
		{"unknown", "NULL", "'marketing'", "marketing"}, {"odd", "NULL", "NULL", ""},
	} {
		id := putMessage(t, pool, map[string]string{"fallback_template": "'" + c.template + "'", "fallback_language": "'en'", "fallback_category": c.said, "category": c.had})
		heardWord(t, s, func(tx pgx.Tx) error {
			_, err := s.UseFallbacks(t.Context(), tx, []uuid.UUID{id}, FallbackChecked, time.Now())
			return err
		})
		if got := scalarList(t, pool, `SELECT coalesce(category, '') FROM messages WHERE id = '`+id.String()+`'`)[0]; got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
