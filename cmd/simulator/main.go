// Command simulator runs a stand-in for Meta's WhatsApp Cloud API.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"wagate/internal/simulator"
)

const (
	defaultListen = "127.0.0.1:8090"
	stopBound     = 5 * time.Second
	healthBound   = 3 * time.Second
)

const usage = `simulator is a stand-in for Meta's WhatsApp Cloud API: answers and errors in its shape,
strict rate limits, signed status webhooks, and a ledger of what it accepted.

Usage:
  simulator [flags]              run it
  simulator healthcheck [flags]  exit 0 if it answers, 1 if not

Example:
  simulator -listen 127.0.0.1:8090 -phone-limit 80 \
    -webhook-url http://127.0.0.1:8080/webhooks/whatsapp -app-secret demo
  curl http://127.0.0.1:8090/v23.0/200000000000001/messages -H 'Authorization: Bearer any' \
    -d '{"messaging_product":"whatsapp","to":"+16505550014","type":"text","text":{"body":"hello"}}'
  curl http://127.0.0.1:8090/_sim/ledger

The last four digits of the recipient steer what happens, for example 0001 refused, 0002 throttled
once, 0007 accepted without an answer, 0014 read (all: go doc wagate/internal/simulator).
Each flag's default can be set in the environment as WAGATE_SIM_ and its name, such as
WAGATE_SIM_LISTEN or WAGATE_SIM_PHONE_LIMIT, or as a file's content with _FILE added.

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.LookupEnv, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "simulator:", err)
		stop()
		os.Exit(1)
	}
}

// run is main without the process: it returns when ctx ends or something fails.
func run(ctx context.Context, args []string, env func(string) (string, bool), stderr io.Writer) error {
	check := len(args) > 0 && args[0] == "healthcheck"
	if check {
		args = args[1:]
	}
	cfg, listen, err := parse(args, env, stderr)
	if err != nil {
		return err
	}
	if check {
		return healthcheck(ctx, listen)
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	cfg.Logger = log
	return serve(ctx, cfg, listen, log)
}

func parse(args []string, env func(string) (string, bool), stderr io.Writer) (cfg simulator.Config, listen string, err error) {
	fs := flag.NewFlagSet("simulator", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		_, _ = io.WriteString(stderr, usage)
		fs.PrintDefaults()
	}
	fs.StringVar(&listen, "listen", defaultListen, "address to listen on")
	fs.StringVar(&cfg.WebhookURL, "webhook-url", "", "where status webhooks go; empty: none until PUT /_sim/webhook")
	fs.StringVar(&cfg.AppSecret, "app-secret", "", "signs webhooks (better set by the environment)")
	fs.StringVar(&cfg.Token, "token", "", "bearer token to ask for; empty: any")
	fs.IntVar(&cfg.PhonePerSecond, "phone-limit", simulator.DefaultPhonePerSecond, "messages a sliding second a phone number; 0: none")
	fs.IntVar(&cfg.WABAPerSecond, "waba-limit", 0, "messages a sliding second a WABA; 0: none")
	fs.IntVar(&cfg.AppPerSecond, "app-limit", 0, "messages a sliding second an app; 0: none")
	fs.IntVar(&cfg.Pair.Max, "pair-limit", 0, "messages a pair window from one number to one recipient; 0: none")
	fs.DurationVar(&cfg.Pair.Window, "pair-window", 6*time.Second, "the pair limit's window")
	fs.DurationVar(&cfg.Latency, "latency", 0, "of each answer")
	fs.DurationVar(&cfg.LatencyJitter, "latency-jitter", 0, "random addition to the latency")
	fs.DurationVar(&cfg.StatusDelay, "status-delay", simulator.DefaultStatusDelay, "between two statuses of a message; negative: none")
	fs.DurationVar(&cfg.SlowAnswer, "slow-answer", simulator.DefaultSlowAnswer, "wait of recipients ending in 0013")
	fs.StringVar(&cfg.MediaDir, "media-dir", "", "where uploaded media are kept until the end; empty: the system's directory for temporary files")
	fs.Int64Var(&cfg.MediaBytes, "media-bytes", simulator.DefaultMediaBytes, "bytes of uploaded media kept, of the newest")
	if err := defaultsFromEnv(fs, env); err != nil {
		return cfg, "", err
	}
	if err := fs.Parse(args); err != nil {
		return cfg, "", err
	}
	if fs.NArg() > 0 {
		return cfg, "", fmt.Errorf("unknown argument %q (see -help)", fs.Arg(0))
	}
	return cfg, listen, nil
}

// defaultsFromEnv sets each flag from WAGATE_SIM_<NAME> or the file named by
// WAGATE_SIM_<NAME>_FILE; errors name the variable and never its value.
func defaultsFromEnv(fs *flag.FlagSet, env func(string) (string, bool)) error {
	var failed error
	fs.VisitAll(func(f *flag.Flag) {
		name := "WAGATE_SIM_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := env(name)
		if path, isFile := env(name + "_FILE"); isFile && !ok {
			raw, err := os.ReadFile(path)
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("reading %s_FILE: %w", name, err))
				return
			}
			value, ok = strings.TrimSpace(string(raw)), true
		}
		if ok && fs.Set(f.Name, value) != nil {
			failed = errors.Join(failed, fmt.Errorf("%s has a wrong value", name))
		}
	})
	return failed
}

func serve(ctx context.Context, cfg simulator.Config, listen string, log *slog.Logger) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	sim := simulator.New(cfg)
	sim.Start(ctx)
	defer sim.Close()
	srv := &http.Server{
		Handler:           sim.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		// no WriteTimeout: a slow answer is one of the things to simulate
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	log.Info("simulator ready", slog.String("url", "http://"+ln.Addr().String()))
	select {
	case err := <-done:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	log.Info("simulator stopping")
	sim.Close() // first, so that answers that wait are given now
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopBound)
	defer cancel()
	err = srv.Shutdown(stopCtx)
	if err != nil {
		_ = srv.Close()
		err = fmt.Errorf("stopping: %w", err)
	}
	if serveErr := <-done; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serving: %w", serveErr))
	}
	return err
}

// healthcheck asks the simulator that listens on this machine at the given address.
func healthcheck(ctx context.Context, listen string) error {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("reading the listen address: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/_sim/health", http.NoBody)
	if err != nil {
		return fmt.Errorf("making the health request: %w", err)
	}
	client := &http.Client{Timeout: healthBound, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("asking for health: %w", err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("asking for health: HTTP %d", res.StatusCode)
	}
	return nil
}
