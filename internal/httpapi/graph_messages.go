package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/content"
	"wagate/internal/graphproxy"
	"wagate/internal/intake"
	"wagate/internal/message"
	"wagate/internal/store"
)

// Codes of Meta with which a message is not taken.
const (
	codeInvalidParameter = 100    // also: no such object
	codeParameterValue   = 131009 // a parameter's value is not valid
	codeThroughput       = 130429 // too many messages
	codeServiceDown      = 2
	codeAlreadyUsed      = 135000 // a generic error of the request
)

// idWait is how long a request waits for the wamid of a message of ours that it names.
const idWait = 5 * time.Second

// graphContact and graphSent are Meta's answer to a message. Clients read both members of each.
type graphContact struct {
	Input  string `json:"input"`
	WAID   string `json:"wa_id,omitempty"`
	UserID string `json:"user_id,omitempty"`
}

type graphSent struct {
	ID string `json:"id"`
}

type graphAnswer struct {
	Product  string         `json:"messaging_product"`
	Contacts []graphContact `json:"contacts"`
	Messages []graphSent    `json:"messages"`
}

// graphMessage is POST /{version}/{phone number id}/messages: it queues, and answers in Meta's shape with our id where Meta
// has its wamid; with Prefer: wait=N with the wamid, when it comes in time. Read receipts are passed on at once.
func (a *API) graphMessage(c echo.Context, key access.Key) error {
	if !key.May(access.Send) {
		return graphproxy.Forbidden("This API key lacks the scope " + string(access.Send))
	}
	body, err := readBody(c, maxBody)
	if err != nil {
		return graphBody(err)
	}
	phone := c.Param("phone")
	body, err = a.resolveIDs(c.Request().Context(), key, phone, body)
	if err != nil {
		return err
	}
	if isReceipt(body) {
		return a.Graph.Receipt(c.Response(), c.Request(), a.graphCaller(c, key), c.Param("version"), phone, body)
	}
	accepted, err := a.Intake.Accept(c.Request().Context(), intake.Request{
		Caller: caller(key), Body: body, IdempotencyKey: c.Request().Header.Get("Idempotency-Key"), From: phone, AnyNumber: true,
	})
	if err != nil {
		return graphIntake(err)
	}
	h := c.Response().Header()
	if accepted.Replayed {
		h.Set("Idempotent-Replayed", "true")
	}
	id := accepted.ID.String()
	if wait := preferredWait(c.Request().Header.Values("Prefer")); wait > 0 {
		if m, ok := a.await(c.Request().Context(), accepted.ID, wait); ok {
			h.Set("Preference-Applied", "wait="+strconv.Itoa(int(wait.Seconds())))
			switch {
			case m.WAMID != nil:
				id = *m.WAMID
			case m.Status == string(message.Failed):
				return graphFailure(m)
			}
		}
	}
	contact := graphContact{Input: accepted.To}
	if userID.MatchString(accepted.To) {
		contact.UserID = accepted.To
	} else {
		contact.WAID = digitsOf(accepted.To)
	}
	return c.JSON(http.StatusOK, graphAnswer{"whatsapp", []graphContact{contact}, []graphSent{{id}}})
}

// userID is how a business-scoped user id begins: the country and a dot.
var userID = regexp.MustCompile(`^[A-Za-z]{2}\.`)

func digitsOf(s string) string {
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, s)
}

// isReceipt says whether a body is a read receipt.
func isReceipt(body []byte) bool {
	m, faults, err := content.Check(body, content.Options{})
	return err == nil && len(faults) == 0 && m.IsReadReceipt
}

