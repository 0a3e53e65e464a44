package simulator

import (
	"cmp"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// statuses of a template
const (
	templateApproved = "APPROVED"
	templatePending  = "PENDING"
	templateRejected = "REJECTED"
	templatePaused   = "PAUSED"
	templateDisabled = "DISABLED"
)

const (
	// DefaultTemplates is how many templates a WABA can have, each language counted: as
	// many as Meta lets a verified business have.
	DefaultTemplates = 6000

	templateField = "message_template_status_update"
	editsIn       = 30 * 24 * time.Hour
	maxEdits      = 10 // of an approved template in editsIn, and one in a day
)

var (
	templateName = regexp.MustCompile(`^[a-z0-9_]{1,512}$`)
	languageLike = regexp.MustCompile(`^[a-z]{2,3}(_[A-Za-z0-9]{2,4})?$`)

	templateCategories = []string{"AUTHENTICATION", "MARKETING", "UTILITY"}
	templateStatuses   = strings.Fields("APPROVED PENDING REJECTED PAUSED DISABLED IN_APPEAL LIMIT_EXCEEDED ARCHIVED PENDING_DELETION DELETED")
)

// template is one language of a message template.
type template struct {
	id, waba, name, language, category string
	previousCategory                   string
	format                             string // POSITIONAL or NAMED
	status, reason, quality            string
	library                            string
	ttl                                int64 // seconds; 0: none was given
	components                         json.RawMessage
	needs                              needs
	changed                            time.Duration
	edits                              []time.Duration // of it while approved

	// The review in progress, while the status is PENDING.
	decideAt time.Duration
	decision TemplateReview
	notice   *pending
}

type templateView struct {
	*template
	s *Server
}

// templateNode is what can be asked of a template.
var templateNode = node[templateView]{
	name:     "WhatsAppMessageTemplate",
	defaults: "name,parameter_format,components,language,status,category,previous_category,library_template_name,message_send_ttl_seconds",
	fields: map[string]func(templateView) any{
		"id":                       func(t templateView) any { return t.id },
		"name":                     func(t templateView) any { return t.name },
		"language":                 func(t templateView) any { return t.language },
		"status":                   func(t templateView) any { return t.status },
		"category":                 func(t templateView) any { return t.category },
		"previous_category":        func(t templateView) any { return given(t.previousCategory) },
		"correct_category":         func(templateView) any { return nil },
		"sub_category":             func(templateView) any { return nil },
		"parameter_format":         func(t templateView) any { return t.format },
		"components":               func(t templateView) any { return t.components },
		"library_template_name":    func(t templateView) any { return given(t.library) },
		"rejected_reason":          func(t templateView) any { return cmp.Or(t.reason, "NONE") },
		"last_updated_time":        func(t templateView) any { return t.s.stamp(t.changed) },
		"health_status":            func(t templateView) any { return t.health() },
		"message_send_ttl_seconds": func(t templateView) any { return t.secondsToLive() },
		"quality_score": func(t templateView) any {
			return map[string]any{"score": cmp.Or(t.quality, "UNKNOWN"), "date": t.s.epoch.Add(t.changed).Unix()}
		},
		"cta_url_link_tracking_opted_out": func(templateView) any { return false },
	},
}

func (t *template) secondsToLive() any {
	if t.ttl == 0 {
		return nil
	}
	return t.ttl
}

func (t templateView) health() any {
	return t.s.healthOf("MESSAGE_TEMPLATE", t.id, t.waba, t.s.scopes.appOf(t.waba).id)
}

// stamp is a time in the form of Graph answers.
func (s *Server) stamp(at time.Duration) string {
	return s.epoch.Add(at).UTC().Format("2006-01-02T15:04:05-0700")
}

// TemplateReview is what becomes of templates that are created or edited from now on.
type TemplateReview struct {
	// Delay is how long they are PENDING; 0 decides at once.
	Delay time.Duration
	// Decision is APPROVED (also when empty) or REJECTED, then for Reason, such as
	// INVALID_FORMAT.
	Decision, Reason string
	// Max is how many a WABA can have; 0 means DefaultTemplates.
	Max int
	// PerHour is how many a WABA can create in an hour; 0 means no limit (Meta: 100).
	PerHour int
}

// submit starts the review of a template; it ends at once without a delay. The webhook
// that tells of the end is due when it ends.
func (s *Server) submit(t *template, now time.Duration) {
	m := s.managed
	t.changed, t.status, t.reason = now, templatePending, ""
	t.decision = m.review
	t.decideAt = now + m.review.Delay
	t.notice = s.notifyLater(templateField, t.waba, t.news(cmp.Or(t.decision.Decision, templateApproved), t.decision.Reason), m.review.Delay)
	m.reviewing = append(m.reviewing, t)
	m.decide(now)
}

// decide ends the reviews whose time has come. All that reads a template's status calls
// it first.
func (m *managed) decide(now time.Duration) {
	if len(m.reviewing) == 0 {
		return
	}
	m.reviewing = slices.DeleteFunc(m.reviewing, func(t *template) bool {
		if t.decideAt > now {
			return false
		}
		t.status, t.reason, t.notice = cmp.Or(t.decision.Decision, templateApproved), t.decision.Reason, nil
		t.changed = t.decideAt
		return true
	})
}

// withdraw ends a template's review without a decision, and so without its webhook.
func (s *Server) withdraw(t *template) {
	m := s.managed
	m.reviewing = slices.DeleteFunc(m.reviewing, func(other *template) bool { return other == t })
	if t.notice != nil {
		s.queue.cancel(t.notice)
		t.notice = nil
	}
}

// news is the value of a message_template_status_update.
func (t *template) news(event, reason string) map[string]any {
	v := map[string]any{
		"event": event, "message_template_id": json.Number(t.id), "message_template_name": t.name,
		"message_template_language": t.language, "message_template_category": t.category, "reason": cmp.Or(reason, "NONE"),
	}
	switch event {
	case templatePaused:
		v["other_info"] = map[string]string{"title": "FIRST_PAUSE", "description": "The template is paused for its low quality."}
	case templateDisabled:
		v["other_info"] = map[string]string{"title": "DISABLED", "description": "The template is disabled for its low quality."}
	case templateRejected:
		if reason == "INVALID_FORMAT" {
			v["rejection_info"] = map[string]string{"reason": "The template's format is not valid.", "recommendation": "Look at its parameters."}
		}
	}
	return v
}

// templatesOf are a WABA's templates in the order of their ids, which is that of their
// creation.
func (m *managed) templatesOf(waba string) []*template {
	var of []*template
	for _, id := range slices.Sorted(maps.Keys(m.templates)) {
		if t := m.templates[id]; t.waba == waba {
			of = append(of, t)
		}
	}
	return of
}

// listTemplates answers GET /{waba}/message_templates, with Meta's filters.
func (s *Server) listTemplates(c *call) (any, *graphError) {
	if _, fault := s.wabaOf(c, true); fault != nil {
		return nil, fault
	}
	name, language := c.text("name"), c.text("language")
	status, category := c.choice("status", templateStatuses...), c.choice("category", templateCategories...)
	content, both := strings.ToLower(c.text("content")), strings.ToLower(c.text("name_or_content"))
	quality := strings.ToUpper(c.text("quality_score"))
	if c.fault != nil {
		return nil, c.fault
	}
	all := []templateView{}
	for _, t := range s.managed.templatesOf(c.id) {
		switch {
		case name != "" && t.name != name, language != "" && t.language != language,
			status != "" && t.status != status, category != "" && t.category != category,
			content != "" && !strings.Contains(t.needs.texts, content),
			both != "" && !strings.Contains(t.name, both) && !strings.Contains(t.needs.texts, both),
			quality != "" && cmp.Or(t.quality, "UNKNOWN") != quality:
			continue
		}
		all = append(all, templateView{t, s})
	}
	return templateNode.page(c, all, func(t templateView) string { return t.id })
}
