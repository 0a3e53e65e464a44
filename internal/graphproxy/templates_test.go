package graphproxy

import (
	"net/http"
	"testing"

	"wagate/internal/store"
)

// A call that may change templates makes what is known of them stale, before and after it, also where it fails; no other does.
func TestWritingTemplatesMakesThemStale(t *testing.T) {
	r := newRig(t)
	r.who.PhoneNumbers = nil
	if err := r.store.SeeGraphIDs(t.Context(), []store.GraphID{{ID: "7001", WABAID: other, Kind: "template"}, {ID: "7002", WABAID: waba, Kind: "flow"}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, path, stale string }{
		{http.MethodGet, "/v23.0/" + waba + "/message_templates", ""}, {http.MethodGet, "/v23.0/7001", ""},
		{http.MethodPost, "/v23.0/" + waba + "/message_templates", waba}, {http.MethodDelete, "/v23.0/" + waba + "/message_templates?name=a", waba},
		{http.MethodPost, "/v23.0/" + waba + "/upsert_message_templates", waba}, {http.MethodPost, "/v23.0/" + waba + "/migrate_message_templates", waba},
		{http.MethodPost, "/v23.0/7001", other}, {http.MethodPost, "/v23.0/7001/unpause", other}, {http.MethodPost, "/v23.0/7002", ""},
		{http.MethodPost, "/v23.0/" + phone + "/whatsapp_business_profile", ""},
	} {
		for _, status := range []int{http.StatusOK, http.StatusInternalServerError} {
			r.says(status, `{"success":true}`)
			if _, err := r.pool.Exec(t.Context(), `DELETE FROM template_syncs`); err != nil {
				t.Fatal(err)
			}
			r.do(c.method, c.path, "")
			var stale string
			var twice bool
			err := r.pool.QueryRow(t.Context(), `SELECT coalesce(max(waba_id), ''), coalesce(bool_and(stale_at > wanted_at), true) FROM template_syncs WHERE stale_at IS NOT NULL`).Scan(&stale, &twice)
			if err != nil || stale != c.stale || !twice {
				t.Errorf("%s %s answered with %d: stale %q, twice %t, %v; want %q", c.method, c.path, status, stale, twice, err, c.stale)
			}
		}
	}
}
