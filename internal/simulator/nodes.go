package simulator

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	defaultPage = 25 // phone numbers of one answer, as in the Graph API
	maxPage     = 1000

	// fields of a phone number that Meta answers when the request names none
	defaultFields = "verified_name,code_verification_status,display_phone_number,quality_rating,platform_type,throughput,webhook_configuration"
)

// phoneFields are what can be asked of a phone number.
var phoneFields = map[string]func(*phone) any{
	"id":                       func(p *phone) any { return p.id },
	"display_phone_number":     func(p *phone) any { return p.display },
	"verified_name":            func(p *phone) any { return cmp.Or(p.cfg.VerifiedName, "Simulated "+p.id) },
	"quality_rating":           func(p *phone) any { return cmp.Or(p.cfg.QualityRating, "GREEN") },
	"status":                   func(p *phone) any { return cmp.Or(p.cfg.Status, "CONNECTED") },
	"throughput":               func(p *phone) any { return map[string]string{"level": cmp.Or(p.cfg.Throughput, "STANDARD")} },
	"messaging_limit_tier":     func(p *phone) any { return cmp.Or(p.cfg.MessagingLimit, "TIER_UNLIMITED") },
	"name_status":              func(*phone) any { return "APPROVED" },
	"code_verification_status": func(*phone) any { return "VERIFIED" },
	"platform_type":            func(*phone) any { return "CLOUD_API" },
	"account_mode":             func(*phone) any { return "LIVE" },
	"webhook_configuration":    func(*phone) any { return map[string]string{} },
	"health_status":            func(*phone) any { return map[string]string{"can_send_message": "AVAILABLE"} },

	"is_official_business_account":              func(*phone) any { return false },
	"whatsapp_business_manager_messaging_limit": func(p *phone) any { return cmp.Or(p.cfg.MessagingLimit, "TIER_UNLIMITED") },
}

// readFields reads a fields parameter: names, each with {…} or .method(…) after it if it
// likes. It says which name is none of a phone number.
func readFields(text string) ([]string, *graphError) {
	if text == "" {
		text = defaultFields
	}
	names := []string{"id"}
	depth, start := 0, 0
	for i := 0; i <= len(text); i++ {
		switch {
		case i < len(text) && (text[i] == '{' || text[i] == '('):
			depth++
			continue
		case i < len(text) && (text[i] == '}' || text[i] == ')'):
			depth--
			continue
		case i < len(text) && (text[i] != ',' || depth > 0):
			continue
		}
		name := strings.TrimSpace(text[start:i])
		if cut := strings.IndexAny(name, "{.("); cut >= 0 {
			name = name[:cut]
		}
		start = i + 1
		if _, ok := phoneFields[name]; !ok || depth != 0 {
			return nil, &graphError{
				status: http.StatusBadRequest, code: 100, details: "Check the fields parameter.",
				message: fmt.Sprintf("(#100) Tried accessing nonexisting field (%.64s) on node type (WhatsAppBusinessPhoneNumber)", name),
			}
		}
		names = append(names, name)
	}
	return names, nil
}

func (p *phone) node(names []string) map[string]any {
	out := make(map[string]any, len(names))
	for _, name := range names {
		out[name] = phoneFields[name](p)
	}
	return out
}

// serveRead answers a GET of the Graph API as read says, after the checks of all of
// them: path and token.
func (s *Server) serveRead(w http.ResponseWriter, r *http.Request, read func(id string) (any, usageHeaders, *graphError)) {
	if !versionLike(r.PathValue("version")) || !idLike(r.PathValue("id")) {
		s.serveUnknown(w, r)
		return
	}
	set := s.settings.Load()
	var body any
	var use usageHeaders
	fault := errToken
	if tokenOK(r, set.token) {
		body, use, fault = read(r.PathValue("id"))
	}
	if !s.wait(r.Context(), set.answerAfter()) {
		return
	}
	use.set(w.Header())
	if fault != nil {
		s.writeError(w, fault)
		return
	}
	writeJSON(w, http.StatusOK, body)
}

