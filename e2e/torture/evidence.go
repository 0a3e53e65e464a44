package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
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
	failedAt     bool        // on_unknown = fail was decided
	unknownTries []int       // tries that ended as unknown
	unsentTries  []int       // tries of which it is known that nothing was accepted
	failures     int         // accepts that a failed webhook ended
	duplicate    bool        // duplicate_detected is among its events
	acceptedTrys map[int]bool
}

// leaseTime is from when until when a worker owned a WABA under an epoch.
type leaseTime struct {
	worker     string
	epoch      int64
	from, till time.Time
}

// arrivals are all POSTs together.
func arrivals(sets ...map[uuid.UUID][]simulator.Accept) (all []simulator.Accept) {
	for _, set := range sets {
		for _, list := range set {
			all = append(all, list...)
		}
	}
	return all
}

// missed gives what arrived and was not accepted, by message.
func (s *stage) missed() map[uuid.UUID][]simulator.Accept {
	all := map[uuid.UUID][]simulator.Accept{}
	for after := int64(0); ; {
		page := s.sim.Missed(after, 10_000)
		if len(page) == 0 {
			return all
		}
		for _, m := range page {
			if id, err := uuid.Parse(m.OurID); err == nil {
				all[id] = append(all[id], simulator.Accept{OurID: m.OurID, Try: m.Try, Phone: m.Phone, ArrivalUnixNS: m.ArrivalUnixNS, Worker: m.Worker})
			}
		}
		after = page[len(page)-1].Seq
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
		       coalesce(e.resends, '{}'), coalesce(e.duplicate, false), coalesce(e.tries, '{}'), coalesce(e.failed, false), coalesce(e.unknown, '{}'), coalesce(e.unsent, '{}')
		FROM messages m LEFT JOIN (
			SELECT message_id, array_agg(at ORDER BY at) FILTER (WHERE kind = 'settled' AND detail->>'as' = 'resend') AS resends,
			       bool_or(kind = 'duplicate_detected') AS duplicate,
			       array_agg(try) FILTER (WHERE kind = 'try.accepted') AS tries,
			       bool_or(kind = 'settled' AND detail->>'as' = 'fail') AS failed,
			       array_agg(try) FILTER (WHERE kind = 'try.unknown') AS unknown,
			       array_agg(try) FILTER (WHERE kind IN ('try.unsent', 'try.transient', 'try.throttled')) AS unsent
			FROM message_events GROUP BY message_id
		) e ON e.message_id = m.id`)
	if err != nil {
		return nil, fmt.Errorf("reading the messages: %w", err)
	}
	all := map[uuid.UUID]*row{}
	var r row
	var accepted []int
	_, err = pgx.ForEachRow(rows, []any{&r.id, &r.reference, &r.status, &r.policy, &r.try, &r.wamid, &r.errorTitle, &r.byMeta, &r.unknownWhy, &r.open, &r.expires,
		&r.resends, &r.duplicate, &accepted, &r.failedAt, &r.unknownTries, &r.unsentTries}, func() error {
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
