// Package httpapi is the HTTP API: routes, API keys, JSON and problem documents. It is the only place that knows Echo.
package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"wagate/internal/access"
	"wagate/internal/callback"
	"wagate/internal/consent"
	"wagate/internal/graphproxy"
	"wagate/internal/intake"
	"wagate/internal/media"
	"wagate/internal/seal"
	"wagate/internal/store"
	"wagate/internal/template"
)

// Deps is what the API works with.
type Deps struct {
	Intake *intake.Intake
	Access *access.Access
	Store  *store.Store
	Sealer *seal.Sealer
	// Media keeps files; nil means that it is told that there is no store of them.
	Media *media.Library
	// Webhook serves /webhooks/whatsapp, GET and POST; nil means that the route is not there.
	Webhook http.Handler
	// Graph forwards the calls of the Cloud API ingress, /vNN.N/…; nil means that its routes are not there.
	Graph *graphproxy.Proxy
	// Callbacks asks clients' addresses for a handshake; nil means that nothing about callbacks is there.
	Callbacks *callback.Client
	// GraphVersion, such as v23.0, is put before a path of the ingress that begins with an id and names no version; empty
	// means that such paths are not there.
	GraphVersion string
	// Templates reads the templates of a WABA on request; nil means that it cannot be requested.
	Templates *template.Syncer
	// Windows tells of customer service windows; nil means that /v1/windows is not there.
	Windows *consent.Windows
	// Ready says whether this process can serve: the database answers and its schema is the one of this binary.
	Ready func(context.Context) error
	// Backlog counts the jobs in a phone number's lane, by priority 1 to 4, up to queue.BacklogBound of each; nil means that
	// only what the lane's owner publishes is told.
	Backlog func(ctx context.Context, phoneNumberID string) (map[int]int64, error)
	// Registerer takes the API's metrics, Gatherer gives /metrics. A *prometheus.Registry is both.
	Registerer prometheus.Registerer
	Gatherer   prometheus.Gatherer
	// MetricsAllow are the peers that may read /metrics.
	MetricsAllow []netip.Prefix
	Logger       *slog.Logger
	// Now is time.Now or a test's clock.
	Now func() time.Time
}

// Sizes of request bodies, in bytes, and of batches.
const (
	maxBody      = 1 << 20
	maxBatchBody = 32 << 20
	maxBatch     = 1000
)

// Time limits of the server. Streams move their own deadlines on.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 60 * time.Second
	writeTimeout      = 90 * time.Second
	idleTimeout       = 120 * time.Second
	maxHeaderBytes    = 64 << 10
	// handlerTime bounds what a handler asks of the database.
	handlerTime = 10 * time.Second
)

// API is the HTTP API.
type API struct {
	Deps
	logger *slog.Logger
	echo   *echo.Echo
	// graph has the routes of the Cloud API ingress, whose errors are Graph's; nil without one.
	graph   *echo.Echo
	metrics metrics
	lookout lookout
	ingress ingress
	// batches bounds the requests that hold a batch body in memory, reports those being made.
	batches chan struct{}
	reports chan struct{}
	// stopping is closed when the server shuts down, so that nobody waits on.
	stopping context.Context //nolint:containedctx // the life of the API, ended by its server's shutdown
	stop     context.CancelFunc
}

// New builds the API. It starts nothing.
func New(d Deps) (*API, error) {
	if d.Intake == nil || d.Access == nil || d.Store == nil || d.Sealer == nil || d.Ready == nil || d.Registerer == nil || d.Gatherer == nil ||
		d.Logger == nil || d.Now == nil {
		return nil, errors.New("httpapi: a dependency is missing")
	}
	a := &API{Deps: d, logger: d.Logger, echo: echo.New(), metrics: newMetrics(d.Registerer), batches: make(chan struct{}, 8), reports: make(chan struct{}, reportsAtOnce)}
	a.lookout = lookout{decided: d.Store.Decided, waiting: map[uuid.UUID]*awaited{}}
	a.ingress = ingress{read: d.Store.IngressOf, now: d.Now}
	a.stopping, a.stop = context.WithCancel(context.Background())
	a.echo.HTTPErrorHandler = a.handleError
	a.echo.Pre(a.observe)
	a.echo.Use(a.recoverPanic)
	a.routes()
	if a.Graph != nil {
		a.graphRoutes()
	}
	d.Registerer.MustRegister(newLanesCollector(d.Store, d.Logger, d.Now))
	return a, nil
}

// Server gives a server for the API with its time limits set. The caller gives it a listener and stops it with
// Shutdown, which also ends the requests that wait for a wamid.
func (a *API) Server() *http.Server {
	s := &http.Server{
		Handler: a, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(a.logger.Handler(), slog.LevelDebug),
	}
	s.RegisterOnShutdown(a.stop)
	return s
}

