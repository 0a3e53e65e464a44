package simulator

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

const maxApps = 1000 // apps with a subscription

// account is what calls keep of a WABA.
type account struct {
	id         string
	subscribed bool
	callback   string          // override for this WABA
	creations  []time.Duration // of templates, in the last hour
	removed    map[string]time.Duration
}

type wabaView struct {
	*account
	s *Server
}

var wabaNode = node[wabaView]{
	name:     "WhatsAppBusinessAccount",
	defaults: "name,timezone_id,message_template_namespace",
	fields: map[string]func(wabaView) any{
		"id":                           func(a wabaView) any { return a.id },
		"name":                         func(a wabaView) any { return "Simulated " + a.id },
		"timezone_id":                  func(wabaView) any { return "1" },
		"message_template_namespace":   func(a wabaView) any { return "simulated_" + a.id },
		"currency":                     func(wabaView) any { return "USD" },
		"country":                      func(wabaView) any { return "US" },
		"status":                       func(wabaView) any { return "ACTIVE" },
		"account_review_status":        func(wabaView) any { return "APPROVED" },
		"business_verification_status": func(wabaView) any { return "verified" },
		"ownership_type":               func(wabaView) any { return "SELF" },
		"owner_business_info": func(a wabaView) any {
			return map[string]string{"id": businessOf(a.id), "name": "Simulated business"}
		},
		"health_status": func(a wabaView) any { return a.s.healthOf("", "", a.id, a.s.scopes.appOf(a.id).id) },

		"whatsapp_business_manager_messaging_limit": func(wabaView) any { return "TIER_UNLIMITED" },
	},
}

// businessOf makes the id of the business that owns a WABA.
func businessOf(waba string) string { return "7" + waba }

// Health is what a health_status answers of one phone number, WABA, business, app,
// template or flow.
type Health struct {
	// ID is the entity's; of a business it is 7 and the WABA's.
	ID string `json:"id"`
	// CanSendMessage is AVAILABLE, LIMITED or BLOCKED.
	CanSendMessage string `json:"can_send_message"`
	// Code, Description and Solution are told with BLOCKED, Info with LIMITED.
	Code        int    `json:"error_code,omitempty"`
	Description string `json:"error_description,omitempty"`
	Solution    string `json:"possible_solution,omitempty"`
	Info        string `json:"additional_info,omitempty"`
}

var healthOrder = []string{"AVAILABLE", "LIMITED", "BLOCKED"}

// healthOf is the health_status of a node (kind and id; empty for a WABA alone) and of
// those it needs. The whole is as bad as the worst.
func (s *Server) healthOf(kind, id, waba, app string) any {
	type fault struct {
		Code        int    `json:"error_code"`
		Description string `json:"error_description"`
		Solution    string `json:"possible_solution"`
	}
	type entity struct {
		Type   string   `json:"entity_type"`
		ID     string   `json:"id"`
		Can    string   `json:"can_send_message"`
		Errors []fault  `json:"errors,omitempty"`
		Info   []string `json:"additional_info,omitempty"`
	}
	all := []entity{{Type: "WABA", ID: waba}, {Type: "BUSINESS", ID: businessOf(waba)}, {Type: "APP", ID: app}}
	if kind != "" {
		all = slices.Insert(all, 0, entity{Type: kind, ID: id})
	}
	worst := 0
	for i := range all {
		e := &all[i]
		e.Can = healthOrder[0]
		if h, ok := s.managed.health[e.ID]; ok {
			e.Can = h.CanSendMessage
			if h.Code != 0 {
				e.Errors = []fault{{h.Code, h.Description, h.Solution}}
			}
			if h.Info != "" {
				e.Info = []string{h.Info}
			}
		}
		worst = max(worst, slices.Index(healthOrder, e.Can))
	}
	return map[string]any{"can_send_message": healthOrder[worst], "entities": all}
}

