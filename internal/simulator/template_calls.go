package simulator

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	maxUpsert     = 100 // languages of one request
	maxMigrated   = 500 // templates of one request (Meta's limit)
	nameLocked    = 30 * 24 * time.Hour
	maxRemoved    = 10_000
	creationsIn   = time.Hour
	maxTTL        = 2_592_000
	tooOften      = "The account has created too many templates in the last hour."
	tooMany       = "The account has as many templates as it can have."
	duplicateText = "The account has a template of that name in this language already."
)

// newTemplate reads a template from a call, but for its language.
func (s *Server) newTemplate(c *call) (*template, *graphError) {
	t := &template{waba: c.id, name: c.text("name"), category: c.choice("category", templateCategories...)}
	t.format = cmp.Or(c.choice("parameter_format", "POSITIONAL", "NAMED"), "POSITIONAL")
	t.ttl = c.number("message_send_ttl_seconds", 0, -1, maxTTL)
	c.flag("allow_category_change")
	switch {
	case c.fault != nil:
		return nil, c.fault
	case !templateName.MatchString(t.name):
		return nil, invalid(100, "Param name must be from 1 to 512 lower case letters, digits and underscores.")
	case t.category == "":
		return nil, invalid(100, "The parameter category is required.")
	}
	if library := c.text("library_template_name"); library != "" {
		return t, t.fromLibrary(c, library)
	}
	var fault *graphError
	if t.components, t.needs, fault = readComponents(c, t.category, t.format); fault != nil {
		return nil, fault
	}
	s.checkHeader(c)
	return t, c.fault
}

// checkHeader checks the handles of a header's example, where files must be ours.
func (s *Server) checkHeader(c *call) {
	var list []struct {
		Example struct {
			Handles []string `json:"header_handle"`
		} `json:"example"`
	}
	if c.object("components", &list); c.fault != nil {
		return
	}
	for _, one := range list {
		for _, handle := range one.Example.Handles {
			s.managed.checkHandle(c, "header_handle", handle)
		}
	}
}

// add checks that the WABA may have the template, and adds it.
func (s *Server) add(a *account, t *template, now time.Duration) *graphError {
	m := s.managed
	of := m.templatesOf(a.id)
	a.creations = slices.DeleteFunc(a.creations, func(at time.Duration) bool { return at <= now-creationsIn })
	removed, locked := a.removed[t.name]
	switch {
	case !languageLike.MatchString(t.language):
		return invalid(100, "Param language is not a language that WhatsApp has.")
	case slices.ContainsFunc(of, func(o *template) bool { return o.name == t.name && o.language == t.language }):
		return templateFault(subExists, "Content in this language already exists", duplicateText)
	case m.strictTemplates && locked && now < removed+nameLocked:
		return templateFault(subLocked, "Name was deleted", "The name of a deleted template cannot be used for 30 days.")
	case len(of) >= cmp.Or(m.review.Max, DefaultTemplates):
		return templateFault(subTooMany, "Template limit exceeded", tooMany)
	case m.review.PerHour > 0 && len(a.creations) >= m.review.PerHour:
		return coded(80008, 0, tooOften)
	}
	if m.review.PerHour > 0 {
		a.creations = append(a.creations, now)
	}
	t.id = s.newID(idTemplate)
	m.templates[t.id] = t
	s.submit(t, now)
	return nil
}

func (s *Server) createTemplate(c *call) (any, *graphError) {
	a, fault := s.wabaOf(c, true)
	if fault != nil {
		return nil, fault
	}
	t, fault := s.newTemplate(c)
	if fault != nil {
		return nil, fault
	}
	if t.language = c.text("language"); t.language == "" {
		return nil, invalid(100, "The parameter language is required.")
	}
	if fault := s.add(a, t, c.now); fault != nil {
		return nil, fault
	}
	return map[string]string{"id": t.id, "status": t.status, "category": t.category}, nil
}

