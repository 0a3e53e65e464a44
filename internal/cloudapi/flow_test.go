package cloudapi

import "testing"

func TestFlowID(t *testing.T) {
	for body, want := range map[string]string{
		`{"type":"interactive","interactive":{"type":"flow","action":{"name":"flow","parameters":{"flow_id":"55501","flow_cta":"Book"}}}}`: "55501",
		`{"interactive":{"type":"flow","action":{"parameters":{"flow_id":55502}}}}`:                                                        "55502",
		`{"interactive":{"type":"flow","action":{"parameters":{"flow_name":"booking"}}}}`:                                                  "",
		`{"interactive":{"type":"flow","action":{"parameters":{"flow_id":""}}}}`:                                                           "",
		`{"interactive":{"type":"flow","action":{"parameters":{"flow_id":null}}}}`:                                                         "",
		`{"interactive":{"type":"flow"}}`:                                           "",
		`{"interactive":{"type":"button","action":{"parameters":{"flow_id":"1"}}}}`: "",
		`{"type":"template","template":{"name":"t","components":[{"type":"button","sub_type":"flow","parameters":[{"type":"action"}]}]}}`: "",
		`{"type":"text","text":{"body":"flow_id"}}`: "",
		`[]`: "",
	} {
		if got := FlowID([]byte(body)); got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}
