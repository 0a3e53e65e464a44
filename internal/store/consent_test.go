package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/pgtest"
)

func must(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func heardWord(t *testing.T, s *Store, f func(pgx.Tx) error) {
	t.Helper()
	if err := s.InTx(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// Every spelling leads to every other.
func TestUserKeys(t *testing.T) {
	pool := pgtest.New(t)
	must(t, pool, `INSERT INTO wa_ids (input, wa_id) VALUES ('33612345678', '33699999999')`)
	must(t, pool, `INSERT INTO user_ids (user_id, wa_id) VALUES ('BR.77', '551187654321'), ('US.1', '12025550101')`)
	for _, c := range []struct{ key, want string }{
		{"12025550100", "12025550100"},
		{"5511987654321", "551187654321 5511987654321 BR.77"},
		{"551187654321", "551187654321 5511987654321 BR.77"},
		{"BR.77", "551187654321 5511987654321"},
		{"US.2", "US.2"},
		{"5531912345678", "553112345678 5531912345678"}, // WhatsApp has it without the 9
		{"5511912345678", "5511912345678"},              // 1234-5678 in São Paulo is a landline of somebody else
		{"551112345678", "551112345678"},
		{"5215512345678", "5215512345678 525512345678"}, {"525512345678", "5215512345678 525512345678"},
		{"5491123456789", "541123456789 5491123456789"}, {"541123456789", "541123456789 5491123456789"},
		{"33612345678", "33612345678 33699999999"},
		{"33699999999", "33612345678 33699999999"},
	} {
		var keys []string
		if err := pool.QueryRow(t.Context(), `SELECT wagate_user_keys($1::text)`, c.key).Scan(&keys); err != nil {
			t.Fatal(err)
		}
		keys = slices.DeleteFunc(keys, func(k string) bool { return k == c.key && strings.Contains(c.key, ".") && c.want != c.key })
		slices.Sort(keys)
		keys = slices.Compact(keys)
		if got := strings.Join(keys, " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.key, got, c.want)
		}
	}
}

// suppressed says who says so that a marketing message to a recipient is not sent; empty when it is.
func suppressed(t *testing.T, pool *pgxpool.Pool, recipient, category string) string {
	t.Helper()
	id := putMessage(t, pool, map[string]string{"recipient": "'" + recipient + "'", "category": category})
	found, err := New(pool).LoadOutbound(t.Context(), []uuid.UUID{id})
	if err != nil || len(found) != 1 {
		t.Fatalf("%d messages, %v", len(found), err)
	}
	if o := found[id]; o.Suppressed {
		return o.SuppressedBy
	}
	return ""
}

// What a user has said counts by its time, in whatever order, sets and spellings the words come, and however often.
func TestTheNewestWordCountsInAnyOrder(t *testing.T) {
	pool := pgtest.New(t)
	s := New(pool)
	at := func(n int) time.Time {
		return time.Now().Add(-time.Hour).Truncate(time.Second).Add(time.Duration(n) * time.Second)
	}
	const a, b = "5511987654321", "551187654321"
	stop := func(n int, user, source string) func(context.Context, pgx.Tx) error {
		x := Suppression{WABAID: "100", WAID: user, Category: "marketing", Source: source, Reason: "stop", SaidAt: at(n)}
		return func(ctx context.Context, tx pgx.Tx) error { return s.PutSuppressions(ctx, tx, []Suppression{x}) }
	}
	resume := func(n int, user string, sources ...string) func(context.Context, pgx.Tx) error {
		var set []Lift
		for _, source := range sources {
			set = append(set, Lift{"100", user, source, at(n)})
		}
		return func(ctx context.Context, tx pgx.Tx) error { return s.LiftSuppressions(ctx, tx, set) }
	}
	for _, c := range []struct {
		name  string
		words []func(context.Context, pgx.Tx) error
		want  string
	}{
		{"stop", []func(context.Context, pgx.Tx) error{stop(1, a, FromPreference)}, "preference"},
		{"stop, resume", []func(context.Context, pgx.Tx) error{stop(1, a, FromPreference), resume(2, b, FromPreference)}, ""},
		{"resume, stop", []func(context.Context, pgx.Tx) error{resume(1, a, FromPreference), stop(2, b, FromPreference)}, "preference"},
		{"stop, resume, stop", []func(context.Context, pgx.Tx) error{stop(1, a, FromPreference), resume(2, b, FromPreference), stop(3, a, FromPreference)}, "preference"},
		{"both at once", []func(context.Context, pgx.Tx) error{stop(1, a, FromKeyword), resume(1, a, FromKeyword)}, "keyword"},
		{"131050, then resume", []func(context.Context, pgx.Tx) error{stop(1, b, FromMeta), resume(2, a, FromPreference, FromKeyword, FromMeta)}, ""},
		{"an opt-in word does not take back 131050", []func(context.Context, pgx.Tx) error{stop(1, b, FromMeta), resume(2, b, FromKeyword)}, "meta"},
		{"an operator's stays", []func(context.Context, pgx.Tx) error{
			func(ctx context.Context, _ pgx.Tx) error {
				_, err := s.AddSuppressions(ctx, "100", []string{b}, "told us by mail", nil)
				return err
			}, stop(1, a, FromPreference), resume(2, a, FromPreference, FromKeyword, FromMeta),
		}, "operator"},
	} {
		for round := range 6 {
			must(t, pool, `TRUNCATE suppressions; INSERT INTO wabas (waba_id) VALUES ('100') ON CONFLICT DO NOTHING`)
			words := append(slices.Clone(c.words), c.words...) // each comes twice
			if round > 0 {
				rand.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] }) //nolint:gosec // an order, no secret
			}
			for _, word := range words {
				heardWord(t, s, func(tx pgx.Tx) error { return word(t.Context(), tx) })
			}
			for _, to := range []string{"+55 11 98765-4321", "+551187654321", "5511987654321"} {
				if got := suppressed(t, pool, to, "'marketing'"); got != c.want {
					t.Errorf("%s, round %d, to %s: %q, want %q", c.name, round, to, got, c.want)
				}
			}
		}
	}
	for _, category := range []string{"'utility'", "'authentication'", "NULL"} {
		if got := suppressed(t, pool, "+"+a, category); got != "" {
			t.Errorf("of category %s: %q", category, got)
		}
	}
}

