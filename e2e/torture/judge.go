package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"wagate/internal/simulator"
)

// verdict is what the judge found. Each list holds what is wrong, in words.
type verdict struct {
	lost, twice, stuck, late, other []string
	earliest                        func(stamped time.Time) time.Time // pulse.earliest
	counts                          map[string]int                    // final states
	duplicates                      int                               // by policy resend, as it allows
	blurred                         int                               // arrivals right after the machine stood still, judged by when they can have been written
}

// written gives when an accept can have been written at the earliest.
func (v *verdict) written(a simulator.Accept) time.Time {
	stamped := time.Unix(0, a.ArrivalUnixNS)
	if v.earliest == nil {
		return stamped
	}
	return v.earliest(stamped)
}

func (v *verdict) broken() bool {
	return len(v.lost)+len(v.twice)+len(v.stuck)+len(v.late)+len(v.other) > 0
}

func (v *verdict) String() string {
	var b strings.Builder
	for _, l := range []struct {
		name string
		list []string
	}{{"lost", v.lost}, {"sent twice", v.twice}, {"stuck", v.stuck}, {"sent after its lease", v.late}, {"wrong", v.other}} {
		for i, text := range l.list {
			if i == 20 {
				fmt.Fprintf(&b, "  ... and %d more\n", len(l.list)-i)
				break
			}
			fmt.Fprintf(&b, "  %s: %s\n", l.name, text)
		}
	}
	return b.String()
}

// judge compares the clients' answers, the ledger and the database, message by message.
func (s *stage) judge(ctx context.Context) (*verdict, error) {
	rows, err := s.rows(ctx)
	if err != nil {
		return nil, err
	}
	leases, err := s.leases(ctx)
	if err != nil {
		return nil, err
	}
	accepts, missed := s.accepts(), s.missed()
	v := &verdict{counts: map[string]int{}, earliest: s.pulse.earliest}
	byReference, asked := map[string]*row{}, map[string]*sent{}
	for _, m := range s.load.all() {
		asked[m.key()] = m
	}
	for _, r := range rows {
		v.counts[r.status]++
		if byReference[r.reference] != nil {
			v.other = append(v.other, fmt.Sprintf("%s and %s are both of the idempotency key %s", r.id, byReference[r.reference].id, r.reference))
		}
		byReference[r.reference] = r
		v.judgeMessage(r, accepts[r.id])
		for _, a := range accepts[r.id] {
			if hasFailed(a) {
				r.failures++
			}
		}
		v.judgeEnd(r, asked[r.reference])
		v.judgeAgain(r, accepts[r.id], missed[r.id])
	}
	for id, list := range accepts {
		if rows[id] == nil {
			v.lost = append(v.lost, fmt.Sprintf("%s was accepted by the Cloud API and is in no row (arrived %s)", id, at(list[0].ArrivalUnixNS)))
		}
	}
	v.judgeLeases(arrivals(accepts, missed), leases)
	for _, m := range s.load.all() {
		v.judgeClient(m, byReference[m.key()], rows)
	}
	return v, nil
}

// judgeClient holds what a client was told against what there is.
func (v *verdict) judgeClient(m *sent, r *row, rows map[uuid.UUID]*row) {
	if m.otherID != "" {
		v.other = append(v.other, fmt.Sprintf("the idempotency key %s gave the ids %s and %s", m.key(), m.id, m.otherID))
	}
	if m.id == "" {
		if m.lives == 0 {
			v.other = append(v.other, fmt.Sprintf("%s got no answer although everything was back", m.key()))
		}
		return
	}
	id, err := uuid.Parse(m.id)
	if err != nil || rows[id] == nil || r == nil || r.id != id {
		v.lost = append(v.lost, fmt.Sprintf("%s was answered with the id %s, which is in no row", m.key(), m.id))
		return
	}
	if m.cancelled && r.status != "cancelled" {
		v.other = append(v.other, fmt.Sprintf("%s was cancelled, says an answer, and is %s", r.id, r.status))
	}
}

// told says that a webhook of an accept reached the gateway.
func told(a simulator.Accept) bool { return a.FirstToldUnixNS != 0 }

func at(ns int64) string { return time.Unix(0, ns).UTC().Format("15:04:05.000") }

