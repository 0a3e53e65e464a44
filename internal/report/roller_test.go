package report_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/message"
	"wagate/internal/pgtest"
	"wagate/internal/report"
	"wagate/internal/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func put(t *testing.T, pool *pgxpool.Pool, n int, ago time.Duration) {
	t.Helper()
	at := time.Now().Add(-ago)
	if _, err := pool.Exec(t.Context(), `SELECT wagate_ensure_partitions(0, $1::date)`, at); err != nil {
		t.Fatal(err)
	}
	for range n {
		if _, err := pool.Exec(t.Context(), `INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, status, created_at)
			VALUES ($1, '200', '100', '+1', 'text', 3, 'sent', $2)`, message.NewID(at), at); err != nil {
			t.Fatal(err)
		}
	}
}

func TestARunIsToldByMetrics(t *testing.T) {
	pool := pgtest.New(t)
	registry := prometheus.NewRegistry()
	var log bytes.Buffer
	r := report.New(store.New(pool), 0, 0, slog.New(slog.NewTextHandler(&log, nil)), registry)
	put(t, pool, 3, 5*time.Hour)
	if err := r.RollUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE messages SET status = 'delivered'`); err != nil {
		t.Fatal(err)
	}
	if err := r.RollUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.RollUp(gone); err == nil {
		t.Error("a run without time has done its work")
	}
	// A transaction that began long ago, and roll-ups that have stood still for as long.
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT pg_current_xact_id()`); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE report_state SET rolled_until = rolled_until - interval '1 day', closing_until = rolled_until - interval '1 day'`); err != nil {
		t.Fatal(err)
	}
	if err := r.RollUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "wait for a transaction") {
		t.Errorf("the log: %s", log.String())
	}
	got := gather(t, registry)
	for name, want := range map[string]float64{
		"wagate_report_changes_rolled_up_total": 6, "wagate_report_messages_rolled_up_total": 3, "wagate_report_changes_waiting": 0,
		"wagate_report_runs_total done": 2, "wagate_report_runs_total stopped": 1, "wagate_report_runs_total waits": 1,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if lag := time.Duration(got["wagate_report_rollup_lag_seconds"] * float64(time.Second)); lag < 25*time.Hour || lag > 26*time.Hour {
		t.Errorf("the lag is %s", lag)
	}
}

// gather gives the values of counters and gauges, by name and label.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}

// Roll-ups are kept as long as is set, and as long as the messages at least.
func TestRollupsAreForgotten(t *testing.T) {
	for _, c := range []struct{ reportDays, retentionDays, left int }{{10, 5, 1}, {10, 30, 2}, {0, 5, 2}, {10, 0, 2}, {30, 5, 2}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			pool := pgtest.New(t)
			r := report.New(store.New(pool), c.reportDays, c.retentionDays, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
			put(t, pool, 1, 20*24*time.Hour)
			put(t, pool, 1, 8*24*time.Hour)
			if err := r.RollUp(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := r.Forget(t.Context()); err != nil {
				t.Fatal(err)
			}
			var left int
			if err := pool.QueryRow(t.Context(), `SELECT sum(total)::integer FROM report.delivery_daily`).Scan(&left); err != nil || left != c.left {
				t.Errorf("%d are left, want %d; %v", left, c.left, err)
			}
		})
	}
}
