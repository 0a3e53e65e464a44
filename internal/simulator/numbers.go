package simulator

import (
	"encoding/json"
	"strings"
	"time"
)

const (
	maxMoves   = 10             // registrations and deregistrations of a number …
	movesIn    = 72 * time.Hour // … in this time (Meta's limit)
	maxAdded   = 10_000         // phone numbers added by calls
	wrongCode  = "000000"       // the one code that verifies nothing
	maxSetting = 64 << 10       // bytes of one feature's settings
)

// number is what calls keep of a phone number. The zero value is one that was made
// without them: verified and registered.
type number struct {
	verification string // code_verification_status
	unregistered bool
	pin          string
	moves        []time.Duration
	settings     map[string]json.RawMessage
	callback     string
	profile      profile
	blocked      map[string]bool // by WhatsApp ID
	wrote        map[string]time.Duration
	qrCodes      []qrCode
	lastQR       int
}

// state is what is kept of the number, to read only.
func (p *phone) state() *number {
	if p.own == nil {
		return &number{}
	}
	return p.own
}

// change is what is kept of the number, to change it.
func (p *phone) change() *number {
	if p.own == nil {
		p.own = &number{}
	}
	return p.own
}

func (n *number) status() string {
	switch {
	case !n.unregistered:
		return ""
	case n.verification == "NOT_VERIFIED":
		return "PENDING"
	}
	return "DISCONNECTED"
}

func (n *number) platform() string {
	if n.unregistered {
		return "NOT_APPLICABLE"
	}
	return "CLOUD_API"
}

// addPhoneNumber answers POST /{waba}/phone_numbers. The number must still be verified
// and registered.
func (s *Server) addPhoneNumber(c *call) (any, *graphError) {
	if _, fault := s.wabaOf(c, true); fault != nil {
		return nil, fault
	}
	cc, local := c.required("cc", 4), c.required("phone_number", 24)
	name := c.limited("verified_name", 256)
	c.flag("migrate_phone_number")
	preverified := c.text("preverified_id")
	if name == "" && preverified == "" {
		c.wrong(100, "The parameter verified_name is required.")
	}
	display := digitsOf(cc) + digitsOf(local)
	if c.fault == nil && (len(display) < 7 || len(display) > 15) {
		c.wrong(100, "Param phone_number is not a phone number.")
	}
	if c.fault != nil {
		return nil, c.fault
	}
	for _, p := range s.scopes.byIndex {
		if p.waba.id == c.id && digitsOf(p.display) == display {
			return nil, coded(100, 2388012, "The phone number is in the account's list already.")
		}
	}
	if s.managed.lastIDs[idPhone] >= maxAdded {
		return nil, coded(131000, 0, "The simulator takes no more phone numbers.")
	}
	id := s.newID(idPhone)
	p := s.scopes.phone(id)
	if p == nil {
		return nil, coded(131000, 0, "The simulator takes no more phone numbers.")
	}
	s.scopes.describe(p, PhoneConfig{WABAID: c.id, AppID: s.scopes.appOf(c.id).id, DisplayPhoneNumber: display, VerifiedName: name})
	n := p.change()
	n.verification, n.unregistered = "NOT_VERIFIED", true
	return map[string]string{"id": id}, nil
}

func (s *Server) requestCode(c *call) (any, *graphError) {
	p, fault := s.numberOf(c)
	if fault != nil {
		return nil, fault
	}
	if c.choice("code_method", "SMS", "VOICE") == "" {
		c.wrong(100, "The parameter code_method is required.")
	}
	if lang := c.required("language", 6); c.fault == nil && !languageLike.MatchString(lang) {
		c.wrong(100, "Param language is not a language.")
	}
	if c.fault != nil {
		return nil, c.fault
	}
	p.change() // a code was asked for, which nothing tells
	return success, nil
}

// verifyCode takes any code of six digits but one.
func (s *Server) verifyCode(c *call) (any, *graphError) {
	p, fault := s.numberOf(c)
	if fault != nil {
		return nil, fault
	}
	code := c.text("code")
	switch {
	case c.fault != nil:
		return nil, c.fault
	case len(code) != 6 || digitsOf(code) != code:
		return nil, invalid(100, "Param code must be six digits.")
	case code == wrongCode:
		return nil, coded(136025, 2388367, "The code is not the one that was sent.")
	}
	p.change().verification = "VERIFIED"
	return success, nil
}