func TestSuppressionsForAWhile(t *testing.T) {
	pool := pgtest.New(t)
	s := New(pool)
	now := time.Now()
	put := func(code int, until time.Duration, reason string) {
		t.Helper()
		x := Suppression{WABAID: "100", WAID: "12025550100", Category: "marketing", Source: FromMeta, Code: code, Reason: reason}
		if until > 0 {
			end := now.Add(until)
			x.Until = &end
		}
		heardWord(t, s, func(tx pgx.Tx) error { return s.PutSuppressions(t.Context(), tx, []Suppression{x}) })
	}
	is := func() string {
		t.Helper()
		all, err := s.ListSuppressions(t.Context(), SuppressionFilter{WABAID: "100", Limit: 10})
		if err != nil || len(all) != 1 {
			t.Fatalf("%v, %v", all, err)
		}
		return fmt.Sprint(all[0].Reason, " ", all[0].Code, " ", all[0].Until == nil)
	}
	put(131049, time.Hour, "cap")
	put(131049, 2*time.Hour, "longer")
	put(131049, time.Minute, "shorter")
	if got := is(); got != "longer 131049 false" {
		t.Error(got)
	}
	heardWord(t, s, func(tx pgx.Tx) error {
		return s.LiftSuppressions(t.Context(), tx, []Lift{{"100", "12025550100", FromMeta, time.Now()}})
	})
	if got := is(); got != "longer 131049 false" {
		t.Errorf("resume lifted the cap of Meta: %s", got)
	}
	put(131050, 0, "stopped")
	put(131049, time.Hour, "cap")
	if got := is(); got != "stopped 131050 true" {
		t.Error(got)
	}
	must(t, pool, `UPDATE suppressions SET until = now() - interval '9 days'`)
	if n, err := s.SweepSuppressions(t.Context(), 10); n != 1 || err != nil {
		t.Errorf("%d removed, %v", n, err)
	}
}

