// Command torture runs the whole product under random faults, in real processes on a real Postgres, with the simulator as
// the ledger of what the Cloud API saw. After each cycle it compares that ledger with the database, message by message.
//
//	go run ./e2e/torture                          one cycle
//	go run ./e2e/torture -cycles 100 -seed 7      cycles with the seeds 7 to 106
//
// It exits with 1 when a message was lost, sent twice or is stuck, or was sent after a lease had ended.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"wagate/internal/app"
)

// roleVariable makes this binary a process of the product.
const roleVariable = "WAGATE_TORTURE_ROLE"

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role))
	}
	os.Exit(command(os.Args[1:], os.Stdout, os.Stderr))
}

// play is a gateway or a worker process, as `gateway serve` and `worker` are. It ends with its parent, however that ends.
func play(role string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	var err error
	switch role {
	case roleGateway:
		err = app.RunGateway(ctx, os.LookupEnv, os.Stderr, app.ServeOptions{})
	case roleWorker:
		err = app.RunWorker(ctx, os.LookupEnv, os.Stderr)
	default:
		err = fmt.Errorf("no such role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		return 1
	}
	return 0
}

// options say what is run.
type options struct {
	cycles   int
	messages int
	seed     uint64
	faults   map[string]bool // those that are on
	table    string
	verbose  bool
}

func command(args []string, stdout, stderr io.Writer) int {
	opt := options{}
	var faults string
	flags := flag.NewFlagSet("torture", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&opt.cycles, "cycles", 1, "how many cycles, of about 35 s each")
	flags.IntVar(&opt.messages, "messages", 2400, "messages of a cycle, 600 at least")
	flags.Uint64Var(&opt.seed, "seed", 0, "seed of the first cycle, the others follow; 0 takes one by chance")
	flags.StringVar(&faults, "faults", "all", "faults to use, with commas between them: "+strings.Join(faultNames(), " "))
	flags.StringVar(&opt.table, "table", "", "file to which the table goes as Markdown, too")
	flags.BoolVar(&opt.verbose, "v", false, "print what happens within a cycle")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	var err error
	if opt.faults, err = chosen(faults); err == nil && (opt.cycles < 1 || opt.messages < 600 || flags.NArg() > 0) {
		err = fmt.Errorf("-cycles wants 1 or more, -messages 600 or more, and nothing may follow the flags")
	}
	if err != nil {
		fmt.Fprintln(stderr, "torture:", err)
		return 2
	}
	if opt.seed == 0 {
		opt.seed = rand.Uint64N(1_000_000_000) //nolint:gosec // a seed that is printed, no secret
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	sum, err := run(ctx, opt, stdout)
	if sum != nil {
		sum.print(stdout)
		if opt.table != "" {
			if writeErr := os.WriteFile(opt.table, []byte(sum.markdown()), 0o644); writeErr != nil {
				fmt.Fprintln(stderr, "torture: writing the table:", writeErr)
			}
		}
	}
	switch {
	case err != nil:
		fmt.Fprintln(stderr, "torture:", err)
		return 1
	case sum.broken() > 0:
		fmt.Fprintf(stderr, "torture: %d of %d cycles found something wrong\n", sum.broken(), len(sum.cycles))
		return 1
	}
	return 0
}

// run makes the cycles. What it gives is not nil once one has ended.
func run(ctx context.Context, opt options, out io.Writer) (sum *summary, err error) {
	r, err := newRig(ctx, opt, out)
	if err != nil {
		return nil, err
	}
	defer func() {
		if closeErr := r.close(context.WithoutCancel(ctx)); err == nil {
			err = closeErr
		}
	}()
	fmt.Fprintf(out, "torture: %d cycles of %d messages, seed %d, Postgres on %s\n", opt.cycles, opt.messages, opt.seed, r.where())
	sum = &summary{started: time.Now(), messages: opt.messages, seed: opt.seed, leftOut: r.leftOut}
	for i := range opt.cycles {
		c, err := r.cycle(ctx, opt.seed+uint64(i))
		if err != nil {
			return sum, fmt.Errorf("cycle with seed %d: %w", opt.seed+uint64(i), err)
		}
		sum.add(c)
		c.printLine(out, i+1, opt.cycles)
	}
	return sum, nil
}
