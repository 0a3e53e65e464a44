package httpapi

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// formFields are the members of a message that are text whatever they hold; of a form's others a value that reads as a JSON
// object or array is one.
var formFields = map[string]bool{
	"messaging_product": true, "type": true, "to": true, "recipient": true, "recipient_type": true, "recipient_identity_key_hash": true,
	"biz_opaque_callback_data": true, "status": true, "message_id": true, "product_policy": true, "from": true,
}

var (
	errForm     = newProblem(http.StatusBadRequest, "malformed", "The form cannot be read.")
	errFormName = newProblem(http.StatusBadRequest, "malformed", "A form must have whole fields: write an object as JSON in one of them.")
)

// messageBody gives a message that may have come as a form the way the Graph API takes one: a field for each member, objects
// as JSON. What begins as JSON is JSON, whatever the request calls it: curl calls all it sends a form.
func messageBody(contentType string, body []byte) ([]byte, error) {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "application/x-www-form-urlencoded" || bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) {
		return body, nil
	}
	out := []byte{'{'}
	for pair := range strings.SplitSeq(string(body), "&") {
		if pair == "" {
			continue
		}
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(rawName)
		if err != nil {
			return nil, errForm
		}
		value, err := url.QueryUnescape(rawValue)
		switch {
		case err != nil || name == "" || !utf8.ValidString(name) || !utf8.ValidString(value):
			return nil, errForm
		case strings.Contains(name, "["):
			return nil, errFormName
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(out, quoted(name)...), ':')
		out = append(out, formValue(name, value)...)
	}
	return append(out, '}'), nil
}

func formValue(name, value string) []byte {
	trimmed := strings.TrimSpace(value)
	switch {
	case name == "message_activity_sharing" && (trimmed == "true" || trimmed == "false"):
		return []byte(trimmed)
	case !formFields[name] && (strings.HasPrefix(trimmed, "{") || strings.HasPrefix(trimmed, "[")) && json.Valid([]byte(trimmed)):
		return []byte(trimmed)
	}
	return quoted(value)
}

func quoted(s string) []byte {
	raw, _ := json.Marshal(s) // a string always marshals
	return raw
}
