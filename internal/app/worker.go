package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/account"
	"wagate/internal/callback"
	"wagate/internal/config"
	"wagate/internal/consent"
	"wagate/internal/dispatch"
	"wagate/internal/owner"
	"wagate/internal/queue"
	"wagate/internal/report"
	"wagate/internal/seal"
	"wagate/internal/sender"
	"wagate/internal/template"
	"wagate/internal/upkeep"
)

// Worker sends: it owns its share of the WABAs and works their lanes.
type Worker struct {
	log        *slog.Logger
	owner      *owner.Owner
	dispatcher *dispatch.Dispatcher
	callbacks  *callback.Deliverer
	outside    *callback.Client
	client     *queue.Client
	sender     *sender.Sender
	media      func() error // closes the store of media
	windows    *consent.Windows
	cancel     context.CancelFunc
	wg         sync.WaitGroup
	once       sync.Once
	err        error
}

// drainBound is how long a stopping worker waits for what it has begun.
const drainBound = 15 * time.Second

// StartWorker starts a worker over a pool that stays the caller's. Stop ends it.
func StartWorker(ctx context.Context, cfg config.Config, pool *pgxpool.Pool, logger *slog.Logger, registerer prometheus.Registerer) (*Worker, error) {
	return startWorker(ctx, cfg, pool, pool, logger, registerer)
}

// startWorker is StartWorker with a pool of their own for River's statements.
func startWorker(ctx context.Context, cfg config.Config, pool, jobs *pgxpool.Pool, logger *slog.Logger, registerer prometheus.Registerer) (_ *Worker, err error) {
	sealer, err := newSealer(cfg)
	if err != nil {
		return nil, err
	}
	id := workerID()
	logger = logger.With("worker", id)
	inserter, err := queue.NewInserter(pool, quiet(logger))
	if err != nil {
		return nil, err
	}
	st := withCallbacks(pool, inserter)
	st.RedactAtFinal(cfg.ContentKeep.AtFinal)
	post, err := sender.New(sender.Config{BaseURL: cfg.GraphURL, Version: cfg.GraphVersion, Timeout: cfg.PostTimeout, MaxConns: 1024, WorkerID: id})
	if err != nil {
		return nil, fmt.Errorf("WAGATE_GRAPH_URL or WAGATE_GRAPH_VERSION: %w", err)
	}
	uploader, closeMedia, err := openUploader(ctx, cfg, st, post, logger)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeMedia())
		}
	}()
	own := owner.New(owner.Config{Pool: pool, WorkerID: id, Logger: logger, TTL: cfg.Lease})
	windows := consent.NewWindows(st)
	var uploads dispatch.Media // none without a store
	if uploader != nil {
		uploads = uploader
	}
	dispatcher, err := dispatch.New(dispatch.Config{
		Media: uploads, WindowsClosed: windows.Closed, Store: st, Owner: own, Sender: post, Logger: logger, Registerer: registerer,
		OpenToken: func(wabaID string, sealed []byte) (string, error) {
			token, err := sealer.Open(sealed, seal.AccessToken(wabaID))
			return string(token), err
		},
		UnknownAfter: cfg.UnknownAfter, PostTimeout: cfg.PostTimeout, RecipientAllow: cfg.RecipientAllow, BackoffMax: cfg.BackoffMax,
	})
	if err != nil {
		windows.Close()
		return nil, err
	}
	keeper := upkeep.New(upkeep.Config{Store: st, Logger: logger, Registerer: registerer, Rules: upkeepRules(cfg)})
	roller := report.New(st, cfg.ReportDays, cfg.RetentionDays, logger, registerer)
	callbacks, outside := newDeliverer(cfg, st, inserter, sealer, logger, registerer)
	client, err := queue.NewClient(queue.ClientConfig{
		Pool: jobs, WorkerID: id, Handler: dispatcher.Handle, Callbacks: callbacks.Handle, Logger: quiet(logger), Chores: newChores(cfg, st, inserter, roller, keeper, logger, registerer),
	})
	if err != nil {
		dispatcher.Close()
		windows.Close()
		return nil, err
	}
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		dispatcher.Close()
		windows.Close()
		return nil, err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w := &Worker{log: logger, owner: own, dispatcher: dispatcher, callbacks: callbacks, outside: outside, client: client, sender: post, windows: windows, media: closeMedia, cancel: cancel}
	w.wg.Go(func() { _ = own.Run(run) })
	w.wg.Go(func() { _ = dispatcher.Run(run, client) })
	w.wg.Go(func() { callbacks.Run(run) })
	reader := account.New(account.Config{Store: st, Graph: post, Owned: dispatcher.Owned, Token: dispatcher.Token, Logger: logger})
	w.wg.Go(func() { _ = reader.Run(run) })
	w.wg.Go(func() { keeper.Index(run) })
	lists := template.NewKeeper(template.KeeperConfig{
		Store: st, Syncer: template.NewSyncer(template.SyncConfig{Store: st, Graph: post, Token: dispatcher.Token, Logger: logger}),
		Owned: dispatcher.Owned, Logger: logger, Registerer: registerer,
	})
	w.wg.Go(func() { _ = lists.Run(run) })
	return w, nil
}

// Stop drains: it yields what it owns, lets begun tries end, hands back the rest. Past its bound, or when ctx ends, what
// is still on the wire becomes unknown, and its webhooks settle it.
func (w *Worker) Stop(ctx context.Context) error {
	w.once.Do(func() {
		drain, cancel := context.WithTimeout(ctx, drainBound)
		defer cancel()
		w.callbacks.Stop()
		if err := w.dispatcher.Drain(drain); err != nil {
			w.err = fmt.Errorf("draining the worker: %w", err)
		}
		if err := w.client.Stop(drain); err != nil {
			w.err = errors.Join(w.err, err)
		}
		w.cancel()
		w.wg.Wait()
		w.dispatcher.Close()
		w.windows.Close()
		w.sender.Close()
		w.outside.Close()
		w.err = errors.Join(w.err, w.media())
	})
	return w.err
}

func newSealer(cfg config.Config) (*seal.Sealer, error) {
	sealer, err := seal.New(cfg.SecretKey.Bytes())
	if err != nil {
		return nil, fmt.Errorf("WAGATE_SECRET_KEY: %w", err)
	}
	return sealer, nil
}

// workerID names a process: host, process id and a random part, so that a restarted container is another worker.
func workerID() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "worker"
	}
	if len(host) > 40 {
		host = host[:40]
	}
	var b [4]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("%s-%d-%s", host, os.Getpid(), hex.EncodeToString(b[:]))
}

// quiet is the logger for River: its own story of starts and stops is not an operator's.
func quiet(l *slog.Logger) *slog.Logger { return slog.New(&atLeast{l.Handler(), slog.LevelWarn}) }

type atLeast struct {
	slog.Handler
	level slog.Level
}

// Enabled implements slog.Handler.
func (h *atLeast) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= h.level && h.Handler.Enabled(ctx, l)
}

// WithAttrs implements slog.Handler.
func (h *atLeast) WithAttrs(a []slog.Attr) slog.Handler {
	return &atLeast{h.Handler.WithAttrs(a), h.level}
}

// WithGroup implements slog.Handler.
func (h *atLeast) WithGroup(name string) slog.Handler {
	return &atLeast{h.Handler.WithGroup(name), h.level}
}
