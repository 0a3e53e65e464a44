package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// calmWithin bounds the time from the last fault until everything has come to rest.
const calmWithin = 75 * time.Second

// result is what came of one cycle.
type result struct {
	seed    uint64
	took    time.Duration
	hits    map[string]int
	verdict *verdict
	refused int64 // over a limit, by the simulator
	accepts int64
	logs    string // where the logs of a cycle that went wrong are
}

// cycle runs one cycle from an empty database to the judgement.
func (r *rig) cycle(ctx context.Context, seed uint64) (_ *result, err error) {
	s, err := r.open(ctx, seed)
	if err != nil {
		return nil, err
	}
	defer func() {
		if closeErr := s.close(context.WithoutCancel(ctx)); err == nil {
			err = closeErr
		}
	}()
	if err := s.unleash(); err != nil {
		return nil, err
	}
	loading, endLoad := context.WithTimeout(ctx, loadFor+2*calmWithin)
	defer endLoad()
	s.load.run(loading)
	if err := s.torment(ctx); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, s.logs())
	}
	s.logf("the last fault is over")
	calm, cancel := context.WithTimeout(ctx, calmWithin)
	defer cancel()
	loaded := make(chan struct{})
	go func() { s.load.wg.Wait(); close(loaded) }()
	select {
	case <-loaded:
	case <-calm.Done():
		endLoad()
		<-loaded
	}
	if err := s.settle(calm); err != nil {
		s.logf("%v", err) // the judge names what has not come to rest
		if text := s.load.last.Load(); text != nil {
			s.logf("the last answer that asks for a repetition: %s", *text)
		}
	}
	s.repeat(ctx)
	s.countChaos()
	v, err := s.judge(ctx)
	if err != nil {
		return nil, err
	}
	if text := s.load.wrong.Load(); text != nil {
		v.other = append(v.other, fmt.Sprintf("%d answers were refusals, such as %s", s.load.refused.Load(), *text))
	}
	if n := len(s.accepts()); n < s.opt.messages*3/4 {
		v.other = append(v.other, fmt.Sprintf("only %d of %d messages were accepted by the Cloud API", n, s.opt.messages))
	}
	if v.blurred > s.opt.messages/100 {
		v.other = append(v.other, fmt.Sprintf("%d arrivals could not be judged, as the machine stood still", v.blurred))
	}
	for name, on := range s.opt.faults {
		if on && s.hits[name] < enough && s.opt.messages >= fullCycle {
			v.other = append(v.other, fmt.Sprintf("%s hit only %d messages", name, s.hits[name]))
		}
	}
	totals := s.sim.Ledger().Totals
	stood, longest := s.pulse.longest()
	s.logf("the machine stood still for %v in all, %v at a time", stood.Round(time.Millisecond), longest.Round(time.Millisecond))
	res := &result{seed: seed, took: time.Since(s.started), hits: s.hits, verdict: v, refused: totals.ThrottledLimit, accepts: totals.Accepted}
	if v.broken() {
		res.logs = filepath.Join(os.TempDir(), fmt.Sprintf("wagate-torture-%d.log", seed))
		if err := os.WriteFile(res.logs, []byte(v.String()+s.details(ctx, v)+s.logs()), 0o600); err != nil {
			return nil, fmt.Errorf("keeping the logs: %w", err)
		}
	}
	return res, nil
}

// fullCycle is from how many messages on each fault must have hit enough of them.
const fullCycle = 2000

// repeat posts some messages once more: each must give the id it gave before.
func (s *stage) repeat(ctx context.Context) {
	again, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	n := 0
	for _, m := range s.load.all() {
		if m.id != "" && m.n%20 == 0 && m.lives == 0 && m.cancel == 0 {
			s.load.deliver(again, []*sent{m})
			if n++; n == 60 {
				return
			}
		}
	}
}

// settle waits until nothing moves any more: no message waits, every deadline was decided, every webhook was applied.
func (s *stage) settle(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for state := ""; ; {
		select {
		case <-ctx.Done():
			return fmt.Errorf("not at rest: %s: %w", state, ctx.Err())
		case <-tick.C:
		}
		var waiting, sending, open, raw int
		err := s.pool.QueryRow(ctx, `
			SELECT count(*) FILTER (WHERE status = 'queued'), count(*) FILTER (WHERE status = 'sending'), count(*) FILTER (WHERE settle_by IS NOT NULL),
			       (SELECT count(*) FROM webhook_raw WHERE processed_at IS NULL)
			FROM messages`).Scan(&waiting, &sending, &open, &raw)
		pending := s.sim.Ledger().Totals.StatusesPending
		state = fmt.Sprintf("%d wait, %d are being sent, %d deadlines, %d webhooks kept, %d to come, %v", waiting, sending, open, raw, pending, err)
		if err == nil && waiting+sending+open+raw == 0 && pending == 0 {
			return nil
		}
	}
}

// details gives the events of messages that something is wrong with.
func (s *stage) details(ctx context.Context, v *verdict) string {
	var b strings.Builder
	named := v.String()
	rows, err := s.pool.Query(ctx, `
		SELECT m.id::text, concat_ws(' ', m.status, 'try', m.try, m.on_unknown, m.marked_by, 'epoch', m.epoch, 'slot', m.slot_at::text, 'settle', m.settle_by::text) || E'\n' ||
		       coalesce((SELECT string_agg(concat_ws(' ', '   ', e.at::text, e.kind, e.try, e.wamid, e.detail::text), E'\n' ORDER BY e.at) FROM message_events e WHERE e.message_id = m.id), '') || E'\n' ||
		       coalesce((SELECT string_agg(concat_ws(' ', '    job', j.id, j.state, j.attempt, j.scheduled_at::text, j.attempted_at::text, j.finalized_at::text, j.attempted_by::text), E'\n' ORDER BY j.id) FROM river_job j WHERE j.args->>'id' = m.id::text), '')
		FROM messages m`)
	if err != nil {
		return err.Error()
	}
	defer rows.Close()
	accepts := s.accepts()
	for rows.Next() { //nolint:forbidigo // a few of many rows are wanted
		var id, text string
		if rows.Scan(&id, &text) == nil && strings.Contains(named, id) {
			fmt.Fprintf(&b, "%s %s\n", id, text)
			for key, list := range accepts {
				if key.String() == id {
					for _, a := range list {
						fmt.Fprintf(&b, "    accepted %s try %d by %s told %s %v\n", at(a.ArrivalUnixNS), a.Try, a.Worker, at(a.FirstToldUnixNS), a.Statuses)
					}
				}
			}
		}
	}
	if err := rows.Err(); err != nil {
		b.WriteString(err.Error())
	}
	return b.String()
}

func (c *result) printLine(out io.Writer, n, of int) {
	var states []string
	for s, k := range c.verdict.counts {
		states = append(states, fmt.Sprintf("%s %d", s, k))
	}
	slices.Sort(states)
	word := "in order"
	if c.verdict.broken() {
		word = "WRONG, logs in " + c.logs
	}
	fmt.Fprintf(out, "%3d/%d  seed %d  %5.1f s  %s  (%s; sent again by resend %d)\n", n, of, c.seed, c.took.Seconds(), word, strings.Join(states, ", "), c.verdict.duplicates)
	fmt.Fprint(out, c.verdict.String())
}
