package webhook

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/pgtest"
)

// templateNews is a notification about the template order of WABA 100, at a second of its time.
func templateNews(field, more string, at time.Time) []byte {
	return fmt.Appendf(nil, `{"object":"whatsapp_business_account","entry":[{"id":"100","time":%d,"changes":[{"field":%q,"value":
		{"message_template_id":1315502779341834,"message_template_name":"order","message_template_language":"en_US",%s}}]}]}`, at.Unix(), field, more)
}

// templateState is all that is kept of templates and their pauses, but for our own times.
func templateState(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	return scalar[string](t, pool, `SELECT coalesce((SELECT string_agg(concat_ws(' ', name || '/' || language, meta_id, status, reason, category, next_category, next_category_at, quality,
			'was ' || quality_before, CASE WHEN approved_at IS NOT NULL THEN 'approved' END, CASE WHEN doubted_at IS NOT NULL THEN 'doubted' END), ', ' ORDER BY name, language) FROM templates), '') || ' | ' ||
		coalesce((SELECT string_agg(concat_ws(' ', value, code, until), ', ' ORDER BY value) FROM pauses), '')`)
}

const statusField, qualityField, componentsField, categoryField = "message_template_status_update", "message_template_quality_update", "message_template_components_update", "template_category_update"

func TestWhatIsToldOfATemplateIsKept(t *testing.T) {
	pool := pgtest.New(t)
	exec(t, pool, `INSERT INTO wabas (waba_id) VALUES ('100')`)
	registry := prometheus.NewRegistry()
	r := receiver(t, pool, func(d *Deps) { d.Registerer = registry })
	start := time.Now().Add(-time.Hour).Truncate(time.Second)
	for i, c := range []struct{ field, more, want string }{
		{statusField, `"event":"PENDING","message_template_category":"UTILITY","reason":"NONE"`, "order/en_US 1315502779341834 PENDING UTILITY doubted | "},
		{statusField, `"event":"APPROVED","message_template_category":"UTILITY","reason":"NONE"`, "order/en_US 1315502779341834 APPROVED UTILITY approved doubted | "},
		{qualityField, `"previous_quality_score":"UNKNOWN","new_quality_score":"GREEN"`, "order/en_US 1315502779341834 APPROVED UTILITY GREEN approved doubted | "},
		{qualityField, `"previous_quality_score":"GREEN","new_quality_score":"RED"`, "order/en_US 1315502779341834 APPROVED UTILITY RED was GREEN approved doubted | "},
		{categoryField, `"new_category":"UTILITY","correct_category":"MARKETING"`, "order/en_US 1315502779341834 APPROVED UTILITY MARKETING RED was GREEN approved doubted | "},
		{categoryField, `"previous_category":"UTILITY","new_category":"MARKETING"`, "order/en_US 1315502779341834 APPROVED MARKETING MARKETING RED was GREEN approved doubted | "},
		{statusField, `"event":"PAUSED","other_info":{"title":"RATE_LIMITING_PAUSE"}`, "order/en_US 1315502779341834 PAUSED MARKETING MARKETING RED was GREEN approved doubted | 100:order/en_US 132015"},
		{statusField, `"event":"DISABLED"`, "order/en_US 1315502779341834 DISABLED MARKETING MARKETING RED was GREEN approved doubted | 100:order/en_US 132016"},
		{statusField, `"event":"APPROVED","other_info":{"title":"UNPAUSED"}`, "order/en_US 1315502779341834 APPROVED MARKETING MARKETING RED was GREEN approved doubted | "},
		{statusField, `"event":"REJECTED","reason":"INVALID_FORMAT"`, "order/en_US 1315502779341834 REJECTED INVALID_FORMAT MARKETING MARKETING RED was GREEN approved doubted | 100:order/en_US 132016"},
	} {
		take(t, r, templateNews(c.field, c.more, start.Add(time.Duration(i)*time.Minute)))
		drain(t, r)
		if got := templateState(t, pool); got != c.want {
			t.Errorf("%s %s:\n got %s\nwant %s", c.field, c.more, got, c.want)
		}
	}
	if !scalar[bool](t, pool, `SELECT wanted_at IS NOT NULL AND synced_at IS NULL AND version > 1 FROM template_syncs`) {
		t.Error("nobody is asked to read the template")
	}
	counted := map[string]float64{}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "wagate_webhook_template_news_total" {
			for _, m := range f.GetMetric() {
				counted[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	if counted["status"] != 6 || counted["lower_quality"] != 1 || counted["category"] != 1 || counted["components"] != 3 {
		t.Errorf("counted %v", counted)
	}
}

// However often and in whatever order notices come, the newest word stands: a pause that was over is not set again.
func TestTheNewestWordOfATemplateStands(t *testing.T) {
	start := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	var all [][]byte
	for i, c := range [][2]string{
		{statusField, `"event":"APPROVED","message_template_category":"UTILITY"`}, {statusField, `"event":"PAUSED","other_info":{"title":"FIRST_PAUSE"}`},
		{qualityField, `"previous_quality_score":"GREEN","new_quality_score":"YELLOW"`}, {qualityField, `"previous_quality_score":"YELLOW","new_quality_score":"RED"`},
		{statusField, `"event":"DISABLED"`}, {statusField, `"event":"REINSTATED"`}, {categoryField, `"new_category":"UTILITY","correct_category":"MARKETING","category_update_timestamp":1893456000`},
		{componentsField, `"message_template_element":"Hello"`},
	} {
		all = append(all, templateNews(c[0], c[1], start.Add(time.Duration(i)*time.Second)))
	}
	// Two words of one second.
	all = append(all, templateNews(statusField, `"event":"APPROVED"`, start.Add(20*time.Second)), templateNews(statusField, `"event":"PENDING"`, start.Add(20*time.Second)))
	want := "order/en_US 1315502779341834 APPROVED UTILITY MARKETING 2030-01-01 00:00:00+00 RED was YELLOW approved doubted | "
	reversed := slices.Clone(all)
	slices.Reverse(reversed)
	for name, order := range map[string][][]byte{
		"in order": all, "reversed": reversed, "twice": slices.Concat(all, all), "each twice": slices.Concat(all[:5], all[:5], all[5:], all[5:]), "both ways": slices.Concat(reversed, all, reversed),
	} {
		for _, together := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, together %t", name, together), func(t *testing.T) {
				pool := pgtest.New(t)
				exec(t, pool, `INSERT INTO wabas (waba_id) VALUES ('100')`)
				r := receiver(t, pool)
				for _, body := range order {
					take(t, r, body)
					if !together {
						drain(t, r)
					}
				}
				drain(t, r)
				if got := templateState(t, pool); got != want {
					t.Errorf("\n got %s\nwant %s", got, want)
				}
			})
		}
	}
}

