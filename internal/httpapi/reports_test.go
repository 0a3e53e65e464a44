package httpapi_test

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"wagate/internal/message"
)

// aMessage puts a row in; columns come as name, SQL, …
func (g *gateway) aMessage(created time.Time, columns ...string) {
	g.t.Helper()
	names, values := "", ""
	for i := 0; i < len(columns); i += 2 {
		names += ", " + columns[i]
		values += ", " + columns[i+1]
	}
	if !strings.Contains(names, "phone_number_id") {
		names, values = names+", phone_number_id", values+", '"+phone+"'"
	}
	if _, err := g.pool.Exec(g.t.Context(), `INSERT INTO messages (id, waba_id, recipient, type, priority, created_at`+names+`) VALUES ($1, '100', '+1', 'template', 3, $2`+values+`)`,
		message.NewID(created), created); err != nil {
		g.t.Fatal(err)
	}
}

// rows gives the rows of a report.
func (g *gateway) rows(path string, headers ...string) []map[string]any {
	g.t.Helper()
	var doc struct{ Rows []map[string]any }
	if err := json.Unmarshal([]byte(g.must(http.StatusOK, "GET", "/v1/reports/"+path, "", headers...).body), &doc); err != nil {
		g.t.Fatal(err)
	}
	return doc.Rows
}

// viewed gives rows of a query in an analyst's words.
func (g *gateway) viewed(settings, sql string) (all []map[string]any) {
	g.t.Helper()
	err := pgx.BeginFunc(g.t.Context(), g.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(g.t.Context(), `SET LOCAL ROLE wagate_report; `+settings); err != nil {
			return err
		}
		var text string
		if err := tx.QueryRow(g.t.Context(), `SELECT coalesce(jsonb_agg(to_jsonb(x)), '[]')::text FROM (`+sql+`) x`).Scan(&text); err != nil {
			return err
		}
		return json.Unmarshal([]byte(text), &all)
	})
	if err != nil {
		g.t.Fatalf("%s: %v", sql, err)
	}
	return all
}

