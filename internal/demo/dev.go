package demo

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"wagate/internal/config"
	"wagate/internal/simulator"
)

// Dev runs the parts until ctx ends, for building against. When they are ready it prints one line that begins with
// "wagate ready".
func Dev(ctx context.Context, cfg config.Config, out io.Writer, logger *slog.Logger) error {
	cfg.DatabaseURL = config.Secret{} // a database of its own, whatever the shell has set: a simulator must not drain a real one
	if !cfg.ListenGiven && taken(ctx, cfg.Listen) {
		cfg.Listen = "127.0.0.1:0"
	}
	s, err := start(ctx, cfg, simulator.Config{
		Latency: 30 * time.Millisecond, LatencyJitter: 30 * time.Millisecond, StatusDelay: 150 * time.Millisecond, PhonePerSecond: 80, Logger: logger,
	}, logger)
	if err != nil {
		return err
	}
	phone := phoneNumber{id: "200000000000001", waba: "100000000000001", display: "+1 202-555-0100", limit: 80, rate: 76}
	if err := s.setUp(ctx, []phoneNumber{phone}); err != nil {
		return fmt.Errorf("setting up: %w (%w)", err, s.stop(context.WithoutCancel(ctx)))
	}
	fmt.Fprintf(out, "wagate ready %s key=%s from=%s ledger=%s/_sim/ledger database=%s\n", s.gateway.URL(), s.api.key, phone.id, s.simURL, s.pg.DSN())
	<-ctx.Done()
	return s.stop(context.WithoutCancel(ctx))
}

func taken(ctx context.Context, address string) bool {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return true
	}
	_ = l.Close()
	return false
}
