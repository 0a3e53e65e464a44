// Package policy says what follows from an error of the Cloud API, whether it
// came as the answer to a try or in a failed webhook. What is data stands in
// cloudapi's code table (codes.csv); this package turns its rows into a decision
// about one message. It has no state and no clock.
package policy

import (
	"time"

	"wagate/internal/cloudapi"
)

// Input is an error and the message it came for.
type Input struct {
	Code, Subcode int  // subcode 0 for none
	Webhook       bool // from a failed webhook, which is proof that the message was not delivered
	HTTPStatus    int  // of the answer; not looked at for a webhook

	Category  string     // of the message: marketing, utility, authentication, service, or empty
	ByLink    bool       // Meta fetches its media from an address
	OurMedia  bool       // it has media of ours that were not put up once more for its sake yet
	NoMedia   bool       // the error's text says that Meta has no media under the id it was given
	Fallback  bool       // it has a fallback template that was not used
	Redos     int        // new tries that failed webhooks have cost it so far
	Throttles int        // throttle answers it has had so far
	Retries   int        // tries that answers other than throttles have cost it so far
	ExpiresAt *time.Time // nil for never
	Now       time.Time  // on the clock of ExpiresAt
}

// Fate says what becomes of the message.
type Fate int

// The fates of a message.
const (
	Fail    Fate = iota // final, with Meta's code
	Again               // it was not sent, and gets a new try
	Unknown             // it may have been sent: what settles it is a webhook or a person
)

// String gives the fate's word, for logs and tests.
func (f Fate) String() string {
	switch f {
	case Fail:
		return "fail"
	case Again:
		return "again"
	case Unknown:
		return "unknown"
	}
	return "invalid"
}

// Reaction is what follows from an error.
type Reaction struct {
	// Scope is what the error concerns: with a Pause, what pauses (a token's errors
	// pause its WABA).
	Scope   cloudapi.Scope
	Pause   *Pause // nil: the scope goes on
	Message Fate
	// Wait is the least time before the next try of this message alone. It is 0
	// where the pause says all there is to say.
	Wait time.Duration
	Free bool // Again is owed to a limit, and costs the message no retry
	// Fallback says that the new try is the message's fallback template.
	Fallback bool
	// Slow asks to halve the rate in force of Scope; SlowIfPerSecond only where the
	// scope has a rate per second (an hourly budget pauses instead).
	Slow, SlowIfPerSecond bool
	// Suppress keeps marketing of this WABA from this recipient: 0 not at all, below
	// 0 for good, else that long.
	Suppress time.Duration
	// Refresh says that the next try needs the message's media put up once more: Meta could not use them under the ids they
	// have.
	Refresh     bool
	TemplateOff bool // its template is disabled: whatever waits with it fails with the same code
	Alert       bool // an operator should know
	Known       bool // the code stands in the table
}

// The longest wait of a message after pair limits is 4^maxPairPower seconds:
// Meta's advice is 1, 4, 16, 64, 256.
const maxPairPower = 4

// longWait is what an authentication message never waits: its code is void by then.
const longWait = time.Hour

// React says what follows from an error.
//
// A paused template (132015) holds by answer: the message was not taken, and waits
// free of cost until the template's pause ends or it expires. By webhook it means
// that Meta had taken the message, held it and dropped it when the template was
// paused: nothing was delivered and nothing billed, so one more try after the
// pause is what its sender wants, if it is in time. One only: a template that is
// paused again while it is held needs a person.
func React(in Input) Reaction {
	status := in.HTTPStatus
	if in.Webhook {
		status = 0
	}
	j := cloudapi.Judge(in.Code, in.Subcode, status)
	rule := j.Rule
	re := Reaction{
		Scope: rule.Scope, Known: j.Known, Slow: rule.Slow, SlowIfPerSecond: rule.SlowIfPerSecond,
		Suppress: rule.Suppress, TemplateOff: rule.TemplateOff, Alert: rule.Alert,
	}
	if rule.Pauses != "" {
		re.Scope = rule.Pauses
		re.Pause = &Pause{Base: rule.Pause, Limit: rule.PauseMax, Least: rule.Wait, UntilLifted: rule.UntilLifted}
	}
	re.Refresh = refreshes(in, rule)
	if rule.Fallback && in.Fallback && rule.End == cloudapi.EndRefused && inTime(in, rule) {
		re.Message, re.Fallback = Again, true
		return re
	}
	if re.Message = fate(in, rule); re.Message != Again {
		return re
	}
	re.Free = rule.End == cloudapi.EndThrottled
	switch {
	case rule.Scope == cloudapi.ScopePair:
		re.Wait = pairWait(in)
	case re.Pause == nil:
		re.Wait = rule.Wait
	}
	return re
}

func fate(in Input, rule cloudapi.Rule) Fate {
	if refreshes(in, rule) {
		return Again
	}
	if in.Webhook {
		return again(in.Redos < rule.Redos && inTime(in, rule) && fetched(in, rule))
	}
	switch rule.End {
	case cloudapi.EndThrottled, cloudapi.EndTransient:
		return Again // how often is bounded by the message's retries and its expiry
	case cloudapi.EndUnknown:
		return Unknown
	}
	return again(in.Retries < rule.Retries && inTime(in, rule) && fetched(in, rule))
}

func again(yes bool) Fate {
	if yes {
		return Again
	}
	return Fail
}

// inTime says whether a new try after the rule's wait would still be wanted.
func inTime(in Input, rule cloudapi.Rule) bool {
	if in.Category == "authentication" && rule.Wait >= longWait {
		return false
	}
	wait := rule.Wait
	if rule.Scope == cloudapi.ScopePair {
		wait = pairWait(in)
	}
	return in.ExpiresAt == nil || in.ExpiresAt.After(in.Now.Add(wait))
}

// fetched says whether another try would be another fetch of the media: of a link,
// and once only.
func fetched(in Input, rule cloudapi.Rule) bool {
	return !rule.ByLink || (in.ByLink && in.Redos+in.Retries == 0)
}

// refreshes says whether the message gets the one more try that media of ours are worth: Meta keeps them for a time only, and
// loses one now and then. Other tries that it has cost do not count.
func refreshes(in Input, rule cloudapi.Rule) bool {
	return in.OurMedia && rule.End == cloudapi.EndRefused && (rule.ByLink || in.NoMedia) && inTime(in, rule)
}

// pairWait is Meta's advice for the pair limit: 4^n seconds.
func pairWait(in Input) time.Duration {
	n := in.Throttles
	if in.Webhook {
		n += in.Redos
	}
	return time.Second << (2 * min(max(n, 0), maxPairPower))
}