// judgeMessage holds a message's state against what the Cloud API accepted of it, in the order of arrival.
func (v *verdict) judgeMessage(r *row, accepts []simulator.Accept) {
	// What a failed webhook has ended is no accept any more.
	heard := slices.ContainsFunc(accepts, func(a simulator.Accept) bool { return told(a) && !hasFailed(a) })
	recorded := slices.ContainsFunc(accepts, func(a simulator.Accept) bool { return r.acceptedTrys[a.Try] && !hasFailed(a) })
	switch r.status {
	case "queued", "sending":
		v.stuck = append(v.stuck, fmt.Sprintf("%s is %s, try %d, accepted %d times", r.id, r.status, r.try, len(accepts)))
	case "unknown":
		switch {
		case r.open:
			v.stuck = append(v.stuck, fmt.Sprintf("%s is unknown (%s) and its deadline is not decided", r.id, r.unknownWhy))
		case r.unknownWhy == "":
			v.stuck = append(v.stuck, fmt.Sprintf("%s is unknown without a reason", r.id))
		case heard || recorded:
			v.lost = append(v.lost, fmt.Sprintf("%s is unknown (%s) although it was accepted and we were told", r.id, r.unknownWhy))
		}
	case "accepted", "sent", "delivered", "read", "played":
		if !slices.ContainsFunc(accepts, func(a simulator.Accept) bool { return a.WAMID == r.wamid }) {
			v.lost = append(v.lost, fmt.Sprintf("%s is %s, and the Cloud API accepted it under no such wamid", r.id, r.status))
		}
	case "failed", "expired", "cancelled":
		byMeta := r.status == "failed" && r.byMeta && len(accepts) > 0 && hasFailed(accepts[len(accepts)-1])
		if (heard || recorded) && !byMeta {
			v.lost = append(v.lost, fmt.Sprintf("%s is %s (%s) although it was accepted and we were told", r.id, r.status, r.errorTitle))
		}
		took := slices.IndexFunc(accepts, func(a simulator.Accept) bool { return !hasFailed(a) })
		if took >= 0 && r.status != "failed" && len(r.resends) == 0 {
			v.other = append(v.other, fmt.Sprintf("%s is %s and was sent at %s", r.id, r.status, at(accepts[took].ArrivalUnixNS)))
		}
	default:
		v.other = append(v.other, fmt.Sprintf("%s has the status %s", r.id, r.status))
	}
	// What was told last and highest is what the message is.
	best := ""
	for _, a := range accepts {
		for _, st := range a.Statuses {
			if rank[st] > rank[best] {
				best = st
			}
		}
	}
	if rank[best] > rank[r.status] {
		v.lost = append(v.lost, fmt.Sprintf("%s is %s although %s was told", r.id, r.status, best))
	}
	for _, a := range accepts {
		if r.expires != nil && v.written(a).After(r.expires.Add(wireSlack)) {
			v.other = append(v.other, fmt.Sprintf("%s arrived at %s, after it expired at %s", r.id, at(a.ArrivalUnixNS), r.expires.UTC().Format("15:04:05.000")))
		}
	}
	v.judgeTwice(r, accepts)
}

var rank = map[string]int{"accepted": 1, "sent": 2, "delivered": 3, "read": 4, "played": 5}

const (
	// wireSlack is how much later than it was written a request may be seen by a busy simulator.
	wireSlack = 250 * time.Millisecond
	// settleGrace is how long after a deadline the product decides at the earliest: what was taken before the deadline counts.
	settleGrace = 500 * time.Millisecond
)

// judgeTwice looks at a message that was accepted more than once: only on_unknown = resend may do that, and only when
// nothing had been heard of the accept before.
func (v *verdict) judgeTwice(r *row, accepts []simulator.Accept) {
	if len(accepts) < 2 {
		return
	}
	proven := 0 // that were followed by a failed webhook, which allows one more try
	for _, a := range accepts[:len(accepts)-1] {
		if hasFailed(a) {
			proven++
		}
	}
	if r.policy != "resend" && len(accepts)-1 > proven {
		v.twice = append(v.twice, fmt.Sprintf("%s (on_unknown %s) was accepted %d times, tries %v", r.id, r.policy, len(accepts), tries(accepts)))
		return
	}
	known, again := 0, 0
	for i, a := range accepts {
		if told(a) || r.acceptedTrys[a.Try] {
			known++
		}
		if i == 0 {
			continue
		}
		before := accepts[i-1]
		if hasFailed(before) {
			continue
		}
		again++
		decided := slices.IndexFunc(r.resends, func(t time.Time) bool {
			return t.After(v.written(before)) && t.UnixNano() < a.ArrivalUnixNS
		})
		if decided < 0 {
			v.twice = append(v.twice, fmt.Sprintf("%s was accepted at %s and %s, and no deadline lies between", r.id, at(before.ArrivalUnixNS), at(a.ArrivalUnixNS)))
			continue
		}
		if told(before) && before.FirstToldUnixNS < r.resends[decided].Add(-settleGrace).UnixNano() {
			v.twice = append(v.twice, fmt.Sprintf("%s was sent again at %s although a webhook of the first was taken at %s, and the deadline was at %s",
				r.id, at(a.ArrivalUnixNS), at(before.FirstToldUnixNS), r.resends[decided].UTC().Format("15:04:05.000")))
		}
	}
	v.duplicates += again
	if known-proven > 1 && !r.duplicate {
		v.other = append(v.other, fmt.Sprintf("%s was accepted %d times, we know of %d, and duplicate_detected is not among its events", r.id, len(accepts), known))
	}
}

