package cloudapi

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestEstimatedRegain(t *testing.T) {
	for _, c := range []struct {
		name, header string
		want         time.Duration
	}{
		{"absent", "", 0},
		{"minutes", `{"7001":[{"type":"whatsapp","estimated_time_to_regain_access":12}]}`, 12 * time.Minute},
		{"sending before management", `{"7001":[{"type":"whatsapp_business_management","estimated_time_to_regain_access":55},{"type":"whatsapp","estimated_time_to_regain_access":3}]}`, 3 * time.Minute},
		{"management alone", `{"7001":[{"type":"whatsapp_business_management","estimated_time_to_regain_access":5}]}`, 5 * time.Minute},
		{"the longest", `{"7001":[{"type":"whatsapp","estimated_time_to_regain_access":3},{"type":"whatsapp","estimated_time_to_regain_access":9}]}`, 9 * time.Minute},
		{"as text, with a fraction", `{"7001":[{"type":"whatsapp","estimated_time_to_regain_access":"1.5"}]}`, 90 * time.Second},
		{"another id only", `{"900":[{"type":"whatsapp","estimated_time_to_regain_access":2}]}`, 2 * time.Minute},
		{"own id before another", `{"900":[{"type":"whatsapp","estimated_time_to_regain_access":2}],"7001":[{"type":"whatsapp","estimated_time_to_regain_access":0}]}`, 0},
		{"bounded", `{"7001":[{"type":"whatsapp","estimated_time_to_regain_access":1e300}]}`, maxWait},
		{"negative", `{"7001":[{"type":"whatsapp","estimated_time_to_regain_access":-4}]}`, 0},
		{"no JSON", `{"7001":[`, 0},
		{"no array", `{"7001":{"estimated_time_to_regain_access":4}}`, 0},
		{"too long", `{"7001":[{"type":"whatsapp","estimated_time_to_regain_access":4,"x":"` + strings.Repeat("x", maxUsageHeader) + `"}]}`, 0},
	} {
		h := http.Header{}
		if c.header != "" {
			h.Set("x-business-use-case-usage", c.header)
		}
		if got := EstimatedRegain(h, "7001"); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestManagementRegain(t *testing.T) {
	for header, want := range map[string]time.Duration{
		`{"7001":[{"type":"whatsapp","estimated_time_to_regain_access":55},{"type":"whatsapp_business_management","estimated_time_to_regain_access":3}]}`: 3 * time.Minute,
		`{"7001":[{"type":"whatsapp","estimated_time_to_regain_access":5}]}`:                                                                              5 * time.Minute,
		`{"900":[{"type":"whatsapp_business_management","estimated_time_to_regain_access":2}]}`:                                                           2 * time.Minute,
		`no JSON`: 0,
	} {
		if got := ManagementRegain(http.Header{"X-Business-Use-Case-Usage": {header}}, "7001"); got != want {
			t.Errorf("%s: %v, want %v", header, got, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"":                              0,
		"30":                            30 * time.Second,
		" 5 ":                           5 * time.Second,
		"-3":                            0,
		"0":                             0,
		"soon":                          0,
		"NaN":                           0,
		"Inf":                           maxWait,
		"99999999999":                   maxWait,
		"Sun, 01 Mar 2026 12:02:00 GMT": 2 * time.Minute,
		"Sun, 01 Mar 2026 11:00:00 GMT": 0,
		"Sun, 01 Mar 2099 11:00:00 GMT": maxWait,
	} {
		h := http.Header{}
		if header != "" {
			h.Set("Retry-After", header)
		}
		if got := RetryAfter(h, now); got != want {
			t.Errorf("Retry-After %q gives %v, want %v", header, got, want)
		}
	}
}

func TestUsage(t *testing.T) {
	const business = `{"7001":[{"type":"whatsapp_business_management","call_count":99,"total_cputime":99,"total_time":99},{"type":"whatsapp","call_count":12,"total_cputime":"34.5","total_time":7}],` +
		`"900":[{"type":"whatsapp","call_count":88}]}`
	for _, c := range []struct {
		name, app, business, id string
		wantApp, wantWABA       float64
	}{
		{"absent", "", "", "7001", 0, 0},
		{"app", `{"call_count":28,"total_cputime":25,"total_time":31}`, "", "7001", 31, 0},
		{"WABA, sending alone", "", business, "7001", 0, 34.5},
		{"both", `{"call_count":100}`, business, "7001", 100, 34.5},
		{"under the business id", "", business, "7002", 0, 88},
		{"management calls alone", "", `{"7001":[{"type":"whatsapp_business_management","call_count":99}]}`, "7001", 0, 0},
		{"several of one type", "", `{"7001":[{"type":"whatsapp","call_count":1},{"type":"whatsapp","total_time":3}]}`, "7001", 0, 3},
		{"bounded", `{"call_count":1e300}`, `{"7001":[{"type":"whatsapp","call_count":1e300}]}`, "7001", 1000, 1000},
		{"negative, words, infinite", `{"call_count":-1,"total_cputime":"many","total_time":"NaN"}`, `{"7001":[{"type":"whatsapp","call_count":null}]}`, "7001", 0, 0},
		{"no JSON", `{"call_count":5`, `{"7001":[{"type":"whatsapp","call_count":5}`, "7001", 0, 0},
		{"other shapes", `[5]`, `{"7001":{"type":"whatsapp","call_count":5}}`, "7001", 0, 0},
		{"too long", `{"call_count":5,"x":"` + strings.Repeat("x", maxUsageHeader) + `"}`, "", "7001", 0, 0},
	} {
		h := http.Header{}
		if c.app != "" {
			h.Set("x-app-usage", c.app)
		}
		if c.business != "" {
			h.Set("x-business-use-case-usage", c.business)
		}
		if app, waba := Usage(h, c.id); app != c.wantApp || waba != c.wantWABA {
			t.Errorf("%s: %v, %v, want %v, %v", c.name, app, waba, c.wantApp, c.wantWABA)
		}
	}
}