func TestReportsGiveTheNumbersOfTheViews(t *testing.T) {
	g := start(t)
	today := time.Now().UTC().Truncate(24 * time.Hour)
	at := func(days int, hour, minute int) time.Time {
		return today.AddDate(0, 0, -days).Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute)
	}
	for i := range 12 {
		g.aMessage(at(2, 9, 10+i), "status", "'read'", "template_name", "'shipped'", "category", "'utility'", "tags", `'{"campaign":"spring"}'`,
			"accepted_at", fmt.Sprintf("$2::timestamptz + %d * interval '1 second'", i+1), "sent_at", "$2::timestamptz + interval '20 seconds'",
			"delivered_at", "$2::timestamptz + interval '25 seconds'", "read_at", "$2::timestamptz + interval '1 minute'",
			"pricing_billable", "true", "pricing_category", "'utility'", "pricing_type", "'regular'", "pricing_model", "'PMP'")
	}
	g.aMessage(at(2, 20, 0), "status", "'failed'", "error_code", "131026", "error_title", "'Undeliverable'", "failed_at", "$2::timestamptz", "failed_by_meta", "true", "template_name", "'shipped'")
	g.aMessage(at(1, 20, 0), "status", "'failed'", "error_code", "900000002", "failed_at", "$2::timestamptz", "error_scope", "'recipient'")
	g.aMessage(at(1, 21, 0), "status", "'queued'", "phone_number_id", "'201'")
	g.aMessage(at(9, 9, 0), "status", "'sent'")
	since := fmt.Sprintf(`SET LOCAL report.since = '%s'`, at(7, 0, 0).Format(time.RFC3339))
	kolkata := `SET LOCAL report.timezone = 'Asia/Kolkata'; SET LOCAL report.since = '` + at(3, 0, 0).Format(time.RFC3339) + `'; SET LOCAL report.until = '` + at(1, 20, 30).Format(time.RFC3339) + `'`
	asked := "?timezone=Asia/Kolkata&since=" + at(3, 0, 0).Format(time.RFC3339) + "&until=" + at(1, 20, 30).Format(time.RFC3339)
	check := func(when string) {
		t.Helper()
		for _, c := range []struct{ path, settings, sql string }{
			{"delivery", since, `SELECT day, sum(total) AS total, sum(accepted) AS accepted, sum(sent) AS sent, sum(delivered) AS delivered, sum(read) AS read, sum(failed) AS failed,
				sum(expired) AS expired, sum(cancelled) AS cancelled, sum(unknown) AS unknown, sum(waiting) AS waiting, sum(suppressed) AS suppressed,
				round(sum(sent) / nullif(sum(accepted), 0), 4) AS sent_rate, round(sum(delivered) / nullif(sum(accepted), 0), 4) AS delivered_rate,
				round(sum(read) / nullif(sum(delivered), 0), 4) AS read_rate FROM report.delivery_daily GROUP BY 1 ORDER BY 1`},
			{"delivery?group_by=day,waba_id,phone_number_id,template,category,campaign", since, `SELECT * FROM report.delivery_daily ORDER BY day, total DESC, waba_id, phone_number_id, template`},
			{"delivery" + asked + "&group_by=hour,waba_id,phone_number_id,template,category,campaign", kolkata, `SELECT * FROM report.delivery_hourly ORDER BY hour`},
			{"errors" + asked + "&group_by=day,waba_id,phone_number_id,template,error_code,error_title,error_scope,failed_by", kolkata, `SELECT * FROM report.errors_daily ORDER BY day`},
			{"errors?group_by=total", since, `SELECT sum(messages) AS messages, max(last_failed_at) AS last_failed_at FROM report.errors_daily`},
			{"latency" + asked + "&group_by=hour&group_by=waba_id,phone_number_id", kolkata, `SELECT * FROM report.latency_hourly ORDER BY hour`},
			{"cost?group_by=day,waba_id,phone_number_id,campaign,pricing_category,pricing_type,pricing_model", since, `SELECT * FROM report.cost_daily`},
			{"cost", since, `SELECT day, pricing_category, sum(messages) AS messages, sum(billable) AS billable FROM report.cost_daily GROUP BY 1, 2 ORDER BY 1`},
			{"backlog", since, `SELECT * FROM report.backlog ORDER BY waiting DESC, lane`},
		} {
			got, want := g.rows(c.path), g.viewed(c.settings, c.sql)
			for _, rows := range [][]map[string]any{got, want} {
				for _, r := range rows { // the API speaks UTC, the database in its own words
					for _, name := range []string{"hour", "last_failed_at", "oldest"} {
						if s, ok := r[name].(string); ok {
							when, err := time.Parse(time.RFC3339, s)
							if err != nil {
								t.Errorf("%s: %v", c.path, err)
							}
							r[name] = when.UTC().String()
						}
					}
				}
			}
			if len(want) == 0 || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %s:\n%v\nwant\n%v", when, c.path, got, want)
			}
		}
		if got := g.rows("latency?group_by=total"); len(got) != 1 || got[0]["messages"] != 12.0 || got[0]["queue_p50"] != 5.92 || got[0]["queue_p99"] != 11.8 {
			t.Errorf("%s: latencies of all: %v", when, got)
		}
	}
	check("before the roll-up")
	if _, err := g.store.RollUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("after it")

	// A key that is bound to a phone number has its own numbers only.
	bound := "Bearer " + g.key(`{"name":"shop","scopes":["read"],"phone_numbers":["`+phone+`"]}`)
	if got := g.rows("delivery?group_by=phone_number_id", "Authorization", bound); len(got) != 1 || got[0]["phone_number_id"] != phone || got[0]["total"] != 14.0 {
		t.Errorf("a bound key: %v", got)
	}
	for path, n := range map[string]int{"backlog": 1, "errors": 2, "cost": 1, "latency": 1} {
		if got := g.rows(path, "Authorization", bound); len(got) != n {
			t.Errorf("a bound key, %s: %v", path, got)
		}
	}
	other := "Bearer " + g.key(`{"name":"other","scopes":["read"],"phone_numbers":["201"]}`)
	for path, n := range map[string]int{"delivery?group_by=total": 1, "errors": 0, "cost": 0, "latency": 0, "backlog": 0} {
		if got := g.rows(path, "Authorization", other); len(got) != n {
			t.Errorf("another bound key, %s: %v", path, got)
		}
	}
	sender := "Bearer " + g.key(`{"name":"sender","scopes":["send"]}`)
	g.must(http.StatusForbidden, "GET", "/v1/reports/delivery", "", "Authorization", sender)

	a := g.must(http.StatusOK, "GET", "/v1/reports/delivery"+asked, "")
	for _, text := range []string{`{"report":"delivery","since":"` + at(3, 0, 0).Format(time.RFC3339) + `","until":"` + at(1, 20, 30).Format(time.RFC3339) + `","timezone":"Asia/Kolkata","group_by":["day"],"at":"`, `"rows":[{"day":"`, `","total":12,"accepted":`} {
		if !strings.Contains(a.body, text) {
			t.Errorf("%s has no %s", a.body, text)
		}
	}
	// A day is one of the time zone.
	a = g.must(http.StatusOK, "GET", "/v1/reports/delivery?timezone=Asia/Kolkata&since=2026-03-01&until=2026-03-02", "")
	if !strings.Contains(a.body, `"since":"2026-02-28T18:30:00Z","until":"2026-03-01T18:30:00Z"`) || !strings.Contains(a.body, `"rows":[]`) {
		t.Error(a.body)
	}
}

