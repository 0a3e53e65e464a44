package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"text/tabwriter"
	"time"
)

var webhooksCommand = command{
	name: "webhooks", args: "[--state S] [--json] | show ID | replay ID… | replay --state S", short: "what Meta has posted and what became of it; have it applied again",
	help: `
Lists the webhooks that wait, and those of the last 24 hours (before --until) that were set aside, with the reason, and counts
all of that time.

  waiting      still to be applied, or to be tried again
  set_aside    could not be read or applied; nothing of it counts
  unmatched    applied, but for statuses of messages that are not there
  applied      applied

show prints one with its body. The body holds what users wrote and their numbers: the key needs the scope admin.

replay has them applied again, by their ids or all of a state, the oldest first. Statuses may be applied any number of times. What a
webhook says beside them (pauses, opt-outs, tiers, service windows) is done if it was set aside; if it was applied it is done again
only with --notices. --state applied needs --since.

  webhooks replay --state set_aside|unmatched|applied [--since WHEN] [--until WHEN] [--notices]

WHEN is a time such as 2026-12-01T09:00:00Z, or how long ago, such as 90m or 48h.

Examples:
  gatewayctl webhooks --state set_aside --since 72h
  gatewayctl webhooks show 01997b32-8a00-7000-8000-000000000001
  gatewayctl webhooks replay 01997b32-8a00-7000-8000-000000000001
  gatewayctl webhooks replay --state set_aside --since 48h`,
	run: runWebhooks,
}

const (
	// webhookSpan is how far back a list looks that is not told.
	webhookSpan = 24 * time.Hour
	// webhookPage is the most that the gateway gives at once, webhookLimit how many are listed.
	webhookPage  = 200
	webhookLimit = 50
	// replayPause lies between two of the gateway's portions of a replay, of 1,000 at most: replayed ones are older, so they
	// go before what Meta posts meanwhile.
	replayPause = time.Second
)

type webhook struct {
	ID          string     `json:"id"`
	AppID       string     `json:"app_id"`
	State       string     `json:"state"`
	Size        int64      `json:"size"`
	ReceivedAt  time.Time  `json:"received_at"`
	ProcessedAt *time.Time `json:"processed_at"`
	Attempts    int        `json:"attempts"`
	Error       *string    `json:"error"`
}

// webhookFlags are those of all that webhooks does.
type webhookFlags struct {
	state, since, until, cursor string
	limit                       int
	notices, asJSON             bool
}

func runWebhooks(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	var f webhookFlags
	fs.StringVar(&f.state, "state", "", "waiting, set_aside, unmatched or applied")
	fs.StringVar(&f.since, "since", "", "received since, such as 2026-12-01T00:00:00Z or 48h")
	fs.StringVar(&f.until, "until", "", "received before")
	fs.StringVar(&f.cursor, "cursor", "", "go on after this webhook (list)")
	fs.IntVar(&f.limit, "limit", webhookLimit, "how many of a state (list)")
	fs.BoolVar(&f.notices, "notices", false, "also do again what was done that webhooks say beside statuses (replay)")
	fs.BoolVar(&f.asJSON, "json", false, "one page of the gateway's document as it is (list, show)")
	found, err := parse(fs, args, 0, -1)
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
	switch {
	case len(found) > 0 && found[0] == "replay":
		return c.replayWebhooks(ctx, f, found[1:])
	case f.notices:
		return wrong("--notices is for a replay")
	case f.limit < 1:
		return wrong("--limit must be 1 or more")
	case len(found) == 0 && f.asJSON:
		query := f.query(f.state, min(f.limit, webhookPage))
		raw, err := c.api.ask(ctx, http.MethodGet, "/v1/webhooks?"+query.Encode(), nil)
		if err != nil {
			return err
		}
		return c.write(raw)
	case len(found) == 0:
		return c.listWebhooks(ctx, f)
	case len(found) == 2 && found[0] == "show":
		return c.showWebhook(ctx, found[1], f.asJSON)
	}
	return wrong("webhooks, webhooks show ID or webhooks replay …")
}

// when reads a time, or how long ago it was; "" stays as it is.
func (c *cli) when(name, s string) (string, error) {
	if s == "" {
		return "", nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		ago, err := time.ParseDuration(s)
		if err != nil || ago <= 0 {
			return "", wrong("--%s must be a time such as 2026-12-01T09:00:00Z, or how long ago, such as 48h", name)
		}
		t = c.now().Add(-ago)
	}
	return t.UTC().Format(time.RFC3339Nano), nil
}

// query is that of a page of a state.
func (f webhookFlags) query(state string, limit int) url.Values {
	query := url.Values{"limit": {strconv.Itoa(limit)}}
	for name, value := range map[string]string{"state": state, "since": f.since, "until": f.until, "cursor": f.cursor} {
		if value != "" {
			query.Set(name, value)
		}
	}
	return query
}

// webhooksOf lists those of a state up to the limit. A page may be empty and still have a next one.
func (c *cli) webhooksOf(ctx context.Context, f webhookFlags, state string) (all []webhook, next *string, err error) {
	for {
		var a struct {
			Webhooks   []webhook `json:"webhooks"`
			NextCursor *string   `json:"next_cursor"`
		}
		query := f.query(state, min(f.limit-len(all), webhookPage))
		if _, err := c.api.get(ctx, "/v1/webhooks?"+query.Encode(), &a); err != nil {
			return nil, nil, err
		}
		all = append(all, a.Webhooks...)
		if a.NextCursor == nil || len(all) >= f.limit {
			return all, a.NextCursor, nil
		}
		f.cursor = *a.NextCursor
	}
}

