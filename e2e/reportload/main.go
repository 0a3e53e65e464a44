// Command reportload fills a database with the messages of some weeks and says how fast the reports answer over them.
//
//	go run ./e2e/reportload                                           a million messages over 30 days, in a Postgres of its own
//	go run ./e2e/reportload -messages 10000000 -event-days 2          the size that the promises are made for
//	DATABASE_URL=postgres://… go run ./e2e/reportload                 in a database of yours, which must hold no messages
//
// It puts the messages in by COPY, rolls them up as a worker does, compares every report with the messages, times each of them,
// and drops the oldest day while messages are written. It exits with 1 when a report is wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/app"
	"wagate/internal/config"
	"wagate/internal/embeddedpg"
	"wagate/internal/store"
)

func main() { os.Exit(command(os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr)) }

// options say what is made.
type options struct {
	messages  int
	days      int
	eventDays int
	seed      uint64
	dir       string
	compare   bool
}

func command(args []string, lookup func(string) (string, bool), stdout, stderr io.Writer) int {
	var opt options
	flags := flag.NewFlagSet("reportload", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&opt.messages, "messages", 1_000_000, "how many messages")
	flags.IntVar(&opt.days, "days", 30, "over how many days, up to now")
	flags.IntVar(&opt.eventDays, "event-days", 2, "for how many of the newest days with events, wamids and bodies")
	flags.Uint64Var(&opt.seed, "seed", 1, "the same seed makes the same mix")
	flags.StringVar(&opt.dir, "data", "", "keep the Postgres of its own in this directory; empty throws it away")
	flags.BoolVar(&opt.compare, "compare", true, "compare the reports with the messages, which reads all of them several times")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if opt.messages < 1000 || opt.days < 3 || opt.days > 365 || opt.eventDays < 0 || opt.eventDays > opt.days || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "reportload: -messages wants 1000 or more, -days 3 to 365, -event-days no more than -days, and nothing may follow the flags")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dsn, _ := lookup("DATABASE_URL")
	if err := withDatabase(ctx, opt, dsn, stdout); err != nil {
		fmt.Fprintln(stderr, "reportload:", err)
		return 1
	}
	return 0
}

// withDatabase runs everything in the database of the DSN, or in a Postgres of its own.
func withDatabase(ctx context.Context, opt options, dsn string, out io.Writer) (err error) {
	if dsn == "" {
		pg, err := embeddedpg.Start(ctx, embeddedpg.Config{DataDir: opt.dir, Settings: map[string]string{"max_wal_size": "8GB", "shared_buffers": "1GB"}})
		if err != nil {
			return fmt.Errorf("starting a Postgres of its own: %w", err)
		}
		defer func() { err = errors.Join(err, pg.Stop(context.WithoutCancel(ctx))) }()
		dsn = pg.DSN()
		fmt.Fprintf(out, "Postgres of its own in %s\n", pg.DataDir())
	}
	if err := app.Migrate(ctx, config.Config{DatabaseURL: config.NewSecret(dsn)}, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	return run(ctx, opt, dsn, out)
}

func run(ctx context.Context, opt options, dsn string, out io.Writer) error {
	// The product's pool is for statements that go by an index, and bounds their time; what is loaded and compared needs more.
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	defer pool.Close()
	product, err := app.OpenPool(ctx, dsn, 4)
	if err != nil {
		return err
	}
	defer product.Close()
	started := time.Now()
	l := newLoad(pool, opt, started)
	if err := l.fill(ctx, out); err != nil {
		return err
	}
	fmt.Fprintf(out, "put in: %d messages over %d days, events for %d, in %s\n", opt.messages, opt.days, opt.eventDays, time.Since(started).Round(time.Second))
	st := store.New(product)
	began := time.Now()
	rolled, err := st.RollUp(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "rolled up: %d messages, in %s\n", rolled.Messages, time.Since(began).Round(time.Second))
	if err := printSizes(ctx, pool, out); err != nil {
		return err
	}
	a, err := newAnalyst(ctx, dsn)
	if err != nil {
		return err
	}
	defer a.close(context.WithoutCancel(ctx))
	if err := a.timeViews(ctx, out); err != nil {
		return err
	}
	if err := a.readsNoOldMessages(ctx, out); err != nil {
		return err
	}
	if opt.compare {
		if err := compare(ctx, pool, out); err != nil {
			return err
		}
	}
	return dropADay(ctx, st, l, out)
}
