package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/cloudapi"
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
	codeNoTemplate       = 132001 // no such template in the language
	codeServiceDown      = 2
	codeWindowClosed     = 131047 // outside the customer service window
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
// has its wamid; with Prefer: wait=N, or by a setting of the WABA, with the wamid, when it comes in time. Read receipts are
// passed on at once.
func (a *API) graphMessage(c echo.Context, key access.Key) error {
	r, set, err := a.graphRequest(c, key)
	if err != nil {
		return err
	}
	if receipt, refused := readReceipt(r.Body); receipt != nil || refused != nil {
		if refused != nil {
			return refused
		}
		if receipt.id, err = a.wamidFor(c.Request().Context(), key, r.From, receipt.id, "/message_id"); err != nil {
			return err
		}
		return a.Graph.Receipt(c.Response(), c.Request(), a.graphCaller(c, key), c.Param("version"), r.From, receipt.body())
	}
	return a.queueGraph(c, key, r, set)
}

// graphMarketing is POST /{version}/{phone number id}/marketing_messages, for templates of marketing alone.
func (a *API) graphMarketing(c echo.Context, key access.Key) error {
	r, set, err := a.graphRequest(c, key)
	if err != nil {
		return err
	}
	r.API = content.MarketingAPI
	return a.queueGraph(c, key, r, set)
}

// graphRequest reads a request with a message, and the settings of its phone number's WABA.
func (a *API) graphRequest(c echo.Context, key access.Key) (intake.Request, store.Ingress, error) {
	if !key.May(access.Send) {
		return intake.Request{}, store.Ingress{}, graphproxy.Forbidden("This API key lacks the scope " + string(access.Send))
	}
	body, err := readBody(c, maxBody)
	if err != nil {
		return intake.Request{}, store.Ingress{}, graphBody(err)
	}
	h := c.Request().Header
	if body, err = messageBody(h.Get(echo.HeaderContentType), body); err != nil {
		return intake.Request{}, store.Ingress{}, graphBody(err)
	}
	phone := c.Param("phone")
	if digitsOf(phone) != phone || !key.MayUse(phone) {
		return intake.Request{}, store.Ingress{}, graphproxy.NoObject()
	}
	set, err := a.ingress.settings(c.Request().Context(), phone)
	if err != nil {
		return intake.Request{}, store.Ingress{}, err
	}
	return intake.Request{
		Caller: caller(key), Body: body, IdempotencyKey: h.Get("Idempotency-Key"), From: phone, OpaqueIsKey: set.OpaqueIsKey, AnyNumber: true,
	}, set, nil
}

// queueGraph queues a message and answers for it.
func (a *API) queueGraph(c echo.Context, key access.Key, r intake.Request, set store.Ingress) error {
	accepted, err := a.acceptGraph(c.Request().Context(), key, r)
	if err != nil {
		return err
	}
	h := c.Response().Header()
	if accepted.Replayed {
		h.Set("Idempotent-Replayed", "true")
	}
	wait, asked := statedWait(c.Request().Header.Values("Prefer"))
	if !asked && set.Answer == store.AnswerWAMID {
		wait = time.Duration(set.WaitSeconds) * time.Second
		if accepted.EstimatedSendAt.Sub(a.Now()) > wait { // for later, or behind others: it would be waited for in vain
			wait = 0
		}
	}
	id := accepted.ID.String()
	if wait > 0 {
		if m, ok := a.await(c.Request().Context(), accepted.ID, wait); ok {
			if asked {
				h.Set("Preference-Applied", "wait="+strconv.Itoa(int(wait.Seconds())))
			}
			if m.WAMID == nil {
				return graphFailure(m)
			}
			id = *m.WAMID
			told, cancel := a.bounded(c)
			defer cancel()
			if err := a.Store.ToldWAMID(told, accepted.ID); err != nil {
				// It is queued all the same, and known by either id; only its callbacks may name it by ours.
				a.logger.WarnContext(told, "it is not kept that a client was answered with the wamid", "message", accepted.ID, "error", err)
			}
		}
	}
	contact := graphContact{Input: accepted.To}
	if userID.MatchString(accepted.To) {
		contact.UserID = accepted.To
	} else {
		contact.WAID = waID(accepted.To)
	}
	return c.JSON(http.StatusOK, graphAnswer{"whatsapp", []graphContact{contact}, []graphSent{{id}}})
}

// userID is how a business-scoped user id begins: the country and a dot.
var userID = regexp.MustCompile(`^[A-Za-z]{2}\.`)

// waID is the WhatsApp ID of what a message was addressed to: the digits of a phone number, and a group's id as it is.
func waID(to string) string {
	if strings.ContainsFunc(to, unicode.IsLetter) {
		return to
	}
	return digitsOf(to)
}

func digitsOf(s string) string {
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, s)
}

