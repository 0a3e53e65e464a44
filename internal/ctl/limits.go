package ctl

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

var limitsCommand = command{
	name: "limits", args: "[--watch] [--json] | set phone|waba|app|portfolio ID NAME=VALUE…",
	short: "every limit: configured, in force, what holds back and until when; set changes one",
	help: `
One line a phone number: what is configured and in force (messages a second), tokens now, what waits by priority (urgent/high/normal/low), how many
messages are held one by one, how long the backlog takes at the rate of now, the pause over it with its end, and what lowered its rate.
limits set changes limits in force within a second; "none" takes one away:

  phone      messages_per_second burst pair.seconds pair.burst max_backlog
  waba       messages_per_second messages_per_hour burst management_calls_per_hour
  app        calls_per_hour
  portfolio  unique_recipients_per_day

Examples:
  gatewayctl limits --watch
  gatewayctl limits set phone 200000000000001 messages_per_second=40
  gatewayctl limits set waba 100000000000001 messages_per_hour=none`,
	run: runLimits,
}

type backlog struct {
	Urgent int64 `json:"urgent"`
	High   int64 `json:"high"`
	Normal int64 `json:"normal"`
	Low    int64 `json:"low"`
}

// String shows the four priorities.
func (b backlog) String() string {
	return fmt.Sprintf("%d/%d/%d/%d", b.Urgent, b.High, b.Normal, b.Low)
}

type limitsAnswer struct {
	PhoneNumbers []struct {
		PhoneNumberID string   `json:"phone_number_id"`
		WABAID        string   `json:"waba_id"`
		Configured    *float64 `json:"configured"`
		InForce       *float64 `json:"in_force"`
		Tokens        *float64 `json:"tokens"`
		Slowed        *struct {
			Ceiling float64   `json:"ceiling"`
			At      time.Time `json:"at"`
			Code    *int      `json:"code"`
		} `json:"slowed"`
		Source       string   `json:"source"`
		Backlog      backlog  `json:"backlog"`
		Held         int64    `json:"held"`
		DrainSeconds *float64 `json:"drain_seconds"`
		Paused       *pause   `json:"paused"`
	} `json:"phone_numbers"`
	Totals struct {
		PhoneNumbers int      `json:"phone_numbers"`
		Waiting      int64    `json:"waiting"`
		Backlog      backlog  `json:"backlog"`
		Held         int64    `json:"held"`
		PerSecond    *float64 `json:"per_second"`
	} `json:"totals"`
	DesiredWorkers int       `json:"desired_workers"`
	At             time.Time `json:"at"`
}

