package webhook

import (
	"cmp"
	"fmt"
	"time"

	"github.com/google/uuid"

	"wagate/internal/cloudapi"
	"wagate/internal/store"
)

// notices are what a notification says beside statuses.
type notices struct {
	inbound     []ofWABA[cloudapi.InboundMessage]
	calls       []cloudapi.InboundCall
	errors      []scopedErrors
	quality     []ofWABA[cloudapi.QualityNotice]
	capability  []ofWABA[string]
	templates   []ofWABA[cloudapi.TemplateNotice]
	preferences []ofWABA[cloudapi.Preference]
	standings   []ofWABA[cloudapi.AccountWord]
	names       []ofWABA[phoneName]
	alerts      []store.Alert
}

// phoneName is Meta's decision on the name that a phone number shows.
type phoneName struct{ display, decision string }

// ofWABA is a notice about a WABA and the time of its entry, or of its receipt.
type ofWABA[T any] struct {
	waba string
	at   time.Time
	is   T
}

// scopedErrors are errors that belong to no message.
type scopedErrors struct {
	waba, phone string
	at          time.Time
	errs        []cloudapi.Error
}

// read adds what a change says. told is Meta's time of it, zero where it gives none; at is never zero, nor after the receipt.
func (n *notices) read(wabaID string, told, at time.Time, raw uuid.UUID, c cloudapi.Change) {
	for _, m := range cloudapi.Inbound(c) {
		n.inbound = append(n.inbound, ofWABA[cloudapi.InboundMessage]{wabaID, at, m})
	}
	n.calls = append(n.calls, cloudapi.InboundCalls(c)...)
	if phone, errs := cloudapi.ValueErrors(c); len(errs) > 0 {
		n.errors = append(n.errors, scopedErrors{wabaID, clean(phone), at, errs})
	}
	if q, ok := cloudapi.PhoneQuality(c); ok {
		n.quality = append(n.quality, ofWABA[cloudapi.QualityNotice]{wabaID, at, q})
	}
	if tier, ok := cloudapi.Capability(c); ok {
		n.capability = append(n.capability, ofWABA[string]{wabaID, at, tier})
	}
	if t, ok := cloudapi.TemplateUpdate(c); ok {
		n.templates = append(n.templates, ofWABA[cloudapi.TemplateNotice]{wabaID, at, t})
	}
	for _, p := range cloudapi.UserPreferences(c) {
		n.preferences = append(n.preferences, ofWABA[cloudapi.Preference]{wabaID, at, p})
	}
	if w, ok := cloudapi.AccountStanding(c); ok {
		w.Word = clean(w.Word)
		n.standings = append(n.standings, ofWABA[cloudapi.AccountWord]{wabaID, at, w})
	}
	if display, decision, ok := cloudapi.PhoneName(c); ok {
		n.names = append(n.names, ofWABA[phoneName]{wabaID, at, phoneName{display, clean(decision)}})
	}
	for i, a := range cloudapi.Alerts(c) {
		alert := store.Alert{
			At: at, WABAID: clean(cmp.Or(a.WABAID, wabaID)), PhoneNumberID: clean(a.PhoneNumberID), DisplayPhoneNumber: clean(a.DisplayPhone),
			Field: c.Field, Event: clean(a.Event), Severity: int16(a.Severity), Detail: make(map[string]string, len(a.Detail)), WebhookID: raw,
		}
		if c.Field == "messages" {
			alert.Field = "errors"
		}
		for name, text := range a.Detail {
			alert.Detail[clean(name)] = clean(text)
		}
		said := at
		if !told.IsZero() {
			said = told
		}
		alert.ID = store.AlertID(wabaID, fmt.Sprintf("%s/%d", c.Field, i), said, !told.IsZero(), c.Value)
		n.alerts = append(n.alerts, alert)
	}
}

func (n *notices) empty() bool {
	return len(n.inbound)+len(n.calls)+len(n.errors)+len(n.quality)+len(n.capability)+len(n.templates)+len(n.preferences)+len(n.standings)+len(n.names)+len(n.alerts) == 0
}
