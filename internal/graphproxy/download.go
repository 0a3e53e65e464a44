package graphproxy

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// linkPlace is what the links are sealed for.
var linkPlace = []byte("graphproxy/" + downloads)

// link is what a download link holds. It is sealed, so that its caller cannot choose where the gateway goes with a token.
type link struct {
	WABA  string `json:"w"`
	Phone string `json:"p,omitempty"` // whose media it is, where that is known
	URL   string `json:"u"`
}

// linkTo makes the gateway's link to an address of Meta's; false where the address is none to go to.
func (p *Proxy) linkTo(base, version string, t *target, raw string) (string, bool) {
	if t.waba == "" || p.address(raw) == nil {
		return "", false
	}
	plain, err := json.Marshal(link{t.waba, t.phone, raw})
	if err != nil {
		return "", false
	}
	sealed := base64.RawURLEncoding.EncodeToString(p.Links.Seal(plain, linkPlace))
	if len(sealed) > maxSealed {
		return "", false
	}
	return base + "/" + version + "/" + downloads + "/" + sealed, true
}

// address reads an address that an answer holds; nil where no token may go there. What an answer calls an address may be of
// anybody's making, so only Meta's hosts of media are gone to, and what stands in the place of Meta.
func (p *Proxy) address(raw string) *url.URL {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || !mediaAddress(u) && !p.ownAddress(u) {
		return nil
	}
	u.Fragment = ""
	return u
}

// mediaAddress says whether an address is one of Meta's for media.
func mediaAddress(u *url.URL) bool {
	return u.Scheme == "https" && mediaHost(u.Hostname()) && (u.Port() == "" || u.Port() == "443")
}

// ownAddress says whether an address is one of what stands in the place of Meta (the simulator), which has its files beside
// its API. Meta has none there: an address of its Graph API is a call, and has to come as one.
func (p *Proxy) ownAddress(u *url.URL) bool {
	if u.Scheme != p.graph.Scheme || !sameHost(u, &p.graph) || slices.Contains(graphHosts, strings.ToLower(u.Hostname())) {
		return false
	}
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		key, _, _ := strings.Cut(pair, "=")
		if slices.Contains(refusedNames, parameterName(key)) {
			return false
		}
	}
	return true
}

// openLink reads a download link's last part.
func (p *Proxy) openLink(c *call) (link, *url.URL, error) {
	var l link
	_, last, _ := strings.Cut(c.path, "/"+downloads+"/")
	sealed, err := base64.RawURLEncoding.DecodeString(last)
	if err != nil {
		return l, nil, noObject()
	}
	plain, err := p.Links.Open(sealed, linkPlace)
	if err != nil || json.Unmarshal(plain, &l) != nil {
		return l, nil, noObject()
	}
	u := p.address(l.URL)
	if u == nil {
		return l, nil, noObject()
	}
	return l, u, nil
}

