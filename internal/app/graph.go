package app

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/config"
	"wagate/internal/graphproxy"
	"wagate/internal/seal"
	"wagate/internal/store"
)

// newGraphProxy makes the forwarder of Graph API calls. Its links open on every gateway that has the same WAGATE_SECRET_KEY.
func newGraphProxy(cfg config.Config, st *store.Store, sealer *seal.Sealer, logger *slog.Logger, registerer prometheus.Registerer) (*graphproxy.Proxy, error) {
	links, err := seal.New(seal.Derive(cfg.SecretKey.Bytes(), "graph-links"))
	if err != nil {
		return nil, fmt.Errorf("WAGATE_SECRET_KEY: %w", err)
	}
	p, err := graphproxy.New(graphproxy.Deps{
		Store: st, Sealer: sealer, Links: links, GraphURL: cfg.GraphURL, PublicURL: cfg.PublicURL, Logger: logger, Registerer: registerer, Now: time.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("WAGATE_GRAPH_URL: %w", err)
	}
	return p, nil
}

// graphIDsKept is how long an id is remembered after it was seen: an uploaded media lives 30 days. Source: Meta's page on media.
const graphIDsKept = 31 * 24 * time.Hour

// forgetGraphIDs removes ids of the Graph API that were not seen for long.
func forgetGraphIDs(ctx context.Context, st *store.Store) error {
	const atOnce = 10_000
	for ctx.Err() == nil {
		n, err := st.ForgetGraphIDs(ctx, graphIDsKept, atOnce)
		if err != nil || n < atOnce {
			return err
		}
	}
	return ctx.Err()
}