func runLimits(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	watch := fs.Bool("watch", false, "show it again every 2 s, until interrupted")
	asJSON := fs.Bool("json", false, "the gateway's document as it is")
	found, err := parse(fs, args, 0, -1)
	if err != nil {
		return err
	}
	if len(found) > 0 && found[0] == "set" {
		return c.setLimits(ctx, found[1:])
	}
	if len(found) > 0 {
		return wrong("%q is not known: limits, or limits set …", found[0])
	}
	if !*watch {
		return c.showLimits(ctx, *asJSON, "")
	}
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	before := "\x1b[H\x1b[2J" // top left, all clear
	if *asJSON {
		before = ""
	}
	for {
		if err := c.showLimits(ctx, *asJSON, before); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (c *cli) showLimits(ctx context.Context, asJSON bool, before string) error {
	var a limitsAnswer
	raw, err := c.api.get(ctx, "/v1/limits", &a)
	if err != nil {
		return err
	}
	if asJSON {
		return c.write(raw)
	}
	var b strings.Builder
	b.WriteString(before)
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "PHONE\tWABA\tCONFIGURED\tIN FORCE\tTOKENS\tU/H/N/L\tHELD\tDRAIN\tPAUSED BY\tADAPTED BY")
	for _, p := range a.PhoneNumbers {
		paused := "-"
		if p.Paused != nil {
			paused = flat(p.Paused.Scope+" "+p.Paused.Source) + " " + end(p.Paused.Until, a.At)
		}
		adapted := p.Source
		if p.Slowed != nil {
			adapted = "throttle"
			if p.Slowed.Code != nil {
				adapted = strconv.Itoa(*p.Slowed.Code)
			}
			adapted += fmt.Sprintf(" at %s/s, %s ago", number(&p.Slowed.Ceiling, ""), short(a.At.Sub(p.Slowed.At)))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", flat(p.PhoneNumberID), flat(p.WABAID), number(p.Configured, "none"),
			number(p.InForce, "-"), number(p.Tokens, "-"), p.Backlog, p.Held, drain(p.DrainSeconds), paused, flat(adapted))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(&b, "\n%d phone numbers, %d waiting (%s), %d held, %s messages/s now, desired_workers %d\n",
		a.Totals.PhoneNumbers, a.Totals.Waiting, a.Totals.Backlog, a.Totals.Held, number(a.Totals.PerSecond, "unlimited"), a.DesiredWorkers)
	_, err = io.WriteString(c.stdout, b.String())
	return err
}

// write gives an answer as it came.
func (c *cli) write(raw []byte) error {
	_, err := fmt.Fprintf(c.stdout, "%s\n", strings.TrimSpace(string(raw)))
	return err
}

// settable are the limits of each kind, with the path of its resource.
var settable = map[string]struct {
	path   string
	limits []string
}{
	"phone":     {"/v1/phone-numbers/", []string{"messages_per_second", "burst", "pair.seconds", "pair.burst", "pair", "max_backlog"}},
	"waba":      {"/v1/wabas/", []string{"messages_per_second", "messages_per_hour", "burst", "management_calls_per_hour"}},
	"app":       {"/v1/apps/", []string{"calls_per_hour"}},
	"portfolio": {"/v1/portfolios/", []string{"unique_recipients_per_day"}},
}

func (c *cli) setLimits(ctx context.Context, args []string) error {
	if len(args) < 3 {
		return wrong("limits set needs a kind, an id and NAME=VALUE")
	}
	kind, ok := settable[args[0]]
	if !ok {
		return wrong("%q has no limits: phone, waba, app or portfolio", args[0])
	}
	patch := map[string]any{}
	for _, arg := range args[2:] {
		name, value, ok := strings.Cut(arg, "=")
		if !ok || value == "" {
			return wrong("%q is not NAME=VALUE", arg)
		}
		if !slices.Contains(kind.limits, name) {
			return wrong("%s has no limit %q, but %s", args[0], name, strings.Join(kind.limits, ", "))
		}
		parsed, err := limitValue(value)
		if err != nil {
			return err
		}
		if outer, inner, ok := strings.Cut(name, "."); ok {
			nested, _ := patch[outer].(map[string]any)
			if nested == nil {
				nested = map[string]any{}
				patch[outer] = nested
			}
			nested[inner] = parsed
			continue
		}
		patch[name] = parsed
	}
	var now map[string]any
	if _, err := c.api.read(ctx, http.MethodPatch, kind.path+url.PathEscape(args[1]), patch, &now, "Content-Type", "application/merge-patch+json"); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s %s:", args[0], clean(args[1]))
	for _, name := range kind.limits {
		outer, inner, nested := strings.Cut(name, ".")
		value, there := now[outer]
		if nested {
			object, _ := value.(map[string]any)
			value, there = object[inner]
		} else if _, isObject := value.(map[string]any); isObject {
			continue // its members are shown
		}
		if !there {
			continue
		}
		if value == nil {
			value = "none"
		}
		fmt.Fprintf(c.stdout, " %s=%v", name, value)
	}
	_, err := fmt.Fprintln(c.stdout)
	return err
}

func limitValue(s string) (any, error) {
	if s == "none" || s == "null" {
		return nil, nil //nolint:nilnil // null is a value
	}
	var n json.Number
	if err := json.Unmarshal([]byte(s), &n); err != nil || strings.HasPrefix(s, `"`) {
		return nil, wrong("%q is not a number, nor none", s)
	}
	return n, nil
}
