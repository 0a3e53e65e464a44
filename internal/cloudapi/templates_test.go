package cloudapi

import (
	"testing"
	"time"
)

func TestTemplateUpdate(t *testing.T) {
	const of = `"message_template_id":1315502779341834,"message_template_name":"spring_sale","message_template_language":"en_US"`
	base := TemplateNotice{ID: "1315502779341834", Name: "spring_sale", Language: "en_US"}
	with := func(f func(*TemplateNotice)) TemplateNotice { n := base; f(&n); return n }
	for _, c := range []struct {
		field, value string
		want         TemplateNotice
	}{
		{"message_template_status_update", `{` + of + `,"event":"PAUSED","message_template_category":"MARKETING","reason":"NONE","other_info":{"title":"FIRST_PAUSE","description":"d"}}`,
			with(func(n *TemplateNotice) {
				n.Event, n.Category, n.Reason, n.Title = "PAUSED", "MARKETING", "NONE", "FIRST_PAUSE"
			})},
		{"message_template_status_update", `{` + of + `,"event":"FLAGGED","reason":null,"disable_info":{"disable_date":"x"}}`, with(func(n *TemplateNotice) { n.Event = "FLAGGED" })},
		{"message_template_quality_update", `{` + of + `,"previous_quality_score":"GREEN","new_quality_score":"RED"}`,
			with(func(n *TemplateNotice) { n.Quality, n.QualityBefore = "RED", "GREEN" })},
		{"message_template_components_update", `{` + of + `,"message_template_element":"Hi {{1}}!"}`, with(func(n *TemplateNotice) { n.Components = true })},
		{"template_category_update", `{` + of + `,"previous_category":"UTILITY","new_category":"MARKETING"}`, with(func(n *TemplateNotice) { n.Category = "MARKETING" })},
		{"template_category_update", `{` + of + `,"new_category":"UTILITY","correct_category":"MARKETING","category_update_timestamp":1760000001}`,
			with(func(n *TemplateNotice) {
				n.Category, n.NextCategory, n.NextCategoryAt = "UTILITY", "MARKETING", time.Unix(1760000001, 0).UTC()
			})},
	} {
		if got, ok := TemplateUpdate(change(c.field, c.value)); !ok || got != c.want {
			t.Errorf("%s:\n got %+v, %t\nwant %+v", c.field, got, ok, c.want)
		}
	}
	for _, c := range []Change{
		change("messages", `{`+of+`,"event":"PAUSED"}`), change("message_template_status_update", `{"event":"PAUSED"}`),
		change("message_template_status_update", `{`+of+`}`), change("message_template_status_update", ""),
		change("message_template_quality_update", `{`+of+`,"event":"PAUSED"}`), change("template_category_update", `{`+of+`,"previous_category":"UTILITY"}`),
	} {
		if got, ok := TemplateUpdate(c); ok {
			t.Errorf("%s %s: %+v", c.Field, c.Value, got)
		}
	}
}