func (a *API) routes() {
	e := a.echo
	e.GET("/livez", func(c echo.Context) error { return c.JSON(http.StatusOK, map[string]string{"status": "ok"}) })
	e.GET("/readyz", a.readyz)
	e.GET("/metrics", a.allowMetrics(promhttp.HandlerFor(a.Gatherer, promhttp.HandlerOpts{})))
	if a.Webhook != nil {
		e.GET("/webhooks/whatsapp", echo.WrapHandler(a.Webhook))
		e.POST("/webhooks/whatsapp", echo.WrapHandler(a.Webhook))
	}

	e.POST("/v1/messages", a.authed(access.Send, a.postMessage))
	e.POST("/v1/messages/batch", a.authed(access.Send, a.postBatch))
	e.POST("/v1/messages/validate", a.authed(access.Send, a.validateMessage))
	e.GET("/v1/messages", a.authed(access.Read, a.listMessages))
	e.GET("/v1/messages/:id", a.authed(access.Read, a.getMessage))
	e.GET("/v1/messages/:id/events", a.authed(access.Read, a.getEvents))
	e.POST("/v1/messages/:id/cancel", a.authed(access.Send, a.cancelMessage))
	a.decideRoutes()
	a.mediaRoutes()

	manage := func(path string, list, get, put, remove handler) {
		e.GET(path, a.authed(access.Manage, list))
		get, remove = idChecked(get), idChecked(remove) // put says what is wrong with it
		e.GET(path+"/:id", a.authed(access.Manage, get))
		e.PUT(path+"/:id", a.authed(access.Manage, unrestricted(put)))
		e.PATCH(path+"/:id", a.authed(access.Manage, unrestricted(a.patched(path, put))))
		e.DELETE(path+"/:id", a.authed(access.Manage, unrestricted(remove)))
	}
	manage("/v1/apps", unrestricted(a.listApps), unrestricted(a.getApp), a.putApp, a.deleteApp)
	manage("/v1/portfolios", unrestricted(a.listPortfolios), unrestricted(a.getPortfolio), a.putPortfolio, a.deletePortfolio)
	manage("/v1/wabas", unrestricted(a.listWABAs), unrestricted(a.getWABA), a.putWABA, a.deleteWABA)
	manage("/v1/phone-numbers", a.listPhoneNumbers, a.getPhoneNumber, a.putPhoneNumber, a.deletePhoneNumber)

	e.GET("/v1/limits", a.authed(access.Manage, unrestricted(a.getLimits)))
	e.POST("/v1/pauses", a.authed(access.Manage, unrestricted(a.postPause)))
	e.GET("/v1/pauses", a.authed(access.Manage, unrestricted(a.listPauses)))
	e.DELETE("/v1/pauses/:id", a.authed(access.Manage, unrestricted(a.deletePause)))

	a.webhookRoutes()
	a.templateRoutes()
	e.GET("/v1/alerts", a.authed(access.Manage, unrestricted(a.listAlerts)))
	if a.Callbacks != nil {
		a.callbackRoutes()
	}
	a.consentRoutes()
	a.reportRoutes()

	e.POST("/v1/keys", a.authed(access.Admin, unrestricted(a.postKey)))
	e.GET("/v1/keys", a.authed(access.Admin, unrestricted(a.listKeys)))
	e.GET("/v1/keys/:id", a.authed(access.Admin, unrestricted(a.getKey)))
	e.DELETE("/v1/keys/:id", a.authed(access.Admin, unrestricted(a.deleteKey)))
}

func (a *API) readyz(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), 2*time.Second)
	defer cancel()
	if err := a.Ready(ctx); err != nil {
		p := newProblem(http.StatusServiceUnavailable, "not_ready", "The database is not available, or its schema is not the one of this version.")
		p.cause, p.retryAfter = err, dbRetryAfter
		return p
	}
	return c.JSON(http.StatusOK, map[string]string{"status": "ok"})
}

// idChecked answers 404 for an id that cannot be one, before it reaches the database.
func idChecked(h handler) handler {
	return func(c echo.Context, key access.Key) error {
		if !accountID.MatchString(c.Param("id")) {
			return newProblem(http.StatusNotFound, "not_found", "There is no such resource.")
		}
		return h(c, key)
	}
}

// allowMetrics lets the configured peers through, and nobody whom a proxy speaks for: its address says nothing.
func (a *API) allowMetrics(h http.Handler) echo.HandlerFunc {
	return func(c echo.Context) error {
		peer, err := netip.ParseAddrPort(c.Request().RemoteAddr)
		header := c.Request().Header
		if err == nil && header.Get("Forwarded") == "" && header.Get("X-Forwarded-For") == "" {
			for _, p := range a.MetricsAllow {
				if p.Contains(peer.Addr().Unmap()) {
					h.ServeHTTP(c.Response(), c.Request())
					return nil
				}
			}
		}
		return newProblem(http.StatusForbidden, "forbidden", "Metrics are not for this address (WAGATE_METRICS_ALLOW).")
	}
}
