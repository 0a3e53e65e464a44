package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/simulator"
)

// row is a message as the database has it at the end.
type row struct {
	id           uuid.UUID
	reference    string
	status       string
	policy       string
	try          int
	wamid        string
	errorTitle   string
	byMeta       bool
	unknownWhy   string
	open         bool // its deadline is still to come, or it is held by nothing
	expires      *time.Time
	resends      []time.Time // when on_unknown = resend was decided
	duplicate    bool        // duplicate_detected is among its events
	acceptedTrys map[int]bool
}

// leaseTime is from when until when a worker owned a WABA under an epoch.
type leaseTime struct {
	worker     string
	epoch      int64
	from, till time.Time
}

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
	accepts := s.accepts()
	v := &verdict{counts: map[string]int{}, earliest: s.pulse.earliest}
	byReference := map[string]*row{}
	for _, r := range rows {
		v.counts[r.status]++
		if byReference[r.reference] != nil {
			v.other = append(v.other, fmt.Sprintf("%s and %s are both of the idempotency key %s", r.id, byReference[r.reference].id, r.reference))
		}
		byReference[r.reference] = r
		v.judgeMessage(r, accepts[r.id])
	}
	for id, list := range accepts {
		if rows[id] == nil {
			v.lost = append(v.lost, fmt.Sprintf("%s was accepted by the Cloud API and is in no row (arrived %s)", id, at(list[0].ArrivalUnixNS)))
		}
	}
	v.judgeLeases(accepts, leases)
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
	heard := slices.IndexFunc(accepts, told) >= 0
	recorded := slices.IndexFunc(accepts, func(a simulator.Accept) bool { return r.acceptedTrys[a.Try] }) >= 0
	switch r.status {
	case "queued", "sending":
		v.stuck = append(v.stuck, fmt.Sprintf("%s is %s, try %d, accepted %d times", r.id, r.status, r.try, len(accepts)))
	case "unknown":
		switch {
		case r.open:
			v.stuck = append(v.stuck, fmt.Sprintf("%s is unknown (%s) and its deadline is not decided", r.id, r.unknownWhy))
		case r.unknownWhy == "":
			v.stuck = append(v.stuck, fmt.Sprintf("%s is unknown without a reason", r.id))
		case heard:
			v.lost = append(v.lost, fmt.Sprintf("%s is unknown (%s) although a webhook of it was taken", r.id, r.unknownWhy))
		}
	case "accepted", "sent", "delivered", "read", "played":
		if !slices.ContainsFunc(accepts, func(a simulator.Accept) bool { return a.WAMID == r.wamid }) {
			v.lost = append(v.lost, fmt.Sprintf("%s is %s, and the Cloud API accepted it under no such wamid", r.id, r.status))
		}
	case "failed", "expired", "cancelled":
		if heard || recorded {
			v.lost = append(v.lost, fmt.Sprintf("%s is %s (%s) although it was accepted and we were told", r.id, r.status, r.errorTitle))
		}
		if len(accepts) > 0 && r.status != "failed" && len(r.resends) == 0 {
			v.other = append(v.other, fmt.Sprintf("%s is %s and was sent at %s", r.id, r.status, at(accepts[0].ArrivalUnixNS)))
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
	if r.policy != "resend" {
		v.twice = append(v.twice, fmt.Sprintf("%s (on_unknown %s) was accepted %d times, tries %v", r.id, r.policy, len(accepts), tries(accepts)))
		return
	}
	known := 0
	for i, a := range accepts {
		if told(a) || r.acceptedTrys[a.Try] {
			known++
		}
		if i == 0 {
			continue
		}
		before := accepts[i-1]
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
	v.duplicates += len(accepts) - 1
	if known > 1 && !r.duplicate {
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

// judgeLeases finds what arrived from a worker that did not own the WABA then.
func (v *verdict) judgeLeases(accepts map[uuid.UUID][]simulator.Accept, leases map[string][]leaseTime) {
	newest := map[string]int64{}
	var all []simulator.Accept
	for _, list := range accepts {
		all = append(all, list...)
	}
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

// accepts gives what the simulator accepted, by message and in the order of arrival.
func (s *stage) accepts() map[uuid.UUID][]simulator.Accept {
	all := map[uuid.UUID][]simulator.Accept{}
	for after := int64(0); ; {
		page := s.sim.Accepts(after, 10_000)
		if len(page) == 0 {
			break
		}
		for _, a := range page {
			id, _ := uuid.Parse(a.OurID) // the nil id is in no row
			all[id] = append(all[id], a)
		}
		after = page[len(page)-1].Seq
	}
	for _, list := range all {
		slices.SortFunc(list, func(a, b simulator.Accept) int { return cmp.Compare(a.ArrivalUnixNS, b.ArrivalUnixNS) })
	}
	return all
}

func (s *stage) rows(ctx context.Context) (map[uuid.UUID]*row, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT m.id, coalesce(m.reference, ''), m.status, m.on_unknown, m.try, coalesce(m.wamid, ''), coalesce(m.error_title, ''), m.failed_by_meta,
		       coalesce(m.unknown_reason, ''), m.settle_by IS NOT NULL, m.expires_at,
		       coalesce(e.resends, '{}'), coalesce(e.duplicate, false), coalesce(e.tries, '{}')
		FROM messages m LEFT JOIN (
			SELECT message_id, array_agg(at ORDER BY at) FILTER (WHERE kind = 'settled' AND detail->>'as' = 'resend') AS resends,
			       bool_or(kind = 'duplicate_detected') AS duplicate,
			       array_agg(try) FILTER (WHERE kind = 'try.accepted') AS tries
			FROM message_events GROUP BY message_id
		) e ON e.message_id = m.id`)
	if err != nil {
		return nil, fmt.Errorf("reading the messages: %w", err)
	}
	all := map[uuid.UUID]*row{}
	var r row
	var accepted []int
	_, err = pgx.ForEachRow(rows, []any{&r.id, &r.reference, &r.status, &r.policy, &r.try, &r.wamid, &r.errorTitle, &r.byMeta, &r.unknownWhy, &r.open, &r.expires,
		&r.resends, &r.duplicate, &accepted}, func() error {
		one := r
		one.acceptedTrys = map[int]bool{}
		for _, t := range accepted {
			one.acceptedTrys[t] = true
		}
		all[one.id] = &one
		r = row{}
		accepted = nil
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the messages: %w", err)
	}
	return all, nil
}

// leases gives who owned each WABA and when, by the log of the changes of leases.
func (s *stage) leases(ctx context.Context) (map[string][]leaseTime, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT waba_id, worker_id, epoch, min(at), least(max(expires_at), lead(min(at)) OVER (PARTITION BY waba_id ORDER BY epoch))
		FROM torture_leases GROUP BY waba_id, worker_id, epoch ORDER BY waba_id, epoch`)
	if err != nil {
		return nil, fmt.Errorf("reading the log of leases: %w", err)
	}
	all := map[string][]leaseTime{}
	var waba string
	var l leaseTime
	_, err = pgx.ForEachRow(rows, []any{&waba, &l.worker, &l.epoch, &l.from, &l.till}, func() error {
		if l.worker != "" {
			all[waba] = append(all[waba], l)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the log of leases: %w", err)
	}
	return all, nil
}

// wabaOf gives the WABA of a phone number, as the stage numbers them.
func wabaOf(phone string) string {
	n, _ := strconv.Atoi(phone)
	return wabaID((n - 1000) / 10)
}
