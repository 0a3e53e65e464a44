// Package report keeps the roll-ups of the delivery reports up to date.
package report

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/store"
)

const (
	// Every is how often the roll-ups are brought up to date.
	Every = 30 * time.Second
	// ForgetEvery is how often old ones are removed.
	ForgetEvery = time.Hour
	// late is how far the roll-ups may be behind before it is told: in good order they are 65 to 81 minutes.
	late = 3 * time.Hour
)

// Roller does the work; it is safe for concurrent use, by several processes too.
type Roller struct {
	store   *store.Store
	log     *slog.Logger
	keep    int
	metrics metrics
}

type metrics struct {
	lag      prometheus.Gauge
	waiting  prometheus.Gauge
	messages prometheus.Counter
	changes  prometheus.Counter
	runs     *prometheus.CounterVec
	seconds  prometheus.Histogram
}

// New makes a Roller. Roll-ups are kept for reportDays, and never shorter than the messages, which are kept for retentionDays; 0
// is for ever in both. A nil Registerer takes no metrics.
func New(st *store.Store, reportDays, retentionDays int, logger *slog.Logger, r prometheus.Registerer) *Roller {
	keep := max(reportDays, retentionDays)
	if reportDays == 0 || retentionDays == 0 {
		keep = 0
	}
	m := metrics{
		lag: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "wagate_report_rollup_lag_seconds", Help: "How far the roll-ups of the reports are behind; 65 to 81 minutes in good order. Of the worker that looked last.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "wagate_report_changes_waiting", Help: "Logged changes of older messages that are not in the roll-ups yet, counted up to 100,000. The reports count them all the same.",
		}),
		messages: prometheus.NewCounter(prometheus.CounterOpts{Name: "wagate_report_messages_rolled_up_total", Help: "Messages rolled up."}),
		changes:  prometheus.NewCounter(prometheus.CounterOpts{Name: "wagate_report_changes_rolled_up_total", Help: "Logged changes moved into the roll-ups."}),
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wagate_report_runs_total", Help: "Runs of the roller, by how they ended: done, waits (for a transaction that began before), elsewhere (another one runs), stopped, failed.",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "wagate_report_run_seconds", Help: "How long a run of the roller took.", Buckets: prometheus.ExponentialBuckets(0.005, 4, 9),
		}),
	}
	if r != nil {
		r.MustRegister(m.lag, m.waiting, m.messages, m.changes, m.runs, m.seconds)
	}
	return &Roller{store: st, log: logger, keep: keep, metrics: m}
}

// RollUp is one run.
func (r *Roller) RollUp(ctx context.Context) error {
	began := time.Now()
	done, err := r.store.RollUp(ctx)
	r.metrics.messages.Add(float64(done.Messages))
	r.metrics.changes.Add(float64(done.Changes))
	r.metrics.seconds.Observe(time.Since(began).Seconds())
	result := "done"
	switch {
	case errors.Is(err, context.Canceled):
		result = "stopped"
	case err != nil:
		result = "failed"
	case done.Elsewhere:
		result = "elsewhere"
	case done.Waits:
		result = "waits"
	}
	r.metrics.runs.WithLabelValues(result).Inc()
	if err != nil {
		return err
	}
	state, err := r.store.RollupState(ctx)
	if err != nil {
		return err
	}
	lag := state.Now.Sub(state.Until)
	r.metrics.lag.Set(lag.Seconds())
	r.metrics.waiting.Set(float64(state.Changes))
	if done.Waits && lag > late {
		r.log.WarnContext(ctx, "the reports' roll-ups wait for a transaction that has run for hours", "until", state.Until)
	}
	return nil
}

// Forget removes roll-ups that are older than they are kept.
func (r *Roller) Forget(ctx context.Context) error {
	if r.keep == 0 {
		return nil
	}
	n, err := r.store.ForgetRollups(ctx, time.Now().AddDate(0, 0, -r.keep))
	if n > 0 {
		r.log.InfoContext(ctx, "old roll-ups of the reports removed", "rows", n, "kept_days", r.keep)
	}
	return err
}
