package callback

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"wagate/internal/reach"
)

const (
	// postTime bounds an attempt, the answer included.
	postTime = 10 * time.Second
	dialTime = 5 * time.Second
	// maxAnswer is how much of an answer is read, so that its connection can be used again; it is not kept.
	maxAnswer       = 64 << 10
	maxAnswerHeader = 32 << 10
	idleTime        = 30 * time.Second
	userAgent       = "wagate/1"
	// maxRetryAfter bounds what an endpoint can ask for.
	maxRetryAfter = time.Hour
)

// errForbidden begins what is said of an address that the rules exclude.
var errForbidden = errors.New("address not allowed")

// Client posts to clients' addresses, and to no others: what a name resolves to is held against the rules when it is dialled.
type Client struct {
	rules     *reach.Rules
	transport *http.Transport
	http      *http.Client
	// lookup gives the addresses of a host.
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// roots are those of the machine where nil.
	roots *x509.CertPool
}

// NewClient makes a Client. Close lets its connections go.
func NewClient(rules *reach.Rules) *Client {
	c := &Client{rules: rules, lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}}
	c.transport = &http.Transport{ // no proxy: it would be the one to dial
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return c.dial(ctx, network, address, true)
		},
		DialTLSContext:         c.dialTLS,
		TLSHandshakeTimeout:    dialTime,
		ResponseHeaderTimeout:  postTime,
		MaxResponseHeaderBytes: maxAnswerHeader,
		MaxIdleConns:           1024,
		MaxIdleConnsPerHost:    concurrency,
		IdleConnTimeout:        idleTime,
		DisableCompression:     true,
	}
	c.http = &http.Client{
		Transport: c.transport, Timeout: postTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// Close lets idle connections go.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Rules gives the rules.
func (c *Client) Rules() *reach.Rules { return c.rules }

func (c *Client) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := c.dial(ctx, network, address, false)
	if err != nil {
		return nil, err
	}
	name, _, _ := net.SplitHostPort(address)
	conn := tls.Client(raw, &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12, RootCAs: c.roots})
	shake, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	if err := conn.HandshakeContext(shake); err != nil {
		_ = raw.Close()
		return nil, &tlsError{err}
	}
	return conn, nil
}

// tlsError is a handshake that failed.
type tlsError struct{ err error }

func (e *tlsError) Error() string { return "TLS: " + e.err.Error() }
func (e *tlsError) Unwrap() error { return e.err }

// dial looks a host up and connects to the first of its addresses that is allowed and answers. The address that is dialled
// is the one that was checked, and is checked once more when its socket connects.
func (c *Client) dial(ctx context.Context, network, address string, plain bool) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var addrs []netip.Addr
	if addr, err := netip.ParseAddr(host); err == nil {
		addrs = []netip.Addr{addr}
	} else if addrs, err = c.lookup(ctx, host); err != nil {
		return nil, fmt.Errorf("looking the host up: %w", err)
	}
	d := net.Dialer{ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return errForbidden
		}
		return c.allowed(host, to.Addr(), plain)
	}}
	err = errors.New("the host has no address")
	for _, addr := range addrs[:min(len(addrs), 8)] {
		addr = addr.Unmap() // as a resolver gives IPv4; what is written so in a URL is refused before
		if err = c.allowed(host, addr, plain); err != nil {
			continue
		}
		var conn net.Conn
		if conn, err = d.DialContext(ctx, network, net.JoinHostPort(addr.String(), port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

func (c *Client) allowed(host string, addr netip.Addr, plain bool) error {
	if err := c.rules.Addr(host, addr, plain); err != nil {
		return fmt.Errorf("%w: the host %w", errForbidden, err)
	}
	return nil
}

// answer is how an attempt ended.
type answer struct {
	// status is that of HTTP; 0 where there was no answer.
	status     int
	retryAfter time.Duration
	// err is a few words without the address; empty for 2xx.
	err string
	// never says that no attempt will do better: the fault is ours.
	never bool
}

// post makes one attempt.
func (c *Client) post(ctx context.Context, to string, header http.Header, body []byte) answer {
	if _, err := c.rules.URL(to); err != nil {
		return answer{err: "the address " + err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, postTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return answer{err: "the address is no URL"}
	}
	req.Header = header
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", userAgent)
	res, err := c.http.Do(req)
	if err != nil {
		return answer{err: words(err)}
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer)) // the status is the answer
	a := answer{status: res.StatusCode}
	if res.StatusCode/100 != 2 {
		a.err = "answered " + strconv.Itoa(res.StatusCode)
	}
	if res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusServiceUnavailable {
		a.retryAfter = retryAfter(res.Header.Get("Retry-After"), time.Now())
	}
	return a
}

// retryAfter reads seconds or a date; 0 for neither.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(s); err == nil {
		return min(max(at.Sub(now), 0), maxRetryAfter)
	}
	return 0
}

// words is what is kept of an error: not the address, whose query may hold a secret, nor what the other side has said, which
// net/http quotes where it is no HTTP.
func words(err error) string {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	dns, isDNS := errors.AsType[*net.DNSError](err)
	op, isOp := errors.AsType[*net.OpError](err)
	shake, isTLS := errors.AsType[*tlsError](err)
	switch {
	case errors.Is(err, errForbidden):
		return clip(err.Error())
	case isDNS && dns.IsNotFound:
		return "the host is not known"
	case isDNS:
		return "the host could not be looked up"
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return "no answer in time"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed without an answer"
	case isTLS:
		return clip(shake.Error())
	case isOp && op.Err != nil:
		return clip(op.Op + ": " + op.Err.Error())
	}
	return "no answer that is HTTP"
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}

func clip(s string) string {
	const most = 200
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}

// Handshake asks an address as Meta does when a webhook is set up: whether it answers the challenge. Its error is fit for
// callers.
func (c *Client) Handshake(ctx context.Context, to, verifyToken string) error {
	u, err := c.rules.URL(to)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, postTime)
	defer cancel()
	challenge := rand.Text()
	q := u.Query()
	q.Set("hub.mode", "subscribe")
	q.Set("hub.challenge", challenge)
	q.Set("hub.verify_token", verifyToken)
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return errors.New("is no URL") //nolint:err113 // the error would repeat it
	}
	req.Header.Set("User-Agent", userAgent)
	res, err := c.http.Do(req)
	if err != nil {
		return errors.New("did not answer the handshake: " + words(err)) //nolint:err113 // without the address
	}
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(io.LimitReader(res.Body, 1024))
	switch {
	case err != nil:
		return errors.New("did not answer the handshake: " + words(err)) //nolint:err113 // without the address
	case res.StatusCode != http.StatusOK:
		return errors.New("answered the handshake with " + strconv.Itoa(res.StatusCode) + ", not 200")
	case strings.TrimSpace(string(got)) != challenge:
		return errors.New("did not answer the handshake with hub.challenge")
	}
	return nil
}
