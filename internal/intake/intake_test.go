package intake_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"wagate/internal/intake"
	"wagate/internal/message"
	"wagate/internal/pgtest"
	"wagate/internal/queue"
	"wagate/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }

const phone = "200000000000001"

var caller = intake.Caller{KeyID: message.NewID(time.Now()), Owner: "shop"}

// setup gives an Intake on a database with one WABA and one phone number.
func setup(t testing.TB) (*intake.Intake, *pgxpool.Pool) {
	t.Helper()
	return setupAt(t, time.Now)
}

// setupAt is setup with a clock.
func setupAt(t testing.TB, now func() time.Time) (*intake.Intake, *pgxpool.Pool) {
	t.Helper()
	pool := pgtest.New(t)
	s := store.New(pool)
	if err := s.PutWABA(t.Context(), store.WABA{ID: "100", Burst: 1, ManagementCallsPerHour: 5000}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.PutPhoneNumber(t.Context(), store.PhoneNumber{ID: phone, WABAID: "100", Burst: 1, PairBurst: 1, WindowCheck: "off"}); err != nil {
		t.Fatal(err)
	}
	jobs, err := queue.NewInserter(pool, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	in := intake.New(s, jobs, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), now)
	t.Cleanup(in.Close)
	return in, pool
}

func text(extra string) []byte {
	return []byte(`{"from":"` + phone + `","to":"+16505551234","type":"text","text":{"body":"hello"}` + extra + `}`)
}

func count(t testing.TB, pool *pgxpool.Pool, table string) (n int) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM `+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// wantRows checks how many messages, jobs and idempotency keys there are.
func wantRows(t testing.TB, pool *pgxpool.Pool, messages, keys int) {
	t.Helper()
	if m, j, k := count(t, pool, "messages"), count(t, pool, "river_job"), count(t, pool, "idempotency_keys"); m != messages || j != messages || k != keys {
		t.Errorf("%d messages, %d jobs, %d idempotency keys; want %d, %d, %d", m, j, k, messages, messages, keys)
	}
}

func kindOf(err error) intake.Kind {
	if e, ok := errors.AsType[*intake.Error](err); ok {
		return e.Kind
	}
	return 0
}

func TestAcceptStoresMessageAndJob(t *testing.T) {
	in, pool := setup(t)
	sendAt := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	from, to := sendAt.Add(-time.Hour).Format("15:04"), sendAt.Add(2*time.Hour).Format("15:04")
	body := text(`,"context":{"message_id":"wamid.X"},"biz_opaque_callback_data":"mine","gateway":{
		"category":"utility","send_at":"` + sendAt.Format(time.RFC3339) + `","expires_at":"` + sendAt.Add(time.Hour).Format(time.RFC3339) + `",
		"ordering_key":"chat-17","reference":"order-17","tags":{"campaign":"black-friday"},"callback_url":"https://app.internal/wa",
		"send_window":{"from":"` + from + `","to":"` + to + `","timezone":"UTC","days":[7,1,2,3,4,6,5]}}`)
	a, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: body})
	if err != nil {
		t.Fatal(err)
	}
	if a.From != phone || a.To != "+16505551234" || !a.EstimatedSendAt.Equal(sendAt) || a.Replayed {
		t.Errorf("answer %+v", a)
	}
	var got string
	err = pool.QueryRow(t.Context(), `
		SELECT concat_ws('|', m.phone_number_id, waba_id, key_id = $2::uuid, recipient, type, status, m.priority, category, on_unknown, reference, m.tags,
			ordering_key, callback_url, opaque, send_window, send_at = $3, expires_at = $3::timestamptz + interval '1 hour', body IS NOT NULL,
			j.queue, j.priority, j.state, j.scheduled_at = $4, j.args->>'id' = m.id::text)
		FROM messages m, river_job j WHERE m.id = $1::uuid`, a.ID, caller.KeyID, sendAt, intake.Due(a.ID, a.CreatedAt, sendAt, "")).Scan(&got)
	if err != nil {
		t.Fatal(err)
	}
	want := phone + `|100|t|+16505551234|text|queued|3|utility|hold|order-17|{"campaign": "black-friday"}|chat-17|https://app.internal/wa|mine|` +
		`{"to": "` + to + `", "days": [1, 2, 3, 4, 5, 6, 7], "from": "` + from + `", "timezone": "UTC"}|t|t|t|lane-` + phone + `|3|scheduled|t|t`
	if got != want {
		t.Errorf("stored\n%s, want\n%s", got, want)
	}
	wantRows(t, pool, 1, 0)
}

