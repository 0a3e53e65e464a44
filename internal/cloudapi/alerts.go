package cloudapi

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Severity is how much a notice about an account asks for an operator.
type Severity int16

// The severities, in their order.
const (
	SeverityInfo     Severity = iota // for the record
	SeverityWarning                  // sends go on; somebody should look
	SeverityCritical                 // sends fail or are paused, or soon will
)

var severities = [...]string{"info", "warning", "critical"}

// String gives the severity's word.
func (s Severity) String() string {
	if s < 0 || int(s) >= len(severities) {
		return "info"
	}
	return severities[s]
}

// ParseSeverity reads a severity's word.
func ParseSeverity(word string) (Severity, bool) {
	for i, s := range severities {
		if s == word {
			return Severity(i), true
		}
	}
	return 0, false
}

// Alert is a notice about an account as its operators should see it.
type Alert struct {
	Event    string // Meta's word: FLAGGED, PIN_CHANGED …; for errors of a change their code
	Severity Severity
	// WABAID is the WABA the notice is about where that is not its entry's (partners hear of their clients'); else empty.
	WABAID string
	// PhoneNumberID or DisplayPhone name a phone number, where the notice is about one.
	PhoneNumberID string
	DisplayPhone  string
	// Detail holds the notice's other plain members, by their path ("ban_info.waba_ban_state"), bounded.
	Detail map[string]string
}

// The most that is kept of one alert.
const (
	maxDetails   = 24
	maxDepth     = 4
	maxDetailLen = 300
)

// Alerts gives what a change tells the operators of an account. Changes of messages tell only of errors that belong to no
// message; fields that are not about an account tell nothing. Source: Meta's webhook reference, page by field.
func Alerts(c Change) []Alert {
	switch c.Field {
	case "messages":
		return errorAlerts(c)
	case "account_update", "account_alerts", "account_review_update", "business_capability_update", "phone_number_quality_update",
		"phone_number_name_update", "security":
	default:
		return nil
	}
	if !isObject(c.Value) {
		return nil
	}
	a := Alert{Detail: map[string]string{}}
	flatten(a.Detail, "", c.Value, 0)
	event := "event"
	switch c.Field {
	case "account_alerts":
		event = firstOf(a.Detail, "alert_type", "alert_info.alert_type", "alert_info.type")
	case "account_review_update", "phone_number_name_update":
		event = "decision"
	}
	a.Event = take(a.Detail, event)
	if a.Event == "" {
		a.Event = strings.ToUpper(c.Field)
	}
	a.WABAID = a.Detail["waba_info.waba_id"]
	for _, name := range []string{"display_phone_number", "phone_number"} {
		if shown := take(a.Detail, name); shown != "" {
			a.DisplayPhone = shown
		}
	}
	delete(a.Detail, "requester") // a person's id
	delete(a.Detail, "messaging_product")
	a.Severity = severityOf(c.Field, a)
	return []Alert{a}
}

func severityOf(field string, a Alert) Severity {
	switch field {
	case "account_alerts":
		switch a.Detail[firstOf(a.Detail, "alert_severity", "alert_info.alert_severity", "alert_info.severity")] {
		case "CRITICAL":
			return SeverityCritical
		case "WARNING":
			return SeverityWarning
		}
		return SeverityInfo
	case "security": // somebody takes two-step verification off, or sets another PIN
		if a.Event == "PIN_CHANGED" {
			return SeverityWarning
		}
		return SeverityCritical
	}
	switch a.Event {
	case "ACCOUNT_DELETED", "ACCOUNT_OFFBOARDED", "ACCOUNT_RESTRICTION":
		return SeverityCritical
	case "DISABLED_UPDATE":
		if a.Detail["ban_info.waba_ban_state"] == banReinstate {
			return SeverityInfo
		}
		return SeverityCritical
	case "REJECTED":
		if field == "account_review_update" {
			return SeverityCritical
		}
		return SeverityWarning
	case "ACCOUNT_VIOLATION", "PARTNER_REMOVED", "PARTNER_APP_UNINSTALLED", "FLAGGED", "DOWNGRADE":
		return SeverityWarning
	}
	return SeverityInfo
}

func errorAlerts(c Change) []Alert {
	phone, errs := ValueErrors(c)
	alerts := make([]Alert, len(errs))
	for i, e := range errs {
		detail := map[string]string{}
		for name, text := range map[string]string{"title": e.Title, "message": e.Message, "details": e.Details} {
			if text != "" {
				detail[name] = clip(text, maxDetailLen)
			}
		}
		alerts[i] = Alert{Event: strconv.Itoa(e.Code), Severity: SeverityWarning, PhoneNumberID: phone, Detail: detail}
	}
	return alerts
}