func (c *cli) listWebhooks(ctx context.Context, f webhookFlags) error {
	states := []string{"waiting", "set_aside"}
	if f.state != "" {
		states = []string{f.state}
	} else if f.cursor != "" {
		return wrong("--cursor needs the --state of its list")
	}
	told := f.since
	if f.since == "" {
		end := c.now()
		if t, err := time.Parse(time.RFC3339, f.until); err == nil {
			end = t
		}
		f.since = end.Add(-webhookSpan).UTC().Format(time.RFC3339Nano)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tRECEIVED\tSTATE\tAPP\tBYTES\tATTEMPTS\tREASON")
	var more []string
	for _, state := range states {
		of := f
		if state == "waiting" {
			of.since = told // however old: the gateway finds these at once
		}
		all, next, err := c.webhooksOf(ctx, of, state)
		if err != nil {
			return err
		}
		for _, h := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\n", flat(h.ID), h.ReceivedAt.UTC().Format(time.RFC3339), flat(h.State), flat(h.AppID), h.Size, h.Attempts, orDash(h.Error))
		}
		if next != nil {
			more = append(more, fmt.Sprintf("There are more: --state %s --cursor %s", clean(state), clean(*next)))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, line := range more {
		fmt.Fprintln(c.stdout, line)
	}
	return c.countWebhooks(ctx, f)
}

func (c *cli) countWebhooks(ctx context.Context, f webhookFlags) error {
	query := url.Values{}
	for name, value := range map[string]string{"since": f.since, "until": f.until} {
		if value != "" {
			query.Set(name, value)
		}
	}
	var n struct {
		Waiting   int64      `json:"waiting"`
		SetAside  int64      `json:"set_aside"`
		Unmatched int64      `json:"unmatched"`
		Applied   int64      `json:"applied"`
		Since     *time.Time `json:"since"`
		Complete  bool       `json:"complete"`
	}
	if _, err := c.api.get(ctx, "/v1/webhooks/counts?"+query.Encode(), &n); err != nil {
		return err
	}
	since := "in all"
	if n.Since != nil {
		since = "since " + n.Since.UTC().Format(time.RFC3339)
	}
	if !n.Complete {
		since += " (older ones are not counted)"
	}
	_, err := fmt.Fprintf(c.stdout, "\n%d waiting, %d set aside, %d unmatched, %d applied %s\n", n.Waiting, n.SetAside, n.Unmatched, n.Applied, since)
	return err
}

func (c *cli) showWebhook(ctx context.Context, id string, asJSON bool) error {
	var h struct {
		webhook
		Body       json.RawMessage `json:"body"`
		BodyBase64 []byte          `json:"body_base64"`
	}
	raw, err := c.api.get(ctx, "/v1/webhooks/"+url.PathEscape(id), &h)
	if err != nil {
		return err
	}
	if asJSON {
		return c.writeIndented(raw)
	}
	processed := "-"
	if h.ProcessedAt != nil {
		processed = h.ProcessedAt.UTC().Format(time.RFC3339Nano)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "id\t%s\nstate\t%s\nreason\t%s\nattempts\t%d\nreceived\t%s\nprocessed\t%s\napp\t%s\nbytes\t%d\n", flat(h.ID), flat(h.State), orDash(h.Error), h.Attempts,
		h.ReceivedAt.UTC().Format(time.RFC3339Nano), processed, flat(h.AppID), h.Size)
	if err := w.Flush(); err != nil {
		return err
	}
	if len(h.BodyBase64) > 0 {
		_, err := fmt.Fprintf(c.stdout, "\nThe body is no JSON:\n%q\n", h.BodyBase64)
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, h.Body, "", "  "); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	_, err = fmt.Fprintf(c.stdout, "\n%s\n", clean(b.String()))
	return err
}

func (c *cli) replayWebhooks(ctx context.Context, f webhookFlags, ids []string) error {
	body := map[string]any{}
	if f.notices {
		body["notices"] = true
	}
	switch {
	case f.cursor != "" || f.limit != webhookLimit || f.asJSON:
		return wrong("a replay takes ids, or --state, --since and --until; and --notices")
	case len(ids) > 0 && f.state+f.since+f.until != "":
		return wrong("replay webhooks by their ids, or by --state, --since and --until, not both")
	case len(ids) > 0:
		body["ids"] = ids
	case f.state == "":
		return wrong("name webhooks by their ids, or --state: set_aside, unmatched or applied")
	case f.state == "applied" && f.since == "":
		return wrong("--state applied needs --since: it would be all there ever were")
	default:
		if f.until == "" {
			f.until = c.now().UTC().Format(time.RFC3339Nano) // what comes meanwhile is not run after
		}
		body["state"], body["until"] = f.state, f.until
		if f.since != "" {
			body["since"] = f.since
		}
	}
	total := 0
	for {
		var a struct {
			Replayed   int     `json:"replayed"`
			More       bool    `json:"more"`
			NextCursor *string `json:"next_cursor"`
		}
		if _, err := c.api.read(ctx, http.MethodPost, "/v1/webhooks/replay", body, &a); err != nil {
			if total > 0 {
				fmt.Fprintf(c.stdout, "replayed %d webhooks, and then:\n", total)
			}
			return err
		}
		total += a.Replayed
		if !a.More || a.NextCursor == nil {
			break
		}
		body["cursor"] = *a.NextCursor
		if a.Replayed == 0 {
			continue // it only looked
		}
		pause := time.NewTimer(replayPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("replayed %d webhooks: %w", total, ctx.Err())
		case <-pause.C:
		}
	}
	text := fmt.Sprintf("replayed %d webhooks", total)
	if total > 0 {
		text += "; they are applied within seconds, and gatewayctl webhooks shows what fails again"
	}
	_, err := fmt.Fprintln(c.stdout, text)
	return err
}