// editTemplate answers POST /{template}: new components, category or time to live.
func (s *Server) editTemplate(c *call, t *template) (any, *graphError) {
	next := *t
	if category := c.choice("category", templateCategories...); category != "" && category != t.category {
		if t.status == templateApproved {
			return nil, templateFault(subStatus, "Category cannot be changed", "The category of an approved template cannot be changed.")
		}
		next.category, next.previousCategory = category, t.category
	}
	next.ttl = c.number("message_send_ttl_seconds", t.ttl, -1, maxTTL)
	if c.fault == nil && c.has("components") {
		var fault *graphError
		if next.components, next.needs, fault = readComponents(c, next.category, t.format); fault != nil {
			return nil, fault
		}
		s.checkHeader(c)
	}
	next.edits = slices.DeleteFunc(slices.Clone(t.edits), func(at time.Duration) bool { return at <= c.now-editsIn })
	approved := t.status == templateApproved
	switch {
	case c.fault != nil:
		return nil, c.fault
	case !c.has("components") && !c.has("category") && !c.has("message_send_ttl_seconds"):
		return nil, invalid(100, "One of the parameters components, category and message_send_ttl_seconds is required.")
	case !approved && t.status != templateRejected && t.status != templatePaused:
		return nil, templateFault(subStatus, "Template cannot be edited", "Only an approved, rejected or paused template can be edited.")
	case s.managed.strictTemplates && approved && !next.mayEdit(c.now):
		return nil, templateFault(subStatus, "Template cannot be edited", "An approved template can be edited once a day and ten times in 30 days.")
	}
	if approved {
		next.edits = append(next.edits, c.now)
	}
	*t = next
	s.submit(t, c.now)
	return success, nil
}

func (t *template) mayEdit(now time.Duration) bool {
	n := len(t.edits)
	return n < maxEdits && (n == 0 || t.edits[n-1] <= now-24*time.Hour)
}

// deleteTemplates answers DELETE /{waba}/message_templates: all languages of a name, or
// those with the ids given beside it.
func (s *Server) deleteTemplates(c *call) (any, *graphError) {
	a, fault := s.wabaOf(c, true)
	if fault != nil {
		return nil, fault
	}
	name, ids := c.text("name"), c.list("hsm_ids")
	if id := c.text("hsm_id"); id != "" {
		ids = append(ids, id)
	}
	switch {
	case c.fault != nil:
		return nil, c.fault
	case name == "" && !c.has("hsm_ids"):
		return nil, invalid(100, "The parameter name is required.")
	}
	var doomed []*template
	for _, t := range s.managed.templatesOf(c.id) {
		if (name == "" || t.name == name) && (len(ids) == 0 || slices.Contains(ids, t.id)) {
			doomed = append(doomed, t)
		}
	}
	if len(doomed) == 0 {
		return nil, templateFault(subNotFound, "Message Template Not Found", "The account has no such template.")
	}
	for _, t := range doomed {
		if t.status == templateDisabled {
			return nil, templateFault(subStatus, "Template cannot be deleted", "A disabled template cannot be deleted.")
		}
	}
	for _, t := range doomed {
		s.withdraw(t)
		delete(s.managed.templates, t.id)
		if t.status == templateApproved && len(a.removed) < maxRemoved {
			if a.removed == nil {
				a.removed = map[string]time.Duration{}
			}
			a.removed[t.name] = c.now
		}
	}
	return success, nil
}

