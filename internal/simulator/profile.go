package simulator

import (
	"net/url"
	"strings"
)

// profile is a phone number's business profile.
type profile struct {
	about, address, description, email, vertical string
	websites                                     []string
	picture                                      string // id of the upload
}

var verticals = strings.Fields(`ALCOHOL APPAREL AUTO BEAUTY EDU ENTERTAIN EVENT_PLAN FINANCE GOVT GROCERY HEALTH HOTEL MATRIMONY_SERVICE
	NONPROFIT NOT_A_BIZ ONLINE_GAMBLING OTC_DRUGS OTHER PHYSICAL_GAMBLING PROF_SERVICES RESTAURANT RETAIL TRAVEL UNDEFINED`)

type profileView struct {
	profile
	s *Server
	c *call
}

var profileNode = node[profileView]{
	name:     "WhatsAppBusinessProfile",
	defaults: "about,address,description,email,profile_picture_url,websites,vertical",
	fields: map[string]func(profileView) any{
		"id":                func(profileView) any { return nil }, // the answer has none
		"messaging_product": func(profileView) any { return "whatsapp" },
		"about":             func(p profileView) any { return given(p.about) },
		"address":           func(p profileView) any { return given(p.address) },
		"description":       func(p profileView) any { return given(p.description) },
		"email":             func(p profileView) any { return given(p.email) },
		"vertical":          func(p profileView) any { return given(p.vertical) },
		"websites": func(p profileView) any {
			if len(p.websites) == 0 {
				return nil
			}
			return p.websites
		},
		"profile_picture_url": func(p profileView) any {
			if p.s.managed.uploads[p.picture] == nil {
				return nil
			}
			return p.s.freshLink(p.c, p.picture)
		},
	},
}

// given is nil for an empty string, which Meta leaves out.
func given(v string) any {
	if v == "" {
		return nil
	}
	return v
}

func (s *Server) readProfile(c *call) (any, *graphError) {
	p, fault := s.numberOf(c)
	if fault != nil {
		return nil, fault
	}
	names, fault := profileNode.read(c.text("fields"))
	if fault != nil {
		return nil, fault
	}
	one := profileNode.show(profileView{p.state().profile, s, c}, append(names, "messaging_product"))
	return map[string]any{"data": []any{one}}, nil
}

// updateProfile changes what the call names.
func (s *Server) updateProfile(c *call) (any, *graphError) {
	p, fault := s.numberOf(c)
	if fault != nil {
		return nil, fault
	}
	next := p.state().profile
	c.product()
	for _, f := range []struct {
		name string
		most int
		to   *string
	}{
		{"about", 139, &next.about}, {"address", 256, &next.address}, {"description", 512, &next.description}, {"email", 128, &next.email},
	} {
		if c.has(f.name) {
			*f.to = c.limited(f.name, f.most)
		}
	}
	if c.has("about") && next.about == "" {
		c.wrong(100, "Param about must be from 1 to 139 characters long.")
	}
	if next.email != "" && !strings.Contains(next.email, "@") {
		c.wrong(100, "Param email is not an email address.")
	}
	if c.has("vertical") {
		next.vertical = c.choice("vertical", verticals...)
	}
	if c.has("websites") {
		next.websites = c.websites()
	}
	if handle := c.text("profile_picture_handle"); handle != "" {
		s.managed.checkHandle(c, "profile_picture_handle", handle)
		if u := s.managed.handles[handle]; u != nil {
			next.picture = u.id
		}
	}
	if c.fault != nil {
		return nil, c.fault
	}
	p.change().profile = next
	return success, nil
}

// websites are at most two addresses with their scheme.
func (c *call) websites() []string {
	list := c.list("websites")
	if len(list) > 2 {
		c.wrong(100, "Param websites must have at most 2 elements.")
	}
	for _, site := range list {
		u, err := url.Parse(site)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || len([]rune(site)) > 256 {
			c.wrong(100, "Param websites must be URLs of at most 256 characters, with http:// or https://.")
		}
	}
	return list
}
