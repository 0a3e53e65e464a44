package ctl

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"text/tabwriter"
	"time"
)

var callbacksCommand = command{
	name: "callbacks", args: "[--subscription ID | --to URL | --message ID] [--state S] | hosts | replay …", short: "events on their way to clients; have them delivered again",
	help: `
Lists events, the newest first: what waits (to be delivered, or tried again), was delivered, or was given up after 24 hours.

  callbacks [--subscription ID | --to URL | --message ID] [--state waiting|delivered|given_up] [--since WHEN] [--until WHEN]

hosts lists where the callback_urls of messages go, and how those hosts answer.

replay has events delivered again, the oldest first: those of a message, or those of a subscription or a callback_url that were made since a
time. What was delivered or given up gets another 24 hours, what waits is tried at once, and a circuit that is open is closed.

  callbacks replay --message ID
  callbacks replay (--subscription ID | --to URL) --since WHEN [--until WHEN] [--state S]

WHEN is a time such as 2026-12-01T09:00:00Z, or how long ago, such as 90m or 48h.

Examples:
  gatewayctl callbacks --state given_up
  gatewayctl callbacks replay --subscription 01997b32-8a00-7000-8000-000000000001 --since 48h --state given_up`,
	run: runCallbacks,
}

// callbackLimit is how many are listed.
const callbackLimit = 50

// callbackFlags are those of all that callbacks does.
type callbackFlags struct {
	subscription, url, message, state, since, until, cursor string
	limit                                                   int
	asJSON                                                  bool
}

func runCallbacks(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	var f callbackFlags
	fs.StringVar(&f.subscription, "subscription", "", "those of this subscription")
	fs.StringVar(&f.url, "to", "", "those of this callback_url")
	fs.StringVar(&f.message, "message", "", "those of this message")
	fs.StringVar(&f.state, "state", "", "waiting, delivered or given_up")
	fs.StringVar(&f.since, "since", "", "made since, such as 2026-12-01T00:00:00Z or 48h")
	fs.StringVar(&f.until, "until", "", "made before")
	fs.StringVar(&f.cursor, "cursor", "", "go on after this one (list)")
	fs.IntVar(&f.limit, "limit", callbackLimit, "how many (list)")
	fs.BoolVar(&f.asJSON, "json", false, "the gateway's document as it is (list, hosts)")
	found, err := parse(fs, args, 0, 1)
	if err != nil {
		return err
	}
	for _, when := range []struct {
		name string
		at   *string
	}{{"since", &f.since}, {"until", &f.until}} {
		if *when.at, err = c.when(when.name, *when.at); err != nil {
			return err
		}
	}
	named := 0
	for _, s := range []string{f.subscription, f.url, f.message} {
		if s != "" {
			named++
		}
	}
	switch {
	case named > 1:
		return wrong("name one of --subscription, --to and --message")
	case f.limit < 1 || f.limit > 200:
		return wrong("--limit must be 1 to 200")
	case len(found) == 0:
		return c.listCallbacks(ctx, f)
	case found[0] == "hosts":
		return c.listCallbackHosts(ctx, f.asJSON)
	case found[0] != "replay":
		return wrong("callbacks, callbacks hosts or callbacks replay")
	case named == 0:
		return wrong("a replay needs --subscription, --to or --message")
	case f.message == "" && f.since == "":
		return wrong("a replay needs --since: it would be all that is kept")
	case f.cursor != "" || f.asJSON:
		return wrong("--cursor and --json are for lists")
	}
	return c.replayCallbacks(ctx, f)
}

