package ctl

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

var suppressionsCommand = command{
	name: "suppressions", args: "[--waba ID] [--user U] [--source S] | add WABA USER… | lift ID | lift WABA USER…", short: "who gets no marketing; add them, lift them",
	help: `
Lists who gets no marketing messages from a WABA, the newest first, and who said so:

  preference   the user, in WhatsApp          meta       an error of Meta: 131050, 131049
  keyword      the user, by a word they wrote  operator   an operator: stays until one lifts it

add takes phone numbers with their country code, or business-scoped user ids; with --file one a line, "-" for standard input.
lift ends one by its id, or all of a user at a WABA, whoever said so. A user whom Meta itself keeps marketing from (131050) is
suppressed again by the next answer that says so.

  suppressions add WABA USER… [--file FILE] [--reason TEXT] [--for 720h | --until TIME]

Examples:
  gatewayctl suppressions --waba 102540001 --user +16505551234
  gatewayctl suppressions add 102540001 +16505551234 --reason "told us by mail"
  gatewayctl suppressions add 102540001 --file opted-out.txt
  gatewayctl suppressions lift 102540001 +16505551234`,
	run: runSuppressions,
}

var windowCommand = command{
	name: "window", args: "PHONE_ID USER [--json]", short: "whether a user's 24-hour window is open",
	help: `
Says whether the customer service window of a user is open at a phone number, and until when; or why that is not known.

Example:
  gatewayctl window 200000000000001 +16505551234`,
	run: runWindow,
}

const (
	suppressionPage  = 200
	suppressionLimit = 50
	// suppressionsAtOnce is how many the gateway takes in one request, maxSuppressionFile how long a file may be, in bytes.
	suppressionsAtOnce = 1000
	maxSuppressionFile = 64 << 20
)

type suppression struct {
	ID     string     `json:"id"`
	WABAID string     `json:"waba_id"`
	User   string     `json:"user"`
	Source string     `json:"source"`
	Reason string     `json:"reason"`
	Code   *int       `json:"code"`
	Since  time.Time  `json:"since"`
	Until  *time.Time `json:"until"`
}

// suppressionFlags are those of all that suppressions does.
type suppressionFlags struct {
	waba, user, source, file, reason, until string
	lasts                                   time.Duration
	limit                                   int
	asJSON                                  bool
}

func runSuppressions(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	var f suppressionFlags
	fs.StringVar(&f.waba, "waba", "", "of one WABA (list)")
	fs.StringVar(&f.user, "user", "", "of one user, under every spelling of the number (list)")
	fs.StringVar(&f.source, "source", "", "preference, keyword, meta or operator (list)")
	fs.IntVar(&f.limit, "limit", suppressionLimit, "how many (list)")
	fs.BoolVar(&f.asJSON, "json", false, "one page of the gateway's document as it is (list)")
	fs.StringVar(&f.file, "file", "", "users, one a line; - for standard input (add)")
	fs.StringVar(&f.reason, "reason", "", "why (add)")
	fs.DurationVar(&f.lasts, "for", 0, "how long, such as 720h (add)")
	fs.StringVar(&f.until, "until", "", "its end, such as 2026-12-01T09:00:00Z (add)")
	found, err := parse(fs, args, 0, -1)
	switch {
	case err != nil:
		return err
	case f.limit < 1:
		return wrong("--limit must be 1 or more")
	case len(found) == 0:
		return c.listSuppressions(ctx, f)
	case found[0] == "add" && len(found) > 1:
		return c.addSuppressions(ctx, f, found[1], found[2:])
	case found[0] == "lift" && len(found) == 2 && uuidForm.MatchString(found[1]):
		if _, err := c.api.ask(ctx, http.MethodDelete, "/v1/suppressions/"+found[1], nil); err != nil {
			return err
		}
		_, err := fmt.Fprintln(c.stdout, "lifted", found[1])
		return err
	case found[0] == "lift" && len(found) > 2:
		return c.liftUsers(ctx, found[1], found[2:])
	}
	return wrong("suppressions, suppressions add WABA USER… or suppressions lift WABA USER…")
}

