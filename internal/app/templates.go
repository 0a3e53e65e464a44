package app

import (
	"context"
	"fmt"
	"log/slog"

	"wagate/internal/config"
	"wagate/internal/seal"
	"wagate/internal/sender"
	"wagate/internal/store"
	"wagate/internal/template"
)

// templates is what a gateway knows of templates, and how it reads them when it is asked to.
type templates struct {
	book   *template.Book
	syncer *template.Syncer
	graph  *sender.Sender
}

func newTemplates(cfg config.Config, st *store.Store, sealer *seal.Sealer, logger *slog.Logger) (*templates, error) {
	graph, err := sender.New(sender.Config{BaseURL: cfg.GraphURL, Version: cfg.GraphVersion, MaxConns: 4})
	if err != nil {
		return nil, fmt.Errorf("WAGATE_GRAPH_URL or WAGATE_GRAPH_VERSION: %w", err)
	}
	token := func(ctx context.Context, wabaID string) (string, error) {
		w, err := st.WABA(ctx, wabaID)
		if err != nil {
			return "", err
		}
		if len(w.AccessToken) == 0 {
			return "", template.ErrNoToken
		}
		opened, err := sealer.Open(w.AccessToken, seal.AccessToken(w.ID))
		return string(opened), err
	}
	return &templates{
		book: template.NewBook(st, logger), graph: graph,
		syncer: template.NewSyncer(template.SyncConfig{Store: st, Graph: graph, Token: token, Logger: logger}),
	}, nil
}

func (t *templates) close() {
	t.book.Close()
	t.graph.Close()
}
