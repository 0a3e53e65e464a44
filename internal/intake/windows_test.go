package intake_test

import (
	"context"
	"testing"

	"wagate/internal/intake"
	"wagate/internal/store"
)

// One question for many messages, none for those that need no window, and none where nobody asked for the check.
func TestWindowsAreAskedForTogether(t *testing.T) {
	in, pool := setup(t)
	const off = "200000000000002"
	if err := store.New(pool).PutPhoneNumber(t.Context(), store.PhoneNumber{ID: off, WABAID: "100", Burst: 1, PairBurst: 1, WindowCheck: "off"}); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE phone_numbers SET window_check = 'enforce' WHERE phone_number_id = $1`, phone); err != nil {
		t.Fatal(err)
	}
	var asks [][]store.WindowAsk
	var fails error
	in.CheckWindows(func(_ context.Context, set []store.WindowAsk) ([]bool, error) {
		asks = append(asks, set)
		closed := make([]bool, len(set))
		for i, a := range set {
			closed[i] = a.Recipient == "+16505550001"
		}
		return closed, fails
	})
	hi := func(from, to string) intake.Request {
		return intake.Request{Body: []byte(`{"from":"` + from + `","to":"` + to + `","type":"text","text":{"body":"hi"}}`)}
	}
	results := in.AcceptMany(t.Context(), []intake.Request{
		hi(phone, "+16505550001"), hi(phone, "+16505550002"), hi(phone, "+16505550001"), hi(off, "+16505550001"), {Body: []byte(`{"from":"` + phone + `"}`)},
		{Body: []byte(`{"from":"` + phone + `","to":"+16505550001","type":"template","template":{"name":"hello","language":{"code":"en"}}}`)},
	})
	for i, want := range []intake.Kind{intake.Invalid, 0, intake.Invalid, 0, intake.Invalid, 0} {
		if got := kindOf(results[i].Err); got != want || (want == 0 && results[i].Err != nil) {
			t.Errorf("message %d: %v, want kind %v", i, results[i].Err, want)
		}
	}
	if len(asks) != 1 || len(asks[0]) != 3 {
		t.Errorf("asked %v", asks)
	}
	fails = context.DeadlineExceeded
	if _, err := in.Accept(t.Context(), hi(phone, "+16505550002")); kindOf(err) != intake.Unavailable {
		t.Errorf("without an answer: %v", err)
	}
	if err := in.Check(t.Context(), hi(phone, "+16505550002")); kindOf(err) != intake.Unavailable {
		t.Errorf("without an answer: %v", err)
	}
	for i, r := range in.AcceptMany(t.Context(), []intake.Request{hi(phone, "+16505550002")}) {
		if kindOf(r.Err) != intake.Unavailable {
			t.Errorf("%d without an answer: %v", i, r.Err)
		}
	}
}
