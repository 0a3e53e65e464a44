package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/cloudapi"
	"wagate/internal/intake"
	"wagate/internal/store"
)

// problem is an RFC 9457 problem document, and an error.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Code is a stable word for programs.
	Code      string           `json:"code"`
	RequestID string           `json:"request_id,omitempty"`
	Errors    []cloudapi.Fault `json:"errors,omitempty"`
	// RetryAfter is the Retry-After of one message of a batch, in seconds.
	RetryAfter int `json:"retry_after,omitempty"`
	// Waiting is how many messages wait for a media that is not deleted for their sake.
	Waiting int `json:"waiting,omitempty"`

	retryAfter time.Duration
	cause      error
}

// Error implements error.
func (p *problem) Error() string { return p.Code }

// Unwrap gives the cause, for the log.
func (p *problem) Unwrap() error { return p.cause }

func newProblem(status int, code, detail string, faults ...cloudapi.Fault) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail, Errors: faults}
}

// invalid is a 422 with the faults that were found.
func invalid(faults []cloudapi.Fault) *problem {
	return newProblem(http.StatusUnprocessableEntity, "invalid", "The request breaks the rules listed in errors.", faults...)
}

// dbRetryAfter is what a caller is told to wait when the database is away.
const dbRetryAfter = 2 * time.Second

// toProblem maps every error to the document the caller gets. What is not known to be fit for callers becomes a bare 500.
func toProblem(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if refused, ok := errors.AsType[*intake.Error](err); ok {
		return fromIntake(refused)
	}
	if limited, ok := errors.AsType[*access.LimitedError](err); ok {
		p := newProblem(http.StatusTooManyRequests, "too_many_requests", "This API key has made too many requests.")
		p.retryAfter = limited.RetryAfter
		return p
	}
	if missing, ok := errors.AsType[*store.MissingError](err); ok {
		return invalid([]cloudapi.Fault{{Pointer: "/" + missing.Field, Detail: "is not there"}})
	}
	if big, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(big.Limit)
	}
	if he, ok := errors.AsType[*echo.HTTPError](err); ok {
		return fromEcho(he)
	}
	var p *problem
	switch {
	case errors.Is(err, access.ErrUnknownKey):
		return newProblem(http.StatusUnauthorized, "unauthorized", "A valid API key is needed: Authorization: Bearer <api key>.")
	case errors.Is(err, store.ErrNotFound):
		return newProblem(http.StatusNotFound, "not_found", "There is no such resource.")
	case errors.Is(err, store.ErrInUse):
		return newProblem(http.StatusConflict, "in_use", "Others still point to it.")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return newProblem(http.StatusRequestTimeout, "timeout", "The request did not come in time.")
	case store.Unavailable(err), errors.Is(err, context.Canceled):
		p = newProblem(http.StatusServiceUnavailable, "unavailable", "The database is not available.")
		p.retryAfter = dbRetryAfter
	default:
		p = newProblem(http.StatusInternalServerError, "internal", "Something went wrong here.")
	}
	p.cause = err
	return p
}

func tooLarge(limit int64) *problem {
	return newProblem(http.StatusRequestEntityTooLarge, "too_large", "The body is over "+strconv.FormatInt(limit, 10)+" bytes.",
		cloudapi.Fault{Pointer: "", Detail: "is over " + strconv.FormatInt(limit, 10) + " bytes"})
}

func fromIntake(e *intake.Error) *problem {
	switch e.Kind {
	case intake.Malformed:
		return newProblem(http.StatusBadRequest, "malformed", "The body is not JSON.", e.Faults...)
	case intake.Invalid:
		p := invalid(e.Faults)
		if e.Code != "" {
			p.Code = e.Code
		}
		return p
	case intake.UnknownPhone:
		return newProblem(http.StatusNotFound, "unknown_phone_number", "The phone number is not there, or not this key's.", e.Faults...)
	case intake.KeyReused:
		return newProblem(http.StatusUnprocessableEntity, "idempotency_key_reused", "The idempotency key was used before for another request.")
	case intake.Unavailable:
		p := newProblem(http.StatusServiceUnavailable, "unavailable", "The database is not available. Nothing was stored.")
		if errors.Is(e, store.ErrCommitUnknown) {
			p = newProblem(http.StatusServiceUnavailable, "commit_unknown", "The database was lost while it stored. Whether it did is not known: repeat the request with the same idempotency key.")
		}
		p.retryAfter, p.cause = e.RetryAfter, e
		return p
	case intake.Busy:
		p := newProblem(http.StatusTooManyRequests, e.Code, "There is no room for the message now. Nothing was stored.", e.Faults...)
		p.retryAfter = e.RetryAfter
		return p
	}
	p := newProblem(http.StatusInternalServerError, "internal", "Something went wrong here.")
	p.cause = e
	return p
}

func fromEcho(he *echo.HTTPError) *problem {
	code := map[int]string{
		http.StatusNotFound: "not_found", http.StatusMethodNotAllowed: "method_not_allowed", http.StatusRequestEntityTooLarge: "too_large",
	}[he.Code]
	if code == "" {
		code = "http_" + strconv.Itoa(he.Code)
	}
	detail := map[int]string{http.StatusNotFound: "There is no such route.", http.StatusMethodNotAllowed: "The route does not take this method."}[he.Code]
	p := newProblem(he.Code, code, detail)
	p.cause = he.Internal
	return p
}

// retrySeconds is Retry-After; 0 for none.
func (p *problem) retrySeconds() int { return int(math.Ceil(p.retryAfter.Seconds())) }

// handleError writes the problem document of an error. Echo calls it, also for its own 404 and 405.
func (a *API) handleError(err error, c echo.Context) {
	p := *toProblem(err)
	p.RequestID = c.Response().Header().Get(echo.HeaderXRequestID)
	if p.Status >= http.StatusInternalServerError {
		level := slog.LevelError
		if p.Status == http.StatusServiceUnavailable {
			level = slog.LevelWarn
		}
		a.logger.Log(c.Request().Context(), level, "request failed", "request_id", p.RequestID, "route", c.Path(), "status", p.Status, "error", p.cause)
	}
	if c.Response().Committed {
		return
	}
	h := c.Response().Header()
	h.Set(echo.HeaderContentType, "application/problem+json")
	if p.retryAfter > 0 {
		h.Set(echo.HeaderRetryAfter, strconv.Itoa(p.retrySeconds()))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set(echo.HeaderWWWAuthenticate, `Bearer realm="wagate"`)
	}
	c.Response().WriteHeader(p.Status)
	if c.Request().Method == http.MethodHead {
		return
	}
	_ = json.NewEncoder(c.Response()).Encode(p) // the caller may have gone
}