// serveUnknown answers what no route knows.
func (s *Server) serveUnknown(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/_sim/") {
		controlError(w, http.StatusNotFound, "no such control route")
		return
	}
	s.writeError(w, errUnknownObject)
}

// serveNode answers GET /{version}/{id}: a phone number, or a WABA, whose reading is a
// management call.
func (s *Server) serveNode(w http.ResponseWriter, r *http.Request) {
	s.serveRead(w, r, func(id string) (body any, use usageHeaders, fault *graphError) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if p := s.scopes.phones[id]; p != nil {
			names, fault := readFields(r.URL.Query().Get("fields"))
			if fault != nil {
				return nil, use, fault
			}
			return p.node(names), use, nil
		}
		if s.scopes.wabas[id] == nil {
			return nil, use, errUnknownObject
		}
		use, fault = s.manage(id)
		return map[string]string{"id": id, "name": "Simulated " + id}, use, fault
	})
}

// servePhoneNumbers answers GET /{version}/{waba}/phone_numbers, by id and in pages.
func (s *Server) servePhoneNumbers(w http.ResponseWriter, r *http.Request) {
	s.serveRead(w, r, func(id string) (body any, use usageHeaders, fault *graphError) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.scopes.wabas[id] == nil {
			return nil, use, errUnknownObject
		}
		if use, fault = s.manage(id); fault != nil {
			return nil, use, fault
		}
		q := r.URL.Query()
		names, fault := readFields(q.Get("fields"))
		if fault != nil {
			return nil, use, fault
		}
		body, fault = s.phonePage(id, names, q, r)
		return body, use, fault
	})
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

// phonePage is one page of a WABA's phone numbers; the caller holds the lock.
func (s *Server) phonePage(waba string, names []string, q url.Values, r *http.Request) (any, *graphError) {
	limit, err := strconv.Atoi(cmp.Or(q.Get("limit"), strconv.Itoa(defaultPage)))
	if err != nil || limit < 1 || limit > maxPage {
		return nil, invalid(100, fmt.Sprintf("Param limit must be from 1 to %d", maxPage))
	}
	after, err := base64.RawURLEncoding.DecodeString(q.Get("after"))
	if err != nil {
		return nil, invalid(100, "Param after is not a cursor of a former answer")
	}
	var of []*phone
	for _, p := range s.scopes.byIndex {
		if p.waba.id == waba && p.id > string(after) {
			of = append(of, p)
		}
	}
	slices.SortFunc(of, func(a, b *phone) int { return cmp.Compare(a.id, b.id) })
	type cursors struct {
		Before string `json:"before"`
		After  string `json:"after"`
	}
	var out struct {
		Data   []map[string]any `json:"data"`
		Paging *struct {
			Cursors cursors `json:"cursors"`
			Next    string  `json:"next,omitempty"`
		} `json:"paging,omitempty"`
	}
	out.Data = []map[string]any{}
	page := of[:min(limit, len(of))]
	for _, p := range page {
		out.Data = append(out.Data, p.node(names))
	}
	if len(page) == 0 {
		return out, nil
	}
	cursor := func(p *phone) string { return base64.RawURLEncoding.EncodeToString([]byte(p.id)) }
	out.Paging = &struct {
		Cursors cursors `json:"cursors"`
		Next    string  `json:"next,omitempty"`
	}{Cursors: cursors{cursor(page[0]), cursor(page[len(page)-1])}}
	if len(page) < len(of) {
		next := url.Values{"limit": {strconv.Itoa(limit)}, "after": {out.Paging.Cursors.After}}
		if fields := q.Get("fields"); fields != "" {
			next.Set("fields", fields)
		}
		out.Paging.Next = "http://" + r.Host + r.URL.Path + "?" + next.Encode()
	}
	return out, nil
}
