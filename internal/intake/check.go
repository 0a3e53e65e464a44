package intake

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nyaruka/phonenumbers"

	"wagate/internal/cloudapi"
	"wagate/internal/content"
	"wagate/internal/form"
	"wagate/internal/message"
	"wagate/internal/reach"
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
	maxCallbackURL    = reach.MaxURL
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
	orderingAfter  string
	orderingWait   float64 // seconds
	sendWindow     string  // compact JSON
	api            string  // empty for messages
	fallback       fallback
	late           bool // expires_at has passed, or does before the window opens
}

// asked is what a request says of how its message is to be treated, apart from what follows from it.
type asked struct {
	priority  message.Priority
	category  message.Category
	onUnknown message.OnUnknown
	reply     bool
	media     named // the gateway's media that the message names
}

// treat gives a message its category, and what follows from it where nothing else was asked for.
func (a asked) treat(m *store.NewMessage, category message.Category) {
	m.Category = string(category)
	m.Priority = int(message.DefaultPriority(a.priority, category, a.reply))
	m.OnUnknown = string(message.DefaultOnUnknown(a.onUnknown, category))
}

// check reads a request and gives the message to store, without an id and a time; an *Error else. Beside an error that is
// late the message is given too. It does not look at the phone number's existence, nor at the template's.
func check(r Request, now time.Time, callbacks *reach.Rules) (store.NewMessage, *Error) {
	m, _, refused := checkAsked(r, now, callbacks)
	return m, refused
}

// checkAsked is check that also gives what was asked for; beside faults only the media that the message names, which it does not look at.
func checkAsked(r Request, now time.Time, callbacks *reach.Rules) (store.NewMessage, asked, *Error) {
	read, faults, err := content.Check(r.Body, content.Options{Strict: !r.AnyNumber, Marketing: r.API == content.MarketingAPI})
	if err != nil {
		return store.NewMessage{}, asked{}, &Error{Kind: Malformed, Faults: []cloudapi.Fault{{Pointer: "", Detail: err.Error()}}}
	}
	if slices.ContainsFunc(faults, func(f cloudapi.Fault) bool { return f.Pointer == "" }) {
		return store.NewMessage{}, asked{}, &Error{Kind: Invalid, Faults: faults}
	}
	media := namedMedia(read.Media)
	if read.IsReadReceipt {
		faults = append(faults, cloudapi.Fault{Pointer: "/status", Detail: "read receipts are not messages and are not queued"})
	}
	if r.From != "" {
		if read.From != "" && read.From != r.From {
			faults = append(faults, cloudapi.Fault{Pointer: "/from", Detail: "differs from the phone number id of the path"})
		}
		read.From = r.From
	}
	if read.From == "" && !slices.ContainsFunc(faults, func(f cloudapi.Fault) bool { return f.Pointer == "/from" }) {
		faults = append(faults, cloudapi.Fault{Pointer: "/from", Detail: "is required: the phone number id to send from"})
	}
	recipient := read.To
	if recipient == "" {
		recipient = read.Recipient
	}
	number := recipient // where it is one
	if slices.ContainsFunc(faults, func(f cloudapi.Fault) bool { return f.Pointer == "/to" || f.Pointer == "/recipient" }) {
		number = ""
	}
	var o options
	if read.Gateway != nil && string(read.Gateway) != "null" {
		o = readOptions(read.Gateway, number, now, callbacks, &faults)
		refuseBoth(read.Type, o.fallback, &faults)
	}
	if r.API != "" {
		if o.api != "" && o.api != r.API {
			faults = append(faults, cloudapi.Fault{Pointer: "/gateway/api", Detail: "differs from the path"})
		}
		o.api = r.API
	}
	if o.api == content.MarketingAPI {
		if o.category != "" && o.category != message.Marketing {
			faults = append(faults, cloudapi.Fault{Pointer: "/gateway/category", Detail: "must be marketing: " + content.MarketingAPI + " takes nothing else"})
		}
		o.category = message.Marketing
	} else {
		o.api = ""
	}
	key, fault := idempotencyKey(r.IdempotencyKey, o.idempotencyKey)
	if fault != nil {
		faults = append(faults, *fault)
	}
	if key == "" && r.OpaqueIsKey && read.Opaque != "" {
		key = opaqueKey(read.Opaque)
	}
	var refused *Error
	if len(faults) > 0 {
		refused = &Error{Kind: Invalid, Faults: faults, late: o.late && len(faults) == 1}
		if !refused.late {
			return store.NewMessage{}, asked{media: media}, refused
		}
	}

	m := store.NewMessage{
		PhoneNumberID: read.From, KeyID: r.Caller.KeyID, Owner: r.Caller.Owner, IdempotencyKey: key,
		Recipient: recipient, Type: read.Type, TemplateName: read.TemplateName, TemplateLanguage: read.TemplateLang,
		Opaque: read.Opaque, Reference: o.reference, OrderingKey: o.orderingKey, OrderingAfter: o.orderingAfter,
		OrderingSeconds: o.orderingWait, CallbackURL: o.callbackURL,
		API: o.api, SendWindow: o.sendWindow, SendAt: o.sendAt, ExpiresAt: o.expiresAt, Body: read.Body,
		Media:            media.unique(),
		FallbackTemplate: o.fallback.name, FallbackLanguage: o.fallback.language, FallbackCategory: o.fallback.category,
	}
	if key != "" {
		sum := sha256.Sum256(m.Body)
		if r.Sent != nil {
			sum = sha256.Sum256(r.Sent)
		}
		if r.From != "" { // the same body at another phone number, or another endpoint, is another request
			sum = sha256.Sum256(append(append(sum[:], r.From...), r.API...))
		}
		m.RequestHash = sum[:]
	}
	if len(o.tags) > 0 {
		raw, _ := json.Marshal(o.tags) // strings always marshal
		m.Tags = string(raw)
	}
	category := o.category
	if category == "" {
		category = message.Category(read.CategoryHint)
	}
	a := asked{priority: o.priority, category: category, onUnknown: o.onUnknown, reply: read.IsReply(), media: media}
	a.treat(&m, category)
	return m, a, refused
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

// opaqueKey makes an idempotency key of callback data: up to 512 characters of anything, which may say more of a person than a
// key should keep. The prefix keeps it apart from keys that callers make.
func opaqueKey(opaque string) string {
	sum := sha256.Sum256([]byte(opaque))
	return "biz_opaque_callback_data:" + hex.EncodeToString(sum[:])
}

func readOptions(raw []byte, number string, now time.Time, callbacks *reach.Rules, faults *[]cloudapi.Fault) options {
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
		api:            form.Word(g, "api", api),
	}
	if o.callbackURL != "" {
		if _, err := callbacks.URL(o.callbackURL); err != nil {
			g.Fault("callback_url", "%s", err.Error())
		}
	}
	if ordering := g.Object("ordering"); ordering != nil {
		o.orderingAfter, o.orderingWait = readOrdering(ordering)
		if o.orderingKey == "" && g.Raw("ordering_key") == nil {
			g.Fault("ordering", "needs an ordering_key")
		}
	}
	if window := g.Object("send_window"); window != nil {
		o.sendWindow = readWindow(window, number)
	}
	o.fallback = readFallback(g.Raw("fallback_template"), faults)
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
		case !o.expiresAt.After(opening(now, o.sendAt, o.sendWindow)):
			o.late = true
			g.Fault("expires_at", "must be after the send_window opens")
		}
	}
	return o
}

