package content_test

import (
	"slices"
	"testing"

	"wagate/internal/content"
)

func TestIDsByWhichAMessageNamesAnother(t *testing.T) {
	for _, c := range []struct {
		body, ids, pointers []string
		want                string
	}{
		{[]string{`{"status":"read", "message_id" : "a"}`}, []string{"a"}, []string{"/message_id"}, `{"status":"read", "message_id" : "wamid.\"A"}`},
		{
			[]string{`{"context":{"message_id":"a"},"type":"reaction","reaction":{"emoji":"\u2764","message_id":"b"},"x":{"message_id":"a"}}`},
			[]string{"a", "b"}, []string{"/context/message_id", "/reaction/message_id"},
			`{"context":{"message_id":"wamid.\"A"},"type":"reaction","reaction":{"emoji":"\u2764","message_id":"b"},"x":{"message_id":"a"}}`,
		},
		{[]string{`{"Context":{"message_id":"a"},"context":null,"reaction":{"message_id":7}}`}, nil, nil, `{"Context":{"message_id":"a"},"context":null,"reaction":{"message_id":7}}`},
		{[]string{`["a"]`}, nil, nil, `["a"]`},
		{[]string{`{"context":`}, nil, nil, `{"context":`},
	} {
		body := []byte(c.body[0])
		ids, pointers := content.IDs(body)
		if !slices.Equal(ids, c.ids) || !slices.Equal(pointers, c.pointers) {
			t.Errorf("%s: %v at %v", body, ids, pointers)
		}
		if got := string(content.ReplaceIDs(body, map[string]string{"a": `wamid."A`})); got != c.want {
			t.Errorf("%s becomes %s, want %s", body, got, c.want)
		}
	}
}
