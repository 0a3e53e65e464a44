package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/cloudapi"
	"wagate/internal/form"
	"wagate/internal/queue"
	"wagate/internal/seal"
	"wagate/internal/store"
)

// Ranges of the limits.
const (
	minPerSecond = 0.001
	maxPerSecond = 10_000
	maxPerHour   = 36_000_000
	maxBurst     = 10_000
	maxCount     = 1_000_000_000
	maxPair      = 86_400
	maxSecret    = 4096
	maxName      = 100
)

// defaultApp is the app of a WABA that brings its app_secret and names no app where there is none.
const defaultApp = "default"

// phoneNumberID is the form of Meta's, which `from` has to have too.
var phoneNumberID = regexp.MustCompile(`^[0-9]{1,32}$`)

var accountID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// open reads the id of the path and the body of a PUT or POST, which is an object.
func open(c echo.Context, validID func(string) bool, faults *[]cloudapi.Fault) (*form.Object, error) {
	if validID != nil && !validID(c.Param("id")) {
		return nil, newProblem(http.StatusUnprocessableEntity, "invalid", "The id in the path is not valid.")
	}
	body, err := readBody(c, maxBody)
	if err != nil {
		return nil, err
	}
	if !json.Valid(body) {
		return nil, newProblem(http.StatusBadRequest, "malformed", "The body is not JSON.", cloudapi.Fault{Pointer: "", Detail: "is not JSON"})
	}
	return form.Parse(body, "", faults), nil
}

func (a *API) bounded(c echo.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.Request().Context(), handlerTime)
}

// list answers with every row as a view.
func list[T, V any](c echo.Context, name string, rows []T, err error, view func(T) V) error {
	if err != nil {
		return err
	}
	views := make([]V, len(rows))
	for i, r := range rows {
		views[i] = view(r)
	}
	return c.JSON(http.StatusOK, map[string]any{name: views})
}

// show answers with one row as a view.
func show[T, V any](c echo.Context, row T, err error, view func(T) V) error {
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, view(row))
}

