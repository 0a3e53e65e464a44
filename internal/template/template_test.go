package template

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"wagate/internal/cloudapi"
	"wagate/internal/pgtest"
	"wagate/internal/sender"
	"wagate/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }

// rig is a database with WABA 100, its number 101, and a list of templates that is Meta's.
type rig struct {
	*testing.T
	pool  *pgxpool.Pool
	store *store.Store

	mu     sync.Mutex
	list   []string     // each template as JSON
	calls  []url.Values // what was asked for
	answer func(call int, query url.Values) ([]byte, error)
	token  error
}

func newRig(t *testing.T) *rig {
	t.Helper()
	pool := pgtest.New(t)
	r := &rig{T: t, pool: pool, store: store.New(pool)}
	if err := r.store.PutWABA(t.Context(), store.WABA{ID: "100", Burst: 1, ManagementCallsPerHour: 5000, AccessToken: []byte("sealed")}, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.store.PutPhoneNumber(t.Context(), store.PhoneNumber{ID: "101", WABAID: "100", Burst: 1, WindowCheck: "off"}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) syncer() *Syncer {
	return NewSyncer(SyncConfig{Store: r.store, Graph: r, Token: func(context.Context, string) (string, error) { return "token", r.token }})
}

// Get is the Graph API: pages of the list, unless an answer is given.
func (r *rig) Get(_ context.Context, path string, query url.Values, token string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, query)
	if path != "100/message_templates" || token != "token" {
		return nil, fmt.Errorf("%s with %s", path, token)
	}
	if r.answer != nil {
		if body, err := r.answer(len(r.calls), query); body != nil || err != nil {
			return body, err
		}
	}
	size, err := strconv.Atoi(query.Get("limit"))
	if err != nil {
		return nil, err
	}
	from := 0
	if after := query.Get("after"); after != "" {
		if from, err = strconv.Atoi(after); err != nil {
			return nil, err
		}
	}
	to := min(from+size, len(r.list))
	next := ""
	if to < len(r.list) {
		next = `,"next":"https://graph.example/next?access_token=secret"`
	}
	return fmt.Appendf(nil, `{"data":[%s],"paging":{"cursors":{"before":"b","after":"%d"}%s}}`, strings.Join(r.list[from:to], ","), to, next), nil
}

func (r *rig) run(sql string, args ...any) {
	r.Helper()
	if _, err := r.pool.Exec(r.Context(), sql, args...); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) text(sql string) (s string) {
	r.Helper()
	if err := r.pool.QueryRow(r.Context(), sql).Scan(&s); err != nil {
		r.Fatal(err)
	}
	return s
}

func listed(name, language, status string) string {
	return fmt.Sprintf(`{"id":"7","name":%q,"language":%q,"status":%q,"category":"UTILITY","parameter_format":"POSITIONAL","quality_score":{"score":"GREEN"},"components":[{"type":"BODY","text":"Hello {{1}}."}]}`, name, language, status)
}

func (r *rig) fill(n int) {
	for i := range n {
		r.list = append(r.list, listed(fmt.Sprintf("t_%04d", i), "en", "APPROVED"))
	}
}

func TestAListIsReadPageByPage(t *testing.T) {
	r := newRig(t)
	r.fill(620)
	if err := r.syncer().Refresh(t.Context(), "100"); err != nil {
		t.Fatal(err)
	}
	if got := r.text(`SELECT count(*) || ' ' || count(DISTINCT name) || ' ' || min(quality) || ' ' || min(meta_id) || ' ' || (SELECT pages || ' ' || complete FROM template_syncs) FROM templates`); got != "620 620 GREEN 7 3 true" {
		t.Error(got)
	}
	if n := r.text(`SELECT sum(calls)::text FROM management_calls`); n != "3" {
		t.Errorf("%s management calls were counted, want 3", n)
	}
	// Where an answer is too long, less is asked for, and the reading goes on from where it was.
	r.calls = nil
	r.answer = func(_ int, q url.Values) ([]byte, error) {
		if q.Get("limit") != "10" && q.Get("after") != "" {
			return nil, fmt.Errorf("reading: %w", sender.ErrLongAnswer)
		}
		return nil, nil
	}
	if err := r.syncer().Refresh(t.Context(), "100"); err != nil {
		t.Fatal(err)
	}
	var sizes []string
	for _, c := range r.calls {
		sizes = append(sizes, c.Get("limit"))
	}
	if !slices.Equal(sizes[:4], []string{"250", "250", "50", "10"}) || len(sizes) != 3+37 {
		t.Errorf("%d calls asked for %v", len(sizes), sizes)
	}
	if got := r.text(`SELECT count(*) || ' ' || (SELECT complete FROM template_syncs) FROM templates WHERE gone_at IS NULL`); got != "620 true" {
		t.Error(got)
	}
}

// A list that is not known to be whole is kept, and nothing is taken for deleted by it.
func TestAListThatIsNotWhole(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(call int, q url.Values) ([]byte, error)
		want   string
	}{
		"something unreadable": {func(int, url.Values) ([]byte, error) {
			return []byte(`{"data":[` + listed("a", "en", "APPROVED") + `,{"name":7},{"name":"b","language":"en"}]}`), nil
		}, "a"},
		"a page without a cursor": {func(int, url.Values) ([]byte, error) {
			return []byte(`{"data":[` + listed("a", "en", "APPROVED") + `],"paging":{"next":"x"}}`), nil
		}, "a"},
		"the same page over and over": {func(int, url.Values) ([]byte, error) {
			return []byte(`{"data":[` + listed("a", "en", "APPROVED") + `],"paging":{"next":"x","cursors":{"after":"y"}}}`), nil
		}, "a"},
		"pages without end": {func(call int, _ url.Values) ([]byte, error) {
			return fmt.Appendf(nil, `{"data":[%s],"paging":{"next":"x","cursors":{"after":"%d"}}}`, listed("a", "en", "APPROVED"), call), nil
		}, "a"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.run(`INSERT INTO templates (waba_id, name, language, status, status_at) VALUES ('100', 'there', 'en', 'APPROVED', now() - interval '1 day')`)
			r.answer = c.answer
			if err := r.syncer().Refresh(t.Context(), "100"); err != nil {
				t.Fatal(err)
			}
			if got := r.text(`SELECT string_agg(name, ',' ORDER BY name) || ' ' || (SELECT complete || ' ' || (synced_at IS NULL) || ' ' || problem FROM template_syncs) FROM templates WHERE gone_at IS NULL`); got != c.want+",there false true the list is too long to be read whole" {
				t.Error(got)
			}
			if len(r.calls) > maxPages {
				t.Errorf("%d calls", len(r.calls))
			}
		})
	}
}

