// Package graphproxy forwards calls of the Graph API: management calls go to Meta with the token of the WABA they concern,
// counted in its hour, and what comes back points to the gateway and carries no token. Messages are not forwarded.
package graphproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/seal"
	"wagate/internal/store"
)

const (
	callTime    = 30 * time.Second       // of a call without a stream, its tries and the waits between them
	stillTime   = 60 * time.Second       // for which a stream may stand still
	streamTime  = 30 * time.Minute       // of a stream: 100 MB at 60 kB/s
	firstWait   = 500 * time.Millisecond // before the second try of a read
	presetWait  = 20 * time.Second       // for a call of the bucket
	slots       = 64                     // calls at once
	streams     = 64                     // uploads and downloads at once
	largeOnes   = 4                      // answers over smallAnswer at once
	copyBuffer  = 64 << 10
	dialTime    = 5 * time.Second
	idleTime    = 30 * time.Second
	headerBytes = 64 << 10
)

// Caller is who calls.
type Caller struct {
	// PhoneNumbers are the phone number ids it may use; empty means all.
	PhoneNumbers []string
	// May says whether it has a right.
	May func(Right) bool
	// Wait is how long a call may wait for its WABA's bucket; 0 takes the preset of 20 s.
	Wait time.Duration
	// GiveUp, when closed, ends such waits; it may be nil.
	GiveUp <-chan struct{}
}

func (c Caller) mayUse(phone string) bool {
	return len(c.PhoneNumbers) == 0 || slices.Contains(c.PhoneNumbers, phone)
}

func (c Caller) wait() time.Duration {
	if c.Wait <= 0 {
		return presetWait
	}
	return c.Wait
}

// Deps is what a Proxy works with. All but PublicURL and Registerer must be set.
type Deps struct {
	Store  *store.Store
	Sealer *seal.Sealer // opens access tokens and app secrets
	Links  *seal.Sealer // seals download links; the same key on every gateway
	// GraphURL is where the Graph API is, for example https://graph.facebook.com.
	GraphURL string
	// PublicURL is where callers reach the gateway; empty means wherever a request came to.
	PublicURL  string
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Now is time.Now or a test's clock.
	Now func() time.Time
}

// Proxy forwards calls. It is safe for concurrent use.
type Proxy struct {
	Deps
	graph     url.URL
	transport *http.Transport
	take      func(ctx context.Context, wabaID string) (bool, time.Time, error)
	held      held
	waiting   queue
	buffers   sync.Pool
	slots     chan struct{}
	streams   chan struct{}
	large     chan struct{}
	calls     *prometheus.CounterVec
	bytes     *prometheus.CounterVec

	callTime, still, streamTime, firstWait time.Duration
}

// New makes a Proxy. It starts nothing.
func New(d Deps) (*Proxy, error) {
	if d.Store == nil || d.Sealer == nil || d.Links == nil || d.Logger == nil || d.Now == nil {
		return nil, errors.New("graphproxy: a dependency is missing")
	}
	u, err := url.Parse(d.GraphURL)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the Graph API's URL must be http(s)://host[:port][/path]") // without the URL, which may hold a password
	}
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/"), ""
	d.PublicURL = strings.TrimSuffix(d.PublicURL, "/")
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	p := &Proxy{
		Deps: d, graph: *u, take: d.Store.TakeManagementCall,
		slots: make(chan struct{}, slots), streams: make(chan struct{}, streams), large: make(chan struct{}, largeOnes),
		callTime: callTime, still: stillTime, streamTime: streamTime, firstWait: firstWait,
		transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: dialTime, KeepAlive: 30 * time.Second}).DialContext,
			Protocols: protocols, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: dialTime,
			MaxConnsPerHost: slots + streams, MaxIdleConnsPerHost: 16, MaxIdleConns: 64, IdleConnTimeout: idleTime, MaxResponseHeaderBytes: headerBytes,
		},
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wagate_graph_calls_total", Help: "Calls of the Graph API by callers, by edge and by how they ended: the class of Meta's answer, or refused by the gateway.",
		}, []string{"edge", "answer"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wagate_graph_bytes_total", Help: "Bytes of bodies sent up to Meta, and of files passed down from it.",
		}, []string{"direction"}),
	}
	p.buffers.New = func() any { b := make([]byte, copyBuffer); return &b }
	if d.Registerer != nil {
		d.Registerer.MustRegister(p.calls, p.bytes)
	}
	return p, nil
}