func TestOperatorsSuppressions(t *testing.T) {
	pool := pgtest.New(t)
	s := New(pool)
	must(t, pool, `INSERT INTO wabas (waba_id) VALUES ('100'), ('101')`)
	if _, err := s.AddSuppressions(t.Context(), "999", []string{"1"}, "", nil); err == nil || err.Error() == "" {
		t.Error("a WABA that is not there was taken")
	}
	rows, err := s.AddSuppressions(t.Context(), "100", []string{"5511987654321", "12025550101", "12025550101", "US.1"}, "by mail", nil)
	if err != nil || len(rows) != 3 {
		t.Fatalf("%v, %v", rows, err)
	}
	heardWord(t, s, func(tx pgx.Tx) error {
		return s.PutSuppressions(t.Context(), tx, []Suppression{{WABAID: "101", WAID: "551187654321", Category: "marketing", Source: FromKeyword, Reason: "stop"}})
	})
	list := func(f SuppressionFilter) (got []string) {
		t.Helper()
		f.Limit = 2
		for {
			page, err := s.ListSuppressions(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range page {
				got = append(got, x.WABAID+" "+x.WAID)
				f.Before = x.ID
			}
			if len(page) < f.Limit {
				slices.Sort(got)
				return got
			}
		}
	}
	for _, c := range []struct {
		f    SuppressionFilter
		want []string
	}{
		{SuppressionFilter{}, []string{"100 12025550101", "100 5511987654321", "100 US.1", "101 551187654321"}},
		{SuppressionFilter{WABAID: "100"}, []string{"100 12025550101", "100 5511987654321", "100 US.1"}},
		{SuppressionFilter{User: "551187654321"}, []string{"100 5511987654321", "101 551187654321"}},
		{SuppressionFilter{Source: FromKeyword}, []string{"101 551187654321"}},
	} {
		if got := list(c.f); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.f, got, c.want)
		}
	}
	if n, err := s.LiftUser(t.Context(), "100", "551187654321"); n != 1 || err != nil {
		t.Errorf("%d lifted, %v", n, err)
	}
	if n, err := s.LiftUser(t.Context(), "100", "551187654321"); n != 0 || err != nil {
		t.Errorf("%d lifted again, %v", n, err)
	}
	for i, want := range []bool{true, false} {
		if err := s.LiftSuppression(t.Context(), rows[0].ID); (err == nil) != want {
			t.Errorf("lifting %d: %v", i, err)
		}
	}
	if got := list(SuppressionFilter{WABAID: "100"}); len(got) != 1 {
		t.Errorf("%v are left", got)
	}
	// What Meta posts again of before changes nothing.
	if n, err := s.LiftUser(t.Context(), "101", "5511987654321"); n != 1 || err != nil {
		t.Errorf("%d lifted, %v", n, err)
	}
	heardWord(t, s, func(tx pgx.Tx) error {
		return s.PutSuppressions(t.Context(), tx, []Suppression{{WABAID: "101", WAID: "551187654321", Category: "marketing", Source: FromKeyword, SaidAt: time.Now().Add(-time.Minute)}})
	})
	if got := list(SuppressionFilter{WABAID: "101"}); len(got) != 0 {
		t.Errorf("%v is back", got)
	}
	if rows, err = s.AddSuppressions(t.Context(), "100", []string{"5511987654321"}, "again", nil); err != nil || len(rows) != 1 || rows[0].Reason != "again" {
		t.Errorf("%v, %v", rows, err)
	}
}

