package httpapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/cloudapi"
	"wagate/internal/form"
	"wagate/internal/message"
	"wagate/internal/store"
)

// webhookRoutes are those by which operators see Meta's notifications and have them applied again. A body holds what users
// wrote and their numbers, so it takes an admin to see one.
func (a *API) webhookRoutes() {
	a.echo.GET("/v1/webhooks", a.authed(access.Manage, unrestricted(a.listWebhooks)))
	a.echo.GET("/v1/webhooks/counts", a.authed(access.Manage, unrestricted(a.countWebhooks)))
	a.echo.POST("/v1/webhooks/replay", a.authed(access.Manage, unrestricted(a.replayWebhooks)))
	a.echo.GET("/v1/webhooks/:id", a.authed(access.Admin, unrestricted(a.getWebhook)))
}

type webhookView struct {
	ID          uuid.UUID  `json:"id"`
	AppID       string     `json:"app_id"`
	State       string     `json:"state"`
	Size        int64      `json:"size"`
	ReceivedAt  time.Time  `json:"received_at"`
	ProcessedAt *time.Time `json:"processed_at"`
	Attempts    int        `json:"attempts"`
	Error       *string    `json:"error"`
}

func viewWebhook(n store.Notification) webhookView {
	return webhookView{n.ID, n.AppID, string(n.State), n.Size, n.ReceivedAt.UTC(), utc(n.ProcessedAt), n.Attempts, n.Error}
}

// webhookState reads a state out of those that are given.
func webhookState(what string, states ...store.NotificationState) func(string) (store.NotificationState, error) {
	return func(s string) (store.NotificationState, error) {
		for _, state := range states {
			if s == string(state) {
				return state, nil
			}
		}
		return "", errors.New("must be " + what)
	}
}

var (
	anyWebhookState = webhookState("waiting, set_aside, unmatched or applied",
		store.NotificationWaiting, store.NotificationSetAside, store.NotificationUnmatched, store.NotificationApplied)
	// What waits is applied without being asked for.
	replayableState = webhookState("set_aside, unmatched or applied", store.NotificationSetAside, store.NotificationUnmatched, store.NotificationApplied)
)

// webhookFilter reads the query of a list or a count; a count knows since and until alone.
func webhookFilter(c echo.Context, list bool) (store.NotificationFilter, error) {
	f := store.NotificationFilter{Limit: presetLimit}
	err := readQuery(c.QueryParams(), func(name, v string) (err error) {
		switch {
		case name == "since":
			f.Since, err = time.Parse(time.RFC3339, v)
		case name == "until":
			f.Until, err = time.Parse(time.RFC3339, v)
		case name == "state" && list:
			f.State, err = anyWebhookState(v)
		case name == "limit" && list:
			f.Limit, err = readLimit(v)
		case name == "cursor" && list:
			f.Before, err = message.ParseID(v)
		default:
			err = errors.New("unknown")
		}
		return err
	})
	switch {
	case err != nil:
		return f, newProblem(http.StatusBadRequest, "malformed", err.Error())
	case !f.Since.IsZero() && !f.Until.IsZero() && !f.Until.After(f.Since):
		return f, newProblem(http.StatusBadRequest, "malformed", `The query parameter "until" must be after "since".`)
	}
	return f, nil
}

func (a *API) listWebhooks(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	f, err := webhookFilter(c, true)
	if err != nil {
		return err
	}
	page, next, err := a.Store.ListNotifications(ctx, f)
	if err != nil {
		return err
	}
	views := make([]webhookView, len(page))
	for i, n := range page {
		views[i] = viewWebhook(n)
	}
	return c.JSON(http.StatusOK, map[string]any{"webhooks": views, "next_cursor": orNull(next)})
}

func orNull(id uuid.UUID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	return &id
}

// countWebhooks counts by state. Where there are more than can be counted, since says how far back it went.
func (a *API) countWebhooks(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	f, err := webhookFilter(c, false)
	if err != nil {
		return err
	}
	n, err := a.Store.CountNotifications(ctx, f.Since, f.Until)
	if err != nil {
		return err
	}
	var since *time.Time
	if !f.Since.IsZero() {
		since = utc(&f.Since)
	}
	if n.Oldest != uuid.Nil {
		oldest := message.TimeOf(n.Oldest)
		since = &oldest
	}
	return c.JSON(http.StatusOK, map[string]any{
		"waiting": n.Waiting, "set_aside": n.SetAside, "unmatched": n.Unmatched, "applied": n.Applied, "since": since, "complete": n.Oldest == uuid.Nil,
	})
}

