package simulator

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	keptCalls   = 16_384 // management calls remembered one by one
	maxHealth   = 10_000 // entities with a health of their own
	maxReview   = 24 * time.Hour
	maxMaximum  = 100_000 // templates of a WABA
	maxMediaAge = 30 * 24 * time.Hour
)

// Call is one management call that was answered.
type Call struct {
	Seq    int64  `json:"seq"`   // to page on from
	AtMS   int64  `json:"at_ms"` // milliseconds since the simulator's start
	Method string `json:"method"`
	Path   string `json:"path"` // without the query
	Status int    `json:"status"`
	Code   int    `json:"code,omitempty"` // of the error
}

// callLog is a ring of the newest calls.
type callLog struct {
	ring []Call
	last int64
}

func (l *callLog) add(c Call) {
	l.last++
	c.Seq = l.last
	c.Path = strings.Clone(c.Path[:min(len(c.Path), 256)])
	if len(l.ring) < keptCalls {
		l.ring = append(l.ring, c)
		return
	}
	l.ring[(c.Seq-1)%keptCalls] = c
}

// Calls returns management calls in the order of their answers, those after the given
// sequence number, at most limit (1 … 10,000). The newest 16,384 are kept, also over a
// Reset.
func (s *Server) Calls(after int64, limit int) []Call {
	limit = min(max(limit, 1), 10_000)
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.managed.calls
	from := max(after+1, l.last-int64(len(l.ring))+1)
	out := []Call{}
	for seq := from; seq <= l.last && len(out) < limit; seq++ {
		out = append(out, l.ring[(seq-1)%keptCalls])
	}
	return out
}

// StrictTemplates makes sends of templates that the WABA does not have, that are not
// approved or that have another number of parameters fail with Meta's codes.
func (s *Server) StrictTemplates(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.managed.strictTemplates = on
}

