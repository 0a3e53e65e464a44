package ctl

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

var pausesCommand = command{
	name: "pauses", args: "[--json]", short: "the pauses in force",
	help: `
Lists the pauses in force, those of operators and those that Meta's answers have set (source throttle, with Meta's code).

Example:
  gatewayctl pauses`,
	run: runPauses,
}

var pauseCommand = command{
	name: "pause", args: "SCOPE [VALUE] [--reason TEXT] [--for 2h | --until TIME]", short: "hold back everything, or a part of it",
	help: `
In force on every worker within a second. What is on the wire goes out; messages are accepted as before, and wait.

  all                                 everything
  app | waba | phone ID               what goes by it
  template NAME[/LANGUAGE]            a template, of every WABA or of one: WABA_ID:NAME
  flow ID                             messages that open a flow; or WABA_ID:ID
  tag NAME[=VALUE]                    messages with the tag
  key ID                              messages of an API key
  priority urgent|high|normal|low

Without --for and --until it lasts until it is lifted. Pausing again changes reason and end.

Example:
  gatewayctl pause tag campaign=black-friday --for 2h --reason "wrong price in the text"`,
	run: runPause,
}

var resumeCommand = command{
	name: "resume", args: "ID | SCOPE [VALUE]", short: "lift a pause",
	help: `
Lifts one pause by its id, or all pauses of a scope and value: an operator's and a throttle's.

Examples:
  gatewayctl resume 0b9e3c52-6a0f-4f0c-9a53-5b8b2e2d7c11
  gatewayctl resume phone 200000000000001`,
	run: runResume,
}

type pause struct {
	ID        string     `json:"id"`
	Scope     string     `json:"scope"`
	Value     string     `json:"value"`
	Reason    string     `json:"reason"`
	Source    string     `json:"source"`
	Code      *int       `json:"code"`
	Until     *time.Time `json:"until"`
	CreatedAt time.Time  `json:"created_at"`
}

func runPauses(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	asJSON := fs.Bool("json", false, "the gateway's document as it is")
	if _, err := parse(fs, args, 0, 0); err != nil {
		return err
	}
	all, raw, err := c.pauses(ctx)
	if err != nil {
		return err
	}
	if *asJSON {
		return c.write(raw)
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(c.stdout, "Nothing is paused.")
		return err
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSCOPE\tVALUE\tSOURCE\tCODE\tEND\tREASON")
	for _, p := range all {
		code := "-"
		if p.Code != nil {
			code = strconv.Itoa(*p.Code)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", flat(p.ID), flat(p.Scope), orDash(&p.Value), flat(p.Source), code, end(p.Until, c.now()), orDash(&p.Reason))
	}
	return w.Flush()
}

func (c *cli) pauses(ctx context.Context) (all []pause, raw []byte, err error) {
	var a struct {
		Pauses []pause `json:"pauses"`
	}
	raw, err = c.api.get(ctx, "/v1/pauses", &a)
	return a.Pauses, raw, err
}

func runPause(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	reason := fs.String("reason", "", "why; callers see it in held_by of their messages")
	lasts := fs.Duration("for", 0, "how long, such as 30m or 2h")
	until := fs.String("until", "", "its end, such as 2026-12-01T09:00:00Z")
	found, err := parse(fs, args, 1, 2)
	if err != nil {
		return err
	}
	if found[0] != "all" && len(found) == 1 {
		return wrong("what of scope %s is to be paused: pause %s VALUE", found[0], found[0])
	}
	body := map[string]any{"scope": found[0]}
	if len(found) == 2 {
		body["value"] = found[1]
	}
	if *reason != "" {
		body["reason"] = *reason
	}
	switch {
	case *lasts != 0 && *until != "":
		return wrong("--for and --until are two words for the same: give one")
	case *lasts < 0:
		return wrong("--for must be above zero")
	case *lasts > 0:
		body["until"] = c.now().Add(*lasts).UTC().Format(time.RFC3339Nano)
	case *until != "":
		t, err := time.Parse(time.RFC3339, *until)
		if err != nil {
			return wrong("--until must be a time such as 2026-12-01T09:00:00Z")
		}
		body["until"] = t.UTC().Format(time.RFC3339Nano)
	}
	var p pause
	if _, err := c.api.read(ctx, http.MethodPost, "/v1/pauses", body, &p); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "paused %s %s\nLift it with: gatewayctl resume %s\n", strings.TrimSpace(clean(p.Scope+" "+p.Value)), end(p.Until, c.now()), clean(p.ID))
	return err
}

var uuidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

func runResume(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	found, err := parse(fs, args, 1, 2)
	if err != nil {
		return err
	}
	if len(found) == 1 && uuidForm.MatchString(found[0]) {
		if _, err := c.api.ask(ctx, http.MethodDelete, "/v1/pauses/"+found[0], nil); err != nil {
			return err
		}
		_, err := fmt.Fprintln(c.stdout, "lifted", found[0])
		return err
	}
	scope, value := found[0], ""
	if len(found) == 2 {
		value = found[1]
	} else if scope != "all" {
		return wrong("what of scope %s is to go on: resume %s VALUE, or the id of a pause", scope, scope)
	}
	all, _, err := c.pauses(ctx)
	if err != nil {
		return err
	}
	lifted := 0
	for _, p := range all {
		if p.Scope != scope || p.Value != value {
			continue
		}
		if _, err := c.api.ask(ctx, http.MethodDelete, "/v1/pauses/"+p.ID, nil); err != nil {
			return err
		}
		lifted++
		fmt.Fprintf(c.stdout, "lifted %s %s of %s\n", strings.TrimSpace(clean(p.Scope+" "+p.Value)), clean(p.ID), clean(p.Source))
	}
	if lifted == 0 {
		return fmt.Errorf("there is no pause of %s: gatewayctl pauses lists those in force", strings.TrimSpace(scope+" "+value))
	}
	return nil
}
