package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/cloudapi"
	"wagate/internal/store"
	"wagate/internal/template"
)

const (
	// refreshTime bounds a reading of a WABA's templates that a caller waits for.
	refreshTime = 25 * time.Second
	// maxLanguages is how many languages of a template are shown. Meta knows fewer.
	maxLanguages = 1000
)

func (a *API) templateRoutes() {
	scopes := []access.Scope{access.Read, access.Send, access.Manage}
	a.echo.GET("/v1/templates", a.authedAny(scopes, a.listTemplates))
	a.echo.GET("/v1/templates/:waba/:name", a.authedAny(scopes, a.getTemplate))
}

type knownTemplate struct {
	WABAID          string          `json:"waba_id"`
	Name            string          `json:"name"`
	Language        string          `json:"language"`
	ID              *string         `json:"id"`
	Status          string          `json:"status"`
	StatusAt        *time.Time      `json:"status_at"`
	RejectedReason  *string         `json:"rejected_reason"`
	Category        *string         `json:"category"`
	NextCategory    *string         `json:"next_category"`
	NextCategoryAt  *time.Time      `json:"next_category_at"`
	Quality         *string         `json:"quality"`
	QualityAt       *time.Time      `json:"quality_at"`
	QualityBefore   *string         `json:"quality_before"`
	ParameterFormat *string         `json:"parameter_format"`
	Components      json.RawMessage `json:"components"`
	// ComponentsSure says that nothing has been heard since that may have changed them: messages are checked against them.
	ComponentsSure bool       `json:"components_sure"`
	FirstSeenAt    time.Time  `json:"first_seen_at"`
	ListedAt       *time.Time `json:"listed_at"`
	GoneAt         *time.Time `json:"gone_at"`
}

func viewKnown(t store.Template) knownTemplate {
	v := knownTemplate{
		WABAID: t.WABAID, Name: t.Name, Language: t.Language, ID: optional(t.MetaID), Status: t.Status, RejectedReason: optional(t.Reason),
		Category: optional(t.Category), NextCategory: optional(t.NextCategory), NextCategoryAt: utc(t.NextCategoryAt),
		Quality: optional(t.Quality), QualityAt: utc(t.QualityAt), QualityBefore: optional(t.QualityBefore), ParameterFormat: optional(t.ParameterFormat),
		Components: t.Components, ComponentsSure: t.Sure, FirstSeenAt: t.FirstSeenAt.UTC(), ListedAt: utc(t.ListedAt), GoneAt: utc(t.GoneAt),
	}
	if t.Status == "" { // only its quality or category was heard of
		v.Status = "UNKNOWN"
	} else {
		at := t.StatusAt.UTC()
		v.StatusAt = &at
	}
	return v
}

type templateSyncView struct {
	WABAID   string     `json:"waba_id"`
	SyncedAt *time.Time `json:"synced_at"`
	// AgeSeconds is how old the last complete list is; null where there was none.
	AgeSeconds *float64 `json:"age_seconds"`
	// Complete says whether the last list was read to its end.
	Complete bool `json:"complete"`
	// Checked says that messages are checked against what is known: it is complete, younger than an hour, and no template was
	// written through the gateway since.
	Checked bool       `json:"checked"`
	NextAt  *time.Time `json:"next_at"`
	Problem *string    `json:"problem"`
}

func viewTemplateSync(s store.TemplateSync) templateSyncView {
	v := templateSyncView{WABAID: s.WABAID, SyncedAt: utc(s.SyncedAt), Complete: s.Complete, Checked: s.Trusted, NextAt: utc(s.NextAt), Problem: optional(s.Problem)}
	if s.SyncedAt != nil {
		age := float64(s.Age.Milliseconds()) / 1000
		v.AgeSeconds = &age
	}
	return v
}

