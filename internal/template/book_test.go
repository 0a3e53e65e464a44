package template

import (
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"wagate/internal/pgtest"
	"wagate/internal/store"
)

// book gives a Book, which ends with the test.
func (r *rig) book() *Book {
	b := NewBook(r.store, slog.New(slog.DiscardHandler))
	r.Cleanup(b.Close)
	return b
}

// verdict is what a Book says of a message: the category, and pointers.
func verdict(t *testing.T, b *Book, name, language, components string, later bool) string {
	t.Helper()
	m := &store.NewMessage{PhoneNumberID: "101", TemplateName: name, TemplateLanguage: language,
		Body: fmt.Appendf(nil, `{"type":"template","template":{"name":%q,"language":{"code":%q},"components":[%s]}}`, name, language, components)}
	category, faults := b.Template(t.Context(), m, b.Prepare(t.Context(), []string{"101"}), later)
	out := string(category)
	for _, f := range faults {
		out += fmt.Sprintf(" %d %s", f.Code, f.Pointer)
	}
	return out
}

// forget makes a Book look again at once.
func forget(b *Book) {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.phones)
}

func TestWhatABookSays(t *testing.T) {
	r := newRig(t)
	r.list = []string{
		listed("hello", "en_US", "APPROVED"), listed("hello", "de", "PENDING"), listed("paused", "en", "PAUSED"), listed("off", "en", "DISABLED"), listed("flagged", "en", "FLAGGED"),
		listed("rejected", "en", "REJECTED"), listed("word", "en", "SOMETHING_NEW"),
		`{"name":"odd","language":"en","status":"APPROVED","category":"SOMETHING_NEW","components":[{"type":"BODY","text":"{{1}}"}],"parameter_format":"ROMAN"}`,
		`{"name":"bare","language":"en","status":"APPROVED"}`,
	}
	if err := r.syncer().Refresh(t.Context(), "100"); err != nil {
		t.Fatal(err)
	}
	r.run(`INSERT INTO templates (waba_id, name, language, status, status_at, approved_at, gone_at) VALUES
		('100', 'gone', 'en', 'APPROVED', now(), now(), now()), ('100', 'deleted', 'en', 'DELETED', now(), now(), NULL), ('100', 'told', 'en', 'APPROVED', now(), now(), NULL),
		('100', 'edited', 'en', 'PENDING', now(), now(), NULL), ('100', 'quality', 'en', '', 'epoch', NULL, NULL)`)
	const one = `{"type":"body","parameters":[{"type":"text","text":"x"}]}`
	b := r.book()
	for _, c := range []struct{ name, language, components, now, later string }{
		{"hello", "en_US", one, "utility", "utility"},
		{"hello", "en_us", one, "utility", "utility"},
		{"hello", "EN-US", one, "utility", "utility"},
		{"hello", "en_US", "", "utility 132000 /template/components", "utility 132000 /template/components"},
		{"hello", "en", one, " 132001 /template/language/code", ""},
		{"hello", "de", one, "utility 132001 /template/name", "utility"},
		{"paused", "en", one, "utility", "utility"},
		{"paused", "en", "", "utility 132000 /template/components", "utility 132000 /template/components"},
		{"off", "en", one, "utility", "utility"},
		{"flagged", "en", one, "utility", "utility"},
		{"word", "en", one, "utility", "utility"},
		{"rejected", "en", one, "utility 132001 /template/name", "utility"},
		{"odd", "en", "", "", ""},
		{"bare", "en", "", "", ""},
		{"gone", "en", "", " 132001 /template/name", ""},
		{"gone", "de", "", "", ""}, // whatever is there of it now is not known
		{"deleted", "en", "", " 132001 /template/name", ""},
		{"told", "en", "", "", ""},
		{"told", "de", "", "", ""}, // no list has told which languages it has
		{"edited", "en", "", "", ""},
		{"quality", "en", "", "", ""},
		{"unknown", "en", "", "", ""},
	} {
		if got := verdict(t, b, c.name, c.language, c.components, false); got != c.now {
			t.Errorf("%s %s: %q, want %q", c.name, c.language, got, c.now)
		}
		if got := verdict(t, b, c.name, c.language, c.components, true); got != c.later {
			t.Errorf("%s %s, later: %q, want %q", c.name, c.language, got, c.later)
		}
	}
	for name, languages := range b.wabas["100"].names { // thousands of templates of thousands of WABAs: not their texts as well
		for _, k := range languages {
			if k.Components != nil {
				t.Errorf("the components of %s are kept beside what was read from them", name)
			}
		}
	}
	for what, sql := range map[string]string{
		"an old list":     `UPDATE template_syncs SET synced_at = now() - interval '61 minutes'`,
		"no whole list":   `UPDATE template_syncs SET synced_at = NULL`,
		"a stale list":    `UPDATE template_syncs SET synced_at = now(), stale_at = now() - interval '1 second'`,
		"doubt":           `UPDATE templates SET doubted_at = now(), status = 'APPROVED', gone_at = NULL`,
		"another account": `UPDATE phone_numbers SET waba_id = '300'`,
	} {
		r.run(`INSERT INTO wabas (waba_id) VALUES ('300') ON CONFLICT DO NOTHING`)
		r.run(sql)
		r.run(`UPDATE template_syncs SET version = version + 1`)
		// The Book believes otherwise, and looks before it refuses.
		if got := verdict(t, b, "hello", "en_US", "", false); strings.Contains(got, "/") {
			t.Errorf("%s: %s", what, got)
		}
		r.run(`UPDATE template_syncs SET synced_at = now(), stale_at = NULL, version = version + 1`)
		r.run(`UPDATE templates SET doubted_at = NULL`)
		r.run(`UPDATE phone_numbers SET waba_id = '100'`)
		forget(b)
		if got := verdict(t, b, "hello", "en_US", "", false); !strings.Contains(got, "132000") {
			t.Errorf("after %s: %s", what, got)
		}
	}
}

