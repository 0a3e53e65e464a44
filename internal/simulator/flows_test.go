package simulator

import (
	"fmt"
	"testing"
)

func TestFlows(t *testing.T) {
	s := New(Config{})
	s.SetPhone("1", PhoneConfig{WABAID: "10"})
	create := func(body string) (reply, map[string]any) { return ask(t, s, post, "/v23.0/10/flows", body, nil) }
	_, out := create(`{"name":"a","categories":["OTHER"],"flow_json":"{\"version\":\"7.1\"}","publish":true}`)
	id := fmt.Sprint(out["id"])
	if at(out, "validation_errors.0.error_type") != "FLOW_JSON_ERROR" {
		t.Errorf("created %v", out)
	}
	if rep, _ := create(`{"name":"a","categories":["OTHER"]}`); rep.status != 400 || rep.body.Error.Subcode != 4016019 {
		t.Errorf("a second one: %s", rep.raw)
	}
	code := func(method, path, body string) int {
		rep, _ := ask(t, s, method, "/v23.0/"+path, body, nil)
		return rep.code()
	}
	asset := func(file string) (reply, map[string]any) {
		body, header := form(t, map[string]string{"name": "flow.json", "asset_type": "FLOW_JSON"}, "flow.json", "application/json", []byte(file))
		return ask(t, s, post, "/v23.0/"+id+"/assets", body, header)
	}
	if got := [...]int{code(post, id+"/publish", ""), code(post, id+"/deprecate", "")}; got != [...]int{139002, 139003} {
		t.Errorf("a draft with errors: %v", got)
	}
	if _, out := asset(`{`); at(out, "success") != true || at(out, "validation_errors.0.error") != "INVALID_FLOW_JSON" {
		t.Errorf("broken JSON: %v", out)
	}
	const good = `{"version":"7.1","data_api_version":"3.0","screens":[{}]}`
	if _, out := asset(good); at(out, "success") != true || at(out, "validation_errors.0") != nil {
		t.Errorf("good JSON: %v", out)
	}
	assets := okay(t, s, read, "/v23.0/"+id+"/assets", "")
	if rep := do(t.Context(), t, s, read, local(t, at(assets, "data.0.download_url")), "", nil); rep.raw != good {
		t.Errorf("download: %s", rep.raw)
	}
	if got := [...]int{code(post, id+"/publish", ""), code(post, id, `{"name":"b"}`), code(del, id, ""), code(post, id+"/publish", ""), code(post, id+"/deprecate", "")}; got != [...]int{0, 139001, 139004, 139002, 0} {
		t.Errorf("published: %v", got)
	}
	if rep, _ := asset(good); rep.code() != 139001 {
		t.Errorf("an asset of a published flow: %s", rep.raw)
	}
	_, clone := create(`{"name":"b","clone_flow_id":"` + id + `","publish":"true"}`)
	if got := okay(t, s, read, fmt.Sprint("/v23.0/", clone["id"], "?fields=status,categories,json_version,data_api_version"), ""); fmt.Sprint(got["status"], got["categories"], got["json_version"], got["data_api_version"]) != "PUBLISHED[OTHER]7.13.0" {
		t.Errorf("clone %v", got)
	}
	body, header := form(t, map[string]string{"name": "other.json", "asset_type": "FLOW_JSON"}, "flow.json", "application/json", []byte(good))
	if rep, _ := ask(t, s, post, "/v23.0/"+id+"/assets", body, header); rep.code() != 100 {
		t.Errorf("another name: %s", rep.raw)
	}
	if s.managed.flowBytes != 2*len(good) {
		t.Errorf("%d bytes of flows", s.managed.flowBytes)
	}
}
