package account_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"wagate/internal/account"
	"wagate/internal/cloudapi"
	"wagate/internal/pgtest"
	"wagate/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }

// graph answers from a list, the last of it for ever.
type graph struct {
	answers []answer
	asked   []string
	called  chan struct{}
}

type answer struct {
	body string
	err  error
}

func (g *graph) Get(_ context.Context, path string, query url.Values, token string) ([]byte, error) {
	g.asked = append(g.asked, fmt.Sprintf("%s after=%s limit=%s fields=%s by %s", path, query.Get("after"), query.Get("limit"), query.Get("fields"), token))
	a := g.answers[0]
	if len(g.answers) > 1 {
		g.answers = g.answers[1:]
	}
	if g.called != nil {
		g.called <- struct{}{}
	}
	return []byte(a.body), a.err
}

type rig struct {
	*account.Reader
	store *store.Store
	graph *graph
	log   *bytes.Buffer
	owned []string
}

func newRig(t *testing.T, perHour int, answers ...answer) *rig {
	t.Helper()
	r := &rig{store: store.New(pgtest.New(t)), graph: &graph{answers: answers}, log: &bytes.Buffer{}, owned: []string{"100"}}
	for _, id := range []string{"100", "101"} {
		if err := r.store.PutWABA(t.Context(), store.WABA{ID: id, Burst: 1, ManagementCallsPerHour: perHour}, nil); err != nil {
			t.Fatal(err)
		}
	}
	rate := 80.
	for _, id := range []string{"200", "201"} {
		if err := r.store.PutPhoneNumber(t.Context(), store.PhoneNumber{ID: id, WABAID: "100", MessagesPerSecond: &rate, Burst: 1, WindowCheck: "off"}); err != nil {
			t.Fatal(err)
		}
	}
	r.Reader = account.New(account.Config{
		Store: r.store, Graph: r.graph, Every: time.Millisecond,
		Owned:  func() []string { return r.owned },
		Token:  func(_ context.Context, id string) (string, error) { return "token-" + id, nil },
		Logger: slog.New(slog.NewTextHandler(r.log, nil)),
	})
	return r
}

func (r *rig) warnings() int { return strings.Count(r.log.String(), "level=WARN") }

const (
	onePage = `{"data":[{"id":"200","display_phone_number":"+1 650-555-0001","quality_rating":"GREEN","throughput":{"level":"HIGH"},"status":"CONNECTED"}]}`
	page1   = `{"data":[{"id":"200","throughput":{"level":"HIGH"}},{"id":""},{"id":"x","status":"a\u0000b","throughput":"none"}],
		"paging":{"cursors":{"before":"A","after":"B"},"next":"https://graph.invalid/next"}}`
	page2 = `{"data":[{"id":"201","throughput":{"level":"HIGH"}}],"paging":{"cursors":{"before":"B","after":"C"}}}`
)

func TestReadsOnceADay(t *testing.T) {
	r := newRig(t, 5000, answer{body: onePage})
	now := time.Now()
	r.Next(t.Context(), now)
	if want := "100/phone_numbers after= limit=100 fields=id,display_phone_number,quality_rating,throughput,status by token-100"; fmt.Sprint(r.graph.asked) != "["+want+"]" {
		t.Errorf("asked %v", r.graph.asked)
	}
	p, err := r.store.PhoneNumber(t.Context(), "200")
	if err != nil || *p.MessagesPerSecond != 1000 || p.DisplayPhoneNumber != "+1 650-555-0001" || p.LimitSource != store.SourceThroughput {
		t.Errorf("%+v, %v", p, err)
	}
	r.Next(t.Context(), now)
	if len(r.graph.asked) != 1 {
		t.Errorf("asked again: %v", r.graph.asked)
	}
	if _, err := r.store.Pool().Exec(t.Context(), `UPDATE wabas SET looked_at = looked_at - interval '25 hours'`); err != nil {
		t.Fatal(err)
	}
	// One a round, the one that was never read first.
	r.owned = []string{"100", "101"}
	r.Next(t.Context(), now)
	r.Next(t.Context(), now)
	r.Next(t.Context(), now)
	if len(r.graph.asked) != 3 || !strings.HasPrefix(r.graph.asked[1], "101/") || !strings.HasPrefix(r.graph.asked[2], "100/") {
		t.Errorf("asked %v", r.graph.asked)
	}
	if r.warnings() != 0 {
		t.Errorf("warned: %s", r.log)
	}
}

