package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

var reportCommand = command{
	name: "report", args: "delivery|errors|latency|cost|backlog [--since WHEN] [--until WHEN] [--group-by A,B] [--json|--csv]",
	short: "delivery reports: a table and a chart",
	help: `
Reads a report of the messages accepted since seven days ago, and draws it. Days and hours are those in which the gateway accepted the messages.

  delivery   what became of them          by day, hour, waba_id, phone_number_id, template, category, campaign
  errors     failures by reason           by day, waba_id, phone_number_id, template, error_code, error_title, error_scope, failed_by
  latency    seconds, 50/95/99 % of all   by day, hour, waba_id, phone_number_id
  cost       what Meta bills              by day, waba_id, phone_number_id, campaign, pricing_category, pricing_type, pricing_model
  backlog    what waits now, by lane

--group-by total gives one row of all. WHEN is a day such as 2026-12-01, a time such as 2026-12-01T09:00:00Z, or how long ago, such as 48h.
The chart is as wide as the terminal; --width says otherwise, and 0 leaves it out. The numbers mean what docs/reference/report-views.md says.

Examples:
  gatewayctl report delivery --since 2026-11-01 --group-by day,template --timezone Europe/Rome
  gatewayctl report errors --group-by error_code,error_title
  gatewayctl report cost --csv > cost.csv`,
	run: runReport,
}

// reportNames are the reports there are.
var reportNames = []string{"delivery", "errors", "latency", "cost", "backlog"}

type reportAnswer struct {
	Since    *time.Time `json:"since"`
	Until    *time.Time `json:"until"`
	Timezone string     `json:"timezone"`
	GroupBy  []string   `json:"group_by"`
	Rows     []record   `json:"rows"`
}

// record is an object whose members keep their order.
type record struct {
	names  []string
	values map[string]any
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *record) UnmarshalJSON(raw []byte) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	r.names, r.values = nil, map[string]any{}
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return errors.Join(err, errors.New("a row is no object"))
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var v any
		if err := d.Decode(&v); err != nil {
			return err
		}
		r.names = append(r.names, fmt.Sprint(name))
		r.values[fmt.Sprint(name)] = v
	}
	return nil
}

// number gives a member as a number, and whether it is one.
func (r *record) number(name string) (float64, bool) {
	n, ok := r.values[name].(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}

func runReport(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	since := fs.String("since", "", "accepted since, such as 2026-12-01, 2026-12-01T00:00:00Z or 48h; seven days ago without it")
	until := fs.String("until", "", "accepted before")
	by := fs.String("group-by", "", "what a row is of, with commas; total is one row of all")
	zone := fs.String("timezone", "", "time zone of days and hours, such as Europe/Rome; UTC without it")
	asJSON := fs.Bool("json", false, "the gateway's document as it is")
	asCSV := fs.Bool("csv", false, "comma-separated values with a header")
	width := fs.Int("width", -1, "columns of the chart; 0 leaves it out")
	found, err := parse(fs, args, 1, 1)
	if err != nil {
		return err
	}
	report := found[0]
	switch {
	case !slices.Contains(reportNames, report):
		return wrong("there is no report %q, but %s", report, strings.Join(reportNames, ", "))
	case *asJSON && *asCSV:
		return wrong("--json or --csv, not both")
	case report == "backlog" && *since+*until+*by+*zone != "":
		return wrong("the backlog is of now, and has a row a lane: it takes no --since, --until, --group-by or --timezone")
	}
	query := url.Values{}
	for name, v := range map[string]*string{"since": since, "until": until} {
		if _, err := time.Parse("2006-01-02", *v); err == nil {
			continue // a day is one of the report's time zone
		}
		if *v, err = c.when(name, *v); err != nil {
			return err
		}
	}
	for name, v := range map[string]string{"since": *since, "until": *until, "group_by": *by, "timezone": *zone} {
		if v != "" {
			query.Set(name, v)
		}
	}
	if *asCSV {
		query.Set("format", "csv")
	}
	path := "/v1/reports/" + report
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	if *asJSON || *asCSV {
		raw, err := c.api.ask(ctx, http.MethodGet, path, nil)
		if err != nil {
			return err
		}
		return c.write(raw)
	}
	var a reportAnswer
	if _, err := c.api.get(ctx, path, &a); err != nil {
		return err
	}
	return c.showReport(report, a, *width)
}

func (c *cli) showReport(report string, a reportAnswer, width int) error {
	if report != "backlog" {
		span := ""
		if a.Since != nil {
			span = " since " + a.Since.UTC().Format(time.RFC3339)
		}
		if a.Until != nil {
			span += " until " + a.Until.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(c.stdout, "Messages accepted%s; days and hours of %s\n\n", span, flat(a.Timezone))
	}
	if len(a.Rows) == 0 {
		_, err := fmt.Fprintln(c.stdout, "Nothing to report.")
		return err
	}
	if err := printTable(c.stdout, a.Rows); err != nil {
		return err
	}
	if width < 0 {
		width = c.width()
	}
	if width == 0 {
		return nil
	}
	bars := barsOf(report, a)
	return drawBars(c.stdout, bars, max(width, 30), c.unicode())
}

// width is that of the terminal: COLUMNS, else what it says itself, else 80.
func (c *cli) width() int {
	if v, ok := c.api.lookup("COLUMNS"); ok {
		if n, err := strconv.Atoi(v); err == nil && n > 0 && n < 1000 {
			return n
		}
	}
	if n := terminalWidth(c.stdout); n > 0 {
		return n
	}
	return 80
}

// unicode says whether the locale can show blocks.
func (c *cli) unicode() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v, ok := c.api.lookup(name); ok && v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

// printTable prints rows in columns: numbers to the right.
func printTable(w io.Writer, rows []record) error {
	names := rows[0].names
	cells := make([][]string, len(rows)+1)
	widths, right := make([]int, len(names)), make([]bool, len(names))
	for k, name := range names {
		cells[0] = append(cells[0], strings.ToUpper(flat(name)))
		widths[k] = utf8.RuneCountInString(cells[0][k])
		for i := range rows {
			text, isNumber := cellText(name, rows[i].values[name])
			right[k] = right[k] || isNumber
			cells[i+1] = append(cells[i+1], text)
			widths[k] = max(widths[k], utf8.RuneCountInString(text))
		}
	}
	var b strings.Builder
	for _, line := range cells {
		for k, text := range line {
			pad := strings.Repeat(" ", widths[k]-utf8.RuneCountInString(text))
			switch {
			case right[k]:
				b.WriteString(pad + text)
			case k < len(line)-1:
				b.WriteString(text + pad)
			default:
				b.WriteString(text)
			}
			if k < len(line)-1 {
				b.WriteString("  ")
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cellText shows a value; rates in per cent, codes as they are.
func cellText(name string, v any) (text string, isNumber bool) {
	switch v := v.(type) {
	case nil:
		return "-", false
	case json.Number:
		f, err := v.Float64()
		if err == nil && strings.HasSuffix(name, "_rate") {
			return strconv.FormatFloat(f*100, 'f', 1, 64) + "%", true
		}
		return flat(v.String()), !strings.HasSuffix(name, "_code")
	case string:
		return flat(v), false
	default:
		return flat(fmt.Sprint(v)), false
	}
}
