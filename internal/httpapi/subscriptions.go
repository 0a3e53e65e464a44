package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
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

func (a *API) callbackRoutes() {
	e := a.echo
	manage := func(h handler) echo.HandlerFunc { return a.authed(access.Manage, unrestricted(h)) }
	e.POST("/v1/subscriptions", manage(a.postSubscription))
	e.GET("/v1/subscriptions", manage(a.listSubscriptions))
	e.GET("/v1/subscriptions/:id", manage(a.getSubscription))
	e.PATCH("/v1/subscriptions/:id", manage(a.patchSubscription))
	e.DELETE("/v1/subscriptions/:id", manage(a.deleteSubscription))
	e.POST("/v1/subscriptions/:id/rotate-secret", manage(a.rotateSubscriptionSecret))
	e.GET("/v1/callback-endpoints", manage(a.listCallbackEndpoints))
	e.GET("/v1/callback-secret", a.authed(access.Send, a.getCallbackSecret))
	e.POST("/v1/callback-secret/rotate", a.authed(access.Send, a.rotateCallbackSecret))
	e.GET("/v1/callbacks", manage(a.listCallbacks))
	e.POST("/v1/callbacks/replay", manage(a.replayCallbacks))
}

// maxOverlap bounds how long two secrets are valid.
const maxOverlap = 30 * 24 // hours

type subscriptionView struct {
	ID             uuid.UUID   `json:"id"`
	URL            string      `json:"url"`
	Format         string      `json:"format"`
	Events         []string    `json:"events"`
	Statuses       []string    `json:"statuses"`
	WABAID         *string     `json:"waba_id"`
	PhoneNumberID  *string     `json:"phone_number_id"`
	Key            *string     `json:"key"`
	Active         bool        `json:"active"`
	InactiveReason *string     `json:"inactive_reason"`
	OldSecretUntil *time.Time  `json:"old_secret_until"`
	Health         *healthView `json:"health"`
	CreatedAt      time.Time   `json:"created_at"`
	UpdatedAt      time.Time   `json:"updated_at"`
	// Secret only in the answer that made it.
	Secret string `json:"secret,omitempty"`
}

// healthView is how an endpoint stands.
type healthView struct {
	// Circuit is closed, or open: then nothing is posted but a probe at next_attempt_at.
	Circuit         string     `json:"circuit"`
	OpenSince       *time.Time `json:"open_since"`
	NextAttemptAt   *time.Time `json:"next_attempt_at"`
	Failures        int        `json:"failures_in_a_row"`
	LastError       *string    `json:"last_error"`
	LastFailureAt   *time.Time `json:"last_failure_at"`
	LastDeliveredAt *time.Time `json:"last_delivered_at"`
	Waiting         int        `json:"waiting"`
}

func viewHealth(e *store.CallbackEndpoint) *healthView {
	h := &healthView{
		Circuit: "closed", OpenSince: utc(e.OpenedAt), NextAttemptAt: utc(e.HoldUntil), Failures: e.Failures, LastError: e.LastError,
		LastFailureAt: utc(e.FailedAt), LastDeliveredAt: utc(e.DeliveredAt), Waiting: e.Waiting,
	}
	if e.OpenedAt != nil {
		h.Circuit = "open"
	}
	return h
}

func viewSubscription(e store.CallbackEndpoint) subscriptionView {
	return subscriptionView{
		ID: e.ID, URL: e.URL, Format: e.Format, Events: e.Events, Statuses: e.Statuses, WABAID: e.WABAID, PhoneNumberID: e.PhoneNumberID, Key: e.KeyName,
		Active: e.Active, InactiveReason: e.InactiveReason, OldSecretUntil: utc(e.OldSecretUntil), Health: viewHealth(&e),
		CreatedAt: e.CreatedAt.UTC(), UpdatedAt: e.UpdatedAt.UTC(),
	}
}

var toldEvents = []string{store.TellStatus, store.TellInbound, store.TellAccount, store.TellTemplate}

func oneOf(what string, all ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		if !slices.Contains(all, s) {
			return "", errors.New("must be " + what)
		}
		return s, nil
	}
}

var (
	subscriptionFormat = oneOf("wagate or meta", callback.FormatWagate, callback.FormatMeta)
	subscriptionEvent  = oneOf("message.status, message.inbound, account.alert or template.status", toldEvents...)
	subscriptionStatus = oneOf("unknown, accepted, sent, delivered, read, played, failed, expired or cancelled",
		"unknown", "accepted", "sent", "delivered", "read", "played", "failed", "expired", "cancelled")
)

