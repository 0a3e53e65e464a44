package graphproxy

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"wagate/internal/store"
)

// Error is an error of the gateway's own, told in Graph's words. Its message is fit for callers.
type Error struct {
	Status        int // of HTTP
	Code, Subcode int // of Graph; subcode 0 is none
	Message       string
	// Details say what is wrong and where; empty for none.
	Details string
	// RetryAfter is when the same call may do better; 0 says nothing of it.
	RetryAfter time.Duration
	// Transient says that the same call may be made again without harm.
	Transient bool

	cause error
}

// Codes of Graph that the gateway answers with itself.
const (
	codeUnknown     = 1
	codeService     = 2
	codeTooMany     = 4
	codePermission  = 10
	codeParameter   = 100
	codeToken       = 190
	codeAccess      = 200
	codeManagement  = 80008 // the management calls of a WABA
	subcodeNoObject = 33
)

// Error implements error: the code alone.
func (e *Error) Error() string {
	s := "graph error " + strconv.Itoa(e.Code)
	if e.Subcode != 0 {
		s += "/" + strconv.Itoa(e.Subcode)
	}
	return s
}

// Unwrap gives the cause, for the log.
func (e *Error) Unwrap() error { return e.cause }

// Write answers with the error. traceID is what a caller may quote; it stands where Graph has its fbtrace_id.
func (e *Error) Write(w http.ResponseWriter, traceID string) {
	kind := "OAuthException"
	if e.Subcode == subcodeNoObject {
		kind = "GraphMethodException"
	}
	var body struct {
		Error struct {
			Message   string `json:"message"`
			Type      string `json:"type"`
			Code      int    `json:"code"`
			Subcode   int    `json:"error_subcode,omitempty"`
			Data      *data  `json:"error_data,omitempty"`
			Transient bool   `json:"is_transient,omitempty"`
			TraceID   string `json:"fbtrace_id,omitempty"`
		} `json:"error"`
	}
	body.Error.Message = "(#" + strconv.Itoa(e.Code) + ") " + e.Message
	body.Error.Type, body.Error.Code, body.Error.Subcode = kind, e.Code, e.Subcode
	body.Error.Transient, body.Error.TraceID = e.Transient, traceID
	if e.Details != "" {
		body.Error.Data = &data{"whatsapp", e.Details}
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	if e.Status == http.StatusUnauthorized {
		h.Set("Www-Authenticate", `OAuth "wagate" "invalid_token" "A valid API key is needed"`)
	}
	w.WriteHeader(e.Status)
	_ = json.NewEncoder(w).Encode(body) // the caller may have gone
}

// data is error_data, as the errors of messages have it.
type data struct {
	Product string `json:"messaging_product"`
	Details string `json:"details"`
}

// BadMessage is for a message that is not taken: a code of Meta's, its title and what is wrong.
func BadMessage(status, code int, title, details string) *Error {
	return &Error{Status: status, Code: code, Message: title, Details: details}
}

// NoObject is for an id that is not there, or not the caller's: the two must look the same.
func NoObject() *Error { return noObject() }

// BadKey is for a call without a valid API key.
func BadKey() *Error {
	return &Error{Status: http.StatusUnauthorized, Code: codeToken, Message: "Invalid access token: an API key of the gateway is needed, as Authorization: Bearer, Authorization: OAuth or access_token"}
}

// Forbidden is for a key that lacks a right.
func Forbidden(message string) *Error {
	return &Error{Status: http.StatusForbidden, Code: codePermission, Message: message}
}

// TooManyRequests is for a key that has made too many.
func TooManyRequests(retryAfter time.Duration) *Error {
	return &Error{Status: http.StatusTooManyRequests, Code: codeTooMany, Message: "This API key has made too many requests", RetryAfter: retryAfter, Transient: true}
}

// NoRoute is for a path or a method that the gateway does not have; status is 404, 405 or such.
func NoRoute(status int) *Error {
	return &Error{Status: status, Code: codeParameter, Message: "Unsupported request: the gateway has no such path or method"}
}

// databaseRetry is what a caller is told to wait when the database is away.
const databaseRetry = 2 * time.Second

// Failed is for whatever else went wrong here: 503 where the database is away, else 500.
func Failed(cause error) *Error {
	if store.Unavailable(cause) || errors.Is(cause, context.Canceled) {
		return &Error{Status: http.StatusServiceUnavailable, Code: codeService, Message: "The database of the gateway is not available; nothing was forwarded", RetryAfter: databaseRetry, Transient: true, cause: cause}
	}
	return &Error{Status: http.StatusInternalServerError, Code: codeUnknown, Message: "Something went wrong in the gateway", cause: cause}
}

func parameter(message string) *Error {
	return &Error{Status: http.StatusBadRequest, Code: codeParameter, Message: message}
}

func noObject() *Error {
	return &Error{
		Status: http.StatusBadRequest, Code: codeParameter, Subcode: subcodeNoObject,
		Message: "Unsupported request: the object does not exist, is not this API key's, or does not support this operation",
	}
}

func bound() *Error {
	return &Error{Status: http.StatusForbidden, Code: codeAccess, Message: "This API key is bound to its phone numbers and may not do this to a whole account"}
}

func tooLarge() *Error {
	return &Error{Status: http.StatusRequestEntityTooLarge, Code: codeParameter, Message: "The body is too large"}
}

func throttled(wait time.Duration) *Error {
	return &Error{Status: http.StatusTooManyRequests, Code: codeManagement, Message: "There have been too many calls to this WhatsApp Business Account; wait and try again", RetryAfter: max(wait, time.Second), Transient: true}
}

func busy() *Error {
	return &Error{Status: http.StatusServiceUnavailable, Code: codeService, Message: "Too many calls at once; nothing was forwarded", RetryAfter: time.Second, Transient: true}
}
