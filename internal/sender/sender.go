// Package sender makes one try at the Cloud API and says how it ended. It
// neither repeats nor waits: what follows from an outcome is decided elsewhere.
package sender

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"wagate/internal/cloudapi"
)

const (
	defaultTimeout  = 30 * time.Second
	defaultMaxConns = 256
	dialTimeout     = 5 * time.Second
	tlsTimeout      = 5 * time.Second
	// idleTimeout is well below what servers keep, so that a try seldom meets a
	// connection that the server is just closing.
	idleTimeout     = 30 * time.Second
	maxAnswer       = 1 << 20  // bytes of an answer that are read
	maxAnswerHeader = 64 << 10 // bytes
	keepBuffer      = 64 << 10 // larger answer buffers are not kept for reuse
	writeBuffer     = 8 << 10  // most messages leave in one packet train
	maxToken        = 16 << 10 // bytes
	maxPhoneID      = 64       // bytes
	maxBody         = 4 << 20  // bytes; intake allows far less
	userAgent       = "wagate/1"
)

// Config says where and how tries go out.
type Config struct {
	BaseURL  string        // http or https, with or without a path, for example https://graph.facebook.com
	Version  string        // Graph API version, for example v23.0
	Timeout  time.Duration // of a whole try, dialling and reading the answer included; 0 means 30 s
	MaxConns int           // connections at once, idle ones included; 0 means 256
	WorkerID string        // sent as X-Wagate-Worker, where not empty
}

// Try is one try to send one message.
type Try struct {
	PhoneNumberID string
	WABAID        string // to find its object in Meta's usage header
	Token         string // access token
	API           string // the endpoint: messages, which empty means, or marketing_messages
	Body          []byte // the JSON for Meta; not changed, and not read after Send

	// Begin, where not nil, is called once, when a connection stands and right
	// before the first byte of the request would be written to it, with the context
	// of the try. It may wait there: the connection is then at hand. An error
	// from it means that nothing is written: the outcome is NotBegun. It runs
	// on another goroutine than Send, must end with its context, and must not panic.
	Begin func(ctx context.Context) error
}

// Sender makes tries. It is safe for use by several goroutines.
type Sender struct {
	base      url.URL
	timeout   time.Duration
	worker    []string
	transport *http.Transport
	reads     *http.Transport // of Get
	uploads   *http.Transport // of Upload
	buffers   sync.Pool
}

var versionForm = regexp.MustCompile(`^v[0-9]{1,3}\.[0-9]{1,2}$`)

// New makes a Sender. It fails on a base URL or a version that cannot be one,
// and on negative numbers.
func New(c Config) (*Sender, error) {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	return newSender(c, dialer.DialContext)
}

func newSender(c Config, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*Sender, error) {
	base, err := url.Parse(c.BaseURL)
	if err != nil || base.Host == "" || (base.Scheme != "https" && base.Scheme != "http") ||
		base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		// The text of a URL may hold a password: it is not repeated.
		return nil, errors.New("the Cloud API's base URL must be http(s)://host[:port][/path]")
	}
	if !versionForm.MatchString(c.Version) {
		return nil, fmt.Errorf("the Graph API version %.20q must look like v23.0", c.Version)
	}
	if c.Timeout < 0 || c.MaxConns < 0 {
		return nil, errors.New("timeout and number of connections must not be negative")
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.MaxConns == 0 {
		c.MaxConns = defaultMaxConns
	}
	if !isHeaderValue(c.WorkerID) {
		return nil, errors.New("the worker id must be printable ASCII")
	}
	base.Path = strings.TrimSuffix(base.Path, "/") + "/" + c.Version + "/"
	base.RawPath = ""

	s := &Sender{base: *base, timeout: c.Timeout}
	if c.WorkerID != "" {
		s.worker = []string{c.WorkerID}
	}
	s.buffers.New = func() any { return new(bytes.Buffer) }
	// HTTP/1.1 only: one request a connection, so that what was written to the
	// connection says what was sent of the request.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	s.transport = &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &guardedConn{Conn: c}, nil
		},
		Protocols:              protocols,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    tlsTimeout,
		DisableCompression:     true, // answers are a few hundred bytes
		MaxConnsPerHost:        c.MaxConns,
		MaxIdleConnsPerHost:    c.MaxConns,
		MaxIdleConns:           c.MaxConns,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxAnswerHeader,
		WriteBufferSize:        writeBuffer,
	}
	s.reads = &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dial, Protocols: protocols, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: tlsTimeout, MaxConnsPerHost: 4, MaxIdleConns: 4, IdleConnTimeout: idleTimeout, MaxResponseHeaderBytes: maxAnswerHeader,
	}
	s.uploads = &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dial, Protocols: protocols, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: tlsTimeout, MaxConnsPerHost: 16, MaxIdleConns: 4, IdleConnTimeout: idleTimeout, MaxResponseHeaderBytes: maxAnswerHeader,
		WriteBufferSize: 64 << 10,
	}
	return s, nil
}

