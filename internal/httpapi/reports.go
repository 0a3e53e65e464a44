package httpapi

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/cloudapi"
	"wagate/internal/store"
)

const (
	// maxReportRows bounds an answer.
	maxReportRows = 10_000
	// reportTime bounds what a report asks of the database, reportsAtOnce how many do at the same time: each reads much, and
	// messages are accepted by the same connections.
	reportTime    = 30 * time.Second
	reportsAtOnce = 2
	// reportSpan is how many whole days a report goes back that is not told.
	reportSpan = 7
	// total stands for no dimension in group_by.
	total = "total"
)

// reportPresets are what a report is grouped by that is not told.
var reportPresets = map[string][]string{
	"delivery": {"day"}, "errors": {"day", "error_code", "error_title"}, "latency": {"day"}, "cost": {"day", "pricing_category"}, "backlog": {},
}

func (a *API) reportRoutes() {
	a.echo.GET("/v1/reports/:report", a.authed(access.Read, a.getReport))
}

func (a *API) getReport(c echo.Context, key access.Key) error {
	if _, ok := reportPresets[c.Param("report")]; !ok {
		return newProblem(http.StatusNotFound, "not_found", "There is no such report: delivery, errors, latency, backlog and cost are there.")
	}
	q, format, faults := readReport(c.Param("report"), c.QueryParams(), a.Now())
	if len(faults) > 0 {
		return newProblem(http.StatusBadRequest, "malformed", "The query is not valid: "+faults[0].Pointer[1:]+" "+faults[0].Detail+".", faults...)
	}
	q.PhoneNumbers = key.PhoneNumbers
	ctx, cancel := context.WithTimeout(c.Request().Context(), reportTime)
	defer cancel()
	select {
	case a.reports <- struct{}{}:
		defer func() { <-a.reports }()
	case <-ctx.Done():
		p := newProblem(http.StatusTooManyRequests, "too_many_reports", "Other reports are being made.")
		p.retryAfter = reportTime / 10
		return p
	}
	table, err := a.Store.Report(ctx, q)
	switch {
	case errors.Is(err, store.ErrTimezone):
		return newProblem(http.StatusBadRequest, "malformed", "The query is not valid: the database does not know this timezone.",
			cloudapi.Fault{Pointer: "/timezone", Detail: "is not known to the database"})
	case err != nil:
		return err
	case table.More:
		return newProblem(http.StatusUnprocessableEntity, "too_many_rows",
			fmt.Sprintf("The report has more than %d rows: group it by less, or ask for a shorter time.", maxReportRows))
	}
	if format == "csv" {
		raw, err := reportCSV(table)
		if err != nil {
			return err
		}
		c.Response().Header().Set(echo.HeaderContentDisposition, `attachment; filename="`+q.Report+`.csv"`)
		return c.Blob(http.StatusOK, "text/csv; charset=utf-8", raw)
	}
	rows := make([]reportRow, len(table.Rows))
	for i, r := range table.Rows {
		rows[i] = reportRow{table.Columns, r}
	}
	view := reportView{Report: q.Report, Rows: rows, At: a.Now().UTC()}
	if q.Report != "backlog" {
		view.Since, view.Timezone, view.GroupBy = utc(&q.Since), &q.Timezone, q.GroupBy
		if !q.Until.IsZero() {
			view.Until = utc(&q.Until)
		}
	}
	return c.JSON(http.StatusOK, view)
}

type reportView struct {
	Report   string      `json:"report"`
	Since    *time.Time  `json:"since,omitempty"`
	Until    *time.Time  `json:"until,omitempty"`
	Timezone *string     `json:"timezone,omitempty"`
	GroupBy  []string    `json:"group_by,omitempty"`
	At       time.Time   `json:"at"`
	Rows     []reportRow `json:"rows"`
}

// reportRow is an object with the columns in their order.
type reportRow struct {
	columns []string
	values  []any
}