func TestPresets(t *testing.T) {
	in, pool := setup(t)
	template := `{"from":"` + phone + `","to":"+16505551234","type":"template","template":{"name":"otp","language":{"code":"en"}}%s}`
	for _, c := range []struct{ body, want string }{
		{string(text("")), "3 hold service"},
		{string(text(`,"context":{"message_id":"wamid.X"}`)), "2 hold service"},
		{string(text(`,"gateway":{"priority":"low"}`)), "4 hold service"},
		{fmt.Sprintf(template, ""), "3 hold otp en"},
		{fmt.Sprintf(template, `,"gateway":{"category":"authentication"}`), "1 resend authentication otp en"},
		{fmt.Sprintf(template, `,"gateway":{"category":"marketing","on_unknown":"fail"}`), "4 fail marketing otp en"},
		{strings.Replace(string(text("")), `"+16505551234"`, `null,"recipient":"US.123"`, 1), "3 hold service"},
	} {
		a, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: []byte(c.body)})
		if err != nil {
			t.Errorf("%s: %v", c.body, err)
			continue
		}
		var got string
		err = pool.QueryRow(t.Context(), `SELECT concat_ws(' ', priority, on_unknown, category, template_name, template_language) FROM messages WHERE id = $1`, a.ID).Scan(&got)
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.body, got, err, c.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	in, pool := setup(t)
	at := func(d time.Duration) string { return time.Now().Add(d).Format(time.RFC3339) }
	gateway := func(s string) string { return string(text(`,"gateway":` + s)) }
	long := strings.Repeat("é", 300)
	for _, c := range []struct {
		body     string
		kind     intake.Kind
		pointers []string
	}{
		{``, intake.Malformed, []string{""}},
		{`{"from":`, intake.Malformed, []string{""}},
		{`"x"`, intake.Invalid, []string{""}},
		{`{}`, intake.Invalid, []string{"/from", "/to", "/type"}},
		{`{"from":"` + phone + `","to":"16505551234","type":"text","text":{"body":"x"}}`, intake.Invalid, []string{"/to"}},
		{`{"from":"` + phone + `","to":"+16505551234","type":"image","text":{"body":"x"}}`, intake.Invalid, []string{"/image"}},
		{`{"from":"` + phone + `","to":"+16505551234","text":{"body":""},"gateway":{"priority":"top"}}`, intake.Invalid, []string{"/text/body", "/gateway/priority"}},
		{string(text(`,"from":"` + phone + `"`)), intake.Invalid, []string{"/from"}},
		{`{"from":"` + phone + `","status":"read","message_id":"wamid.X"}`, intake.Invalid, []string{"/status"}},
		{`{"from":"299","to":"+16505551234","type":"text","text":{"body":"x"}}`, intake.UnknownPhone, []string{"/from"}},
		{gateway(`[]`), intake.Invalid, []string{"/gateway"}},
		{gateway(`{"priorty":"high","priority":"top","category":1}`), intake.Invalid, []string{"/gateway/priority", "/gateway/category", "/gateway/priorty"}},
		{gateway(`{"on_unknown":"retry"}`), intake.Invalid, []string{"/gateway/on_unknown"}},
		{gateway(`{"send_at":"tomorrow"}`), intake.Invalid, []string{"/gateway/send_at"}},
		{gateway(`{"send_at":"` + at(31*24*time.Hour) + `"}`), intake.Invalid, []string{"/gateway/send_at"}},
		{gateway(`{"expires_at":"` + at(-time.Second) + `"}`), intake.Invalid, []string{"/gateway/expires_at"}},
		{gateway(`{"expires_at":"` + at(61*24*time.Hour) + `"}`), intake.Invalid, []string{"/gateway/expires_at"}},
		{gateway(`{"send_at":"` + at(2*time.Hour) + `","expires_at":"` + at(time.Hour) + `"}`), intake.Invalid, []string{"/gateway/expires_at"}},
		{gateway(`{"reference":"` + long + `","ordering_key":"` + long + `","idempotency_key":"` + long + `"}`), intake.Invalid,
			[]string{"/gateway/ordering_key", "/gateway/idempotency_key", "/gateway/reference"}},
		{gateway(`{"reference":"a\u0000b","tags":{"a\u0000":"x","b":"\u0000"}}`), intake.Invalid,
			[]string{"/gateway/reference", "/gateway/tags/a\x00", "/gateway/tags/b"}},
		{gateway(`{"tags":{"n":1}}`), intake.Invalid, []string{"/gateway/tags/n"}},
		{gateway(`{"callback_url":"ftp://x/y"}`), intake.Invalid, []string{"/gateway/callback_url"}},
		{gateway(`{"callback_url":"https://user:pw@x/"}`), intake.Invalid, []string{"/gateway/callback_url"}},
		{gateway(`{"send_window":{"from":"8:00","timezone":"Mars/Olympus","days":[0,1,1],"until":1}}`), intake.Invalid,
			[]string{"/gateway/send_window/from", "/gateway/send_window/timezone", "/gateway/send_window/days/0",
				"/gateway/send_window/to", "/gateway/send_window/days", "/gateway/send_window/until"}},
		{gateway(`{"send_window":{"from":"08:00","to":"08:00"}}`), intake.Invalid, []string{"/gateway/send_window/to"}},
		{strings.Replace(gateway(`{"send_window":{"from":"08:00","to":"09:00"}}`), `"+16505551234"`, `null,"recipient":"US.123"`, 1), intake.Invalid,
			[]string{"/gateway/send_window/timezone"}},
		{strings.Replace(gateway(`{"send_window":{"from":"08:00","to":"09:00"}}`), `+16505551234`, `+8001234567890`, 1), intake.Invalid,
			[]string{"/gateway/send_window/timezone"}},
		{strings.Replace(gateway(`{"send_window":{"from":"08:00","to":"09:00"}}`), `+16505551234`, `16505551234`, 1), intake.Invalid, []string{"/to"}},
		{gateway(`{"send_window":{"from":"` + time.Now().UTC().Add(5*time.Hour).Format("15:04") + `","to":"` + time.Now().UTC().Add(6*time.Hour).Format("15:04") +
			`","timezone":"UTC"},"expires_at":"` + at(time.Hour) + `"}`), intake.Invalid, []string{"/gateway/expires_at"}},
		{gateway(`{"ordering":{"after":"delivered"}}`), intake.Invalid, []string{"/gateway/ordering"}},
		{gateway(`{"ordering_key":"k","ordering":{}}`), intake.Invalid, []string{"/gateway/ordering/after"}},
		{gateway(`{"ordering_key":"k","ordering":{"after":"read","timeout_seconds":0,"x":1}}`), intake.Invalid,
			[]string{"/gateway/ordering/after", "/gateway/ordering/timeout_seconds", "/gateway/ordering/x"}},
		{gateway(`{"ordering_key":"k","ordering":{"after":"delivered","timeout_seconds":86401}}`), intake.Invalid, []string{"/gateway/ordering/timeout_seconds"}},
		{gateway(`{"ordering_key":"k","ordering":{"after":"accepted","timeout_seconds":5}}`), intake.Invalid, []string{"/gateway/ordering/timeout_seconds"}},
		{gateway(`{"ordering_key":"k","ordering":"delivered"}`), intake.Invalid, []string{"/gateway/ordering"}},
	} {
		request := intake.Request{Caller: caller, Body: []byte(c.body), IdempotencyKey: ""}
		_, err := in.Accept(t.Context(), request)
		refused, ok := errors.AsType[*intake.Error](err)
		if !ok || refused.Kind != c.kind {
			t.Errorf("%s: %v, want kind %d", c.body, err, c.kind)
			continue
		}
		var pointers []string
		for _, f := range refused.Faults {
			pointers = append(pointers, f.Pointer)
			if f.Detail == "" {
				t.Errorf("%s: no detail at %s", c.body, f.Pointer)
			}
		}
		slices.Sort(pointers)
		slices.Sort(c.pointers)
		if !slices.Equal(pointers, c.pointers) {
			t.Errorf("%s: faults at %q, want %q", c.body, pointers, c.pointers)
		}
		if err := in.Check(t.Context(), request); kindOf(err) != c.kind {
			t.Errorf("%s: Check gives %v", c.body, err)
		}
	}
	other := caller
	other.PhoneNumbers = []string{"200000000000002"}
	if _, err := in.Accept(t.Context(), intake.Request{Caller: other, Body: text("")}); kindOf(err) != intake.UnknownPhone {
		t.Errorf("a phone number that is not the key's: %v", err)
	}
	wantRows(t, pool, 0, 0)
}

