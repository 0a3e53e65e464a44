package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/access"
	"wagate/internal/callback"
	"wagate/internal/config"
	"wagate/internal/consent"
	"wagate/internal/embeddedpg"
	"wagate/internal/graphproxy"
	"wagate/internal/httpapi"
	"wagate/internal/intake"
	"wagate/internal/owner"
	"wagate/internal/queue"
	"wagate/internal/seal"
	"wagate/internal/store"
	"wagate/internal/webhook"
	"wagate/migrations"
)

// Gateway is the HTTP side: it accepts messages, hears webhooks and answers questions.
type Gateway struct {
	listener  net.Listener
	server    *http.Server
	served    chan error
	intake    *intake.Intake
	receiver  *webhook.Receiver
	graph     *graphproxy.Proxy
	templates *templates
	windows   *consent.Windows
	outside   *callback.Client
	media     func() error // closes the store of media
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	once      sync.Once
	err       error
}

// StartGateway starts the HTTP side over a pool that stays the caller's. Stop ends it.
func StartGateway(ctx context.Context, cfg config.Config, pool *pgxpool.Pool, logger *slog.Logger, registry *prometheus.Registry) (_ *Gateway, err error) {
	sealer, err := newSealer(cfg)
	if err != nil {
		return nil, err
	}
	jobs, err := queue.NewInserter(pool, quiet(logger))
	if err != nil {
		return nil, err
	}
	st := withCallbacks(pool, jobs)
	st.RedactAtFinal(cfg.ContentKeep.AtFinal)
	keys := access.New(st, time.Now)
	if cfg.AdminKey.IsSet() {
		if err := keys.Bootstrap(ctx, cfg.AdminKey.Value()); err != nil {
			return nil, fmt.Errorf("WAGATE_ADMIN_KEY: %w", err)
		}
	}
	var undo []func() // what was begun, where the rest fails
	defer func() {
		for i := len(undo) - 1; i >= 0 && err != nil; i-- {
			undo[i]()
		}
	}()
	graph, err := newGraphProxy(cfg, st, sealer, logger, registry)
	if err != nil {
		return nil, err
	}
	undo = append(undo, graph.Close)
	templates, err := newTemplates(cfg, st, sealer, logger)
	if err != nil {
		return nil, err
	}
	undo = append(undo, templates.close)
	library, closeMedia, err := openLibrary(ctx, cfg, st, logger)
	if err != nil {
		return nil, err
	}
	undo = append(undo, func() { err = errors.Join(err, closeMedia()) })
	receiver := webhook.New(webhook.Deps{
		Store: st, Jobs: jobs, BackoffMax: cfg.BackoffMax, VerifyToken: cfg.WebhookVerifyToken.Value(), Logger: logger, Registerer: registry,
		Keyword: keywords(st),
		Secrets: func(ctx context.Context) ([]webhook.AppSecret, error) { return appSecrets(ctx, st, sealer, logger) },
	})
	accept := intake.New(st, jobs, logger, registry, time.Now)
	accept.OnCallbacks(callbackRules(cfg))
	accept.UseTemplates(templates.book)
	windows := consent.NewWindows(st)
	undo = append(undo, accept.Close, receiver.Close, windows.Close)
	accept.CheckWindows(windows.Closed)
	outside := callback.NewClient(callbackRules(cfg))
	g := &Gateway{intake: accept, templates: templates, receiver: receiver, graph: graph, windows: windows, outside: outside, media: closeMedia, served: make(chan error, 1)}
	api, err := httpapi.New(httpapi.Deps{
		Intake: accept, Access: keys, Store: st, Sealer: sealer, Media: library, Webhook: receiver.Handler(),
		Graph: graph, GraphVersion: cfg.GraphVersion, Callbacks: outside, Windows: windows, Templates: templates.syncer,
		Ready: func(ctx context.Context) error { return ready(ctx, pool) },
		Backlog: func(ctx context.Context, phone string) (map[int]int64, error) {
			return jobs.Backlog(ctx, pool, phone)
		},
		Registerer: registry, Gatherer: registry, MetricsAllow: cfg.MetricsAllow, Logger: logger, Now: time.Now,
	})
	if err == nil {
		g.listener, err = listen(ctx, "WAGATE_LISTEN", cfg.Listen)
	}
	if err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	g.cancel = cancel
	g.server = api.Server()
	g.wg.Go(func() { _ = receiver.Run(run) })
	g.wg.Go(func() { consent.Listen(run, st, logger) })
	g.wg.Go(func() {
		// Workers do it every so often; the first gateway over a database that slept for days does not wait for them.
		if err := partitions(run, st); err != nil && run.Err() == nil {
			logger.WarnContext(run, "partitions were not made ahead, workers will", "err", err)
		}
	})
	if library != nil {
		g.wg.Go(func() { _ = library.Run(run) })
	}
	g.wg.Go(func() { owner.Watch(run, pool, "", owner.DeadPoll, logger) })
	go func() { g.served <- g.server.Serve(g.listener) }()
	return g, nil
}

// URL is where the API listens.
func (g *Gateway) URL() string { return "http://" + g.listener.Addr().String() }

