package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/cloudapi"
	"wagate/internal/store"
)

// patched makes a PATCH of a PUT: the body is merged into the row as it is (RFC 7396: what is absent stays), and the
// whole is put. As in a PUT, null means none. Secrets that the body does not name stay.
func (a *API) patched(path string, put handler) handler {
	return func(c echo.Context, key access.Key) error {
		ctx, cancel := a.bounded(c)
		defer cancel()
		body, err := readBody(c, maxBody)
		if err != nil {
			return err
		}
		if !json.Valid(body) {
			return newProblem(http.StatusBadRequest, "malformed", "The body is not JSON.", cloudapi.Fault{Pointer: "", Detail: "is not JSON"})
		}
		var patch map[string]json.RawMessage
		if json.Unmarshal(body, &patch) != nil || patch == nil {
			return invalid([]cloudapi.Fault{{Pointer: "", Detail: "must be a JSON object"}})
		}
		whole, err := a.puttable(ctx, path, c.Param("id"))
		if err != nil {
			return err
		}
		merge(whole, patch)
		merged, err := json.Marshal(whole)
		if err != nil {
			return err
		}
		r := c.Request()
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(merged)), int64(len(merged))
		return put(c, key)
	}
}

// merge puts the members of a patch over those of an object, and those of an object in it over those of the same object.
func merge(whole, patch map[string]json.RawMessage) {
	for name, value := range patch {
		var inner, over map[string]json.RawMessage
		if json.Unmarshal(value, &over) == nil && over != nil && json.Unmarshal(whole[name], &inner) == nil && inner != nil {
			merge(inner, over)
			if both, err := json.Marshal(inner); err == nil {
				value = both
			}
		}
		whole[name] = value
	}
}

// puttable is the body of a PUT that would change nothing.
func (a *API) puttable(ctx context.Context, path, id string) (map[string]json.RawMessage, error) {
	if !accountID.MatchString(id) {
		return nil, store.ErrNotFound
	}
	var body map[string]any
	switch path {
	case "/v1/apps":
		r, err := a.Store.App(ctx, id)
		if err != nil {
			return nil, err
		}
		body = map[string]any{"calls_per_hour": r.CallsPerHour}
	case "/v1/portfolios":
		r, err := a.Store.Portfolio(ctx, id)
		if err != nil {
			return nil, err
		}
		body = map[string]any{"unique_recipients_per_day": r.UniqueRecipientsPerDay}
	case "/v1/wabas":
		r, err := a.Store.WABA(ctx, id)
		if err != nil {
			return nil, err
		}
		body = map[string]any{
			"app_id": r.AppID, "portfolio_id": r.PortfolioID, "management_calls_per_hour": r.ManagementCallsPerHour,
			"messages_per_hour": r.MessagesPerHour, "messages_per_second": r.MessagesPerSecond, "burst": r.Burst,
			"ingress_answer": r.Ingress.Answer, "ingress_wait_seconds": r.Ingress.WaitSeconds, "opaque_as_idempotency_key": r.Ingress.OpaqueIsKey,
			"opt_out_keywords": r.Keywords.OptOut, "opt_in_keywords": r.Keywords.OptIn,
		}
		if r.Name != "" {
			body["name"] = r.Name
		}
	default:
		r, err := a.Store.PhoneNumber(ctx, id)
		if err != nil {
			return nil, err
		}
		v := viewPhone(r)
		body = map[string]any{
			"waba_id": v.WABAID, "messages_per_second": v.MessagesPerSecond, "burst": v.Burst, "pair": v.Pair,
			"window_check": v.WindowCheck, "max_backlog": v.MaxBacklog,
		}
		if v.DisplayPhoneNumber != "" {
			body["display_phone_number"] = v.DisplayPhoneNumber
		}
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	whole := map[string]json.RawMessage{}
	return whole, json.Unmarshal(raw, &whole)
}
