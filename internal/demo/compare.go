package demo

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"wagate/internal/simulator"
)

// cell is a phone number and a template; empty for other messages.
type cell struct{ phone, template string }

// counts are what the report and the ledger both know of a cell.
type counts struct{ accepted, sent, delivered, read int64 }

// compare prints the delivery report from SQL beside the simulator's ledger and says whether they agree.
func (s *stack) compare(ctx context.Context, out io.Writer, total int, started time.Time) error {
	report, err := s.report(ctx)
	if err != nil {
		return err
	}
	p, err := s.progress(ctx)
	if err != nil {
		return err
	}
	ledger := s.sim.Ledger()

	ours, theirs := map[cell]counts{}, map[cell]counts{}
	var rows, failed, waiting int64
	for _, d := range report {
		ours[cell{d.phone, d.template}] = counts{d.accepted, d.sent, d.delivered, d.read}
		rows += d.total
		failed += d.failed
		waiting += d.unknown + d.waiting + d.expiredCancelled
	}
	ledgerFailed := ledger.Totals.Undeliverable
	for _, d := range ledger.Deliveries {
		theirs[cell{d.Phone, d.Template}] = counts{d.Accepted, d.Sent, d.Delivered, d.Read}
		ledgerFailed += d.Failed
	}
	var differ []cell
	for _, c := range slices.SortedFunc(maps.Keys(merged(ours, theirs)), func(a, b cell) int {
		return cmp.Or(cmp.Compare(a.phone, b.phone), cmp.Compare(a.template, b.template))
	}) {
		if ours[c] != theirs[c] {
			differ = append(differ, c)
		}
	}
	s.print(out, ours, theirs, ledger)
	for _, c := range differ {
		fmt.Fprintf(out, "DIFFERS: phone number %s, template %q: report %+v, ledger %+v\n", c.phone, c.template, ours[c], theirs[c])
	}

	lost, stuck, twice := int64(total)-rows, int64(total)-int64(p.ended), ledger.Totals.ExtraAccepts
	ok := len(differ) == 0 && lost == 0 && stuck == 0 && twice == 0 && waiting == 0 && failed == ledgerFailed &&
		ledger.Totals.StatusesLost == 0 && ledger.Totals.Accepted == int64(total)-ledger.Totals.Undeliverable
	t := ledger.Totals
	fmt.Fprintf(out, "Throttles: %d provoked and survived, %d caused by the gateway. Answers lost: %d. Outcomes unknown and then settled: %d. Statuses repeated: %d.\n",
		t.ThrottledProvoked, t.ThrottledLimit, t.DroppedAnswers+t.BadGateways, p.settled, t.DuplicateStatuses)
	verdict := "report and ledger agree"
	if !ok {
		verdict = "REPORT AND LEDGER DISAGREE"
	}
	fmt.Fprintf(out, "wagate demo: %s in %.1f s: %d messages, %d accepted by Meta, %d delivered, %d failed with a reason; lost %d, sent twice %d, stuck %d\n",
		verdict, time.Since(started).Seconds(), total, t.Accepted, p.delivered, p.failed, lost, twice, stuck)
	if !ok {
		return ErrDisagree
	}
	return nil
}

func (s *stack) print(out io.Writer, ours, theirs map[cell]counts, ledger simulator.Ledger) {
	fmt.Fprintln(out, "\nDelivery report, SQL on report.delivery_daily (left) beside the simulator's ledger (right):")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "phone number\tlimit/s\tpeak/s\taccepted\tsent\tdelivered\tread\t|\taccepted\tsent\tdelivered\tread\t")
	for _, phone := range demoPhones {
		a, b := sum(ours, phone.id), sum(theirs, phone.id)
		peak := 0
		for _, p := range ledger.Phones {
			if p.ID == phone.id {
				peak = p.PeakPerSecond
			}
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t|\t%d\t%d\t%d\t%d\t\n",
			phone.id, phone.limit, peak, a.accepted, a.sent, a.delivered, a.read, b.accepted, b.sent, b.delivered, b.read)
	}
	_ = w.Flush()
	fmt.Fprintf(out, "%d cells (phone number × template) compared, each count of each.\n", len(merged(ours, theirs)))
}

func sum(of map[cell]counts, phone string) (c counts) {
	for k, v := range of {
		if k.phone == phone {
			c.accepted += v.accepted
			c.sent += v.sent
			c.delivered += v.delivered
			c.read += v.read
		}
	}
	return c
}

func merged(a, b map[cell]counts) map[cell]counts {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}
