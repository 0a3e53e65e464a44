package simulator

import (
	"errors"
	"fmt"
	"net/http"
)

const maxRules = 1000

// ByAnswer and ByWebhook say how a rule's error reaches the client.
const (
	ByAnswer  = "answer"
	ByWebhook = "webhook"
)

// ErrorRule asks for an error instead of what would happen to the messages it matches.
type ErrorRule struct {
	// Phone (a phone number id), Template (a name) and To (a number in any spelling,
	// compared by its WhatsApp ID) say which messages; empty matches all.
	Phone    string `json:"phone,omitempty"`
	Template string `json:"template,omitempty"`
	To       string `json:"to,omitempty"`
	// Code and Subcode are Meta's; HTTPStatus 0 and an empty Title are those of Meta's
	// table for the code.
	Code       int    `json:"code"`
	Subcode    int    `json:"subcode,omitempty"`
	HTTPStatus int    `json:"http_status,omitempty"`
	Title      string `json:"title,omitempty"`
	Details    string `json:"details,omitempty"`
	// Transient sets is_transient in the answer.
	Transient bool `json:"is_transient,omitempty"`
	// NoBody answers the HTTP status alone, as an edge in front of the API does; Code
	// then counts only in the records here.
	NoBody bool `json:"no_body,omitempty"`
	// Times is how many messages get it; 0 means until the rule is removed.
	Times int `json:"times,omitempty"`
	// By is ByAnswer (also when empty): refused at once. Or ByWebhook: accepted, if the
	// limits allow, and then a failed status in place of all others.
	By string `json:"by,omitempty"`
	// SentFirst puts a sent status before the failed one.
	SentFirst bool `json:"sent_first,omitempty"`
	// RetryAfterS is the answer's Retry-After in seconds; 0 means none.
	RetryAfterS int `json:"retry_after_s,omitempty"`
	// RegainMinutes is estimated_time_to_regain_access in the answer's
	// X-Business-Use-Case-Usage; 0 means none.
	RegainMinutes int `json:"regain_minutes,omitempty"`
}

// ErrorState is a rule in force and how many messages it has met.
type ErrorState struct {
	ID int64 `json:"id"`
	ErrorRule
	Hits int `json:"hits"`
}

type errorRule struct {
	ErrorState
	to      string // WhatsApp ID
	fault   *graphError
	failure *hookError
}

func (r ErrorRule) check() error {
	switch {
	case r.Phone != "" && !idLike(r.Phone):
		return errors.New("phone is not a phone number id (digits only, 32 at most)")
	case len(r.Template) > maxName || len(r.Title) > maxName || len(r.Details) > 4096:
		return errors.New("template, title or details is too long")
	case r.To != "" && len(digitsOf(r.To)) < 5:
		return errors.New("to is not a phone number")
	case r.Code < 0 || r.Code > 99_999_999 || r.Subcode < 0 || r.Subcode > 99_999_999:
		return errors.New("code or subcode is not from 0 to 99,999,999")
	case r.HTTPStatus != 0 && (r.HTTPStatus < 400 || r.HTTPStatus > 599):
		return errors.New("http_status is not from 400 to 599")
	case r.NoBody && r.HTTPStatus == 0:
		return errors.New("no_body needs an http_status")
	case r.Times < 0 || r.Times > 1_000_000:
		return errors.New("times is not from 0 (until removed) to 1,000,000")
	case r.By != "" && r.By != ByAnswer && r.By != ByWebhook:
		return errors.New("by is neither answer nor webhook")
	case r.By == ByWebhook && (r.HTTPStatus != 0 || r.RetryAfterS != 0 || r.RegainMinutes != 0 || r.Transient || r.NoBody || r.Subcode != 0):
		return errors.New("http_status, subcode, is_transient, no_body, retry_after_s and regain_minutes are of an answer, not of a webhook")
	case r.By != ByWebhook && r.SentFirst:
		return errors.New("sent_first is of a webhook, not of an answer")
	case r.RetryAfterS < 0 || r.RetryAfterS > 86_400:
		return errors.New("retry_after_s is not from 0 to 86,400")
	case r.RegainMinutes < 0 || r.RegainMinutes > 100_000:
		return errors.New("regain_minutes is not from 0 to 100,000")
	}
	return nil
}

func newRule(id int64, r ErrorRule) *errorRule {
	fault := coded(r.Code, r.Subcode, r.Details)
	title := r.Title
	if title == "" {
		_, title = codeOf(r.Code)
	} else {
		fault.message = fmt.Sprintf("(#%d) %s", r.Code, title)
	}
	if r.HTTPStatus != 0 {
		fault.status = r.HTTPStatus
	}
	fault.transient, fault.noBody, fault.retryAfter, fault.regain = r.Transient, r.NoBody, r.RetryAfterS, r.RegainMinutes
	return &errorRule{
		ErrorState: ErrorState{ID: id, ErrorRule: r}, to: waIDOf(digitsOf(r.To)), fault: fault,
		failure: &hookError{Code: r.Code, Title: title, Message: title, ErrorData: hookErrorData{r.Details}, Href: errorHref},
	}
}

func (r *errorRule) matches(p *phone, m *message) bool {
	return (r.Phone == "" || r.Phone == p.id) && (r.Template == "" || r.Template == m.template) && (r.to == "" || r.to == m.waID)
}

// rules are the errors on demand. The Server's mutex guards them.
type rules struct {
	list   []*errorRule
	lastID int64
}

// find is the first set of the rules that match; nil for none.
func (r *rules) find(p *phone, m *message) *errorRule {
	for _, rule := range r.list {
		if rule.matches(p, m) {
			return rule
		}
	}
	return nil
}

// hit counts a message and removes a rule that has done its times.
func (r *rules) hit(rule *errorRule) {
	rule.Hits++
	if rule.Times == 0 || rule.Hits < rule.Times {
		return
	}
	for i := range r.list {
		if r.list[i] == rule {
			r.list = append(r.list[:i], r.list[i+1:]...)
			return
		}
	}
}

// SetError adds a rule and returns its number. Of several that match a message the one
// set first counts, before the recipient's last digits. It holds until its times are
// over or ClearErrors; Reset keeps it.
func (s *Server) SetError(rule ErrorRule) (id int64, err error) {
	if err := rule.check(); err != nil {
		return 0, fmt.Errorf("setting an error: %w", err)
	}
	if rule.By == "" {
		rule.By = ByAnswer
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.rules.list) >= maxRules {
		return 0, fmt.Errorf("setting an error: there are %d already", maxRules)
	}
	s.rules.lastID++
	s.rules.list = append(s.rules.list, newRule(s.rules.lastID, rule))
	return s.rules.lastID, nil
}

// Errors are the rules in force, in the order in which they count.
func (s *Server) Errors() []ErrorState {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]ErrorState, 0, len(s.rules.list))
	for _, r := range s.rules.list {
		out = append(out, r.ErrorState)
	}
	return out
}

// ClearErrors removes all rules. Messages already accepted still fail by webhook.
func (s *Server) ClearErrors() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules.list = nil
}

func (s *Server) serveSetError(w http.ResponseWriter, r *http.Request) {
	var in struct {
		ErrorRule
		Code *int `json:"code"`
	}
	if !readControl(w, r, &in) {
		return
	}
	switch {
	case in.Code != nil:
		in.ErrorRule.Code = *in.Code
	case !in.NoBody:
		controlError(w, http.StatusBadRequest, "code is missing")
		return
	}
	id, err := s.SetError(in.ErrorRule)
	if err != nil {
		controlError(w, http.StatusBadRequest, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, map[string]int64{"id": id})
}