// upsertTemplates answers POST /{waba}/upsert_message_templates: an authentication
// template in each of the languages, new or in place of what was there.
func (s *Server) upsertTemplates(c *call) (any, *graphError) {
	a, fault := s.wabaOf(c, false)
	if fault != nil {
		return nil, fault
	}
	languages := c.list("languages")
	if len(languages) == 0 || len(languages) > maxUpsert {
		c.wrong(100, "Param languages must have from 1 to %d elements.", maxUpsert)
	}
	first, fault := s.newTemplate(c)
	switch {
	case fault != nil:
		return nil, fault
	case first.category != "AUTHENTICATION":
		return nil, invalid(100, "Param category must be one of {AUTHENTICATION}")
	}
	data := []any{}
	for _, language := range languages {
		t := *first
		t.language = language
		of := s.managed.templatesOf(a.id)
		if i := slices.IndexFunc(of, func(o *template) bool { return o.name == t.name && o.language == language }); i >= 0 {
			old := of[i]
			s.withdraw(old)
			old.components, old.needs, old.ttl = t.components, t.needs, t.ttl
			s.submit(old, c.now)
			t = *old
		} else if fault := s.add(a, &t, c.now); fault != nil {
			return nil, fault
		}
		data = append(data, map[string]string{"id": t.id, "status": t.status, "language": language})
	}
	return map[string]any{"data": data}, nil
}

// migrateTemplates answers POST /{waba}/migrate_message_templates: it copies templates of
// another WABA, a page of them or those named. It answers the ids they have there.
func (s *Server) migrateTemplates(c *call) (any, *graphError) {
	a, fault := s.wabaOf(c, false)
	if fault != nil {
		return nil, fault
	}
	source := c.required("source_waba_id", maxID)
	count := int(c.number("count", maxMigrated, 1, maxMigrated))
	number, ids := int(c.number("page_number", 0, 0, 10_000)), c.list("template_ids")
	switch {
	case c.fault != nil:
		return nil, c.fault
	case s.scopes.wabas[source] == nil:
		return nil, errUnknownObject
	case len(ids) > maxMigrated:
		return nil, invalid(100, fmt.Sprintf("Param template_ids must have at most %d elements.", maxMigrated))
	}
	of := s.managed.templatesOf(source)
	if len(ids) > 0 {
		of = slices.DeleteFunc(of, func(t *template) bool { return !slices.Contains(ids, t.id) })
	} else {
		from := min(number*count, len(of))
		of = of[from:min(from+count, len(of))]
	}
	migrated, failed := []string{}, map[string]string{}
	for _, t := range of {
		if t.status != templateApproved || t.quality != "" && t.quality != "GREEN" && t.quality != "UNKNOWN" {
			failed[t.id] = "Template is not approved or not of good quality"
			continue
		}
		copied := *t
		copied.waba, copied.edits, copied.quality = a.id, nil, ""
		if fault := s.add(a, &copied, c.now); fault != nil {
			failed[t.id] = fault.details
			continue
		}
		migrated = append(migrated, t.id)
	}
	return map[string]any{"migrated_templates": migrated, "failed_templates": failed}, nil
}

// unpauseTemplate answers POST /{template}/unpause.
func (s *Server) unpauseTemplate(c *call) (any, *graphError) {
	t := s.managed.templates[c.id]
	switch {
	case t == nil:
		return nil, errUnknownObject
	case t.status != templatePaused:
		return map[string]any{"success": false, "reason": "The template is not paused."}, nil
	}
	t.status, t.changed = templateApproved, c.now
	news := t.news(templateApproved, "")
	news["other_info"] = map[string]string{"title": "UNPAUSED", "description": "The template is not paused any more."}
	s.notifyLater(templateField, t.waba, news, 0)
	return success, nil
}

