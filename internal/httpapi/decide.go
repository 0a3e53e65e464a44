package httpapi

import (
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/cloudapi"
	"wagate/internal/form"
	"wagate/internal/message"
	"wagate/internal/store"
)

// cancelTime bounds the work of a cancellation by filter; what is left then is for the next call.
const cancelTime = 8 * time.Second

// Lengths of what a filter compares with, in characters.
const (
	maxFilterText = 300
	maxFilterTags = 20
)

// decideRoutes are those by which somebody decides what becomes of messages.
func (a *API) decideRoutes() {
	a.echo.POST("/v1/messages/cancel", a.authed(access.Send, a.cancelMessages))
	a.echo.POST("/v1/messages/:id/settle", a.authed(access.Send, a.settleMessage))
	a.echo.POST("/v1/messages/:id/resend", a.authed(access.Send, a.resendMessage))
}

// undecidable turns what stands against a decision into a 409; other errors stay what they are.
func undecidable(err error, why func(status string) string) error {
	if wrong, ok := errors.AsType[*store.WrongStatusError](err); ok {
		return newProblem(http.StatusConflict, "wrong_status", "The message is "+wrong.Status+": "+why(wrong.Status))
	}
	switch {
	case errors.Is(err, store.ErrBodyGone):
		return newProblem(http.StatusConflict, "content_gone", "The content of the message is not kept any more, so it cannot be sent again.")
	case errors.Is(err, store.ErrMediaGone):
		return newProblem(http.StatusConflict, "media_gone", "A media that the message names was deleted, so it cannot be sent again.")
	case errors.Is(err, store.ErrPhoneGone):
		return newProblem(http.StatusConflict, "phone_number_gone", "The phone number of the message is not there any more, so it cannot be sent again.")
	}
	return err
}

func decision(s string) (store.Decision, error) {
	switch d := store.Decision(s); d {
	case store.DecideSent, store.DecideFailed, store.DecideResend:
		return d, nil
	}
	return "", errors.New("must be sent, failed or resend")
}

func (a *API) settleMessage(c echo.Context, key access.Key) error {
	id, err := message.ParseID(c.Param("id"))
	if err != nil {
		return store.ErrNotFound
	}
	var faults []cloudapi.Fault
	o, err := open(c, nil, &faults)
	if err != nil {
		return err
	}
	as := form.Word(o, "as", decision)
	if o.Raw("as") == nil {
		o.Fault("as", "is required: sent, failed or resend")
	}
	o.End()
	if len(faults) > 0 {
		return invalid(faults)
	}
	m, err := a.Intake.Settle(c.Request().Context(), caller(key), id, as)
	if err != nil {
		return undecidable(err, func(string) string { return "only one that is unknown can be settled." })
	}
	return c.JSON(http.StatusOK, viewMessage(m))
}

func (a *API) resendMessage(c echo.Context, key access.Key) error {
	id, err := message.ParseID(c.Param("id"))
	if err != nil {
		return store.ErrNotFound
	}
	accepted, err := a.Intake.Resend(c.Request().Context(), caller(key), id, c.Request().Header.Get("Idempotency-Key"))
	if err != nil {
		return undecidable(err, func(status string) string {
			switch message.Status(status) {
			case message.Unknown:
				return "settle it first."
			case message.Queued, message.Sending:
				return "it is still to be sent."
			}
			return "only one that failed, expired or was cancelled can be resent."
		})
	}
	h := c.Response().Header()
	h.Set(echo.HeaderLocation, "/v1/messages/"+accepted.ID.String())
	status := http.StatusAccepted
	if accepted.Replayed {
		h.Set("Idempotent-Replayed", "true")
		status = http.StatusOK
	}
	return c.JSON(status, struct {
		acceptedView
		ResendOf string `json:"resend_of"`
	}{acceptedView{accepted.ID, string(message.Queued), accepted.From, accepted.To, accepted.CreatedAt, accepted.EstimatedSendAt}, id.String()})
}

// cancelFilter reads {"filter":{…}}. A filter that picks everything is refused: it is more often a slip than a wish.
func cancelFilter(o *form.Object) store.CancelFilter {
	filter := o.Object("filter")
	if filter == nil {
		if o.Raw("filter") == nil {
			o.Fault("filter", "is required")
		}
		o.End()
		return store.CancelFilter{}
	}
	f := store.CancelFilter{
		From: filter.Text("from", maxFilterText), To: filter.Text("to", maxFilterText), Reference: filter.Text("reference", maxFilterText),
		Tags:     filter.Map("tag", maxFilterTags, maxFilterText, maxFilterText),
		Priority: int(form.Word(filter, "priority", parsePriority)), CreatedAfter: filter.Time("created_after"), CreatedBefore: filter.Time("created_before"),
	}
	if s := filter.Text("status", maxFilterText); s != "" && s != string(message.Queued) {
		filter.Fault("status", "must be queued: only a message that waits can be cancelled")
	}
	if f.From == "" && f.To == "" && f.Reference == "" && len(f.Tags) == 0 && f.Priority == 0 && f.CreatedAfter.IsZero() && f.CreatedBefore.IsZero() {
		filter.Fault("", "must name from, to, reference, tag, priority, created_after or created_before")
	}
	filter.End()
	o.End()
	return f
}

func parsePriority(s string) (message.Priority, error) {
	p, err := message.ParsePriority(s)
	if err != nil {
		err = errors.New("must be urgent, high, normal or low")
	}
	return p, err
}

func (a *API) cancelMessages(c echo.Context, key access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	var faults []cloudapi.Fault
	o, err := open(c, nil, &faults)
	if err != nil {
		return err
	}
	f := cancelFilter(o)
	if len(faults) > 0 {
		return invalid(faults)
	}
	f.PhoneNumberIDs = key.PhoneNumbers
	n, more, err := a.Intake.CancelMany(ctx, f, cancelTime)
	switch {
	case err != nil && n == 0:
		return err
	case err != nil: // what was cancelled is worth saying; the next call meets the error again if it lasts
		a.logger.WarnContext(ctx, "a cancellation by filter broke off", "cancelled", n, "error", err)
	}
	return c.JSON(http.StatusOK, map[string]any{"cancelled": n, "more": more})
}
