package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/intake"
	"wagate/internal/message"
	"wagate/internal/store"
)

// acceptedView is the answer to an accepted message.
type acceptedView struct {
	ID              uuid.UUID `json:"id"`
	Status          string    `json:"status"`
	From            string    `json:"from"`
	To              string    `json:"to"`
	CreatedAt       time.Time `json:"created_at"`
	EstimatedSendAt time.Time `json:"estimated_send_at"`
}

func caller(key access.Key) intake.Caller {
	return intake.Caller{
		KeyID: key.ID, Owner: key.Name, PhoneNumbers: key.PhoneNumbers, MaxBacklog: key.MaxBacklog, MessagesPerDay: key.MessagesPerDay,
	}
}

// readBody reads a request's body of at most limit bytes.
func readBody(c echo.Context, limit int64) ([]byte, error) {
	r := c.Request()
	if encoding := r.Header.Get(echo.HeaderContentEncoding); encoding != "" && encoding != "identity" {
		return nil, newProblem(http.StatusUnsupportedMediaType, "unsupported_encoding", "The body must not be compressed.")
	}
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.Response(), r.Body, limit))
	if err != nil {
		return nil, bodyError(err)
	}
	return body, nil
}

// bodyError tells a body that is too large or too slow from one that broke off.
func bodyError(err error) error {
	if p := toProblem(err); p.Status == http.StatusRequestEntityTooLarge || p.Status == http.StatusRequestTimeout {
		return p
	}
	return newProblem(http.StatusBadRequest, "malformed", "The body broke off.")
}

func (a *API) postMessage(c echo.Context, key access.Key) error {
	body, err := readBody(c, maxBody)
	if err != nil {
		return err
	}
	accepted, err := a.Intake.Accept(c.Request().Context(), intake.Request{
		Caller: caller(key), Body: body, IdempotencyKey: c.Request().Header.Get("Idempotency-Key"),
	})
	if err != nil {
		return err
	}
	h := c.Response().Header()
	h.Set(echo.HeaderLocation, "/v1/messages/"+accepted.ID.String())
	status := http.StatusAccepted
	if accepted.Replayed {
		h.Set("Idempotent-Replayed", "true")
		status = http.StatusOK
	}
	if wait := preferredWait(c.Request().Header.Values("Prefer")); wait > 0 {
		if m, ok := a.await(c.Request().Context(), accepted.ID, wait); ok {
			h.Set("Preference-Applied", "wait="+strconv.Itoa(int(wait.Seconds())))
			return c.JSON(http.StatusOK, viewMessage(m))
		}
	}
	return c.JSON(status, acceptedView{accepted.ID, string(message.Queued), accepted.From, accepted.To, accepted.CreatedAt, accepted.EstimatedSendAt})
}

func (a *API) validateMessage(c echo.Context, key access.Key) error {
	body, err := readBody(c, maxBody)
	if err != nil {
		return err
	}
	err = a.Intake.Check(c.Request().Context(), intake.Request{Caller: caller(key), Body: body, IdempotencyKey: c.Request().Header.Get("Idempotency-Key")})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]bool{"valid": true})
}

// ownMessage reads the message of the path; one that is not the key's is not there.
func (a *API) ownMessage(ctx context.Context, c echo.Context, key access.Key) (store.Message, error) {
	id, err := message.ParseID(c.Param("id"))
	if err != nil {
		return store.Message{}, store.ErrNotFound
	}
	m, err := a.Store.GetMessage(ctx, id)
	if err == nil && !key.MayUse(m.PhoneNumberID) {
		err = store.ErrNotFound
	}
	return m, err
}

func (a *API) getMessage(c echo.Context, key access.Key) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), handlerTime)
	defer cancel()
	m, err := a.ownMessage(ctx, c, key)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, viewMessage(m))
}

func (a *API) getEvents(c echo.Context, key access.Key) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), handlerTime)
	defer cancel()
	m, err := a.ownMessage(ctx, c, key)
	if err != nil {
		return err
	}
	events, err := a.Store.Events(ctx, m.ID)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{"events": viewEvents(events)})
}

