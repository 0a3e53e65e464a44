package dispatch

import (
	"strings"
	"time"

	"wagate/internal/message"
	"wagate/internal/store"
)

// codeTemplateDisabled is Meta's code of a template that is disabled for good: what waits for it fails.
const codeTemplateDisabled = 132016

// selection is the set of pauses that concern some messages of a lane only, by scope and value. It is never changed:
// another one takes its place.
type selection struct {
	pauses map[scopeKey]selected
	scopes map[string]bool // those that occur, so that most messages are through after a look or two
}

type selected struct {
	until time.Time
	code  int
}

// selective says whether a scope of pauses concerns some messages of a lane only.
func selective(scope string) bool {
	switch scope {
	case store.HoldTemplate, store.HoldFlow, store.HoldTag, store.HoldKey, store.HoldPriority:
		return true
	}
	return false
}

// reselect makes the selection anew from the backoffs. d.mu is held.
func (d *Dispatcher) reselect() {
	s := &selection{pauses: map[scopeKey]selected{}, scopes: map[string]bool{}}
	now := time.Now()
	for key, b := range d.backoffs {
		if selective(key.scope) && b.until.After(now) {
			s.pauses[key] = selected{b.until, b.code}
			s.scopes[key.scope] = true
		}
	}
	d.selection.Store(s)
}

// inForce says whether a pause still holds its messages. That of a disabled template does not: they fail.
func (s *selection) inForce(scope, value string, now time.Time) bool {
	p, ok := s.pauses[scopeKey{scope, value}]
	return ok && p.until.After(now) && p.code != codeTemplateDisabled
}

// of finds a pause that concerns a message, and false when none does. flow gives the flow that the message opens.
func (s *selection) of(m *store.Outbound, flow func() string, now time.Time) (key scopeKey, code int, found bool) {
	if len(s.scopes) == 0 {
		return scopeKey{}, 0, false
	}
	look := func(scope, value string) bool {
		p, ok := s.pauses[scopeKey{scope, value}]
		if ok && p.until.After(now) {
			key, code, found = scopeKey{scope, value}, p.code, true
		}
		return found
	}
	if s.scopes[store.HoldPriority] && look(store.HoldPriority, message.Priority(m.Priority).String()) {
		return key, code, found
	}
	if s.scopes[store.HoldKey] && look(store.HoldKey, m.KeyID.String()) {
		return key, code, found
	}
	if s.scopes[store.HoldTemplate] && m.TemplateName != "" {
		for _, value := range templateValues(m.WABAID, m.TemplateName, m.TemplateLanguage) {
			if look(store.HoldTemplate, value) {
				return key, code, found
			}
		}
	}
	if s.scopes[store.HoldTag] {
		for name, value := range m.Tags {
			if look(store.HoldTag, name) || look(store.HoldTag, name+"="+value) {
				return key, code, found
			}
		}
	}
	if s.scopes[store.HoldFlow] && m.Type == "interactive" {
		if id := flow(); id != "" && (look(store.HoldFlow, m.WABAID+":"+id) || look(store.HoldFlow, id)) {
			return key, code, found
		}
	}
	return scopeKey{}, 0, false
}

// templateValues are the ways in which a pause can name a template: with or without language and WABA.
func templateValues(waba, name, language string) []string {
	values := []string{name, waba + ":" + name}
	if language != "" {
		values = append(values, name+"/"+language, waba+":"+name+"/"+language)
	}
	return values
}

// templateValue names one template of one WABA.
func templateValue(m *store.Outbound) string {
	return strings.TrimSuffix(m.WABAID+":"+m.TemplateName+"/"+m.TemplateLanguage, "/")
}
