package graphproxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"wagate/internal/cloudapi"
)

const (
	// maxTries bounds the tries of a read; each is a management call of its own.
	maxTries = 3
	// maxUpload is Meta's 100 MB for a document, with room for MiB and the form around it; maxWrite is for other bodies.
	maxUpload = 105 << 20
	maxWrite  = 4 << 20
	// smallAnswer is what every call may hold of an answer, maxAnswer what a few at once may.
	smallAnswer = 256 << 10
	maxAnswer   = 4 << 20
)

var agent = []string{"wagate/1"}

// callHeaders are those of a caller's request that are passed on, beside its content type.
var callHeaders = []string{"Accept-Language", "file_offset"}

// answer is what Meta said.
type answer struct {
	status int
	header http.Header
	body   []byte
	// file is a body that is no JSON, not read yet.
	file io.ReadCloser
	// release gives back the room the body takes.
	release func()
}

func (a *answer) close() {
	if a.file != nil {
		_ = a.file.Close()
	}
	a.release()
}

// forward makes a call: a read again where the connection or the server fails, a write once.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, who Caller, c *call, t *target, e *end) error {
	pool, limit := p.slots, int64(maxWrite)
	if c.stream() {
		pool, limit = p.streams, maxUpload
	}
	if c.body && r.ContentLength > limit {
		return tooLarge()
	}
	var look guard
	kind := ""
	if c.body && r.ContentLength != 0 {
		var refused *Error
		if look, kind, refused = guardOf(r, who, c); refused != nil {
			return refused
		}
	}
	until := p.Now().Add(who.wait())
	if err := p.spend(r.Context(), who, t, until); err != nil { // first: a call that waits for its WABA takes no other's place
		return err
	}
	release, err := p.room(r.Context(), who, pool, until)
	if err != nil {
		return err
	}
	defer release()

	var ctx context.Context
	var b *body
	var stop context.CancelFunc
	var seen *watch
	if c.stream() {
		ctx, seen, stop = p.watched(r.Context())
	} else {
		ctx, stop = context.WithTimeout(r.Context(), p.callTime)
	}
	defer stop()
	if c.body && r.ContentLength != 0 {
		b = &body{from: r.Body, rc: http.NewResponseController(w), still: p.still, watch: seen, guard: look, left: limit, kind: kind}
		defer b.finish() //nolint:errcheck // what it says is read where the call fails
	}
	if c.toProve() && t.kind == objectNode && t.seen == "" {
		if proven, err := p.prove(ctx, w, r, who, c, t, e); err != nil || !proven {
			return err
		}
	}
	writes := writesTemplates(c, t)
	if writes {
		p.staleTemplates(r.Context(), t)
	}
	a, err := p.ask(ctx, r, who, c, t, b, e)
	if writes { // again: a list that was read meanwhile may have either
		p.staleTemplates(r.Context(), t)
	}
	if b != nil {
		n, _ := b.finish()
		p.bytes.WithLabelValues("up").Add(float64(n))
	}
	if err != nil {
		return err
	}
	defer a.close()
	e.status = a.status
	p.heed(t, a.status, a.header, a.body)
	if mediaOnly(who, c, t) && a.status < 300 && !isMedia(c, a.body) {
		return noObject()
	}
	p.learn(r.Context(), c, t, a)
	return p.reply(ctx, w, r, c, t, a, e)
}

// prove asks Meta whether an id is a media of the phone number named with it. Where it is not, the caller has its answer.
func (p *Proxy) prove(ctx context.Context, w http.ResponseWriter, r *http.Request, who Caller, c *call, t *target, e *end) (bool, error) {
	get := &call{method: http.MethodGet, version: c.version, id: c.id, path: c.path, query: "phone_number_id=" + c.via, via: c.via}
	a, err := p.ask(ctx, r, who, get, t, nil, e)
	if err != nil {
		return false, err
	}
	defer a.close()
	e.status = a.status
	p.heed(t, a.status, a.header, a.body)
	switch {
	case a.status >= 300:
		return false, p.reply(ctx, w, r, get, t, a, e)
	case !isMedia(get, a.body):
		return false, noObject()
	}
	return true, p.spend(ctx, who, t, p.Now())
}

