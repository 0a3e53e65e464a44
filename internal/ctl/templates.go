package ctl

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"
)

var templatesCommand = command{
	name: "templates", args: "[--waba ID] [--name N] [--language L] [--status S] [--category C] [--limit N] [--cursor C] [--json] | refresh [WABA_ID]",
	short: "the message templates that the gateway knows; read them from Meta now",
	help: `
Lists what is known of templates, a line a language, and how old the list of each WABA is. The status GONE picks those that
Meta's list lacks. A template that is PAUSED or DISABLED holds its messages: gatewayctl pauses has the pause.

refresh reads the list of a WABA from Meta first, within its management calls. It needs the WABA where the key may use several,
and the scope manage.

Examples:
  gatewayctl templates --status REJECTED
  gatewayctl templates refresh 102290129340398`,
	run: runTemplates,
}

type templateLine struct {
	WABAID         string     `json:"waba_id"`
	Name           string     `json:"name"`
	Language       string     `json:"language"`
	Status         string     `json:"status"`
	StatusAt       *time.Time `json:"status_at"`
	RejectedReason *string    `json:"rejected_reason"`
	Category       *string    `json:"category"`
	NextCategory   *string    `json:"next_category"`
	Quality        *string    `json:"quality"`
	QualityBefore  *string    `json:"quality_before"`
	GoneAt         *time.Time `json:"gone_at"`
}

func runTemplates(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	query := url.Values{}
	flags := map[string]*string{
		"waba_id": fs.String("waba", "", "of one WABA"), "name": fs.String("name", "", "of one template"), "language": fs.String("language", "", "such as en_US"),
		"status": fs.String("status", "", "APPROVED, PENDING, REJECTED, PAUSED, DISABLED … or GONE"), "category": fs.String("category", "", "MARKETING, UTILITY or AUTHENTICATION"),
		"limit": fs.String("limit", "", "how many, 200 at most (50)"), "cursor": fs.String("cursor", "", "go on after the page before"),
	}
	asJSON := fs.Bool("json", false, "the gateway's document as it is")
	found, err := parse(fs, args, 0, 2)
	if err != nil {
		return err
	}
	for name, value := range flags {
		if *value != "" {
			query.Set(name, *value)
		}
	}
	if len(found) > 0 {
		if found[0] != "refresh" {
			return wrong("templates %s: refresh is all there is", found[0])
		}
		query.Set("refresh", "true")
		if len(found) == 2 {
			query.Set("waba_id", found[1])
		}
	}
	var a struct {
		WABAs []struct {
			WABAID     string   `json:"waba_id"`
			AgeSeconds *float64 `json:"age_seconds"`
			Checked    bool     `json:"checked"`
			Problem    *string  `json:"problem"`
		} `json:"wabas"`
		Templates  []templateLine `json:"templates"`
		NextCursor *string        `json:"next_cursor"`
	}
	raw, err := c.api.get(ctx, "/v1/templates?"+query.Encode(), &a)
	if err != nil {
		return err
	}
	if *asJSON {
		return c.write(raw)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "WABA\tNAME\tLANGUAGE\tSTATUS\tSINCE\tCATEGORY\tQUALITY\tREASON")
	for _, t := range a.Templates {
		status, category, quality := flat(t.Status), orDash(t.Category), orDash(t.Quality)
		if t.GoneAt != nil {
			status = "GONE"
		}
		if t.NextCategory != nil {
			category += " → " + flat(*t.NextCategory)
		}
		if t.QualityBefore != nil {
			quality += " (was " + flat(*t.QualityBefore) + ")"
		}
		since := "-"
		if t.StatusAt != nil {
			since = t.StatusAt.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", flat(t.WABAID), flat(t.Name), flat(t.Language), status, since, category, quality, orDash(t.RejectedReason))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(c.stdout)
	for _, s := range a.WABAs {
		words := []string{"never read whole"}
		if s.AgeSeconds != nil {
			words[0] = "read " + short(time.Duration(*s.AgeSeconds*float64(time.Second))) + " ago"
		}
		if s.Checked {
			words = append(words, "messages are checked against it")
		} else {
			words = append(words, "messages pass unchecked")
		}
		if s.Problem != nil {
			words = append(words, "the last reading failed: "+flat(*s.Problem))
		}
		fmt.Fprintf(c.stdout, "WABA %s: %s.\n", flat(s.WABAID), strings.Join(words, "; "))
	}
	if a.NextCursor != nil {
		fmt.Fprintf(c.stdout, "\nThere are more: --cursor %s\n", clean(*a.NextCursor))
	}
	return nil
}