// compareTemplates answers GET /{template}/compare with what the ledger knows: how often
// each was sent since the last reset, whatever the window.
func (s *Server) compareTemplates(c *call) (any, *graphError) {
	t, ids := s.managed.templates[c.id], c.list("template_ids")
	start, end := c.number("start", 0, 1, 1<<53), c.number("end", 0, 1, 1<<53)
	if start > 100_000_000_000 { // Meta's example has milliseconds
		start, end = start/1000, end/1000
	}
	days := (end - start + 3600) / 86_400
	switch {
	case t == nil:
		return nil, errUnknownObject
	case c.fault != nil:
		return nil, c.fault
	case len(ids) != 1:
		return nil, invalid(100, "Param template_ids must have one element.")
	case !slices.Contains([]int64{7, 30, 60, 90}, days):
		return nil, invalid(100, "The time from start to end must be 7, 30, 60 or 90 days.")
	}
	other := s.managed.templates[ids[0]]
	if other == nil || other.waba != t.waba {
		return nil, errUnknownObject
	}
	type value struct {
		Key   string `json:"key"`
		Value any    `json:"value"`
	}
	var sends, reasons []value
	for _, one := range []*template{t, other} {
		sends = append(sends, value{one.id, s.sendsOf(one)})
		reasons = append(reasons, value{one.id, "UNKNOWN_BLOCK_REASON"})
	}
	return map[string]any{"data": []any{
		map[string]any{"metric": "BLOCK_RATE", "type": "RELATIVE", "order_by_relative_metric": []string{t.id, other.id}},
		map[string]any{"metric": "MESSAGE_SENDS", "type": "NUMBER_VALUES", "number_values": sends},
		map[string]any{"metric": "TOP_BLOCK_REASON", "type": "STRING_VALUES", "string_values": reasons},
	}}, nil
}

// sendsOf is how often the ledger has a template's name from numbers of its WABA.
func (s *Server) sendsOf(t *template) (n int64) {
	i, ok := s.ledger.templates.index[t.name]
	if !ok {
		return 0
	}
	for key, d := range s.ledger.deliveries {
		if key.template == i && s.scopes.byIndex[key.phone].waba.id == t.waba {
			n += d.accepted
		}
	}
	return n
}

// previews of authentication templates, by language: the body, the advice, the footer
// and the texts of the buttons
var previews = []struct{ language, body, advice, footer, copyText, autofill string }{
	{"en_US", "*{{1}}* is your verification code.", " For your security, do not share this code.", "This code expires in %d minutes.", "Copy code", "Autofill"},
	{"es_ES", "*{{1}}* es tu código de verificación.", " Por tu seguridad, no lo compartas.", "Este código caduca en %d minutos.", "Copiar código", "Autocompletar"},
	{"pt_BR", "*{{1}}* é o seu código de verificação.", " Para sua segurança, não o compartilhe.", "Este código expira em %d minutos.", "Copiar código", "Preencher"},
	{"fr", "*{{1}}* est votre code de vérification.", " Pour votre sécurité, ne le partagez pas.", "Ce code expire dans %d minutes.", "Copier le code", "Remplir"},
	{"de", "*{{1}}* ist dein Bestätigungscode.", " Gib ihn zu deiner Sicherheit nicht weiter.", "Dieser Code läuft in %d Minuten ab.", "Code kopieren", "Ausfüllen"},
}

func (s *Server) previewTemplates(c *call) (any, *graphError) {
	if _, fault := s.wabaOf(c, false); fault != nil {
		return nil, fault
	}
	if c.choice("category", "AUTHENTICATION") == "" {
		c.wrong(100, "The parameter category is required.")
	}
	if c.choice("button_types", "OTP") == "" {
		c.wrong(100, "The parameter button_types is required.")
	}
	wanted := append(c.list("language"), c.list("languages")...) // Meta's page has both names
	minutes := c.number("code_expiration_minutes", 0, 1, 90)
	advice := c.flag("add_security_recommendation")
	if c.fault != nil {
		return nil, c.fault
	}
	data := []any{}
	for _, p := range previews {
		if len(wanted) > 0 && !slices.ContainsFunc(wanted, func(w string) bool { return strings.EqualFold(w, p.language) }) {
			continue
		}
		one := map[string]any{
			"body": p.body, "language": p.language, "buttons": []any{map[string]string{"autofill_text": p.autofill, "text": p.copyText}},
		}
		if advice {
			one["body"] = p.body + p.advice
		}
		if minutes > 0 {
			one["footer"] = fmt.Sprintf(p.footer, minutes)
		}
		data = append(data, one)
	}
	return map[string]any{"data": data}, nil
}

// rawJSON is for texts of ours that are JSON.
func rawJSON(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil { // only our own plain values come here
		return json.RawMessage("null")
	}
	return raw
}
