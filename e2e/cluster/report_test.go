package cluster

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"wagate/internal/simulator"
)

// What analysts read in report.delivery_daily is what the Cloud API saw, per phone number, template and status.
func TestTheDeliveryReportEqualsTheLedger(t *testing.T) {
	const n = 600
	c := newCluster(t, simulator.Config{Latency: 5 * time.Millisecond, StatusDelay: 20 * time.Millisecond})
	phones := []string{"101", "102", "201"}
	c.phone("100", "101", 0, 0)
	c.phone("100", "102", 0, 0)
	c.phone("200", "201", 0, 0)
	// Delivered; sent only; read without delivered; every status twice; out of order; the answer lost; failed by webhook;
	// delivered and read; statuses before the answer; played; refused at once; a 502 after it was accepted.
	endings := []string{"0100", "0003", "0004", "0005", "0006", "0007", "0008", "0014", "0016", "0019", "0001", "0009"}
	for p, phone := range phones {
		var msgs []map[string]any
		for i := range n / len(phones) {
			m := map[string]any{"to": fmt.Sprintf("+1202%d%06d%s", p, i, endings[i%len(endings)])}
			switch i % 4 {
			case 0:
				m["type"], m["text"] = "text", map[string]any{"body": "hello"}
			default:
				m["type"] = "template"
				m["template"] = map[string]any{"name": fmt.Sprintf("order_update_%d", i%3), "language": map[string]any{"code": "en"}}
			}
			msgs = append(msgs, m)
		}
		c.accept(phone, msgs)
	}
	c.startWorker()
	c.until(time.Minute, "every status told", func(ctx context.Context) (bool, string) {
		s := c.statuses(ctx)
		l := c.sim.Ledger()
		waiting := s["queued"] + s["sending"] + s["unknown"] + s["accepted"]
		applied := c.count(`SELECT count(*) FROM webhook_raw WHERE processed_at IS NULL`)
		return waiting == 0 && l.Totals.StatusesPending == 0 && applied == 0, fmt.Sprint(s)
	})

	type cell struct{ phone, template string }
	type counts struct{ accepted, sent, delivered, read, failed int64 }
	report, ledger := map[cell]counts{}, map[cell]counts{}
	rows, err := c.pool.Query(t.Context(), `
		SELECT phone_number_id, coalesce(template, ''), sum(accepted)::bigint, sum(sent)::bigint, sum(delivered)::bigint, sum(read)::bigint, sum(failed)::bigint
		FROM report.delivery_daily GROUP BY 1, 2`)
	if err != nil {
		t.Fatal(err)
	}
	var k cell
	var v counts
	if _, err := pgx.ForEachRow(rows, []any{&k.phone, &k.template, &v.accepted, &v.sent, &v.delivered, &v.read, &v.failed}, func() error { report[k] = v; return nil }); err != nil {
		t.Fatal(err)
	}
	for _, d := range c.sim.Ledger().Deliveries {
		ledger[cell{d.Phone, d.Template}] = counts{d.Accepted, d.Sent, d.Delivered, d.Read, d.Failed}
	}
	// A refusal in the answer is a failure in the report, and no acceptance in the ledger's deliveries.
	rows, err = c.pool.Query(t.Context(), `SELECT phone_number_id, coalesce(template_name, ''), count(*) FROM messages WHERE error_code = 131026 AND wamid IS NULL GROUP BY 1, 2`)
	if err != nil {
		t.Fatal(err)
	}
	var refused, all int64
	if _, err := pgx.ForEachRow(rows, []any{&k.phone, &k.template, &refused}, func() error {
		l := ledger[k]
		l.failed += refused
		ledger[k] = l
		all += refused
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := c.sim.Ledger().Totals.Undeliverable; got != all {
		t.Errorf("the Cloud API refused %d, the database has %d of them", got, all)
	}
	if len(report) != len(ledger) || len(report) < 12 {
		t.Errorf("%d cells in the report, %d in the ledger", len(report), len(ledger))
	}
	for k, want := range ledger {
		if report[k] != want {
			t.Errorf("phone number %s, template %q: report %+v, ledger %+v", k.phone, k.template, report[k], want)
		}
	}
}
