// Package cloudapi is the wire format of the WhatsApp Cloud API: what goes
// out, what comes back, what the error codes mean and what a webhook says. It
// does no I/O and decides nothing: what an error code calls for is data (codes.csv),
// which package policy and the sender read.
package cloudapi

import (
	"net/http"
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

// End is what an error code says of the try that it answered.
type End string

// The ends of a try that was answered by an error.
const (
	EndThrottled End = "throttled" // not taken: a limit; the message itself is in order
	EndTransient End = "transient" // not taken, and may be tried again
	EndRefused   End = "refused"   // not taken
	EndUnknown   End = "unknown"   // may have been taken
)

// Rule is what one row of the code table says. Scope, Action and Title are Meta's
// facts; what follows them is what the gateway makes of these.
type Rule struct {
	Scope  Scope
	Action Action
	Title  string        // Meta's short name of the error
	Wait   time.Duration // the shortest wait for the code, by Meta's documentation where it gives one, or 0

	End     End
	Retries int // new tries that a refusal by answer allows nevertheless
	Redos   int // new tries that the code in a failed webhook allows

	Pauses          Scope         // what pauses: app, waba, phone, template, flow, or empty for nothing
	Pause, PauseMax time.Duration // of the first pause and of the longest; 0 for nothing and for UntilLifted
	UntilLifted     bool          // the pause ends when an operator or a webhook lifts it

	Suppress        time.Duration // no marketing to the recipient: 0 does not apply, below 0 for good
	Slow            bool          // the scope's rate in force is too high
	SlowIfPerSecond bool          // likewise, where the scope has a rate per second
	Alert           bool          // an operator should know
	TemplateOff     bool          // the template is disabled
	ByLink          bool          // Retries and Redos are for media that Meta fetches from a link
	Fallback        bool          // a template may go instead
}

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

// Judgement is what an error says, by its code and, where that says nothing, by the
// HTTP status that it came with.
type Judgement struct {
	Rule
	Known    bool // the code stands in the table
	ByStatus bool // the rule is the status's, not the code's
}

var (
	ruleTooMany = Rule{ // the phone number is the narrowest scope that can be meant
		Scope: ScopePhone, Action: ActionRetryBackoff, End: EndThrottled, Redos: 5,
		Pauses: ScopePhone, Pause: time.Second, PauseMax: time.Minute,
	}
	ruleRefused = Rule{Scope: ScopeMessage, Action: ActionFailPermanent, End: EndRefused}
	ruleUnknown = Rule{Scope: ScopePlatform, Action: ActionUnknownOutcome, End: EndUnknown}
)

// Judge looks an error up that came with an HTTP status (0 for a webhook). The code
// decides, whatever the status: throttles come as 400 and permanent errors as 500.
// Only a 429 is a throttle of the phone number although its code is no limit, unless
// the code says that a token, a phone number or a WABA cannot send; and a code that
// nobody knows is refused in a webhook and with a 4xx, and unknown with any other
// status.
func Judge(code, subcode, status int) Judgement {
	rule, known := Lookup(code, subcode)
	switch {
	case known && (status != http.StatusTooManyRequests || rule.End == EndThrottled || rule.End == EndTransient || rule.stops()):
		return Judgement{Rule: rule, Known: true}
	case status == http.StatusTooManyRequests:
		return Judgement{Rule: ruleTooMany, Known: known, ByStatus: true}
	case status == 0, status >= 400 && status < 500:
		return Judgement{Rule: ruleRefused, ByStatus: true}
	}
	return Judgement{Rule: ruleUnknown, ByStatus: true}
}

// stops says whether the code stops more than its message.
func (r Rule) stops() bool {
	return r.UntilLifted || r.Action == ActionPausePhone || r.Action == ActionPauseWABA || r.Action == ActionFailConfig
}