// templateList is the answer to a list: how old it is, by the WABA whose list is the oldest, and each of them.
type templateList struct {
	SyncedAt   *time.Time         `json:"synced_at"`
	AgeSeconds *float64           `json:"age_seconds"`
	Complete   bool               `json:"complete"`
	WABAs      []templateSyncView `json:"wabas"`
	Templates  []knownTemplate    `json:"templates"`
	NextCursor *string            `json:"next_cursor"`
}

var (
	templateWord     = regexp.MustCompile(`^[A-Za-z_]{1,64}$`)
	templateLanguage = regexp.MustCompile(`^[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8})*$`)
	templateName     = regexp.MustCompile(`^[a-z0-9_]{1,512}$`)
)

var errFilter = errors.New("not valid")

// templateQuery reads the query of a list of templates.
func templateQuery(query map[string][]string) (f store.TemplateFilter, waba string, refresh bool, err error) {
	f.Limit = presetLimit
	if v := query["refresh"]; len(v) == 1 && v[0] == "" { // asked for by its name alone
		query = maps.Clone(query)
		query["refresh"] = []string{"true"}
	}
	err = readQuery(query, func(name, v string) (err error) {
		valid := true
		switch name {
		case "waba_id":
			waba, valid = v, accountID.MatchString(v)
		case "name":
			f.Name, valid = v, templateName.MatchString(v)
		case "language":
			f.Language, valid = strings.ReplaceAll(v, "-", "_"), templateLanguage.MatchString(v)
		case "status":
			f.Status, valid = strings.ToUpper(v), templateWord.MatchString(v)
		case "category":
			f.Category, valid = strings.ToUpper(v), templateWord.MatchString(v)
		case "limit":
			f.Limit, err = readLimit(v)
		case "cursor":
			f.After, err = readTemplateCursor(v)
		case "refresh":
			refresh, err = strconv.ParseBool(v)
		default:
			valid = false
		}
		if !valid {
			err = errFilter
		}
		return err
	})
	return f, waba, refresh, err
}

func templateCursor(t store.Template) string {
	raw, _ := json.Marshal([3]string{t.WABAID, t.Name, t.Language}) // strings always marshal
	return base64.RawURLEncoding.EncodeToString(raw)
}

func readTemplateCursor(v string) (k store.TemplateKey, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(v)
	if err != nil {
		return k, err
	}
	var parts [3]string
	if err := json.Unmarshal(raw, &parts); err != nil || strings.Contains(strings.Join(parts[:], ""), "\x00") {
		return k, errFilter
	}
	return store.TemplateKey{WABAID: parts[0], Name: parts[1], Language: parts[2]}, nil
}

// listTemplates answers from what is known, for the WABAs that the key may use; with refresh it reads the list of one first.
func (a *API) listTemplates(c echo.Context, key access.Key) error {
	f, waba, refresh, err := templateQuery(c.QueryParams())
	if err != nil {
		return newProblem(http.StatusBadRequest, "malformed", err.Error())
	}
	if refresh {
		if err := a.refreshTemplates(c, key, waba); err != nil {
			return err
		}
	}
	ctx, cancel := a.bounded(c)
	defer cancel()
	syncs, err := a.templateSyncs(ctx, key, waba)
	if err != nil {
		return err
	}
	answer := templateList{WABAs: make([]templateSyncView, len(syncs)), Complete: true}
	for i, s := range syncs {
		v := viewTemplateSync(s)
		answer.WABAs[i] = v
		f.WABAIDs = append(f.WABAIDs, s.WABAID)
		if i == 0 || answer.SyncedAt != nil && (v.SyncedAt == nil || v.SyncedAt.Before(*answer.SyncedAt)) {
			answer.SyncedAt, answer.AgeSeconds = v.SyncedAt, v.AgeSeconds
		}
		answer.Complete = answer.Complete && v.Complete
	}
	limit := f.Limit
	f.Limit++ // one more tells whether there is a next page
	rows, err := a.Store.ListTemplates(ctx, f)
	if err != nil {
		return err
	}
	if len(rows) > limit {
		rows = rows[:limit]
		next := templateCursor(rows[limit-1])
		answer.NextCursor = &next
	}
	answer.Templates = make([]knownTemplate, len(rows))
	for i, t := range rows {
		answer.Templates[i] = viewKnown(t)
	}
	return c.JSON(http.StatusOK, answer)
}