// What is kept is what came, field by field, but for contacts that came as a string: they are kept as the array.
func TestBodyIsKept(t *testing.T) {
	in, pool := setup(t)
	const contacts = `{"from":"` + phone + `","to":"+16505551234","type":"contacts","contacts":$}`
	for body, want := range map[string]string{
		string(text(`, "unknown": {"b": [1.0, null], "a": "\u00e9"}`)):                            string(text(`,"unknown":{"b":[1.0,null],"a":"\u00e9"}`)),
		strings.Replace(contacts, "$", `"[{\"name\": {\"formatted_name\": \"Night Line\"}}]"`, 1): strings.Replace(contacts, "$", `[{"name":{"formatted_name":"Night Line"}}]`, 1),
	} {
		a, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: []byte(body)})
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		var got string
		if err := pool.QueryRow(t.Context(), `SELECT convert_from(body, 'UTF8') FROM messages WHERE id = $1`, a.ID).Scan(&got); err != nil || got != want {
			t.Errorf("%s is kept as %s, %v", body, got, err)
		}
	}
}

func TestIdempotency(t *testing.T) {
	in, pool := setup(t)
	accept := func(owner, key string, body []byte) (intake.Accepted, error) {
		c := caller
		c.Owner = owner
		return in.Accept(t.Context(), intake.Request{Caller: c, Body: body, IdempotencyKey: key})
	}
	first, err := accept("shop", "k", text(""))
	if err != nil || first.Replayed {
		t.Fatal(first, err)
	}
	again, err := accept("shop", "k", []byte(strings.ReplaceAll(string(text("")), ",", " ,\n ")))
	if want := first; err != nil || !again.Replayed || again.ID != want.ID || !again.CreatedAt.Equal(want.CreatedAt) || !again.EstimatedSendAt.Equal(want.EstimatedSendAt) {
		t.Errorf("replay: %+v, %v, want %+v", again, err, first)
	}
	if _, err := accept("shop", "k", text(`,"x":1`)); kindOf(err) != intake.KeyReused {
		t.Errorf("another body: %v", err)
	}
	if other, err := accept("bank", "k", text(`,"x":1`)); err != nil || other.Replayed || other.ID == first.ID {
		t.Errorf("another owner's key of the same name: %+v, %v", other, err)
	}
	inBody := text(`,"gateway":{"idempotency_key":"m"}`)
	m, err := accept("shop", "", inBody)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := accept("shop", "m", inBody); err != nil || again.ID != m.ID {
		t.Errorf("the same key in both places: %+v, %v", again, err)
	}
	if _, err := accept("shop", "n", inBody); kindOf(err) != intake.Invalid {
		t.Errorf("two different keys: %v", err)
	}
	wantRows(t, pool, 3, 3)
}

