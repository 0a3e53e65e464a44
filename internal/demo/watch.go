package demo

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// progress is how far the messages have come.
type progress struct {
	accepted, delivered, failed, unknown, ended int
	// settled counts those whose outcome was unknown and then proven by a webhook, or sent again by their own policy.
	settled int
}

// watch shows the progress until every message has ended and the simulator has told all it has to tell.
func (s *stack) watch(ctx context.Context, out io.Writer, total int, since time.Time) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	bar := isTerminal(out)
	var shown time.Time
	for {
		p, err := s.progress(ctx)
		if err != nil {
			return err
		}
		done := p.ended == total && s.sim.Ledger().Totals.StatusesPending == 0
		switch {
		case bar:
			fmt.Fprintf(out, "\r%s", p.bar(total, time.Since(since)))
		case done || time.Since(shown) >= time.Second:
			shown = time.Now()
			fmt.Fprintln(out, p.line(total, time.Since(since)))
		}
		if done {
			if bar {
				fmt.Fprintln(out)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			if bar {
				fmt.Fprintln(out)
			}
			return fmt.Errorf("%w: after %.0f s, %s", ErrDisagree, time.Since(since).Seconds(), p.line(total, time.Since(since)))
		case <-tick.C:
		}
	}
}

func (s *stack) progress(ctx context.Context) (p progress, err error) {
	// A reaction gets no more than sent from Meta, so for it sent is the end.
	row := s.pool.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE accepted_at IS NOT NULL OR status IN ('accepted', 'sent', 'delivered', 'read', 'played')),
		       count(*) FILTER (WHERE status IN ('delivered', 'read', 'played')),
		       count(*) FILTER (WHERE status = 'failed'), count(*) FILTER (WHERE status = 'unknown'),
		       count(*) FILTER (WHERE status IN ('delivered', 'read', 'played', 'failed') OR (status = 'sent' AND type = 'reaction')),
		       count(*) FILTER (WHERE unknown_at IS NOT NULL AND status <> 'unknown')
		FROM messages`)
	if err := row.Scan(&p.accepted, &p.delivered, &p.failed, &p.unknown, &p.ended, &p.settled); err != nil {
		return p, fmt.Errorf("reading the progress: %w", err)
	}
	return p, nil
}

func (p progress) line(total int, since time.Duration) string {
	return fmt.Sprintf("%5.1f s  %d/%d ended: %d delivered, %d failed; %d accepted by Meta, %d unknown now, %d unknown and settled",
		since.Seconds(), p.ended, total, p.delivered, p.failed, p.accepted, p.unknown, p.settled)
}

func (p progress) bar(total int, since time.Duration) string {
	const width = 40
	full := width * p.ended / total
	return fmt.Sprintf("[%s%s] %3d %%  %d delivered, %d failed, %d unknown  %4.1f s ",
		strings.Repeat("█", full), strings.Repeat("░", width-full), 100*p.ended/total, p.delivered, p.failed, p.unknown, since.Seconds())
}

// isTerminal says whether out is a terminal, where a line can be written over.
func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// delivery is a line of report.delivery_daily, summed over its days.
type delivery struct {
	phone, template                           string
	accepted, sent, delivered, read, failed   int64
	total, unknown, waiting, expiredCancelled int64
}

func (s *stack) report(ctx context.Context) ([]delivery, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT phone_number_id, coalesce(template, ''), sum(accepted)::bigint, sum(sent)::bigint, sum(delivered)::bigint, sum(read)::bigint,
		       sum(failed)::bigint, sum(total)::bigint, sum(unknown)::bigint, sum(waiting)::bigint, (sum(expired) + sum(cancelled))::bigint
		FROM report.delivery_daily GROUP BY 1, 2 ORDER BY 1, 2`)
	if err != nil {
		return nil, fmt.Errorf("reading report.delivery_daily: %w", err)
	}
	var all []delivery
	var d delivery
	_, err = pgx.ForEachRow(rows, []any{&d.phone, &d.template, &d.accepted, &d.sent, &d.delivered, &d.read, &d.failed, &d.total, &d.unknown, &d.waiting, &d.expiredCancelled},
		func() error { all = append(all, d); return nil })
	if err != nil {
		return nil, fmt.Errorf("reading report.delivery_daily: %w", err)
	}
	return all, nil
}