// A word goes over a list that was asked for before it, and over no list that was asked for well after it.
func TestAWordAndAList(t *testing.T) {
	pool := pgtest.New(t)
	exec(t, pool, `INSERT INTO wabas (waba_id) VALUES ('100')`)
	r := receiver(t, pool)
	listed := func(ago string) {
		t.Helper()
		exec(t, pool, `DELETE FROM pauses`)
		exec(t, pool, `INSERT INTO templates AS t (waba_id, name, language, status, status_at, category, category_at, components, components_at)
			SELECT '100', 'order', 'en_US', 'APPROVED', at - interval '10 s', 'UTILITY', at - interval '10 s', '[]', at FROM (SELECT now() - $1::text::interval AS at) AS x
			ON CONFLICT (waba_id, name, language) DO UPDATE SET status = excluded.status, status_at = excluded.status_at, category = excluded.category, category_at = excluded.category_at,
				components = excluded.components, components_at = excluded.components_at, doubted_at = NULL`, ago)
	}
	tell := func(field, more string, at time.Time) string {
		t.Helper()
		take(t, r, templateNews(field, more, at))
		drain(t, r)
		return templateState(t, pool)
	}
	paused := `"event":"PAUSED","message_template_category":"MARKETING"`
	const old, now = "order/en_US 1315502779341834 APPROVED UTILITY approved | ", "order/en_US 1315502779341834 PAUSED MARKETING approved | 100:order/en_US 132015"
	listed("1 minute")
	if got := tell(statusField, paused, time.Now().Add(-2*time.Minute)); got != old {
		t.Errorf("a word from before the list: %s", got)
	}
	if got := tell(componentsField, `"x":1`, time.Now().Add(-2*time.Minute)); got != old {
		t.Errorf("a word about components from before the list: %s", got)
	}
	// A list may be some seconds behind, and clocks differ.
	if got := tell(statusField, paused, time.Now().Add(-65*time.Second)); got != now {
		t.Errorf("a word of the time of the list: %s", got)
	}
	listed("1 minute")
	if got := tell(componentsField, `"x":1`, time.Now().Add(-65*time.Second)); got != "order/en_US 1315502779341834 APPROVED UTILITY approved doubted | " {
		t.Errorf("a word about components of the time of the list: %s", got)
	}
}

// Of a WABA that is not here nothing is kept but what its pauses need.
func TestATemplateOfAStrangeWABA(t *testing.T) {
	pool := pgtest.New(t)
	r := receiver(t, pool)
	take(t, r, templateNews(statusField, `"event":"DISABLED"`, time.Now()), templateNews(qualityField, `"new_quality_score":"RED"`, time.Now()))
	drain(t, r)
	if got := templateState(t, pool); got != " | 100:order/en_US 132016" {
		t.Error(got)
	}
}
