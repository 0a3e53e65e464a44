package httpapi

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"regexp"
	"time"

	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/cloudapi"
	"wagate/internal/form"
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
	minPair      = 0.01
	maxPair      = 86_400
	maxPairBurst = 1000
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

// burst reads how many messages may go at once: no more than the rate lets out in a second.
func burst(o *form.Object, perSecond *float64) int {
	n := o.Count("burst", 1, 1, maxBurst)
	if perSecond != nil && n > 1 && float64(n) > math.Ceil(*perSecond) {
		o.Fault("burst", "must not be above messages_per_second")
	}
	return n
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

func (a *API) putApp(c echo.Context, key access.Key) error {
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
	return a.getApp(c, key)
}

func (a *API) listApps(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	rows, err := a.Store.Apps(ctx)
	return list(c, "apps", rows, err, viewApp)
}

func (a *API) deleteApp(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	return gone(c, a.Store.DeleteApp(ctx, c.Param("id")))
}

type portfolioView struct {
	ID                     string     `json:"portfolio_id"`
	UniqueRecipientsPerDay *int       `json:"unique_recipients_per_day"`
	LimitSource            string     `json:"limit_source"`
	LimitChangedAt         *time.Time `json:"limit_changed_at"`
	Tier                   *string    `json:"tier"`
	CreatedAt              time.Time  `json:"created_at"`
	UpdatedAt              time.Time  `json:"updated_at"`
}

func viewPortfolio(r store.Portfolio) portfolioView {
	return portfolioView{r.ID, r.UniqueRecipientsPerDay, r.LimitSource, utc(r.LimitChangedAt), r.Tier, r.CreatedAt.UTC(), r.UpdatedAt.UTC()}
}

func (a *API) putPortfolio(c echo.Context, key access.Key) error {
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
	return a.getPortfolio(c, key)
}

func (a *API) listPortfolios(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	rows, err := a.Store.Portfolios(ctx)
	return list(c, "portfolios", rows, err, viewPortfolio)
}

func (a *API) deletePortfolio(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	return gone(c, a.Store.DeletePortfolio(ctx, c.Param("id")))
}
