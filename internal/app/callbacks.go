package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/callback"
	"wagate/internal/config"
	"wagate/internal/queue"
	"wagate/internal/reach"
	"wagate/internal/seal"
	"wagate/internal/store"
)

// callbackRules are those of a process: where callbacks may go.
func callbackRules(cfg config.Config) *reach.Rules {
	return reach.New(cfg.CallbackAllow, cfg.CallbackLoopback)
}

// withCallbacks is a store whose events get their jobs as they are written.
func withCallbacks(pool *pgxpool.Pool, jobs *queue.Inserter) *store.Store {
	st := store.New(pool)
	st.OnCallbacks(func(ctx context.Context, tx pgx.Tx, runs []store.CallbackRun) error {
		put := make([]queue.CallbackJob, len(runs))
		for i, r := range runs {
			put[i] = queue.CallbackJob{CallbackArgs: queue.CallbackArgs{Endpoint: r.EndpointID, Run: r.Run}, At: r.At}
		}
		return jobs.InsertCallbacks(ctx, tx, put)
	})
	return st
}

func newDeliverer(cfg config.Config, st *store.Store, jobs *queue.Inserter, sealer *seal.Sealer, logger *slog.Logger, reg prometheus.Registerer) (*callback.Deliverer, *callback.Client) {
	client := callback.NewClient(callbackRules(cfg))
	return callback.New(callback.Config{Store: st, Jobs: jobs, Client: client, Sealer: sealer, Logger: logger, Registerer: reg}), client
}

// forgetCallbacks removes callbacks that are kept no longer.
func forgetCallbacks(ctx context.Context, st *store.Store, cfg config.Config) error {
	const atOnce = 5000
	days := max(cfg.CallbackKeepDays, 1)
	// They hold what notifications do, and the numbers of events.
	for _, bound := range []int{upkeepRules(cfg).Webhooks(), upkeepRules(cfg).Events()} {
		if bound > 0 {
			days = min(days, bound)
		}
	}
	for {
		n, err := st.ForgetCallbacks(ctx, time.Duration(days)*24*time.Hour, atOnce)
		if err != nil || n < atOnce {
			return err
		}
	}
}
