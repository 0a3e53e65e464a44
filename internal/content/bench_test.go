package content_test

import (
	"encoding/json"
	"strings"
	"testing"

	"wagate/internal/content"
)

const (
	textBody = `{"messaging_product":"whatsapp","from":"200000000000001","to":"+12025550101","type":"text","text":{"body":"Your parcel P-4471 leaves our depot this evening."}}`

	templateBody = `{"messaging_product":"whatsapp","recipient_type":"individual","from":"200000000000001","to":"+12025550101","type":"template","template":{"name":"trip_ready","language":{"code":"en_GB"},"components":[` +
		`{"type":"header","parameters":[{"type":"image","image":{"link":"https://media.example.com/trips/fjord.jpg"}}]},` +
		`{"type":"body","parameters":[{"type":"text","text":"Bergen"},{"type":"currency","currency":{"fallback_value":"$10","code":"USD","amount_1000":10000}},{"type":"text","text":"3 June"}]},` +
		`{"type":"button","sub_type":"url","index":"0","parameters":[{"type":"text","text":"trips/bergen"}]}]}}`
)

var listBody = `{"messaging_product":"whatsapp","recipient_type":"individual","from":"200000000000001","to":"+12025550101","type":"interactive","interactive":{"type":"list",` +
	`"header":{"type":"text","text":"Help"},"body":{"text":"What is your question about?"},"footer":{"text":"A person reads along"},"action":{"button":"Choose topic","sections":[` +
	`{"title":"Orders","rows":[` + strings.Join(rows("a", 5), ",") + `]},{"title":"Account","rows":[` + strings.Join(rows("b", 5), ",") + `]}]}}}`

func rows(prefix string, n int) []string {
	var all []string
	for i := range n {
		all = append(all, `{"id":"`+prefix+string(rune('0'+i))+`","title":"Where is it?","description":"Tracking and arrival"}`)
	}
	return all
}

// The hot path: bytes in, verdict and what is stored out. Decode is what the same bodies cost a general decoder.
func BenchmarkCheck(b *testing.B) {
	for _, c := range []struct{ name, body string }{{"text", textBody}, {"template", templateBody}, {"list", listBody}} {
		body := []byte(c.body)
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, faults, err := content.Check(body, content.Options{Strict: true}); err != nil || len(faults) > 0 {
					b.Fatal(faults, err)
				}
			}
		})
		b.Run(c.name+"/Decode", func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				var v any
				if err := json.Unmarshal(body, &v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Most messages that are accepted cost no more than this, whatever they hold.
func TestAllocations(t *testing.T) {
	for name, c := range map[string]struct {
		body  string
		limit float64
	}{"text": {textBody, 10}, "template": {templateBody, 60}, "list": {listBody, 60}} {
		body := []byte(c.body)
		if got := testing.AllocsPerRun(200, func() {
			if _, faults, err := content.Check(body, content.Options{Strict: true}); err != nil || len(faults) > 0 {
				t.Fatal(faults, err)
			}
		}); got > c.limit {
			t.Errorf("%s: %v allocations, want %v at most", name, got, c.limit)
		}
	}
}
