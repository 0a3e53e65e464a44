package intake

import (
	"context"
	"slices"
	"time"

	"wagate/internal/cloudapi"
	"wagate/internal/message"
	"wagate/internal/store"
)

// templatesKnownFor is how long what is known of templates tells anything of a message: one that goes out later is refused for
// no template's status, which may be another by then.
const templatesKnownFor = time.Hour

// Templates knows the templates of phone numbers.
type Templates interface {
	// Prepare has what is known of the phone numbers in memory, and gives the moment from which it is.
	Prepare(ctx context.Context, phoneNumberIDs []string) (since time.Time)
	// Template gives the category of a message's template, "" where it is not known, and what stands against the message as it
	// was known since then or later. With later it goes out in more than an hour.
	Template(ctx context.Context, m *store.NewMessage, since time.Time, later bool) (message.Category, []cloudapi.Fault)
}

// UseTemplates has messages checked against what is known of their templates. It is to be called before the first request.
func (in *Intake) UseTemplates(t Templates) { in.templates = t }

const typeTemplate = "template"

// template looks at the template of a message, if it sends one: its category counts where the request has none.
func (in *Intake) template(ctx context.Context, m *store.NewMessage, a asked) *Error {
	if in.templates == nil || m.Type != typeTemplate {
		return nil
	}
	return in.judgeTemplate(ctx, m, a, in.templates.Prepare(ctx, []string{m.PhoneNumberID}))
}

// prepareTemplates is the first half of template, for many messages.
func (in *Intake) prepareTemplates(ctx context.Context, messages []store.NewMessage) (since time.Time) {
	if in.templates == nil {
		return time.Time{}
	}
	var phones []string
	for i := range messages {
		if m := &messages[i]; m.Type == typeTemplate && !slices.Contains(phones, m.PhoneNumberID) {
			phones = append(phones, m.PhoneNumberID)
		}
	}
	if len(phones) == 0 {
		return time.Time{}
	}
	return in.templates.Prepare(ctx, phones)
}

// judgeTemplate is the second half of template.
func (in *Intake) judgeTemplate(ctx context.Context, m *store.NewMessage, a asked, since time.Time) *Error {
	if in.templates == nil || m.Type != typeTemplate {
		return nil
	}
	now := in.now()
	later := opening(now, m.SendAt, m.SendWindow).After(now.Add(templatesKnownFor))
	category, faults := in.templates.Template(ctx, m, since, later)
	if len(faults) > 0 {
		return &Error{Kind: Invalid, Faults: faults, late: true}
	}
	if a.category == "" && category != "" {
		a.treat(m, category)
	}
	return nil
}
