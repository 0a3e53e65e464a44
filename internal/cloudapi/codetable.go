package cloudapi

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// row is one line of codes.csv: code is a number or a range first-last,
// subcode 0 where the row is for every subcode.
type row struct {
	first, last, subcode int
	rule                 Rule
}

type codeKey struct{ code, subcode int }

//go:embed codes.csv
var codesCSV []byte

var (
	codeRows   = mustParseCodes(codesCSV)
	codeByKey  = indexCodes(codeRows)
	codeRanges = rangesOf(codeRows)
)

func indexCodes(rows []row) map[codeKey]Rule {
	index := make(map[codeKey]Rule, len(rows))
	for _, r := range rows {
		if r.first == r.last {
			index[codeKey{r.first, r.subcode}] = r.rule
		}
	}
	return index
}

func rangesOf(rows []row) []row {
	var ranges []row
	for _, r := range rows {
		if r.first != r.last {
			ranges = append(ranges, r)
		}
	}
	return ranges
}

// mustParseCodes reads the embedded table. It panics on a broken one, which
// only a change of the file can cause and every test would show.
func mustParseCodes(data []byte) []row {
	rows, err := parseCodes(data)
	if err != nil {
		panic(err)
	}
	return rows
}

// The columns of codes.csv.
const (
	colCode = iota
	colSubcode
	colScope
	colAction
	colWait
	colEnd
	colRetries
	colRedos
	colPauses
	colPause
	colPauseMax
	colSuppress
	colFlags
	colTitle
)

func parseCodes(data []byte) ([]row, error) {
	reader := csv.NewReader(bytes.NewReader(data))
	reader.FieldsPerRecord = colTitle + 1
	lines, err := reader.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("reading the code table: %w", err)
	}
	rows := make([]row, 0, len(lines))
	for i, f := range lines {
		if i == 0 {
			continue // column names
		}
		r, err := parseCode(f)
		if err != nil {
			return nil, fmt.Errorf("reading the code table, line %d: %w", i+1, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func parseCode(f []string) (row, error) {
	r := row{rule: Rule{
		Scope: Scope(f[colScope]), Action: Action(f[colAction]), Title: f[colTitle],
		End: End(f[colEnd]), Pauses: Scope(f[colPauses]),
	}}
	first, last, isRange := strings.Cut(f[colCode], "-")
	if !isRange {
		last = first
	}
	p := rowParser{}
	r.first, r.last, r.subcode = p.required(first), p.required(last), p.count(f[colSubcode])
	r.rule.Retries, r.rule.Redos = p.count(f[colRetries]), p.count(f[colRedos])
	r.rule.Wait, r.rule.PauseMax = p.seconds(f[colWait]), p.seconds(f[colPauseMax])
	if f[colPause] == "lifted" {
		r.rule.UntilLifted = true
	} else {
		r.rule.Pause = p.seconds(f[colPause])
	}
	if f[colSuppress] == "forever" {
		r.rule.Suppress = -1
	} else {
		r.rule.Suppress = p.seconds(f[colSuppress])
	}
	for _, flag := range strings.Fields(f[colFlags]) {
		switch flag {
		case "slow":
			r.rule.Slow = true
		case "slow_if_per_second":
			r.rule.SlowIfPerSecond = true
		case "alert":
			r.rule.Alert = true
		case "template_off":
			r.rule.TemplateOff = true
		case "by_link":
			r.rule.ByLink = true
		case "fallback":
			r.rule.Fallback = true
		default:
			p.fail(fmt.Errorf("flag %q is not known", flag))
		}
	}
	return r, p.err
}

// rowParser reads numbers and keeps the first fault.
type rowParser struct{ err error }

func (p *rowParser) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

func (p *rowParser) required(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		p.fail(fmt.Errorf("%q is no number", s))
	}
	return n
}

func (p *rowParser) count(s string) int {
	if s == "" {
		return 0
	}
	return p.required(s)
}

func (p *rowParser) seconds(s string) time.Duration { return time.Duration(p.count(s)) * time.Second }
