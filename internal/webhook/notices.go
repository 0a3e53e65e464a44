package webhook

import (
	"time"

	"wagate/internal/cloudapi"
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
	accounts    []ofWABA[cloudapi.AccountNotice]
}

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

func (n *notices) read(wabaID string, at time.Time, c cloudapi.Change) {
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
	if t, ok := cloudapi.TemplateStatus(c); ok {
		n.templates = append(n.templates, ofWABA[cloudapi.TemplateNotice]{wabaID, at, t})
	}
	for _, p := range cloudapi.UserPreferences(c) {
		n.preferences = append(n.preferences, ofWABA[cloudapi.Preference]{wabaID, at, p})
	}
	if a, ok := cloudapi.AccountUpdate(c); ok {
		n.accounts = append(n.accounts, ofWABA[cloudapi.AccountNotice]{wabaID, at, a})
	}
}

func (n *notices) empty() bool {
	return len(n.inbound)+len(n.calls)+len(n.errors)+len(n.quality)+len(n.capability)+len(n.templates)+len(n.preferences)+len(n.accounts) == 0
}
