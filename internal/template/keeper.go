package template

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/store"
)

// lookEvery is how often a Keeper looks for what is to be read.
const lookEvery = 2 * time.Second

// KeeperConfig is what a Keeper works with. All but Registerer and Every must be set.
type KeeperConfig struct {
	Store  *store.Store
	Syncer *Syncer
	// Owned gives the WABAs that this worker owns.
	Owned      func() []string
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Every is how often it is looked at what is to be read; 0 takes the preset of 2 s.
	Every time.Duration
}

// Keeper reads the templates of the WABAs that a worker owns, one WABA at a time: at first use, two times an hour, and soon
// after something has asked for it.
type Keeper struct {
	cfg     KeeperConfig
	refused bool // the database was away the last time
	syncs   *prometheus.CounterVec
}

// NewKeeper makes a Keeper; Run makes it live.
func NewKeeper(cfg KeeperConfig) *Keeper {
	if cfg.Every <= 0 {
		cfg.Every = lookEvery
	}
	k := &Keeper{cfg: cfg, syncs: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wagate_template_syncs_total", Help: "Readings of the template lists of WABAs by their owners, by how they ended.",
	}, []string{"result"})}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(k.syncs)
	}
	return k
}

// Run reads until ctx ends, whose error it gives.
func (k *Keeper) Run(ctx context.Context) error {
	timer := time.NewTimer(jitter(k.cfg.Every))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		k.round(ctx)
		timer.Reset(jitter(k.cfg.Every))
	}
}

// round reads what is due.
func (k *Keeper) round(ctx context.Context) {
	owned := k.cfg.Owned()
	if len(owned) == 0 {
		return
	}
	look, cancel := context.WithTimeout(ctx, keepTimeout)
	due, err := k.cfg.Store.TemplatesToRead(look, owned)
	cancel()
	if err != nil {
		if !k.refused && ctx.Err() == nil {
			k.cfg.Logger.WarnContext(ctx, "cannot see which templates are to be read", "err", err)
		}
		k.refused = true
		return
	}
	k.refused = false
	for _, id := range due {
		if ctx.Err() != nil {
			return
		}
		if _, err := k.cfg.Syncer.cfg.Token(ctx, id); err != nil {
			continue // there is one, and the worker that has just taken the WABA will know it in a moment
		}
		ok, err := k.cfg.Syncer.Sync(ctx, id) // what fails it has logged
		switch spent := (*SpentError)(nil); {
		case errors.As(err, &spent):
			k.syncs.WithLabelValues("no_calls_left").Inc()
		case err != nil:
			k.syncs.WithLabelValues("failed").Inc()
		case ok:
			k.syncs.WithLabelValues("read").Inc()
		}
	}
}

// jitter gives between half and one and a half times d.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d+1) //nolint:gosec // spreads calls, keeps no secret
}
