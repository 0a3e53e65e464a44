package ctl_test

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"wagate/internal/httpapi"
	"wagate/internal/template"
)

// metaList is Meta's list of templates.
type metaList struct{ body string }

func (m *metaList) Get(context.Context, string, url.Values, string) ([]byte, error) {
	return []byte(m.body), nil
}

func TestTemplates(t *testing.T) {
	meta := &metaList{`{"data":[
		{"name":"hello","language":"en_US","status":"APPROVED","category":"UTILITY","quality_score":{"score":"GREEN"}},
		{"name":"sale","language":"de","status":"REJECTED","category":"MARKETING","rejected_reason":"INVALID_FORMAT"}]}`}
	r := startWith(t, func(d *httpapi.Deps) {
		d.Templates = template.NewSyncer(template.SyncConfig{Store: d.Store, Graph: meta, Token: func(context.Context, string) (string, error) { return "token", nil }})
	})
	r.want(0, []string{"WABA 100: never read whole; messages pass unchecked."}, "templates")
	r.want(0, []string{"hello  en_US     APPROVED", "UTILITY", "GREEN", "sale   de        REJECTED", "INVALID_FORMAT", "WABA 100: read 0s ago; messages are checked against it."}, "templates", "refresh", "100")
	meta.body = `{"data":[{"name":"hello","language":"en_US","status":"APPROVED","category":"UTILITY","quality_score":{"score":"RED"}}]}`
	if _, err := r.pool.Exec(t.Context(), `UPDATE templates SET status_at = now() - interval '1 hour', quality_at = now() - interval '1 hour'`); err != nil {
		t.Fatal(err)
	}
	r.want(0, []string{"RED (was GREEN)", "GONE"}, "templates", "refresh")
	if out := r.want(0, []string{"sale"}, "templates", "--status", "gone"); strings.Contains(out, "hello") {
		t.Errorf("a list by status: %s", out)
	}
	r.want(0, []string{"There are more: --cursor "}, "templates", "--limit", "1")
	r.want(0, []string{`"next_cursor":null`}, "templates", "--waba", "100", "--name", "hello", "--language", "en_US", "--category", "UTILITY", "--json")
	r.want(1, []string{"waba_id"}, "templates", "--waba", "no id!")
	r.want(2, []string{"refresh is all there is"}, "templates", "delete")
}