func (c *cli) listSuppressions(ctx context.Context, f suppressionFlags) error {
	query := url.Values{"limit": {strconv.Itoa(min(f.limit, suppressionPage))}}
	for name, value := range map[string]string{"waba_id": f.waba, "user": f.user, "source": f.source} {
		if value != "" {
			query.Set(name, value)
		}
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	for n := 0; ; {
		var a struct {
			Suppressions []suppression `json:"suppressions"`
			Next         *string       `json:"next_cursor"`
		}
		raw, err := c.api.get(ctx, "/v1/suppressions?"+query.Encode(), &a)
		if err != nil {
			return err
		}
		if f.asJSON {
			return c.write(raw)
		}
		if n == 0 && len(a.Suppressions) == 0 {
			_, err := fmt.Fprintln(c.stdout, "Nobody is suppressed.")
			return err
		}
		if n == 0 {
			fmt.Fprintln(w, "ID\tWABA\tUSER\tSOURCE\tCODE\tSINCE\tEND\tREASON")
		}
		for _, x := range a.Suppressions[:min(len(a.Suppressions), f.limit-n)] {
			code := "-"
			if x.Code != nil {
				code = strconv.Itoa(*x.Code)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", flat(x.ID), flat(x.WABAID), flat(x.User), flat(x.Source), code,
				x.Since.UTC().Format(time.RFC3339), end(x.Until, c.now()), orDash(&x.Reason))
		}
		if n += len(a.Suppressions); a.Next == nil || n >= f.limit {
			return w.Flush()
		}
		query.Set("cursor", *a.Next)
	}
}

func (c *cli) addSuppressions(ctx context.Context, f suppressionFlags, waba string, users []string) error {
	body := map[string]any{"waba_id": waba}
	if f.reason != "" {
		body["reason"] = f.reason
	}
	switch {
	case f.lasts != 0 && f.until != "":
		return wrong("--for and --until are two words for the same: give one")
	case f.lasts < 0:
		return wrong("--for must be above zero")
	case f.lasts > 0:
		body["until"] = c.now().Add(f.lasts).UTC().Format(time.RFC3339)
	case f.until != "":
		body["until"] = f.until
	}
	if f.file != "" {
		lines, err := usersOf(f.file)
		if err != nil {
			return err
		}
		users = append(users, lines...)
	}
	if len(users) == 0 {
		return wrong("who is to be suppressed: suppressions add %s USER…, or --file FILE", waba)
	}
	added := 0
	for some := range slices.Chunk(users, suppressionsAtOnce) {
		body["users"] = some
		var a struct {
			Suppressions []suppression `json:"suppressions"`
		}
		if _, err := c.api.read(ctx, http.MethodPost, "/v1/suppressions", body, &a); err != nil {
			if added > 0 {
				err = fmt.Errorf("%d were put in, and then: %w", added, err)
			}
			return err
		}
		added += len(a.Suppressions)
	}
	_, err := fmt.Fprintf(c.stdout, "%d users get no marketing from WABA %s.\n", added, clean(waba))
	return err
}

// usersOf reads users from a file, one a line; empty lines and those that begin with # are passed over.
func usersOf(name string) ([]string, error) {
	in := os.Stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, wrong("%v", err)
		}
		defer func() { _ = file.Close() }() // it was read only
		if info, err := file.Stat(); err == nil && info.Size() > maxSuppressionFile {
			return nil, wrong("%s is longer than %d bytes", name, maxSuppressionFile)
		}
		in = file
	}
	var users []string
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if line := strings.TrimSpace(strings.TrimPrefix(lines.Text(), "\uFEFF")); line != "" && line[0] != '#' {
			users = append(users, line)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return users, nil
}

func (c *cli) liftUsers(ctx context.Context, waba string, users []string) error {
	lifted := 0
	for _, user := range users {
		var a struct {
			Lifted int `json:"lifted"`
		}
		query := url.Values{"waba_id": {waba}, "user": {user}}
		if _, err := c.api.read(ctx, http.MethodDelete, "/v1/suppressions?"+query.Encode(), nil, &a); err != nil {
			return err
		}
		lifted += a.Lifted
	}
	_, err := fmt.Fprintf(c.stdout, "%d suppressions lifted.\n", lifted)
	return err
}

func runWindow(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	asJSON := fs.Bool("json", false, "the gateway's document as it is")
	found, err := parse(fs, args, 2, 2)
	if err != nil {
		return err
	}
	var a struct {
		State     string     `json:"state"`
		ExpiresAt *time.Time `json:"window_expires_at"`
		Reason    *string    `json:"reason"`
		Check     string     `json:"window_check"`
	}
	query := url.Values{"phone_number_id": {found[0]}, "user": {found[1]}}
	raw, err := c.api.get(ctx, "/v1/windows?"+query.Encode(), &a)
	if err != nil {
		return err
	}
	if *asJSON {
		return c.write(raw)
	}
	says := flat(a.State)
	switch {
	case a.ExpiresAt != nil:
		says += " " + end(a.ExpiresAt, c.now())
	case a.Reason != nil:
		says += ": " + flat(*a.Reason)
	}
	_, err = fmt.Fprintf(c.stdout, "%s (window_check %s)\n", says, flat(a.Check))
	return err
}
