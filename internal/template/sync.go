// Package template knows the message templates of WABAs: it reads Meta's list of them, within their management calls, and
// says of a message what its template makes of it. Webhooks keep what it knows new between two lists.
package template

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"wagate/internal/cloudapi"
	"wagate/internal/sender"
	"wagate/internal/store"
)

const (
	// pageSize is how many templates are asked for at once; where they are too much for one answer, a fifth, and a fifth of that.
	// maxPages and maxTemplates bound what is read of a WABA, for which Meta allows 6,000.
	pageSize     = 250
	leastPage    = 10
	maxPages     = 100
	maxTemplates = 10_000
	fields       = "id,name,language,status,category,parameter_format,components,quality_score,rejected_reason"
	// callTimeout bounds one call, keepTimeout one visit of the database, syncTimeout a whole reading.
	callTimeout = 30 * time.Second
	keepTimeout = 15 * time.Second
	syncTimeout = 4 * time.Minute
	// leastWait and mostWait bound the time from one reading to the next if nothing asks for it before.
	leastWait, mostWait = 30 * time.Minute, 40 * time.Minute
	// throttledWait is how long Meta is left alone after it has throttled a WABA.
	throttledWait = time.Hour
	// busyWait is how long a refresh waits before it looks again whether another reading has ended.
	busyWait = 200 * time.Millisecond
	// Bounds of what is kept, in bytes.
	maxWord       = 128
	maxName       = 512
	maxComponents = 64 << 10
	maxProblem    = 300
)

// Graph reads from the Graph API.
type Graph interface {
	// Get gives the body of a 2xx answer to GET /{version}/{path}. An error that Meta answers with wraps *cloudapi.Error, a
	// body that is too long sender.ErrLongAnswer.
	Get(ctx context.Context, path string, query url.Values, token string) ([]byte, error)
}

// SyncConfig is what a Syncer works with. All but Logger must be set.
type SyncConfig struct {
	Store *store.Store
	Graph Graph
	// Token gives the access token of a WABA.
	Token  func(ctx context.Context, wabaID string) (string, error)
	Logger *slog.Logger
}

// Syncer reads the templates of WABAs. It is safe for concurrent use, by any number of processes.
type Syncer struct{ cfg SyncConfig }

// NewSyncer makes a Syncer. It starts nothing.
func NewSyncer(cfg SyncConfig) *Syncer {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Syncer{cfg: cfg}
}

// ErrBusy is returned where another reading of the WABA has not ended in time.
var ErrBusy = errors.New("the templates of the WABA are being read")

// ErrNoToken is for Token of a WABA that has none; Refresh gives it, wrapped.
var ErrNoToken = errors.New("the WABA has no access token")

// CallError says that a call of the Graph API has failed.
type CallError struct{ Err error }

// Error implements error.
func (e *CallError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *CallError) Unwrap() error { return e.Err }

// SpentError says that a WABA has no management call left.
type SpentError struct {
	// Wait is until one is free again.
	Wait time.Duration
}

// Error implements error.
func (e *SpentError) Error() string { return "no management call is left in this hour" }

// Refresh reads the templates of a WABA now. It waits for another reading to end, as long as ctx allows: then it gives ErrBusy.
// Other errors, wrapped: store.ErrNotFound where there is no such WABA, ErrNoToken, *SpentError, *CallError, which may wrap a *cloudapi.Error.
func (s *Syncer) Refresh(ctx context.Context, wabaID string) error {
	for {
		ok, err := s.Sync(ctx, wabaID)
		if ok || err != nil {
			return err
		}
		timer := time.NewTimer(busyWait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ErrBusy
		case <-timer.C:
		}
	}
}

