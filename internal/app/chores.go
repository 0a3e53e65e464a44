package app

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/config"
	"wagate/internal/queue"
	"wagate/internal/report"
	"wagate/internal/store"
	"wagate/internal/upkeep"
)

// choresEvery is how often most chores look whether something is due: what has failed is tried again then.
const choresEvery = 10 * time.Minute

// newChores are what one of the workers does every so often: what keeps tables small, reports quick, and forgets in time. Each
// goes in steps, so that the next run goes on where one ended.
func newChores(
	cfg config.Config, st *store.Store, jobs *queue.Inserter, roller *report.Roller, keeper *upkeep.Keeper, logger *slog.Logger, r prometheus.Registerer,
) []queue.Chore {
	chores := []queue.Chore{
		{Name: "report.rollup", Every: report.Every, Run: roller.RollUp},
		{Name: "report.forget", Every: report.ForgetEvery, Run: roller.Forget},
		{Name: "partitions", Every: choresEvery, Run: func(ctx context.Context) error { return partitions(ctx, st) }},
		{Name: "forget", Every: choresEvery, Run: func(ctx context.Context) error { return forget(ctx, st, cfg) }},
		{Name: "redact", Every: choresEvery, Run: func(ctx context.Context) error {
			if !keeper.Pass(ctx, time.Now()) {
				return errors.New("some of what is to be forgotten is still there; the log says what")
			}
			return ctx.Err()
		}},
		{Name: "stranded", Every: time.Hour, Run: func(ctx context.Context) error { return mendStranded(ctx, st, jobs, cfg, logger) }},
	}
	if cfg.RetentionDays > 0 {
		chores = append(chores, queue.Chore{Name: "retention", Every: choresEvery, Run: func(ctx context.Context) error { return retention(ctx, st, cfg, logger) }})
	}
	m := newChoreMetrics(r)
	for i := range chores {
		chores[i].Run = m.watch(chores[i], logger)
	}
	return chores
}

type choreMetrics struct {
	runs *prometheus.CounterVec
	last *prometheus.GaugeVec
}

func newChoreMetrics(r prometheus.Registerer) choreMetrics {
	m := choreMetrics{
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wagate_chore_runs_total", Help: "Runs of chores in this worker, by how they ended: done, failed, stopped (with the worker, or after ten minutes; the next run goes on).",
		}, []string{"chore", "result"}),
		last: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "wagate_chore_last_done_timestamp_seconds", Help: "When a run of a chore in this worker was done last. The greatest of all workers is the deployment's.",
		}, []string{"chore"}),
	}
	if r != nil {
		r.MustRegister(m.runs, m.last)
	}
	return m
}

// watch counts the runs of a chore and tells of failures.
func (m choreMetrics) watch(c queue.Chore, logger *slog.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		err := c.Run(ctx)
		switch {
		case err == nil:
			m.runs.WithLabelValues(c.Name, "done").Inc()
			m.last.WithLabelValues(c.Name).SetToCurrentTime()
		case ctx.Err() != nil:
			m.runs.WithLabelValues(c.Name, "stopped").Inc()
		default:
			m.runs.WithLabelValues(c.Name, "failed").Inc()
			logger.WarnContext(ctx, "a chore failed, the next run tries again", "chore", c.Name, "every", c.Every.String(), "err", err)
		}
		return err
	}
}

// partitions makes the daily partitions of a week ahead.
func partitions(ctx context.Context, st *store.Store) error {
	_, err := st.EnsurePartitions(ctx, 7)
	return err
}

// forget removes small rows that are of no more use.
func forget(ctx context.Context, st *store.Store, cfg config.Config) error {
	const atOnce = 10_000
	var errs []error
	for ctx.Err() == nil {
		n, err := st.ForgetIdempotencyKeys(ctx, cfg.IdempotencyKeep, atOnce)
		if err != nil || n < atOnce {
			errs = append(errs, err)
			break
		}
	}
	errs = append(errs, forgetGraphIDs(ctx, st), forgetCallbacks(ctx, st, cfg), forgetConsent(ctx, st, cfg))
	return errors.Join(errs...)
}

// retention drops the days that are past WAGATE_RETENTION_DAYS.
func retention(ctx context.Context, st *store.Store, cfg config.Config, logger *slog.Logger) error {
	dropped, err := st.DropBefore(ctx, time.Now().AddDate(0, 0, -cfg.RetentionDays))
	if err == nil && len(dropped.Partitions)+len(dropped.Kept)+len(dropped.Busy) > 0 {
		logger.InfoContext(ctx, "retention", "dropped", dropped.Partitions, "kept_with_open_messages", dropped.Kept, "busy", dropped.Busy, "wamids", dropped.WAMIDs)
	}
	return err
}

// strandedFrom is how old a message without a job must be to be taken for stranded.
const strandedFrom = 5 * time.Minute

// strandedDays is how far back messages without a job are looked for.
const strandedDays = 62

// mendStranded gives messages that wait without a job a new one, and tells of it: none should be there. One process does it,
// once an hour.
func mendStranded(ctx context.Context, st *store.Store, jobs *queue.Inserter, cfg config.Config, logger *slog.Logger) error {
	const atOnce = 1000
	if mine, err := st.ClaimChore(ctx, "stranded", 50*time.Minute); err != nil || !mine {
		return err
	}
	for day := 0; day <= strandedDays; {
		var waiting []store.Again
		var unknown int
		err := st.InTx(ctx, func(tx pgx.Tx) (err error) {
			if waiting, unknown, err = st.Stranded(ctx, tx, time.Now().AddDate(0, 0, -day), strandedFrom, cfg.UnknownAfter, atOnce); err != nil {
				return err
			}
			sends := make([]queue.Send, len(waiting))
			for i, m := range waiting {
				sends[i] = queue.Send{MessageID: m.ID, PhoneNumberID: m.PhoneNumberID, Priority: m.Priority, At: m.SendAt}
			}
			return jobs.Insert(ctx, tx, sends)
		})
		if err != nil {
			return err
		}
		if len(waiting)+unknown > 0 {
			logger.ErrorContext(ctx, "messages had lost their jobs: those that wait have new ones, those that were being sent are unknown", "waiting", len(waiting), "unknown", unknown)
		}
		if len(waiting)+unknown < atOnce {
			day++
		}
	}
	return nil
}
