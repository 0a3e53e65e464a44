package ctl

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// maxBars bounds the bars of a chart, maxLabel the letters of their labels, fillDays the days without messages that are
	// shown between others.
	maxBars  = 100
	maxLabel = 28
	fillDays = 100
)

// chart is bars of parts on top of each other, all of one scale.
type chart struct {
	title  string
	legend []string
	bars   []bar
	// left is how many bars there was no room for.
	left int
}

// bar has parts that add up to its length, and says how long it is.
type bar struct {
	label string
	parts []float64
	text  string
}

// partsOf says what the bars of each report are made of: members that hold each other, from the innermost on, so that each
// part is what the one before leaves of it.
var partsOf = map[string]struct {
	title   string
	members []string
	legend  []string
	// sums says that rows of one label may be added up.
	sums bool
}{
	"delivery": {"messages", []string{"read", "delivered", "accepted", "total"}, []string{"read", "delivered, not read", "taken by Meta, not delivered", "not taken"}, true},
	"errors":   {"failed messages", []string{"messages"}, []string{"failed"}, true},
	"cost":     {"messages with a price category", []string{"billable", "messages"}, []string{"billable", "free"}, true},
	"latency":  {"seconds until Meta took a message", []string{"queue_p50", "queue_p95", "queue_p99"}, []string{"half of all", "95 %", "99 %"}, false},
	"backlog":  {"messages that wait", []string{"urgent", "high", "normal", "low"}, []string{"urgent", "high", "normal", "low"}, true},
}

// barsOf makes a chart of a report: by its day or hour, else a bar a row.
func barsOf(report string, a reportAnswer) chart {
	p := partsOf[report]
	c := chart{title: p.title, legend: p.legend}
	at := map[string]int{}
	for _, r := range a.Rows {
		label := labelOf(report, a, r)
		values := make([]float64, len(p.members))
		for k, name := range p.members {
			values[k], _ = r.number(name)
		}
		if report != "backlog" { // members that hold each other: what the inner one leaves
			for k := len(values) - 1; k > 0; k-- {
				values[k] = max(values[k]-values[k-1], 0)
			}
		}
		i, there := at[label]
		if there && p.sums {
			for k := range values {
				c.bars[i].parts[k] += values[k]
			}
			continue
		}
		at[label] = len(c.bars)
		c.bars = append(c.bars, bar{label: label, parts: values})
	}
	if slices.Contains(a.GroupBy, "day") {
		c.bars = withDays(c.bars, len(p.members))
	}
	if len(c.bars) > maxBars {
		c.left = len(c.bars) - maxBars
		c.bars = c.bars[:maxBars]
	}
	for i := range c.bars {
		c.bars[i].text = strconv.FormatFloat(math.Round(c.bars[i].length()*1000)/1000, 'f', -1, 64)
	}
	return c
}

func (b *bar) length() (sum float64) {
	for _, p := range b.parts {
		sum += p
	}
	return sum
}

// labelOf is the day or the hour of a row, where its bars can be added up, else all that it is grouped by.
func labelOf(report string, a reportAnswer, r record) string {
	if report == "backlog" {
		text, _ := cellText("lane", r.values["lane"])
		return text
	}
	if p := partsOf[report]; p.sums {
		for _, name := range []string{"day", "hour"} {
			if slices.Contains(a.GroupBy, name) {
				text, _ := cellText(name, r.values[name])
				return text
			}
		}
	}
	var words []string
	for _, name := range a.GroupBy {
		text, _ := cellText(name, r.values[name])
		words = append(words, text)
	}
	if len(words) == 0 {
		return "all"
	}
	return strings.Join(words, " ")
}

// withDays puts the days without messages between the others, unless they are very many.
func withDays(bars []bar, parts int) []bar {
	var all []bar
	for _, b := range bars {
		day, err := time.Parse(time.DateOnly, b.label)
		if err != nil {
			return bars // grouped by more
		}
		if len(all) > 0 {
			next, _ := time.Parse(time.DateOnly, all[len(all)-1].label)
			for next = next.AddDate(0, 0, 1); next.Before(day); next = next.AddDate(0, 0, 1) {
				all = append(all, bar{label: next.Format(time.DateOnly), parts: make([]float64, parts)})
				if len(all) > fillDays {
					return bars
				}
			}
		}
		all = append(all, b)
	}
	return all
}

var (
	blocks = []string{"█", "▓", "▒", "░"}
	plain  = []string{"#", "=", "-", "."}
)

// drawBars draws a chart of that many columns.
func drawBars(w io.Writer, c chart, width int, unicode bool) error {
	signs := plain
	if unicode {
		signs = blocks
	}
	label, text, longest := 0, 0, 0.0
	for i := range c.bars {
		b := &c.bars[i]
		if n := utf8.RuneCountInString(b.label); n > maxLabel {
			b.label = string([]rune(b.label)[:maxLabel-2]) + ".."
		}
		label, text = max(label, utf8.RuneCountInString(b.label)), max(text, len(b.text))
		longest = max(longest, b.length())
	}
	room := max(width-label-text-2, 8)
	var out strings.Builder
	fmt.Fprintf(&out, "\n%s:", c.title)
	for k, what := range c.legend {
		fmt.Fprintf(&out, "  %s %s", signs[k], what)
	}
	out.WriteByte('\n')
	for _, b := range c.bars {
		out.WriteString(b.label + strings.Repeat(" ", label-utf8.RuneCountInString(b.label)) + " ")
		drawn, upto := 0, 0.0
		for k, p := range b.parts {
			upto += p
			end := drawn
			if longest > 0 {
				end = int(math.Round(upto / longest * float64(room)))
			}
			out.WriteString(strings.Repeat(signs[k], end-drawn))
			drawn = end
		}
		if drawn == 0 && b.length() > 0 { // something is there, however little beside the longest
			out.WriteString(signs[slices.Index(b.parts, slices.Max(b.parts))])
			drawn = 1
		}
		out.WriteString(strings.Repeat(" ", room-drawn+1+text-len(b.text)) + b.text + "\n")
	}
	if c.left > 0 {
		fmt.Fprintf(&out, "and %d more, in the table only\n", c.left)
	}
	_, err := io.WriteString(w, out.String())
	return err
}
