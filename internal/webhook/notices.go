package webhook

import (
	"time"

	"wagate/internal/cloudapi"
)

// notices are what a notification says beside statuses.
type notices struct {
	inbound     []cloudapi.InboundMessage
	errors      []scopedErrors
	quality     []ofWABA[cloudapi.QualityNotice]
	capability  []ofWABA[string]
	templates   []ofWABA[cloudapi.TemplateNotice]
	preferences []ofWABA[cloudapi.Preference]
	accounts    []ofWABA[cloudapi.AccountNotice]
}

// ofWABA is a notice about a WABA.
type ofWABA[T any] struct {
	waba string
	is   T
}

// scopedErrors are errors that belong to no message.
type scopedErrors struct {
	waba, phone string
	errs        []cloudapi.Error
}

func (n *notices) read(wabaID string, c cloudapi.Change) {
	n.inbound = append(n.inbound, cloudapi.Inbound(c)...)
	if phone, errs := cloudapi.ValueErrors(c); len(errs) > 0 {
		n.errors = append(n.errors, scopedErrors{wabaID, phone, errs})
	}
	if q, ok := cloudapi.PhoneQuality(c); ok {
		n.quality = append(n.quality, ofWABA[cloudapi.QualityNotice]{wabaID, q})
	}
	if tier, ok := cloudapi.Capability(c); ok {
		n.capability = append(n.capability, ofWABA[string]{wabaID, tier})
	}
	if t, ok := cloudapi.TemplateStatus(c); ok {
		n.templates = append(n.templates, ofWABA[cloudapi.TemplateNotice]{wabaID, t})
	}
	for _, p := range cloudapi.UserPreferences(c) {
		n.preferences = append(n.preferences, ofWABA[cloudapi.Preference]{wabaID, p})
	}
	if a, ok := cloudapi.AccountUpdate(c); ok {
		n.accounts = append(n.accounts, ofWABA[cloudapi.AccountNotice]{wabaID, a})
	}
}

func (n *notices) empty() bool {
	return len(n.inbound)+len(n.errors)+len(n.quality)+len(n.capability)+len(n.templates)+len(n.preferences)+len(n.accounts) == 0
}

// windowOpen is how long a user's message opens the customer service window. Source: Meta's page on sending messages.
const windowOpen = 24 * time.Hour