func tries(accepts []simulator.Accept) []int {
	var all []int
	for _, a := range accepts {
		all = append(all, a.Try)
	}
	return all
}

// judgeLeases finds what arrived from a worker that did not own the WABA then, by everything that arrived.
func (v *verdict) judgeLeases(all []simulator.Accept, leases map[string][]leaseTime) {
	newest := map[string]int64{}
	slices.SortFunc(all, func(a, b simulator.Accept) int { return cmp.Compare(a.ArrivalUnixNS, b.ArrivalUnixNS) })
	for _, a := range all {
		waba := wabaOf(a.Phone)
		when := time.Unix(0, a.ArrivalUnixNS)
		i := slices.IndexFunc(leases[waba], func(l leaseTime) bool {
			return l.worker == a.Worker && !when.Before(l.from) && !when.After(l.till)
		})
		if written := v.written(a); i < 0 && written.Before(when) {
			// Not in the order in which it was written, so its epoch is not compared.
			if slices.ContainsFunc(leases[waba], func(l leaseTime) bool {
				return l.worker == a.Worker && !when.Before(l.from) && !written.After(l.till)
			}) {
				v.blurred++
				continue
			}
		}
		if i < 0 {
			v.late = append(v.late, fmt.Sprintf("%s arrived at %s from %s, which did not own WABA %s then", a.OurID, at(a.ArrivalUnixNS), a.Worker, waba))
			continue
		}
		if epoch := leases[waba][i].epoch; epoch < newest[waba] {
			v.late = append(v.late, fmt.Sprintf("%s of epoch %d of WABA %s arrived after one of epoch %d", a.OurID, epoch, waba, newest[waba]))
		} else {
			newest[waba] = epoch
		}
	}
}

// hasFailed says that a failed webhook of an accept was taken.
func hasFailed(a simulator.Accept) bool { return slices.Contains(a.Statuses, "failed") }

// judgeEnd holds how a message ended against what was asked for it.
func (v *verdict) judgeEnd(r *row, m *sent) {
	wrong := func(why string) {
		v.other = append(v.other, fmt.Sprintf("%s is %s (on_unknown %s, %s), %s", r.id, r.status, r.policy, r.errorTitle, why))
	}
	switch {
	case m == nil:
		wrong("and nobody has sent it")
	case r.status == "cancelled" && m.cancel == 0:
		wrong("and nobody has cancelled it")
	case r.status == "expired" && m.lives == 0:
		wrong("and it had no end")
	case r.status == "failed" && !r.failedAt && !(r.byMeta && (m.lives > 0 || r.failures > 1)):
		// A failed webhook after its end is the end, and so is a second one.
		wrong("and no deadline has decided that")
	case r.status == "unknown" && r.policy == "fail", r.status == "unknown" && r.policy == "resend" && len(r.resends) < 2:
		wrong("and its policy says otherwise")
	}
}

// judgeAgain finds tries that were made, whatever came of them, after one that may have been accepted, where the policy does not
// say resend.
func (v *verdict) judgeAgain(r *row, accepts, missed []simulator.Accept) {
	if r.policy == "resend" {
		return
	}
	for _, later := range slices.Concat(accepts, missed) {
		for _, a := range accepts {
			if a.Try < later.Try && !hasFailed(a) {
				v.twice = append(v.twice, fmt.Sprintf("%s (on_unknown %s): try %d arrived at %s after try %d was accepted", r.id, r.policy, later.Try, at(later.ArrivalUnixNS), a.Try))
			}
		}
		for _, t := range r.unknownTries {
			proven := slices.Contains(r.unsentTries, t) || slices.ContainsFunc(accepts, func(a simulator.Accept) bool { return a.Try == t && hasFailed(a) })
			if t < later.Try && !proven {
				v.twice = append(v.twice, fmt.Sprintf("%s (on_unknown %s): try %d arrived at %s although nobody knows of try %d", r.id, r.policy, later.Try, at(later.ArrivalUnixNS), t))
			}
		}
	}
}
