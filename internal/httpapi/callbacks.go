package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/callback"
	"wagate/internal/cloudapi"
	"wagate/internal/form"
	"wagate/internal/message"
	"wagate/internal/seal"
	"wagate/internal/store"
)

// replayAtOnce is how many callbacks one request replays.
const replayAtOnce = 1000

type callbackSecretView struct {
	// Owner is the name of the API key.
	Owner          string     `json:"owner"`
	Secret         string     `json:"secret"`
	OldSecretUntil *time.Time `json:"old_secret_until"`
}

// getCallbackSecret shows what signs the callback_urls of messages sent with keys of the asker's name.
func (a *API) getCallbackSecret(c echo.Context, key access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	s, err := callback.OwnerSecret(ctx, a.Store, a.Sealer, key.Name)
	return a.showCallbackSecret(c, key, s, err)
}

func (a *API) showCallbackSecret(c echo.Context, key access.Key, s store.CallbackSecret, err error) error {
	if err != nil {
		return err
	}
	plain, err := a.Sealer.Open(s.Secret, seal.CallbackOwner(key.Name))
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, callbackSecretView{key.Name, string(plain), utc(s.OldSecretUntil)})
}

func (a *API) rotateCallbackSecret(c echo.Context, key access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	secret, overlap, err := readRotation(c, callback.FormatWagate)
	if err != nil {
		return err
	}
	s, err := a.Store.SetCallbackSecret(ctx, key.Name, a.Sealer.Seal([]byte(secret), seal.CallbackOwner(key.Name)), overlap)
	if err == nil {
		a.logger.InfoContext(ctx, "a callback secret was changed", "key", key.Name)
	}
	return a.showCallbackSecret(c, key, s, err)
}

type callbackEndpointView struct {
	ID        uuid.UUID   `json:"id"`
	Owner     string      `json:"owner"`
	Origin    string      `json:"origin"`
	Health    *healthView `json:"health"`
	CreatedAt time.Time   `json:"created_at"`
}

// listCallbackEndpoints lists where callback_urls go, host by host.
func (a *API) listCallbackEndpoints(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	limit, cursor := presetLimit, uuid.Nil
	err := readQuery(c.QueryParams(), func(name, v string) (err error) {
		switch name {
		case "limit":
			limit, err = readLimit(v)
		case "cursor":
			cursor, err = uuid.Parse(v)
		default:
			err = errors.New("unknown")
		}
		return err
	})
	if err != nil {
		return newProblem(http.StatusBadRequest, "malformed", err.Error())
	}
	rows, err := a.Store.CallbackEndpoints(ctx, true, cursor, limit)
	if err != nil {
		return err
	}
	views := make([]callbackEndpointView, len(rows))
	for i, e := range rows {
		views[i] = callbackEndpointView{e.ID, e.Owner, e.URL, viewHealth(&e), e.CreatedAt.UTC()}
	}
	next := uuid.Nil
	if len(rows) == limit {
		next = rows[limit-1].ID
	}
	return c.JSON(http.StatusOK, map[string]any{"endpoints": views, "next_cursor": orNull(next)})
}

type callbackView struct {
	WebhookID      uuid.UUID  `json:"webhook_id"`
	EndpointID     uuid.UUID  `json:"endpoint_id"`
	MessageID      *uuid.UUID `json:"message_id"`
	Type           string     `json:"type"`
	Status         *string    `json:"status"`
	URL            *string    `json:"url"`
	State          string     `json:"state"`
	Attempts       int        `json:"attempts"`
	NextAttemptAt  *time.Time `json:"next_attempt_at"`
	GivenUpAfter   *time.Time `json:"given_up_after"`
	DeliveredAt    *time.Time `json:"delivered_at"`
	GivenUpAt      *time.Time `json:"given_up_at"`
	LastError      *string    `json:"last_error"`
	EventTimestamp time.Time  `json:"timestamp"`
	CreatedAt      time.Time  `json:"created_at"`
}

// callbackStates are the words of the API for those of the store.
var callbackStates = map[string]string{"waiting": "waiting", "delivered": "delivered", "given_up": "dead"}

func callbackState(s string) (string, error) {
	if state, ok := callbackStates[s]; ok {
		return state, nil
	}
	return "", errors.New("must be waiting, delivered or given_up")
}

func viewCallback(e store.Callback) callbackView {
	state := e.State
	if state == "dead" {
		state = "given_up"
	}
	return callbackView{
		e.EventID, e.EndpointID, e.MessageID, e.Kind, e.Status, e.URL, state, e.Attempts, utc(e.NextAt), utc(e.ExpiresAt), utc(e.DeliveredAt),
		utc(e.DeadAt), e.LastError, e.At.UTC(), e.CreatedAt.UTC(),
	}
}

