// Package account keeps what Meta says of WABAs: it reads their phone numbers from the Graph API once a day, within their
// management calls.
package account

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"time"

	"wagate/internal/cloudapi"
	"wagate/internal/store"
)

const (
	// pageSize and maxPages bound what is read of one WABA; each page is a management call.
	pageSize = "100"
	maxPages = 10
	fields   = "id,display_phone_number,quality_rating,throughput,status"
	// callTimeout bounds one call, keepTimeout one visit of the database.
	callTimeout = 30 * time.Second
	keepTimeout = 10 * time.Second
	// firstWait and longestWait bound the wait after a failure; it doubles with each. throttledWait is for a spent hour.
	firstWait     = time.Minute
	longestWait   = time.Hour
	throttledWait = time.Hour
	// maxField bounds what is kept of a field, in bytes.
	maxField = 64
)

// Graph reads from the Graph API.
type Graph interface {
	// Get gives the body of a 2xx answer to GET /{version}/{path}. An error that Meta answers with wraps *cloudapi.Error.
	Get(ctx context.Context, path string, query url.Values, token string) ([]byte, error)
}

// Config of a Reader. Store, Graph, Owned and Token must be set; the zero value of a duration takes its preset.
type Config struct {
	Store *store.Store
	Graph Graph
	// Owned gives the WABAs that this worker owns.
	Owned func() []string
	// Token gives the access token of a WABA.
	Token  func(ctx context.Context, wabaID string) (string, error)
	Logger *slog.Logger
	// Every is how often it is looked at what is to be read; preset 10 s.
	Every time.Duration
	// Age is how old a reading may become; preset 24 h.
	Age time.Duration
}

// Reader reads the phone numbers of the WABAs that a worker owns, one WABA at a time.
type Reader struct {
	cfg      Config
	troubles map[string]trouble // by WABA, of Run's goroutine
	refused  bool               // the database was away the last time
	now      func() time.Time
}

// trouble is why a WABA is not read again at once.
type trouble struct {
	until time.Time
	wait  time.Duration
	text  string // what was logged
}

// New makes a Reader; Run makes it live.
func New(cfg Config) *Reader {
	if cfg.Every <= 0 {
		cfg.Every = 10 * time.Second
	}
	if cfg.Age <= 0 {
		cfg.Age = 24 * time.Hour
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Reader{cfg: cfg, troubles: map[string]trouble{}, now: time.Now}
}

// Run reads until ctx ends, whose error it gives.
func (r *Reader) Run(ctx context.Context) error {
	timer := time.NewTimer(jitter(r.cfg.Every))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		r.next(ctx)
		timer.Reset(jitter(r.cfg.Every))
	}
}

// next reads the WABA that has waited the longest, if one is due. One a round keeps a worker that has taken many from
// calling for all of them at once.
func (r *Reader) next(ctx context.Context) {
	owned := r.cfg.Owned()
	still := make(map[string]trouble, len(r.troubles))
	free := make([]string, 0, len(owned))
	for _, id := range owned {
		t, had := r.troubles[id]
		if had {
			still[id] = t
		}
		if !had || !r.now().Before(t.until) {
			free = append(free, id)
		}
	}
	r.troubles = still // those of WABAs that others own now are theirs
	if len(free) == 0 {
		return
	}
	look, cancel := context.WithTimeout(ctx, keepTimeout)
	due, err := r.cfg.Store.WABAsToRead(look, free, r.cfg.Age)
	cancel()
	if err != nil {
		if !r.refused && ctx.Err() == nil {
			r.cfg.Logger.WarnContext(ctx, "cannot see which WABAs are to be read", "err", err)
		}
		r.refused = true
		return
	}
	r.refused = false
	if len(due) == 0 {
		return
	}
	changed, err := r.read(ctx, due[0])
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		r.failed(ctx, due[0], err)
		return
	}
	delete(r.troubles, due[0])
	for _, phone := range changed {
		r.cfg.Logger.InfoContext(ctx, "the throughput of a phone number has changed", "waba_id", due[0], "phone_number_id", phone)
	}
}

// spentError says that a WABA has no management call left until then.
type spentError struct{ wait time.Duration }

func (e *spentError) Error() string { return "no management call is left in this hour" }