// templateSyncs gives the WABAs that a key may use, or the one that is named; store.ErrNotFound where it may not.
func (a *API) templateSyncs(ctx context.Context, key access.Key, waba string) ([]store.TemplateSync, error) {
	var only []string
	if waba != "" {
		only = []string{waba}
	}
	syncs, err := a.Store.TemplateSyncs(ctx, only, key.PhoneNumbers)
	if err == nil && waba != "" && len(syncs) == 0 {
		err = store.ErrNotFound
	}
	return syncs, err
}

// getTemplate shows every language of a template.
func (a *API) getTemplate(c echo.Context, key access.Key) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	waba, name := c.Param("waba"), c.Param("name")
	if !accountID.MatchString(waba) || !templateName.MatchString(name) {
		return store.ErrNotFound
	}
	syncs, err := a.templateSyncs(ctx, key, waba)
	if err != nil {
		return err
	}
	rows, err := a.Store.ListTemplates(ctx, store.TemplateFilter{WABAIDs: []string{waba}, Name: name, Limit: maxLanguages})
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return store.ErrNotFound
	}
	views := make([]knownTemplate, len(rows))
	for i, t := range rows {
		views[i] = viewKnown(t)
	}
	return c.JSON(http.StatusOK, struct {
		templateSyncView
		Name      string          `json:"name"`
		Languages []knownTemplate `json:"languages"`
	}{viewTemplateSync(syncs[0]), name, views})
}

// refreshTemplates reads the templates of a WABA now: of the one that is named, or the only one that the key may use.
func (a *API) refreshTemplates(c echo.Context, key access.Key, waba string) error {
	if !key.May(access.Manage) {
		return newProblem(http.StatusForbidden, "forbidden", "This API key lacks the scope "+string(access.Manage)+", which a refresh needs.")
	}
	if a.Templates == nil {
		return newProblem(http.StatusNotFound, "not_found", "This gateway reads no templates.")
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), refreshTime)
	defer cancel()
	syncs, err := a.templateSyncs(ctx, key, waba)
	if err != nil {
		return err
	}
	if len(syncs) != 1 {
		return newProblem(http.StatusBadRequest, "malformed", `A refresh is of one WABA: the query parameter "waba_id" is needed.`)
	}
	defer context.AfterFunc(a.stopping, cancel)()
	return refreshProblem(a.Templates.Refresh(ctx, syncs[0].WABAID))
}

// refreshProblem says why templates were not read.
func refreshProblem(err error) error {
	var p *problem
	spent, isSpent := errors.AsType[*template.SpentError](err)
	meta, isMeta := errors.AsType[*cloudapi.Error](err)
	_, isCall := errors.AsType[*template.CallError](err)
	switch {
	case isSpent:
		p = newProblem(http.StatusTooManyRequests, "management_calls_spent", "The WABA has no management call left in this hour.")
		p.retryAfter = max(spent.Wait, time.Second)
	case errors.Is(err, template.ErrBusy):
		p = newProblem(http.StatusServiceUnavailable, "busy", "The templates of the WABA are being read, and that takes long.")
		p.retryAfter = 10 * time.Second
	case errors.Is(err, template.ErrNoToken):
		p = newProblem(http.StatusConflict, "no_access_token", "The gateway has no access token for the WABA.")
	case isMeta:
		p = newProblem(http.StatusBadGateway, "graph_error", "Meta has refused the list of templates with code "+strconv.Itoa(meta.Code)+".")
	case isCall && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)):
		p = newProblem(http.StatusGatewayTimeout, "timeout", "The list of templates did not come in time.")
	case isCall:
		p = newProblem(http.StatusBadGateway, "graph_unreachable", "The list of templates could not be read from Meta.")
	default:
		return err
	}
	p.cause = err
	return p
}
