package cloudapi

import (
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
		switch r.rule.End {
		case EndThrottled, EndTransient, EndRefused, EndUnknown:
		default:
			t.Errorf("row %d/%d ends a try as %q", r.first, r.subcode, r.rule.End)
		}
		if (r.rule.Pauses != "") != (r.rule.Pause > 0 || r.rule.UntilLifted) || r.rule.PauseMax < r.rule.Pause {
			t.Errorf("row %d/%d pauses %q for %v to %v", r.first, r.subcode, r.rule.Pauses, r.rule.Pause, r.rule.PauseMax)
		}
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
		{130429, 2494055, Rule{Scope: ScopePhone, Action: ActionRetryBackoff, Title: "Rate limit hit", Wait: 0}},
		{131056, 0, Rule{Scope: ScopePair, Action: ActionPausePair, Title: "Pair rate limit hit", Wait: 0}},
		{131057, 0, Rule{Scope: ScopePhone, Action: ActionRetryBackoff, Title: "Account in maintenance mode", Wait: time.Minute}},
		{100, 0, Rule{Scope: ScopeMessage, Action: ActionFailPermanent, Title: "Invalid parameter", Wait: 0}},
		{100, 33, Rule{Scope: ScopePhone, Action: ActionFailConfig, Title: "Unsupported request / object missing", Wait: 0}},
		{100, 999, Rule{Scope: ScopeMessage, Action: ActionFailPermanent, Title: "Invalid parameter", Wait: 0}},
		{190, 463, Rule{Scope: ScopeToken, Action: ActionFailConfig, Title: "Access token subcode", Wait: 0}},
		{240, 0, Rule{Scope: ScopeToken, Action: ActionFailConfig, Title: "API Permission", Wait: 0}},
		{299, 7, Rule{Scope: ScopeToken, Action: ActionFailConfig, Title: "API Permission", Wait: 0}},
		{2388040, 0, Rule{Scope: ScopeMessage, Action: ActionFailPermanent, Title: "Character limit exceeded", Wait: 0}},
	} {
		got, ok := Lookup(c.code, c.subcode)
		got = Rule{Scope: got.Scope, Action: got.Action, Title: got.Title, Wait: got.Wait}
		if !ok || got != c.want {
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
	const header = "code,subcode,scope,action,wait_seconds,end,retries,redos,pauses,pause_seconds,pause_max_seconds,suppress_seconds,flags,title\n"
	for _, s := range []string{
		header + "x,,app,fail_config,,refused,,,,,,,,T\n", header + "1-x,,app,fail_config,,refused,,,,,,,,T\n",
		header + "1,x,app,fail_config,,refused,,,,,,,,T\n", header + "1,,app,fail_config,x,refused,,,,,,,,T\n",
		header + "1,,app,fail_config,,refused,x,,,,,,,T\n", header + "1,,app,fail_config,,refused,,x,,,,,,T\n",
		header + "1,,app,fail_config,,refused,,,waba,x,,,,T\n", header + "1,,app,fail_config,,refused,,,,,,,no_such_flag,T\n",
		header + "1,,app\n",
	} {
		if rows, err := parseCodes([]byte(s)); err == nil {
			t.Errorf("%q gives %v", s, rows)
		}
	}
}

// The code decides, and the status only where the code says nothing.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name                  string
		code, subcode, status int
		end                   End
		scope                 Scope
		known, byStatus       bool
	}{
		{"a throttle with 400", 130429, 0, 400, EndThrottled, ScopePhone, true, false},
		{"a throttle with 429", 80007, 0, 429, EndThrottled, ScopeWABA, true, false},
		{"a throttle in a webhook", 131056, 0, 0, EndThrottled, ScopePair, true, false},
		{"permanent with 500", 131045, 0, 500, EndRefused, ScopePhone, true, false},
		{"platform away with 429", 133004, 0, 429, EndTransient, ScopePlatform, true, false},
		{"bad parameter with 429", 100, 0, 429, EndThrottled, ScopePhone, true, true},
		{"unknown outcome with 429", 2, 0, 429, EndThrottled, ScopePhone, true, true},
		{"a token with 429", 190, 463, 429, EndRefused, ScopeToken, true, false},
		{"a disabled template with 429", 132016, 0, 429, EndRefused, ScopeTemplate, true, false},
		{"the object is missing, by subcode", 100, 33, 400, EndRefused, ScopePhone, true, false},
		{"nobody knows it, 400", 987654, 0, 400, EndRefused, ScopeMessage, false, true},
		{"nobody knows it, 429", 987654, 0, 429, EndThrottled, ScopePhone, false, true},
		{"nobody knows it, 500", 987654, 0, 500, EndUnknown, ScopePlatform, false, true},
		{"nobody knows it, 200", 987654, 0, 200, EndUnknown, ScopePlatform, false, true},
		{"nobody knows it, webhook", 987654, 0, 0, EndRefused, ScopeMessage, false, true},
	} {
		j := Judge(c.code, c.subcode, c.status)
		if j.End != c.end || j.Scope != c.scope || j.Known != c.known || j.ByStatus != c.byStatus {
			t.Errorf("%s: %+v", c.name, j)
		}
	}
}