func TestReplayAfterExpiry(t *testing.T) {
	_, pool := setup(t)
	jobs, err := queue.NewInserter(pool, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	now := time.Now()
	in := intake.New(store.New(pool), jobs, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), func() time.Time { mu.Lock(); defer mu.Unlock(); return now })
	defer in.Close()
	r := intake.Request{Caller: caller, IdempotencyKey: "otp", Body: text(`,"gateway":{"expires_at":"` + now.Add(time.Minute).Format(time.RFC3339) + `"}`)}
	first, err := in.Accept(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	now = now.Add(time.Hour)
	mu.Unlock()
	if again, err := in.Accept(t.Context(), r); err != nil || !again.Replayed || again.ID != first.ID {
		t.Errorf("the same request after it expired: %+v, %v", again, err)
	}
	r.IdempotencyKey = "new"
	if _, err := in.Accept(t.Context(), r); kindOf(err) != intake.Invalid {
		t.Errorf("a new request that expired: %v", err)
	}
	wantRows(t, pool, 1, 1)
}

func TestConcurrentPostsOfOneKey(t *testing.T) {
	in, pool := setup(t)
	second, err := queue.NewInserter(pool, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	// A second Intake stands for another process.
	in2 := intake.New(store.New(pool), second, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), time.Now)
	defer in2.Close()
	const n = 200
	ids, replayed := make([]string, n), make([]bool, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			a, err := []*intake.Intake{in, in2}[i%2].Accept(t.Context(), intake.Request{Caller: caller, Body: text(""), IdempotencyKey: "one"})
			if err != nil {
				t.Error(err)
			}
			ids[i], replayed[i] = a.ID.String(), a.Replayed
		})
	}
	wg.Wait()
	fresh := 0
	for i := range n {
		if ids[i] != ids[0] {
			t.Fatalf("two ids: %s and %s", ids[0], ids[i])
		}
		if !replayed[i] {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("%d answers say that they are the first", fresh)
	}
	wantRows(t, pool, 1, 1)
}