// Close closes the idle connections. Tries still out keep theirs until they end.
func (s *Sender) Close() {
	s.transport.CloseIdleConnections()
	s.reads.CloseIdleConnections()
	s.uploads.CloseIdleConnections()
}

// Send makes one try: POST /{version}/{phone number id}/messages, or what Try.API says. It returns
// when the outcome is known, when Config.Timeout has passed, or soon after ctx
// ends. It never repeats a request, and follows no redirect.
func (s *Sender) Send(ctx context.Context, t Try) Outcome {
	if out, ok := checkTry(t); !ok {
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	g := &gate{}
	if t.Begin != nil {
		g.begin = func() error { return t.Begin(ctx) }
	}
	gotConn := func(info httptrace.GotConnInfo) {
		if !guard(info.Conn, g) {
			g.lose()
			cancel()
		}
	}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: gotConn})

	answer, err := s.transport.RoundTrip(s.request(ctx, t))
	if err != nil {
		return broken(g.close(), err, s.base.Scheme == "https")
	}
	buffer := s.buffers.Get().(*bytes.Buffer)
	defer func() {
		if buffer.Cap() <= keepBuffer {
			buffer.Reset()
			s.buffers.Put(buffer)
		}
	}()
	_, err = buffer.ReadFrom(io.LimitReader(answer.Body, maxAnswer+1))
	_ = answer.Body.Close()
	end := g.close()
	if !end.written {
		// An answer to a request that was not written belongs to something else.
		return broken(end, errStrayAnswer, false)
	}
	if err != nil {
		out := broken(end, err, false)
		out.HTTPStatus = answer.StatusCode
		return out
	}
	out := classify(answer.StatusCode, answer.Header, buffer.Bytes(), t.WABAID, time.Now())
	out.Latency = end.latency
	return out
}

// apis are the endpoints of a phone number that take messages.
var apis = []string{"messages", "marketing_messages"}

var (
	contentType = []string{"application/json"}
	agent       = []string{userAgent}
)

func (s *Sender) request(ctx context.Context, t Try) *http.Request {
	u := s.base
	u.Path += t.PhoneNumberID + "/" + cmp.Or(t.API, apis[0])
	header := make(http.Header, 4)
	header["Authorization"] = []string{"Bearer " + t.Token}
	header["Content-Type"] = contentType
	header["User-Agent"] = agent
	if s.worker != nil {
		header["X-Wagate-Worker"] = s.worker
	}
	r := &http.Request{
		Method: http.MethodPost,
		URL:    &u,
		Host:   u.Host,
		Header: header,
		// An in-memory reader without GetBody: net/http writes headers and body
		// together, and has no second body to repeat the request with.
		Body:          io.NopCloser(bytes.NewReader(t.Body)),
		ContentLength: int64(len(t.Body)),
	}
	return r.WithContext(ctx)
}

// checkTry refuses what could not become a proper request.
func checkTry(t Try) (Outcome, bool) {
	refuse := func(scope cloudapi.Scope, reason, text string) (Outcome, bool) {
		return Outcome{
			Kind: Refused, Scope: scope, Action: cloudapi.ActionFailConfig,
			Reason: reason, Cause: errors.New(text),
		}, false
	}
	switch {
	case !isPhoneID(t.PhoneNumberID):
		return refuse(cloudapi.ScopePhone, "bad_phone_number_id", "the phone number id cannot be one")
	case t.API != "" && !slices.Contains(apis, t.API):
		return refuse(cloudapi.ScopeMessage, "bad_api", "the endpoint is none that takes messages")
	case t.Token == "" || len(t.Token) > maxToken || !isHeaderValue(t.Token):
		return refuse(cloudapi.ScopeToken, "bad_token", "the access token is empty or cannot stand in a header")
	case len(t.Body) == 0 || len(t.Body) > maxBody:
		return refuse(cloudapi.ScopeMessage, "bad_body", "the body is empty or too long")
	}
	return Outcome{}, true
}

// isPhoneID keeps anything that could change the path out of it.
func isPhoneID(s string) bool {
	if s == "" || len(s) > maxPhoneID {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func isHeaderValue(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}