// acceptGraph queues a message. Where it names messages by our ids it gets their wamids first; a repetition is known by what
// was sent, whatever has become of those messages since.
func (a *API) acceptGraph(ctx context.Context, key access.Key, r intake.Request) (intake.Accepted, error) {
	with := map[string]string{}
	ids, pointers := content.IDs(r.Body)
	for i, id := range ids {
		if _, err := message.ParseID(id); err != nil {
			continue
		}
		if r.Sent == nil {
			r.Sent = r.Body
			if accepted, seen, err := a.Intake.Seen(ctx, r); seen || err != nil {
				return accepted, graphIntake(err)
			}
		}
		wamid, err := a.wamidFor(ctx, key, r.From, id, pointers[i])
		if err != nil {
			return intake.Accepted{}, err
		}
		with[id] = wamid
	}
	if len(with) > 0 {
		r.Body = content.ReplaceIDs(r.Body, with)
	}
	accepted, err := a.Intake.Accept(ctx, r)
	return accepted, graphIntake(err)
}

// wamidFor gives the wamid of the message that an id of ours names, and any other id as it is. A message that Meta has not
// taken yet is waited for, for a few seconds.
func (a *API) wamidFor(ctx context.Context, key access.Key, phone, id, pointer string) (string, error) {
	ours, err := message.ParseID(id)
	if err != nil {
		return id, nil // a wamid
	}
	look, cancel := context.WithTimeout(ctx, handlerTime)
	defer cancel()
	m, err := a.Store.GetMessage(look, ours)
	if err == nil && (m.PhoneNumberID != phone || !key.MayUse(phone)) {
		err = store.ErrNotFound
	}
	if err == nil && m.WAMID == nil && !message.Status(m.Status).Ended() {
		if waited, ok := a.await(ctx, ours, idWait); ok {
			m = waited
		}
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return "", graphproxy.BadMessage(http.StatusBadRequest, codeParameterValue, "Parameter value is not valid", pointer+": names no message of this phone number")
	case err != nil:
		return "", err
	case m.WAMID != nil:
		return *m.WAMID, nil
	case message.Status(m.Status).Ended():
		return "", graphproxy.BadMessage(http.StatusBadRequest, codeParameterValue, "Parameter value is not valid", pointer+": the message is "+m.Status+" and has no wamid")
	}
	e := graphproxy.BadMessage(http.StatusServiceUnavailable, codeServiceDown, "API Service", pointer+": the message is "+m.Status+" and has no wamid yet")
	e.Transient, e.RetryAfter = true, idWait
	return "", e
}

// receipt is a read receipt.
type receipt struct {
	id     string
	typing bool
}

// body is what goes to Meta: nothing but what a read receipt has.
func (r *receipt) body() []byte {
	type typing struct {
		Type string `json:"type"`
	}
	out := struct {
		Product   string  `json:"messaging_product"`
		Status    string  `json:"status"`
		MessageID string  `json:"message_id"`
		Typing    *typing `json:"typing_indicator,omitempty"`
	}{Product: "whatsapp", Status: "read", MessageID: r.id}
	if r.typing {
		out.Typing = &typing{"text"}
	}
	raw, _ := json.Marshal(out) // strings always marshal
	return raw
}

// readReceipt reads a body that is a read receipt; nil for any other.
func readReceipt(body []byte) (*receipt, error) {
	if !bytes.Contains(body, []byte(`read`)) {
		return nil, nil //nolint:nilnil // no receipt
	}
	m, faults, err := content.Check(body, content.Options{})
	switch {
	case err != nil || !m.IsReadReceipt:
		return nil, nil //nolint:nilnil,nilerr // no receipt: whoever checks the message says what is wrong with it
	case len(faults) > 0:
		return nil, graphIntake(&intake.Error{Kind: intake.Invalid, Faults: faults})
	}
	return &receipt{m.ReadReceiptOf, m.TypingIndicator}, nil
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
	if err == nil {
		return nil
	}
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
		if code := codeOf(e.Faults); code != 0 {
			rule, _ := cloudapi.Lookup(code, 0)
			g.Code, g.Message = code, rule.Title
			if code == codeNoTemplate {
				g.Status = http.StatusNotFound // Meta's own status for it
			}
		}
		if e.Code == "window_closed" {
			g = graphproxy.BadMessage(http.StatusBadRequest, codeWindowClosed, "Re-engagement message", strings.Join(details, "; "))
		}
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

// codeOf gives the code that Meta would have answered with, by the first fault that has one; 0 where none does.
func codeOf(faults []cloudapi.Fault) int {
	for _, f := range faults {
		if f.Code != 0 {
			return f.Code
		}
	}
	return 0
}

// graphFailure is what Meta, or we, refused a message with, for a caller that has waited for it.
func graphFailure(m store.Message) error {
	code, title, details := codeInvalidParameter, "The message is "+m.Status+" and was not sent", ""
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