func TestSpans(t *testing.T) {
	pool := pgtest.New(t)
	s := New(pool)
	must(t, pool, `INSERT INTO wabas (waba_id) VALUES ('100'); INSERT INTO phone_numbers (phone_number_id, waba_id) VALUES ('1', '100')`)
	start := time.Now().Add(-48 * time.Hour).Truncate(time.Second)
	h := func(hours float64) time.Time { return start.Add(time.Duration(hours * float64(time.Hour))) }
	for _, c := range []struct {
		name      string
		heard     PhoneHearing
		since, at float64 // hours
	}{
		{"first", PhoneHearing{First: h(0), Last: h(1)}, 0, 1},
		{"after a night", PhoneHearing{First: h(12), Last: h(12)}, 0, 12},
		{"in another order", PhoneHearing{First: h(11), Last: h(11)}, 0, 12},
		{"late", PhoneHearing{First: h(13), Last: h(13), Late: h(13)}, 13, 13},
		{"late again, a moment after", PhoneHearing{First: h(13.0005), Last: h(13.0005), Late: h(13.0005)}, 13.0005, 13.0005},
		{"late, in another order", PhoneHearing{First: h(12.5), Last: h(12.5), Late: h(12.5)}, 13.0005, 13.0005},
		{"after a silence", PhoneHearing{First: h(26), Last: h(27)}, 26, 27},
	} {
		heardWord(t, s, func(tx pgx.Tx) error {
			return s.HearPhones(t.Context(), tx, map[string]PhoneHearing{"1": c.heard, "2": c.heard})
		})
		e := evidence(t, s, "12025550100")
		if !e.HeardSince.Equal(h(c.since)) || !e.HeardAt.Equal(h(c.at)) {
			t.Errorf("%s: since %v, at %v; want %v and %v hours", c.name, e.HeardSince.Sub(start), e.HeardAt.Sub(start), c.since, c.at)
		}
	}
	if n := len(scalarList(t, pool, `SELECT phone_number_id FROM phone_spans`)); n != 1 {
		t.Errorf("%d spans; one phone number is ours", n)
	}
	if err := s.BreakSpans(t.Context(), map[string]time.Time{"1": h(26.5)}); err != nil || !evidence(t, s, "1202").HeardSince.Equal(h(26)) {
		t.Errorf("a message was heard of, and the span broken: %v", err)
	}
	if err := s.BreakSpans(t.Context(), map[string]time.Time{"1": h(28)}); err != nil || evidence(t, s, "1202").HeardSince.Before(h(47)) {
		t.Errorf("nothing was heard of a message, and the span goes on: %v", err)
	}

	beat := func() WindowEvidence {
		t.Helper()
		if err := s.Listen(t.Context()); err != nil {
			t.Fatal(err)
		}
		return evidence(t, s, "12025550100")
	}
	if e := evidence(t, s, "1202"); !e.ListenedAt.IsZero() {
		t.Errorf("%+v before any beat", e)
	}
	first := beat()
	if e := beat(); !e.ListenedSince.Equal(first.ListenedSince) || !e.ListenedAt.After(first.ListenedAt) {
		t.Errorf("the span did not go on: %+v", e)
	}
	must(t, pool, `UPDATE listening SET since = since - interval '1 day', at = at - interval '3 minutes'`)
	if e := beat(); e.ListenedSince.Before(first.ListenedSince) {
		t.Errorf("three minutes without a gateway are no gap: %+v", e)
	}
	must(t, pool, `UPDATE listening SET since = since - interval '1 day'`)
	heardWord(t, s, func(tx pgx.Tx) error { return s.BreakListening(t.Context(), tx) })
	if e := evidence(t, s, "1202"); e.ListenedSince.Before(first.ListenedSince) {
		t.Errorf("an unread webhook did not break the span: %+v", e)
	}
}

func evidence(t *testing.T, s *Store, recipient string) WindowEvidence {
	t.Helper()
	all, err := s.WindowEvidence(t.Context(), []WindowAsk{{"1", recipient}})
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	return all[0]
}