// Sync reads the templates of a WABA unless another reading is under way: then ok is false. Errors are those of Refresh.
func (s *Syncer) Sync(ctx context.Context, wabaID string) (ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	asked, ok, err := s.claim(ctx, wabaID)
	if err != nil || !ok {
		return ok, err
	}
	l, err := s.read(ctx, wabaID)
	if err == nil {
		l.AskedAt = asked
		err = s.keep(ctx, l)
	}
	if err != nil {
		s.missed(ctx, wabaID, asked, err)
		return true, fmt.Errorf("reading the templates of WABA %s: %w", wabaID, err)
	}
	return true, nil
}

func (s *Syncer) claim(ctx context.Context, wabaID string) (time.Time, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	return s.cfg.Store.ClaimTemplates(ctx, wabaID)
}

func (s *Syncer) keep(ctx context.Context, l store.TemplateList) error {
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	l.Every = leastWait + rand.N(mostWait-leastWait) //nolint:gosec // spreads calls, keeps no secret
	news, err := s.cfg.Store.KeepTemplates(ctx, l)
	if err != nil {
		return err
	}
	for _, n := range news {
		log := s.cfg.Logger.With("waba_id", l.WABAID, "template", n.Name, "language", n.Language)
		if n.Paused != "" {
			log.ErrorContext(ctx, "a template is paused or disabled, by Meta's list: its messages are held, or fail", "status", n.Paused)
		}
		if n.Quality != "" {
			log.WarnContext(ctx, "the quality of a template has dropped", "quality", n.Quality, "before", n.QualityBefore)
		}
		if n.Category != "" {
			log.WarnContext(ctx, "the category of a template is another", "category", n.Category, "before", n.CategoryBefore)
		}
	}
	level := slog.LevelDebug
	if !l.Complete {
		level = slog.LevelWarn
	}
	s.cfg.Logger.Log(ctx, level, "templates were read", "waba_id", l.WABAID, "templates", len(l.Templates), "pages", l.Pages, "complete", l.Complete)
	return nil
}

// missed notes when a WABA may be read again, and logs each reason once.
func (s *Syncer) missed(ctx context.Context, wabaID string, asked time.Time, err error) {
	var wait time.Duration // the store's
	var meta *cloudapi.Error
	if spent, ok := errors.AsType[*SpentError](err); ok {
		wait = max(spent.Wait, 0) + time.Second + rand.N(time.Minute) //nolint:gosec // as above
	} else if errors.As(err, &meta) {
		if rule, known := meta.Rule(); known && rule.Action == cloudapi.ActionRetryAfterWindow {
			wait = throttledWait + rand.N(throttledWait/4) //nolint:gosec // as above
		}
	}
	problem := strings.ReplaceAll(strings.ToValidUTF8(err.Error(), "\uFFFD"), "\x00", "")
	if len(problem) > maxProblem {
		problem = strings.ToValidUTF8(problem[:maxProblem], "")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTimeout)
	defer cancel()
	first, failures, missErr := s.cfg.Store.MissTemplates(ctx, wabaID, asked, wait, problem)
	if first || missErr != nil {
		s.cfg.Logger.WarnContext(ctx, "cannot read the templates of a WABA", "waba_id", wabaID, "err", err, "failures", failures)
	}
}

// read reads the list, page by page.
func (s *Syncer) read(ctx context.Context, wabaID string) (store.TemplateList, error) {
	l := store.TemplateList{WABAID: wabaID}
	token, err := s.cfg.Token(ctx, wabaID)
	if err != nil {
		return l, fmt.Errorf("getting the access token: %w", err)
	}
	size, after, whole := pageSize, "", true
	seen := map[[2]string]bool{}
	for l.Pages < maxPages && len(l.Templates) < maxTemplates {
		query := url.Values{"fields": {fields}, "limit": {strconv.Itoa(size)}}
		if after != "" {
			query.Set("after", after)
		}
		l.Pages++
		body, err := s.call(ctx, wabaID, query, token)
		if errors.Is(err, sender.ErrLongAnswer) && size > leastPage {
			size /= 5
			continue
		}
		if err != nil {
			return l, err
		}
		p, err := parse(body)
		if err != nil {
			return l, &CallError{err}
		}
		for _, t := range p.templates {
			if key := [2]string{t.Name, t.Language}; !seen[key] {
				seen[key] = true
				l.Templates = append(l.Templates, t)
			}
		}
		whole = whole && p.whole
		if !p.more {
			l.Complete = whole
			return l, nil
		}
		if p.after == "" || p.after == after {
			return l, nil // there is more, and no way to it
		}
		after = p.after
	}
	return l, nil
}

