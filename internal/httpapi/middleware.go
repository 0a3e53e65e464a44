package httpapi

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/access"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(r prometheus.Registerer) metrics {
	m := metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wagate_http_requests_total", Help: "Requests answered, by route, method and status.",
		}, []string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "wagate_http_request_seconds", Help: "Time from a request's headers to the end of its answer.", Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 12),
		}, []string{"route"}),
	}
	r.MustRegister(m.requests, m.seconds)
	return m
}

var requestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

const keyInContext = "key"

// observe gives every request an id and writes its line in the log: no body, no query, no header.
func (a *API) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		id := c.Request().Header.Get(echo.HeaderXRequestID)
		if !requestID.MatchString(id) {
			id = rand.Text()
		}
		c.Response().Header().Set(echo.HeaderXRequestID, id)
		if err := next(c); err != nil {
			c.Error(err)
		}
		took, status := time.Since(start), c.Response().Status
		route, method := c.Path(), c.Request().Method
		if status == http.StatusNotFound && !strings.Contains(route, ":") || status == http.StatusMethodNotAllowed || route == "" {
			route, method = "none", "any" // names that callers make up are no labels
		}
		a.metrics.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
		a.metrics.seconds.WithLabelValues(route).Observe(took.Seconds())
		level := slog.LevelInfo
		if route == "/livez" || route == "/readyz" || route == "/metrics" {
			level = slog.LevelDebug
		}
		attrs := []any{
			"request_id", id, "method", c.Request().Method, "route", route, "status", status,
			"ms", float64(took.Microseconds()) / 1000, "bytes", c.Response().Size, "remote", c.Request().RemoteAddr,
		}
		if key, ok := c.Get(keyInContext).(access.Key); ok {
			attrs = append(attrs, "key", key.Name, "key_id", key.ID)
		}
		a.logger.Log(c.Request().Context(), level, "request", attrs...)
		return nil
	}
}

// recoverPanic turns a panic into a 500, with its stack in the log.
func (a *API) recoverPanic(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			r := recover()
			if r == nil {
				return
			}
			if e, ok := r.(error); ok && errors.Is(e, http.ErrAbortHandler) {
				panic(r)
			}
			a.logger.ErrorContext(c.Request().Context(), "panic", "route", c.Path(), "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = newProblem(http.StatusInternalServerError, "internal", "Something went wrong here.")
		}()
		return next(c)
	}
}

// handler is a handler of a request whose key is known.
type handler func(c echo.Context, key access.Key) error

// authed wants an API key with a scope, or with one of others where they are given.
func (a *API) authed(scope access.Scope, h handler, or ...access.Scope) echo.HandlerFunc {
	return func(c echo.Context) error {
		bearer := ""
		if kind, rest, ok := strings.Cut(c.Request().Header.Get(echo.HeaderAuthorization), " "); ok && strings.EqualFold(kind, "Bearer") {
			bearer = strings.TrimSpace(rest)
		}
		key, err := a.Access.Authenticate(c.Request().Context(), bearer)
		if err != nil {
			return err
		}
		c.Set(keyInContext, key)
		if !key.May(scope) && !slices.ContainsFunc(or, key.May) {
			return newProblem(http.StatusForbidden, "forbidden", "This API key lacks the scope "+string(scope)+".")
		}
		return h(c, key)
	}
}

// unrestricted is for what a key that is bound to some phone numbers may not touch.
func unrestricted(h handler) handler {
	return func(c echo.Context, key access.Key) error {
		if len(key.PhoneNumbers) > 0 {
			return newProblem(http.StatusForbidden, "forbidden", "This API key is bound to its phone numbers.")
		}
		return h(c, key)
	}
}
