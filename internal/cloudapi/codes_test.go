package cloudapi

import (
	"encoding/csv"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

var allScopes = map[Scope]bool{
	ScopeApp: true, ScopeWABA: true, ScopePhone: true, ScopePair: true, ScopeRecipient: true,
	ScopeMessage: true, ScopeTemplate: true, ScopeFlow: true, ScopeToken: true, ScopePlatform: true,
}

var allActions = map[Action]bool{
	ActionRetryBackoff: true, ActionRetryAfterWindow: true, ActionPausePair: true, ActionPausePhone: true,
	ActionPauseWABA: true, ActionFailPermanent: true, ActionFailConfig: true, ActionRefreshMedia: true,
	ActionUnknownOutcome: true,
}

func TestEveryRowIsReachable(t *testing.T) {
	if len(codeRows) < 140 {
		t.Fatalf("only %d rows", len(codeRows))
	}
	usedScopes, usedActions := map[Scope]bool{}, map[Action]bool{}
	seen := map[[3]int]bool{}
	for _, r := range codeRows {
		if seen[[3]int{r.first, r.last, r.subcode}] {
			t.Errorf("row %d/%d stands there twice", r.first, r.subcode)
		}
		seen[[3]int{r.first, r.last, r.subcode}] = true
		if !allScopes[r.rule.Scope] || !allActions[r.rule.Action] || r.rule.Title == "" {
			t.Errorf("row %d/%d: %+v", r.first, r.subcode, r.rule)
		}
		usedScopes[r.rule.Scope], usedActions[r.rule.Action] = true, true
		probe := r.first
		if r.last > r.first {
			probe = r.last // the first code of the range has a row of its own
		}
		if got, ok := Lookup(probe, r.subcode); !ok || got != r.rule {
			t.Errorf("Lookup(%d, %d) = %+v, %v, want %+v", probe, r.subcode, got, ok, r.rule)
		}
	}
	if len(usedScopes) != len(allScopes) || len(usedActions) != len(allActions) {
		t.Errorf("scopes %v and actions %v are used", usedScopes, usedActions)
	}
}

func TestLookup(t *testing.T) {
	for _, c := range []struct {
		code, subcode int
		want          Rule
	}{
		{130429, 2494055, Rule{ScopePhone, ActionRetryBackoff, "Rate limit hit", 0}},
		{131056, 0, Rule{ScopePair, ActionPausePair, "Pair rate limit hit", 0}},
		{131057, 0, Rule{ScopePhone, ActionRetryBackoff, "Account in maintenance mode", time.Minute}},
		{100, 0, Rule{ScopeMessage, ActionFailPermanent, "Invalid parameter", 0}},
		{100, 33, Rule{ScopePhone, ActionFailConfig, "Unsupported request / object missing", 0}},
		{100, 999, Rule{ScopeMessage, ActionFailPermanent, "Invalid parameter", 0}},
		{190, 463, Rule{ScopeToken, ActionFailConfig, "Access token subcode", 0}},
		{240, 0, Rule{ScopeToken, ActionFailConfig, "API Permission", 0}},
		{299, 7, Rule{ScopeToken, ActionFailConfig, "API Permission", 0}},
		{2388040, 0, Rule{ScopeMessage, ActionFailPermanent, "Character limit exceeded", 0}},
	} {
		if got, ok := Lookup(c.code, c.subcode); !ok || got != c.want {
			t.Errorf("Lookup(%d, %d) = %+v, %v, want %+v", c.code, c.subcode, got, ok, c.want)
		}
	}
	for _, code := range []int{-1, 300, 199, 999_999, 9_999_999} {
		if got, ok := Lookup(code, 0); ok {
			t.Errorf("Lookup(%d) = %+v", code, got)
		}
	}
}

func TestBrokenCodeTablesAreRefused(t *testing.T) {
	const header = "code,subcode,scope,action,wait_seconds,title\n"
	for _, s := range []string{
		header + "x,,app,fail_config,,T\n", header + "1-x,,app,fail_config,,T\n",
		header + "1,x,app,fail_config,,T\n", header + "1,,app,fail_config,x,T\n", header + "1,,app\n",
	} {
		if rows, err := parseCodes([]byte(s)); err == nil {
			t.Errorf("%q gives %v", s, rows)
		}
	}
}

// Where the reference table lies beside the repository, ours must agree with it.
func TestCodeTableAgreesWithReference(t *testing.T) {
	file, err := os.Open(filepath.Join("..", "..", "..", "shared", "reference", "errors.csv"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Log("reference table not beside the repository: the comparison was not run")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	lines, err := csv.NewReader(file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	type facts struct {
		scope, action, title string
	}
	ours := map[string]facts{}
	for _, r := range codeRows {
		key := strconv.Itoa(r.first)
		if r.last > r.first {
			key += "-" + strconv.Itoa(r.last)
		}
		if r.subcode != 0 {
			key += "/" + strconv.Itoa(r.subcode)
		}
		ours[key] = facts{string(r.rule.Scope), string(r.rule.Action), r.rule.Title}
	}
	compared := 0
	for _, f := range lines[1:] {
		if f[0] == "" || f[0][0] < '0' || f[0][0] > '9' {
			continue // rows for outcomes that have no code
		}
		key := f[0]
		if f[1] != "" {
			key += "/" + f[1]
		}
		if got, want := ours[key], (facts{f[5], f[6], f[3]}); got != want {
			t.Errorf("%s: %+v, reference %+v", key, got, want)
		}
		compared++
	}
	if compared != len(codeRows) {
		t.Errorf("reference has %d codes, ours %d", compared, len(codeRows))
	}
}
