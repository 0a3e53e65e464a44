// Command gateway takes messages in for the WhatsApp Cloud API and hears what becomes of them.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"wagate/internal/app"
	"wagate/internal/config"
	"wagate/internal/demo"
)

const usage = `gateway takes messages in for the WhatsApp Cloud API and hears what becomes of them.

  gateway [serve]               the HTTP API; needs DATABASE_URL and WAGATE_SECRET_KEY
          serve --worker        ... and a worker in the same process
          serve --embedded      ... and a Postgres of its own (binaries on this machine, else fetched once)
  gateway migrate               bring the schema up to date, ours and River's; needs DATABASE_URL
  gateway healthcheck           exit 0 when the gateway on WAGATE_LISTEN is ready
  gateway demo                  the main job in one command, with nothing to set up; -v shows the log
  gateway dev                   the same parts, kept running, for building against; -v shows the log

Settings come from the environment, each also as NAME_FILE; docs/reference/settings.md lists them.

Examples:
  gateway demo
  DATABASE_URL=postgres://wagate@db/wagate gateway migrate
  DATABASE_URL=postgres://wagate@db/wagate WAGATE_SECRET_KEY=$(openssl rand -base64 32) gateway serve --worker
`

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	command, flags := "serve", args
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		command, flags = args[0], args[1:]
	}
	allowed := map[string][]string{"serve": {"--worker", "--embedded"}, "demo": {"-v"}, "dev": {"-v"}, "migrate": nil, "healthcheck": nil}
	for _, f := range flags {
		if f == "-h" || f == "--help" {
			fmt.Fprint(stdout, usage)
			return 0
		}
		if !slices.Contains(allowed[command], f) {
			fmt.Fprintf(stderr, "gateway: %s: no such flag %q\n\n%s", command, f, usage)
			return 2
		}
	}
	if command == "help" {
		fmt.Fprint(stdout, usage)
		return 0
	}
	has := func(f string) bool { return slices.Contains(flags, f) }
	var err error
	switch command {
	case "serve":
		err = app.RunGateway(ctx, os.LookupEnv, stderr, app.ServeOptions{Worker: has("--worker"), Embedded: has("--embedded")})
	case "migrate":
		err = app.RunMigrate(ctx, os.LookupEnv, stdout, stderr)
	case "healthcheck":
		var cfg config.Config
		if cfg, err = config.Load(os.LookupEnv); err == nil {
			err = app.Healthcheck(ctx, cfg.Listen)
		}
	case "demo", "dev":
		var cfg config.Config
		if cfg, err = config.Load(os.LookupEnv); err != nil {
			break
		}
		logger := slog.New(slog.DiscardHandler)
		if has("-v") {
			logger = app.NewLogger(stderr, cfg.LogLevel)
		}
		if command == "demo" {
			err = demo.Run(ctx, cfg, stdout, logger)
		} else {
			err = demo.Dev(ctx, cfg, stdout, logger)
		}
	default:
		fmt.Fprintf(stderr, "gateway: no such command %q\n\n%s", command, usage)
		return 2
	}
	if err != nil {
		fmt.Fprintln(stderr, "gateway:", err)
		return 1
	}
	return 0
}