// What is known costs one look in two seconds, a refusal one more; the list is asked for by a refusal, not by each.
func TestABookLooksSeldom(t *testing.T) {
	r := newRig(t)
	r.list = []string{listed("hello", "en", "APPROVED")}
	if err := r.syncer().Refresh(t.Context(), "100"); err != nil {
		t.Fatal(err)
	}
	b := r.book()
	const one = `{"type":"body","parameters":[{"type":"text","text":"x"}]}`
	if got := verdict(t, b, "hello", "en", one, false); got != "utility" {
		t.Fatal(got)
	}
	e := b.phone("101")
	for range 1000 {
		if got := verdict(t, b, "hello", "en", one, false); got != "utility" {
			t.Fatal(got)
		}
	}
	if age := time.Since(e.at); age < freshFor && b.phone("101") != e {
		t.Error("it looked again within two seconds")
	}
	if got := r.text(`SELECT coalesce(wanted_at::text, 'no') FROM template_syncs`); got != "no" {
		t.Errorf("the list is wanted since %s", got)
	}
	// Many refusals of one moment share a look.
	since := b.Prepare(t.Context(), []string{"101"})
	e = b.phone("101")
	m := &store.NewMessage{PhoneNumberID: "101", TemplateName: "hello", TemplateLanguage: "en", Body: []byte(`{"type":"template","template":{}}`)}
	var seen []*entry
	for range 100 {
		if _, faults := b.Template(t.Context(), m, since, false); len(faults) != 1 {
			t.Fatal(faults)
		}
		if now := b.phone("101"); !slices.Contains(seen, now) {
			seen = append(seen, now)
		}
	}
	if len(seen) != 1 || seen[0] == e && e.at.Before(since) {
		t.Errorf("%d looks for one moment", len(seen))
	}
	if got := r.text(`SELECT coalesce(wanted_at::text, 'no') FROM template_syncs`); got == "no" {
		t.Error("a refusal did not ask for the list")
	}
	r.run(`UPDATE template_syncs SET wanted_at = NULL`)
	if _, faults := b.Template(t.Context(), m, time.Now(), false); len(faults) != 1 {
		t.Fatal(faults)
	}
	if got := r.text(`SELECT coalesce(wanted_at::text, 'no') FROM template_syncs`); got != "no" {
		t.Error("a second refusal asked again")
	}
}