func (c *cli) listCallbacks(ctx context.Context, f callbackFlags) error {
	query := url.Values{"limit": {strconv.Itoa(f.limit)}}
	for name, v := range map[string]string{
		"subscription_id": f.subscription, "url": f.url, "message_id": f.message, "state": f.state, "since": f.since, "until": f.until, "cursor": f.cursor,
	} {
		if v != "" {
			query.Set(name, v)
		}
	}
	var a struct {
		Callbacks []struct {
			WebhookID     string     `json:"webhook_id"`
			EndpointID    string     `json:"endpoint_id"`
			MessageID     *string    `json:"message_id"`
			Type          string     `json:"type"`
			Status        *string    `json:"status"`
			State         string     `json:"state"`
			Attempts      int        `json:"attempts"`
			NextAttemptAt *time.Time `json:"next_attempt_at"`
			LastError     *string    `json:"last_error"`
			CreatedAt     time.Time  `json:"created_at"`
		} `json:"callbacks"`
		NextCursor *string `json:"next_cursor"`
	}
	raw, err := c.api.get(ctx, "/v1/callbacks?"+query.Encode(), &a)
	if err != nil {
		return err
	}
	if f.asJSON {
		return c.write(raw)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "MADE\tSTATE\tATTEMPTS\tNEXT\tTYPE\tSTATUS\tMESSAGE\tENDPOINT\tLAST ERROR")
	for _, e := range a.Callbacks {
		next := "-"
		if e.NextAttemptAt != nil {
			next = e.NextAttemptAt.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", e.CreatedAt.UTC().Format(time.RFC3339), flat(e.State), e.Attempts, next, flat(e.Type), orDash(e.Status),
			orDash(e.MessageID), flat(e.EndpointID), orDash(e.LastError))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if a.NextCursor != nil {
		_, err = fmt.Fprintf(c.stdout, "There are more: --cursor %s\n", clean(*a.NextCursor))
	}
	return err
}

func (c *cli) listCallbackHosts(ctx context.Context, asJSON bool) error {
	var a struct {
		Endpoints []struct {
			ID     string `json:"id"`
			Owner  string `json:"owner"`
			Origin string `json:"origin"`
			Health health `json:"health"`
		} `json:"endpoints"`
		NextCursor *string `json:"next_cursor"`
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	if !asJSON {
		fmt.Fprintln(w, "HOST\tKEY\tCIRCUIT\tWAITING\tLAST ERROR")
	}
	for path := "/v1/callback-endpoints?limit=200"; ; path = "/v1/callback-endpoints?limit=200&cursor=" + url.QueryEscape(*a.NextCursor) {
		a.NextCursor, a.Endpoints = nil, nil
		raw, err := c.api.get(ctx, path, &a)
		if err != nil {
			return err
		}
		if asJSON {
			return c.write(raw)
		}
		for _, e := range a.Endpoints {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", flat(e.Origin), flat(e.Owner), flat(e.Health.Circuit), e.Health.Waiting, orDash(e.Health.LastError))
		}
		if a.NextCursor == nil {
			return w.Flush()
		}
	}
}

func (c *cli) replayCallbacks(ctx context.Context, f callbackFlags) error {
	body := map[string]any{}
	if f.until == "" && f.message == "" {
		f.until = c.now().UTC().Format(time.RFC3339Nano) // what comes meanwhile is not run after
	}
	for name, v := range map[string]string{
		"subscription_id": f.subscription, "url": f.url, "message_id": f.message, "state": f.state, "since": f.since, "until": f.until,
	} {
		if v != "" {
			body[name] = v
		}
	}
	total := 0
	for {
		var a struct {
			Replayed   int     `json:"replayed"`
			More       bool    `json:"more"`
			NextCursor *string `json:"next_cursor"`
		}
		if _, err := c.api.read(ctx, http.MethodPost, "/v1/callbacks/replay", body, &a); err != nil {
			if total > 0 {
				fmt.Fprintf(c.stdout, "replayed %d events, and then:\n", total)
			}
			return err
		}
		total += a.Replayed
		if !a.More || a.NextCursor == nil {
			break
		}
		body["cursor"] = *a.NextCursor
	}
	_, err := fmt.Fprintf(c.stdout, "replayed %d events; gatewayctl callbacks shows what waits\n", total)
	return err
}