// ask makes the tries of a call.
func (p *Proxy) ask(ctx context.Context, r *http.Request, who Caller, c *call, t *target, b *body, e *end) (*answer, error) {
	read := c.method == http.MethodGet
	for try := 1; ; try++ {
		e.tries = try
		a, err := p.try(ctx, r, c, t, b)
		if !read || try == maxTries || ctx.Err() != nil || err == nil && !worthAnother(a) {
			return a, p.fault(ctx, read, b, err)
		}
		wait := p.backoff(try)
		if err == nil {
			wait = max(wait, cloudapi.RetryAfter(a.header, p.Now()))
		}
		if until, ok := ctx.Deadline(); ok && time.Until(until) < wait {
			return a, p.fault(ctx, read, b, err)
		}
		if pause(ctx, who.GiveUp, wait) != nil || p.spend(ctx, who, t, p.Now()) != nil { // the hour has no other call: what came has to do
			return a, p.fault(ctx, read, b, err)
		}
		if a != nil {
			a.close()
		}
	}
}

// worthAnother says whether a read may do better a moment later: what failed on Meta's side, save for what the code table
// knows as lasting.
func worthAnother(a *answer) bool {
	if a.status < 500 {
		return false
	}
	if e, ok := cloudapi.ParseError(a.status, a.body); ok {
		if rule, known := e.Rule(); known && !e.IsTransient {
			return rule.Action == cloudapi.ActionUnknownOutcome || rule.Action == cloudapi.ActionRetryBackoff
		}
	}
	return true
}

// backoff is the wait before another try: half a second, then twice that, less up to a half.
func (p *Proxy) backoff(try int) time.Duration {
	wait := p.firstWait << (try - 1)
	return wait/2 + rand.N(wait/2+1) //nolint:gosec // spreads calls, keeps no secret
}

// try makes one request.
func (p *Proxy) try(ctx context.Context, r *http.Request, c *call, t *target, b *body) (*answer, error) {
	u := p.graph
	u.Path = strings.TrimSuffix(u.Path, "/") + c.path
	u.RawPath = ""
	u.RawQuery = c.query
	scheme := "Bearer "
	if c.upload() {
		scheme = "OAuth " // the one place where Meta wants it so
	}
	out := &http.Request{Method: c.method, URL: &u, Host: u.Host, Header: http.Header{"Authorization": {scheme + t.token}, "User-Agent": agent}}
	for _, name := range callHeaders {
		if v := r.Header.Values(name); len(v) > 0 {
			out.Header[name] = v
		}
	}
	switch {
	case b != nil:
		if b.kind != "" {
			out.Header["Content-Type"] = []string{b.kind}
		}
		out.Body, out.ContentLength = b, r.ContentLength
	case c.method == http.MethodGet:
		out.Body = onceOnly()
	}
	resp, err := p.transport.RoundTrip(out.WithContext(ctx)) //nolint:bodyclose // read closes it, or gives it to the answer, which does
	if err != nil {
		return nil, err
	}
	return p.read(ctx, resp)
}

