package ctl

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

var alertsCommand = command{
	name: "alerts", args: "[--severity S] [--waba ID] [--phone ID] [--json]", short: "what Meta says of accounts and phone numbers",
	help: `
Lists Meta's notices about accounts, the newest first: bans and reviews, violations, restrictions, quality and names of phone numbers,
changes of their PIN, account alerts, errors that belong to no message. They are kept for 90 days.

WHEN of --since is a time such as 2026-12-01T09:00:00Z, or how long ago, such as 48h.

Examples:
  gatewayctl alerts --severity warning --since 168h
  gatewayctl alerts --phone 200000000000001`,
	run: runAlerts,
}

const (
	alertPage  = 200 // the most that the gateway gives at once
	alertLimit = 50
)

type alert struct {
	ID                 string            `json:"id"`
	At                 time.Time         `json:"at"`
	Severity           string            `json:"severity"`
	Field              string            `json:"field"`
	Event              string            `json:"event"`
	WABAID             string            `json:"waba_id"`
	PhoneNumberID      *string           `json:"phone_number_id"`
	DisplayPhoneNumber *string           `json:"display_phone_number"`
	Detail             map[string]string `json:"detail"`
}

func runAlerts(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	query := url.Values{}
	for name, usage := range map[string]string{"severity": "info, warning or critical, and above", "field": "one field of Meta's, such as security"} {
		fs.Func(name, usage, func(s string) error { query.Set(name, s); return nil })
	}
	fs.Func("waba", "one WABA", func(s string) error { query.Set("waba_id", s); return nil })
	fs.Func("phone", "one phone number id", func(s string) error { query.Set("phone_number_id", s); return nil })
	since := fs.String("since", "", "since, such as 2026-12-01T00:00:00Z or 48h")
	limit := fs.Int("limit", alertLimit, "how many, 200 at most")
	asJSON := fs.Bool("json", false, "the gateway's document as it is")
	if _, err := parse(fs, args, 0, 0); err != nil {
		return err
	}
	from, err := c.when("since", *since)
	if err != nil {
		return err
	}
	if from != "" {
		query.Set("since", from)
	}
	if *limit < 1 || *limit > alertPage {
		return wrong("--limit must be 1 to %d", alertPage)
	}
	query.Set("limit", strconv.Itoa(*limit))
	var a struct {
		Alerts     []alert `json:"alerts"`
		NextCursor *string `json:"next_cursor"`
	}
	path := "/v1/alerts?" + query.Encode()
	if *asJSON {
		raw, err := c.api.ask(ctx, http.MethodGet, path, nil)
		if err != nil {
			return err
		}
		return c.write(raw)
	}
	if _, err := c.api.get(ctx, path, &a); err != nil {
		return err
	}
	if len(a.Alerts) == 0 {
		_, err := fmt.Fprintln(c.stdout, "There are no alerts.")
		return err
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "AT\tSEVERITY\tFIELD\tEVENT\tWABA\tPHONE\tDETAIL")
	for _, x := range a.Alerts {
		phone := x.PhoneNumberID
		if phone == nil {
			phone = x.DisplayPhoneNumber
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", x.At.UTC().Format(time.RFC3339), flat(x.Severity), flat(x.Field), flat(x.Event), flat(x.WABAID), orDash(phone), details(x.Detail))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if a.NextCursor != nil {
		_, err = fmt.Fprintln(c.stdout, "There are more: a larger --limit, or a smaller span.")
	}
	return err
}

// details prints an alert's details in the order of their names.
func details(of map[string]string) string {
	if len(of) == 0 {
		return "-"
	}
	parts := make([]string, 0, len(of))
	for _, name := range slices.Sorted(maps.Keys(of)) {
		parts = append(parts, name+"="+of[name])
	}
	return flat(strings.Join(parts, " "))
}
