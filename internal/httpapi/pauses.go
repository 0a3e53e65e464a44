package httpapi

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/cloudapi"
	"wagate/internal/form"
	"wagate/internal/message"
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

// maxPauseValue is the length of what a pause is of, in characters: a template with its WABA and language, or a tag.
const maxPauseValue = 640

var (
	templateValue = regexp.MustCompile(`^([A-Za-z0-9]{1,64}:)?[a-z0-9_]{1,512}(/[A-Za-z]{2,3}(_[A-Za-z0-9]{2,8})*)?$`)
	flowValue     = regexp.MustCompile(`^([A-Za-z0-9]{1,64}:)?[A-Za-z0-9_.-]{1,100}$`)
)

// pauseScopes are what can be paused, and what a value of each has to be.
var pauseScopes = map[string]struct {
	want  string
	valid func(string) bool
}{
	"all":      {"", nil},
	"app":      {"must be an app id", accountID.MatchString},
	"waba":     {"must be a WABA id", accountID.MatchString},
	"phone":    {"must be a phone number id", accountID.MatchString},
	"template": {"must be a template's name, or name/language, with or without <waba_id>: before it", templateValue.MatchString},
	"flow":     {"must be a flow id, with or without <waba_id>: before it", flowValue.MatchString},
	"tag": {"must be NAME=VALUE, or NAME for any value", func(s string) bool {
		name, _, _ := strings.Cut(s, "=")
		return name != ""
	}},
	"key":      {"must be the id of an API key", func(s string) bool { return uuid.Validate(s) == nil }},
	"priority": {"must be urgent, high, normal or low", func(s string) bool { _, err := message.ParsePriority(s); return err == nil }},
}

func pauseScope(s string) (string, error) {
	if _, ok := pauseScopes[s]; !ok {
		return "", errors.New("must be all, app, waba, phone, template, flow, tag, key or priority")
	}
	return s, nil
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
		p.Value = o.Text("value", maxPauseValue)
		if scope := pauseScopes[p.Scope]; p.Value != "" && scope.valid != nil && !scope.valid(p.Value) {
			o.Fault("value", "%s", scope.want)
		}
		if p.Scope == "key" {
			p.Value = strings.ToLower(p.Value) // as the key is shown
		}
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
	case "key":
		_, err = a.Store.Key(ctx, uuid.MustParse(value))
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