// Without the database nothing is refused, and what was known of categories still is.
func TestABookWithoutADatabase(t *testing.T) {
	r := newRig(t)
	r.list = []string{listed("hello", "en", "APPROVED")}
	if err := r.syncer().Refresh(t.Context(), "100"); err != nil {
		t.Fatal(err)
	}
	b := r.book()
	if got := verdict(t, b, "hello", "en", "", false); got != "utility 132000 /template/components" {
		t.Fatal(got)
	}
	r.run(`ALTER TABLE template_syncs RENAME TO away`)
	if got := verdict(t, b, "hello", "en", "", false); got != "utility" {
		t.Errorf("known before: %q", got)
	}
	forget(b)
	if got := verdict(t, b, "hello", "en", "", false); got != "" {
		t.Errorf("never known: %q", got)
	}
	r.run(`ALTER TABLE away RENAME TO template_syncs`)
	if got := verdict(t, b, "hello", "en", "", false); got != "utility 132000 /template/components" {
		t.Errorf("back: %q", got)
	}
}

// Many messages of many numbers at once, while what is known changes.
func TestABookIsShared(t *testing.T) {
	r := newRig(t)
	r.fill(50)
	if err := r.syncer().Refresh(t.Context(), "100"); err != nil {
		t.Fatal(err)
	}
	var phones []string
	for i := range 20 {
		phones = append(phones, strconv.Itoa(1000+i))
		if err := r.store.PutPhoneNumber(t.Context(), store.PhoneNumber{ID: phones[i], WABAID: "100", Burst: 1, WindowCheck: "off"}); err != nil {
			t.Fatal(err)
		}
	}
	b := r.book()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				since := b.Prepare(t.Context(), phones)
				m := &store.NewMessage{PhoneNumberID: phones[(w+i)%20], TemplateName: fmt.Sprintf("t_%04d", i), TemplateLanguage: "en", Body: []byte(`{"template":{}}`)}
				if category, faults := b.Template(t.Context(), m, since, false); category != "utility" || len(faults) != 1 {
					t.Errorf("%s, %v", category, faults)
				}
				if w == 0 && i%10 == 0 {
					if err := r.syncer().Refresh(t.Context(), "100"); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkBook is what a template message costs that is in order: no visit of the database.
func BenchmarkBook(b *testing.B) {
	pool := pgtest.New(b)
	s := store.New(pool)
	for _, err := range []error{
		s.PutWABA(b.Context(), store.WABA{ID: "100", Burst: 1, ManagementCallsPerHour: 5000}, nil), s.PutPhoneNumber(b.Context(), store.PhoneNumber{ID: "101", WABAID: "100", Burst: 1, WindowCheck: "off"}),
	} {
		if err != nil {
			b.Fatal(err)
		}
	}
	at, _, err := s.ClaimTemplates(b.Context(), "100")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.KeepTemplates(b.Context(), store.TemplateList{WABAID: "100", AskedAt: at, Pages: 1, Complete: true, Templates: []store.ListedTemplate{
		{Name: "hello", Language: "en", Status: "APPROVED", Category: "UTILITY", Components: []byte(`[{"type":"BODY","text":"Hello {{1}}."}]`)}}}); err != nil {
		b.Fatal(err)
	}
	book := NewBook(s, slog.New(slog.DiscardHandler))
	b.Cleanup(book.Close)
	m := &store.NewMessage{PhoneNumberID: "101", TemplateName: "hello", TemplateLanguage: "en",
		Body: []byte(`{"type":"template","template":{"name":"hello","language":{"code":"en"},"components":[{"type":"body","parameters":[{"type":"text","text":"x"}]}]}}`)}
	b.ReportAllocs()
	for b.Loop() {
		if category, faults := book.Template(b.Context(), m, book.Prepare(b.Context(), []string{"101"}), false); category != "utility" || len(faults) > 0 {
			b.Fatal(category, faults)
		}
	}
}