// MarshalJSON implements json.Marshaler.
func (r reportRow) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	for i, name := range r.columns {
		raw, err := json.Marshal(r.values[i])
		if err != nil {
			return nil, fmt.Errorf("encoding column %s: %w", name, err)
		}
		b.WriteByte("{,"[min(i, 1)])
		b.WriteString(strconv.Quote(name)) // names of ours
		b.WriteByte(':')
		b.Write(raw)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// readReport reads the query of a report. Days without a time are taken in the report's time zone.
func readReport(report string, query url.Values, now time.Time) (q store.ReportQuery, format string, faults []cloudapi.Fault) {
	q = store.ReportQuery{Report: report, Timezone: "UTC", GroupBy: reportPresets[report], Limit: maxReportRows}
	zone := time.UTC
	fault := func(name, detail string) {
		faults = append(faults, cloudapi.Fault{Pointer: "/" + name, Detail: detail})
	}
	known := []string{"since", "until", "timezone", "group_by", "format"}
	if report == "backlog" {
		known = []string{"format"}
	}
	for name, values := range query {
		switch {
		case !slices.Contains(known, name) && slices.Contains([]string{"since", "until", "timezone", "group_by"}, name):
			fault(name, "is not for the backlog, which is of now and has a row a lane")
		case !slices.Contains(known, name):
			fault(strings.ToValidUTF8(clip(name), ""), "is not a parameter of a report: "+strings.Join(known, ", "))
		case name != "group_by" && len(values) != 1:
			fault(name, "must be given once")
		}
	}
	if v := query.Get("timezone"); v != "" {
		loc, err := time.LoadLocation(v)
		if err != nil || v == "Local" {
			fault("timezone", "must be the name of a time zone, such as Europe/Rome")
		} else {
			zone, q.Timezone = loc, v
		}
	}
	var ok bool
	if q.Since, ok = reportTimeOf(query.Get("since"), zone); !ok {
		fault("since", "must be a time such as 2026-12-01T00:00:00Z, or a day such as 2026-12-01")
	}
	if q.Until, ok = reportTimeOf(query.Get("until"), zone); !ok {
		fault("until", "must be a time such as 2026-12-01T00:00:00Z, or a day such as 2026-12-01")
	}
	if q.Since.IsZero() {
		end := now
		if !q.Until.IsZero() {
			end = q.Until
		}
		y, m, d := end.In(zone).Date()
		q.Since = time.Date(y, m, d-reportSpan, 0, 0, 0, 0, zone)
	}
	if !q.Until.IsZero() && !q.Until.After(q.Since) {
		fault("until", "must be after since")
	}
	if by := query["group_by"]; len(by) > 0 {
		q.GroupBy = groupBy(report, strings.Split(strings.Join(by, ","), ","), fault)
	}
	switch format = query.Get("format"); format {
	case "json", "csv":
	case "":
		format = "json"
	default:
		fault("format", "must be json or csv")
	}
	return q, format, faults
}

func reportTimeOf(s string, zone *time.Location) (time.Time, bool) {
	if s == "" {
		return time.Time{}, true
	}
	t, err := time.ParseInLocation("2006-01-02", s, zone)
	if err != nil {
		t, err = time.Parse(time.RFC3339, s)
	}
	return t, err == nil && t.Year() >= 2000 && t.Year() < 3000
}

// groupBy reads the dimensions of a report; total alone is none of them.
func groupBy(report string, names []string, fault func(name, detail string)) []string {
	dimensions := store.ReportDimensions[report]
	by := []string{}
	for _, name := range names {
		switch name = strings.TrimSpace(name); {
		case name == total && len(names) > 1:
			fault("group_by", "total stands alone")
		case name == total:
		case !slices.Contains(dimensions, name):
			fault("group_by", fmt.Sprintf("knows no %q here, but %s, or total alone", strings.ToValidUTF8(clip(name), ""), strings.Join(dimensions, ", ")))
		case slices.Contains(by, name):
			fault("group_by", "names "+name+" twice")
		default:
			by = append(by, name)
		}
	}
	if slices.Contains(by, "day") && slices.Contains(by, "hour") {
		fault("group_by", "takes day or hour, not both")
	}
	return by
}

// reportCSV writes a table with a header. A text that a spreadsheet would take for a formula gets an apostrophe before it: tags
// and template names are the callers' own.
func reportCSV(t store.ReportTable) ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	record := slices.Clone(t.Columns)
	err := w.Write(record)
	for _, row := range t.Rows {
		for i, v := range row {
			switch v := v.(type) {
			case nil:
				record[i] = ""
			case string:
				record[i] = noFormula(v)
			case time.Time:
				record[i] = v.Format(time.RFC3339Nano)
			case float64:
				record[i] = strconv.FormatFloat(v, 'f', -1, 64)
			default:
				record[i] = fmt.Sprint(v)
			}
		}
		err = errors.Join(err, w.Write(record))
	}
	w.Flush()
	if err := errors.Join(err, w.Error()); err != nil {
		return nil, fmt.Errorf("writing CSV: %w", err)
	}
	return b.Bytes(), nil
}

func noFormula(s string) string {
	if strings.ContainsAny(s[:min(len(s), 1)], "=+-@\t\r\n|%") || strings.HasPrefix(s, "＝") || strings.HasPrefix(s, "＋") || strings.HasPrefix(s, "－") || strings.HasPrefix(s, "＠") {
		return "'" + s
	}
	return s
}
