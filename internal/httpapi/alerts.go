package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/cloudapi"
	"wagate/internal/store"
)

const (
	// shownAlerts is how many alerts a WABA or phone number shows of itself, and alertsFor how old they may be.
	shownAlerts = 5
	alertsFor   = 30 * 24 * time.Hour
)

type alertView struct {
	ID                 uuid.UUID         `json:"id"`
	At                 time.Time         `json:"at"`
	Severity           string            `json:"severity"`
	Field              string            `json:"field"`
	Event              string            `json:"event"`
	WABAID             string            `json:"waba_id"`
	PhoneNumberID      *string           `json:"phone_number_id"`
	DisplayPhoneNumber *string           `json:"display_phone_number"`
	Detail             map[string]string `json:"detail"`
	WebhookID          uuid.UUID         `json:"webhook_id"`
}

func viewAlerts(alerts []store.Alert) []alertView {
	views := make([]alertView, len(alerts))
	for i, a := range alerts {
		views[i] = alertView{
			a.ID, a.At.UTC(), cloudapi.Severity(a.Severity).String(), a.Field, a.Event, a.WABAID, optional(a.PhoneNumberID), optional(a.DisplayPhoneNumber), a.Detail, a.WebhookID,
		}
		if a.Detail == nil {
			views[i].Detail = map[string]string{}
		}
	}
	return views
}

// standingView is what Meta said last of a WABA or phone number.
type standingView struct {
	// Notices has Meta's newest word by topic.
	Notices map[string]noticeView `json:"notices"`
	// Alerts are the newest warnings.
	Alerts []alertView `json:"alerts"`
}

type noticeView struct {
	Word  string     `json:"word"`
	At    time.Time  `json:"at"`
	Until *time.Time `json:"until"`
}

// standing reads what Meta said last of a scope, waba or phone.
func (a *API) standing(ctx context.Context, scope, id string) (v standingView, err error) {
	states, err := a.Store.AccountStates(ctx, scope, id)
	if err != nil {
		return v, err
	}
	v.Notices = make(map[string]noticeView, len(states))
	for _, s := range states {
		v.Notices[s.Topic] = noticeView{s.Word, s.At.UTC(), utc(s.Until)}
	}
	f := store.AlertFilter{Severity: int16(cloudapi.SeverityWarning), Since: a.Now().Add(-alertsFor), Limit: shownAlerts}
	if scope == "phone" {
		f.PhoneNumberID = id
	} else {
		f.WABAID = id
	}
	alerts, err := a.Store.ListAlerts(ctx, f)
	v.Alerts = viewAlerts(alerts)
	return v, err
}

// alertCursor is where a page of alerts ends.
func alertCursor(a store.Alert) string {
	return strconv.FormatInt(a.At.UnixMicro(), 10) + "_" + a.ID.String()
}

func readAlertCursor(s string) (at time.Time, id uuid.UUID, err error) {
	micros, rest, _ := strings.Cut(s, "_")
	n, err := strconv.ParseInt(micros, 10, 64)
	if err == nil {
		id, err = uuid.Parse(rest)
	}
	return time.UnixMicro(n), id, err
}

func alertFilter(c echo.Context) (store.AlertFilter, error) {
	f := store.AlertFilter{Limit: presetLimit}
	err := readQuery(c.QueryParams(), func(name, v string) (err error) {
		switch name {
		case "since":
			f.Since, err = time.Parse(time.RFC3339, v)
		case "until":
			f.Until, err = time.Parse(time.RFC3339, v)
		case "waba_id":
			f.WABAID = v
		case "phone_number_id":
			f.PhoneNumberID = v
		case "field":
			f.Field = v
		case "severity":
			least, ok := cloudapi.ParseSeverity(v)
			if f.Severity = int16(least); !ok {
				err = errors.New("unknown")
			}
		case "limit":
			f.Limit, err = readLimit(v)
		case "cursor":
			f.BeforeAt, f.BeforeID, err = readAlertCursor(v)
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

// listAlerts answers with Meta's notices about accounts, the newest first.
func (a *API) listAlerts(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	f, err := alertFilter(c)
	if err != nil {
		return err
	}
	f.Limit++
	page, err := a.Store.ListAlerts(ctx, f)
	if err != nil {
		return err
	}
	var next *string
	if len(page) == f.Limit {
		page = page[:f.Limit-1]
		cursor := alertCursor(page[len(page)-1])
		next = &cursor
	}
	return c.JSON(http.StatusOK, map[string]any{"alerts": viewAlerts(page), "next_cursor": next})
}