// gone answers a DELETE.
func gone(c echo.Context, err error) error {
	if err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

type appView struct {
	ID           string    `json:"app_id"`
	SecretSet    bool      `json:"app_secret_set"`
	CallsPerHour *int      `json:"calls_per_hour"`
	CreatedAt    time.Time `json:"created_at"`
	UpdatedAt    time.Time `json:"updated_at"`
}

func viewApp(r store.App) appView {
	return appView{r.ID, r.Secret != nil, r.CallsPerHour, r.CreatedAt.UTC(), r.UpdatedAt.UTC()}
}

func (a *API) putApp(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	var faults []cloudapi.Fault
	o, err := open(c, accountID.MatchString, &faults)
	if err != nil {
		return err
	}
	row := store.App{ID: c.Param("id"), CallsPerHour: o.Integer("calls_per_hour", nil, 1, maxCount)}
	if secret := o.Text("app_secret", maxSecret); secret != "" {
		row.Secret = a.Sealer.Seal([]byte(secret), seal.AppSecret(row.ID))
	}
	o.End()
	if len(faults) > 0 {
		return invalid(faults)
	}
	if err := a.Store.PutApp(ctx, row); err != nil {
		return err
	}
	row, err = a.Store.App(ctx, row.ID)
	return show(c, row, err, viewApp)
}

func (a *API) listApps(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	rows, err := a.Store.Apps(ctx)
	return list(c, "apps", rows, err, viewApp)
}

func (a *API) getApp(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	row, err := a.Store.App(ctx, c.Param("id"))
	return show(c, row, err, viewApp)
}

func (a *API) deleteApp(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	return gone(c, a.Store.DeleteApp(ctx, c.Param("id")))
}

type portfolioView struct {
	ID                     string    `json:"portfolio_id"`
	UniqueRecipientsPerDay *int      `json:"unique_recipients_per_day"`
	CreatedAt              time.Time `json:"created_at"`
	UpdatedAt              time.Time `json:"updated_at"`
}

func viewPortfolio(r store.Portfolio) portfolioView {
	return portfolioView{r.ID, r.UniqueRecipientsPerDay, r.CreatedAt.UTC(), r.UpdatedAt.UTC()}
}

func (a *API) putPortfolio(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	var faults []cloudapi.Fault
	o, err := open(c, accountID.MatchString, &faults)
	if err != nil {
		return err
	}
	row := store.Portfolio{ID: c.Param("id"), UniqueRecipientsPerDay: o.Integer("unique_recipients_per_day", nil, 1, maxCount)}
	o.End()
	if len(faults) > 0 {
		return invalid(faults)
	}
	if err := a.Store.PutPortfolio(ctx, row); err != nil {
		return err
	}
	row, err = a.Store.Portfolio(ctx, row.ID)
	return show(c, row, err, viewPortfolio)
}

func (a *API) listPortfolios(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	rows, err := a.Store.Portfolios(ctx)
	return list(c, "portfolios", rows, err, viewPortfolio)
}

func (a *API) getPortfolio(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	row, err := a.Store.Portfolio(ctx, c.Param("id"))
	return show(c, row, err, viewPortfolio)
}

func (a *API) deletePortfolio(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	return gone(c, a.Store.DeletePortfolio(ctx, c.Param("id")))
}

type wabaView struct {
	ID                     string    `json:"waba_id"`
	Name                   string    `json:"name"`
	AppID                  *string   `json:"app_id"`
	PortfolioID            *string   `json:"portfolio_id"`
	AccessTokenSet         bool      `json:"access_token_set"`
	ManagementCallsPerHour int       `json:"management_calls_per_hour"`
	MessagesPerHour        *float64  `json:"messages_per_hour"`
	MessagesPerSecond      *float64  `json:"messages_per_second"`
	Burst                  int       `json:"burst"`
	CreatedAt              time.Time `json:"created_at"`
	UpdatedAt              time.Time `json:"updated_at"`
}

func viewWABA(r store.WABA) wabaView {
	return wabaView{r.ID, r.Name, r.AppID, r.PortfolioID, r.AccessToken != nil, r.ManagementCallsPerHour, r.MessagesPerHour,
		r.MessagesPerSecond, r.Burst, r.CreatedAt.UTC(), r.UpdatedAt.UTC()}
}

func (a *API) putWABA(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	var faults []cloudapi.Fault
	o, err := open(c, queue.ValidPhoneNumberID, &faults) // Meta's ids have one form
	if err != nil {
		return err
	}
	row := store.WABA{
		ID: c.Param("id"), Name: o.Text("name", maxName),
		AppID: optional(o.Text("app_id", 64)), PortfolioID: optional(o.Text("portfolio_id", 64)),
		ManagementCallsPerHour: o.Count("management_calls_per_hour", 5000, 1, maxPerHour),
		MessagesPerHour:        o.Number("messages_per_hour", nil, 1, maxPerHour),
		MessagesPerSecond:      o.Number("messages_per_second", nil, minPerSecond, maxPerSecond),
		Burst:                  o.Count("burst", 1, 1, maxBurst),
	}
	if token := o.Text("access_token", maxSecret); strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		o.Fault("access_token", "must be printable ASCII without spaces")
	} else if token != "" {
		row.AccessToken = a.Sealer.Seal([]byte(token), seal.AccessToken(row.ID))
	}
	secret := o.Text("app_secret", maxSecret)
	if secret != "" && row.AppID != nil {
		o.Fault("app_secret", "belongs to the app that app_id names: PUT /v1/apps/{app_id}")
	}
	o.End()
	if len(faults) > 0 {
		return invalid(faults)
	}
	app, err := a.appOf(ctx, &row, secret)
	if err != nil {
		return err
	}
	if err := a.Store.PutWABA(ctx, row, app); err != nil {
		return err
	}
	row, err = a.Store.WABA(ctx, row.ID)
	return show(c, row, err, viewWABA)
}

// appOf finds the app of a WABA that names none: the one app there is, or, with a secret, one made for it.
func (a *API) appOf(ctx context.Context, row *store.WABA, secret string) (*store.App, error) {
	if row.AppID != nil {
		return nil, nil
	}
	apps, err := a.Store.Apps(ctx)
	if err != nil {
		return nil, err
	}
	id := ""
	for _, app := range apps {
		if app.ID == defaultApp || len(apps) == 1 {
			id = app.ID
		}
	}
	switch {
	case id == "" && len(apps) > 1:
		return nil, invalid([]cloudapi.Fault{{Pointer: "/app_id", Detail: "is required: there are several apps"}})
	case id == "" && secret == "":
		return nil, nil
	case id == "":
		id = defaultApp
	}
	row.AppID = &id
	if secret == "" {
		return nil, nil
	}
	return &store.App{ID: id, Secret: a.Sealer.Seal([]byte(secret), seal.AppSecret(id))}, nil
}

func (a *API) listWABAs(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	rows, err := a.Store.WABAs(ctx)
	return list(c, "wabas", rows, err, viewWABA)
}

func (a *API) getWABA(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	row, err := a.Store.WABA(ctx, c.Param("id"))
	return show(c, row, err, viewWABA)
}

func (a *API) deleteWABA(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	return gone(c, a.Store.DeleteWABA(ctx, c.Param("id")))
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