// failed notes when a WABA may be read again, and logs each reason once.
func (r *Reader) failed(ctx context.Context, wabaID string, err error) {
	t := r.troubles[wabaID]
	t.wait = min(max(2*t.wait, firstWait), longestWait)
	wait := t.wait/2 + rand.N(t.wait/2+1) //nolint:gosec // spreads calls, keeps no secret
	var meta *cloudapi.Error
	if spent, ok := errors.AsType[*spentError](err); ok {
		wait = max(spent.wait, 0) + rand.N(firstWait) //nolint:gosec // as above
	} else if errors.As(err, &meta) {
		if rule, known := meta.Rule(); known && rule.Action == cloudapi.ActionRetryAfterWindow {
			wait = throttledWait + rand.N(throttledWait/4) //nolint:gosec // as above
		}
	}
	t.until = r.now().Add(wait)
	if text := err.Error(); text != t.text {
		t.text = text
		r.cfg.Logger.WarnContext(ctx, "cannot read the phone numbers of a WABA", "waba_id", wabaID, "err", err, "again_in", wait.Round(time.Second))
	}
	r.troubles[wabaID] = t
}

// read reads the phone numbers of one WABA and keeps them. It gives the ids of those whose throughput has changed.
func (r *Reader) read(ctx context.Context, wabaID string) ([]string, error) {
	token, err := r.cfg.Token(ctx, wabaID)
	if err != nil {
		return nil, fmt.Errorf("getting the access token: %w", err)
	}
	query := url.Values{"fields": {fields}, "limit": {pageSize}}
	var readings []store.PhoneReading
	for range maxPages {
		body, err := r.call(ctx, wabaID, query, token)
		if err != nil {
			return nil, err
		}
		page, next, err := parse(body)
		if err != nil {
			return nil, err
		}
		readings = append(readings, page...)
		if next == "" {
			break
		}
		query.Set("after", next)
	}
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	return r.cfg.Store.KeepReadings(ctx, wabaID, readings)
}

// call makes one call, if the WABA has one left.
func (r *Reader) call(ctx context.Context, wabaID string, query url.Values, token string) ([]byte, error) {
	take, cancel := context.WithTimeout(ctx, keepTimeout)
	ok, again, err := r.cfg.Store.TakeManagementCall(take, wabaID)
	cancel()
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, &spentError{wait: again.Sub(r.now())}
	}
	ctx, cancel = context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return r.cfg.Graph.Get(ctx, url.PathEscape(wabaID)+"/phone_numbers", query, token)
}

// parse reads one page of an answer; next is the cursor of the page after it, "" for the last.
func parse(body []byte) (page []store.PhoneReading, next string, err error) {
	var answer struct {
		Data []struct {
			ID                 string          `json:"id"`
			DisplayPhoneNumber string          `json:"display_phone_number"`
			QualityRating      string          `json:"quality_rating"`
			Status             string          `json:"status"`
			Throughput         json.RawMessage `json:"throughput"`
		} `json:"data"`
		Paging struct {
			Cursors struct {
				After string `json:"after"`
			} `json:"cursors"`
			Next string `json:"next"`
		} `json:"paging"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		// The text of a JSON error may repeat what it could not read.
		return nil, "", errors.New("the answer is not the JSON it should be")
	}
	if answer.Data == nil {
		return nil, "", errors.New("the answer has no list of phone numbers")
	}
	for _, p := range answer.Data {
		if p.ID == "" || len(p.ID) > maxField {
			continue
		}
		var throughput struct {
			Level string `json:"level"`
		}
		_ = json.Unmarshal(p.Throughput, &throughput) // of another form: no level
		page = append(page, store.PhoneReading{
			ID: p.ID, DisplayPhoneNumber: short(p.DisplayPhoneNumber), QualityRating: short(p.QualityRating),
			Status: short(p.Status), Level: short(throughput.Level),
		})
	}
	if answer.Paging.Next != "" {
		next = answer.Paging.Cursors.After
	}
	return page, next, nil
}

// short drops what is too long to be what it should be, or what Postgres does not keep.
func short(s string) string {
	if len(s) > maxField {
		return ""
	}
	for _, c := range s {
		if c < ' ' {
			return ""
		}
	}
	return s
}

// jitter gives between half and one and a half times d.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d+1) //nolint:gosec // spreads calls, keeps no secret
}
