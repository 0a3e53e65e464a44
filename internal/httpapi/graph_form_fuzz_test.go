package httpapi

import (
	"encoding/json"
	"net/url"
	"testing"
	"unicode/utf8"

	"wagate/internal/cloudapi"
	"wagate/internal/content"
)

// FuzzMessageBody holds the reading of forms: what is taken is one JSON object with the form's fields, in which nothing of the
// Graph API's own gets past the checks of a message.
func FuzzMessageBody(f *testing.F) {
	for _, s := range []string{
		"", "to=16505551234&type=text&text=%7B%22body%22%3A%22hi%22%7D", "&&a=1&=2", "a", "a=%zz", "a=%ff", "text[body]=x", "text=%7B%22a%22%3A%7D", "contacts=[1]&x=[",
		"biz_opaque_callback_data={}&message_activity_sharing=true", "to=1&to=2", " Batch=[]&%20method=x", `{"to":"1"}`, "access.token=x", "text=+{}+", "\x00=1", "a=%00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, form string) {
		out, err := messageBody("application/x-www-form-urlencoded; charset=utf-8", []byte(form))
		if err != nil {
			return
		}
		if string(out) == form {
			return // JSON, as it came
		}
		var fields map[string]json.RawMessage
		if !json.Valid(out) || json.Unmarshal(out, &fields) != nil || !utf8.Valid(out) {
			t.Fatalf("%q gives %q", form, out)
		}
		asked, err := url.ParseQuery(form)
		if err != nil {
			return // it knows semicolons
		}
		graphs := false
		for name := range asked {
			if _, ok := fields[name]; !ok {
				t.Fatalf("%q lacks %q: %s", form, name, out)
			}
			graphs = graphs || cloudapi.IsGraphParameter([]byte(name))
		}
		_, faults, err := content.Check(out, content.Options{})
		if err != nil || graphs && len(faults) == 0 {
			t.Fatalf("%q: %v, %v", out, faults, err)
		}
	})
}