// call makes one call, if the WABA has one left.
func (s *Syncer) call(ctx context.Context, wabaID string, query url.Values, token string) ([]byte, error) {
	take, cancel := context.WithTimeout(ctx, keepTimeout)
	ok, again, err := s.cfg.Store.TakeManagementCall(take, wabaID)
	cancel()
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, &SpentError{Wait: time.Until(again)}
	}
	ctx, cancel = context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := s.cfg.Graph.Get(ctx, url.PathEscape(wabaID)+"/message_templates", query, token)
	if err != nil {
		return nil, &CallError{err}
	}
	return body, nil
}

// page is one page of the list.
type page struct {
	templates []store.ListedTemplate
	// whole is false where something on it could not be read. more says that another page follows, after that cursor.
	whole, more bool
	after       string
}

// parse reads one page of an answer.
func parse(body []byte) (page, error) {
	var answer struct {
		Data   []json.RawMessage `json:"data"`
		Paging struct {
			Cursors struct {
				After string `json:"after"`
			} `json:"cursors"`
			Next string `json:"next"`
		} `json:"paging"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		// The text of a JSON error may repeat what it could not read.
		return page{}, errors.New("the answer is not the JSON it should be")
	}
	if answer.Data == nil {
		return page{}, errors.New("the answer has no list of templates")
	}
	p := page{whole: true, more: answer.Paging.Next != "", after: answer.Paging.Cursors.After}
	for _, raw := range answer.Data {
		t, ok := parseTemplate(raw)
		if !ok {
			p.whole = false
			continue
		}
		p.templates = append(p.templates, t)
	}
	return p, nil
}

// parseTemplate reads one template of a list. It is false for what cannot be one: then the list is not known to be whole.
func parseTemplate(raw []byte) (store.ListedTemplate, bool) {
	var t struct {
		ID              json.RawMessage `json:"id"`
		Name            string          `json:"name"`
		Language        string          `json:"language"`
		Status          string          `json:"status"`
		Category        string          `json:"category"`
		ParameterFormat string          `json:"parameter_format"`
		RejectedReason  string          `json:"rejected_reason"`
		QualityScore    json.RawMessage `json:"quality_score"`
		Components      json.RawMessage `json:"components"`
	}
	if json.Unmarshal(raw, &t) != nil || !word(t.Name, maxName) || !word(t.Language, maxWord) || !word(t.Status, maxWord) {
		return store.ListedTemplate{}, false
	}
	var quality struct {
		Score string `json:"score"`
	}
	_ = json.Unmarshal(t.QualityScore, &quality) // of another form: not said
	l := store.ListedTemplate{
		Name: t.Name, Language: strings.ReplaceAll(t.Language, "-", "_"), MetaID: kept(strings.Trim(string(t.ID), `"`)), Status: strings.ToUpper(t.Status),
		Reason: kept(t.RejectedReason), Category: kept(strings.ToUpper(t.Category)), Quality: kept(strings.ToUpper(quality.Score)),
		ParameterFormat: kept(strings.ToUpper(t.ParameterFormat)),
	}
	if c := []byte(t.Components); len(c) > 1 && c[0] == '[' && len(c) <= maxComponents && utf8.Valid(c) {
		l.Components = c
	}
	l.Approved = cloudapi.WasApproved(l.Status)
	return l, true
}

// word says whether a text is one that a template must have.
func word(s string, most int) bool {
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' })
}

// kept drops what is too long to be what it should be, or what Postgres does not keep.
func kept(s string) string {
	if !word(s, maxWord) {
		return ""
	}
	return s
}
