// Package ctl is gatewayctl: what operators ask and tell a gateway, over its HTTP API only.
package ctl

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // the gateway refused it, or is not there
	exitUsage  = 2 // the command line is wrong; nothing was asked
)

const intro = `gatewayctl asks and tells a wagate gateway, over its HTTP API.

  gatewayctl [--url URL] [--key-file FILE] COMMAND …

Commands:
`

const outro = `
gatewayctl COMMAND --help explains one of them, with an example.

Settings:
  WAGATE_URL        the gateway (http://127.0.0.1:8080), or --url
  WAGATE_KEY        an API key; or WAGATE_KEY_FILE, or --key-file, the file that holds it
  Most commands need a key with the scope manage; keys and webhooks show need admin, messages and window need read and send, media send, report read.

Exit status: 0 done, 1 the gateway refused it or did not answer, 2 the command line is wrong.
`

// command is one of gatewayctl's.
type command struct {
	name  string
	args  string
	short string
	help  string
	// run has its flags defined on fs, calls parse for the rest of the command line, and does it.
	run func(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error
}

func commands() []command {
	return []command{
		limitsCommand, wabasCommand, phonesCommand, pausesCommand, pauseCommand, resumeCommand,
		messagesCommand, messageCommand, cancelCommand, resendCommand, settleCommand, reportCommand, templatesCommand, mediaCommand, webhooksCommand, alertsCommand,
		suppressionsCommand, windowCommand, subscriptionsCommand, callbacksCommand, keysCommand,
	}
}

// cli is one run.
type cli struct {
	api    *client
	stdout io.Writer
	stderr io.Writer
	now    func() time.Time
}

// usageError is a mistake in the command line.
type usageError struct{ text string }

// Error implements error.
func (e *usageError) Error() string { return e.text }

func wrong(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// Run is gatewayctl without the process: it gives the exit code. lookup reads the environment.
func Run(ctx context.Context, args []string, lookup func(string) (string, bool), stdout, stderr io.Writer) int {
	global := flag.NewFlagSet("gatewayctl", flag.ContinueOnError)
	global.SetOutput(io.Discard)
	url, keyFile := connection(global)
	err := global.Parse(args)
	if errors.Is(err, flag.ErrHelp) || err == nil && (global.NArg() == 0 || global.Arg(0) == "help") {
		usage(stdout)
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(stderr, "gatewayctl: %v\nSee gatewayctl --help.\n", err)
		return exitUsage
	}
	name, rest := global.Arg(0), global.Args()[1:]
	for _, cmd := range commands() {
		if cmd.name != name {
			continue
		}
		fs := flag.NewFlagSet(name, flag.ContinueOnError)
		fs.SetOutput(io.Discard)
		fs.StringVar(url, "url", *url, "the gateway")
		fs.StringVar(keyFile, "key-file", *keyFile, "file that holds the API key")
		c := &cli{stdout: stdout, stderr: stderr, now: time.Now}
		c.api = &client{url: url, keyFile: keyFile, lookup: lookup}
		defer c.api.close()
		return c.finish(cmd, fs, cmd.run(ctx, c, fs, rest))
	}
	fmt.Fprintf(stderr, "gatewayctl: there is no command %q.\nSee gatewayctl --help.\n", clean(name))
	return exitUsage
}

func connection(fs *flag.FlagSet) (url, keyFile *string) {
	return fs.String("url", "", "the gateway"), fs.String("key-file", "", "file that holds the API key")
}

// finish says how a command ended.
func (c *cli) finish(cmd command, fs *flag.FlagSet, err error) int {
	if err == nil {
		return exitOK
	}
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(c.stdout, "gatewayctl %s %s\n\n%s\n", cmd.name, cmd.args, strings.TrimSpace(cmd.help))
		flags := 0
		fs.VisitAll(func(*flag.Flag) { flags++ })
		if flags > 0 {
			fmt.Fprintln(c.stdout, "\nFlags:")
			fs.SetOutput(c.stdout)
			fs.PrintDefaults()
		}
		return exitOK
	}
	fmt.Fprintf(c.stderr, "gatewayctl: %s\n", clean(err.Error()))
	var u *usageError
	if errors.As(err, &u) {
		fmt.Fprintf(c.stderr, "See gatewayctl %s --help.\n", cmd.name)
		return exitUsage
	}
	if next := advice(err); next != "" {
		fmt.Fprintln(c.stderr, next)
	}
	return exitFailed
}

func usage(w io.Writer) {
	_, _ = io.WriteString(w, intro)
	tw := tabwriter.NewWriter(w, 0, 4, 3, ' ', 0)
	for _, cmd := range commands() {
		fmt.Fprintf(tw, "  %s\t%s\n", cmd.name, cmd.short)
	}
	_ = tw.Flush()
	_, _ = io.WriteString(w, outro)
}

// parse reads flags and arguments in any order, and gives the arguments: from low to high of them.
func parse(fs *flag.FlagSet, args []string, low, high int) ([]string, error) {
	var found []string
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, wrong("%v", err)
		}
		if args = fs.Args(); len(args) == 0 {
			break
		}
		found, args = append(found, args[0]), args[1:]
	}
	switch {
	case len(found) < low:
		return nil, wrong("%s needs more arguments", fs.Name())
	case high >= 0 && len(found) > high:
		return nil, wrong("%q is one argument too many", found[high])
	}
	return found, nil
}

// clean takes out what a terminal would obey: texts come from Meta, from callers and from other operators.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// flat is clean on one line, for a table's cell.
func flat(s string) string { return strings.Join(strings.Fields(clean(s)), " ") }

// pairs gathers a flag that may be given several times.
type pairs []string

// String implements flag.Value.
func (p *pairs) String() string { return strings.Join(*p, ",") }

// Set implements flag.Value.
func (p *pairs) Set(s string) error {
	*p = append(*p, s)
	return nil
}
