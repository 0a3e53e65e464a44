package sender

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"wagate/internal/cloudapi"
)

// Kind says how a try ended.
type Kind int

// The ends of a try. Accepted, Throttled, Transient and Refused are certain;
// after Unknown the message may or may not have been taken; after NotBegun
// nothing went out because Begin said so.
const (
	Accepted  Kind = iota + 1 // Meta took it and gave it an id
	Throttled                 // not taken: a limit of Scope; the message itself is in order
	Transient                 // not taken, or never left: may be tried again
	Refused                   // not taken, and would not be if tried again unchanged
	Unknown                   // may have been taken
	NotBegun                  // nothing left: Begin refused
)

// String gives the kind's word, for logs and metrics.
func (k Kind) String() string {
	switch k {
	case Accepted:
		return "accepted"
	case Throttled:
		return "throttled"
	case Transient:
		return "transient"
	case Refused:
		return "refused"
	case Unknown:
		return "unknown"
	case NotBegun:
		return "not_begun"
	}
	return "invalid"
}

// Outcome is how a try ended.
type Outcome struct {
	Kind          Kind
	WAMID         string // of an accepted message
	WAID          string // the recipient, as Meta knows them; may be empty
	UserID        string // business-scoped user id of the recipient; may be empty
	MessageStatus string // accepted, held_for_quality_assessment, paused, or empty
	Err           *cloudapi.Error
	Scope         cloudapi.Scope  // what is throttled or refused
	Action        cloudapi.Action // what the code table says
	Wait          time.Duration   // lower bound of the pause, by the answer's headers; 0 where they say nothing
	HTTPStatus    int             // 0 when no answer came
	// Reason is one short word of a small set, fit for a metric: the code
	// table's action, unknown_code, no_id, http_4xx, http_429, http_5xx, redirect,
	// too_large, timeout, cancelled, eof, reset, cut, dns, dial, proxy, tls, connect, stale,
	// begin, bad_phone_number_id, bad_token, bad_body.
	Reason string
	// AppUsage and WABAUsage are the percent of its call limit that Meta says the app
	// and the WABA have used; 0 where the answer does not say.
	AppUsage, WABAUsage float64

	Latency time.Duration // from the first byte out to the end; 0 when nothing left
	Cause   error         // the error underneath, where there is one; for the log
}

// classify says how a try ended that got a whole answer: by the error's code,
// whatever the HTTP status (throttles come as 400, permanent errors as 500).
func classify(status int, h http.Header, body []byte, wabaID string, now time.Time) Outcome {
	out := Outcome{HTTPStatus: status}
	out.AppUsage, out.WABAUsage = cloudapi.Usage(h, wabaID)
	if answer, err := cloudapi.ParseSendAnswer(status, body); err == nil {
		out.Kind, out.Reason = Accepted, "accepted"
		out.WAMID, out.WAID, out.UserID, out.MessageStatus = answer.WAMID, answer.WAID, answer.UserID, answer.MessageStatus
		return out
	}
	e, ok := cloudapi.ParseError(status, body)
	if !ok || len(body) > maxAnswer || status < 100 { // no HTTP status: what comes with it proves nothing
		return byStatus(out, h, len(body), now)
	}
	out.Err = e
	j := cloudapi.Judge(e.Code, e.Subcode, status)
	out.Kind, out.Scope, out.Action, out.Reason = kindOf(j.End), j.Scope, j.Action, string(j.Action)
	switch {
	case j.ByStatus && out.Kind == Throttled:
		out.Reason = "http_429"
	case j.ByStatus:
		out.Reason = "unknown_code"
	}
	if out.Kind == Throttled || out.Kind == Transient {
		out.Wait = cloudapi.RetryAfter(h, now)
		if j.Pauses == cloudapi.ScopeWABA || j.Pauses == cloudapi.ScopeApp {
			out.Wait = max(out.Wait, cloudapi.EstimatedRegain(h, wabaID))
		}
	}
	return out
}

// kindOf gives the kind of a try that was answered by an error. Some refusals are
// worth another try all the same (of media behind a link, after a day): the policy
// says which.
func kindOf(end cloudapi.End) Kind {
	switch end {
	case cloudapi.EndThrottled:
		return Throttled
	case cloudapi.EndTransient:
		return Transient
	case cloudapi.EndRefused:
		return Refused
	}
	return Unknown // also where is_transient says that trying again would help
}

// throttledByStatus is a 429 without a Graph body: the phone number is the
// narrowest scope that can be meant.
func throttledByStatus(out Outcome, h http.Header, now time.Time) Outcome {
	out.Kind, out.Reason = Throttled, "http_429"
	out.Scope, out.Action = cloudapi.ScopePhone, cloudapi.ActionRetryBackoff
	out.Wait = cloudapi.RetryAfter(h, now)
	return out
}

// byStatus judges an answer without a Graph body, which a proxy or Meta's edge
// gave, or a success without a usable id.
func byStatus(out Outcome, h http.Header, size int, now time.Time) Outcome {
	unknown := func(reason string) Outcome {
		out.Kind, out.Reason = Unknown, reason
		out.Scope, out.Action = cloudapi.ScopePlatform, cloudapi.ActionUnknownOutcome
		return out
	}
	refused := func(reason string) Outcome {
		out.Kind, out.Reason = Refused, reason
		out.Scope, out.Action = cloudapi.ScopePlatform, cloudapi.ActionFailPermanent
		return out
	}
	switch status := out.HTTPStatus; {
	case status >= 200 && status < 300 && size > maxAnswer:
		return unknown("too_large")
	case status >= 200 && status < 300:
		return unknown("no_id")
	case status >= 300 && status < 400:
		return refused("redirect")
	case status == http.StatusTooManyRequests:
		return throttledByStatus(out, h, now)
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly:
		out.Kind, out.Reason = Transient, "http_4xx"
		out.Scope, out.Action = cloudapi.ScopePlatform, cloudapi.ActionRetryBackoff
		out.Wait = cloudapi.RetryAfter(h, now)
		return out
	case status >= 400 && status < 500:
		return refused("http_4xx")
	}
	return unknown("http_5xx")
}

var errStrayAnswer = errors.New("an answer came before the request was written")

// broken says how a try ended that got no whole answer.
func broken(end ending, err error, isTLS bool) Outcome {
	out := Outcome{Scope: cloudapi.ScopePlatform, Cause: err, Latency: end.latency}
	switch {
	case end.written:
		out.Kind, out.Action, out.Reason = Unknown, cloudapi.ActionUnknownOutcome, cutReason(err)
	case end.refusal != nil:
		out.Kind, out.Reason, out.Cause, out.Scope = NotBegun, "begin", end.refusal, ""
	default:
		out.Kind, out.Action, out.Reason = Transient, cloudapi.ActionRetryBackoff, connectReason(end, err, isTLS)
		out.Latency = 0
	}
	return out
}

// cutReason names what ended a try after something was written.
func cutReason(err error) string {
	var netErr net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "eof"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	}
	return "cut"
}

// connectReason names what ended a try before anything was written.
func connectReason(end ending, err error, isTLS bool) string {
	var dns *net.DNSError
	var op *net.OpError
	var record tls.RecordHeaderError
	isOp := errors.As(err, &op)
	switch {
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.As(err, &dns):
		return "dns"
	case isOp && op.Op == "proxyconnect":
		return "proxy"
	case isOp && op.Op == "dial":
		return "dial"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case end.got, errors.Is(err, errStrayAnswer):
		return "stale"
	case isTLS, errors.As(err, &record):
		return "tls"
	}
	return "connect"
}
