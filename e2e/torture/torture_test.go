package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"wagate/internal/simulator"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role))
	}
	os.Exit(m.Run())
}

// One cycle with every fault that this machine allows: nothing is lost, sent twice, stuck, or sent after a lease had ended.
func TestACycleOfTorture(t *testing.T) {
	on, err := chosen("all")
	if err != nil {
		t.Fatal(err)
	}
	opt := options{cycles: 1, messages: fullCycle - 1, seed: uint64(time.Now().UnixNano() % 1_000_000_000), faults: on, verbose: true}
	sum, err := run(t.Context(), opt, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	sum.print(t.Output())
	for _, c := range sum.cycles {
		if c.verdict.broken() {
			logs, _ := os.ReadFile(c.logs)
			t.Errorf("seed %d:\n%s\n%s", c.seed, c.verdict, logs)
		}
		for name := range on {
			if _, ok := c.hits[name]; !ok && !strings.HasPrefix(sum.leftOut, name) {
				t.Errorf("%s did not strike", name)
			}
		}
	}
}

// The judge finds each kind of fault that it is there for.
func TestTheJudge(t *testing.T) {
	base := time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)
	at := func(seconds float64) int64 { return base.Add(time.Duration(seconds * float64(time.Second))).UnixNano() }
	id := uuid.MustParse("0190b5a0-0000-7000-8000-000000000001")
	accept := func(try int, arrived, told float64, statuses ...string) simulator.Accept {
		a := simulator.Accept{OurID: id.String(), Try: try, WAMID: fmt.Sprintf("wamid.%d", try), Phone: "1000", Worker: "w", ArrivalUnixNS: at(arrived), Statuses: statuses}
		if told > 0 {
			a.FirstToldUnixNS = at(told)
		}
		return a
	}
	resent := func(seconds float64) []time.Time { return []time.Time{time.Unix(0, at(seconds))} }
	expires := base.Add(2 * time.Second)
	for _, c := range []struct {
		name    string
		row     row
		accepts []simulator.Accept
		want    string // what String says; empty: in order
	}{
		{"delivered", row{status: "delivered", wamid: "wamid.1"}, []simulator.Accept{accept(1, 1, 2, "sent", "delivered")}, ""},
		{"queued", row{status: "queued"}, nil, "stuck: "},
		{"sending", row{status: "sending"}, nil, "stuck: "},
		{"unknown, not decided", row{status: "unknown", unknownWhy: "eof", open: true}, nil, "stuck: "},
		{"unknown, on the list", row{status: "unknown", unknownWhy: "eof"}, []simulator.Accept{accept(1, 1, 0)}, ""},
		{"unknown without a reason", row{status: "unknown"}, nil, "stuck: "},
		{"unknown though heard of", row{status: "unknown", unknownWhy: "eof"}, []simulator.Accept{accept(1, 1, 2)}, "lost: "},
		{"accepted, and not", row{status: "accepted", wamid: "wamid.1"}, nil, "lost: "},
		{"accepted under another wamid", row{status: "accepted", wamid: "wamid.9"}, []simulator.Accept{accept(1, 1, 0)}, "lost: "},
		{"behind what was told", row{status: "sent", wamid: "wamid.1"}, []simulator.Accept{accept(1, 1, 2, "delivered")}, "lost: "},
		{"failed though heard of", row{status: "failed", policy: "fail"}, []simulator.Accept{accept(1, 1, 2)}, "lost: "},
		{"failed though answered", row{status: "failed", acceptedTrys: map[int]bool{1: true}}, []simulator.Accept{accept(1, 1, 0)}, "lost: "},
		{"failed by a webhook", row{status: "failed", byMeta: true}, []simulator.Accept{accept(1, 1, 2, "failed")}, ""},
		{"failed by a webhook of an earlier try", row{status: "failed", byMeta: true}, []simulator.Accept{accept(1, 1, 2, "failed"), accept(2, 3, 4, "sent")}, "lost: "},
		{"failed by its policy", row{status: "failed", policy: "fail"}, []simulator.Accept{accept(1, 1, 0)}, ""},
		{"cancelled and sent", row{status: "cancelled", policy: "hold"}, []simulator.Accept{accept(1, 1, 0)}, "wrong: "},
		{"cancelled after a failed webhook", row{status: "cancelled", policy: "hold"}, []simulator.Accept{accept(1, 1, 2, "failed")}, ""},
		{"expired and sent", row{status: "accepted", wamid: "wamid.1", expires: &expires}, []simulator.Accept{accept(1, 2.5, 0)}, "wrong: "},
		{"sent before it expired", row{status: "accepted", wamid: "wamid.1", expires: &expires}, []simulator.Accept{accept(1, 1.9, 0)}, ""},
		{"again after a failed webhook", row{status: "delivered", wamid: "wamid.2", policy: "hold"}, []simulator.Accept{accept(1, 1, 2, "failed"), accept(2, 3, 4, "delivered")}, ""},
		{"unknown after a failed webhook", row{status: "unknown", unknownWhy: "eof", acceptedTrys: map[int]bool{1: true}}, []simulator.Accept{accept(1, 1, 2, "failed")}, ""},
		{"twice after a failed webhook", row{status: "delivered", wamid: "wamid.2", policy: "hold"}, []simulator.Accept{accept(1, 1, 2, "failed"), accept(2, 3, 4, "sent"), accept(3, 5, 6, "delivered")}, "sent twice: "},
		{"unknown though answered", row{status: "unknown", unknownWhy: "eof", acceptedTrys: map[int]bool{1: true}}, []simulator.Accept{accept(1, 1, 0)}, "lost: "},
		{"twice with hold", row{status: "accepted", wamid: "wamid.1", policy: "hold"}, []simulator.Accept{accept(1, 1, 0), accept(2, 3, 0)}, "sent twice: "},
		{"twice without a deadline", row{status: "accepted", wamid: "wamid.1", policy: "resend"}, []simulator.Accept{accept(1, 1, 0), accept(2, 3, 0)}, "sent twice: "},
		{"twice by its policy", row{status: "accepted", wamid: "wamid.1", policy: "resend", resends: resent(2)}, []simulator.Accept{accept(1, 1, 0), accept(2, 3, 0)}, ""},
		{"twice though heard of", row{status: "sent", wamid: "wamid.1", policy: "resend", resends: resent(2)}, []simulator.Accept{accept(1, 1, 1.2, "sent"), accept(2, 3, 0)}, "sent twice: "},
		{"twice, heard of too late", row{status: "sent", wamid: "wamid.1", policy: "resend", resends: resent(2)}, []simulator.Accept{accept(1, 1, 1.8, "sent"), accept(2, 3, 0)}, ""},
		{"twice and known, not said", row{status: "sent", wamid: "wamid.1", policy: "resend", resends: resent(2), acceptedTrys: map[int]bool{2: true}}, []simulator.Accept{accept(1, 1, 4, "sent"), accept(2, 3, 0)}, "wrong: "},
		{"twice and known", row{status: "sent", wamid: "wamid.1", policy: "resend", resends: resent(2), duplicate: true, acceptedTrys: map[int]bool{2: true}}, []simulator.Accept{accept(1, 1, 4, "sent"), accept(2, 3, 0)}, ""},
		{"no status that there is", row{status: "odd"}, nil, "wrong: "},
	} {
		v := &verdict{}
		c.row.id = id
		v.judgeMessage(&c.row, c.accepts)
		got := v.String()
		if (c.want == "") != (got == "") || (c.want != "" && !strings.HasPrefix(got, "  "+c.want)) || v.broken() != (c.want != "") {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}

	leases := map[string][]leaseTime{"100": {
		{"w", 1, base, base.Add(10 * time.Second)}, {"x", 2, base.Add(10 * time.Second), base.Add(20 * time.Second)}, {"w", 3, base.Add(15 * time.Second), base.Add(30 * time.Second)},
	}}
	by := func(worker string, arrived float64) simulator.Accept {
		a := accept(1, arrived, 0)
		a.Worker = worker
		return a
	}
	for _, c := range []struct {
		name    string
		accepts []simulator.Accept
		late    int
	}{
		{"within", []simulator.Accept{by("w", 1), by("w", 9.9), by("x", 11)}, 0},
		{"after", []simulator.Accept{by("w", 1), by("w", 10.1)}, 1},
		{"before", []simulator.Accept{by("x", 9.9)}, 1},
		{"nobody's", []simulator.Accept{by("y", 1)}, 1},
		{"an older epoch after a newer", []simulator.Accept{by("w", 16), by("x", 17)}, 1},
	} {
		v := &verdict{}
		v.judgeLeases(c.accepts, leases)
		if len(v.late) != c.late || v.broken() != (c.late > 0) {
			t.Errorf("%s: %v, want %d", c.name, v.late, c.late)
		}
	}

	for _, c := range []struct {
		name string
		row  row
		sent *sent
		want string
	}{
		{"delivered", row{status: "delivered"}, &sent{}, ""},
		{"of nobody", row{status: "delivered"}, nil, "wrong: "},
		{"cancelled", row{status: "cancelled"}, &sent{cancel: 1}, ""},
		{"cancelled by nobody", row{status: "cancelled"}, &sent{}, "wrong: "},
		{"expired", row{status: "expired"}, &sent{lives: 1}, ""},
		{"expired without an end", row{status: "expired"}, &sent{}, "wrong: "},
		{"failed by its policy", row{status: "failed", failedAt: true}, &sent{}, ""},
		{"failed by a webhook after its end", row{status: "failed", byMeta: true}, &sent{lives: 1}, ""},
		{"failed by a second webhook", row{status: "failed", byMeta: true, failures: 2}, &sent{}, ""},
		{"failed by a webhook, and not tried again", row{status: "failed", byMeta: true}, &sent{}, "wrong: "},
		{"failed by nobody", row{status: "failed", policy: "hold"}, &sent{}, "wrong: "},
		{"held", row{status: "unknown", policy: "hold"}, &sent{}, ""},
		{"held for good", row{status: "unknown", policy: "resend", resends: make([]time.Time, 2)}, &sent{}, ""},
		{"held against its policy", row{status: "unknown", policy: "resend", resends: make([]time.Time, 1)}, &sent{}, "wrong: "},
		{"held against its policy, fail", row{status: "unknown", policy: "fail"}, &sent{}, "wrong: "},
	} {
		v := &verdict{}
		v.judgeEnd(&c.row, c.sent)
		if got := v.String(); (c.want == "") != (got == "") || !strings.HasPrefix(got, "  "+c.want) && c.want != "" {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		name            string
		row             row
		accepts, missed []simulator.Accept
		twice           int
	}{
		{"refused, then accepted", row{policy: "hold"}, []simulator.Accept{accept(2, 2, 0)}, []simulator.Accept{accept(1, 1, 0)}, 0},
		{"accepted, then refused", row{policy: "hold"}, []simulator.Accept{accept(1, 1, 0)}, []simulator.Accept{accept(2, 2, 0)}, 1},
		{"accepted, then refused, by its policy", row{policy: "resend"}, []simulator.Accept{accept(1, 1, 0)}, []simulator.Accept{accept(2, 2, 0)}, 0},
		{"failed by a webhook, then refused", row{policy: "hold"}, []simulator.Accept{accept(1, 1, 1.5, "failed")}, []simulator.Accept{accept(2, 2, 0)}, 0},
		{"unknown, then another", row{policy: "hold", unknownTries: []int{1}}, nil, []simulator.Accept{accept(1, 1, 0), accept(2, 2, 0)}, 1},
		{"unknown, then proved unsent", row{policy: "hold", unknownTries: []int{1}, unsentTries: []int{1}}, nil, []simulator.Accept{accept(1, 1, 0), accept(2, 2, 0)}, 0},
	} {
		v := &verdict{}
		v.judgeAgain(&c.row, c.accepts, c.missed)
		if len(v.twice) != c.twice {
			t.Errorf("%s: %v, want %d", c.name, v.twice, c.twice)
		}
	}

	stood := &pulse{stalls: []stall{{base.Add(9 * time.Second), base.Add(12 * time.Second)}}}
	for arrived, late := range map[float64]int{12.2: 0, 12.6: 1} {
		v := &verdict{earliest: stood.earliest}
		v.judgeLeases([]simulator.Accept{by("w", arrived)}, leases)
		if len(v.late) != late || v.blurred != 1-late {
			t.Errorf("%g s, after a stall that ended at 12: %v, %d blurred", arrived, v.late, v.blurred)
		}
	}

	rows := map[uuid.UUID]*row{id: {id: id, status: "delivered"}}
	other := uuid.MustParse("0190b5a0-0000-7000-8000-000000000002").String()
	for _, c := range []struct {
		name string
		sent sent
		row  *row
		want string
	}{
		{"in order", sent{id: id.String()}, rows[id], ""},
		{"in no row", sent{id: other}, nil, "lost: "},
		{"another row", sent{id: other}, rows[id], "lost: "},
		{"two ids", sent{id: id.String(), otherID: other}, rows[id], "wrong: "},
		{"no answer", sent{}, nil, "wrong: "},
		{"no answer, expired before", sent{lives: time.Second}, nil, ""},
		{"cancelled, says the answer", sent{id: id.String(), cancelled: true}, rows[id], "wrong: "},
	} {
		v := &verdict{}
		v.judgeClient(&c.sent, c.row, rows)
		if got := v.String(); (c.want == "") != (got == "") || !strings.HasPrefix(got, "  "+c.want) && c.want != "" {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestFaultsAreChosenByName(t *testing.T) {
	for list, want := range map[string]int{"all": len(faults) + len(chaoses) + 1, "none": 0, "": 0, "kill-worker,webhook-lost": 2} {
		if on, err := chosen(list); err != nil || len(on) != want {
			t.Errorf("%q: %v, %v", list, on, err)
		}
	}
	if _, err := chosen("kill-worker,earthquake"); err == nil || !strings.Contains(err.Error(), "earthquake") {
		t.Errorf("an unknown fault: %v", err)
	}
}
