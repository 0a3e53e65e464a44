package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"wagate/internal/config"
	"wagate/migrations"
)

// stopBound is the longest a process takes to stop after its first signal.
const stopBound = 20 * time.Second

// RunWorker is the worker process: it works until ctx ends, then stops within 20 s.
func RunWorker(ctx context.Context, lookup func(string) (string, bool), logTo io.Writer) error {
	cfg, err := config.LoadFor(config.WorkerCommand, lookup)
	if err != nil {
		return err
	}
	logger := NewLogger(logTo, cfg.LogLevel)
	pool, err := connect(ctx, cfg, logger, openWorkerPool)
	if err != nil {
		return err
	}
	defer pool.Close()
	jobs, err := OpenPool(ctx, cfg.DatabaseURL.Value(), max(cfg.PoolSize/2, 2))
	if err != nil {
		return err
	}
	defer jobs.Close()
	registry := newRegistry()
	health, err := listen(ctx, "WAGATE_WORKER_LISTEN", cfg.WorkerListen)
	if err != nil {
		return err
	}
	w, err := startWorker(ctx, cfg, pool, jobs, logger, registry)
	if err != nil {
		_ = health.Close()
		return err
	}
	srv := serve(health, healthHandler(pool, registry), logger)
	logger.InfoContext(ctx, "worker is working", "health", health.Addr().String())
	<-ctx.Done()
	logger.InfoContext(ctx, "worker is stopping")
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopBound)
	defer cancel()
	err = w.Stop(stop)
	return errors.Join(err, srv(stop))
}

// connect opens the pool and waits, bounded, until the database answers and its schema is up to date.
func connect(
	ctx context.Context, cfg config.Config, logger *slog.Logger, open func(context.Context, string, int) (*pgxpool.Pool, error),
) (*pgxpool.Pool, error) {
	pool, err := open(ctx, cfg.DatabaseURL.Value(), cfg.PoolSize)
	if err != nil {
		return nil, err
	}
	bound, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for first := true; ; first = false {
		if err = pool.Ping(bound); err == nil {
			err = migrations.Check(bound, pool)
			if err == nil {
				return pool, nil
			}
			break // an old schema does not mend itself
		}
		if first {
			logger.WarnContext(ctx, "waiting for the database", "err", err)
		}
		select {
		case <-bound.Done():
		case <-time.After(500 * time.Millisecond):
			continue
		}
		break
	}
	pool.Close()
	return nil, fmt.Errorf("DATABASE_URL: %w", err)
}

func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// healthHandler answers for a process without the API: alive, ready when the database answers, metrics.
func healthHandler(pool *pgxpool.Pool, registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		if err := pool.Ping(ctx); err != nil {
			http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}

func listen(ctx context.Context, setting, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	return l, nil
}

// serve serves until the returned function is called, which lets running requests end within its context.
func serve(l net.Listener, h http.Handler, logger *slog.Logger) (stop func(context.Context) error) {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 2 * time.Minute, WriteTimeout: 5 * time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	return func(ctx context.Context) error {
		err := srv.Shutdown(ctx)
		if err != nil {
			err = errors.Join(err, srv.Close())
		}
		if served := <-done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}
}

// NewLogger writes JSON lines at the given level and above.
func NewLogger(to io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(to, &slog.HandlerOptions{Level: level}))
}

// Healthcheck asks a process of ours for readiness: the exit status of a container's health check.
func Healthcheck(ctx context.Context, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("listen address: %w", err)
	}
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1"
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("health check: %w", err)
	}
	res, err := (&http.Client{Timeout: 3 * time.Second}).Do(req)
	if err != nil {
		return fmt.Errorf("health check: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("health check: /readyz answered %d", res.StatusCode)
	}
	return nil
}