// readSubscription reads what a body says over what there is: absent members stay as they are, null stands for none.
func (a *API) readSubscription(o *form.Object, e *store.CallbackEndpoint) (verifyToken, secret string) {
	given := func(name string) bool { return o.Raw(name) != nil || o.IsNull(name) }
	if given("format") {
		e.Format = form.Word(o, "format", subscriptionFormat)
	}
	if given("url") || e.URL == "" {
		e.URL = o.Text("url", maxCallbackURL)
		switch _, err := a.Callbacks.Rules().URL(e.URL); {
		case o.Raw("url") == nil:
			o.Fault("url", "is required")
		case e.URL != "" && err != nil:
			o.Fault("url", "%s", err.Error())
		}
	}
	if given("events") {
		e.Events = unique(form.Words(o, "events", len(toldEvents), subscriptionEvent))
		if len(e.Events) == 0 && (o.IsNull("events") || isEmptyArray(o.Raw("events"))) {
			o.Fault("events", "must name at least one")
		}
	}
	if given("statuses") {
		e.Statuses = unique(form.Words(o, "statuses", 20, subscriptionStatus))
	}
	for _, f := range []struct {
		name string
		at   **string
	}{{"waba_id", &e.WABAID}, {"phone_number_id", &e.PhoneNumberID}} {
		if given(f.name) {
			*f.at = optional(o.Text(f.name, 64))
			if *f.at != nil && !accountID.MatchString(**f.at) {
				o.Fault(f.name, "must be an id")
			}
		}
	}
	if given("key") {
		e.KeyName = optional(o.Text("key", maxName))
	}
	e.Active = o.Bool("active", e.Active)
	if verifyToken = o.Text("verify_token", maxSecret); verifyToken != "" && e.Format != callback.FormatMeta {
		o.Fault("verify_token", "is for the format meta")
	}
	if secret = o.Text("secret", maxSecret); secret != "" && e.Format != "" {
		if err := callback.CheckSecret(e.Format, secret); err != nil {
			o.Fault("secret", "%s", err.Error())
		}
	}
	return verifyToken, secret
}

const maxCallbackURL = 2048

func unique(all []string) []string {
	all = slices.Clone(all)
	slices.Sort(all)
	return slices.Compact(all)
}

func (a *API) postSubscription(c echo.Context, key access.Key) error {
	ctx, cancel := a.patient(c)
	defer cancel()
	var faults []cloudapi.Fault
	o, err := open(c, nil, &faults)
	if err != nil {
		return err
	}
	e := store.CallbackEndpoint{ID: message.NewID(a.Now()), Owner: key.Name, Format: callback.FormatWagate, Events: toldEvents, Active: true}
	var verifyToken, secret string
	if o != nil {
		verifyToken, secret = a.readSubscription(o, &e)
		if e.Format == callback.FormatMeta && verifyToken == "" && o.Raw("verify_token") == nil {
			o.Fault("verify_token", "is required for the format meta: the receiver answers the handshake by it")
		}
	}
	o.End()
	if len(faults) > 0 {
		return invalid(faults)
	}
	if secret == "" {
		secret = callback.NewSecret(e.Format)
	}
	if err := a.handshake(ctx, &e, verifyToken); err != nil {
		return err
	}
	a.sealVerifyToken(&e, verifyToken)
	e.Secret = a.Sealer.Seal([]byte(secret), seal.CallbackSecret(e.ID.String()))
	if err := a.Store.PutSubscription(ctx, e); err != nil {
		return tooMany(err)
	}
	a.logger.InfoContext(ctx, "subscription made", "subscription", e.ID, "format", e.Format, "key", key.Name)
	row, err := a.Store.Subscription(ctx, e.ID)
	if err != nil {
		return err
	}
	view := viewSubscription(row)
	view.Secret = secret
	c.Response().Header().Set(echo.HeaderLocation, "/v1/subscriptions/"+e.ID.String())
	return c.JSON(http.StatusCreated, view)
}

// patient is bounded for what asks a client's address too.
func (a *API) patient(c echo.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.Request().Context(), 2*handlerTime)
}

func tooMany(err error) error {
	if errors.Is(err, store.ErrTooMany) {
		return newProblem(http.StatusConflict, "too_many", "There are as many subscriptions as there may be.")
	}
	return err
}

// handshake asks the address of an active subscription of format meta whether it is the receiver's.
func (a *API) handshake(ctx context.Context, e *store.CallbackEndpoint, verifyToken string) error {
	if e.Format != callback.FormatMeta || !e.Active {
		return nil
	}
	if err := a.Callbacks.Handshake(ctx, e.URL, verifyToken); err != nil {
		return newProblem(http.StatusUnprocessableEntity, "handshake_failed", "The address did not answer the handshake.", cloudapi.Fault{Pointer: "/url", Detail: err.Error()})
	}
	return nil
}