// getWebhook answers with the body as JSON, or in base64 where it is none.
func (a *API) getWebhook(c echo.Context, key access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	id, err := message.ParseID(c.Param("id"))
	if err != nil {
		return store.ErrNotFound
	}
	n, body, err := a.Store.GetNotification(ctx, id)
	if err != nil {
		return err
	}
	a.logger.InfoContext(ctx, "the body of a webhook was shown", "webhook_id", id, "key", key.Name)
	view := struct {
		webhookView
		Body       json.RawMessage `json:"body"`
		BodyBase64 []byte          `json:"body_base64"`
	}{webhookView: viewWebhook(n)}
	if json.Valid(body) && utf8.Valid(body) {
		view.Body = body
	} else {
		view.BodyBase64 = body
	}
	return c.JSON(http.StatusOK, view)
}

// replay is what a replay asks for: some by their ids, or all of a state in a span of time.
type replay struct {
	ids    []uuid.UUID
	filter store.ReplayFilter
}

func readReplay(o *form.Object) (r replay) {
	webhookID := func(s string) (uuid.UUID, error) {
		id, err := message.ParseID(s)
		if err != nil {
			err = errors.New("must be the id of a webhook")
		}
		return id, err
	}
	r.ids = form.Words(o, "ids", store.MaxReplay, webhookID)
	r.filter = store.ReplayFilter{
		State: form.Word(o, "state", replayableState), Since: o.Time("since"), Until: o.Time("until"), After: form.Word(o, "cursor", webhookID),
		Notices: o.Bool("notices", false),
	}
	switch raw := o.Raw("ids"); {
	case raw != nil:
		var listed []json.RawMessage
		if json.Unmarshal(raw, &listed) == nil && len(listed) == 0 {
			o.Fault("ids", "must not be empty")
		}
		for _, name := range []string{"state", "since", "until", "cursor"} {
			if o.Raw(name) != nil {
				o.Fault(name, "must be left out beside ids")
			}
		}
	case o.Raw("state") == nil:
		o.Fault("", "must name ids or a state")
	case r.filter.State == store.NotificationApplied && o.Raw("since") == nil:
		o.Fault("since", "is required for those that were applied: it would be all there ever were")
	case !r.filter.Since.IsZero() && !r.filter.Until.IsZero() && !r.filter.Until.After(r.filter.Since):
		o.Fault("until", "must be after since")
	}
	o.End()
	return r
}

// replayWebhooks lets notifications wait again; the applier takes them within a second.
func (a *API) replayWebhooks(c echo.Context, key access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	var faults []cloudapi.Fault
	o, err := open(c, nil, &faults)
	if err != nil {
		return err
	}
	r := readReplay(o)
	if len(faults) > 0 {
		return invalid(faults)
	}
	var done store.ReplayResult
	if len(r.ids) > 0 {
		var missing []uuid.UUID
		if done.N, missing, err = a.Store.ReplayNotifications(ctx, r.ids, r.filter.Notices); err == nil && len(missing) > 0 {
			return noSuchWebhooks(r.ids, missing)
		}
	} else {
		done, err = a.Store.ReplayByState(ctx, r.filter)
	}
	if err != nil {
		return err
	}
	if done.N > 0 {
		a.logger.InfoContext(ctx, "webhooks replayed by an operator", "webhooks", done.N, "state", r.filter.State, "notices", r.filter.Notices, "key", key.Name)
	}
	return c.JSON(http.StatusOK, map[string]any{"replayed": done.N, "more": done.Next != uuid.Nil, "next_cursor": orNull(done.Next)})
}

// noSuchWebhooks names the ids that are not there.
func noSuchWebhooks(ids, missing []uuid.UUID) error {
	gone := make(map[uuid.UUID]bool, len(missing))
	for _, id := range missing {
		gone[id] = true
	}
	var faults []cloudapi.Fault
	for i, id := range ids {
		if gone[id] {
			faults = append(faults, cloudapi.Fault{Pointer: "/ids/" + strconv.Itoa(i), Detail: "is not there"})
		}
	}
	return newProblem(http.StatusNotFound, "not_found", "Some of these webhooks are not there. None was replayed.", faults...)
}
