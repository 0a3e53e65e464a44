package callback

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"

	"wagate/internal/cloudapi"
	"wagate/internal/store"
)

// FuzzBody holds what is posted of whatever Meta's value says: JSON, the same each time, and never with our own callback data.
func FuzzBody(f *testing.F) {
	for _, seed := range []struct{ kind, element string }{
		{store.TellStatus, `{"id":"wamid.1","status":"sent","timestamp":"1","recipient_id":"1","biz_opaque_callback_data":"g1:019a0000-0000-7000-8000-0123456789ab:1"}`},
		{store.TellStatus, `{"biz_opaque_callback_data":"g1:x","biz_opaque_callback_data":"g1:y"}`},
		{store.TellStatus, `{"biz_opaque_callback\u005fdata":"g1:x"}`},
		{store.TellInbound, `{"id":"wamid.in","from":"1","context":{"id":"wamid.1"},"reaction":{"message_id":"wamid.1"}}`},
		{store.TellInbound, `{"id":7,"from":[],"context":"x","reaction":null,"type":{}}`},
		{store.TellAccount, `{"event":7}`},
		{store.TellTemplate, `[]`},
		{"", `null`},
	} {
		f.Add(seed.kind, []byte(seed.element), true)
	}
	id := uuid.MustParse("019a0000-0000-7000-8000-0123456789ab")
	f.Fuzz(func(t *testing.T, kind string, element []byte, told bool) {
		if !json.Valid(element) {
			return // what is no JSON is set aside before
		}
		list := "messages"
		if kind == store.TellStatus {
			list = "statuses"
		}
		d := &store.DueCallback{Seq: 1, EventID: id, Chain: id, Kind: kind, Status: "sent", At: time.Unix(1, 0), WABAID: "100", Field: "messages"}
		d.Value = cloudapi.Part([]byte(`{"metadata":{"phone_number_id":"200"},"contacts":[{"wa_id":"1"}]}`)).Alone(list, element)
		facts := &facts{
			messages: map[uuid.UUID]*store.CallbackMessage{id: {ID: id, ToldWAMID: told}}, given: map[string]store.GivenID{"wamid.1": {ID: id, ToldWAMID: told}},
		}
		for _, format := range []string{FormatWagate, FormatMeta} {
			raw, err := body(format, d, facts)
			if err != nil {
				if format == FormatWagate {
					t.Fatalf("%s: %v", element, err)
				}
				continue // a status that is no object, say
			}
			if !json.Valid(raw) {
				t.Fatalf("%s became %s", element, raw)
			}
			if again, _ := body(format, d, facts); !bytes.Equal(raw, again) {
				t.Fatalf("%s became %s, and then %s", element, raw, again)
			}
			var e struct {
				Entry []struct {
					Changes []struct {
						Value struct{ Statuses []map[string]any }
					}
				}
			}
			if format == FormatMeta && kind == store.TellStatus && json.Unmarshal(raw, &e) == nil {
				for _, s := range e.Entry[0].Changes[0].Value.Statuses {
					if _, ours := s[opaqueMember]; ours {
						t.Fatalf("%s became %s", element, raw)
					}
				}
			}
		}
	})
}
