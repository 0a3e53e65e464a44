package intake

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // a container may have no time zones of its own

	"wagate/internal/cloudapi"
	"wagate/internal/form"
	"wagate/internal/message"
	"wagate/internal/store"
)

// Bounds of what a caller may ask for. Lengths are in characters.
const (
	// MaxSendAhead is how far in the future send_at may lie.
	MaxSendAhead = 30 * 24 * time.Hour
	// MaxExpiresAhead is how far in the future expires_at may lie.
	MaxExpiresAhead = 60 * 24 * time.Hour

	maxIdempotencyKey = 255
	maxReference      = 255
	maxOrderingKey    = 128
	maxTags           = 20
	maxTagName        = 64
	maxTagValue       = 255
	maxCallbackURL    = 2048
	maxTimezone       = 64
)

// options is the gateway member of a request.
type options struct {
	priority       message.Priority
	category       message.Category
	onUnknown      message.OnUnknown
	sendAt         time.Time
	expiresAt      time.Time
	orderingKey    string
	idempotencyKey string
	reference      string
	tags           map[string]string
	callbackURL    string
	sendWindow     string // compact JSON
	late           bool   // expires_at has passed
}

// check reads a request and gives the message to store, without an id and a time; an *Error else. Beside an error that is
// late the message is given too. It does not look at the phone number's existence.
func check(r Request, now time.Time) (store.NewMessage, *Error) {
	if !json.Valid(r.Body) {
		return store.NewMessage{}, &Error{Kind: Malformed, Faults: []cloudapi.Fault{{Pointer: "", Detail: syntax(r.Body)}}}
	}
	envelope, faults := cloudapi.Inspect(r.Body, cloudapi.RequirePlus)
	if slices.ContainsFunc(faults, func(f cloudapi.Fault) bool { return f.Pointer == "" }) {
		return store.NewMessage{}, &Error{Kind: Invalid, Faults: faults}
	}
	if envelope.IsReadReceipt {
		faults = append(faults, cloudapi.Fault{Pointer: "/status", Detail: "read receipts are not messages and are not queued"})
	}
	if envelope.From == "" && !slices.ContainsFunc(faults, func(f cloudapi.Fault) bool { return f.Pointer == "/from" }) {
		faults = append(faults, cloudapi.Fault{Pointer: "/from", Detail: "is required: the phone number id to send from"})
	}
	var o options
	if envelope.Gateway != nil && string(envelope.Gateway) != "null" {
		o = readOptions(envelope.Gateway, now, &faults)
	}
	key, fault := idempotencyKey(r.IdempotencyKey, o.idempotencyKey)
	if fault != nil {
		faults = append(faults, *fault)
	}
	var refused *Error
	if len(faults) > 0 {
		refused = &Error{Kind: Invalid, Faults: faults, late: o.late && len(faults) == 1}
		if !refused.late {
			return store.NewMessage{}, refused
		}
	}

	var compact bytes.Buffer
	compact.Grow(len(r.Body))
	_ = json.Compact(&compact, r.Body) // valid, looked at above
	m := store.NewMessage{
		PhoneNumberID: envelope.From, KeyID: r.Caller.KeyID, Owner: r.Caller.Owner, IdempotencyKey: key,
		Recipient: envelope.To, Type: envelope.Type, TemplateName: envelope.TemplateName, TemplateLanguage: envelope.TemplateLang,
		Opaque: envelope.Opaque, Reference: o.reference, OrderingKey: o.orderingKey, CallbackURL: o.callbackURL,
		SendWindow: o.sendWindow, SendAt: o.sendAt, ExpiresAt: o.expiresAt, Body: compact.Bytes(),
	}
	if m.Recipient == "" {
		m.Recipient = envelope.Recipient
	}
	if key != "" {
		sum := sha256.Sum256(m.Body)
		m.RequestHash = sum[:]
	}
	if len(o.tags) > 0 {
		raw, _ := json.Marshal(o.tags) // strings always marshal
		m.Tags = string(raw)
	}
	category := o.category
	if category == "" {
		category = message.Category(envelope.CategoryHint)
	}
	m.Category = string(category)
	m.Priority = int(message.DefaultPriority(o.priority, category, envelope.IsReply()))
	m.OnUnknown = string(message.DefaultOnUnknown(o.onUnknown, category))
	return m, refused
}

// syntax says where a body stops being JSON, without showing it.
func syntax(body []byte) string {
	if len(bytes.TrimSpace(body)) == 0 {
		return "the body is empty"
	}
	var v json.RawMessage
	if e, ok := errors.AsType[*json.SyntaxError](json.Unmarshal(body, &v)); ok {
		return fmt.Sprintf("is not JSON: it breaks at byte %d", e.Offset)
	}
	return "is not JSON"
}

