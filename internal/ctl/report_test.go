package ctl_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"wagate/internal/message"
)

// sentOn puts messages in that were accepted on a day, at noon in UTC.
func (r *rig) sentOn(daysAgo, n int, status, template string) {
	r.t.Helper()
	at := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -daysAgo).Add(12 * time.Hour)
	for i := range n {
		created := at.Add(time.Duration(i) * time.Second)
		_, err := r.pool.Exec(r.t.Context(), `INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, status, template_name, created_at, accepted_at, error_code, error_title, failed_at,
			pricing_billable, pricing_category) VALUES ($1, $2, '100', '+1', 'template', 3, $3, $4, $5, $5::timestamptz + interval '2 seconds',
			CASE WHEN $3 = 'failed' THEN 131026 END, CASE WHEN $3 = 'failed' THEN E'Message\x1b[31m undeliverable' END, CASE WHEN $3 = 'failed' THEN $5::timestamptz END, $3 = 'read', 'utility')`,
			message.NewID(created), phone, status, template, created)
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

func day(ago int) string { return time.Now().UTC().AddDate(0, 0, -ago).Format(time.DateOnly) }

func TestReportDrawsATableAndAChart(t *testing.T) {
	r := start(t)
	r.env["COLUMNS"], r.env["LANG"] = "60", "C"
	r.sentOn(4, 8, "read", "shipped")
	r.sentOn(4, 2, "delivered", "shipped")
	r.sentOn(2, 4, "failed", "otp")
	r.sentOn(2, 1, "delivered", "shipped")

	out := r.want(0, []string{"Messages accepted since " + day(7) + "T00:00:00Z; days and hours of UTC\n"}, "report", "delivery")
	for _, line := range []string{
		`(?m)^DAY +TOTAL +ACCEPTED +SENT +DELIVERED +READ +FAILED +EXPIRED +CANCELLED +UNKNOWN +WAITING +SUPPRESSED +SENT_RATE +DELIVERED_RATE +READ_RATE$`,
		`(?m)^` + day(4) + ` +10 +10 +10 +10 +8 +0 +0 +0 +0 +0 +0 +100\.0% +100\.0% +80\.0%$`,
		`(?m)^` + day(2) + ` +5 +5 +1 +1 +0 +4 +0 +0 +0 +0 +0 +20\.0% +20\.0% +0\.0%$`,
		`(?m)^messages:  # read  = delivered, not read  - taken by Meta, not delivered  \. not taken$`,
		// 60 columns, less the label, the number and a space each: 46. Of these eight tenths are read.
		`(?m)^` + day(4) + ` #{37}={9} +10$`, `(?m)^` + day(3) + ` +0$`, `(?m)^` + day(2) + ` =====-{18} +5$`,
	} {
		if !regexp.MustCompile(line).MatchString(out) {
			t.Errorf("no line %s:\n%s", line, out)
		}
	}
	for _, line := range strings.Split(out[strings.Index(out, "messages:")+1:], "\n")[1:] {
		if line != "" && utf8.RuneCountInString(line) != 60 {
			t.Errorf("%d columns: %q", utf8.RuneCountInString(line), line)
		}
	}
	r.env["LC_ALL"] = "de_DE.UTF-8"
	if out := r.want(0, nil, "report", "delivery", "--width", "40"); !strings.Contains(out, day(4)+" "+strings.Repeat("█", 21)+strings.Repeat("▓", 5)+" 10\n") {
		t.Errorf("in blocks:\n%s", out)
	}
	if out := r.want(0, nil, "report", "delivery", "--width", "0"); strings.Contains(out, "messages:") {
		t.Errorf("with a chart:\n%s", out)
	}
	r.want(0, []string{"otp ", "shipped", "█"}, "report", "delivery", "--group-by", "template")
	r.want(0, []string{day(4) + "  shipped", day(2) + "  otp", day(3) + " "}, "report", "delivery", "--group-by", "day,template")
	r.want(0, []string{"\nall ", "15\n"}, "report", "delivery", "--group-by", "total", "--since", "120h")
	r.want(0, []string{"Nothing to report."}, "report", "delivery", "--until", day(5))
	r.want(0, []string{"days and hours of Asia/Kolkata", day(4)}, "report", "delivery", "--timezone", "Asia/Kolkata", "--since", day(4), "--until", day(3))

	out = r.want(0, []string{day(2) + "  131026", "failed messages:  █ failed"}, "report", "errors")
	if strings.ContainsRune(out, '\x1b') {
		t.Error("what a terminal obeys is printed as it is")
	}
	r.want(0, []string{"utility", "billable", day(4)}, "report", "cost")
	r.want(0, []string{"QUEUE_P50", "seconds until Meta took a message:  █ half of all", day(4) + " █"}, "report", "latency")
	r.want(0, []string{"LANE", phone, "messages that wait:"}, "report", "backlog")

	if out := r.want(0, nil, "report", "delivery", "--csv"); !strings.HasPrefix(out, "day,total,accepted,") || strings.Count(out, "\n") != 3 {
		t.Errorf("as CSV:\n%s", out)
	}
	var doc struct{ Rows []map[string]any }
	if err := json.Unmarshal([]byte(r.want(0, nil, "report", "delivery", "--json")), &doc); err != nil || len(doc.Rows) != 2 {
		t.Errorf("as JSON: %+v, %v", doc, err)
	}
	r.want(1, []string{"400", `/group_by knows no "planet" here`}, "report", "delivery", "--group-by", "planet")
	r.want(1, []string{"400", "/timezone must be"}, "report", "delivery", "--timezone", "Mars")
	for _, args := range [][]string{{}, {"planets"}, {"delivery", "errors"}, {"delivery", "--json", "--csv"}, {"backlog", "--since", "1h"}, {"delivery", "--since", "yesterday"}} {
		r.want(2, []string{"See gatewayctl report --help."}, append([]string{"report"}, args...)...)
	}
}

// Long labels are cut, many bars are counted, and a small number is seen beside a great one.
func TestReportChartsStayInTheirWidth(t *testing.T) {
	r := start(t)
	r.env["LANG"] = "C.UTF-8"
	r.sentOn(1, 1, "sent", strings.Repeat("long_", 20))
	if _, err := r.pool.Exec(t.Context(), `INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, status, template_name, created_at)
		SELECT (left($1::uuid::text, 24) || lpad(to_hex(n), 12, '0'))::uuid, '200', '100', '+1', 'template', 3, 'read', CASE WHEN n < 900 THEN 'many' ELSE 't' || n END, $2 FROM generate_series(1, 1020) n`,
		message.NewID(time.Now()), time.Now()); err != nil {
		t.Fatal(err)
	}
	out := r.want(0, []string{"\nlong_long_long_long_long_l..", fmt.Sprintf("and %d more", 123-100)}, "report", "delivery", "--group-by", "template", "--width", "70")
	chart := out[strings.Index(out, "\nmessages:")+1:]
	bars := strings.Split(strings.TrimSpace(chart), "\n")[1:]
	for _, line := range bars[:len(bars)-1] {
		if utf8.RuneCountInString(line) > 70 {
			t.Errorf("%d columns: %q", utf8.RuneCountInString(line), line)
		}
		if !strings.ContainsAny(line, "█▓▒░") {
			t.Errorf("nothing is drawn: %q", line)
		}
	}
}