func TestWhyAListIsNotRead(t *testing.T) {
	r := newRig(t)
	meta := &cloudapi.Error{Code: 80008, Title: "Too many calls"}
	for name, c := range map[string]struct {
		set   func()
		is    func(error) bool
		after time.Duration
	}{
		"no token": {func() { r.token = ErrNoToken }, func(err error) bool { return errors.Is(err, ErrNoToken) }, time.Minute},
		"throttled": {func() {
			r.answer = func(int, url.Values) ([]byte, error) { return nil, fmt.Errorf("reading: %w", meta) }
		}, func(err error) bool { return errors.Is(err, error(meta)) }, time.Hour},
		"no JSON": {func() { r.answer = func(int, url.Values) ([]byte, error) { return []byte(`<html>EAAxSecret`), nil } }, func(err error) bool { return !strings.Contains(err.Error(), "EAAx") }, time.Minute},
		"no list": {func() { r.answer = func(int, url.Values) ([]byte, error) { return []byte(`{}`), nil } }, func(err error) bool { _, ok := errors.AsType[*CallError](err); return ok }, time.Minute},
		"no calls": {func() {
			r.run(`UPDATE wabas SET management_calls_per_hour = 1`)
			r.run(`INSERT INTO management_calls VALUES ('100', date_trunc('minute', now()), 1)`)
		},
			func(err error) bool { s, ok := errors.AsType[*SpentError](err); return ok && s.Wait > 50*time.Minute }, time.Hour},
	} {
		r.token, r.answer = nil, nil
		r.run(`DELETE FROM management_calls`)
		r.run(`UPDATE wabas SET management_calls_per_hour = 5000`)
		r.run(`DELETE FROM template_syncs`)
		c.set()
		if err := r.syncer().Refresh(t.Context(), "100"); err == nil || !c.is(err) {
			t.Errorf("%s: %v", name, err)
		}
		var wait float64
		var problem string
		if err := r.pool.QueryRow(t.Context(), `SELECT extract(epoch FROM next_at - clock_timestamp())::float8, problem FROM template_syncs WHERE failures = 1 AND claimed_until IS NULL`).Scan(&wait, &problem); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d := time.Duration(wait * float64(time.Second)); problem == "" || strings.Contains(problem, "EAAx") || d < c.after/2-time.Second || d > c.after*3/2 {
			t.Errorf("%s: again in %v, after %q", name, d, problem)
		}
	}
	if err := r.syncer().Refresh(t.Context(), "999"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a WABA that is not here: %v", err)
	}
	// Another reading is waited for, as long as the caller waits.
	r.run(`DELETE FROM template_syncs`)
	if _, ok, err := r.store.ClaimTemplates(t.Context(), "100"); err != nil || !ok {
		t.Fatal(ok, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.syncer().Refresh(ctx, "100"); !errors.Is(err, ErrBusy) {
		t.Errorf("while another reads: %v", err)
	}
}

// The keeper reads what is due of what its worker owns, and nothing twice.
func TestAKeeperReadsWhatItOwns(t *testing.T) {
	r := newRig(t)
	r.fill(3)
	if err := r.store.PutWABA(t.Context(), store.WABA{ID: "200", Burst: 1, ManagementCallsPerHour: 5000, AccessToken: []byte("sealed")}, nil); err != nil {
		t.Fatal(err)
	}
	k := NewKeeper(KeeperConfig{Store: r.store, Syncer: r.syncer(), Owned: func() []string { return []string{"100"} }, Logger: slog.New(slog.DiscardHandler), Every: time.Millisecond})
	k.round(t.Context())
	k.round(t.Context())
	if got := r.text(`SELECT string_agg(waba_id, ',') FROM template_syncs WHERE complete`); got != "100" || len(r.calls) != 1 {
		t.Errorf("read %s with %d calls", got, len(r.calls))
	}
	r.run(`UPDATE template_syncs SET next_at = now()`)
	r.token = ErrNoToken // of a WABA that was just taken
	k.round(t.Context())
	if got := r.text(`SELECT failures::text FROM template_syncs`); got != "0" {
		t.Errorf("%s failures", got)
	}
	r.token = nil
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	r.answer = func(int, url.Values) ([]byte, error) { cancel(); return nil, nil }
	go func() { done <- k.Run(ctx) }()
	if err := <-done; !errors.Is(err, context.Canceled) || len(r.calls) != 2 {
		t.Errorf("%v after %d calls", err, len(r.calls))
	}
}

func FuzzList(f *testing.F) {
	for _, s := range []string{`{"data":[` + listed("a", "en-US", "approved") + `]}`, `{"data":[{"id":7,"name":"a","language":"en","status":"X","quality_score":[],"components":{}}],"paging":{"next":"x","cursors":{"after":"y"}}}`,
		`{"data":[null,7,{"name":"\u0000","language":"en","status":"x"}]}`, `{"data":null}`, `{}`, `[]`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := parse(body)
		if err != nil {
			return
		}
		for _, l := range p.templates {
			for _, s := range []string{l.Name, l.Language, l.MetaID, l.Status, l.Reason, l.Category, l.Quality, l.ParameterFormat} {
				if strings.ContainsRune(s, 0) || len(s) > maxName*4 || strings.ToValidUTF8(s, "") != s {
					t.Fatalf("%q of %q", s, body)
				}
			}
			if l.Name == "" || l.Language == "" || l.Status == "" || l.Components != nil && !json.Valid(l.Components) {
				t.Fatalf("%+v of %q", l, body)
			}
		}
	})
}
