package simulator

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
	"unicode/utf8"
)

const (
	webhookPosters    = 8
	webhookTimeout    = 20 * time.Second
	webhookBackoff    = 100 * time.Millisecond // first wait; doubles
	webhookBackoffMax = 2 * time.Second
)

func newWebhookClient(transport http.RoundTripper) *http.Client {
	if transport == nil {
		transport = &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			MaxIdleConnsPerHost: webhookPosters,
			IdleConnTimeout:     30 * time.Second,
		}
	}
	return &http.Client{
		Transport:     transport,
		Timeout:       webhookTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// runPoster posts what is due until ctx ends.
func (s *Server) runPoster(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.queue.ready:
		}
		for ctx.Err() == nil {
			batch := s.queue.take()
			if batch == nil {
				break
			}
			s.deliver(ctx, batch)
		}
	}
}

// deliver posts one batch until it is taken, the time for retries is over, or ctx ends.
func (s *Server) deliver(ctx context.Context, batch []event) {
	var body []byte
	giveUp := s.now() + s.retryFor
	for backoff := webhookBackoff; ; backoff = min(2*backoff, webhookBackoffMax) {
		began := s.now()
		if !s.queue.mayPost(ctx, batch) {
			return
		}
		giveUp += s.now() - began
		set := s.settings.Load()
		if set.webhookURL == "" {
			s.finish(batch, &s.ledger.totals.StatusesDiscarded)
			return
		}
		if body == nil {
			var err error
			if body, err = s.hookBody(batch); err != nil { // only our own plain structs come here
				s.log.Error("simulator: building a webhook", slog.Any("error", err))
				s.finish(batch, &s.ledger.totals.StatusesLost)
				return
			}
		}
		err := s.postHook(ctx, set.webhookURL, set.appSecret, body)
		if err == nil {
			s.finish(batch, &s.ledger.totals.StatusesPosted)
			return
		}
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		s.ledger.totals.WebhookRetries++
		s.mu.Unlock()
		if s.now() >= giveUp {
			s.log.Warn("simulator: webhook given up", slog.Int("statuses", len(batch)), slog.Any("error", err))
			s.finish(batch, &s.ledger.totals.StatusesLost)
			return
		}
		if !pause(ctx, backoff/2+rand.N(backoff/2)) { //nolint:gosec // jitter needs no secrecy
			return
		}
	}
}

// finish settles a batch and counts it in one of the totals.
func (s *Server) finish(batch []event, total *int64) {
	now := s.now()
	s.mu.Lock()
	totals := &s.ledger.totals
	posted := total == &totals.StatusesPosted
	if posted {
		totals.WebhookPosts++
	}
	for _, e := range batch {
		switch {
		case e.p.generation != s.ledger.generation:
		case !posted:
			*total++
		case e.p.carries == carriesInbound:
			totals.InboundPosted++
		case e.p.carries == carriesNotice:
			totals.NoticesPosted++
		default:
			*total++
			s.ledger.settle(e.p.seq, e.status, now, s.scopes.byIndex)
		}
	}
	s.mu.Unlock()
	s.queue.done(batch)
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// postHook posts one signed body; only a 200 counts as taken, as for Meta.
func (s *Server) postHook(ctx context.Context, url, secret string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("making the webhook request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "facebookexternalua")
	req.Header.Set("X-Hub-Signature-256", sign(secret, body))
	res, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("posting the webhook: %w", err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // so that the connection is reused
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("posting the webhook: HTTP %d", res.StatusCode)
	}
	return nil
}

// sign is the value of X-Hub-Signature-256 for exactly these bytes.
func sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// escapeNonASCII rewrites valid JSON so that every character beyond ASCII is \uxxxx in
// lower-case hex (as a surrogate pair where it needs one): the form Meta signs.
func escapeNonASCII(in []byte) []byte {
	first := bytes.IndexFunc(in, func(r rune) bool { return r >= utf8.RuneSelf })
	if first < 0 {
		return in
	}
	out := make([]byte, first, len(in)+len(in)/4)
	copy(out, in)
	for rest := in[first:]; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		char := rest[:size]
		rest = rest[size:]
		switch {
		case r < utf8.RuneSelf:
			out = append(out, char...)
		case r >= 0x10000:
			r -= 0x10000
			out = appendEscape(appendEscape(out, 0xd800+(r>>10)), 0xdc00+(r&0x3ff))
		default:
			out = appendEscape(out, r)
		}
	}
	return out
}

func appendEscape(out []byte, unit rune) []byte {
	const hexDigits = "0123456789abcdef"
	return append(out, '\\', 'u', hexDigits[unit>>12&0xf], hexDigits[unit>>8&0xf], hexDigits[unit>>4&0xf], hexDigits[unit&0xf])
}