// StrictMedia refuses messages with a media id that was not uploaded for their phone
// number (code 100), and profiles and templates with an unknown file handle. gone says how
// a message fails whose media expired or was deleted: ByWebhook (also when empty), accepted
// and then failed with 131053, or ByAnswer, code 100 at once; that holds without strict.
func (s *Server) StrictMedia(on bool, gone string) error {
	if gone != "" && gone != ByAnswer && gone != ByWebhook {
		return errors.New("setting strict media: gone is neither answer nor webhook")
	}
	if gone == "" {
		gone = ByWebhook
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.managed.strictMedia, s.managed.goneBy = on, gone
	return nil
}

// LinkFailure says which links in messages cannot be fetched: those that contain
// Containing, all where it is empty.
type LinkFailure struct {
	Fail       bool   `json:"fail"`
	Containing string `json:"containing"`
}

// FailLinks lets accepted messages with such links fail with 131053.
func (s *Server) FailLinks(f LinkFailure) {
	f.Containing = f.Containing[:min(len(f.Containing), maxName)]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.managed.links = f
}

// ReviewTemplates sets what becomes of templates that are created or edited from now on.
func (s *Server) ReviewTemplates(r TemplateReview) error {
	switch {
	case r.Delay < 0 || r.Delay > maxReview:
		return errors.New("setting the review of templates: the delay is not from 0 to a day")
	case r.Decision != "" && r.Decision != templateApproved && r.Decision != templateRejected:
		return errors.New("setting the review of templates: the decision is neither APPROVED nor REJECTED")
	case r.Max < 0 || r.Max > maxMaximum || r.PerHour < 0 || r.PerHour > maxLimit || len(r.Reason) > 64:
		return errors.New("setting the review of templates: a number or the reason is out of its range")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.managed.review = r
	return nil
}

// SetTemplate gives a template a status (APPROVED, REJECTED, PAUSED, DISABLED …; empty:
// as it is) with a reason, and a quality (GREEN, YELLOW, RED, UNKNOWN; empty: as it is).
// Webhooks tell of both.
func (s *Server) SetTemplate(id, status, reason, quality string) error {
	switch {
	case status != "" && !slices.Contains(templateStatuses, status):
		return fmt.Errorf("setting template %q: the status is none of %s", id, strings.Join(templateStatuses, ", "))
	case quality != "" && !slices.Contains([]string{"GREEN", "YELLOW", "RED", "UNKNOWN"}, quality):
		return fmt.Errorf("setting template %q: the quality is none of GREEN, YELLOW, RED, UNKNOWN", id)
	case len(reason) > 64:
		return fmt.Errorf("setting template %q: the reason is too long", id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.scopes.monotone(s.now())
	s.managed.decide(now)
	t := s.managed.templates[id]
	if t == nil {
		return fmt.Errorf("setting template %q: there is none", id)
	}
	if status != "" {
		s.withdraw(t)
		t.status, t.reason, t.changed = status, reason, now
		s.notifyLater(templateField, t.waba, t.news(status, reason), 0)
	}
	if quality != "" {
		before := t.quality
		if before == "" {
			before = "UNKNOWN"
		}
		t.quality, t.changed = quality, now
		news := t.news("", "")
		delete(news, "event")
		delete(news, "reason")
		delete(news, "message_template_category")
		news["previous_quality_score"], news["new_quality_score"] = before, quality
		s.notifyLater("message_template_quality_update", t.waba, news, 0)
	}
	return nil
}

// MediaFile is an uploaded file that is remembered.
type MediaFile struct {
	ID       string `json:"id"`
	Phone    string `json:"phone"`
	MIMEType string `json:"mime_type"`
	SHA256   string `json:"sha256"`
	Size     int64  `json:"file_size"`
	// ExpiresInMS is how long the id is still good, in milliseconds; 0 when it is not.
	ExpiresInMS int64 `json:"expires_in_ms"`
	Deleted     bool  `json:"deleted"`
	// Kept says whether the bytes are still there.
	Kept bool `json:"kept"`
}

// Media lists the uploaded files, oldest first.
func (s *Server) Media() []MediaFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.scopes.monotone(s.now())
	out := []MediaFile{}
	for _, f := range s.managed.mediaAge {
		one := MediaFile{
			ID: f.id, Phone: f.phone, MIMEType: f.mime, SHA256: f.sha, Size: f.size, Deleted: f.deleted,
			Kept: f.blob != nil && !f.blob.gone,
		}
		if f.live(now) {
			one.ExpiresInMS = max((f.expires - now).Milliseconds(), 1)
		}
		out = append(out, one)
	}
	return out
}

// ExpireMedia lets an uploaded file's id, or all where id is empty, be good for that much
// longer (0: no longer; at most 30 days).
func (s *Server) ExpireMedia(id string, in time.Duration) error {
	if in < 0 || in > maxMediaAge {
		return errors.New("expiring media: the time is not from 0 to 30 days")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.scopes.monotone(s.now())
	if id != "" && s.managed.media[id] == nil {
		return fmt.Errorf("expiring media %q: there is none", id)
	}
	for _, f := range s.managed.mediaAge {
		if id == "" || f.id == id {
			f.expires = now + in
		}
	}
	return nil
}

// SetHealth sets what health_status answers of an entity.
func (s *Server) SetHealth(h Health) error {
	switch {
	case !idLike(h.ID):
		return errors.New("setting a health: id has digits only, 32 at most")
	case !slices.Contains(healthOrder, h.CanSendMessage):
		return errors.New("setting a health: can_send_message is none of AVAILABLE, LIMITED, BLOCKED")
	case len(h.Description) > 4096 || len(h.Solution) > 4096 || len(h.Info) > 4096:
		return errors.New("setting a health: a text is longer than 4,096 bytes")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.managed.health[h.ID]; !known && len(s.managed.health) >= maxHealth {
		return errors.New("setting a health: there are too many")
	}
	s.managed.health[h.ID] = h
	return nil
}

// manageControl adds the controls of management.
func (s *Server) manageControl(mux *http.ServeMux) {
	mux.HandleFunc("GET /_sim/calls", s.serveCalls)
	mux.HandleFunc("GET /_sim/media", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string][]MediaFile{"media": s.Media()})
	})
	mux.HandleFunc("PUT /_sim/media", s.serveExpire)
	mux.HandleFunc("PUT /_sim/media/{id}", s.serveExpire)
	control(mux, "PUT /_sim/strict_templates", func(_ *http.Request, in struct {
		On bool `json:"on"`
	}) error {
		s.StrictTemplates(in.On)
		return nil
	})
	control(mux, "PUT /_sim/strict_media", func(_ *http.Request, in struct {
		On   bool   `json:"on"`
		Gone string `json:"gone"`
	}) error {
		return s.StrictMedia(in.On, in.Gone)
	})
	control(mux, "PUT /_sim/links", func(_ *http.Request, in LinkFailure) error {
		s.FailLinks(in)
		return nil
	})
	control(mux, "PUT /_sim/templates", func(_ *http.Request, in struct {
		ReviewMS int64  `json:"review_ms"`
		Decision string `json:"decision"`
		Reason   string `json:"reason"`
		Max      int    `json:"max"`
		PerHour  int    `json:"per_hour"`
	}) error {
		return s.ReviewTemplates(TemplateReview{milliseconds(in.ReviewMS), in.Decision, in.Reason, in.Max, in.PerHour})
	})
	control(mux, "PUT /_sim/templates/{id}", func(r *http.Request, in struct {
		Status  string `json:"status"`
		Reason  string `json:"reason"`
		Quality string `json:"quality"`
	}) error {
		return s.SetTemplate(r.PathValue("id"), in.Status, in.Reason, in.Quality)
	})
	control(mux, "PUT /_sim/health_status", func(_ *http.Request, in Health) error { return s.SetHealth(in) })
}

// control adds a control request whose body is a T.
func control[T any](mux *http.ServeMux, pattern string, do func(*http.Request, T) error) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var in T
		if !readControl(w, r, &in) {
			return
		}
		if err := do(r, in); err != nil {
			controlError(w, http.StatusBadRequest, err.Error())
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

func (s *Server) serveExpire(w http.ResponseWriter, r *http.Request) {
	var in struct {
		ExpiresInMS *int64 `json:"expires_in_ms"`
	}
	if !readControl(w, r, &in) {
		return
	}
	if in.ExpiresInMS == nil || *in.ExpiresInMS < 0 || *in.ExpiresInMS > maxMediaAge.Milliseconds() {
		controlError(w, http.StatusBadRequest, "expires_in_ms is not from 0 to 30 days")
		return
	}
	if err := s.ExpireMedia(r.PathValue("id"), time.Duration(*in.ExpiresInMS)*time.Millisecond); err != nil {
		controlError(w, http.StatusBadRequest, err.Error())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// serveCalls pages through the calls; next is the after of the following page.
func (s *Server) serveCalls(w http.ResponseWriter, r *http.Request) {
	after, err := intParam(r.URL.Query(), "after", 0)
	limit, err2 := intParam(r.URL.Query(), "limit", 1000)
	if err := errors.Join(err, err2); err != nil {
		controlError(w, http.StatusBadRequest, err.Error())
		return
	}
	page := struct {
		Calls []Call `json:"calls"`
		Next  int64  `json:"next"`
	}{s.Calls(after, int(min(limit, 10_000))), after}
	if n := len(page.Calls); n > 0 {
		page.Next = page.Calls[n-1].Seq
	}
	writeJSON(w, http.StatusOK, page)
}
