package ctl

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

var wabasCommand = command{
	name: "wabas", args: "[--json] | set ID NAME=VALUE…", short: "the WABAs; how the Cloud API ingress answers for one",
	help: `
Lists the WABAs with their limits. PUT /v1/wabas/{waba_id} makes one; gatewayctl limits set waba changes its limits.
wabas set changes how the Cloud API ingress treats the messages of its numbers, within a second:

  ingress_answer             id (the gateway's, at once) or wamid (Meta's, when it comes in time)
  ingress_wait_seconds       how long an answer waits for the wamid, 1 to 30
  opaque_as_idempotency_key  true or false: biz_opaque_callback_data is the idempotency key of a message without another

Examples:
  gatewayctl wabas
  gatewayctl wabas set 100000000000001 ingress_answer=wamid ingress_wait_seconds=15`,
	run: runWABAs,
}

var phonesCommand = command{
	name: "phones", args: "[ID] [--json]", short: "the phone numbers, or all about one",
	help: `
Lists the phone numbers with their limits; with an id, all that the gateway knows of one, as JSON.

Examples:
  gatewayctl phones
  gatewayctl phones 200000000000001`,
	run: runPhones,
}

var keysCommand = command{
	name: "keys", args: "[--json] | create NAME --scope SCOPE… | revoke ID", short: "the API keys; make or end one",
	help: `
Lists the API keys, never the keys themselves. create makes one and prints it, this once. revoke ends one within two seconds.

  keys create NAME --scope send --scope read [--phone ID]… [--requests-per-second N] [--messages-per-day N] [--max-backlog N]

Examples:
  gatewayctl keys create shop --scope send --scope read --phone 200000000000001
  gatewayctl keys revoke 01997b32-8a00-7000-8000-000000000001`,
	run: runKeys,
}

func runWABAs(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	asJSON := fs.Bool("json", false, "the gateway's document as it is")
	found, err := parse(fs, args, 0, -1)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		if found[0] != "set" || len(found) < 3 {
			return wrong("wabas, or wabas set ID NAME=VALUE")
		}
		return c.setWABA(ctx, found[1], found[2:])
	}
	var a struct {
		WABAs []struct {
			ID                string   `json:"waba_id"`
			Name              string   `json:"name"`
			AppID             *string  `json:"app_id"`
			PortfolioID       *string  `json:"portfolio_id"`
			TokenSet          bool     `json:"access_token_set"`
			MessagesPerSecond *float64 `json:"messages_per_second"`
			MessagesPerHour   *float64 `json:"messages_per_hour"`
			ManagementCalls   *float64 `json:"management_calls_per_hour"`
			Answer            string   `json:"ingress_answer"`
		} `json:"wabas"`
	}
	raw, err := c.api.get(ctx, "/v1/wabas", &a)
	if err != nil {
		return err
	}
	if *asJSON {
		return c.write(raw)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "WABA\tNAME\tAPP\tPORTFOLIO\tTOKEN\tPER SECOND\tPER HOUR\tMANAGEMENT PER HOUR\tANSWER")
	for _, r := range a.WABAs {
		token := "missing"
		if r.TokenSet {
			token = "set"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", flat(r.ID), orDash(&r.Name), orDash(r.AppID), orDash(r.PortfolioID), token,
			number(r.MessagesPerSecond, "none"), number(r.MessagesPerHour, "none"), number(r.ManagementCalls, "none"), orDash(&r.Answer))
	}
	return w.Flush()
}

// setWABA changes settings of the Cloud API ingress.
func (c *cli) setWABA(ctx context.Context, id string, args []string) error {
	settings := []string{"ingress_answer", "ingress_wait_seconds", "opaque_as_idempotency_key"}
	patch := map[string]any{}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		switch {
		case !ok || value == "":
			return wrong("%q is not NAME=VALUE", arg)
		case !slices.Contains(settings, name):
			return wrong("a WABA has no setting %q of the ingress, but %s", name, strings.Join(settings, ", "))
		case name == "ingress_answer":
			patch[name] = value
		default: // a number, true or false; what it is not the gateway says
			var v any
			if json.Unmarshal([]byte(value), &v) != nil {
				v = value
			}
			patch[name] = v
		}
	}
	var now map[string]any
	if _, err := c.api.read(ctx, http.MethodPatch, "/v1/wabas/"+url.PathEscape(id), patch, &now, "Content-Type", "application/merge-patch+json"); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "waba %s:", clean(id))
	for _, name := range settings {
		fmt.Fprintf(c.stdout, " %s=%s", name, clean(fmt.Sprint(now[name])))
	}
	_, err := fmt.Fprintln(c.stdout)
	return err
}

