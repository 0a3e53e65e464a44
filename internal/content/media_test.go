package content

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

const ours, other = "019b0000-0000-7000-8000-0000000000a1", "019B0000-0000-7000-8000-0000000000A2"

func TestMediaOfEveryPlace(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want []MediaRef
	}{
		"image":    {`{"type":"image","image":{"id":"` + ours + `"}}`, []MediaRef{{ours, "image", "/image/id", false}}},
		"video":    {`{"type":"video","video":{"caption":"c","id":"` + ours + `"}}`, []MediaRef{{ours, "video", "/video/id", false}}},
		"audio":    {`{"type":"audio","audio":{"id":"` + ours + `"}}`, []MediaRef{{ours, "audio", "/audio/id", false}}},
		"document": {`{"type":"document","document":{"id":"` + ours + `"}}`, []MediaRef{{ours, "document", "/document/id", false}}},
		"sticker":  {`{"type":"sticker","sticker":{"id":"` + other + `"}}`, []MediaRef{{other, "sticker", "/sticker/id", false}}},
		"escaped":  {`{"image":{"id":"` + strings.Replace(ours, "-", `\u002d`, 1) + `"}}`, []MediaRef{{ours, "image", "/image/id", false}}},
		"header": {
			`{"type":"interactive","interactive":{"type":"button","header":{"type":"document","document":{"id":"` + ours + `"}}}}`,
			[]MediaRef{{ours, "document", "/interactive/header/document/id", false}},
		},
		"cards": {
			`{"interactive":{"action":{"cards":[{"header":{"video":{"id":"1"}}},{"header":{"image":{"id":"` + ours + `"}}}]}}}`,
			[]MediaRef{{ours, "image", "/interactive/action/cards/1/header/image/id", false}},
		},
		"template": {
			`{"template":{"components":[{"type":"body"},{"type":"header","parameters":[{"type":"image","image":{"id":"` + ours + `"}},{"type":"video","video":{"id":"` + other + `"}}]}]}}`,
			[]MediaRef{{ours, "image", "/template/components/1/parameters/0/image/id", false}, {other, "video", "/template/components/1/parameters/1/video/id", false}},
		},
		"template cards": {
			`{"template":{"components":[{"type":"carousel","cards":[{"components":[{"parameters":[{"image":{"id":"` + ours + `"}}]}]}]}]}}`,
			[]MediaRef{{ours, "image", "/template/components/0/cards/0/components/0/parameters/0/image/id", false}},
		},
		"a fallback template": {
			`{"image":{"id":"` + ours + `"},"gateway":{"fallback_template":{"components":[{"type":"header","parameters":[{"type":"image","image":{"id":"` + other + `"}}]}]}}}`,
			[]MediaRef{{ours, "image", "/image/id", false}, {other, "image", "/gateway/fallback_template/components/0/parameters/0/image/id", true}},
		},
		"cards of a fallback template": {
			`{"gateway":{"fallback_template":{"components":[{"cards":[{"components":[{"parameters":[{"video":{"id":"` + ours + `"}}]}]}]}]}}}`,
			[]MediaRef{{ours, "video", "/gateway/fallback_template/components/0/cards/0/components/0/parameters/0/video/id", true}},
		},
		"Meta's own id":     {`{"image":{"id":"1234567890123456"}}`, nil},
		"almost one":        {`{"image":{"id":"019b0000-0000-7000-8000-0000000000ag"}}`, nil},
		"other objects":     {`{"id":"` + ours + `","context":{"id":"` + ours + `"},"images":{"id":"` + ours + `"}}`, nil},
		"data of a flow":    {`{"interactive":{"action":{"parameters":{"flow_action_payload":{"data":{"image":{"id":"` + ours + `"}}}}}}}`, nil},
		"deeper in a media": {`{"image":{"image":{"id":"` + ours + `"}}}`, nil},
		"an array":          {`[{"image":{"id":"` + ours + `"}}]`, nil},
		"a number":          {`{"image":{"id":5}}`, nil},
		"no JSON":           {`{"image":{"id":"` + ours + `"}`, nil},
	} {
		if got := Media([]byte(c.body)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestReplaceMediaLeavesTheRest(t *testing.T) {
	body := ` {"to" : "1", "image":{"id" : "` + ours + `","caption":"` + ours + `"},"template":{"components":[{"parameters":[{"image":{"id":"` + other + `"}}]}]}} `
	got := string(ReplaceMedia([]byte(body), map[string]string{ours: "77", "nobody": "1"}))
	if want := strings.Replace(body, `"id" : "`+ours+`"`, `"id" : "77"`, 1); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	got = string(ReplaceMedia([]byte(body), map[string]string{ours: "77", other: `8"8`}))
	if !json.Valid([]byte(got)) || !strings.Contains(got, `"id":"8\"8"`) {
		t.Errorf("%s", got)
	}
	if got := ReplaceMedia([]byte(`{"a`), map[string]string{ours: "77"}); string(got) != `{"a` {
		t.Errorf("%s", got)
	}
}

// Check tells of them also where the message has faults, so that all are told at once.
func TestCheckGivesMedia(t *testing.T) {
	m, faults, err := Check([]byte(`{"to":"+16505551234","type":"image","image":{"id":"`+ours+`","caption":5}}`), Options{Strict: true})
	if err != nil || len(faults) != 1 || len(m.Media) != 1 || m.Media[0] != (MediaRef{ours, "image", "/image/id", false}) {
		t.Errorf("%v, %v, %v", m.Media, faults, err)
	}
}

func FuzzReplaceMedia(f *testing.F) {
	f.Add([]byte(`{"image":{"id":"` + ours + `"}}`))
	f.Add([]byte(`{"template":{"components":[{"parameters":[{"image":{"id":"` + other + `"}}]}]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		refs := Media(body)
		with := map[string]string{}
		for _, r := range refs {
			with[r.ID] = "12345"
		}
		out := ReplaceMedia(body, with)
		if left := Media(out); len(left) != 0 {
			t.Errorf("%d of ours are left", len(left))
		}
		if json.Valid(body) && !json.Valid(out) {
			t.Error("it is JSON no more")
		}
		if len(refs) == 0 && string(out) != string(body) {
			t.Error("it changed without a media of ours")
		}
	})
}
