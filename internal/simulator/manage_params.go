package simulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

const maxField = 64 << 10 // bytes of one value of a multipart form

// params are a call's parameters, wherever they came: in the query, in a JSON object or
// in a form, as the Graph API takes them. The first that is wrong stays in fault.
type params struct {
	values map[string]json.RawMessage
	fault  *graphError
}

// read takes the parameters of a request; those in the body go before the query's.
func (p *params) read(r *http.Request) *graphError {
	p.values = map[string]json.RawMessage{}
	p.take(r.URL.Query())
	if r.Method != http.MethodPost && r.Method != http.MethodDelete {
		return nil
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err == nil && kind == "multipart/form-data" {
		return p.readForm(r, nil)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	body = bytes.TrimSpace(body)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return invalid(100, "the body could not be read")
	case len(body) > maxBody:
		return invalid(100, "the body is larger than 1 MiB")
	case len(body) == 0:
		return nil
	case kind == "application/x-www-form-urlencoded" && body[0] != '{': // curl -d says this of JSON, too
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return invalid(100, "the form could not be read")
		}
		p.take(form)
		return nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil || fields == nil {
		return invalid(100, "the body is not a JSON object")
	}
	for name, raw := range fields {
		p.values[name] = raw
	}
	return nil
}

// take adds the values of a query or form as JSON strings.
func (p *params) take(values url.Values) {
	for name, v := range values {
		if raw, err := json.Marshal(v[0]); err == nil {
			p.values[name] = raw
		}
	}
}

// readForm reads a multipart body part by part. The part with a file goes to file, which
// may see fields that came before it only; nil refuses files.
func (p *params) readForm(r *http.Request, file func(*multipart.Part) *graphError) *graphError {
	if p.values == nil {
		p.values = map[string]json.RawMessage{}
		p.take(r.URL.Query())
	}
	form, err := r.MultipartReader()
	if err != nil {
		return invalid(100, "the body is not multipart/form-data")
	}
	for n := 0; ; n++ {
		part, err := form.NextPart()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil || n == 64:
			return invalid(100, "the multipart form could not be read")
		case part.FileName() != "" || part.FormName() == "file":
			if file == nil {
				return invalid(100, fmt.Sprintf("Param %.64s must not be a file", part.FormName()))
			}
			if fault := file(part); fault != nil {
				return fault
			}
			continue
		}
		value, err := io.ReadAll(io.LimitReader(part, maxField+1))
		if err != nil || len(value) > maxField {
			return invalid(100, fmt.Sprintf("Param %.64s could not be read", part.FormName()))
		}
		p.take(url.Values{part.FormName(): {string(value)}})
	}
}

// wrong notes what is wrong with a parameter, unless another was before.
func (p *params) wrong(code int, format string, args ...any) {
	if p.fault == nil {
		p.fault = invalid(code, fmt.Sprintf(format, args...))
	}
}

func (p *params) has(name string) bool {
	raw := bytes.TrimSpace(p.values[name])
	return len(raw) > 0 && !bytes.Equal(raw, []byte("null"))
}

// text is a string; numbers and booleans are taken by their letters.
func (p *params) text(name string) string {
	if !p.has(name) {
		return ""
	}
	var v any
	dec := json.NewDecoder(bytes.NewReader(p.values[name]))
	dec.UseNumber()
	if err := dec.Decode(&v); err == nil {
		switch v := v.(type) {
		case string:
			return v
		case json.Number:
			return v.String()
		case bool:
			return strconv.FormatBool(v)
		}
	}
	p.wrong(100, "Param %s must be a string", name)
	return ""
}

// required is text that must be there, at most so many characters long.
func (p *params) required(name string, most int) string {
	v := p.limited(name, most)
	if v == "" {
		p.wrong(100, "The parameter %s is required.", name)
	}
	return v
}

func (p *params) limited(name string, most int) string {
	v := p.text(name)
	if len([]rune(v)) > most {
		p.wrong(100, "Param %s must be at most %d characters long.", name, most)
		return ""
	}
	return v
}

// choice is an upper-case value out of a list; empty where it is not given.
func (p *params) choice(name string, of ...string) string {
	v := strings.ToUpper(p.text(name))
	if v == "" {
		return ""
	}
	for _, one := range of {
		if v == one {
			return v
		}
	}
	p.wrong(100, "Param %s must be one of {%s} - got \"%.64s\".", name, strings.Join(of, ", "), v)
	return ""
}

// number is a whole number from least to most, def where it is not given.
func (p *params) number(name string, def, least, most int64) int64 {
	text := p.text(name)
	if text == "" {
		return def
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most {
		p.wrong(100, "Param %s must be a whole number from %d to %d", name, least, most)
		return def
	}
	return n
}

func (p *params) flag(name string) bool {
	switch strings.ToLower(p.text(name)) {
	case "", "false", "0":
		return false
	case "true", "1":
		return true
	}
	p.wrong(100, "Param %s must be a boolean", name)
	return false
}

// object decodes a value that is JSON, or a string with JSON in it, as in a query.
func (p *params) object(name string, into any) {
	if !p.has(name) {
		return
	}
	raw := []byte(p.values[name])
	var text string
	if json.Unmarshal(raw, &text) == nil {
		raw = []byte(text)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		p.wrong(100, "Param %s is not of the right form", name)
	}
}

// list is a list of strings or numbers, given as JSON or with commas between.
func (p *params) list(name string) []string {
	if !p.has(name) {
		return nil
	}
	var text string
	if json.Unmarshal(p.values[name], &text) == nil && !strings.HasPrefix(strings.TrimSpace(text), "[") {
		out := strings.Split(text, ",")
		for i := range out {
			out[i] = strings.TrimSpace(out[i])
		}
		return out
	}
	var raw []json.RawMessage
	p.object(name, &raw)
	out := make([]string, 0, len(raw))
	for _, one := range raw {
		item := params{values: map[string]json.RawMessage{name: one}}
		out = append(out, item.text(name))
		if item.fault != nil {
			p.wrong(100, "Param %s must be a list of strings", name)
		}
	}
	return out
}

// product checks messaging_product, which calls of a phone number must name.
func (p *params) product() {
	switch v := p.text("messaging_product"); {
	case v == "":
		p.wrong(100, "The parameter messaging_product is required.")
	case v != "whatsapp":
		p.wrong(100, "Param messaging_product must be one of {WHATSAPP}")
	}
}

// pin reads a number of six digits.
func (p *params) pin(name string) string {
	v := p.text(name)
	if len(v) != 6 || digitsOf(v) != v {
		p.wrong(100, "Param %s must be six digits.", name)
	}
	return v
}