func (a *API) listCallbacks(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	f := store.CallbackFilter{Limit: presetLimit}
	var to string
	err := readQuery(c.QueryParams(), func(name, v string) (err error) {
		switch name {
		case "subscription_id", "endpoint_id":
			var id uuid.UUID
			id, err = uuid.Parse(v)
			f.EndpointIDs = append(f.EndpointIDs, id)
		case "url":
			to = v
		case "message_id":
			f.MessageID, err = message.ParseID(v)
		case "state":
			f.State, err = callbackState(v)
		case "since":
			f.Since, err = time.Parse(time.RFC3339, v)
		case "until":
			f.Until, err = time.Parse(time.RFC3339, v)
		case "limit":
			f.Limit, err = readLimit(v)
		case "cursor":
			f.Before, err = readCallbackCursor(v)
		default:
			err = errors.New("unknown")
		}
		return err
	})
	switch {
	case err != nil:
		return newProblem(http.StatusBadRequest, "malformed", err.Error())
	case len(f.EndpointIDs) > 1 || (len(f.EndpointIDs) > 0 && to != ""):
		return newProblem(http.StatusBadRequest, "malformed", `Only one of the query parameters "subscription_id", "endpoint_id" and "url" can be given.`)
	case f.MessageID != uuid.Nil && (len(f.EndpointIDs) > 0 || to != ""):
		return newProblem(http.StatusBadRequest, "malformed", `The query parameter "message_id" goes without an endpoint.`)
	}
	if to != "" {
		if err := a.callbackURL(ctx, &f, to); err != nil {
			return err
		}
	}
	page, next, err := a.Store.Callbacks(ctx, f)
	if err != nil {
		return err
	}
	views := make([]callbackView, len(page))
	for i, e := range page {
		views[i] = viewCallback(e)
	}
	return c.JSON(http.StatusOK, map[string]any{"callbacks": views, "next_cursor": writeCursor(next)})
}

// callbackURL has a filter pick the events of a callback_url.
func (a *API) callbackURL(ctx context.Context, f *store.CallbackFilter, to string) (err error) {
	f.URL = to
	f.EndpointIDs, err = a.Store.CallbackURLEndpoints(ctx, to)
	if f.EndpointIDs == nil {
		f.EndpointIDs = []uuid.UUID{} // none, which is not all
	}
	return err
}

func readCallbackCursor(v string) (int64, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	if err == nil && n < 1 {
		err = errors.New("must be one that a list gave")
	}
	return n, err
}

func writeCursor(n int64) *string {
	if n == 0 {
		return nil
	}
	s := strconv.FormatInt(n, 10)
	return &s
}

// replayCallbacks has callbacks delivered again, up to replayAtOnce of them.
func (a *API) replayCallbacks(c echo.Context, key access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	var faults []cloudapi.Fault
	o, err := open(c, nil, &faults)
	if err != nil {
		return err
	}
	f, to := readCallbackReplay(o)
	if len(faults) > 0 {
		return invalid(faults)
	}
	switch {
	case to != "":
		err = a.callbackURL(ctx, &f, to)
	case f.EndpointIDs != nil:
		_, err = a.Store.Subscription(ctx, f.EndpointIDs[0])
	}
	if errors.Is(err, store.ErrNotFound) {
		return newProblem(http.StatusNotFound, "not_found", "There is no such subscription.", cloudapi.Fault{Pointer: "/subscription_id", Detail: "is not there"})
	}
	if err != nil {
		return err
	}
	n, after, err := a.Store.ReplayCallbacks(ctx, f)
	if err != nil {
		return err
	}
	a.logger.InfoContext(ctx, "callbacks are delivered again", "callbacks", n, "key", key.Name)
	return c.JSON(http.StatusOK, map[string]any{"replayed": n, "more": after != 0, "next_cursor": writeCursor(after)})
}

func readCallbackReplay(o *form.Object) (f store.CallbackFilter, to string) {
	f.Limit = replayAtOnce
	id := func(s string) (uuid.UUID, error) {
		id, err := uuid.Parse(s)
		if err != nil {
			err = errors.New("must be an id")
		}
		return id, err
	}
	if sub := form.Word(o, "subscription_id", id); sub != uuid.Nil {
		f.EndpointIDs = []uuid.UUID{sub}
	}
	f.MessageID = form.Word(o, "message_id", id)
	to = o.Text("url", maxCallbackURL)
	f.State = form.Word(o, "state", callbackState)
	f.Since, f.Until = o.Time("since"), o.Time("until")
	f.After = form.Word(o, "cursor", func(s string) (int64, error) {
		n, err := readCallbackCursor(s)
		if err != nil {
			err = errors.New("must be the next_cursor of a replay")
		}
		return n, err
	})
	named := 0
	for _, name := range []string{"subscription_id", "url", "message_id"} {
		if o.Raw(name) != nil {
			named++
		}
	}
	switch {
	case o == nil:
	case named != 1:
		o.Fault("", "must name one of subscription_id, url and message_id")
	case o.Raw("message_id") == nil && o.Raw("since") == nil:
		o.Fault("since", "is required, or it would be all that is kept")
	case !f.Since.IsZero() && !f.Until.IsZero() && !f.Until.After(f.Since):
		o.Fault("until", "must be after since")
	}
	o.End()
	return f, to
}
