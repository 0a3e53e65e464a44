package simulator

import (
	"context"
	"net/http"
	"reflect"
	"testing"
	"time"
)

// TestSteeringDigits sends to each steered recipient until it is accepted, at most
// twice, and looks at the answers, the statuses and the ledger.
func TestSteeringDigits(t *testing.T) {
	type try struct {
		status, code int
		dropped      bool
	}
	accepted := try{status: 200}
	sentDelivered := []string{"sent", "delivered"}
	tests := []struct {
		last4    string
		tries    []try
		statuses []string
		after    time.Duration // of the last answer, in virtual time
	}{
		{"1234", []try{accepted}, sentDelivered, 0},
		{"0001", []try{{status: 400, code: 131026}, {status: 400, code: 131026}}, nil, 0},
		{"0002", []try{{status: 400, code: 130429}, accepted, accepted}, sentDelivered, 0},
		{"0003", []try{accepted}, []string{"sent"}, 0},
		{"0004", []try{accepted}, []string{"sent", "read"}, 0},
		{"0005", []try{accepted}, []string{"sent", "sent", "delivered", "delivered"}, 0},
		{"0006", []try{accepted}, []string{"read", "delivered", "sent"}, 0},
		{"0007", []try{{dropped: true}}, sentDelivered, 0},
		{"0008", []try{accepted}, []string{"failed"}, 0},
		{"0009", []try{{status: 502}}, sentDelivered, 0},
		{"0010", []try{{status: 429, code: 130429}, accepted}, sentDelivered, 0},
		{"0011", []try{{status: 400, code: 131056}, accepted}, sentDelivered, 0},
		{"0012", []try{{dropped: true}, accepted}, sentDelivered, 0},
		{"0013", []try{accepted}, sentDelivered, 90 * time.Second},
		{"0014", []try{accepted}, []string{"sent", "delivered", "read"}, 0},
		{"0015", []try{{status: 500, code: 131000}, {status: 500, code: 131000}}, nil, 0},
		{"0016", []try{accepted}, sentDelivered, 0},
		{"0017", []try{accepted}, nil, 0},
		{"0018", []try{{dropped: true}}, nil, 0},
		{"0019", []try{accepted}, []string{"sent", "delivered", "played"}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.last4, func(t *testing.T) {
			inBubble(t, Config{}, func(r *rig) {
				var took time.Duration
				for i, want := range tt.tries {
					start := time.Now()
					rep := r.post(text(tt.last4, "g1:0198c0de-0000-7000-8000-000000000001:1"))
					took = time.Since(start)
					got := try{status: rep.status, code: rep.code(), dropped: rep.dropped}
					if got != want {
						t.Fatalf("try %d: %+v, want %+v", i+1, got, want)
					}
					if (rep.wamid() != "") != (want == accepted) {
						t.Errorf("try %d: wamid %q", i+1, rep.wamid())
					}
				}
				if took != tt.after {
					t.Errorf("answered after %v, want %v", took, tt.after)
				}
				r.quiet()
				accepts := r.s.Accepts(0, 10)
				if (len(accepts) > 0) != (tt.statuses != nil || tt.last4 == "0017" || tt.last4 == "0018") {
					t.Fatalf("%d accepts", len(accepts))
				}
				if len(accepts) == 0 {
					return
				}
				if got := r.statuses(accepts[0].WAMID); !reflect.DeepEqual(got, tt.statuses) {
					t.Errorf("statuses %v, want %v", got, tt.statuses)
				}
				if accepts[0].ToLast4 != tt.last4 {
					t.Errorf("to_last4 %q", accepts[0].ToLast4)
				}
			})
		})
	}
}

func TestStatusesBeforeTheAnswer(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.answer = func(int) (int, error) {
			<-time.After(3 * time.Second) // virtual: a slow receiver
			return http.StatusOK, nil
		}
		start := time.Now()
		rep := r.post(text("0016", ""))
		if got := r.statuses(rep.wamid()); len(got) != 2 || time.Since(start) < 3*time.Second {
			t.Errorf("answered after %v with statuses %v", time.Since(start), got)
		}
	})
}

func TestStatusesBeforeTheAnswerIsBounded(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.s.Hold()
		start := time.Now()
		if rep := r.post(text("0016", "")); rep.status != 200 || time.Since(start) != answerAfterStatusesBound {
			t.Errorf("answered %d after %v", rep.status, time.Since(start))
		}
	})
}

func TestSlowAnswerEndsWithTheClient(t *testing.T) {
	inBubble(t, Config{SlowAnswer: time.Hour}, func(r *rig) {
		ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
		defer cancel()
		start := time.Now()
		rep := do(ctx, r.t, r.s, http.MethodPost, "/v23.0/"+testPhone+"/messages", text("0013", ""), nil)
		if time.Since(start) != 30*time.Second || rep.wamid() != "" {
			t.Errorf("returned after %v with wamid %q", time.Since(start), rep.wamid())
		}
		if got := r.s.Ledger().Totals; got.Accepted != 1 || got.SlowAnswers != 1 {
			t.Errorf("totals %+v", got)
		}
	})
}

// TestOnceIsPerMessage: the same recipient is throttled once for each message of ours,
// and once in all for messages without an id of ours.
func TestOnceIsPerMessage(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		for i, tt := range []struct {
			opaque string
			want   int
		}{
			{"g1:a:1", 130429},
			{"g1:a:2", 0},
			{"g1:b:1", 130429},
			{"g1:b:2", 0},
			{"", 130429},
			{"a caller's own", 0},
			{"g1:a:3", 0},
		} {
			if got := r.post(text("0002", tt.opaque)).code(); got != tt.want {
				t.Errorf("request %d (%s): code %d, want %d", i, tt.opaque, got, tt.want)
			}
		}
		if got := r.s.Ledger().Totals; got.ThrottledProvoked != 3 || got.ThrottledLimit != 0 || got.Refused != 3 {
			t.Errorf("totals %+v", got)
		}
	})
}

func TestOnceMemoryIsBounded(t *testing.T) {
	o := newOnceMemory()
	for i := range onceCapacity + 10 {
		m := &message{waID: "1", ours: ourID{byte(i), byte(i >> 8), byte(i >> 16)}}
		if !o.first(0, m) || o.first(0, m) {
			t.Fatalf("message %d: not once", i)
		}
	}
	if len(o.seen) != onceCapacity || len(o.order) != onceCapacity {
		t.Errorf("remembers %d, %d", len(o.seen), len(o.order))
	}
	if !o.first(0, &message{waID: "1"}) {
		t.Error("the oldest was not forgotten")
	}
}

func TestReactionIsOnlySent(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		rep := r.post(`{"messaging_product":"whatsapp","to":"+16505550014","type":"reaction","reaction":{"message_id":"wamid.x","emoji":""}}`)
		r.quiet()
		if got := r.statuses(rep.wamid()); !reflect.DeepEqual(got, []string{"sent"}) {
			t.Errorf("statuses %v", got)
		}
	})
}
