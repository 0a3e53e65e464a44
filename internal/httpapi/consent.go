package httpapi

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/cloudapi"
	"wagate/internal/consent"
	"wagate/internal/form"
	"wagate/internal/store"
)

// Bounds of suppressions and keywords.
const (
	maxUsers            = 1000 // of one request
	maxKeywordLanguages = 50
	maxKeywords         = 30 // of one language
)

func (a *API) consentRoutes() {
	e := a.echo
	e.GET("/v1/suppressions", a.authed(access.Manage, unrestricted(a.listSuppressions)))
	e.POST("/v1/suppressions", a.authed(access.Manage, unrestricted(a.postSuppressions)))
	e.DELETE("/v1/suppressions", a.authed(access.Manage, unrestricted(a.liftUser)))
	e.DELETE("/v1/suppressions/:id", a.authed(access.Manage, unrestricted(a.deleteSuppression)))
	if a.Windows != nil {
		e.GET("/v1/windows", a.authed(access.Read, a.getWindow))
	}
}

type suppressionView struct {
	ID       uuid.UUID  `json:"id"`
	WABAID   string     `json:"waba_id"`
	User     string     `json:"user"`
	Category string     `json:"category"`
	Source   string     `json:"source"`
	Reason   string     `json:"reason"`
	Code     *int       `json:"code"`
	Since    time.Time  `json:"since"`
	Until    *time.Time `json:"until"`
}

func viewSuppression(x store.Suppression) suppressionView {
	v := suppressionView{
		ID: x.ID, WABAID: x.WABAID, User: x.WAID, Category: x.Category, Source: x.Source, Reason: x.Reason, Since: x.Since.UTC(), Until: utc(x.Until),
	}
	if x.Code != 0 {
		v.Code = &x.Code
	}
	return v
}

// userForm is a business-scoped user id.
var userForm = regexp.MustCompile(`^[A-Za-z]{2}\.[A-Za-z0-9.]{1,250}$`)

// userKey reads a user: a phone number with its country code in any spelling, or a business-scoped user id. It gives the key
// that the tables have, the digits or the id.
func userKey(s string) (string, error) {
	if strings.ContainsFunc(s, unicode.IsLetter) {
		if !userForm.MatchString(s) {
			return "", errors.New("must be a phone number with its country code, or a business-scoped user id such as US.1234")
		}
		return s, nil
	}
	digits := digitsOf(s)
	if len(digits) < 5 || len(digits) > 20 || strings.Trim(s, "+0123456789 ()-./") != "" || strings.LastIndexByte(s, '+') > 0 {
		return "", errors.New("must be a phone number with its country code, or a business-scoped user id such as US.1234")
	}
	return digits, nil
}

func suppressionSource(s string) (string, error) {
	switch s {
	case store.FromPreference, store.FromKeyword, store.FromMeta, store.FromOperator:
		return s, nil
	}
	return "", errors.New("must be preference, keyword, meta or operator")
}

func (a *API) listSuppressions(c echo.Context, _ access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	f := store.SuppressionFilter{Limit: presetLimit}
	err := readQuery(c.QueryParams(), func(name, v string) (err error) {
		switch name {
		case "waba_id":
			f.WABAID = v
		case "user":
			f.User, err = userKey(v)
		case "source":
			f.Source, err = suppressionSource(v)
		case "limit":
			f.Limit, err = readLimit(v)
		case "cursor":
			f.Before, err = uuid.Parse(v)
		default:
			err = errors.New("unknown")
		}
		return err
	})
	if err != nil {
		return newProblem(http.StatusBadRequest, "malformed", err.Error())
	}
	limit := f.Limit
	f.Limit++ // one more tells whether there is a next page
	rows, err := a.Store.ListSuppressions(ctx, f)
	if err != nil {
		return err
	}
	var next *string
	if len(rows) > limit {
		rows = rows[:limit]
		cursor := rows[limit-1].ID.String()
		next = &cursor
	}
	return c.JSON(http.StatusOK, map[string]any{"suppressions": viewSuppressions(rows), "next_cursor": next})
}

func viewSuppressions(rows []store.Suppression) []suppressionView {
	views := make([]suppressionView, len(rows))
	for i, x := range rows {
		views[i] = viewSuppression(x)
	}
	return views
}

// postSuppressions puts operators' entries in, for user or users; one that is there already gets the new reason and end.
func (a *API) postSuppressions(c echo.Context, key access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	var faults []cloudapi.Fault
	o, err := open(c, nil, &faults)
	if err != nil {
		return err
	}
	waba, reason := o.Text("waba_id", 64), o.Text("reason", maxReason)
	users := form.Words(o, "users", maxUsers, userKey)
	if one := form.Word(o, "user", userKey); one != "" {
		users = append(users, one)
	}
	until := o.Time("until")
	if o != nil {
		if o.Raw("waba_id") == nil {
			o.Fault("waba_id", "is required")
		}
		switch user, list := o.Raw("user"), o.Raw("users"); {
		case user == nil && list == nil:
			o.Fault("user", "is required, or users")
		case user != nil && list != nil:
			o.Fault("users", "cannot stand beside user")
		case user == nil && len(users) == 0:
			o.Fault("users", "must name at least one")
		}
		if !until.IsZero() && !until.After(a.Now()) {
			o.Fault("until", "must be in the future; null means until it is lifted")
		}
	}
	o.End()
	if len(faults) > 0 {
		return invalid(faults)
	}
	if reason == "" {
		reason = "by an operator"
	}
	var end *time.Time
	if !until.IsZero() {
		end = &until
	}
	rows, err := a.Store.AddSuppressions(ctx, waba, users, reason, end)
	if err != nil {
		return err
	}
	a.logger.InfoContext(ctx, "marketing suppressed by an operator", "waba", waba, "users", len(rows), "key", key.Name)
	return c.JSON(http.StatusCreated, map[string]any{"suppressions": viewSuppressions(rows)})
}