// Close closes the idle connections.
func (p *Proxy) Close() { p.transport.CloseIdleConnections() }

// end is how a call went, for its line in the log.
type end struct {
	waba   string
	edge   string
	tries  int
	status int // of Meta's answer; 0 for none
	failed error
}

// Serve answers a request for /{version}/{id}/…. An error it returns, mostly an *Error, was not written yet.
func (p *Proxy) Serve(w http.ResponseWriter, r *http.Request, who Caller) (err error) {
	e := &end{edge: "none"}
	defer func() { p.note(r.Context(), e, err) }()
	c, refused := parse(r)
	if refused != nil {
		return refused
	}
	e.edge = edgeLabel(c)
	if c.download() {
		if c.method != http.MethodGet {
			return NoRoute(http.StatusMethodNotAllowed)
		}
		return p.download(w, r, who, c, e)
	}
	t, err := p.resolve(r.Context(), who, c)
	if err != nil {
		return err
	}
	e.waba = t.waba
	return p.forward(w, r, who, c, t, e)
}

// edgeLabel names what a call is about, out of a small set.
func edgeLabel(c *call) string {
	switch {
	case c.download():
		return downloads
	case c.upload():
		return "upload"
	case c.id == library:
		return library
	case c.edge == "":
		return "node"
	case slices.Contains(ownEdges, c.edge), c.edge == "uploads":
		return c.edge
	}
	return "other"
}

// note counts a call and writes its line. What the gateway refused has its line with the request.
func (p *Proxy) note(ctx context.Context, e *end, err error) {
	answer := "refused"
	if e.status > 0 {
		answer = strconv.Itoa(e.status/100) + "xx"
	} else if ge, ok := errors.AsType[*Error](err); ok && ge.Status == http.StatusTooManyRequests {
		answer = "throttled"
	} else if ok && ge.Status >= 500 {
		answer = "failed"
	}
	p.calls.WithLabelValues(e.edge, answer).Inc()
	level := slog.LevelDebug
	if e.failed != nil || e.status == http.StatusUnauthorized { // a file cut short; a token that Meta does not take
		level = slog.LevelWarn
	}
	attrs := []any{"edge", e.edge, "waba_id", e.waba, "answer", answer, "status", e.status, "tries", e.tries}
	if cause := errors.Join(e.failed, errors.Unwrap(err)); cause != nil {
		attrs = append(attrs, "err", cause)
	}
	p.Logger.Log(ctx, level, "graph call", attrs...)
}

// room waits until then for one of a bounded number of places.
func (p *Proxy) room(ctx context.Context, who Caller, places chan struct{}, until time.Time) (release func(), err error) {
	release = func() { <-places }
	select {
	case places <- struct{}{}:
		return release, nil
	default:
	}
	timer := time.NewTimer(until.Sub(p.Now()))
	defer timer.Stop()
	select {
	case places <- struct{}{}:
		return release, nil
	case <-timer.C:
	case <-ctx.Done():
	case <-who.GiveUp:
	}
	return nil, busy()
}

// rewriter makes the rewriter of a call's answer.
func (p *Proxy) rewriter(r *http.Request, c *call, t *target) *rewriter {
	base := p.PublicURL
	if base == "" {
		scheme := "http"
		if r.TLS != nil {
			scheme = "https"
		}
		base = fmt.Sprintf("%s://%s", scheme, r.Host)
	}
	return &rewriter{
		secrets: spellings(t.token), graph: &p.graph, base: base, version: c.version,
		seal: func(raw string) (string, bool) { return p.linkTo(base, c.version, t, raw) },
	}
}