func (a *API) cancelMessage(c echo.Context, key access.Key) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), handlerTime)
	defer cancel()
	m, err := a.ownMessage(ctx, c, key)
	if err != nil {
		return err
	}
	cancelled, err := a.Intake.Cancel(ctx, m.ID)
	if err != nil {
		return err
	}
	if m, err = a.ownMessage(ctx, c, key); err != nil {
		return err
	}
	if !cancelled && m.Status != string(message.Cancelled) {
		return newProblem(http.StatusConflict, "too_late", "The message is "+m.Status+": a try has begun, or it has ended.")
	}
	return c.JSON(http.StatusOK, viewMessage(m))
}

const (
	presetLimit = 50
	maxLimit    = 200
	// maxTags bounds the tags of a filter.
	maxTags = 10
)

func (a *API) listMessages(c echo.Context, key access.Key) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), handlerTime)
	defer cancel()
	f, err := filter(c.QueryParams())
	if err != nil {
		return newProblem(http.StatusBadRequest, "malformed", err.Error())
	}
	f.PhoneNumberIDs = key.PhoneNumbers
	messages, last, err := a.Store.ListMessages(ctx, f)
	if err != nil {
		return err
	}
	views := make([]messageView, len(messages))
	for i, m := range messages {
		views[i] = viewMessage(m)
	}
	return c.JSON(http.StatusOK, map[string]any{"messages": views, "next_cursor": orNull(last)})
}

// readQuery gives each parameter of a list's query to read; its error makes the answer name the parameter.
func readQuery(query map[string][]string, read func(name, value string) error) error {
	for name, values := range query {
		v := values[0]
		if len(values) > 1 || v == "" || len(v) > 300 || strings.ContainsRune(v, 0) || strings.ToValidUTF8(v, "") != v {
			return errors.New("The query parameter " + strconv.Quote(clip(name)) + " must be given once, with 1 to 300 bytes of text.")
		}
		if read(name, v) != nil {
			return errors.New("The query parameter " + strconv.Quote(clip(name)) + " is not known or not valid.")
		}
	}
	return nil
}

// readLimit reads how many a page may hold.
func readLimit(v string) (int, error) {
	n, err := strconv.Atoi(v)
	if err == nil && (n < 1 || n > maxLimit) {
		err = errors.New("out of range")
	}
	return n, err
}

// readCursor reads where a page ended: at a message, or at a time at which there need be none.
func readCursor(v string) (uuid.UUID, error) {
	id, err := uuid.Parse(v)
	if err == nil && (len(v) != 36 || id == uuid.Nil) {
		err = errors.New("no cursor")
	}
	return id, err
}

// filter reads the query of a list of messages.
func filter(query map[string][]string) (store.Filter, error) {
	f := store.Filter{Limit: presetLimit}
	err := readQuery(query, func(name, v string) (err error) {
		switch name {
		case "status":
			if f.Status = v; !message.Status(v).Valid() {
				err = errors.New("no status")
			}
		case "from":
			f.From = v
		case "to":
			if f.To = v; !strings.ContainsFunc(v, func(r rune) bool { return !strings.ContainsRune("+ ().-", r) }) {
				err = errors.New("no recipient")
			}
		case "wamid":
			f.WAMID = v
		case "reference":
			f.Reference = v
		case "created_after":
			f.CreatedAfter, err = time.Parse(time.RFC3339, v)
		case "created_before":
			f.CreatedBefore, err = time.Parse(time.RFC3339, v)
		case "limit":
			f.Limit, err = readLimit(v)
		case "cursor":
			f.Before, err = readCursor(v)
		default:
			tag, ok := strings.CutPrefix(name, "tag.")
			if !ok || tag == "" || strings.ContainsRune(tag, 0) || strings.ToValidUTF8(tag, "") != tag || len(f.Tags) == maxTags {
				return errors.New("unknown")
			}
			if f.Tags == nil {
				f.Tags = map[string]string{}
			}
			f.Tags[tag] = v
		}
		return err
	})
	return f, err
}

func clip(s string) string { return s[:min(len(s), 80)] }
