package ctl

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

var subscriptionsCommand = command{
	name: "subscriptions", args: "[--json] | show ID | create URL … | start ID | stop ID | rotate ID | delete ID", short: "who is told what becomes of messages",
	help: `
Lists the subscriptions, whether they are active and how their addresses answer. A circuit that is open means that the address failed too
often in a row: its events wait, and it is probed.

  subscriptions create URL [--event E]… [--status S]… [--waba ID] [--phone ID] [--key-name NAME]
                           [--format meta --verify-token-file FILE] [--secret-file FILE]

  --event    message.status, message.inbound, account.alert or template.status; all without any
  --status   of message.status only these: unknown, accepted, sent, delivered, read, played, failed, expired, cancelled
  --format   wagate: JSON signed by Standard Webhooks; meta: what Meta itself would post to the receiver

create and rotate print the secret, this once. After rotate the one before stays valid for --overlap-hours. stop delivers nothing more until
start; what waits longer than 24 hours is given up and kept for replay (gatewayctl callbacks replay).

Examples:
  gatewayctl subscriptions create https://app.example.com/hook --event message.status --status failed
  gatewayctl subscriptions rotate 01997b32-8a00-7000-8000-000000000001 --overlap-hours 48`,
	run: runSubscriptions,
}

type subscription struct {
	ID             string   `json:"id"`
	URL            string   `json:"url"`
	Format         string   `json:"format"`
	Events         []string `json:"events"`
	Statuses       []string `json:"statuses"`
	WABAID         *string  `json:"waba_id"`
	PhoneNumberID  *string  `json:"phone_number_id"`
	Key            *string  `json:"key"`
	Active         bool     `json:"active"`
	InactiveReason *string  `json:"inactive_reason"`
	Health         health   `json:"health"`
	Secret         string   `json:"secret"`
}

type health struct {
	Circuit       string     `json:"circuit"`
	NextAttemptAt *time.Time `json:"next_attempt_at"`
	Failures      int        `json:"failures_in_a_row"`
	LastError     *string    `json:"last_error"`
	Waiting       int        `json:"waiting"`
}

// state is how a subscription stands, in a word or two.
func (s *subscription) state() string {
	switch {
	case !s.Active && s.InactiveReason != nil:
		return flat(*s.InactiveReason)
	case !s.Active:
		return "stopped"
	case s.Health.Circuit == "open":
		return "circuit open"
	}
	return "active"
}

// subscriptionFlags are those of all that subscriptions does.
type subscriptionFlags struct {
	events, statuses            pairs
	waba, phone, key, format    string
	verifyTokenFile, secretFile string
	overlap                     int
	asJSON                      bool
}

func runSubscriptions(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	var f subscriptionFlags
	fs.Var(&f.events, "event", "an event to tell of; may be given several times (create)")
	fs.Var(&f.statuses, "status", "a status to tell of; may be given several times (create)")
	fs.StringVar(&f.waba, "waba", "", "only of this WABA (create)")
	fs.StringVar(&f.phone, "phone", "", "only of this phone number id (create)")
	fs.StringVar(&f.key, "key-name", "", "only of messages sent with API keys of this name (create)")
	fs.StringVar(&f.format, "format", "", "wagate or meta (create)")
	fs.StringVar(&f.verifyTokenFile, "verify-token-file", "", "file with the token of the receiver's handshake (create --format meta)")
	fs.StringVar(&f.secretFile, "secret-file", "", "file with a secret of your own (create, rotate)")
	fs.IntVar(&f.overlap, "overlap-hours", 24, "how long the old secret stays valid (rotate)")
	fs.BoolVar(&f.asJSON, "json", false, "the gateway's document as it is")
	found, err := parse(fs, args, 0, 2)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return c.listSubscriptions(ctx, f.asJSON)
	}
	if len(found) != 2 {
		return wrong("subscriptions %s needs an id, or for create a URL", clean(found[0]))
	}
	path := "/v1/subscriptions/" + url.PathEscape(found[1])
	switch found[0] {
	case "create":
		return c.createSubscription(ctx, found[1], f)
	case "show":
		raw, err := c.api.ask(ctx, http.MethodGet, path, nil)
		if err != nil {
			return err
		}
		return c.writeIndented(raw)
	case "start", "stop":
		var s subscription
		if _, err := c.api.read(ctx, http.MethodPatch, path, map[string]any{"active": found[0] == "start"}, &s); err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.stdout, "subscription %s is %s\n", flat(s.ID), s.state())
		return err
	case "rotate":
		body := map[string]any{"overlap_hours": f.overlap}
		if err := fromFile(body, "secret", f.secretFile); err != nil {
			return err
		}
		var s subscription
		if _, err := c.api.read(ctx, http.MethodPost, path+"/rotate-secret", body, &s); err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.stdout, "%s\n", clean(s.Secret))
		return err
	case "delete":
		if _, err := c.api.ask(ctx, http.MethodDelete, path, nil); err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.stdout, "subscription %s is deleted, and so is what waits for it\n", clean(found[1]))
		return err
	}
	return wrong("subscriptions, or subscriptions show, create, start, stop, rotate or delete")
}

// fromFile sets a member to what a file holds, where one is named.
func fromFile(body map[string]any, name, path string) error {
	if path == "" {
		return nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return wrong("reading %s: %v", path, err)
	}
	body[name] = strings.TrimSpace(string(raw))
	return nil
}

func (c *cli) createSubscription(ctx context.Context, to string, f subscriptionFlags) error {
	body := map[string]any{"url": to}
	if len(f.events) > 0 {
		body["events"] = f.events
	}
	if len(f.statuses) > 0 {
		body["statuses"] = f.statuses
	}
	for name, v := range map[string]string{"waba_id": f.waba, "phone_number_id": f.phone, "key": f.key, "format": f.format} {
		if v != "" {
			body[name] = v
		}
	}
	if err := fromFile(body, "secret", f.secretFile); err != nil {
		return err
	}
	if err := fromFile(body, "verify_token", f.verifyTokenFile); err != nil {
		return err
	}
	var s subscription
	if _, err := c.api.read(ctx, http.MethodPost, "/v1/subscriptions", body, &s); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.stdout, "subscription %s\nsecret %s\n", flat(s.ID), clean(s.Secret))
	return err
}

func (c *cli) listSubscriptions(ctx context.Context, asJSON bool) error {
	var a struct {
		Subscriptions []subscription `json:"subscriptions"`
	}
	raw, err := c.api.get(ctx, "/v1/subscriptions", &a)
	if err != nil {
		return err
	}
	if asJSON {
		return c.write(raw)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSTATE\tWAITING\tFORMAT\tEVENTS\tOF\tURL\tLAST ERROR")
	for _, s := range a.Subscriptions {
		var of []string
		for _, scope := range []struct {
			name string
			of   *string
		}{{"waba", s.WABAID}, {"phone", s.PhoneNumberID}, {"key", s.Key}} {
			if scope.of != nil {
				of = append(of, scope.name+" "+*scope.of)
			}
		}
		if len(s.Statuses) > 0 {
			of = append(of, strings.Join(s.Statuses, ","))
		}
		if len(of) == 0 {
			of = []string{"all"}
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", flat(s.ID), s.state(), s.Health.Waiting, flat(s.Format), flat(strings.Join(s.Events, ",")),
			flat(strings.Join(of, " ")), flat(s.URL), orDash(s.Health.LastError))
	}
	return w.Flush()
}