func TestReadsEveryPage(t *testing.T) {
	r := newRig(t, 5000, answer{body: page1}, answer{body: page2})
	r.Next(t.Context(), time.Now())
	if len(r.graph.asked) != 2 || !strings.Contains(r.graph.asked[1], "after=B") {
		t.Errorf("asked %v", r.graph.asked)
	}
	for _, id := range []string{"200", "201"} {
		if p, err := r.store.PhoneNumber(t.Context(), id); err != nil || *p.MessagesPerSecond != 1000 {
			t.Errorf("%+v, %v", p, err)
		}
	}
	// An answer that always has a next page ends all the same.
	r = newRig(t, 5000, answer{body: page1})
	r.Next(t.Context(), time.Now())
	if len(r.graph.asked) != 10 {
		t.Errorf("asked %d times", len(r.graph.asked))
	}
}

func TestWaitsAfterFailures(t *testing.T) {
	for name, c := range map[string]struct {
		perHour  int
		answer   answer
		calls    int
		at, then time.Duration // not again before, again from then on
	}{
		"Meta's limit":       {5000, answer{err: fmt.Errorf("reading: %w", &cloudapi.Error{Code: 80008})}, 1, time.Hour, 75 * time.Minute},
		"the app's limit":    {5000, answer{err: &cloudapi.Error{Code: 4}}, 1, time.Hour, 75 * time.Minute},
		"our budget":         {0, answer{body: onePage}, 0, 59 * time.Minute, 63 * time.Minute},
		"no answer":          {5000, answer{err: errors.New("connection refused")}, 1, 30 * time.Second, time.Minute},
		"no JSON":            {5000, answer{body: `<html>`}, 1, 30 * time.Second, time.Minute},
		"no list":            {5000, answer{body: `{}`}, 1, 30 * time.Second, time.Minute},
		"a token of no use ": {5000, answer{err: &cloudapi.Error{Code: 190}}, 1, 30 * time.Second, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.perHour, c.answer)
			now := time.Now()
			again := func(at time.Duration, calls, warnings int) {
				t.Helper()
				r.Next(t.Context(), now.Add(at))
				if len(r.graph.asked) != calls || r.warnings() != warnings {
					t.Errorf("after %v: asked %d times, warned %d times, not %d and %d: %s", at, len(r.graph.asked), r.warnings(), calls, warnings, r.log)
				}
			}
			again(0, c.calls, 1)
			again(c.at-time.Second, c.calls, 1)
			if _, err := r.store.Pool().Exec(t.Context(), `UPDATE wabas SET management_calls_per_hour = 5000`); err != nil {
				t.Fatal(err)
			}
			again(c.then, c.calls+1, 1) // the same reason is logged once
			if strings.Contains(r.log.String(), "token-100") {
				t.Error("the log holds a token")
			}
		})
	}
}

func TestWaitsLonger(t *testing.T) {
	r := newRig(t, 5000, answer{err: errors.New("connection refused")})
	now := time.Now()
	for range 12 {
		now = now.Add(time.Hour)
		r.Next(t.Context(), now)
	}
	n := len(r.graph.asked)
	r.Next(t.Context(), now.Add(29*time.Minute))
	if n != 12 || len(r.graph.asked) != n {
		t.Errorf("asked %d times, then %d", n, len(r.graph.asked))
	}
	// Of a WABA that comes back from another worker nothing is known.
	r.owned = []string{"101"}
	r.Next(t.Context(), now)
	r.owned = []string{"100"}
	r.Next(t.Context(), now)
	if len(r.graph.asked) != n+2 {
		t.Errorf("asked %v", r.graph.asked[n:])
	}
}

func TestRunEnds(t *testing.T) {
	r := newRig(t, 5000, answer{body: onePage})
	r.graph.called = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	<-r.graph.called
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if r.warnings() != 0 {
		t.Errorf("warned: %s", r.log)
	}
}
