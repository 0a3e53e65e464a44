// Package content knows the documented rules of a Cloud API message object: what each type must hold, how long and how many
// its parts may be. It reads a body once and names everything that is wrong with it, each fault with the JSON Pointer of its
// field. What Meta documents no rule for passes: unknown fields anywhere, unknown types and subtypes. It does no I/O.
//
// Lengths are in characters, that is Unicode code points, unless a rule says bytes: Meta's pages say characters and not how
// they count them; code points are fewer than bytes or UTF-16 units.
package content

import (
	"fmt"
	"slices"
	"sync"

	"wagate/internal/cloudapi"
)

// maxFaults is how many faults are told of one message.
const maxFaults = 100

// MarketingAPI is the word for Meta's /marketing_messages in gateway.api.
const MarketingAPI = "marketing_messages"

// Options says by which rules a message is checked.
type Options struct {
	// Strict refuses a phone number in "to" that does not begin with "+": Meta would put the sender's own country code
	// before it, and the message may go to a stranger.
	Strict bool
	// Marketing checks a message for /marketing_messages, which takes templates only. A gateway.api of MarketingAPI in the
	// message does the same.
	Marketing bool
}

// Message is what the gateway needs to know of a message. Members that were not there, or were at fault, are empty.
type Message struct {
	Type            string // the message's type; "text" where only a text object was given
	To              string // as the caller wrote it
	Recipient       string // business-scoped user id, in place of To or beside it
	RecipientType   string // individual, group or empty
	ReplyTo         string // context.message_id
	Opaque          string // the caller's own biz_opaque_callback_data
	TemplateName    string
	TemplateLang    string
	CategoryHint    string // "service" for what is no template; a template's category is not in the message
	IsReadReceipt   bool   // status "read" with a message_id: no message, and has no recipient
	ReadReceiptOf   string // the message_id of a read receipt
	TypingIndicator bool   // a read receipt that also shows the typing indicator
	From            string // member of the gateway: the phone number id
	Gateway         []byte // member of the gateway, raw and in memory of the body's; nil when absent
	// Media are those that it names by ids of ours; they are given beside faults too.
	Media []MediaRef
	// Body is what the caller sent, as compact JSON in memory of its own: the same but for white space and for contacts
	// that came as a string, which are the array that they hold.
	Body []byte
}

// IsReply says whether the message quotes another.
func (m *Message) IsReply() bool { return m.ReplyTo != "" }

// Check reads a message, a Cloud API message object that may also hold from and gateway, and gives every fault it finds, up
// to 100 and then one that counts the rest. A fault at "" alone is of the body as a whole, and nothing else was looked at. The
// error is a *SyntaxError, for what is no JSON. Body is not kept.
func Check(body []byte, o Options) (Message, []cloudapi.Fault, error) {
	c, _ := checkers.Get().(*checker) // the pool's New makes nothing else
	defer c.release()
	c.options = o
	if err := c.doc.scan(body); err != nil {
		return Message{}, nil, err
	}
	root := value{&c.doc, 0}
	switch {
	case c.doc.bound != "":
		return Message{}, []cloudapi.Fault{{Pointer: "", Detail: c.doc.bound}}, nil
	case root.kind() != object:
		return Message{}, []cloudapi.Fault{{Pointer: "", Detail: "must be a JSON object"}}, nil
	}
	if whole := c.openContacts(root); whole != nil {
		return Message{}, whole, nil
	}
	for _, f := range c.doc.flaws {
		c.fault(value{&c.doc, f.at}, "%s", f.detail)
	}
	c.envelope(root)
	if c.untold > 0 {
		c.add("", fmt.Sprintf("has %d more faults", c.untold))
	}
	c.m.Media = c.doc.media()
	if len(c.faults) == 0 {
		c.m.Body = c.doc.compact()
	}
	return c.m, c.faults, nil
}

// checker is one run of Check.
type checker struct {
	doc     doc
	options Options
	m       Message
	faults  []cloudapi.Fault
	untold  int
	// authentication says that the caller calls the message one, in gateway.category.
	authentication bool
}

var checkers = sync.Pool{New: func() any { return new(checker) }}

// keptNodes bounds what a checker keeps for the next message.
const keptNodes = 4096

func (c *checker) release() {
	nodes, order, flaws := c.doc.nodes, c.doc.order, c.doc.flaws
	if cap(nodes) > keptNodes {
		nodes, order = nil, nil
	}
	clear(nodes) // the names in them are parts of the body
	*c = checker{doc: doc{nodes: nodes[:0], order: order[:0], flaws: flaws[:0]}}
	checkers.Put(c)
}

// openContacts puts an array in the place of contacts that came as a string: one public client library writes them so.
func (c *checker) openContacts(root value) []cloudapi.Fault {
	v := root.get("contacts")
	if v.kind() != text || string(root.get("type").str()) != "contacts" || slices.ContainsFunc(c.doc.flaws, func(f flaw) bool { return f.at == v.at }) {
		return nil
	}
	inner := v.str()
	var scratch doc
	if scratch.scan(inner) != nil || scratch.bound != "" || (value{&scratch, 0}).kind() != array {
		return nil // refused with what else is wrong with contacts
	}
	body, n := c.doc.text, v.node()
	opened := make([]byte, 0, len(body)+len(inner))
	opened = append(append(append(opened, body[:n.start]...), inner...), body[n.end:]...)
	_ = c.doc.scan(opened) // an array in the place of a string: JSON as before
	if c.doc.bound != "" {
		return []cloudapi.Fault{{Pointer: "", Detail: c.doc.bound}}
	}
	return nil
}