// Stop takes no more requests, lets running ones end, applies no more webhooks: what was taken in is kept and applied by
// the next process.
func (g *Gateway) Stop(ctx context.Context) error {
	g.once.Do(func() {
		g.err = g.server.Shutdown(ctx)
		if g.err != nil {
			g.err = errors.Join(g.err, g.server.Close())
		}
		if err := <-g.served; !errors.Is(err, http.ErrServerClosed) {
			g.err = errors.Join(g.err, err)
		}
		g.cancel()
		g.wg.Wait()
		g.intake.Close()
		g.receiver.Close()
		g.windows.Close()
		g.graph.Close()
		g.outside.Close()
		g.templates.close()
		g.err = errors.Join(g.err, g.media())
	})
	return g.err
}

func ready(ctx context.Context, pool *pgxpool.Pool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return migrations.Check(ctx, pool)
}

// appSecrets opens the secret of every app that has one.
func appSecrets(ctx context.Context, st *store.Store, sealer *seal.Sealer, logger *slog.Logger) ([]webhook.AppSecret, error) {
	apps, err := st.Apps(ctx)
	if err != nil {
		return nil, err
	}
	secrets := make([]webhook.AppSecret, 0, len(apps))
	for _, a := range apps {
		if len(a.Secret) == 0 {
			continue
		}
		secret, err := sealer.Open(a.Secret, seal.AppSecret(a.ID))
		if err != nil {
			logger.ErrorContext(ctx, "the secret of an app does not open with WAGATE_SECRET_KEY", "app", a.ID, "err", err)
			continue
		}
		secrets = append(secrets, webhook.AppSecret{AppID: a.ID, Secret: secret})
	}
	return secrets, nil
}

// ServeOptions says what a gateway process runs beside the API.
type ServeOptions struct {
	Worker   bool
	Embedded bool
}

// RunGateway is the gateway process: it serves until ctx ends, then stops within 20 s.
func RunGateway(ctx context.Context, lookup func(string) (string, bool), logTo io.Writer, opt ServeOptions) (err error) {
	command := config.ServeCommand
	if opt.Embedded {
		command = config.EmbeddedCommand
	}
	cfg, err := config.LoadFor(command, lookup)
	if err != nil {
		return err
	}
	logger := NewLogger(logTo, cfg.LogLevel)
	var stops []func(context.Context) error
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*stopBound)
		defer cancel()
		for i := len(stops) - 1; i >= 0; i-- {
			err = errors.Join(err, stops[i](stop))
		}
	}()
	if opt.Embedded {
		if cfg.DatabaseURL.IsSet() {
			return errors.New("serve --embedded brings its own Postgres: unset DATABASE_URL, or leave --embedded out")
		}
		pg, err := embeddedpg.Start(ctx, embeddedpg.Config{DataDir: dataDir(cfg), Logger: logger})
		if err != nil {
			return fmt.Errorf("serve --embedded: %w", err)
		}
		stops = append(stops, pg.Stop)
		logger.InfoContext(ctx, "embedded Postgres is running", "data", pg.DataDir())
		cfg.DatabaseURL = config.NewSecret(pg.DSN())
		if err := Migrate(ctx, cfg, logger); err != nil {
			return err
		}
	}
	pool, err := connect(ctx, cfg, logger, OpenPool)
	if err != nil {
		return err
	}
	stops = append(stops, func(context.Context) error { pool.Close(); return nil })
	registry := newRegistry()
	g, err := StartGateway(ctx, cfg, pool, logger, registry)
	if err != nil {
		return err
	}
	stops = append(stops, g.Stop)
	if opt.Worker {
		w, err := StartWorker(ctx, cfg, pool, logger, registry)
		if err != nil {
			return err
		}
		stops = append(stops, w.Stop)
	}
	logger.InfoContext(ctx, "gateway is serving", "url", g.URL(), "worker", opt.Worker)
	select {
	case <-ctx.Done():
		logger.InfoContext(ctx, "gateway is stopping")
	case err := <-g.served:
		g.served <- http.ErrServerClosed
		return fmt.Errorf("serving HTTP: %w", err)
	}
	return nil
}

func dataDir(cfg config.Config) string {
	if cfg.DataDir != "" {
		return cfg.DataDir
	}
	return "wagate-data"
}

// RunMigrate brings the schema up to date and says what it did.
func RunMigrate(ctx context.Context, lookup func(string) (string, bool), out, logTo io.Writer) error {
	cfg, err := config.LoadFor(config.MigrateCommand, lookup)
	if err != nil {
		return err
	}
	logger := NewLogger(logTo, max(cfg.LogLevel, slog.LevelWarn))
	pool, err := OpenPool(ctx, cfg.DatabaseURL.Value(), 4)
	if err != nil {
		return err
	}
	defer pool.Close()
	result, err := migrations.Up(ctx, pool, logger)
	if err != nil {
		return err
	}
	if len(result.River) == 0 && len(result.Ours) == 0 {
		fmt.Fprintln(out, "The schema is up to date.")
		return nil
	}
	fmt.Fprintf(out, "Applied %d migrations of River and %d of wagate %v. The schema is up to date.\n", len(result.River), len(result.Ours), result.Ours)
	return nil
}

// Migrate brings the schema of the configured database up to date.
func Migrate(ctx context.Context, cfg config.Config, logger *slog.Logger) error {
	pool, err := OpenPool(ctx, cfg.DatabaseURL.Value(), 4)
	if err != nil {
		return err
	}
	defer pool.Close()
	_, err = migrations.Up(ctx, pool, logger)
	return err
}