// webhooksOf is where a phone number's webhooks are said to go. They all go to the one
// address that the simulator was given.
func (s *Server) webhooksOf(p *phone) map[string]string {
	out := map[string]string{}
	for name, url := range map[string]string{
		"phone_number":              p.state().callback,
		"whatsapp_business_account": s.managed.callbackOf(p.waba.id),
		"application":               cmp.Or(s.managed.apps[p.app.id].callback, s.settings.Load().webhookURL),
	} {
		if url != "" {
			out[name] = url
		}
	}
	return out
}

func (m *managed) callbackOf(waba string) string {
	if a := m.accounts[waba]; a != nil {
		return a.callback
	}
	return ""
}

// callback reads the address and verify token of an override; Meta gives the address 200
// characters.
func (c *call) callback() string {
	url := c.limited("override_callback_uri", 200)
	if url != "" && !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://") {
		c.wrong(100, "Param override_callback_uri must be a URL.")
	}
	if url != "" && c.text("verify_token") == "" {
		c.wrong(100, "The parameter verify_token is required.")
	}
	return url
}

func (s *Server) listSubscribedApps(c *call) (any, *graphError) {
	a, fault := s.wabaOf(c, true)
	if fault != nil {
		return nil, fault
	}
	data := []any{}
	if a.subscribed {
		app := s.scopes.appOf(c.id).id
		one := map[string]any{"whatsapp_business_api_data": map[string]string{
			"id": app, "link": "https://www.facebook.com/games/?app_id=" + app, "name": "Simulated app " + app,
		}}
		if a.callback != "" {
			one["override_callback_uri"] = a.callback
		}
		data = append(data, one)
	}
	return map[string]any{"data": data}, nil
}

func (s *Server) subscribeApp(c *call) (any, *graphError) {
	a, fault := s.wabaOf(c, true)
	if fault != nil {
		return nil, fault
	}
	url := c.callback()
	if c.fault != nil {
		return nil, c.fault
	}
	a.subscribed, a.callback = true, url
	return success, nil
}

func (s *Server) unsubscribeApp(c *call) (any, *graphError) {
	a, fault := s.wabaOf(c, true)
	if fault != nil {
		return nil, fault
	}
	a.subscribed, a.callback = false, ""
	return success, nil
}

// subscription is an app's, to webhooks of WABAs.
type subscription struct {
	callback string
	fields   []string
}

const subscribedObject = "whatsapp_business_account"

func (s *Server) subscribe(c *call) (any, *graphError) {
	object := c.required("object", 64)
	url, fields := c.required("callback_url", 2048), c.list("fields")
	verify := c.required("verify_token", 512)
	m := s.managed
	_, known := m.apps[c.id]
	switch {
	case c.fault != nil:
	case verify == "":
	case object != subscribedObject:
		c.wrong(100, "Param object must be one of {WHATSAPP_BUSINESS_ACCOUNT}")
	case !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://"):
		c.wrong(100, "Param callback_url must be a URL.")
	case len(fields) == 0 || len(fields) > 100:
		c.wrong(100, "The parameter fields is required.")
	case s.scopes.phones[c.id] != nil || s.scopes.wabas[c.id] != nil || !known && len(m.apps) >= maxApps:
		return nil, errUnknownObject
	}
	if c.fault != nil {
		return nil, c.fault
	}
	m.apps[c.id] = subscription{url, fields}
	return success, nil
}

func (s *Server) listSubscriptions(c *call) (any, *graphError) {
	data := []any{}
	if sub, ok := s.managed.apps[c.id]; ok {
		fields := make([]map[string]string, 0, len(sub.fields))
		for _, f := range sub.fields {
			fields = append(fields, map[string]string{"name": f, "version": c.r.PathValue("version")})
		}
		data = append(data, map[string]any{"object": subscribedObject, "callback_url": sub.callback, "active": true, "fields": fields})
	}
	return map[string]any{"data": data}, nil
}

func (s *Server) unsubscribe(c *call) (any, *graphError) {
	delete(s.managed.apps, c.id)
	return success, nil
}
