package simulator

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
)

// phoneView is a phone number as calls see it.
type phoneView struct {
	*phone
	s *Server
}

// phoneNode is what can be asked of a phone number; without fields Meta answers the
// defaults.
var phoneNode = node[phoneView]{
	name:     "WhatsAppBusinessPhoneNumber",
	defaults: "verified_name,code_verification_status,display_phone_number,quality_rating,platform_type,throughput,webhook_configuration",
	fields: map[string]func(phoneView) any{
		"id":                       func(p phoneView) any { return p.id },
		"display_phone_number":     func(p phoneView) any { return p.display },
		"verified_name":            func(p phoneView) any { return cmp.Or(p.cfg.VerifiedName, "Simulated "+p.id) },
		"quality_rating":           func(p phoneView) any { return cmp.Or(p.cfg.QualityRating, "GREEN") },
		"status":                   func(p phoneView) any { return cmp.Or(p.state().status(), p.cfg.Status, "CONNECTED") },
		"throughput":               func(p phoneView) any { return map[string]string{"level": cmp.Or(p.cfg.Throughput, "STANDARD")} },
		"messaging_limit_tier":     func(p phoneView) any { return cmp.Or(p.cfg.MessagingLimit, "TIER_UNLIMITED") },
		"name_status":              func(phoneView) any { return "APPROVED" },
		"code_verification_status": func(p phoneView) any { return cmp.Or(p.state().verification, "VERIFIED") },
		"platform_type":            func(p phoneView) any { return p.state().platform() },
		"account_mode":             func(phoneView) any { return "LIVE" },
		"is_pin_enabled":           func(p phoneView) any { return p.state().pin != "" },
		"webhook_configuration":    func(p phoneView) any { return p.s.webhooksOf(p.phone) },
		"health_status":            func(p phoneView) any { return p.s.healthOf("PHONE_NUMBER", p.id, p.waba.id, p.app.id) },

		"is_official_business_account":              func(phoneView) any { return false },
		"whatsapp_business_manager_messaging_limit": func(p phoneView) any { return cmp.Or(p.cfg.MessagingLimit, "TIER_UNLIMITED") },
	},
}

// serveUnknown answers what no route knows.
func (s *Server) serveUnknown(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/_sim/") {
		controlError(w, http.StatusNotFound, "no such control route")
		return
	}
	s.writeError(w, errUnknownObject)
}

// readNode answers GET /{version}/{id}: a phone number; a WABA, whose reading is a
// management call; or what calls have made.
func (s *Server) readNode(c *call) (any, *graphError) {
	m := s.managed
	if p := s.scopes.phones[c.id]; p != nil {
		return phoneNode.answer(c, phoneView{p, s})
	}
	if s.scopes.wabas[c.id] != nil {
		a, fault := s.wabaOf(c, true)
		if fault != nil {
			return nil, fault
		}
		return wabaNode.answer(c, wabaView{a, s})
	}
	if t := m.templates[c.id]; t != nil {
		return templateNode.answer(c, templateView{t, s})
	}
	if f := m.flows[c.id]; f != nil {
		return flowNode.answer(c, flowView{f, s, c})
	}
	switch {
	case c.id == libraryPath:
		return s.listLibrary(c)
	case strings.HasPrefix(c.id, uploadPrefix):
		return s.readUpload(c)
	}
	return s.readMedia(c)
}

// servePost answers POST /{version}/{id}: the bytes of an upload, or a change of a node.
func (s *Server) servePost(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.PathValue("id"), uploadPrefix) {
		s.serveGraph(w, r, s.updateNode)
		return
	}
	c := &call{r: r, id: r.PathValue("id")}
	switch {
	case !c.pathOK():
		s.serveUnknown(w, r)
	case !tokenOK(r, s.settings.Load().token):
		s.answerCall(w, c, nil, errToken)
	default:
		body, fault := s.receiveUpload(c)
		s.answerCall(w, c, body, fault)
	}
}

func (s *Server) updateNode(c *call) (any, *graphError) {
	m := s.managed
	if t := m.templates[c.id]; t != nil {
		return s.editTemplate(c, t)
	}
	if f := m.flows[c.id]; f != nil {
		return s.updateFlow(c, f)
	}
	return s.updateNumber(c)
}

func (s *Server) deleteNode(c *call) (any, *graphError) {
	if f := s.managed.flows[c.id]; f != nil {
		return s.deleteFlow(f)
	}
	return s.deleteMedia(c)
}

// listPhoneNumbers answers GET /{version}/{waba}/phone_numbers, by id and in pages.
func (s *Server) listPhoneNumbers(c *call) (any, *graphError) {
	if _, fault := s.wabaOf(c, true); fault != nil {
		return nil, fault
	}
	var of []phoneView
	for _, p := range s.scopes.byIndex {
		if p.waba.id == c.id {
			of = append(of, phoneView{p, s})
		}
	}
	slices.SortFunc(of, func(a, b phoneView) int { return cmp.Compare(a.id, b.id) })
	return phoneNode.page(c, of, func(p phoneView) string { return p.id })
}

// manage counts a management call of a WABA; the caller holds the lock.
func (s *Server) manage(waba string) (usageHeaders, *graphError) {
	arrival := s.scopes.monotone(s.now())
	fault := s.scopes.manage(waba, arrival)
	if fault != nil {
		s.ledger.totals.ThrottledManagement++
		s.refusals.add(Refusal{AtMS: arrival.Milliseconds(), Scope: scopeManagement, ID: waba, Code: fault.code})
	} else {
		s.ledger.totals.ManagementCalls++
	}
	sc := shared(s.scopes.management, waba)
	return s.usageOf(s.scopes.appOf(waba), waba, useManagement, sc, sc.limit(s.scopes.defManag), fault, arrival), fault
}

// appOf is the app of a WABA's first phone number.
func (s *scopes) appOf(waba string) *scope {
	for _, p := range s.byIndex {
		if p.waba.id == waba {
			return p.app
		}
	}
	return shared(s.apps, "")
}