func TestWindowEvidence(t *testing.T) {
	pool := pgtest.New(t)
	s := New(pool)
	until := time.Now().Add(time.Hour).Truncate(time.Microsecond)
	heardWord(t, s, func(tx pgx.Tx) error {
		if err := s.LearnUserIDs(t.Context(), tx, map[string]string{"BR.77": "551187654321"}); err != nil {
			return err
		}
		return s.OpenWindows(t.Context(), tx, []Window{{"1", "551187654321", until}, {"1", "US.5", until}, {"2", "12025550100", until}})
	})
	for _, c := range []struct {
		recipient            string
		open, number, userID bool
	}{
		{"+55 11 98765-4321", true, true, true}, {"551187654321", true, true, true}, {"BR.77", true, true, true},
		{"US.5", true, false, true}, {"US.6", false, false, true}, {"+12025550100", false, true, false}, {"+1.202.555.0101", false, true, false},
		{"Y2FwaV9ncm91cDox", false, false, false},
	} {
		e := evidence(t, s, c.recipient)
		if e.Until.Equal(until) != c.open || e.NumberKnown != c.number || e.UserIDKnown != c.userID || e.Now.IsZero() {
			t.Errorf("%s: %+v, want %+v", c.recipient, e, c)
		}
	}
	// A user id of which the number becomes known stands for both.
	heardWord(t, s, func(tx pgx.Tx) error {
		return s.LearnUserIDs(t.Context(), tx, map[string]string{"US.5": "12025550105"})
	})
	if e := evidence(t, s, "+1 202 555 0105"); !e.Until.Equal(until) {
		t.Errorf("%+v", e)
	}
	if e := evidence(t, s, "1202"); !e.WaitingSince.IsZero() {
		t.Errorf("waiting since %v", e.WaitingSince)
	}
	must(t, pool, `INSERT INTO webhook_raw (id, app_id, body, attempts, error) VALUES (gen_random_uuid(), 'a', '', 1, 'no message for 1 of 1 statuses')`)
	if e := evidence(t, s, "1202"); !e.WaitingSince.IsZero() {
		t.Errorf("what was applied but for its statuses waits since %v", e.WaitingSince)
	}
	must(t, pool, `INSERT INTO webhook_raw (id, app_id, body) VALUES (gen_random_uuid(), 'a', '')`)
	if e := evidence(t, s, "1202"); e.WaitingSince.IsZero() || e.Waiting {
		t.Errorf("a waiting notification is not seen, or taken for a user's: %+v", e)
	}
	must(t, pool, `INSERT INTO webhook_raw (id, app_id, body) VALUES (gen_random_uuid(), 'a', '{"messages":[{"from":"12025550101"}]}')`)
	if e := evidence(t, s, "1202"); !e.Waiting {
		t.Error("a waiting message of a user is not seen")
	}
	for i, want := range []int64{0, 1} {
		if n, err := s.SweepUserIDs(t.Context(), 60, 10); n != want || err != nil {
			t.Errorf("sweep %d: %d, %v", i, n, err)
		}
		must(t, pool, `UPDATE user_ids SET seen_at = now() - interval '61 days' WHERE user_id = 'US.5'`)
	}
}

func TestFallbacks(t *testing.T) {
	pool := pgtest.New(t)
	s := New(pool)
	with := map[string]string{"fallback_template": "'hello'", "fallback_language": "'en_US'", "fallback_category": "'utility'", "category": "'service'"}
	waits, plain := putMessage(t, pool, with), putMessage(t, pool, nil)
	with["status"] = "'accepted'"
	gone := putMessage(t, pool, with)
	use := func() (changed map[uuid.UUID]bool) {
		t.Helper()
		heardWord(t, s, func(tx pgx.Tx) (err error) {
			changed, err = s.UseFallbacks(t.Context(), tx, []uuid.UUID{waits, plain, gone}, FallbackChecked, time.Now())
			return err
		})
		return changed
	}
	if got := use(); len(got) != 1 || !got[waits] {
		t.Errorf("%v", got)
	}
	if got := use(); len(got) != 0 {
		t.Errorf("used twice: %v", got)
	}
	m, err := s.GetMessage(t.Context(), waits)
	if err != nil || m.Type != "template" || *m.TemplateName != "hello" || *m.TemplateLanguage != "en_US" || *m.Category != "utility" ||
		*m.FallbackFrom != "text" || m.FallbackAt == nil || m.Status != "queued" {
		t.Errorf("%+v, %v", m, err)
	}
	if got := scalarList(t, pool, `SELECT kind || ' ' || detail::text FROM message_events`); len(got) != 1 || got[0] != `fallback {"by": "window_check", "from": "text", "template": "hello"}` {
		t.Errorf("%v", got)
	}
	found, err := s.LoadOutbound(t.Context(), []uuid.UUID{waits, plain})
	if err != nil || found[waits].Fallback || !found[waits].FallbackUsed || found[plain].FallbackUsed {
		t.Errorf("%+v, %v", found, err)
	}
}
