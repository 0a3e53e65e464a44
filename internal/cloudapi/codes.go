// Package cloudapi is the wire format of the WhatsApp Cloud API: what goes
// out, what comes back, what the error codes mean and what a webhook says. It
// does no I/O and holds no policy.
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

// Scope is what an error concerns, from the whole app down to one message.
type Scope string

// The scopes of Meta's error codes.
const (
	ScopeApp       Scope = "app"
	ScopeWABA      Scope = "waba"
	ScopePhone     Scope = "phone"
	ScopePair      Scope = "pair" // one phone number and one recipient
	ScopeRecipient Scope = "recipient"
	ScopeMessage   Scope = "message"
	ScopeTemplate  Scope = "template"
	ScopeFlow      Scope = "flow"
	ScopeToken     Scope = "token"
	ScopePlatform  Scope = "platform" // Meta itself
)

// Action is what an error code calls for.
type Action string

// The actions of the code table.
const (
	ActionRetryBackoff     Action = "retry_backoff"      // not accepted; again after a short backoff
	ActionRetryAfterWindow Action = "retry_after_window" // not accepted; again when the limit's window has passed
	ActionPausePair        Action = "pause_pair"         // too fast for this recipient
	ActionPausePhone       Action = "pause_phone"        // nothing more from this phone number
	ActionPauseWABA        Action = "pause_waba"         // nothing more from this WABA
	ActionFailPermanent    Action = "fail_permanent"     // this message cannot be sent
	ActionFailConfig       Action = "fail_config"        // a token, a permission or a setting is wrong
	ActionRefreshMedia     Action = "refresh_media"      // its media must be uploaded again
	ActionUnknownOutcome   Action = "unknown_outcome"    // may have been accepted
)

// Rule is what one row of the code table says.
type Rule struct {
	Scope  Scope
	Action Action
	Title  string        // Meta's short name of the error
	Wait   time.Duration // the shortest wait that Meta documents for the code, or 0
}

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

// Lookup gives the rule for an error code and its subcode (0 for none): the
// row of both, else of the code alone, else of the range that holds the code.
// Meta's pages print some subcodes of code 100 as codes, so a code that has no
// row is tried as one of those.
func Lookup(code, subcode int) (Rule, bool) {
	if r, ok := codeByKey[codeKey{code, subcode}]; ok {
		return r, true
	}
	if r, ok := codeByKey[codeKey{code, 0}]; ok {
		return r, true
	}
	for _, r := range codeRanges {
		if code >= r.first && code <= r.last {
			return r.rule, true
		}
	}
	if code >= 1_000_000 {
		if r, ok := codeByKey[codeKey{100, code}]; ok {
			return r, true
		}
	}
	return Rule{}, false
}

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

func parseCodes(data []byte) ([]row, error) {
	lines, err := csv.NewReader(bytes.NewReader(data)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("reading the code table: %w", err)
	}
	rows := make([]row, 0, len(lines))
	for i, f := range lines {
		if i == 0 {
			continue // column names
		}
		r := row{rule: Rule{Scope: Scope(f[2]), Action: Action(f[3]), Title: f[5]}}
		first, last, isRange := strings.Cut(f[0], "-")
		if r.first, err = strconv.Atoi(first); err != nil {
			return nil, fmt.Errorf("reading the code table, line %d: %w", i+1, err)
		}
		r.last = r.first
		if isRange {
			if r.last, err = strconv.Atoi(last); err != nil {
				return nil, fmt.Errorf("reading the code table, line %d: %w", i+1, err)
			}
		}
		if f[1] != "" {
			if r.subcode, err = strconv.Atoi(f[1]); err != nil {
				return nil, fmt.Errorf("reading the code table, line %d: %w", i+1, err)
			}
		}
		if f[4] != "" {
			seconds, err := strconv.Atoi(f[4])
			if err != nil {
				return nil, fmt.Errorf("reading the code table, line %d: %w", i+1, err)
			}
			r.rule.Wait = time.Duration(seconds) * time.Second
		}
		rows = append(rows, r)
	}
	return rows, nil
}