func TestReportsAsCSV(t *testing.T) {
	g := start(t)
	for i, campaign := range []string{`=HYPERLINK("http://x","y")`, `+1`, `-2`, `@sum`, `a,"b"`, `plain`, ` =space`, `＝wide`} {
		raw, _ := json.Marshal(map[string]string{"campaign": campaign})
		g.aMessage(time.Now().Add(-time.Duration(i)*time.Second), "status", "'sent'", "tags", "'"+string(raw)+"'")
	}
	g.aMessage(time.Now(), "status", "'failed'", "failed_at", "'2026-03-01 10:00:00.5Z'", "error_code", "131026")
	a := g.must(http.StatusOK, "GET", "/v1/reports/delivery?group_by=campaign&format=csv", "")
	if a.header.Get("Content-Type") != "text/csv; charset=utf-8" || a.header.Get("Content-Disposition") != `attachment; filename="delivery.csv"` {
		t.Error(a.header)
	}
	records, err := csv.NewReader(strings.NewReader(a.body)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(records[0], ","); got != "campaign,total,accepted,sent,delivered,read,failed,expired,cancelled,unknown,waiting,suppressed,sent_rate,delivered_rate,read_rate" {
		t.Errorf("the header is %s", got)
	}
	seen := map[string]bool{}
	for _, r := range records[1:] {
		seen[r[0]] = true
	}
	want := []string{`'=HYPERLINK("http://x","y")`, `'+1`, `'-2`, `'@sum`, `a,"b"`, `plain`, ` =space`, `'＝wide`, ""}
	for _, w := range want {
		if !seen[w] {
			t.Errorf("no campaign %q: %v", w, seen)
		}
	}
	if len(records) != len(want)+1 {
		t.Errorf("%d records", len(records))
	}
	a = g.must(http.StatusOK, "GET", "/v1/reports/errors?group_by=error_code&format=csv", "")
	if a.body != "error_code,messages,last_failed_at\n131026,1,2026-03-01T10:00:00.5Z\n" {
		t.Error(a.body)
	}
	if a := g.must(http.StatusOK, "GET", "/v1/reports/backlog?format=csv", ""); !strings.HasPrefix(a.body, "lane,waba_id,waiting,oldest,running,later,urgent,high,normal,low,drain_seconds\n"+phone+",100,0,,0,") {
		t.Error(a.body)
	}
}

func TestReportsRefuse(t *testing.T) {
	g := start(t)
	for query, want := range map[string]string{
		"delivery?since=yesterday":                               "/since must be a time such as",
		"delivery?until=2026-13-01":                              "/until must be a time such as",
		"delivery?since=0001-01-01T00:00:00Z":                    "/since must be a time such as",
		"delivery?since=2026-03-02&until=2026-03-01":             "/until must be after since",
		"delivery?timezone=Mars/Olympus":                         "/timezone must be the name of a time zone",
		"delivery?timezone=../../etc/passwd":                     "/timezone must be the name",
		"delivery?group_by=day,planet":                           `/group_by knows no "planet" here, but day, hour, waba_id, phone_number_id, template, category, campaign, or total alone`,
		"delivery?group_by=":                                     `/group_by knows no "" here`,
		"delivery?group_by=day,hour":                             "/group_by takes day or hour, not both",
		"delivery?group_by=day&group_by=day":                     "/group_by names day twice",
		"delivery?group_by=total,day":                            "/group_by total stands alone",
		"delivery?format=xml":                                    "/format must be json or csv",
		"delivery?format=csv&format=json":                        "/format must be given once",
		"delivery?phone=1":                                       "/phone is not a parameter of a report: since, until, timezone, group_by, format",
		"errors?group_by=hour":                                   `/group_by knows no "hour" here`,
		"latency?group_by=template":                              `/group_by knows no "template" here`,
		"backlog?since=2026-03-01":                               "/since is not for the backlog",
		"backlog?group_by=lane":                                  "/group_by is not for the backlog",
		"cost?since=" + strings.Repeat("9", 400):                 "/since must be a time",
		"cost?%ff%00=1":                                          "is not a parameter",
		"delivery?since=2026-03-01&until=2026-03-01T00:00:00.0Z": "/until must be after since",
	} {
		a := g.must(http.StatusBadRequest, "GET", "/v1/reports/"+query, "")
		list, _ := a.json["errors"].([]any)
		text := fmt.Sprint(len(list))
		for _, e := range list {
			m, _ := e.(map[string]any)
			text += fmt.Sprint("\n", m["pointer"], " ", m["detail"])
		}
		if !strings.Contains(text, want) {
			t.Errorf("%s: %s, want %s", query, text, want)
		}
	}
	if a := g.must(http.StatusNotFound, "GET", "/v1/reports/planets", ""); !strings.Contains(a.str("detail"), "delivery, errors, latency, backlog and cost") {
		t.Error(a.body)
	}
	// More rows than an answer may have.
	if _, err := g.pool.Exec(t.Context(), `INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, status, created_at, tags)
		SELECT (left($1::uuid::text, 24) || lpad(to_hex(n), 12, '0'))::uuid, '200', '100', '+1', 'text', 3, 'sent', $2, jsonb_build_object('campaign', n::text) FROM generate_series(1, 10001) n`,
		message.NewID(time.Now()), time.Now()); err != nil {
		t.Fatal(err)
	}
	if a := g.must(http.StatusUnprocessableEntity, "GET", "/v1/reports/delivery?group_by=campaign", ""); a.str("code") != "too_many_rows" {
		t.Error(a.body)
	}
	if got := g.rows("delivery?group_by=day"); len(got) != 1 || got[0]["total"] != 10001.0 {
		t.Error(got)
	}
}
