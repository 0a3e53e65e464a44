package app

import (
	"context"
	"time"

	"wagate/internal/config"
	"wagate/internal/consent"
	"wagate/internal/store"
)

// keywords gives webhook the keywords of WABAs.
func keywords(st *store.Store) func(context.Context, string, []string) (stop, resume bool, err error) {
	words := consent.NewKeywords(st.Keywords, time.Now)
	return func(ctx context.Context, wabaID string, texts []string) (stop, resume bool, err error) {
		wish, err := words.Wish(ctx, wabaID, texts)
		return wish == consent.Stop, wish == consent.Resume, err
	}
}

// forgetConsent removes what is of no more use: suppressions that ended long ago, user ids not seen for long.
func forgetConsent(ctx context.Context, st *store.Store, cfg config.Config) error {
	const atOnce = 10_000
	days := 60
	if most := upkeepRules(cfg).Events(); most > 0 {
		days = min(days, most)
	}
	sweepUserIDs := func(ctx context.Context, limit int) (int64, error) { return st.SweepUserIDs(ctx, days, limit) }
	for _, sweep := range []func(context.Context, int) (int64, error){st.SweepSuppressions, sweepUserIDs} {
		for ctx.Err() == nil {
			n, err := sweep(ctx, atOnce)
			if err != nil {
				return err
			}
			if n < atOnce {
				break
			}
		}
	}
	return ctx.Err()
}
