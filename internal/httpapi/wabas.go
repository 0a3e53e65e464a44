package httpapi

import (
	"context"
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
	IngressAnswer          string    `json:"ingress_answer"`
	IngressWaitSeconds     int       `json:"ingress_wait_seconds"`
	OpaqueIsKey            bool      `json:"opaque_as_idempotency_key"`
	OptOutKeywords         byWords   `json:"opt_out_keywords"`
	OptInKeywords          byWords   `json:"opt_in_keywords"`
	CreatedAt              time.Time `json:"created_at"`
	UpdatedAt              time.Time `json:"updated_at"`
}

// byWords are words by language.
type byWords map[string][]string

func viewWABA(r store.WABA) wabaView {
	return wabaView{r.ID, r.Name, r.AppID, r.PortfolioID, r.AccessToken != nil, r.ManagementCallsPerHour, r.MessagesPerHour,
		r.MessagesPerSecond, r.Burst, r.Ingress.Answer, r.Ingress.WaitSeconds, r.Ingress.OpaqueIsKey, r.Keywords.OptOut, r.Keywords.OptIn, r.CreatedAt.UTC(), r.UpdatedAt.UTC()}
}

func (a *API) putWABA(c echo.Context, key access.Key) error {
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
	}
	row.Burst = burst(o, row.MessagesPerSecond)
	row.Ingress = store.Ingress{
		Answer: form.Word(o, "ingress_answer", ingressAnswer), WaitSeconds: o.Count("ingress_wait_seconds", 10, 1, maxIngressWait),
		OpaqueIsKey: o.Bool("opaque_as_idempotency_key", false),
	}
	row.Keywords = store.Keywords{OptOut: readKeywords(o, "opt_out_keywords", &faults), OptIn: readKeywords(o, "opt_in_keywords", &faults)}
	bothWays(o, row.Keywords)
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
	a.ingress.forget()
	return a.getWABA(c, key)
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
