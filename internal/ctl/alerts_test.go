package ctl_test

import (
	"regexp"
	"strings"
	"testing"
)

func TestAlerts(t *testing.T) {
	r := start(t)
	r.want(0, []string{"There are no alerts."}, "alerts")
	_, err := r.pool.Exec(t.Context(), `INSERT INTO account_alerts (id, at, waba_id, phone_number_id, field, event, severity, detail, webhook_id) VALUES
		(gen_random_uuid(), now() - interval '1 hour', '100', '2001', 'security', E'PIN\u009b_CHANGED', 1, NULL, gen_random_uuid()),
		(gen_random_uuid(), now() - interval '3 hours', '100', NULL, 'account_update', 'ACCOUNT_DELETED', 2, '{"b":"2","a":"1"}', gen_random_uuid())`)
	if err != nil {
		t.Fatal(err)
	}
	out := r.want(0, nil, "alerts")
	for _, line := range []string{`(?m)^\S+Z +warning +security +PIN _CHANGED +100 +2001 +-$`, `(?m)^\S+Z +critical +account_update +ACCOUNT_DELETED +100 +- +a=1 b=2$`} {
		if !regexp.MustCompile(line).MatchString(out) {
			t.Errorf("no line %s:\n%s", line, out)
		}
	}
	for _, only := range [][]string{{"--severity", "critical"}, {"--field", "account_update"}} {
		if out := r.want(0, []string{"ACCOUNT_DELETED"}, append([]string{"alerts"}, only...)...); strings.Contains(out, "security") {
			t.Errorf("%v:\n%s", only, out)
		}
	}
	for _, only := range [][]string{{"--phone", "2001"}, {"--since", "2h"}} {
		if out := r.want(0, []string{"security"}, append([]string{"alerts"}, only...)...); strings.Contains(out, "ACCOUNT_DELETED") {
			t.Errorf("%v:\n%s", only, out)
		}
	}
	r.want(0, []string{"There are more"}, "alerts", "--limit", "1")
	r.want(0, []string{`"alerts":[`}, "alerts", "--json", "--waba", "100")
	r.want(1, nil, "alerts", "--severity", "loud")
	r.want(2, nil, "alerts", "--limit", "201")
	r.want(2, nil, "alerts", "--since", "yesterday")
}
