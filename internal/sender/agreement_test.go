package sender

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"wagate/internal/cloudapi"
	"wagate/internal/policy"
)

// worthAnother are the codes that refuse and are worth another try all the same: media behind a link, a template that is
// new, a day later.
var worthAnother = map[int]bool{131014: true, 131053: true, 134101: true, 131049: true, 138009: true}

// fitsPolicy says whether the kind of a try that was answered by an error goes with what the policy makes of its message.
func fitsPolicy(out Outcome, code, subcode int) bool {
	re := policy.React(policy.Input{Code: code, Subcode: subcode, HTTPStatus: out.HTTPStatus, ByLink: true})
	switch out.Kind {
	case Throttled:
		return re.Message == policy.Again && re.Free && (re.Pause != nil || re.Wait > 0)
	case Transient:
		return re.Message == policy.Again && !re.Free
	case Refused:
		if worthAnother[code] {
			return re.Message == policy.Again && !re.Free
		}
		return re.Message == policy.Fail
	case Unknown:
		return re.Message == policy.Unknown
	}
	return false
}

// What the sender calls a try's end and what the policy makes of the message must fit together, for every code and status.
func TestKindsAgreeWithThePolicy(t *testing.T) {
	met := map[int]bool{}
	check := func(code, subcode, status int) {
		t.Helper()
		body := fmt.Appendf(nil, `{"error":{"message":"m","code":%d,"error_subcode":%d}}`, code, subcode)
		out := classify(status, http.Header{}, body, "7001", time.Time{})
		if out.Kind == Refused && worthAnother[code] {
			met[code] = true
		}
		if !fitsPolicy(out, code, subcode) {
			re := policy.React(policy.Input{Code: code, Subcode: subcode, HTTPStatus: status, ByLink: true})
			t.Errorf("code %d/%d with %d: %s, and the policy says %s (free %v, pause %+v, wait %v)", code, subcode, status, out.Kind, re.Message, re.Free, re.Pause, re.Wait)
		}
	}
	statuses := []int{200, 400, 401, 403, 404, 429, 500, 503}
	known := 0
	for code := range 2_600_000 {
		if _, ok := cloudapi.Lookup(code, 0); !ok {
			continue
		}
		known++
		for _, status := range statuses {
			check(code, 0, status)
		}
	}
	if known < 230 {
		t.Errorf("only %d codes are known", known)
	}
	for _, status := range statuses {
		check(100, 33, status)
		check(190, 463, status)
		check(4, 2390008, status)
		check(987654, 0, status) // which nobody knows
		check(987654, 1, status)
	}
	if len(met) != len(worthAnother) {
		t.Errorf("met %v of %v", met, worthAnother)
	}
}
