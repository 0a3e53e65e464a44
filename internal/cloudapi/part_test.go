package cloudapi

import (
	"fmt"
	"strings"
	"testing"
)

func TestPart(t *testing.T) {
	p := Part([]byte(`{"messaging_product":"whatsapp", "errors":[{"code":1}], "metadata":{"phone_number_id":"2"},
		"contacts":[{"wa_id":"11","user_id":"GB.1"},{"wa_id":"12"},{"user_id":"GB.3"},{"wa_id":11},{"profile":{}}], "statuses":[]}`))
	const head = `{"messaging_product":"whatsapp","metadata":{"phone_number_id":"2"}`
	for element, contacts := range map[string]string{
		`{"recipient_id":"11","recipient_user_id":"GB.1"}`: `,"contacts":[{"wa_id":"11","user_id":"GB.1"},{"wa_id":11}]`,
		`{"from":"12"}`:           `,"contacts":[{"wa_id":"12"}]`,
		`{"from_user_id":"GB.3"}`: `,"contacts":[{"user_id":"GB.3"}]`,
		`{"from":"13"}`:           "",
		`{"from":""}`:             "",
		`{}`:                      "",
	} {
		if got, want := string(p.Alone("statuses", []byte(element))), head+contacts+`,"statuses":[`+element+`]}`; got != want {
			t.Errorf("%s:\n got %s\nwant %s", element, got, want)
		}
	}
	if got := string(Part([]byte(`{}`)).Alone("messages", []byte(`{}`))); got != `{"messages":[{}]}` {
		t.Error(got)
	}
}

// The time for each element should not grow with their number.
func BenchmarkPart(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		var contacts, statuses []string
		for i := range n {
			contacts = append(contacts, fmt.Sprintf(`{"wa_id":"4477009%05d","profile":{"name":"A user"}}`, i))
			statuses = append(statuses, fmt.Sprintf(`{"id":"wamid.%d","status":"delivered","timestamp":"1790000000","recipient_id":"4477009%05d"}`, i, i))
		}
		value := []byte(`{"messaging_product":"whatsapp","metadata":{"phone_number_id":"2"},"contacts":[` + strings.Join(contacts, ",") + `],"statuses":[` + strings.Join(statuses, ",") + `]}`)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				p := Part(value)
				for _, s := range statuses {
					p.Alone("statuses", []byte(s))
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/status")
		})
	}
}
