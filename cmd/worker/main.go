// Command worker sends what the gateway accepted. Run as many as you like: they share the WABAs among themselves.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"wagate/internal/app"
	"wagate/internal/config"
)

const usage = `worker sends what the gateway accepted, at Meta's limits.

  worker               work until SIGTERM or SIGINT, then stop within 20 s
  worker healthcheck   exit 0 when the worker on WAGATE_WORKER_LISTEN is ready

Settings come from the environment, each also as NAME_FILE:
  DATABASE_URL, WAGATE_SECRET_KEY (required), WAGATE_GRAPH_URL, WAGATE_GRAPH_VERSION, WAGATE_WORKER_LISTEN, ...

Example:
  DATABASE_URL=postgres://wagate@db/wagate WAGATE_SECRET_KEY_FILE=/run/secrets/key worker
`

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case len(args) == 0:
		err = app.RunWorker(ctx, os.LookupEnv, os.Stderr)
	case len(args) == 1 && args[0] == "healthcheck":
		var cfg config.Config
		if cfg, err = config.Load(os.LookupEnv); err == nil {
			err = app.Healthcheck(ctx, cfg.WorkerListen)
		}
	case args[0] == "-h" || args[0] == "--help" || args[0] == "help":
		fmt.Print(usage)
		return 0
	default:
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		return 1
	}
	return 0
}
