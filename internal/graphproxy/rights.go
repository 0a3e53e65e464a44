package graphproxy

import (
	"net/http"
	"slices"
)

// Right is something that a caller may do; the words are those of the scopes of API keys.
type Right string

// The rights. Who may Admin may all.
const (
	Send   Right = "send"
	Read   Right = "read"
	Manage Right = "manage"
	Admin  Right = "admin"
)

// nodeKind says what an id names.
type nodeKind int

const (
	objectNode nodeKind = iota // a media, template, flow, … or not known
	phoneNode
	wabaNode
	appNode
)

// need is what a call asks of its caller: one of the rights, and where whole is set a key that is not bound to phone numbers.
type need struct {
	rights []Right
	whole  bool
}

// ownEdges are the edges that only phone numbers, WABAs and apps have: under another id they name one that is not ours.
var ownEdges = []string{
	"media", "messages", "marketing_messages", "register", "deregister", "request_code", "verify_code", "settings", "whatsapp_business_profile",
	"block_users", "message_qrdls", "message_history", "whatsapp_business_encryption", "whatsapp_commerce_settings", "official_business_account",
	"message_templates", "message_template_previews", "upsert_message_templates", "migrate_message_templates", "phone_numbers", "subscribed_apps",
	"assigned_users", "flows", "migrate_flows", "subscriptions",
}

// needs tells what a call takes.
func needs(c *call, t *target) need {
	get := c.method == http.MethodGet
	switch {
	case c.download():
		return need{rights: []Right{Send, Read}}
	case c.upload(), t.kind == appNode && c.edge == "uploads":
		if get {
			return need{rights: []Right{Send, Manage, Read}}
		}
		return need{rights: []Right{Send, Manage}}
	case t.kind == appNode && get:
		return need{rights: []Right{Read}, whole: c.edge == "subscriptions"}
	case t.kind == appNode:
		return need{rights: []Right{Admin}, whole: true}
	case t.kind == objectNode && t.seen == "":
		return unseenNeeds(c)
	case get && t.kind == objectNode && c.edge == "" && t.seen == "media":
		return need{rights: []Right{Send, Read}}
	case get:
		return need{rights: []Right{Read}}
	case t.kind == phoneNode:
		return phoneNeeds(c)
	case t.kind == wabaNode:
		return wabaNeeds(c)
	case c.method == http.MethodDelete && c.edge == "" && t.seen == "media":
		return need{rights: []Right{Send, Manage}}
	}
	return need{rights: []Right{Manage}}
}

// unseenNeeds is for an id of which nothing is known. It may be whatever the token reaches, a business and its users too, so
// a key that is bound or may send alone can do no more with it than with a media.
func unseenNeeds(c *call) need {
	get := c.method == http.MethodGet
	switch {
	case get && c.edge == "" && !c.more:
		return need{rights: []Right{Send, Read}}
	case get:
		return need{rights: []Right{Read}, whole: true}
	case c.toProve():
		return need{rights: []Right{Send, Manage}}
	}
	return need{rights: []Right{Admin}, whole: true}
}

// mediaOnly says that a call which got through as one for a media must have been one: of an id of which nothing is known its
// answer alone tells, and whoever may not read all that the token reaches gets nothing else of it. Where fields were asked
// for they are a media's.
func mediaOnly(who Caller, c *call, t *target) bool {
	whole := who.May(Read) && len(who.PhoneNumbers) == 0
	return !whole && c.method == http.MethodGet && c.edge == "" && t.kind == objectNode && t.seen == "" && !c.upload() && !c.fields
}

func phoneNeeds(c *call) need {
	switch c.edge {
	case "media":
		return need{rights: []Right{Send}}
	case "", "register", "deregister", "request_code", "verify_code":
		// A POST on the number itself sets its PIN or sends its webhooks elsewhere.
		return need{rights: []Right{Admin}}
	}
	return need{rights: []Right{Manage}}
}

func wabaNeeds(c *call) need {
	switch c.edge {
	case "", "phone_numbers", "assigned_users":
		return need{rights: []Right{Admin}, whole: true}
	case "subscribed_apps", "migrate_message_templates", "migrate_flows":
		return need{rights: []Right{Manage}, whole: true}
	}
	return need{rights: []Right{Manage}}
}

// allow holds a caller to what a call needs.
func (n need) allow(who Caller) *Error {
	if !slices.ContainsFunc(n.rights, who.May) {
		return Forbidden("This API key lacks the scope " + string(n.rights[0]))
	}
	if n.whole && len(who.PhoneNumbers) > 0 {
		return bound()
	}
	return nil
}