// presetOrderingWait is how long, in seconds, the next message of an ordering key waits for delivered at most.
const presetOrderingWait = 300

// readOrdering reads what the next message of an ordering key waits for.
func readOrdering(o *form.Object) (after string, seconds float64) {
	after = form.Word(o, "after", func(s string) (string, error) {
		if s != "accepted" && s != "delivered" {
			return "", errors.New("must be accepted or delivered")
		}
		return s, nil
	})
	if o.Raw("after") == nil {
		o.Fault("after", "is required")
	}
	timeout := o.Integer("timeout_seconds", nil, 1, 86400)
	switch {
	case timeout != nil && after == "accepted":
		o.Fault("timeout_seconds", "goes with after delivered only")
	case timeout != nil:
		seconds = float64(*timeout)
	case after == "delivered":
		seconds = presetOrderingWait
	}
	o.End()
	return after, seconds
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

func api(s string) (string, error) {
	if s != "messages" && s != content.MarketingAPI {
		return "", errors.New("must be messages or " + content.MarketingAPI)
	}
	return s, nil
}

// readWindow checks a send_window and gives it as it is kept: from and to as HH:MM, an IANA time zone, or those of the
// recipient's number without one, ISO weekdays (all without any). It is "" when it has faults.
func readWindow(w *form.Object, number string) string {
	whole := true
	fault := func(name, detail string) {
		whole = false
		w.Fault(name, "%s", detail)
	}
	from, to := form.Word(w, "from", clockTime), form.Word(w, "to", clockTime)
	zone := form.Word(w, "timezone", timezone)
	days := w.Integers("days", 7, 1, 7)
	for _, name := range []string{"from", "to"} {
		if w.Raw(name) == nil {
			fault(name, "is required")
		}
	}
	if from != "" && from == to {
		fault("to", "must differ from from")
	}
	slices.Sort(days)
	if len(slices.Compact(slices.Clone(days))) != len(days) {
		fault("days", "must name each day once")
	}
	var zones []string
	if w.Raw("timezone") == nil {
		if zones = zonesOf(number); len(zones) == 0 && number != "" {
			fault("timezone", "is required for this recipient")
		}
	}
	w.End()
	if !whole || from == "" || to == "" || (zone == "" && len(zones) == 0) {
		return ""
	}
	raw, _ := json.Marshal(message.Window{From: from, To: to, Timezone: zone, Zones: zones, Days: days}) // always marshals
	return string(raw)
}

// zonesOf gives the time zones of a phone number by its country and area; none when they are not known.
func zonesOf(number string) []string {
	parsed, err := phonenumbers.Parse(number, "")
	if err != nil {
		return nil
	}
	names, err := phonenumbers.GetTimezonesForNumber(parsed)
	if err != nil {
		return nil
	}
	var zones []string
	for _, name := range names {
		if _, err := timezone(name); err == nil && name != phonenumbers.UNKNOWN_TIMEZONE {
			zones = append(zones, name)
		}
	}
	return zones
}

func clockTime(s string) (string, error) {
	_, err := message.ParseClock(s)
	return s, err
}

// zoneForm is how IANA writes names. A machine's own files may be found under more, which another has not (posix/Europe/Rome)
// or of which there is no end (Europe/./Rome).
var zoneForm = regexp.MustCompile(`^[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$`)

func timezone(s string) (string, error) {
	if s == "Local" || len(s) > maxTimezone || !zoneForm.MatchString(s) {
		return "", errors.New("must be an IANA time zone such as Europe/Rome")
	}
	if _, err := time.LoadLocation(s); err != nil {
		return "", errors.New("must be an IANA time zone such as Europe/Rome")
	}
	return s, nil
}
