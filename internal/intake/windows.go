package intake

import (
	"context"
	"encoding/json"
	"strings"
	"unicode"

	"wagate/internal/cloudapi"
	"wagate/internal/content"
	"wagate/internal/form"
	"wagate/internal/message"
	"wagate/internal/store"
)

// codeWindowClosed is the Code of a message that is refused because its service window is known to be closed.
const codeWindowClosed = "window_closed"

// CheckWindows has messages refused whose service window closed says to be closed, for phone numbers that ask for it. To be
// called before any message is accepted.
func (in *Intake) CheckWindows(closed func(context.Context, []store.WindowAsk) ([]bool, error)) {
	in.windowsClosed = closed
}

// windows gives an *Error for each message that cannot go now because its service window is known to be closed. One that has a
// fallback template, or is for later, is not refused: when its turn comes it is looked at again.
func (in *Intake) windows(ctx context.Context, messages []*store.NewMessage) ([]*Error, error) {
	refused := make([]*Error, len(messages))
	if in.windowsClosed == nil {
		return refused, nil
	}
	now := in.now()
	var asks []store.WindowAsk
	var of []int
	for i, m := range messages {
		if store.NeedsWindow(m.Type) && m.FallbackTemplate == "" && in.backlog.checksWindows(m.PhoneNumberID) && !opening(now, m.SendAt, m.SendWindow).After(now) {
			asks, of = append(asks, store.WindowAsk{PhoneNumberID: m.PhoneNumberID, Recipient: m.Recipient}), append(of, i)
		}
	}
	if len(asks) == 0 {
		return refused, nil
	}
	ctx, cancel := context.WithTimeout(ctx, connectionWait)
	defer cancel()
	closed, err := in.windowsClosed(ctx, asks)
	if err != nil {
		return nil, lookup(err)
	}
	for n, i := range of {
		if closed[n] {
			refused[i] = windowClosed(messages[i].Recipient)
		}
	}
	return refused, nil
}

// window is windows for one message.
func (in *Intake) window(ctx context.Context, m *store.NewMessage) (*Error, error) {
	refused, err := in.windows(ctx, []*store.NewMessage{m})
	if err != nil {
		return nil, err
	}
	return refused[0], nil
}

// refuseShut is windows for those of many messages that stand so far and whose phone number is there.
func (in *Intake) refuseShut(ctx context.Context, requests []Request, messages []store.NewMessage, refused []*Error) error {
	var of []int
	var set []*store.NewMessage
	for i := range messages {
		if phone := messages[i].PhoneNumberID; refused[i] == nil && in.backlog.there(phone) && requests[i].Caller.mayUse(phone) {
			of, set = append(of, i), append(set, &messages[i])
		}
	}
	shut, err := in.windows(ctx, set)
	if err != nil {
		return err
	}
	for n, i := range of {
		refused[i] = shut[n]
	}
	return nil
}

func windowClosed(recipient string) *Error {
	pointer := "/to"
	if strings.ContainsFunc(recipient, unicode.IsLetter) {
		pointer = "/recipient"
	}
	// The same request may have been in time before.
	return &Error{Kind: Invalid, Code: codeWindowClosed, late: true, Faults: []cloudapi.Fault{{
		Pointer: pointer,
		Detail: "has no open customer service window: more than 24 hours have passed since the user last wrote or called " +
			"(Meta's 131047, Re-engagement message); send a template, or give a gateway.fallback_template",
	}}}
}

// fallback is a gateway.fallback_template.
type fallback struct{ name, language, category string }

// fallbackPointer is where a fallback template stands.
const fallbackPointer = "/gateway/fallback_template"

// readFallback reads the template that goes where the service window is closed, by the rules of a template message.
func readFallback(raw json.RawMessage, faults *[]cloudapi.Fault) (f fallback) {
	if raw == nil {
		return f
	}
	before := len(*faults)
	g := form.Parse(raw, fallbackPointer, faults)
	said := form.Word(g, "category", category)
	if said == message.Service {
		g.Fault("category", "must be authentication, utility or marketing")
	}
	if g == nil {
		return f
	}
	whole, _ := json.Marshal(map[string]any{ // what was parsed marshals
		"to": "+12025550100", "type": "template", "template": raw, "gateway": map[string]string{"category": string(said)},
	})
	read, found, err := content.Check(whole, content.Options{})
	if err != nil {
		g.Fault("", "is not JSON")
	}
	for _, fault := range found {
		*faults = append(*faults, cloudapi.Fault{Pointer: fallbackPointer + strings.TrimPrefix(fault.Pointer, "/template"), Detail: fault.Detail})
	}
	if len(*faults) > before {
		return f
	}
	return fallback{read.TemplateName, read.TemplateLang, string(said)}
}

// refuseBoth adds a fault where a message has a fallback template and needs none.
func refuseBoth(messageType string, f fallback, faults *[]cloudapi.Fault) {
	if f.name != "" && messageType != "" && !store.NeedsWindow(messageType) {
		*faults = append(*faults, cloudapi.Fault{Pointer: fallbackPointer, Detail: "goes with free-form messages, and this is of type " + messageType})
	}
}
