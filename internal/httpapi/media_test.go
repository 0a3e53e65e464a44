package httpapi_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"gocloud.dev/blob/memblob"

	"net/http/httptest"

	"wagate/internal/httpapi"
	"wagate/internal/media"
	"wagate/internal/store"
)

// withMedia is a gateway that keeps media.
func withMedia(t *testing.T) *gateway {
	t.Helper()
	g := start(t)
	bucket := memblob.OpenBucket(nil)
	d := g.deps
	registry := prometheus.NewRegistry()
	d.Registerer, d.Gatherer = registry, registry
	d.Media = media.New(g.store, bucket, 0, slog.New(slog.DiscardHandler))
	api, err := httpapi.New(d)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config = api.Server()
	server.Start()
	t.Cleanup(func() { g.client.CloseIdleConnections(); server.Close(); _ = bucket.Close() })
	g.url = server.URL
	return g
}

// field is a part of a form: a file where name is "file".
type field struct{ name, kind, filename, value string }

func form(t *testing.T, fields ...field) (body, kind string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, f := range fields {
		h := textproto.MIMEHeader{"Content-Disposition": {fmt.Sprintf(`form-data; name=%q`, f.name)}}
		if f.filename != "" {
			h.Set("Content-Disposition", multipart.FileContentDisposition(f.name, f.filename))
		}
		if f.kind != "" {
			h.Set("Content-Type", f.kind)
		}
		part, err := w.CreatePart(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := part.Write([]byte(f.value)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String(), w.FormDataContentType()
}

func TestMediaByBodyAndByForm(t *testing.T) {
	g := withMedia(t)
	sum := sha256.Sum256([]byte("picture"))
	first := g.must(http.StatusCreated, "POST", "/v1/media?filename=a%2Fb.png", "picture", "Content-Type", "image/png")
	if got := fields(first.json); got != "created_at filename id mime_type sha256 size used_at" || first.str("filename") != "b.png" ||
		first.str("sha256") != hex.EncodeToString(sum[:]) || first.json["size"] != 7.0 || first.str("mime_type") != "image/png" {
		t.Errorf("%s: %s", got, first.body)
	}
	id := first.str("id")
	if _, err := uuid.Parse(id); err != nil || first.header.Get("Location") != "/v1/media/"+id {
		t.Errorf("%s at %s", id, first.header.Get("Location"))
	}
	for name, fields := range map[string][]field{
		"the part's type":      {{"file", "image/png", "x.png", "picture"}},
		"type before the file": {{"type", "", "", "image/png"}, {"file", "application/octet-stream", "x.png", "picture"}},
		"type behind the file": {{"messaging_product", "", "", "whatsapp"}, {"file", "application/octet-stream", "x.png", "picture"}, {"type", "", "", "image/png"}},
		"type goes first":      {{"file", "image/jpeg", "x.png", "picture"}, {"type", "", "", "image/png; x=y"}},
	} {
		body, kind := form(t, fields...)
		if again := g.must(http.StatusOK, "POST", "/v1/media", body, "Content-Type", kind); again.str("id") != id {
			t.Errorf("%s: another media, %s", name, again.body)
		}
	}
	if other := g.must(http.StatusCreated, "POST", "/v1/media", "picture", "Content-Type", "image/jpeg"); other.str("id") == id {
		t.Error("another type is the same media")
	}

	content := g.must(http.StatusOK, "GET", "/v1/media/"+id+"/content", "")
	if content.body != "picture" || content.header.Get("Content-Type") != "image/png" || content.header.Get("X-Content-Type-Options") != "nosniff" ||
		content.header.Get("Content-Disposition") != "attachment; filename=b.png" {
		t.Errorf("%q %v", content.body, content.header)
	}
	g.must(http.StatusNotModified, "GET", "/v1/media/"+id+"/content", "", "If-None-Match", content.header.Get("ETag"))
	if part := g.must(http.StatusPartialContent, "GET", "/v1/media/"+id+"/content", "", "Range", "bytes=2-3"); part.body != "ct" {
		t.Errorf("%q", part.body)
	}
	if err := g.store.KeepMediaUpload(t.Context(), store.MediaAt{ID: uuid.MustParse(id), PhoneNumberID: phone}, "777"); err != nil {
		t.Fatal(err)
	}
	seen := g.must(http.StatusOK, "GET", "/v1/media/"+id, "")
	if uploads, _ := seen.json["uploads"].([]any); len(uploads) != 1 || !strings.Contains(seen.body, `"phone_number_id":"`+phone+`","meta_id":"777"`) {
		t.Errorf("%s", seen.body)
	}
	g.must(http.StatusNoContent, "DELETE", "/v1/media/"+id, "")
	for _, c := range [][2]string{{"GET", "/v1/media/" + id}, {"GET", "/v1/media/" + id + "/content"}, {"DELETE", "/v1/media/" + id}, {"GET", "/v1/media/123456"}} {
		g.must(http.StatusNotFound, c[0], c[1], "")
	}
}

func TestFilesThatAreNotTaken(t *testing.T) {
	g := withMedia(t)
	big := strings.Repeat("x", 5<<20+1)
	for name, c := range map[string]struct {
		fields []field // of a form; without them body and kind
		body   string
		kind   string
		status int
		want   string // part of the answer
	}{
		"no type":                {body: "x", status: 422, want: `"pointer":"Content-Type"`},
		"a type Meta has not":    {body: "x", kind: "image/gif", status: 422, want: "image/jpeg"},
		"empty":                  {kind: "image/png", status: 422, want: "must not be empty"},
		"too large":              {body: big, kind: "image/png", status: 413, want: "is over 5242880 bytes"},
		"too large in a form":    {fields: []field{{"file", "image/png", "x", big}}, status: 413, want: "is over 5242880 bytes"},
		"too large, told before": {fields: []field{{"type", "", "", "image/png"}, {"file", "", "x", big}}, status: 413, want: "is over 5242880 bytes"},
		"a form without a file":  {fields: []field{{"type", "", "", "image/png"}}, status: 422, want: `"pointer":"/file"`},
		"two files":              {fields: []field{{"file", "image/png", "x", "1"}, {"file", "image/png", "x", "2"}}, status: 422, want: "must be one file"},
		"a form's bad type":      {fields: []field{{"file", "image/png", "x", "1"}, {"type", "", "", "image"}}, status: 422, want: `"pointer":"/type"`},
		"a file of no type":      {fields: []field{{"file", "application/octet-stream", "x", "1"}}, status: 422, want: `"pointer":"/file"`},
		"a form cut off":         {body: "--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nx", kind: "multipart/form-data; boundary=b", status: 400, want: "broke off"},
		"many parts":             {fields: make([]field, 20), status: 422, want: "at most 16 parts"},
	} {
		body, kind := c.body, c.kind
		if c.fields != nil {
			body, kind = form(t, c.fields...)
		}
		if a := g.do("POST", "/v1/media", body, "Content-Type", kind); a.status != c.status || !strings.Contains(a.body, c.want) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	g.must(http.StatusUnsupportedMediaType, "POST", "/v1/media", "x", "Content-Type", "image/png", "Content-Encoding", "gzip")
	var n int
	if err := g.pool.QueryRow(t.Context(), `SELECT count(*) FROM media`).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d media, %v", n, err)
	}
}

func TestWhoMaySeeMedia(t *testing.T) {
	g := withMedia(t)
	key := func(name, scopes, more string) string {
		return "Bearer " + g.key(fmt.Sprintf(`{"name":%q,"scopes":[%s]%s}`, name, scopes, more))
	}
	shop, rotated, other := key("shop", `"send"`, ""), key("shop", `"send"`, ""), key("other", `"send"`, "")
	manager, reader := key("ops", `"manage"`, ""), key("shop", `"read"`, "")
	bound := key("bound", `"manage"`, `,"phone_numbers":["`+phone+`"]`)
	id := g.must(http.StatusCreated, "POST", "/v1/media", "picture", "Content-Type", "image/png", "Authorization", shop).str("id")
	for _, c := range []struct {
		name, key string
		status    int
	}{
		{"its owner", shop, 200}, {"another key of its owner", rotated, 200}, {"another owner", other, 404}, {"a manager", manager, 200},
		{"a manager bound to phone numbers", bound, 404}, {"a reader", reader, 403},
	} {
		for _, path := range []string{"/v1/media/" + id, "/v1/media/" + id + "/content"} {
			if a := g.do("GET", path, "", "Authorization", c.key); a.status != c.status {
				t.Errorf("%s, GET %s: %d", c.name, path, a.status)
			}
		}
	}
	g.must(http.StatusNotFound, "DELETE", "/v1/media/"+id, "", "Authorization", other)
	g.must(http.StatusForbidden, "POST", "/v1/media", "x", "Content-Type", "image/png", "Authorization", manager)
	image := `{"from":"` + phone + `","to":"+16505551234","type":"image","image":{"id":"` + id + `"}}`
	if a := g.must(http.StatusUnprocessableEntity, "POST", "/v1/messages", image, "Authorization", other); fmt.Sprint(a.pointers()) != "[/image/id]" {
		t.Errorf("%s", a.body)
	}
	g.must(http.StatusAccepted, "POST", "/v1/messages", image, "Authorization", rotated)
	if a := g.must(http.StatusConflict, "DELETE", "/v1/media/"+id, "", "Authorization", manager); a.str("code") != "in_use" || a.json["waiting"] != 1.0 {
		t.Errorf("%s", a.body)
	}
	// The Cloud API ingress says so in Meta's shape.
	graph := g.graph("POST", "/v23.0/"+phone+"/messages", `{"messaging_product":"whatsapp","to":"16505551234","type":"image","image":{"id":"`+uuid.NewString()+`"}}`, "Authorization", "Bearer "+adminKey)
	if graph.status != http.StatusBadRequest || !strings.Contains(graph.body, "/image/id: is no media of this API key's owner") {
		t.Errorf("%d %s", graph.status, graph.body)
	}
}

func TestWithoutAStoreOfMedia(t *testing.T) {
	g := start(t)
	for _, c := range [][2]string{{"POST", "/v1/media"}, {"GET", "/v1/media/" + uuid.NewString()}, {"DELETE", "/v1/media/" + uuid.NewString()}} {
		if a := g.must(http.StatusServiceUnavailable, c[0], c[1], "x", "Content-Type", "image/png"); a.str("code") != "no_media_store" || !strings.Contains(a.str("detail"), "WAGATE_MEDIA") {
			t.Errorf("%v: %s", c, a.body)
		}
	}
}