func (a *API) deleteSuppression(c echo.Context, key access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return store.ErrNotFound
	}
	err = a.Store.LiftSuppression(ctx, id)
	if err == nil {
		a.logger.InfoContext(ctx, "suppression lifted by an operator", "suppression", id, "key", key.Name)
	}
	return gone(c, err)
}

// liftUser lifts every suppression of one user at one WABA, whoever said so.
func (a *API) liftUser(c echo.Context, key access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	var waba, user string
	err := readQuery(c.QueryParams(), func(name, v string) (err error) {
		switch name {
		case "waba_id":
			waba = v
		case "user":
			user, err = userKey(v)
		default:
			err = errors.New("unknown")
		}
		return err
	})
	if err != nil {
		return newProblem(http.StatusBadRequest, "malformed", err.Error())
	}
	if waba == "" || user == "" {
		return newProblem(http.StatusBadRequest, "malformed", "The query parameters waba_id and user are required.")
	}
	n, err := a.Store.LiftUser(ctx, waba, user)
	if err != nil {
		return err
	}
	a.logger.InfoContext(ctx, "a user's suppressions lifted by an operator", "waba", waba, "lifted", n, "key", key.Name)
	return c.JSON(http.StatusOK, map[string]int{"lifted": n})
}

// windowView is what is known of a customer service window. State is open, closed or unknown; Reason is why it is not known.
type windowView struct {
	PhoneNumberID string     `json:"phone_number_id"`
	User          string     `json:"user"`
	State         string     `json:"state"`
	ExpiresAt     *time.Time `json:"window_expires_at"`
	Reason        *string    `json:"reason"`
	WindowCheck   string     `json:"window_check"`
	HeardSince    *time.Time `json:"heard_since"`
	HeardAt       *time.Time `json:"heard_at"`
}

func (a *API) getWindow(c echo.Context, key access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	var ask store.WindowAsk
	err := readQuery(c.QueryParams(), func(name, v string) (err error) {
		switch name {
		case "phone_number_id":
			ask.PhoneNumberID = v
		case "user":
			ask.Recipient, err = userKey(v)
		default:
			err = errors.New("unknown")
		}
		return err
	})
	if err != nil {
		return newProblem(http.StatusBadRequest, "malformed", err.Error())
	}
	if ask.PhoneNumberID == "" || ask.Recipient == "" {
		return newProblem(http.StatusBadRequest, "malformed", "The query parameters phone_number_id and user are required.")
	}
	if !key.MayUse(ask.PhoneNumberID) {
		return store.ErrNotFound
	}
	phone, err := a.Store.PhoneNumber(ctx, ask.PhoneNumberID)
	if err != nil {
		return err
	}
	s, err := a.Windows.State(ctx, ask)
	if err != nil {
		return err
	}
	v := windowView{
		PhoneNumberID: phone.ID, User: ask.Recipient, State: "unknown", ExpiresAt: sometime(s.Until), WindowCheck: phone.WindowCheck,
		HeardSince: sometime(s.HeardSince), HeardAt: sometime(s.HeardAt),
	}
	switch {
	case s.Open:
		v.State = "open"
	case s.Closed:
		v.State = "closed"
	default:
		v.Reason = &s.Why
	}
	return c.JSON(http.StatusOK, v)
}

// sometime is a time, or nil for never.
func sometime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return utc(&t)
}

// languageForm is a language code such as en, pt_BR or zh-Hant.
var languageForm = regexp.MustCompile(`^[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8})*$`)

// readKeywords reads words by language: {"en": ["STOP"]}.
func readKeywords(o *form.Object, name string, faults *[]cloudapi.Fault) map[string][]string {
	all := map[string][]string{}
	raw := o.Raw(name)
	if raw == nil {
		return all
	}
	languages := form.Parse(raw, "/"+name, faults)
	if languages == nil {
		return all
	}
	var members map[string]json.RawMessage
	_ = json.Unmarshal(raw, &members) // it is an object
	if len(members) > maxKeywordLanguages {
		o.Fault(name, "must have at most %d languages", maxKeywordLanguages)
		return all
	}
	for _, language := range slices.Sorted(maps.Keys(members)) {
		if !languageForm.MatchString(language) || len(language) > 35 {
			o.Fault(name, "must have languages such as en or pt_BR for names")
			continue
		}
		if list := form.Words(languages, language, maxKeywords, keyword); len(list) > 0 {
			all[language] = list
		}
	}
	return all
}

func keyword(s string) (string, error) {
	switch {
	case utf8.RuneCountInString(s) > consent.MaxKeyword || strings.IndexByte(s, 0) >= 0:
		return "", errors.New("must have at most 64 characters")
	case consent.Fold(s) == "":
		return "", errors.New("must have a letter or a digit")
	}
	return s, nil
}

// bothWays adds a fault for a word that ends marketing and takes it up again.
func bothWays(o *form.Object, k store.Keywords) {
	out := map[string]bool{}
	for _, list := range k.OptOut {
		for _, word := range list {
			out[consent.Fold(word)] = true
		}
	}
	for _, language := range slices.Sorted(maps.Keys(k.OptIn)) {
		for _, word := range k.OptIn[language] {
			if out[consent.Fold(word)] {
				o.Fault("opt_in_keywords", "has a word of opt_out_keywords, for %s", language)
				return
			}
		}
	}
}