// move counts a registration or deregistration against Meta's limit of both.
func (n *number) move(now time.Duration) *graphError {
	for len(n.moves) > 0 && n.moves[0] <= now-movesIn {
		n.moves = n.moves[1:]
	}
	if len(n.moves) >= maxMoves {
		return coded(133016, 0, "The number was registered and deregistered too often. Wait 72 hours.")
	}
	n.moves = append(n.moves, now)
	return nil
}

func (s *Server) registerNumber(c *call) (any, *graphError) {
	p, fault := s.numberOf(c)
	if fault != nil {
		return nil, fault
	}
	c.product()
	pin := c.pin("pin")
	if region := c.text("data_localization_region"); c.fault == nil && region != "" && len(region) != 2 {
		c.wrong(100, "Param data_localization_region must be a country's two letters.")
	}
	if c.fault != nil {
		return nil, c.fault
	}
	n := p.change()
	if fault := n.move(c.now); fault != nil {
		return nil, fault
	}
	switch {
	case n.verification == "NOT_VERIFIED":
		return nil, coded(133006, 0, "The phone number must be verified before it is registered.")
	case n.pin != "" && n.pin != pin:
		return nil, coded(133005, 0, "The two-step verification PIN is wrong.")
	}
	n.unregistered, n.pin = false, pin
	return success, nil
}

func (s *Server) deregisterNumber(c *call) (any, *graphError) {
	p, fault := s.numberOf(c)
	if fault != nil {
		return nil, fault
	}
	n := p.change()
	if fault := n.move(c.now); fault != nil {
		return nil, fault
	}
	if n.unregistered {
		return nil, coded(133010, 0, "The phone number is not registered.")
	}
	n.unregistered = true
	return success, nil
}

// updateNumber answers POST /{phone}: a new PIN, or an override of the callback.
func (s *Server) updateNumber(c *call) (any, *graphError) {
	hook := c.has("webhook_configuration")
	if !hook && !c.has("pin") {
		if s.scopes.phones[c.id] == nil {
			return nil, errUnknownObject
		}
		return nil, invalid(100, "One of the parameters pin and webhook_configuration is required.")
	}
	p, fault := s.numberOf(c)
	if fault != nil {
		return nil, fault
	}
	if !hook {
		pin := c.pin("pin") // empty is wrong, too: the API does not switch it off
		if c.fault != nil {
			return nil, c.fault
		}
		p.change().pin = pin
		return success, nil
	}
	inner := call{r: c.r}
	c.object("webhook_configuration", &inner.values)
	url := inner.callback()
	switch {
	case c.fault != nil:
		return nil, c.fault
	case inner.fault != nil:
		return nil, inner.fault
	}
	p.change().callback = url
	return success, nil
}

// settings are the features of a phone number that have some.
var settingNames = []string{"calling", "user_identity_change", "payload_encryption", "storage_configuration"}

func (s *Server) readSettings(c *call) (any, *graphError) {
	p, fault := s.numberOf(c)
	if fault != nil {
		return nil, fault
	}
	out := map[string]json.RawMessage{
		"calling":               json.RawMessage(`{"status":"disabled","call_icon_visibility":"DEFAULT","callback_permission_status":"disabled"}`),
		"payload_encryption":    json.RawMessage(`{"status":"disabled"}`),
		"storage_configuration": json.RawMessage(`{"status":"default"}`),
	}
	for name, raw := range p.state().settings {
		out[name] = raw
	}
	return out, nil
}

// updateSettings answers POST /{phone}/settings, which takes one feature at a time.
func (s *Server) updateSettings(c *call) (any, *graphError) {
	p, fault := s.numberOf(c)
	if fault != nil {
		return nil, fault
	}
	var given string
	for _, name := range settingNames {
		if c.has(name) {
			if given != "" {
				return nil, invalid(100, "Only one feature can be set in a request.")
			}
			given = name
		}
	}
	if given == "" {
		return nil, invalid(100, "One of the parameters "+strings.Join(settingNames, ", ")+" is required.")
	}
	var feature map[string]json.RawMessage
	if c.object(given, &feature); c.fault == nil && feature == nil {
		c.wrong(100, "Param %s must be a JSON object.", given)
	}
	raw, err := json.Marshal(feature)
	if err != nil || len(raw) > maxSetting {
		c.wrong(100, "Param %s is too large.", given)
	}
	if c.fault != nil {
		return nil, c.fault
	}
	n := p.change()
	if n.settings == nil {
		n.settings = map[string]json.RawMessage{}
	}
	n.settings[given] = raw
	return success, nil
}
