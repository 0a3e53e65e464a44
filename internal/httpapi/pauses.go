package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/cloudapi"
	"wagate/internal/form"
	"wagate/internal/store"
)

// maxReason is the length of a pause's reason, in characters.
const maxReason = 255

type pauseView struct {
	ID        uuid.UUID  `json:"id"`
	Scope     string     `json:"scope"`
	Value     string     `json:"value"`
	Reason    string     `json:"reason"`
	Source    string     `json:"source"`
	Code      *int       `json:"code"`
	Level     int        `json:"level"`
	Until     *time.Time `json:"until"`
	CreatedAt time.Time  `json:"created_at"`
}

func viewPause(p store.KeptPause) pauseView {
	return pauseView{p.ID, p.Scope, p.Value, p.Reason, p.Source, p.Code, p.Level, utc(p.Until), p.CreatedAt.UTC()}
}

// pauseScope takes the scopes that the workers keep to.
func pauseScope(s string) (string, error) {
	switch s {
	case "all", "app", "waba", "phone":
		return s, nil
	case "template", "tag", "key", "priority":
		return "", errors.New("is not supported yet: must be all, app, waba or phone")
	}
	return "", errors.New("must be all, app, waba or phone")
}

// postPause sets a pause: 201, or 200 when it replaces the one in force for the same scope and value.
func (a *API) postPause(c echo.Context, key access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	var faults []cloudapi.Fault
	o, err := open(c, nil, &faults)
	if err != nil {
		return err
	}
	row := a.readPause(o)
	o.End()
	if len(faults) > 0 {
		return invalid(faults)
	}
	if err := a.pausable(ctx, row.Scope, row.Value); err != nil {
		return err
	}
	row, made, err := a.Store.PutPause(ctx, row)
	if err != nil {
		return err
	}
	a.logger.InfoContext(ctx, "paused by an operator", "pause", row.ID, "scope", row.Scope, "id", row.Value, "until", row.Until, "key", key.Name)
	status := http.StatusOK
	if made {
		status = http.StatusCreated
	}
	return c.JSON(status, viewPause(row))
}

func (a *API) readPause(o *form.Object) store.KeptPause {
	p := store.KeptPause{Scope: form.Word(o, "scope", pauseScope), Reason: o.Text("reason", maxReason)}
	if o != nil && o.Raw("scope") == nil {
		o.Fault("scope", "is required")
	}
	switch raw := o.Raw("value"); {
	case o == nil:
	case p.Scope == "all":
		// "" is how the answers show it.
		if raw != nil && string(raw) != `""` {
			o.Fault("value", "must be left out: the scope all has none")
		}
	case raw == nil && p.Scope != "":
		o.Fault("value", "is required")
	default:
		p.Value = o.Text("value", 64)
	}
	now := a.Now()
	switch until := o.Time("until"); {
	case until.IsZero(): // without an end, or at fault
	case !until.After(now):
		o.Fault("until", "must be in the future")
	case until.After(now.AddDate(1, 0, 0)):
		o.Fault("until", "must be within a year; null means until it is lifted")
	default:
		p.Until = &until
	}
	return p
}

// pausable says that there is what is to be paused.
func (a *API) pausable(ctx context.Context, scope, value string) (err error) {
	switch scope {
	case "app":
		_, err = a.Store.App(ctx, value)
	case "waba":
		_, err = a.Store.WABA(ctx, value)
	case "phone":
		_, err = a.Store.PhoneNumber(ctx, value)
	}
	if errors.Is(err, store.ErrNotFound) {
		return newProblem(http.StatusNotFound, "not_found", "There is nothing with this id to pause.", cloudapi.Fault{Pointer: "/value", Detail: "is not there"})
	}
	return err
}

func (a *API) listPauses(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	rows, err := a.Store.ListPauses(ctx)
	return list(c, "pauses", rows, err, viewPause)
}

func (a *API) deletePause(c echo.Context, key access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return store.ErrNotFound
	}
	row, err := a.Store.DeletePause(ctx, id)
	if err == nil {
		a.logger.InfoContext(ctx, "pause lifted by an operator", "pause", row.ID, "scope", row.Scope, "id", row.Value, "source", row.Source, "key", key.Name)
	}
	return gone(c, err)
}
