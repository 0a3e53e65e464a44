package httpapi

import (
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"strings"

	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/graphproxy"
)

// The Cloud API ingress: /vNN.N/{id}/… and /{id}/… speak the Graph API, its errors included. Its routes stand in a router of their
// own, so that nothing they match takes a 404 or a 405 away from the gateway's own API.

// ServeHTTP implements http.Handler: it picks the API a path belongs to.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if a.graph != nil {
		first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		if a.GraphVersion != "" && graphID.MatchString(first) {
			r, first = withVersion(r, a.GraphVersion), a.GraphVersion
		}
		if graphproxy.Version.MatchString(first) {
			a.graph.ServeHTTP(w, r)
			return
		}
	}
	a.echo.ServeHTTP(w, r)
}

// graphID is how a path of the Graph API without a version begins. None of the gateway's own begins with a digit.
var graphID = regexp.MustCompile(`^[0-9]{1,32}$`)

// withVersion gives the request with a version before its path. Meta takes such calls for those of the oldest version that
// an app may use, and some clients make nothing else.
func withVersion(r *http.Request, version string) *http.Request {
	versioned, u := *r, *r.URL
	u.Path = "/" + version + u.Path
	if u.RawPath != "" {
		u.RawPath = "/" + version + u.RawPath
	}
	versioned.URL = &u
	return &versioned
}

func (a *API) graphRoutes() {
	a.graph = echo.New()
	a.graph.HTTPErrorHandler = a.handleGraphError
	a.graph.Pre(a.observe)
	a.graph.Use(a.recoverPanic)
	forward := a.graphAuthed(a.forwardGraph)
	a.graph.POST("/:version/:phone/messages", a.graphAuthed(a.graphMessage))
	a.graph.POST("/:version/:phone/marketing_messages", a.graphAuthed(a.graphMarketing))
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		a.graph.Add(method, "/:version/*", forward)
	}
}

// graphAuthed wants an API key where a Cloud API client puts its token: as Bearer or OAuth, or as access_token. What the
// key may do is for the handler to say.
func (a *API) graphAuthed(h handler) echo.HandlerFunc {
	return func(c echo.Context) error {
		key, err := a.Access.Authenticate(c.Request().Context(), graphproxy.Token(c.Request()))
		if err != nil {
			return err
		}
		c.Set(keyInContext, key)
		return h(c, key)
	}
}

// forwardGraph passes a call on to Meta.
func (a *API) forwardGraph(c echo.Context, key access.Key) error {
	return a.Graph.Serve(c.Response(), c.Request(), a.graphCaller(c, key))
}

func (a *API) graphCaller(c echo.Context, key access.Key) graphproxy.Caller {
	return graphproxy.Caller{
		PhoneNumbers: key.PhoneNumbers,
		May:          func(right graphproxy.Right) bool { return key.May(access.Scope(right)) },
		Wait:         preferredWait(c.Request().Header.Values("Prefer")),
		GiveUp:       a.stopping.Done(),
	}
}

// toGraphError maps every error to the one the caller gets.
func toGraphError(err error) *graphproxy.Error {
	if e, ok := errors.AsType[*graphproxy.Error](err); ok {
		return e
	}
	if limited, ok := errors.AsType[*access.LimitedError](err); ok {
		return graphproxy.TooManyRequests(limited.RetryAfter)
	}
	if he, ok := errors.AsType[*echo.HTTPError](err); ok && he.Code < http.StatusInternalServerError {
		return graphproxy.NoRoute(he.Code)
	}
	if errors.Is(err, access.ErrUnknownKey) {
		return graphproxy.BadKey()
	}
	return graphproxy.Failed(err)
}

// handleGraphError writes an error in Graph's envelope.
func (a *API) handleGraphError(err error, c echo.Context) {
	e := toGraphError(err)
	id := c.Response().Header().Get(echo.HeaderXRequestID)
	if e.Status >= http.StatusInternalServerError {
		level := slog.LevelWarn
		if e.Status == http.StatusInternalServerError {
			level = slog.LevelError
		}
		a.logger.Log(c.Request().Context(), level, "request failed", "request_id", id, "route", c.Path(), "status", e.Status, "error", errors.Unwrap(e))
	}
	if !c.Response().Committed {
		e.Write(c.Response(), id)
	}
}
