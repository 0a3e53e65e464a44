package httpapi

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"wagate/internal/message"
	"wagate/internal/store"
)

// messageView is a message as callers get it.
type messageView struct {
	ID     uuid.UUID `json:"id"`
	From   string    `json:"from"`
	WABAID string    `json:"waba_id"`
	To     string    `json:"to"`
	Type   string    `json:"type"`
	Status string    `json:"status"`
	WAMID  *string   `json:"wamid"`
	// MessageStatus is Meta's word in its answer: accepted, held_for_quality_assessment, paused.
	MessageStatus *string           `json:"message_status"`
	Tries         int               `json:"tries"`
	Error         *errorView        `json:"error"`
	HeldBy        *heldView         `json:"held_by"`
	Priority      string            `json:"priority"`
	Category      *string           `json:"category"`
	OnUnknown     string            `json:"on_unknown"`
	API           string            `json:"api"`
	CreatedAt     time.Time         `json:"created_at"`
	SendAt        *time.Time        `json:"send_at"`
	ExpiresAt     *time.Time        `json:"expires_at"`
	AcceptedAt    *time.Time        `json:"accepted_at"`
	SentAt        *time.Time        `json:"sent_at"`
	DeliveredAt   *time.Time        `json:"delivered_at"`
	ReadAt        *time.Time        `json:"read_at"`
	PlayedAt      *time.Time        `json:"played_at"`
	FailedAt      *time.Time        `json:"failed_at"`
	Unknown       *unknownView      `json:"unknown"`
	Pricing       *pricingView      `json:"pricing"`
	Template      *templateView     `json:"template"`
	Fallback      *fallbackView     `json:"fallback,omitempty"`
	Reference     *string           `json:"reference"`
	Tags          map[string]string `json:"tags"`
	ResendOf      *uuid.UUID        `json:"resend_of"`
	// RedactedAt is when the content was removed before the message: it cannot be sent again.
	RedactedAt *time.Time `json:"redacted_at"`
}

type errorView struct {
	Code    *int    `json:"code"`
	Subcode *int    `json:"subcode"`
	Title   *string `json:"title"`
	Details *string `json:"details"`
	Scope   *string `json:"scope"`
}

type unknownView struct {
	Since  *time.Time `json:"since"`
	Reason *string    `json:"reason"`
	// SettleBy is when on_unknown decides; null: it will not, an operator does.
	SettleBy *time.Time `json:"settle_by"`
	// WaitsFor is why that was put off: webhooks_waiting, webhooks_silent, webhooks_late, held_by_meta.
	WaitsFor *string `json:"waits_for,omitempty"`
}

type pricingView struct {
	Billable *bool   `json:"billable"`
	Model    *string `json:"pricing_model"`
	Type     *string `json:"type"`
	Category *string `json:"category"`
}

type templateView struct {
	Name     *string `json:"name"`
	Language *string `json:"language"`
}

// fallbackView is the template that goes where the service window is closed. UsedAt is when it took the place of the message,
// of type InsteadOf; null while it did not.
type fallbackView struct {
	Name      *string    `json:"name"`
	Language  *string    `json:"language"`
	UsedAt    *time.Time `json:"used_at"`
	InsteadOf *string    `json:"instead_of"`
}

func viewMessage(m store.Message) messageView {
	v := messageView{
		ID: m.ID, From: m.PhoneNumberID, WABAID: m.WABAID, To: m.Recipient, Type: m.Type, Status: m.Status, WAMID: m.WAMID, MessageStatus: m.MessageStatus, Tries: m.Tries,
		Priority: message.Priority(m.Priority).String(), Category: m.Category, OnUnknown: m.OnUnknown, API: "messages",
		CreatedAt: m.CreatedAt.UTC(), SendAt: utc(m.SendAt), ExpiresAt: utc(m.ExpiresAt), AcceptedAt: utc(m.AcceptedAt), SentAt: utc(m.SentAt),
		DeliveredAt: utc(m.DeliveredAt), ReadAt: utc(m.ReadAt), PlayedAt: utc(m.PlayedAt), FailedAt: utc(m.FailedAt),
		Reference: m.Reference, Tags: m.Tags, ResendOf: m.ResendOf, RedactedAt: utc(m.RedactedAt),
	}
	if m.ErrorCode != nil || m.ErrorTitle != nil || m.ErrorDetails != nil {
		v.Error = &errorView{m.ErrorCode, m.ErrorSubcode, m.ErrorTitle, m.ErrorDetails, m.ErrorScope}
	}
	if m.PricingBillable != nil || m.PricingModel != nil || m.PricingType != nil || m.PricingCategory != nil {
		v.Pricing = &pricingView{m.PricingBillable, m.PricingModel, m.PricingType, m.PricingCategory}
	}
	if m.TemplateName != nil {
		v.Template = &templateView{m.TemplateName, m.TemplateLanguage}
	}
	if m.FallbackTemplate != nil {
		v.Fallback = &fallbackView{m.FallbackTemplate, m.FallbackLanguage, utc(m.FallbackAt), m.FallbackFrom}
	}
	if m.Status == string(message.Unknown) {
		v.Unknown = &unknownView{utc(m.UnknownAt), m.UnknownReason, utc(m.SettleBy), m.SettleWaits}
	}
	if m.API != nil {
		v.API = *m.API
	}
	v.HeldBy = heldBy(m)
	return v
}

type eventView struct {
	ID     uuid.UUID       `json:"id"`
	Kind   string          `json:"kind"`
	Try    *int            `json:"try"`
	WAMID  *string         `json:"wamid"`
	At     time.Time       `json:"at"`
	Detail json.RawMessage `json:"detail"`
}

func viewEvents(events []store.LoggedEvent) []eventView {
	views := make([]eventView, len(events))
	for i, e := range events {
		views[i] = eventView{e.ID, e.Kind, e.Try, e.WAMID, e.At.UTC(), e.Detail}
	}
	return views
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}