func runPhones(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	asJSON := fs.Bool("json", false, "the gateway's document as it is")
	found, err := parse(fs, args, 0, 1)
	if err != nil {
		return err
	}
	if len(found) == 1 {
		raw, err := c.api.ask(ctx, http.MethodGet, "/v1/phone-numbers/"+url.PathEscape(found[0]), nil)
		if err != nil {
			return err
		}
		return c.writeIndented(raw)
	}
	var a struct {
		PhoneNumbers []struct {
			ID                string   `json:"phone_number_id"`
			WABAID            string   `json:"waba_id"`
			Display           string   `json:"display_phone_number"`
			MessagesPerSecond *float64 `json:"messages_per_second"`
			Burst             int      `json:"burst"`
			Pair              *struct {
				Seconds float64 `json:"seconds"`
				Burst   int     `json:"burst"`
			} `json:"pair"`
			MaxBacklog *float64 `json:"max_backlog"`
		} `json:"phone_numbers"`
	}
	raw, err := c.api.get(ctx, "/v1/phone-numbers", &a)
	if err != nil {
		return err
	}
	if *asJSON {
		return c.write(raw)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "PHONE\tWABA\tNUMBER\tPER SECOND\tBURST\tPAIR\tMAX BACKLOG")
	for _, r := range a.PhoneNumbers {
		pair := "none"
		if r.Pair != nil {
			pair = fmt.Sprintf("1 per %s s, burst %d", number(&r.Pair.Seconds, ""), r.Pair.Burst)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", flat(r.ID), flat(r.WABAID), orDash(&r.Display), number(r.MessagesPerSecond, "none"), r.Burst, pair, number(r.MaxBacklog, "none"))
	}
	return w.Flush()
}

type apiKey struct {
	ID                string     `json:"id"`
	Name              string     `json:"name"`
	Scopes            []string   `json:"scopes"`
	PhoneNumbers      []string   `json:"phone_numbers"`
	RequestsPerSecond *float64   `json:"requests_per_second"`
	MessagesPerDay    *float64   `json:"messages_per_day"`
	MaxBacklog        *float64   `json:"max_backlog"`
	CreatedAt         time.Time  `json:"created_at"`
	RevokedAt         *time.Time `json:"revoked_at"`
	Key               string     `json:"key"`
}

func runKeys(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	asJSON := fs.Bool("json", false, "the gateway's document as it is")
	var scopes, phones pairs
	fs.Var(&scopes, "scope", "send, read, manage or admin; may be given several times (create)")
	fs.Var(&phones, "phone", "a phone number id it is bound to; may be given several times (create)")
	limits := map[string]*int64{
		"requests_per_second": fs.Int64("requests-per-second", 0, "limit (create)"),
		"messages_per_day":    fs.Int64("messages-per-day", 0, "limit (create)"),
		"max_backlog":         fs.Int64("max-backlog", 0, "messages that may wait (create)"),
	}
	found, err := parse(fs, args, 0, 2)
	if err != nil {
		return err
	}
	switch {
	case len(found) == 0:
		return c.listKeys(ctx, *asJSON)
	case found[0] == "create" && len(found) == 2:
		if len(scopes) == 0 {
			return wrong("a key needs --scope: send, read, manage or admin")
		}
		body := map[string]any{"name": found[1], "scopes": scopes}
		if len(phones) > 0 {
			body["phone_numbers"] = phones
		}
		for name, n := range limits {
			if *n != 0 {
				body[name] = *n
			}
		}
		var k apiKey
		raw, err := c.api.read(ctx, http.MethodPost, "/v1/keys", body, &k)
		if err != nil {
			return err
		}
		if *asJSON {
			return c.write(raw)
		}
		fmt.Fprintf(c.stderr, "made key %s of %s. It is shown this once:\n", clean(k.ID), clean(k.Name))
		_, err = fmt.Fprintln(c.stdout, clean(k.Key))
		return err
	case found[0] == "revoke" && len(found) == 2:
		if _, err := c.api.ask(ctx, http.MethodDelete, "/v1/keys/"+url.PathEscape(found[1]), nil); err != nil {
			return err
		}
		_, err := fmt.Fprintln(c.stdout, "revoked", clean(found[1]))
		return err
	}
	return wrong("keys, keys create NAME or keys revoke ID")
}

func (c *cli) listKeys(ctx context.Context, asJSON bool) error {
	var a struct {
		Keys []apiKey `json:"keys"`
	}
	raw, err := c.api.get(ctx, "/v1/keys", &a)
	if err != nil {
		return err
	}
	if asJSON {
		return c.write(raw)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tSCOPES\tPHONES\tREQUESTS/S\tMESSAGES/DAY\tMAX BACKLOG\tSTATE")
	for _, k := range a.Keys {
		phones, state := "all", "in force"
		if n := len(k.PhoneNumbers); n > 0 {
			phones = strconv.Itoa(n)
		}
		if k.RevokedAt != nil {
			state = "revoked " + k.RevokedAt.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", flat(k.ID), flat(k.Name), flat(strings.Join(k.Scopes, ",")), phones,
			number(k.RequestsPerSecond, "none"), number(k.MessagesPerDay, "none"), number(k.MaxBacklog, "none"), state)
	}
	return w.Flush()
}
