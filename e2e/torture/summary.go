package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// summary adds up the cycles of a run.
type summary struct {
	started  time.Time
	messages int
	seed     uint64
	leftOut  string
	cycles   []*result
}

func (s *summary) add(c *result) { s.cycles = append(s.cycles, c) }

func (s *summary) broken() (n int) {
	for _, c := range s.cycles {
		if c.verdict.broken() {
			n++
		}
	}
	return n
}

// faultRow is one line of the table.
type faultRow struct {
	name                    string
	cycles, least, messages int
}

func (s *summary) rows() []faultRow {
	var all []faultRow
	for _, name := range faultNames() {
		r := faultRow{name: name, least: -1}
		for _, c := range s.cycles {
			n, on := c.hits[name]
			if !on {
				continue
			}
			r.cycles++
			r.messages += n
			if r.least < 0 || n < r.least {
				r.least = n
			}
		}
		if r.cycles > 0 {
			all = append(all, r)
		}
	}
	return all
}

// total is one figure of all cycles.
type total struct {
	name string
	n    int
}

func (s *summary) totals() []total {
	t := map[string]int{}
	for _, c := range s.cycles {
		for _, n := range c.verdict.counts {
			t["accepted by wagate"] += n
		}
		t["accepted by the Cloud API"] += int(c.accepts)
		t["refused for a limit"] += int(c.refused)
		t["on the operators' list, with a reason"] += c.verdict.counts["unknown"]
		t["sent again by on_unknown = resend, nothing heard before the deadline"] += c.verdict.duplicates
		t["lost"] += len(c.verdict.lost)
		t["sent twice"] += len(c.verdict.twice)
		t["stuck"] += len(c.verdict.stuck)
		t["sent after a lease had ended"] += len(c.verdict.late)
		t["stamped right after the machine stood still"] += c.verdict.blurred
		t["otherwise wrong"] += len(c.verdict.other)
	}
	var all []total
	for _, name := range []string{
		"accepted by wagate", "accepted by the Cloud API", "refused for a limit", "on the operators' list, with a reason",
		"sent again by on_unknown = resend, nothing heard before the deadline", "lost", "sent twice", "stuck", "sent after a lease had ended", "otherwise wrong",
		"stamped right after the machine stood still",
	} {
		all = append(all, total{name, t[name]})
	}
	return all
}

func (s *summary) print(out io.Writer) {
	if len(s.cycles) == 0 {
		return
	}
	fmt.Fprintf(out, "\n%d cycles in %v\n\n%-24s %8s %18s %18s\n", len(s.cycles), time.Since(s.started).Round(time.Second), "fault", "cycles", "least hit a cycle", "messages hit")
	for _, r := range s.rows() {
		fmt.Fprintf(out, "%-24s %8d %18d %18d\n", r.name, r.cycles, r.least, r.messages)
	}
	fmt.Fprintln(out)
	for _, t := range s.totals() {
		fmt.Fprintf(out, "%10d  %s\n", t.n, t.name)
	}
	if s.leftOut != "" {
		fmt.Fprintln(out, "left out: "+s.leftOut)
	}
}

func (s *summary) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d cycles of %d messages, seeds %d to %d.\n\n| fault | cycles | least hit in a cycle | messages hit |\n|---|---:|---:|---:|\n",
		len(s.cycles), s.messages, s.seed, s.seed+uint64(max(len(s.cycles), 1))-1)
	for _, r := range s.rows() {
		fmt.Fprintf(&b, "| %s | %d | %d | %d |\n", r.name, r.cycles, r.least, r.messages)
	}
	b.WriteString("\n| messages | |\n|---|---:|\n")
	for _, t := range s.totals() {
		fmt.Fprintf(&b, "| %s | %d |\n", t.name, t.n)
	}
	return b.String()
}
