package intake_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"wagate/internal/cloudapi"
	"wagate/internal/intake"
	"wagate/internal/message"
	"wagate/internal/store"
)

// known is what a test knows of templates.
type known struct {
	mu       sync.Mutex
	category message.Category
	bad      map[string]bool // names that are refused
	prepared []string
	later    []bool
}

func (k *known) Prepare(_ context.Context, phones []string) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.prepared = append(k.prepared, strings.Join(phones, "+"))
	return time.Now()
}

func (k *known) Template(_ context.Context, m *store.NewMessage, since time.Time, later bool) (message.Category, []cloudapi.Fault) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.later = append(k.later, later)
	if k.bad[m.TemplateName] && !since.IsZero() {
		return k.category, []cloudapi.Fault{{Pointer: "/template/name", Detail: "is gone", Code: 132001}}
	}
	return k.category, nil
}

func templateBody(name, gateway string) []byte {
	if gateway != "" {
		gateway = `,"gateway":` + gateway
	}
	return []byte(`{"from":"` + phone + `","to":"+16505551234","type":"template","template":{"name":"` + name + `","language":{"code":"en"}}` + gateway + `}`)
}

func TestAMessageTakesTheCategoryOfItsTemplate(t *testing.T) {
	in, pool := setup(t)
	k := &known{}
	in.UseTemplates(k)
	for _, c := range []struct {
		category      message.Category
		gateway, want string
	}{
		{"authentication", ``, "authentication 1 resend"}, {"utility", ``, "utility 3 hold"}, {"marketing", ``, "marketing 4 hold"}, {"", ``, "- 3 hold"},
		{"marketing", `{"category":"utility"}`, "utility 3 hold"}, {"marketing", `{"priority":"urgent"}`, "marketing 1 hold"}, {"authentication", `{"on_unknown":"fail"}`, "authentication 1 fail"},
		{"authentication", `{"priority":"normal"}`, "authentication 3 resend"},
	} {
		k.category = c.category
		for _, many := range []bool{false, true} {
			r := intake.Request{Caller: caller, Body: templateBody("t", c.gateway)}
			a, err := in.Accept(t.Context(), r)
			if many {
				result := in.AcceptMany(t.Context(), []intake.Request{r})[0]
				a, err = result.Accepted, result.Err
			}
			if err != nil {
				t.Fatal(err)
			}
			var got string
			if err := pool.QueryRow(t.Context(), `SELECT coalesce(m.category, '-') || ' ' || m.priority || ' ' || m.on_unknown FROM messages m JOIN river_job j ON j.args->>'id' = m.id::text AND j.priority = m.priority WHERE m.id = $1`, a.ID).Scan(&got); err != nil || got != c.want {
				t.Errorf("%s %s, many %t: %q, %v, want %q", c.category, c.gateway, many, got, err, c.want)
			}
		}
	}
	before := len(k.prepared)
	if _, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: text("")}); err != nil || len(k.prepared) != before {
		t.Errorf("a text looked at templates, or %v", err)
	}
}

func TestAMessageThatItsTemplateForbids(t *testing.T) {
	in, pool, h := clocked(t)
	k := &known{bad: map[string]bool{}}
	in.UseTemplates(k)
	early := intake.Request{Caller: caller, Body: templateBody("t", ""), IdempotencyKey: "early"}
	first, err := in.Accept(t.Context(), early)
	if err != nil {
		t.Fatal(err)
	}
	k.bad["t"] = true
	forbidden := func(what string, err error) {
		t.Helper()
		e, ok := errors.AsType[*intake.Error](err)
		if !ok || e.Kind != intake.Invalid || len(e.Faults) != 1 || e.Faults[0].Code != 132001 || e.Faults[0].Pointer != "/template/name" {
			t.Errorf("%s: %v", what, err)
		}
	}
	r := intake.Request{Caller: caller, Body: templateBody("t", "")}
	_, err = in.Accept(t.Context(), r)
	forbidden("one", err)
	forbidden("a check", in.Check(t.Context(), r))
	r.IdempotencyKey = "late"
	_, err = in.Accept(t.Context(), r)
	forbidden("one with a key of its own", err)
	k.prepared = nil
	results := in.AcceptMany(t.Context(), []intake.Request{r, {Caller: caller, Body: templateBody("fine", "")}, {Caller: caller, Body: text("")}, early})
	forbidden("the first of many", results[0].Err)
	if results[1].Err != nil || results[2].Err != nil || len(k.prepared) != 1 || k.prepared[0] != phone {
		t.Errorf("the others: %v, %v; prepared %v", results[1].Err, results[2].Err, k.prepared)
	}
	// A request of before gets its answer of then.
	if again, err := in.Accept(t.Context(), early); err != nil || !again.Replayed || again.ID != first.ID {
		t.Errorf("a repetition: %+v, %v", again, err)
	}
	if again := results[3]; again.Err != nil || again.Accepted.ID != first.ID {
		t.Errorf("a repetition among many: %+v", again)
	}
	wantRows(t, pool, 3, 1)
	// What goes out in more than an hour is told so.
	k.bad, k.later = nil, nil
	at := func(d time.Duration) string { return h.Now().Add(d).Format(time.RFC3339Nano) }
	for _, gateway := range []string{``, `{"send_at":"` + at(59*time.Minute) + `"}`, `{"send_at":"` + at(61*time.Minute) + `"}`,
		`{"send_window":{"from":"` + h.Now().Add(2*time.Hour).UTC().Format("15:04") + `","to":"` + h.Now().Add(3*time.Hour).UTC().Format("15:04") + `","timezone":"UTC"}}`} {
		if err := in.Check(t.Context(), intake.Request{Caller: caller, Body: templateBody("t", gateway)}); err != nil {
			t.Fatal(err)
		}
	}
	if want := []bool{false, false, true, true}; len(k.later) != 4 || k.later[0] != want[0] || k.later[1] != want[1] || k.later[2] != want[2] || k.later[3] != want[3] {
		t.Errorf("later %v, want %v", k.later, want)
	}
}
