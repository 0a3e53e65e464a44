// Package demo runs every part in one process: for `gateway demo`, the main job in one command, and for `gateway dev`,
// something to build against.
package demo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/app"
	"wagate/internal/config"
	"wagate/internal/embeddedpg"
	"wagate/internal/seal"
	"wagate/internal/simulator"
)

// stack is Postgres, simulator, gateway and worker in one process, over the loopback interface.
type stack struct {
	pg        *embeddedpg.Server
	pool      *pgxpool.Pool
	sim       *simulator.Server
	simServer *http.Server
	simURL    string
	gateway   *app.Gateway
	worker    *app.Worker
	api       *client
	appSecret string
	logger    *slog.Logger
	stops     []func(context.Context) error
}

// start brings the parts up in order. cfg's listen address is used; every secret that was not given is made up.
func start(ctx context.Context, cfg config.Config, simCfg simulator.Config, logger *slog.Logger) (s *stack, err error) {
	s = &stack{logger: logger, appSecret: randomHex(16)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop(context.WithoutCancel(ctx)))
		}
	}()
	s.pg, err = embeddedpg.Start(ctx, embeddedpg.Config{DataDir: cfg.DataDir, Logger: logger})
	if err != nil {
		return s, fmt.Errorf("starting a Postgres of its own: %w", err)
	}
	s.onStop(s.pg.Stop)
	if cfg.Media == "" {
		cfg.Media = "file://" + filepath.ToSlash(filepath.Join(s.pg.DataDir(), "media"))
	}
	dsn := s.pg.DSN()
	cfg.DatabaseURL = config.NewSecret(dsn)
	if s.pool, err = app.OpenPool(ctx, dsn, cfg.PoolSize); err != nil {
		return s, err
	}
	s.onStop(func(context.Context) error { s.pool.Close(); return nil })
	if err = app.Migrate(ctx, cfg, logger); err != nil {
		return s, err
	}

	s.sim = simulator.New(simCfg)
	simListener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return s, fmt.Errorf("listening for the simulator: %w", err)
	}
	s.simURL = "http://" + simListener.Addr().String()
	s.simServer = &http.Server{Handler: s.sim.Handler(), ReadHeaderTimeout: 10 * time.Second}
	s.sim.Start(context.WithoutCancel(ctx))
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.simServer.Serve(simListener)
	}()
	s.onStop(func(ctx context.Context) error {
		s.sim.Close()
		err := s.simServer.Shutdown(ctx)
		<-served
		return err
	})

	cfg.GraphURL = s.simURL
	cfg.CallbackLoopback = true
	if !cfg.SecretKey.IsSet() {
		cfg.SecretKey = config.NewSecret(string(seal.NewKey()))
	}
	if !cfg.AdminKey.IsSet() {
		cfg.AdminKey = config.NewSecret("wg_dev_" + randomHex(16))
	}
	if !cfg.WebhookVerifyToken.IsSet() {
		cfg.WebhookVerifyToken = config.NewSecret(randomHex(8))
	}
	registry := prometheus.NewRegistry()
	if s.gateway, err = app.StartGateway(ctx, cfg, s.pool, logger, registry); err != nil {
		return s, err
	}
	s.onStop(s.gateway.Stop)
	s.api = newClient(s.gateway.URL(), cfg.AdminKey.Value())
	s.onStop(func(context.Context) error { s.api.http.CloseIdleConnections(); return nil })
	s.sim.SetWebhook(s.gateway.URL()+"/webhooks/whatsapp", s.appSecret)
	if s.worker, err = app.StartWorker(ctx, cfg, s.pool, logger, registry); err != nil {
		return s, err
	}
	s.onStop(s.worker.Stop)
	return s, nil
}

func (s *stack) onStop(stop func(context.Context) error) { s.stops = append(s.stops, stop) }

// stop ends the parts in the reverse of the order in which they were started.
func (s *stack) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 45*time.Second)
	defer cancel()
	var errs []error
	for i := len(s.stops) - 1; i >= 0; i-- {
		errs = append(errs, s.stops[i](ctx))
	}
	s.stops = nil
	return errors.Join(errs...)
}

// phoneNumber is one that the stack sets up, on both sides.
type phoneNumber struct {
	id, waba, display string
	// limit is what the simulator lets through a second, rate what the gateway sends.
	limit int
	rate  float64
}

// setUp makes the app, the WABAs and the phone numbers through the API, as a user would.
func (s *stack) setUp(ctx context.Context, phones []phoneNumber) error {
	const appID = "300000000000001"
	if err := s.api.call(ctx, http.MethodPut, "/v1/apps/"+appID, map[string]any{"app_secret": s.appSecret}, nil); err != nil {
		return err
	}
	made := map[string]bool{}
	for _, p := range phones {
		if !made[p.waba] {
			made[p.waba] = true
			body := map[string]any{"name": "WABA " + p.waba, "app_id": appID, "access_token": "EAA" + randomHex(24)}
			if err := s.api.call(ctx, http.MethodPut, "/v1/wabas/"+p.waba, body, nil); err != nil {
				return err
			}
		}
		body := map[string]any{"waba_id": p.waba, "display_phone_number": p.display, "messages_per_second": p.rate}
		if err := s.api.call(ctx, http.MethodPut, "/v1/phone-numbers/"+p.id, body, nil); err != nil {
			return err
		}
		s.sim.SetPhone(p.id, simulator.PhoneConfig{WABAID: p.waba, AppID: appID, DisplayPhoneNumber: p.display, PerSecond: p.limit})
	}
	return s.owned(ctx, len(made))
}

// owned waits until the worker owns the WABAs: what is posted from then on goes out at once.
func (s *stack) owned(ctx context.Context, wabas int) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		var n int
		if err := s.pool.QueryRow(ctx, `SELECT count(*) FROM leases WHERE worker_id <> '' AND expires_at > clock_timestamp()`).Scan(&n); err != nil {
			return fmt.Errorf("waiting for the worker: %w", err)
		}
		if n >= wabas {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the worker to own %d WABAs: %w", wabas, ctx.Err())
		case <-tick.C:
		}
	}
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