// flatten puts the plain members of an object into a map, by their paths; of too many those that sort first.
func flatten(into map[string]string, path string, value []byte, depth int) {
	if depth > maxDepth {
		return
	}
	add := func(name string, v []byte) {
		if path != "" {
			name = path + "." + name
		}
		if isObject(v) || isArray(v) {
			flatten(into, name, v, depth+1)
			return
		}
		s, _ := textOrNumber(v)
		if string(v) == "true" || string(v) == "false" {
			s = string(v)
		}
		if s == "" {
			return
		}
		into[name] = clip(s, maxDetailLen)
		if len(into) > maxDetails {
			delete(into, slices.Max(slices.Collect(maps.Keys(into))))
		}
	}
	if isArray(value) {
		i := 0
		elements(value, func(v []byte) bool { add(strconv.Itoa(i), v); i++; return i < maxErrors })
		return
	}
	members(value, func(key, v []byte) bool {
		name, _ := plain(key)
		add(clip(string(name), maxWord), v)
		return true
	})
}

// firstOf gives the first of the names that is there; the first of all when none is.
func firstOf(detail map[string]string, names ...string) string {
	for _, name := range names {
		if detail[name] != "" {
			return name
		}
	}
	return names[0]
}

func take(detail map[string]string, name string) string {
	s := detail[name]
	delete(detail, name)
	return clip(s, maxWord)
}

// AccountWord is what a change says of a WABA's standing: the newest word on each topic counts.
type AccountWord struct {
	Topic string // TopicBan, TopicReview or TopicRestriction
	Word  string // Meta's; of a restriction its types, with a space between
	// Until is when the word ends by itself; zero when it does not.
	Until time.Time
}

// The topics of an AccountWord.
const (
	TopicBan         = "ban"
	TopicReview      = "review"
	TopicRestriction = "restriction"
)

// Meta's words for a ban.
const (
	banDisable   = "DISABLE"
	banReinstate = "REINSTATE"
	banDeleted   = "DELETED"
)

// Meta's words for a restriction.
const (
	restrictedOwn     = "RESTRICTED_BIZ_INITIATED_MESSAGING"
	restrictedAnswers = "RESTRICTED_CUSTOMER_INITIATED_MESSAGING"
)

// StandingBlocks says whether nothing can be sent by a WABA of which that is Meta's newest word on a topic. A restriction does
// so where neither a business' own messages nor answers to its users are allowed; where answers are, Meta's refusals of the
// others are the guide.
func StandingBlocks(topic, word string) bool {
	switch topic {
	case TopicBan:
		return word != banReinstate
	case TopicReview:
		return word == "REJECTED"
	case TopicRestriction:
		kinds := strings.Fields(word)
		return slices.Contains(kinds, restrictedOwn) && slices.Contains(kinds, restrictedAnswers)
	}
	return false
}

// AccountStanding reads what an account_update or account_review_update says of the WABA's standing; ok is false where it
// says nothing of that. Source: Meta's webhook reference, account_update and account_review_update.
func AccountStanding(c Change) (w AccountWord, ok bool) {
	switch c.Field {
	case "account_review_update":
		w = AccountWord{Topic: TopicReview, Word: clipped(member(c.Value, "decision"), maxWord)}
		return w, w.Word != ""
	case "account_update":
	default:
		return AccountWord{}, false
	}
	switch clipped(member(c.Value, "event"), maxWord) {
	case "ACCOUNT_DELETED":
		return AccountWord{Topic: TopicBan, Word: banDeleted}, true
	case "DISABLED_UPDATE":
		w = AccountWord{Topic: TopicBan, Word: clipped(member(member(c.Value, "ban_info"), "waba_ban_state"), maxWord)}
		// What is to come does not end what is.
		return w, w.Word == banDisable || w.Word == banReinstate
	case "ACCOUNT_RESTRICTION":
		return restriction(member(c.Value, "restriction_info"))
	}
	return AccountWord{}, false
}

func restriction(info []byte) (AccountWord, bool) {
	w := AccountWord{Topic: TopicRestriction}
	var kinds []string
	elements(info, func(b []byte) bool {
		kind := strings.Join(strings.Fields(clipped(member(b, "restriction_type"), maxWord)), "_")
		if kind == "" {
			return true
		}
		kinds = append(kinds, kind)
		at := moment(member(b, "expiration"))
		if (kind == restrictedOwn || kind == restrictedAnswers) && !at.IsZero() && (w.Until.IsZero() || at.Before(w.Until)) {
			w.Until = at
		}
		return len(kinds) < maxErrors
	})
	slices.Sort(kinds)
	w.Word = strings.Join(slices.Compact(kinds), " ")
	return w, w.Word != ""
}

// PhoneName reads the decision of a phone_number_name_update.
func PhoneName(c Change) (displayPhone, decision string, ok bool) {
	if c.Field != "phone_number_name_update" {
		return "", "", false
	}
	display, _ := textOrNumber(member(c.Value, "display_phone_number"))
	decision = clipped(member(c.Value, "decision"), maxWord)
	return clip(display, maxWord), decision, decision != ""
}