// resolveIDs puts the wamids of messages of ours in the place of our ids, wherever a message names another one: a reply, a
// reaction, a read receipt. A message that Meta has not taken yet is waited for, for a few seconds.
func (a *API) resolveIDs(ctx context.Context, key access.Key, phone string, body []byte) ([]byte, error) {
	var names struct {
		ID      string `json:"message_id"`
		Context struct {
			ID string `json:"message_id"`
		} `json:"context"`
		Reaction struct {
			ID string `json:"message_id"`
		} `json:"reaction"`
	}
	_ = json.Unmarshal(body, &names) // whoever checks the message says what is wrong with it
	for _, at := range []struct{ in, id string }{{"", names.ID}, {"context", names.Context.ID}, {"reaction", names.Reaction.ID}} {
		id, parseErr := message.ParseID(at.id)
		if parseErr != nil {
			continue
		}
		m, err := a.Store.GetMessage(ctx, id)
		if err == nil && (m.PhoneNumberID != phone || !key.MayUse(phone)) {
			err = store.ErrNotFound
		}
		if err == nil && m.WAMID == nil && !message.Status(m.Status).Ended() {
			if waited, ok := a.await(ctx, id, idWait); ok {
				m = waited
			}
		}
		pointer := "/message_id"
		if at.in != "" {
			pointer = "/" + at.in + pointer
		}
		switch {
		case errors.Is(err, store.ErrNotFound):
			return nil, graphproxy.BadMessage(http.StatusBadRequest, codeParameterValue, "Parameter value is not valid", pointer+": names no message of this phone number")
		case err != nil:
			return nil, err
		case m.WAMID == nil:
			return nil, graphproxy.BadMessage(http.StatusBadRequest, codeParameterValue, "Parameter value is not valid", pointer+": the message is "+m.Status+" and has no wamid")
		}
		if body, err = replaceID(body, at.in, *m.WAMID); err != nil {
			return nil, graphproxy.BadMessage(http.StatusBadRequest, codeInvalidParameter, "Invalid parameter", "the body is not a JSON object")
		}
	}
	return body, nil
}

// replaceID sets message_id in a member of an object, or in the object itself.
func replaceID(body []byte, in, wamid string) ([]byte, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(body, &object); err != nil {
		return nil, err
	}
	if in != "" {
		inner, err := replaceID(object[in], "", wamid)
		if err != nil {
			return nil, err
		}
		object[in] = inner
		return json.Marshal(object)
	}
	raw, err := json.Marshal(wamid)
	if err != nil {
		return nil, err
	}
	object["message_id"] = raw
	return json.Marshal(object)
}

// graphBody tells why a body was not read.
func graphBody(err error) error {
	p := toProblem(err)
	if p.Status >= http.StatusInternalServerError {
		return err
	}
	return graphproxy.BadMessage(p.Status, codeInvalidParameter, "Invalid parameter", p.Detail)
}

// graphIntake tells in Meta's words why a message was not taken.
func graphIntake(err error) error {
	e, ok := errors.AsType[*intake.Error](err)
	if !ok {
		return err
	}
	var details []string
	for _, f := range e.Faults {
		at := f.Pointer
		if at == "" {
			at = "the body"
		}
		details = append(details, at+": "+f.Detail)
	}
	p := fromIntake(e)
	g := graphproxy.BadMessage(http.StatusBadRequest, codeInvalidParameter, "Invalid parameter", strings.Join(details, "; "))
	switch e.Kind {
	case intake.Malformed, intake.Invalid:
	case intake.UnknownPhone:
		return graphproxy.NoObject()
	case intake.KeyReused:
		g = graphproxy.BadMessage(http.StatusUnprocessableEntity, codeAlreadyUsed, "Generic user error", p.Detail)
	case intake.Unavailable:
		g = graphproxy.BadMessage(http.StatusServiceUnavailable, codeServiceDown, "API Service", p.Detail)
		g.Transient, g.RetryAfter = true, e.RetryAfter
	case intake.Busy:
		g = graphproxy.BadMessage(http.StatusTooManyRequests, codeThroughput, "Rate limit hit", p.Detail)
		g.Transient, g.RetryAfter = true, e.RetryAfter
	}
	return g
}

// graphFailure is what Meta, or we, refused a message with, for a caller that has waited for it.
func graphFailure(m store.Message) error {
	code, title, details := codeInvalidParameter, "The message was not sent", ""
	if m.ErrorCode != nil && *m.ErrorCode != 0 {
		code = *m.ErrorCode
	}
	if m.ErrorTitle != nil && *m.ErrorTitle != "" {
		title = *m.ErrorTitle
	}
	if m.ErrorDetails != nil {
		details = *m.ErrorDetails
	}
	return graphproxy.BadMessage(http.StatusBadRequest, code, title, details)
}

// graphMarketing answers for the marketing messages API, which has an address of its own at Meta.
func (a *API) graphMarketing(echo.Context, access.Key) error {
	return graphproxy.BadMessage(http.StatusBadRequest, codeInvalidParameter, "Invalid parameter", "marketing_messages is not offered by the gateway: send the template to messages")
}
