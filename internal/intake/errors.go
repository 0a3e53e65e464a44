package intake

import (
	"errors"
	"fmt"
	"time"

	"wagate/internal/cloudapi"
	"wagate/internal/store"
)

// Kind says why a request was not accepted; the edge turns it into a status.
type Kind int

// The kinds.
const (
	// Malformed: the body is no JSON.
	Malformed Kind = iota + 1
	// Invalid: the message or its gateway member breaks rules.
	Invalid
	// UnknownPhone: the phone number is not there, or not this key's.
	UnknownPhone
	// KeyReused: the idempotency key stands for another request.
	KeyReused
	// Unavailable: the database is away or too busy. As far as it could be known, nothing was stored.
	Unavailable
	// Busy: too much waits, or the day's messages are used up. It may be fine later.
	Busy
)

// Error is why a request was not accepted. Nothing of the request is stored.
type Error struct {
	Kind   Kind
	Faults []cloudapi.Fault
	// Code is a word for what stands against a Busy request: would_expire, phone_backlog_full, key_backlog_full or
	// day_limit_reached; and window_closed for an Invalid one that came too late for its service window.
	Code string
	// RetryAfter is how long to wait before another attempt; only for Unavailable and Busy.
	RetryAfter time.Duration
	// Err is the cause, for the log only.
	Err error

	// late says that the only fault is that expires_at has passed, or does before the send_window opens, or that what is known of
	// the template or of the service window stands against the message: the same request may have been fine before.
	late bool
}

// Error implements error. It holds no content of the request.
func (e *Error) Error() string {
	switch e.Kind {
	case Malformed:
		return "the request is not JSON"
	case Invalid:
		return fmt.Sprintf("the message has %d faults", len(e.Faults))
	case UnknownPhone:
		return "unknown phone number"
	case KeyReused:
		return "the idempotency key was used for another request"
	case Unavailable:
		if e.Err != nil {
			return "the database is not available: " + e.Err.Error()
		}
		return "the database is not available"
	case Busy:
		return "not now: " + e.Code
	}
	return "not accepted"
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// retryAfter is what a caller is told to wait when the database is away.
const retryAfter = 2 * time.Second

func unavailable(err error) *Error {
	return &Error{Kind: Unavailable, RetryAfter: retryAfter, Err: err}
}

// errDisk is why nothing is stored while the database has no disk.
var errDisk = errors.New("it is short of disk")

func diskShort(wait time.Duration) *Error {
	return &Error{Kind: Unavailable, RetryAfter: wait, Err: errDisk}
}

// lookup turns the error of a reading into Unavailable where the database was away.
func lookup(err error) error {
	if store.Unavailable(err) {
		return unavailable(err)
	}
	return err
}

func unknownPhone() *Error {
	return &Error{Kind: UnknownPhone, Faults: []cloudapi.Fault{{Pointer: "/from", Detail: "is no phone number id that this key may use"}}}
}
