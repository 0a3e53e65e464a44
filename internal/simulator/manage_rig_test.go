package simulator

import (
	"bytes"
	"encoding/json"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
)

// ask makes one call and reads its answer, which is JSON or nothing.
func ask(t *testing.T, s *Server, method, path, body string, header http.Header) (reply, map[string]any) {
	t.Helper()
	rep := do(t.Context(), t, s, method, path, body, header)
	var out map[string]any
	if rep.raw != "" && rep.ctype == "application/json" {
		if err := json.Unmarshal([]byte(rep.raw), &out); err != nil {
			t.Fatalf("%s %s: %v in %q", method, path, err, rep.raw)
		}
	}
	return rep, out
}

// okay is ask for a call that must succeed.
func okay(t *testing.T, s *Server, method, path, body string) map[string]any {
	t.Helper()
	rep, out := ask(t, s, method, path, body, nil)
	if rep.status != http.StatusOK {
		t.Fatalf("%s %s: %d %s", method, path, rep.status, rep.raw)
	}
	return out
}

// at follows a path like data.0.id into an answer.
func at(v any, path string) any {
	for _, step := range strings.Split(path, ".") {
		switch here := v.(type) {
		case map[string]any:
			v = here[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(here) {
				return nil
			}
			v = here[i]
		default:
			return nil
		}
	}
	return v
}

// form is a multipart body with fields and a file.
func form(t *testing.T, fields map[string]string, name, mime string, file []byte) (string, http.Header) {
	t.Helper()
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	for k, v := range fields {
		must(t, w.WriteField(k, v))
	}
	if name != "" {
		h := textproto.MIMEHeader{"Content-Disposition": {`form-data; name="file"; filename="` + name + `"`}}
		if mime != "" {
			h.Set("Content-Type", mime)
		}
		part, err := w.CreatePart(h)
		must(t, err)
		_, err = part.Write(file)
		must(t, err)
	}
	must(t, w.Close())
	return buf.String(), http.Header{"Content-Type": {w.FormDataContentType()}}
}

// upload uploads a file for a phone number and returns its id.
func uploadMedia(t *testing.T, s *Server, phone, mime string, file []byte) string {
	t.Helper()
	body, header := form(t, map[string]string{"messaging_product": "whatsapp", "type": mime}, "file", mime, file)
	rep, out := ask(t, s, http.MethodPost, "/v23.0/"+phone+"/media", body, header)
	id, _ := out["id"].(string)
	if rep.status != http.StatusOK || id == "" {
		t.Fatalf("uploading: %d %s", rep.status, rep.raw)
	}
	return id
}

// local is a link of an answer without its host.
func local(t *testing.T, link any) string {
	t.Helper()
	text, _ := link.(string)
	path, ok := strings.CutPrefix(text, "http://example.com")
	if !ok {
		t.Fatalf("the link %q is not to the simulator", text)
	}
	return path
}

// templateBody is the body of a new template with that text.
func templateBody(name, language, category, text string) string {
	raw, err := json.Marshal(map[string]any{
		"name": name, "language": language, "category": category, "components": []any{map[string]any{"type": "body", "text": text}},
	})
	if err != nil {
		panic(err)
	}
	return string(raw)
}
