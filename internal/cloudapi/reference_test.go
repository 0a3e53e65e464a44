package cloudapi

import (
	"strconv"
	"strings"
	"testing"
)

// metaCodes are the codes of Meta's pages on errors, a code a line: code[/subcode], scope, action. It is a second copy of
// what codes.csv says of Meta's facts, so that a row that is lost or changed by mistake is seen.
const metaCodes = `
0 token fail_config
1 platform unknown_outcome
2 platform unknown_outcome
3 token fail_config
4 app retry_after_window
4/2390008 app retry_after_window
10 token fail_config
17 token retry_after_window
32 token retry_after_window
33 phone fail_config
80007 waba retry_after_window
80008 waba retry_after_window
100 message fail_permanent
100/33 phone fail_config
102 token fail_config
104 token fail_config
190 token fail_config
190/458 token fail_config
190/459 token fail_config
190/460 token fail_config
190/463 token fail_config
190/464 token fail_config
190/467 token fail_config
200 token fail_config
200-299 token fail_config
341 app retry_after_window
368 waba pause_waba
613 app retry_after_window
1026 recipient fail_permanent
130403 recipient fail_permanent
130429 phone retry_backoff
130472 recipient fail_permanent
130497 recipient fail_permanent
131000 message unknown_outcome
131005 token fail_config
131008 message fail_permanent
131009 message fail_permanent
131014 message refresh_media
131016 platform unknown_outcome
131020 message fail_permanent
131021 message fail_permanent
131026 recipient fail_permanent
131030 phone fail_config
131031 waba pause_waba
131037 phone pause_phone
131041 message fail_permanent
131042 waba pause_waba
131044 waba pause_waba
131045 phone pause_phone
131047 recipient fail_permanent
131048 phone pause_phone
131049 recipient fail_permanent
131050 recipient fail_permanent
131051 message fail_permanent
131052 message fail_permanent
131053 message refresh_media
131055 message fail_permanent
131056 pair pause_pair
131057 phone retry_backoff
131059 platform fail_permanent
131062 message fail_permanent
131063 waba fail_config
131064 waba pause_waba
131201 message fail_permanent
131202 message fail_permanent
131204 message fail_permanent
131207 message fail_permanent
131208 phone retry_after_window
131209 message fail_permanent
131210 message fail_permanent
131211 phone fail_permanent
131212 message fail_permanent
131213 message fail_permanent
131214 phone fail_permanent
131215 phone fail_permanent
132000 message fail_permanent
132001 template fail_permanent
132005 message fail_permanent
132007 message fail_permanent
132008 message fail_permanent
132012 message fail_permanent
132015 template fail_permanent
132016 template fail_permanent
132018 message fail_permanent
132068 flow fail_permanent
132069 flow retry_after_window
133000 phone fail_config
133004 platform retry_backoff
133005 phone fail_config
133006 phone fail_config
133008 phone retry_after_window
133009 phone retry_after_window
133010 phone pause_phone
133015 phone retry_after_window
133016 phone retry_after_window
134011 waba fail_config
134100 message fail_permanent
134101 message retry_after_window
134102 waba fail_config
135000 message fail_permanent
137000 recipient fail_permanent
138000 phone fail_permanent
138001 recipient fail_permanent
138002 phone retry_after_window
138003 phone fail_permanent
138004 phone fail_permanent
138005 phone retry_after_window
138006 recipient fail_permanent
138007 phone fail_permanent
138009 recipient retry_after_window
138012 recipient retry_after_window
138013 phone retry_after_window
138018 phone fail_permanent
139000 waba fail_permanent
139001 waba fail_permanent
139002 waba fail_permanent
139003 waba fail_permanent
139004 waba fail_permanent
139100 recipient fail_permanent
139101 phone fail_permanent
139102 phone retry_backoff
139103 phone retry_backoff
147001 phone fail_permanent
147002 phone fail_permanent
147003 phone fail_permanent
147004 phone fail_permanent
147005 phone fail_permanent
200005 waba fail_config
200006 waba fail_config
200007 waba fail_config
100/2388019 waba fail_permanent
100/2388039 message fail_permanent
100/2388040 message fail_permanent
100/2388047 message fail_permanent
100/2388072 message fail_permanent
100/2388073 message fail_permanent
100/2388293 message fail_permanent
100/2388299 message fail_permanent
2388001 phone fail_config
2388012 phone fail_config
2388091 phone fail_config
2388093 phone fail_config
2388103 phone fail_config
2494100 phone retry_backoff
2593107 phone fail_permanent
2593108 phone fail_permanent
1752041 waba fail_permanent
`

func TestCodeTableIsWhole(t *testing.T) {
	ours := map[string]string{}
	for _, r := range codeRows {
		key := strconv.Itoa(r.first)
		if r.last > r.first {
			key += "-" + strconv.Itoa(r.last)
		}
		if r.subcode != 0 {
			key += "/" + strconv.Itoa(r.subcode)
		}
		ours[key] = string(r.rule.Scope) + " " + string(r.rule.Action)
	}
	compared := 0
	for line := range strings.Lines(strings.TrimSpace(metaCodes)) {
		key, want, _ := strings.Cut(strings.TrimSpace(line), " ")
		if got := ours[key]; got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
		compared++
	}
	if compared != len(codeRows) || compared < 147 {
		t.Errorf("%d codes were compared, the table has %d", compared, len(codeRows))
	}
}
