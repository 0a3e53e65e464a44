package store_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/pgtest"
	"wagate/internal/store"
)

// templateRig has a WABA 100 with a token and one without.
type templateRig struct {
	*testing.T
	pool *pgxpool.Pool
	*store.Store
}

func newTemplateRig(t *testing.T) templateRig {
	t.Helper()
	pool := pgtest.New(t)
	r := templateRig{t, pool, store.New(pool)}
	for _, w := range []store.WABA{{ID: "100", Burst: 1, ManagementCallsPerHour: 5000, AccessToken: []byte("sealed")}, {ID: "200", Burst: 1, ManagementCallsPerHour: 5000}} {
		if err := r.PutWABA(t.Context(), w, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.PutPhoneNumber(t.Context(), store.PhoneNumber{ID: "101", WABAID: "100", Burst: 1, WindowCheck: "off"}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r templateRig) run(sql string, args ...any) {
	r.Helper()
	if _, err := r.pool.Exec(r.Context(), sql, args...); err != nil {
		r.Fatal(err)
	}
}

func (r templateRig) text(sql string, args ...any) (s string) {
	r.Helper()
	if err := r.pool.QueryRow(r.Context(), sql, args...).Scan(&s); err != nil {
		r.Fatal(err)
	}
	return s
}

func (r templateRig) claim() time.Time {
	r.Helper()
	at, ok, err := r.ClaimTemplates(r.Context(), "100")
	if err != nil || !ok {
		r.Fatalf("claiming: %t, %v", ok, err)
	}
	return at
}

// keep takes in a list of name/language=STATUS words; it ends with … where it is not complete.
func (r templateRig) keep(pages int, words string) []store.ListedNews {
	r.Helper()
	l := store.TemplateList{WABAID: "100", AskedAt: r.claim(), Pages: pages, Complete: true, Every: 35 * time.Minute}
	for w := range strings.FieldsSeq(words) {
		if w == "…" {
			l.Complete = false
			continue
		}
		key, status, _ := strings.Cut(w, "=")
		name, language, _ := strings.Cut(key, "/")
		status, quality, _ := strings.Cut(status, "+")
		l.Templates = append(l.Templates, store.ListedTemplate{Name: name, Language: language, MetaID: "1", Status: status, Category: "UTILITY", Quality: quality,
			ParameterFormat: "POSITIONAL", Components: []byte(`[{"type":"BODY","text":"\u0000 Hello {{1}}."}]`), Approved: status != "PENDING"})
	}
	news, err := r.KeepTemplates(r.Context(), l)
	if err != nil {
		r.Fatal(err)
	}
	return news
}

func (r templateRig) state() string {
	r.Helper()
	return r.text(`SELECT coalesce(string_agg(name || '/' || language || '=' || status || CASE WHEN gone_at IS NOT NULL THEN ' gone' WHEN missed_at IS NOT NULL THEN ' missed' ELSE '' END, ', ' ORDER BY name, language), '') FROM templates`)
}

// older moves what was heard and read so far into the past.
func (r templateRig) older(by string) {
	r.Helper()
	r.run(`UPDATE templates SET status_at = status_at - $1::text::interval, category_at = category_at - $1::text::interval, quality_at = quality_at - $1::text::interval,
		listed_at = listed_at - $1::text::interval, components_at = components_at - $1::text::interval, missed_at = missed_at - $1::text::interval, gone_at = gone_at - $1::text::interval`, by)
	r.run(`UPDATE pauses SET updated_at = updated_at - $1::text::interval`, by)
	r.run(`UPDATE template_syncs SET synced_at = synced_at - $1::text::interval, tried_at = tried_at - $1::text::interval, wanted_at = wanted_at - $1::text::interval,
		stale_at = stale_at - $1::text::interval, next_at = next_at - $1::text::interval`, by)
}

func TestAListOfTemplatesIsKept(t *testing.T) {
	r := newTemplateRig(t)
	r.keep(1, "a/en=APPROVED a/de=PENDING b/en=APPROVED c/en=DISABLED")
	if got := r.state(); got != "a/de=PENDING, a/en=APPROVED, b/en=APPROVED, c/en=DISABLED" {
		t.Fatal(got)
	}
	all, err := r.TemplatesOf(t.Context(), "100", 10)
	if err != nil || len(all) != 4 || !all[1].Sure || all[1].ApprovedAt == nil || all[0].ApprovedAt != nil || string(all[1].Components) != `[{"type":"BODY","text":"\u0000 Hello {{1}}."}]` {
		t.Fatalf("%+v, %v", all, err)
	}
	// What vanishes is gone; what is listed again is back.
	r.older("1 minute")
	r.keep(1, "a/en=APPROVED b/en=APPROVED c/en=DISABLED …")
	if got := r.state(); got != "a/de=PENDING, a/en=APPROVED, b/en=APPROVED, c/en=DISABLED" {
		t.Errorf("a list that is not complete: %s", got)
	}
	r.older("1 minute")
	r.keep(1, "a/en=APPROVED c/en=DISABLED")
	if got := r.state(); got != "a/de=PENDING gone, a/en=APPROVED, b/en=APPROVED gone, c/en=DISABLED" {
		t.Errorf("what vanished: %s", got)
	}
	r.older("1 minute")
	r.keep(3, "b/en=APPROVED c/en=DISABLED")
	if got := r.state(); got != "a/de=PENDING gone, a/en=APPROVED missed, b/en=APPROVED, c/en=DISABLED" {
		t.Errorf("what is missing on one of several pages: %s", got)
	}
	r.older("1 minute")
	r.keep(3, "b/en=APPROVED c/en=DISABLED")
	if got := r.state(); got != "a/de=PENDING gone, a/en=APPROVED gone, b/en=APPROVED, c/en=DISABLED" {
		t.Errorf("and in the next list too: %s", got)
	}
	r.older("31 days")
	r.keep(1, "b/en=APPROVED")
	if got := r.state(); got != "b/en=APPROVED, c/en=DISABLED gone" {
		t.Errorf("a month later: %s", got)
	}
	// A WABA that goes takes its templates with it.
	r.run(`DELETE FROM phone_numbers`)
	if err := r.DeleteWABA(t.Context(), "100"); err != nil || r.state() != "" {
		t.Errorf("%v, %s", err, r.state())
	}
	if _, _, err := r.ClaimTemplates(t.Context(), "100"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("claiming it: %v", err)
	}
}

// A list goes over no webhook that came while it was read, and takes nothing for deleted that was told of meanwhile.
func TestAListGoesOverNoNewerWord(t *testing.T) {
	r := newTemplateRig(t)
	r.keep(1, "a/en=APPROVED b/en=APPROVED")
	r.older("1 minute")
	asked := r.claim()
	err := r.InTx(t.Context(), func(tx pgx.Tx) error {
		_, err := r.HearTemplates(t.Context(), tx, []store.TemplateWord{
			{WABAID: "100", Name: "a", Language: "en", At: asked.Add(-2 * time.Second).Truncate(time.Second), Status: "PAUSED", Category: "MARKETING"},
			{WABAID: "100", Name: "new", Language: "en", At: asked, Status: "APPROVED", Category: "UTILITY"},
			{WABAID: "100", Name: "b", Language: "en", At: asked, Components: true},
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.KeepTemplates(t.Context(), store.TemplateList{WABAID: "100", AskedAt: asked, Pages: 1, Complete: true, Every: time.Minute, Templates: []store.ListedTemplate{
		{Name: "a", Language: "en", Status: "APPROVED", Category: "UTILITY", Components: []byte(`[]`)}, {Name: "b", Language: "en", Status: "APPROVED", Components: []byte(`[]`)},
	}}); err != nil {
		t.Fatal(err)
	}
	if got := r.state() + r.text(`SELECT ' ' || category FROM templates WHERE name = 'a'`); got != "a/en=PAUSED, b/en=APPROVED, new/en=APPROVED MARKETING" {
		t.Error(got)
	}
	all, err := r.TemplatesOf(t.Context(), "100", 10)
	if err != nil || !all[0].Sure || all[1].Sure || all[2].Sure {
		t.Errorf("components of b were changed after the list was asked for: %+v, %v", all, err)
	}
	// Another list has them.
	r.keep(1, "a/en=APPROVED b/en=APPROVED new/en=APPROVED")
	if all, err = r.TemplatesOf(t.Context(), "100", 10); err != nil || !all[1].Sure || !all[2].Sure {
		t.Errorf("%+v, %v", all, err)
	}
}

// A list holds the messages of what is paused, and lets those go whose template is approved again; it tells what is news.
func TestAListHoldsAndLetsGo(t *testing.T) {
	r := newTemplateRig(t)
	pauses := func() string {
		return r.text(`SELECT coalesce(string_agg(value || ' ' || source || ' ' || coalesce(code, 0) || CASE WHEN until IS NULL THEN ' lifted' ELSE '' END, ', ' ORDER BY value, source), '') FROM pauses`)
	}
	r.run(`INSERT INTO pauses (id, scope, value, reason, source, code, level, until, updated_at) VALUES
		(gen_random_uuid(), 'template', '100:back/en', 'r', 'throttle', 132015, 1, now() + interval '3 hours', now() - interval '1 hour'),
		(gen_random_uuid(), 'template', '100:back/en', 'told to', 'operator', NULL, 0, NULL, now() - interval '1 hour'),
		(gen_random_uuid(), 'template', '100:missing/en', 'r', 'throttle', 132001, 1, now() + interval '1 hour', now() - interval '1 hour'),
		(gen_random_uuid(), 'template', '100:late/en', 'r', 'throttle', 132015, 1, now() + interval '1 hour', now()),
		(gen_random_uuid(), 'template', '200:back/en', 'r', 'throttle', 132015, 1, now() + interval '3 hours', now() - interval '1 hour')`)
	news := r.keep(1, "back/en=APPROVED+GREEN missing/en=APPROVED late/en=APPROVED held/en=PAUSED+RED off/en=DISABLED")
	const left = "100:back/en operator 0 lifted, 100:held/en throttle 132015 lifted, 100:late/en throttle 132015, 100:missing/en throttle 132001, 200:back/en throttle 132015"
	if got := pauses(); got != left {
		t.Errorf("paused\n%s, want\n%s", got, left)
	}
	if len(news) != 1 || news[0] != (store.ListedNews{Name: "held", Language: "en", Paused: "PAUSED"}) {
		t.Errorf("news %+v", news)
	}
	r.older("1 minute")
	news = r.keep(1, "back/en=DISABLED+YELLOW missing/en=APPROVED late/en=APPROVED held/en=PAUSED+RED off/en=DISABLED")
	if len(news) != 1 || news[0] != (store.ListedNews{Name: "back", Language: "en", Paused: "DISABLED", Quality: "YELLOW", QualityBefore: "GREEN"}) {
		t.Errorf("news %+v", news)
	}
	if got := r.text(`SELECT quality || ' ' || quality_before FROM templates WHERE name = 'back'`); got != "YELLOW GREEN" {
		t.Errorf("quality %s", got)
	}
	r.older("1 minute")
	r.keep(1, "back/en=APPROVED+GREEN missing/en=APPROVED late/en=APPROVED held/en=APPROVED off/en=DISABLED")
	if got := pauses(); got != "100:back/en operator 0 lifted, 100:missing/en throttle 132001, 200:back/en throttle 132015" {
		t.Errorf("paused %s", got)
	}
}

// When a list is read, and what is believed of it.
func TestWhenTemplatesAreRead(t *testing.T) {
	r := newTemplateRig(t)
	due := func() bool {
		t.Helper()
		ids, err := r.TemplatesToRead(t.Context(), []string{"100", "200", "300"})
		if err != nil || len(ids) > 1 || len(ids) == 1 && ids[0] != "100" {
			t.Fatalf("%v, %v", ids, err)
		}
		return len(ids) == 1
	}
	trusted := func() bool {
		t.Helper()
		all, err := r.TemplatesOfPhones(t.Context(), []string{"101", "999"})
		if err != nil || len(all) != 1 || all[0].WABAID != "100" {
			t.Fatalf("%+v, %v", all, err)
		}
		return all[0].Trusted
	}
	want := func(what string, read, believed bool) {
		t.Helper()
		if d, b := due(), trusted(); d != read || b != believed {
			t.Errorf("%s: due %t, trusted %t; want %t, %t", what, d, b, read, believed)
		}
	}
	want("a new WABA with a token", true, false)
	asked := r.claim()
	want("claimed", false, false)
	if _, ok, err := r.ClaimTemplates(t.Context(), "100"); ok || err != nil {
		t.Errorf("claimed twice: %t, %v", ok, err)
	}
	first, failures, err := r.MissTemplates(t.Context(), "100", asked, time.Minute, "no token")
	if err != nil || !first || failures != 1 {
		t.Errorf("%t, %d, %v", first, failures, err)
	}
	want("after a failure", false, false)
	r.older("61 seconds")
	want("a minute later", true, false)
	if first, failures, err = r.MissTemplates(t.Context(), "100", r.claim(), time.Minute, "no token"); err != nil || first || failures != 2 {
		t.Errorf("%t, %d, %v", first, failures, err)
	}
	r.keep(1, "a/en=APPROVED …")
	want("a list that is not complete", false, false)
	r.keep(1, "a/en=APPROVED")
	want("a list", false, true)

	if err := r.WantTemplates(t.Context(), "100"); err != nil {
		t.Fatal(err)
	}
	want("asked for at once", false, true)
	r.older("31 seconds")
	want("asked for half a minute ago, half a minute after the last list", false, true)
	r.older("30 seconds")
	want("a minute after it", true, true)
	r.keep(1, "a/en=APPROVED")
	want("read", false, true)

	if err := r.StaleTemplates(t.Context(), "100"); err != nil {
		t.Fatal(err)
	}
	want("after a write", false, false)
	r.keep(1, "a/en=APPROVED") // it may lag
	want("read in the moment of the write", false, false)
	r.older("61 seconds")
	want("a minute later", true, false)
	r.keep(1, "a/en=APPROVED")
	want("read then", false, true)

	r.older("34 minutes")
	want("after 34 minutes", false, true)
	r.older("70 seconds")
	want("after 35 minutes", true, true)
	r.older("25 minutes")
	want("after an hour", true, false)

	// Of a WABA with few calls a long list takes a tenth at the most.
	r.run(`UPDATE phone_numbers SET registered = false`)
	r.keep(20, "a/en=APPROVED")
	if got := r.text(`SELECT round(extract(epoch FROM next_at - clock_timestamp()) / 60)::text FROM template_syncs`); got != "60" {
		t.Errorf("20 pages of 200 calls are read again after %s minutes, want 60", got)
	}
	if err := r.WantTemplates(t.Context(), "100"); err != nil {
		t.Fatal(err)
	}
	r.older("29 minutes")
	want("and when something asks for it, not within half an hour", false, true)
}

func TestListTemplates(t *testing.T) {
	r := newTemplateRig(t)
	r.keep(1, "a/de=APPROVED a/en=APPROVED b/en=PENDING c/en=APPROVED")
	r.older("1 minute")
	r.keep(1, "a/de=APPROVED a/en=APPROVED b/en=PENDING")
	for _, c := range []struct {
		f    store.TemplateFilter
		want string
	}{
		{store.TemplateFilter{WABAIDs: []string{"100"}, Limit: 10}, "a/de a/en b/en c/en"},
		{store.TemplateFilter{WABAIDs: []string{"100"}, Limit: 2}, "a/de a/en"},
		{store.TemplateFilter{WABAIDs: []string{"100"}, Limit: 2, After: store.TemplateKey{WABAID: "100", Name: "a", Language: "en"}}, "b/en c/en"},
		{store.TemplateFilter{WABAIDs: []string{"100"}, Limit: 10, Name: "a", Language: "de"}, "a/de"},
		{store.TemplateFilter{WABAIDs: []string{"100"}, Limit: 10, Status: "APPROVED"}, "a/de a/en"},
		{store.TemplateFilter{WABAIDs: []string{"100"}, Limit: 10, Status: "GONE"}, "c/en"},
		{store.TemplateFilter{WABAIDs: []string{"100"}, Limit: 10, Category: "MARKETING"}, ""},
		{store.TemplateFilter{WABAIDs: []string{"200"}, Limit: 10}, ""},
		{store.TemplateFilter{Limit: 10}, ""},
	} {
		all, err := r.ListTemplates(t.Context(), c.f)
		var got []string
		for _, x := range all {
			got = append(got, x.Name+"/"+x.Language)
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %v, %v, want %s", c.f, got, err, c.want)
		}
	}
	for _, c := range []struct {
		wabas, phones []string
		want          string
	}{{nil, nil, "100 200"}, {[]string{"200", "300"}, nil, "200"}, {nil, []string{"101"}, "100"}, {[]string{"200"}, []string{"101"}, ""}} {
		syncs, err := r.TemplateSyncs(t.Context(), c.wabas, c.phones)
		var got []string
		for _, s := range syncs {
			got = append(got, s.WABAID)
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("syncs of %v by %v: %v, %v", c.wabas, c.phones, got, err)
		}
	}
}

// Thousands of templates are kept and read in one go each.
func BenchmarkKeepTemplates(b *testing.B) {
	pool := pgtest.New(b)
	s := store.New(pool)
	if err := s.PutWABA(b.Context(), store.WABA{ID: "100", Burst: 1, ManagementCallsPerHour: 5000}, nil); err != nil {
		b.Fatal(err)
	}
	body := []byte(`[{"type":"BODY","text":"` + strings.Repeat("Hello {{1}}. ", 60) + `"}]`)
	var all []store.ListedTemplate
	for i := range 6000 {
		all = append(all, store.ListedTemplate{Name: fmt.Sprintf("template_%04d", i), Language: "en", Status: "APPROVED", Category: "UTILITY", Components: body})
	}
	for b.Loop() {
		at, ok, err := s.ClaimTemplates(b.Context(), "100")
		if err != nil || !ok {
			b.Fatal(ok, err)
		}
		if _, err := s.KeepTemplates(b.Context(), store.TemplateList{WABAID: "100", AskedAt: at, Pages: 24, Complete: true, Templates: slices.Clone(all)}); err != nil {
			b.Fatal(err)
		}
	}
}