// download fetches the bytes behind a link and passes them on as they come.
func (p *Proxy) download(w http.ResponseWriter, r *http.Request, who Caller, c *call, e *end) error {
	l, u, err := p.openLink(c)
	if err != nil {
		return err
	}
	t := &target{waba: l.WABA, phone: l.Phone}
	if refused := needs(c, t).allow(who); refused != nil {
		return refused
	}
	if err := p.mayDownload(r.Context(), who, l); err != nil {
		return err
	}
	if err := p.open(r.Context(), c, t); err != nil {
		return err
	}
	e.waba = t.waba
	release, err := p.room(r.Context(), who, p.streams, p.Now().Add(who.wait()))
	if err != nil {
		return err
	}
	defer release()

	ctx, watch, stop := p.watched(r.Context())
	defer stop()
	answer, err := p.fetch(ctx, who, t, u, r.Header.Values("Range"), e)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	watch.moved()
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusPartialContent {
		return p.noFile(answer)
	}
	rw := p.rewriter(r, c, t)
	rw.headers(w.Header(), answer.Header, answerHeaders)
	rw.headers(w.Header(), answer.Header, fileHeaders)
	noPage(w.Header())
	w.WriteHeader(answer.StatusCode)
	e.status = answer.StatusCode
	n, err := p.pass(w, answer.Body, watch)
	p.bytes.WithLabelValues("down").Add(float64(n))
	if err != nil {
		// The bytes are cut: so must the connection be, or the caller takes a part for the whole.
		e.failed = fmt.Errorf("passing a file on: %w", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// noPage is for files: a user may have sent anything, and no browser shall take it for a page of the gateway's.
func noPage(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
}

// mayDownload holds a bound key to what its phone numbers may see.
func (p *Proxy) mayDownload(ctx context.Context, who Caller, l link) error {
	switch {
	case len(who.PhoneNumbers) == 0:
		return nil
	case l.Phone != "":
		if !who.mayUse(l.Phone) {
			return noObject()
		}
		return nil
	}
	look, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	n, err := p.Store.GraphNode(look, "", "", who.PhoneNumbers)
	if err != nil {
		return Failed(err)
	}
	if len(n.Mine) != 1 || n.Mine[0] != l.WABA {
		return noObject()
	}
	return nil
}

// fetch GETs a file, again where the connection or the server fails.
func (p *Proxy) fetch(ctx context.Context, who Caller, t *target, u *url.URL, ranges []string, e *end) (*http.Response, error) {
	for try := 1; ; try++ {
		r := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{
			"Authorization": {"Bearer " + t.token}, "User-Agent": agent,
			"Accept-Encoding": {"identity"}, // the bytes as they are, with their length
		}, Body: onceOnly()}
		if len(ranges) > 0 {
			r.Header["Range"] = ranges
		}
		e.tries = try
		answer, err := p.transport.RoundTrip(r.WithContext(ctx))
		if err == nil && answer.StatusCode < 500 {
			return answer, nil
		}
		if try == maxTries || ctx.Err() != nil || pause(ctx, who.GiveUp, p.backoff(try)) != nil {
			if err != nil {
				return nil, p.broken(ctx, true, err)
			}
			return answer, nil
		}
		if err == nil {
			_ = answer.Body.Close()
		}
	}
}

// noFile is the error for an answer that is no file.
func (p *Proxy) noFile(answer *http.Response) *Error {
	status := answer.StatusCode
	switch {
	case status == http.StatusNotFound, status == http.StatusGone:
		return &Error{Status: http.StatusNotFound, Code: codeParameter, Subcode: subcodeNoObject, Message: "The link has ended: get the media's url again"}
	case status == http.StatusRequestedRangeNotSatisfiable:
		return &Error{Status: status, Code: codeParameter, Message: "The range cannot be satisfied"}
	case status == http.StatusTooManyRequests:
		return &Error{Status: status, Code: codeTooMany, Message: "Meta refused the download for a limit", RetryAfter: time.Minute, Transient: true}
	case status >= 400 && status < 500:
		return &Error{Status: status, Code: codeAccess, Message: "Meta refused the download"}
	}
	// A redirect would take the token to where Meta's answer did not say.
	return &Error{Status: http.StatusBadGateway, Code: codeService, Message: "The file could not be got", Transient: true, cause: fmt.Errorf("the file's server answered %d", status)}
}

// Why a stream was cut.
var (
	errStill = errors.New("no byte came or went for too long")
	errSlow  = errors.New("the whole took too long")
)

// pass copies a file to the caller.
func (p *Proxy) pass(w http.ResponseWriter, from io.Reader, watch *watch) (int64, error) {
	rc := http.NewResponseController(w)
	buffer, _ := p.buffers.Get().(*[]byte)
	defer p.buffers.Put(buffer)
	var total int64
	for {
		n, err := from.Read(*buffer)
		if n > 0 {
			watch.moved()
			_ = rc.SetWriteDeadline(time.Now().Add(p.still)) // not every connection has deadlines
			if _, err := w.Write((*buffer)[:n]); err != nil {
				return total, fmt.Errorf("to the caller: %w", err)
			}
			watch.moved()
			total += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, fmt.Errorf("from Meta: %w", err)
		}
	}
}