func TestManyInOrder(t *testing.T) {
	in, pool := setup(t)
	const n = 1200 // three commits
	requests := make([]intake.Request, n)
	for i := range requests {
		requests[i] = intake.Request{Caller: caller, Body: text(fmt.Sprintf(`,"gateway":{"reference":"r%d"}`, i))}
	}
	requests[3].Body = []byte(`{`)
	requests[7].Body = []byte(strings.Replace(string(text("")), phone, "299", 1))
	requests[10].Body, requests[11].Body, requests[12].Body = text(`,"gateway":{"idempotency_key":"k"}`), text(`,"gateway":{"idempotency_key":"k"}`), text(`,"x":1,"gateway":{"idempotency_key":"k"}`)
	results := in.AcceptMany(t.Context(), requests)
	for i, r := range results {
		want := map[int]intake.Kind{3: intake.Malformed, 7: intake.UnknownPhone, 12: intake.KeyReused}[i]
		if kindOf(r.Err) != want || (want == 0) != (r.Err == nil) {
			t.Fatalf("%d: %v, want kind %d", i, r.Err, want)
		}
		if want != 0 || (i >= 10 && i <= 12) {
			continue
		}
		var reference string
		if err := pool.QueryRow(t.Context(), `SELECT reference FROM messages WHERE id = $1`, r.Accepted.ID).Scan(&reference); err != nil || reference != fmt.Sprintf("r%d", i) {
			t.Fatalf("%d: reference %q, %v", i, reference, err)
		}
	}
	if !results[11].Accepted.Replayed || results[11].Accepted.ID != results[10].Accepted.ID {
		t.Errorf("the same key twice in a batch: %+v, %+v", results[10].Accepted, results[11].Accepted)
	}
	wantRows(t, pool, n-4, 1)
}
