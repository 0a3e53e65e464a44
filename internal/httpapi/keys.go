package httpapi

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/cloudapi"
	"wagate/internal/queue"
	"wagate/internal/store"
)

type keyView struct {
	ID                uuid.UUID  `json:"id"`
	Name              string     `json:"name"`
	Scopes            []string   `json:"scopes"`
	PhoneNumbers      []string   `json:"phone_numbers"`
	RequestsPerSecond *int       `json:"requests_per_second"`
	MessagesPerDay    *int64     `json:"messages_per_day"`
	MaxBacklog        *int64     `json:"max_backlog"`
	CreatedAt         time.Time  `json:"created_at"`
	RevokedAt         *time.Time `json:"revoked_at"`
	// Key is the key itself, only in the answer that made it.
	Key string `json:"key,omitempty"`
}

func viewKey(k store.APIKey) keyView {
	return keyView{
		ID: k.ID, Name: k.Name, Scopes: k.Scopes, PhoneNumbers: k.PhoneNumbers, RequestsPerSecond: k.RequestsPerSecond,
		MessagesPerDay: k.MessagesPerDay, MaxBacklog: k.MaxBacklog, CreatedAt: k.CreatedAt.UTC(), RevokedAt: utc(k.RevokedAt),
	}
}

func (a *API) postKey(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	var faults []cloudapi.Fault
	o, err := open(c, nil, &faults)
	if err != nil {
		return err
	}
	n := access.NewKey{
		Name: o.Text("name", maxName), PhoneNumbers: o.Texts("phone_numbers", 1000, 64),
		RequestsPerSecond: o.Integer("requests_per_second", nil, 1, 10_000),
	}
	n.MessagesPerDay = wide(o.Integer("messages_per_day", nil, 1, maxCount))
	n.MaxBacklog = wide(o.Integer("max_backlog", nil, 1, maxCount))
	scopes := o.Texts("scopes", 4, 20)
	for i, s := range scopes {
		scope, err := access.ParseScope(s)
		if err != nil {
			o.Fault("scopes", "%s: number %s is not", err.Error(), strconv.Itoa(i+1))
		}
		n.Scopes = append(n.Scopes, scope)
	}
	for _, id := range n.PhoneNumbers {
		if !queue.ValidPhoneNumberID(id) {
			o.Fault("phone_numbers", "must be phone number ids")
			break
		}
	}
	for _, name := range []string{"name", "scopes"} {
		if raw := o.Raw(name); o != nil && (raw == nil || isEmptyArray(raw)) {
			o.Fault(name, "is required")
		}
	}
	o.End()
	if len(faults) > 0 {
		return invalid(faults)
	}
	row, bearer, err := a.Access.Create(ctx, n)
	if err != nil {
		return err
	}
	view := viewKey(row)
	view.Key = bearer
	c.Response().Header().Set(echo.HeaderLocation, "/v1/keys/"+row.ID.String())
	return c.JSON(http.StatusCreated, view)
}

func wide(n *int) *int64 {
	if n == nil {
		return nil
	}
	w := int64(*n)
	return &w
}

func isEmptyArray(raw json.RawMessage) bool {
	var all []json.RawMessage
	return json.Unmarshal(raw, &all) == nil && len(all) == 0
}

func (a *API) listKeys(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	rows, err := a.Store.Keys(ctx)
	return list(c, "keys", rows, err, viewKey)
}

func (a *API) getKey(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return store.ErrNotFound
	}
	row, err := a.Store.Key(ctx, id)
	return show(c, row, err, viewKey)
}

func (a *API) deleteKey(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return store.ErrNotFound
	}
	return gone(c, a.Access.Revoke(ctx, id))
}