// onceOnly is an empty body of which net/http cannot tell that it is: it does not make such a GET a second time by itself, which would be
// a call that nobody counted.
func onceOnly() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// read takes an answer in. JSON is read whole, a page of somebody's on the way is left, and any other file is left to come.
func (p *Proxy) read(ctx context.Context, resp *http.Response) (*answer, error) {
	a := &answer{status: resp.StatusCode, header: resp.Header, release: func() {}}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	text := kind == "" || strings.HasPrefix(kind, "text/") || strings.Contains(kind, "json") || strings.Contains(kind, "javascript")
	if !text && resp.StatusCode < 300 {
		a.file = resp.Body
		return a, nil
	}
	defer func() { _ = resp.Body.Close() }()
	buffer := &bytes.Buffer{}
	_, err := buffer.ReadFrom(io.LimitReader(resp.Body, smallAnswer))
	if err == nil && buffer.Len() == smallAnswer {
		select {
		case p.large <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		a.release = func() { <-p.large }
		_, err = buffer.ReadFrom(io.LimitReader(resp.Body, maxAnswer-smallAnswer+1))
	}
	if err == nil && buffer.Len() > maxAnswer {
		err = errLongAnswer
	}
	if err != nil {
		a.close()
		return nil, err
	}
	a.body = buffer.Bytes()
	return a, nil
}

var errLongAnswer = errors.New("the answer is too long")

// reply passes an answer on.
func (p *Proxy) reply(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, t *target, a *answer, e *end) error {
	rw := p.rewriter(r, c, t)
	rw.media = c.method == http.MethodGet && c.edge == "" && t.kind == objectNode && a.status < 300 && !c.renamed
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(p.still)) // not every connection has deadlines
	if a.file != nil {
		rw.headers(w.Header(), a.header, answerHeaders)
		rw.headers(w.Header(), a.header, fileHeaders)
		noPage(w.Header())
		w.WriteHeader(a.status)
		if _, err := p.pass(w, a.file, nil); err != nil {
			e.failed = err
			panic(http.ErrAbortHandler)
		}
		return nil
	}
	if len(bytes.TrimSpace(a.body)) > 0 && !json.Valid(a.body) || a.status >= 300 && (a.status < 400 || len(a.body) == 0) {
		return p.noGraph(c, a)
	}
	out := rw.json(a.body)
	rw.headers(w.Header(), a.header, answerHeaders)
	if kind := a.header.Get("Content-Type"); !strings.Contains(kind, "json") {
		w.Header().Set("Content-Type", "application/json; charset=UTF-8") // which it is; Graph has other names for it
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(out)))
	w.WriteHeader(a.status)
	_, err := w.Write(out)
	if err != nil && ctx.Err() == nil {
		e.failed = fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}

// noGraph is the error for an answer that is not the Graph API's: its text may be anybody's, so it is not passed on.
func (p *Proxy) noGraph(c *call, a *answer) *Error {
	e := &Error{Status: a.status, Code: codeService, Message: fmt.Sprintf("The Graph API answered %d without an error of its own", a.status), cause: fmt.Errorf("an answer with %d that is no Graph API's", a.status)}
	switch {
	case a.status == http.StatusTooManyRequests:
		e.Code, e.RetryAfter, e.Transient = codeTooMany, max(cloudapi.RetryAfter(a.header, p.Now()), time.Second), true
	case a.status < 400:
		e.Status = http.StatusBadGateway
	case a.status < 500:
		e.Code = codeUnknown
	}
	if c.method != http.MethodGet && e.Code == codeService {
		e.Code = codeUnknown
		e.Message += "; whether the call was carried out is not known"
	}
	return e
}

// fault is the error of a call that got no answer; nil where it got one.
func (p *Proxy) fault(ctx context.Context, read bool, b *body, err error) error {
	if err == nil {
		return nil
	}
	if b != nil {
		if _, why := b.finish(); errors.Is(why, errTooLarge) {
			return tooLarge()
		} else if refused, ok := asRefused(why); ok {
			return refused
		} else if why != nil {
			return &Error{Status: http.StatusBadRequest, Code: codeParameter, Message: "The body did not come whole", cause: why}
		}
		if ctx.Err() != nil {
			b.drop()
		}
	}
	return p.broken(ctx, read, err)
}

// broken is the error for a connection that failed.
func (p *Proxy) broken(ctx context.Context, read bool, err error) *Error {
	e := &Error{Status: http.StatusBadGateway, Code: codeService, Message: "The Graph API could not be reached", RetryAfter: databaseRetry, Transient: true, cause: err}
	var op *net.OpError
	switch unsent := errors.As(err, &op) && op.Op == "dial"; {
	case errors.Is(err, errLongAnswer):
		return &Error{Status: http.StatusBadGateway, Code: codeUnknown, Message: "The answer of the Graph API is too large: ask for fewer fields, or fewer entries by limit", cause: err}
	case unsent:
		e.Status = http.StatusServiceUnavailable
		return e
	case ctx.Err() != nil:
		e.Status, e.Message = http.StatusGatewayTimeout, "The Graph API did not answer in time"
		if cause := context.Cause(ctx); cause != nil {
			e.cause = fmt.Errorf("%w: %w", cause, err)
		}
	}
	if !read {
		e.Code, e.Transient, e.RetryAfter = codeUnknown, false, 0
		e.Message += "; whether the call was carried out is not known"
	}
	return e
}