func (a *API) sealVerifyToken(e *store.CallbackEndpoint, token string) {
	if token != "" {
		e.VerifyToken = a.Sealer.Seal([]byte(token), seal.CallbackVerifyToken(e.ID.String()))
	}
}

func (a *API) patchSubscription(c echo.Context, key access.Key) error {
	ctx, cancel := a.patient(c)
	defer cancel()
	e, err := a.subscription(ctx, c)
	if err != nil {
		return err
	}
	var faults []cloudapi.Fault
	o, err := open(c, nil, &faults)
	if err != nil {
		return err
	}
	before := e
	verifyToken, secret := "", ""
	if o != nil {
		verifyToken, secret = a.readSubscription(o, &e)
		if e.Format != before.Format && o.Raw("format") != nil {
			o.Fault("format", "cannot be changed: make another subscription")
		}
	}
	o.End()
	if len(faults) > 0 {
		return invalid(faults)
	}
	if e.URL != before.URL || verifyToken != "" || (e.Active && !before.Active) {
		token := verifyToken
		if token == "" && len(e.VerifyToken) > 0 {
			plain, err := a.Sealer.Open(e.VerifyToken, seal.CallbackVerifyToken(e.ID.String()))
			if err != nil {
				return err
			}
			token = string(plain)
		}
		if err := a.handshake(ctx, &e, token); err != nil {
			return err
		}
	}
	a.sealVerifyToken(&e, verifyToken)
	if err := a.Store.PutSubscription(ctx, e); err != nil {
		return tooMany(err)
	}
	if secret != "" {
		if err := a.Store.SetSubscriptionSecret(ctx, e.ID, a.Sealer.Seal([]byte(secret), seal.CallbackSecret(e.ID.String())), callback.Overlap); err != nil {
			return err
		}
	}
	a.logger.InfoContext(ctx, "subscription changed", "subscription", e.ID, "key", key.Name)
	row, err := a.Store.Subscription(ctx, e.ID)
	return show(c, row, err, viewSubscription)
}

func (a *API) subscription(ctx context.Context, c echo.Context) (store.CallbackEndpoint, error) {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return store.CallbackEndpoint{}, store.ErrNotFound
	}
	return a.Store.Subscription(ctx, id)
}

func (a *API) getSubscription(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	row, err := a.subscription(ctx, c)
	return show(c, row, err, viewSubscription)
}

func (a *API) listSubscriptions(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	rows, err := a.Store.CallbackEndpoints(ctx, false, uuid.Nil, store.MaxSubscriptions)
	return list(c, "subscriptions", rows, err, viewSubscription)
}

func (a *API) deleteSubscription(c echo.Context, key access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return store.ErrNotFound
	}
	err = a.Store.DeleteSubscription(ctx, id)
	if err == nil {
		a.logger.InfoContext(ctx, "subscription deleted", "subscription", id, "key", key.Name)
	}
	return gone(c, err)
}

// readRotation reads what a rotation asks for; the body may be empty.
func readRotation(c echo.Context, format string) (secret string, overlap time.Duration, err error) {
	body, err := readBody(c, maxBody)
	if err != nil {
		return "", 0, err
	}
	if len(strings.TrimSpace(string(body))) == 0 {
		body = []byte(`{}`)
	}
	var faults []cloudapi.Fault
	if !json.Valid(body) {
		return "", 0, newProblem(http.StatusBadRequest, "malformed", "The body is not JSON.", cloudapi.Fault{Pointer: "", Detail: "is not JSON"})
	}
	o := form.Parse(body, "", &faults)
	hours := o.Count("overlap_hours", int(callback.Overlap.Hours()), 0, maxOverlap)
	if secret = o.Text("secret", maxSecret); secret != "" {
		if err := callback.CheckSecret(format, secret); err != nil {
			o.Fault("secret", "%s", err.Error())
		}
	}
	o.End()
	if len(faults) > 0 {
		return "", 0, invalid(faults)
	}
	if secret == "" {
		secret = callback.NewSecret(format)
	}
	return secret, time.Duration(hours) * time.Hour, nil
}

func (a *API) rotateSubscriptionSecret(c echo.Context, key access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	e, err := a.subscription(ctx, c)
	if err != nil {
		return err
	}
	secret, overlap, err := readRotation(c, e.Format)
	if err != nil {
		return err
	}
	if err := a.Store.SetSubscriptionSecret(ctx, e.ID, a.Sealer.Seal([]byte(secret), seal.CallbackSecret(e.ID.String())), overlap); err != nil {
		return err
	}
	a.logger.InfoContext(ctx, "the secret of a subscription was changed", "subscription", e.ID, "key", key.Name)
	row, err := a.Store.Subscription(ctx, e.ID)
	if err != nil {
		return err
	}
	view := viewSubscription(row)
	view.Secret = secret
	return c.JSON(http.StatusOK, view)
}