// idempotencyKey takes the header's key or the member's, and refuses two that differ.
func idempotencyKey(header, member string) (string, *cloudapi.Fault) {
	switch {
	case header == "":
		return member, nil
	case member != "" && member != header:
		return "", &cloudapi.Fault{Pointer: "/gateway/idempotency_key", Detail: "differs from the Idempotency-Key header"}
	case len(header) > maxIdempotencyKey || strings.ContainsFunc(header, func(c rune) bool { return c < ' ' || c > '~' }):
		return "", &cloudapi.Fault{Pointer: "", Detail: fmt.Sprintf("the Idempotency-Key header must have at most %d printable ASCII characters", maxIdempotencyKey)}
	}
	return header, nil
}

func readOptions(raw []byte, now time.Time, faults *[]cloudapi.Fault) options {
	g := form.Parse(raw, "/gateway", faults)
	o := options{
		priority:       form.Word(g, "priority", priority),
		category:       form.Word(g, "category", category),
		onUnknown:      form.Word(g, "on_unknown", onUnknown),
		sendAt:         g.Time("send_at"),
		expiresAt:      g.Time("expires_at"),
		orderingKey:    g.Text("ordering_key", maxOrderingKey),
		idempotencyKey: g.Text("idempotency_key", maxIdempotencyKey),
		reference:      g.Text("reference", maxReference),
		tags:           g.Map("tags", maxTags, maxTagName, maxTagValue),
		callbackURL:    g.Text("callback_url", maxCallbackURL),
	}
	if o.callbackURL != "" && !isCallbackURL(o.callbackURL) {
		g.Fault("callback_url", "must be an http or https URL with a host and without user and fragment")
	}
	if window := g.Object("send_window"); window != nil {
		o.sendWindow = readWindow(window)
	}
	g.End()

	if o.sendAt.After(now.Add(MaxSendAhead)) {
		g.Fault("send_at", "must be at most %d days ahead", int(MaxSendAhead.Hours()/24))
	}
	if !o.expiresAt.IsZero() {
		switch {
		case !o.expiresAt.After(now):
			o.late = true
			g.Fault("expires_at", "must be in the future")
		case !o.sendAt.IsZero() && !o.expiresAt.After(o.sendAt):
			g.Fault("expires_at", "must be after send_at")
		case o.expiresAt.After(now.Add(MaxExpiresAhead)):
			g.Fault("expires_at", "must be at most %d days ahead", int(MaxExpiresAhead.Hours()/24))
		}
	}
	return o
}

func priority(s string) (message.Priority, error) {
	p, err := message.ParsePriority(s)
	if err != nil {
		err = errors.New("must be urgent, high, normal or low")
	}
	return p, err
}

func category(s string) (message.Category, error) {
	c, err := message.ParseCategory(s)
	if err != nil {
		err = errors.New("must be authentication, utility, marketing or service")
	}
	return c, err
}

func onUnknown(s string) (message.OnUnknown, error) {
	o, err := message.ParseOnUnknown(s)
	if err != nil {
		err = errors.New("must be hold, resend or fail")
	}
	return o, err
}

func isCallbackURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "" && u.User == nil && u.Fragment == "" && u.Opaque == ""
}

var clock = regexp.MustCompile(`^([01][0-9]|2[0-3]):[0-5][0-9]$`)

// readWindow checks the shape of a send_window and gives it as compact JSON: from and to as HH:MM, an IANA time zone
// (UTC without one), ISO weekdays (all without any).
func readWindow(w *form.Object) string {
	from, to := form.Word(w, "from", clockTime), form.Word(w, "to", clockTime)
	zone := form.Word(w, "timezone", timezone)
	days := w.Integers("days", 7, 1, 7)
	for _, name := range []string{"from", "to"} {
		if w.Raw(name) == nil {
			w.Fault(name, "is required")
		}
	}
	if from != "" && from == to {
		w.Fault("to", "must differ from from")
	}
	slices.Sort(days)
	if len(slices.Compact(slices.Clone(days))) != len(days) {
		w.Fault("days", "must name each day once")
	}
	w.End()
	raw, _ := json.Marshal(struct { // always marshals
		From     string `json:"from"`
		To       string `json:"to"`
		Timezone string `json:"timezone,omitempty"`
		Days     []int  `json:"days,omitempty"`
	}{from, to, zone, days})
	return string(raw)
}

func clockTime(s string) (string, error) {
	if !clock.MatchString(s) {
		return "", errors.New("must be a time of day such as 08:00")
	}
	return s, nil
}

func timezone(s string) (string, error) {
	if s == "" || s == "Local" || len(s) > maxTimezone {
		return "", errors.New("must be an IANA time zone such as Europe/Rome")
	}
	if _, err := time.LoadLocation(s); err != nil {
		return "", errors.New("must be an IANA time zone such as Europe/Rome")
	}
	return s, nil
}
