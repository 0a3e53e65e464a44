package simulator

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestMediaLive(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		t := r.t
		file := []byte("a picture")
		id := uploadMedia(t, r.s, "1", "image/jpeg", file)
		got := okay(t, r.s, read, "/v23.0/"+id, "")
		sum := sha256.Sum256(file)
		if got["sha256"] != hex.EncodeToString(sum[:]) || got["file_size"] != float64(len(file)) || got["mime_type"] != "image/jpeg" {
			t.Errorf("media %v", got)
		}
		link := local(t, got["url"])
		if rep, _ := ask(t, r.s, read, "/v23.0/"+id, "", nil); !strings.Contains(rep.raw, `"http:\/\/example.com\/_media\/`) || !strings.Contains(rep.raw, "&hash") {
			t.Errorf("slashes are not escaped as Meta's are: %s", rep.raw)
		}
		download := func(link, token string) (int, string) {
			rep := do(t.Context(), t, r.s, read, link, "", http.Header{"Authorization": {token}})
			return rep.status, rep.raw
		}
		if status, body := download(link, "Bearer token"); status != 200 || body != string(file) {
			t.Errorf("download: %d %q", status, body)
		}
		for why, tt := range map[string]struct {
			link, token string
			want        int
		}{
			"no token": {link, "", 401}, "another hash": {link[:len(link)-1] + "!", "Bearer token", 404},
			"a later end": {strings.Replace(link, "ext=9", "ext=99", 1), "Bearer token", 404},
			"another id":  {strings.Replace(link, id, "1", 1), "Bearer token", 404},
		} {
			if status, body := download(tt.link, tt.token); status != tt.want || strings.Contains(body, "picture") {
				t.Errorf("%s: %d %q", why, status, body)
			}
		}
		pass(5*time.Minute - 1)
		if status, _ := download(link, "Bearer token"); status != 200 {
			t.Errorf("just before five minutes: %d", status)
		}
		pass(time.Second)
		if status, _ := download(link, "Bearer token"); status != 404 {
			t.Errorf("after five minutes: %d", status)
		}
		fresh := local(t, okay(t, r.s, read, "/v23.0/"+id, "")["url"])
		if status, _ := download(fresh, "Bearer token"); status != 200 {
			t.Errorf("a new link: %d", status)
		}
		for _, method := range []string{read, del} {
			if rep, _ := ask(t, r.s, method, "/v23.0/"+id+"?phone_number_id=2", "", nil); rep.status != 404 {
				t.Errorf("%s for another number: %d", method, rep.status)
			}
		}
		pass(mediaLife - 6*time.Minute)
		if rep, _ := ask(t, r.s, read, "/v23.0/"+id, "", nil); rep.status != 200 {
			t.Errorf("in 30 days: %s", rep.raw)
		}
		pass(6 * time.Minute)
		if rep, _ := ask(t, r.s, read, "/v23.0/"+id, "", nil); rep.status != 404 {
			t.Errorf("after 30 days: %d", rep.status)
		}
	})
}

func TestDeletedMediaAreGone(t *testing.T) {
	s := New(Config{})
	id := uploadMedia(t, s, "1", "image/png", []byte("x"))
	link := local(t, okay(t, s, read, "/v23.0/"+id, "")["url"])
	okay(t, s, del, "/v23.0/"+id, "")
	for _, tt := range []struct{ method, path string }{{read, "/v23.0/" + id}, {del, "/v23.0/" + id}, {read, link}} {
		if rep, _ := ask(t, s, tt.method, tt.path, "", nil); rep.status != 404 || rep.code() != 100 && tt.path != link {
			t.Errorf("%s %s: %d", tt.method, tt.path, rep.status)
		}
	}
	if got := s.Media(); len(got) != 1 || !got[0].Deleted || got[0].Kept || s.managed.depot.bytes() != 0 {
		t.Errorf("media %+v, %d bytes", got, s.managed.depot.bytes())
	}
}

func TestMediaUploadsRefused(t *testing.T) {
	s := New(Config{MediaDir: t.TempDir()})
	defer s.Close()
	product := map[string]string{"messaging_product": "whatsapp"}
	for why, tt := range map[string]struct {
		fields     map[string]string
		name, mime string
		size       int
	}{
		"no product":      {nil, "a", "image/png", 1},
		"no file":         {product, "", "", 0},
		"an empty file":   {product, "a", "image/png", 0},
		"an unknown type": {product, "a", "application/x-tar", 1},
		"no type":         {product, "a", "", 1},
		"a large picture": {product, "a", "image/png", 5<<20 + 1},
		"a large field":   {map[string]string{"messaging_product": strings.Repeat("x", maxField+1)}, "a", "image/png", 1},
	} {
		body, header := form(t, tt.fields, tt.name, tt.mime, make([]byte, tt.size))
		rep, _ := ask(t, s, post, "/v23.0/1/media", body, header)
		if rep.status != 400 || rep.code() != 100 {
			t.Errorf("%s: %d %s", why, rep.status, rep.raw)
		}
	}
	body, header := form(t, product, "a", "image/png", []byte("x"))
	for why, tt := range map[string]string{"cut off": body[:len(body)-30], "not a form": "{}"} {
		if rep, _ := ask(t, s, post, "/v23.0/1/media", tt, header); rep.status != 400 || rep.code() != 100 {
			t.Errorf("%s: %d %s", why, rep.status, rep.raw)
		}
	}
	if len(s.Media()) != 0 || s.managed.depot.bytes() != 0 {
		t.Errorf("media %+v, %d bytes", s.Media(), s.managed.depot.bytes())
	}
	// The type parameter says what a part leaves open.
	body, header = form(t, map[string]string{"messaging_product": "whatsapp", "type": "text/plain"}, "a", "application/octet-stream", []byte("x"))
	if rep, _ := ask(t, s, post, "/v23.0/1/media", body, header); rep.status != 200 || s.Media()[0].MIMEType != "text/plain" {
		t.Errorf("by type: %d %s", rep.status, rep.raw)
	}
}

// pattern is a file of a size without holding it.
type pattern struct{ at, size int64 }

func (p *pattern) Read(b []byte) (int, error) {
	if p.at == p.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), p.size-p.at))
	for i := range n {
		b[i] = byte((p.at + int64(i)) * 7 >> 3 & 0xff)
	}
	p.at += int64(n)
	return n, nil
}

// hashed is a response of which only the hash stays.
type hashed struct {
	header http.Header
	status int
	sum    hash.Hash
	n      int64
}

func (h *hashed) Header() http.Header { return h.header }
func (h *hashed) WriteHeader(n int)   { h.status = n }
func (h *hashed) Write(b []byte) (int, error) {
	h.n += int64(len(b))
	return h.sum.Write(b) //nolint:wrapcheck // a hash does not fail
}

// TestLargeFilesGoToDisk: 100 MB pass through without being held, and come back the same.
func TestLargeFilesGoToDisk(t *testing.T) {
	dir := t.TempDir()
	s := New(Config{MediaDir: dir})
	defer s.Close()
	const boundary = "boundary"
	head := "--" + boundary + "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.pdf\"\r\nContent-Type: application/pdf\r\n\r\n"
	tail := "\r\n--" + boundary + "\r\nContent-Disposition: form-data; name=\"messaging_product\"\r\n\r\nwhatsapp\r\n--" + boundary + "--\r\n"
	const size = maxFileSize
	body := io.MultiReader(strings.NewReader(head), &pattern{size: size}, strings.NewReader(tail))
	req := httptest.NewRequestWithContext(t.Context(), post, "/v23.0/1/media", body)
	req.Header.Set("Authorization", "Bearer token")
	req.Header.Set("Content-Type", "multipart/form-data; boundary="+boundary)
	rec := httptest.NewRecorder()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s.Handler().ServeHTTP(rec, req)
	runtime.ReadMemStats(&after)
	if rec.Code != 200 {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	if held := after.TotalAlloc - before.TotalAlloc; held > size/4 {
		t.Errorf("%d bytes were allocated", held)
	}
	want := sha256.New()
	_, _ = io.Copy(want, &pattern{size: size})
	m := s.Media()[0]
	if m.SHA256 != hex.EncodeToString(want.Sum(nil)) || m.Size != size {
		t.Errorf("media %+v", m)
	}
	got := &hashed{header: http.Header{}, sum: sha256.New()}
	req = httptest.NewRequestWithContext(t.Context(), read, local(t, okay(t, s, read, "/v23.0/"+m.ID, "")["url"]), http.NoBody)
	req.Header.Set("Authorization", "Bearer token")
	s.Handler().ServeHTTP(got, req)
	if got.n != size || !bytes.Equal(got.sum.Sum(nil), want.Sum(nil)) || got.header.Get("Content-Type") != "application/pdf" {
		t.Errorf("downloaded %d bytes, header %v", got.n, got.header)
	}
	if n := len(files(t, dir)); n != 1 {
		t.Errorf("%d files", n)
	}
	s.Reset()
	if n := len(files(t, dir)); n != 0 || s.managed.depot.bytes() != 0 {
		t.Errorf("after a reset %d files, %d bytes", n, s.managed.depot.bytes())
	}
}

// files are those in the one directory of a depot below dir.
func files(t *testing.T, dir string) (out []string) {
	t.Helper()
	below, err := os.ReadDir(dir)
	must(t, err)
	for _, d := range below {
		list, err := os.ReadDir(dir + "/" + d.Name())
		must(t, err)
		for _, f := range list {
			out = append(out, f.Name())
		}
	}
	return out
}

// TestMediaAreBounded: of too many bytes the oldest go, of too many ids, too.
func TestMediaAreBounded(t *testing.T) {
	dir := t.TempDir()
	s := New(Config{MediaDir: dir, MediaBytes: 1 << 20})
	var ids []string
	for range 3 {
		ids = append(ids, uploadMedia(t, s, "1", "image/png", make([]byte, 400<<10)))
	}
	kept := ""
	for _, f := range s.Media() {
		kept += fmt.Sprint(f.Kept, " ")
	}
	if kept != "false true true " || len(files(t, dir)) != 2 || s.managed.depot.bytes() != 800<<10 {
		t.Errorf("kept %s, files %v, %d bytes", kept, files(t, dir), s.managed.depot.bytes())
	}
	first := okay(t, s, read, "/v23.0/"+ids[0], "") // its id is still good
	if rep, _ := ask(t, s, read, local(t, first["url"]), "", nil); rep.status != 404 {
		t.Errorf("dropped bytes: %d", rep.status)
	}
	for range maxMedia {
		s.managed.addMedia(&media{id: s.newID(idMedia)})
	}
	if len(s.managed.media) != maxMedia || len(s.Media()) != maxMedia || s.managed.media[ids[2]] != nil || s.managed.depot.bytes() != 0 {
		t.Errorf("%d media, %d bytes", len(s.managed.media), s.managed.depot.bytes())
	}
	s.Close()
	if below, err := os.ReadDir(dir); err != nil || len(below) != 0 {
		t.Errorf("after Close: %v, %v", below, err)
	}
	body, header := form(t, map[string]string{"messaging_product": "whatsapp"}, "a", "image/png", make([]byte, 300<<10))
	if rep, _ := ask(t, s, post, "/v23.0/1/media", body, header); rep.status != 500 || rep.code() != 131000 {
		t.Errorf("an upload after Close: %d %s", rep.status, rep.raw)
	}
}

// TestSmallFilesStayInMemory: so the simulator needs no disk for them.
func TestSmallFilesStayInMemory(t *testing.T) {
	s := New(Config{MediaDir: "/nowhere"})
	id := uploadMedia(t, s, "1", "image/png", make([]byte, smallFile))
	body, header := form(t, map[string]string{"messaging_product": "whatsapp"}, "a", "image/png", make([]byte, smallFile+1))
	if rep, _ := ask(t, s, post, "/v23.0/1/media", body, header); rep.status != 500 {
		t.Errorf("a file for the disk: %d", rep.status)
	}
	if d := &s.managed.depot; d.inMemory != smallFile || d.bytes() != smallFile {
		t.Errorf("%d bytes in memory of %d", d.inMemory, d.bytes())
	}
	okay(t, s, del, "/v23.0/"+id, "")
	if d := &s.managed.depot; d.inMemory != 0 || d.bytes() != 0 {
		t.Errorf("%d bytes in memory of %d", d.inMemory, d.bytes())
	}
	d := depot{inMemory: memoryFiles - 10, parent: t.TempDir()}
	b := &blob{d: &d}
	_, err := b.Write(make([]byte, 11))
	must(t, err)
	must(t, b.seal())
	if b.path == "" || d.inMemory != memoryFiles-10 {
		t.Errorf("memory for more than there is: %d", d.inMemory)
	}
}

func TestResumableUpload(t *testing.T) {
	s := New(Config{MediaDir: t.TempDir()})
	defer s.Close()
	file := make([]byte, 600<<10)
	_, _ = io.ReadFull(&pattern{size: 600 << 10}, file)
	start := func() string {
		id, _ := okay(t, s, post, fmt.Sprintf("/v23.0/app/uploads?file_name=a&file_length=%d&file_type=image/png", len(file)), "")["id"].(string)
		return "/v23.0/" + id
	}
	session := start()
	send := func(session string, offset int, part []byte) (reply, map[string]any) {
		return ask(t, s, post, session, string(part), http.Header{"File_offset": {fmt.Sprint(offset)}})
	}
	const half = 300 << 10
	// What arrives before the connection breaks stays.
	broken := io.MultiReader(bytes.NewReader(file[:half]), brokenReader{})
	req := httptest.NewRequestWithContext(t.Context(), post, session, broken)
	req.Header.Set("Authorization", "OAuth token")
	req.Header.Set("file_offset", "0")
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, req)
	if rec.Code != 500 {
		t.Errorf("a broken connection: %d %s", rec.Code, rec.Body)
	}
	if got := okay(t, s, read, session, "")["file_offset"]; got != float64(half) {
		t.Errorf("offset %v", got)
	}
	if rep, _ := send(session, 0, file); rep.status != 400 || rep.code() != 100 {
		t.Errorf("a wrong offset: %s", rep.raw)
	}
	if rep, out := send(session, half, file[half:half+100]); rep.status != 200 || out["file_offset"] != float64(half+100) || out["h"] != nil {
		t.Errorf("a part: %s", rep.raw)
	}
	rep, out := send(session, half+100, file[half+100:])
	handle, _ := out["h"].(string)
	if rep.status != 200 || !strings.HasPrefix(handle, "4:") {
		t.Fatalf("the rest: %s", rep.raw)
	}
	if rep, _ := send(session, len(file), []byte("x")); rep.status != 400 {
		t.Errorf("after the end: %s", rep.raw)
	}
	// The session's query is part of its id, wherever it stands.
	if rep, _ := ask(t, s, read, session[:strings.Index(session, "?")], "", nil); rep.status != 404 {
		t.Errorf("without its query: %s", rep.raw)
	}
	okay(t, s, read, strings.Replace(session, "?", "%3F", 1), "")
	if rep, _ := send(start(), 0, append(file, 'x')); rep.status != 400 || rep.code() != 100 {
		t.Errorf("too much: %s", rep.raw)
	}

	must(t, s.StrictMedia(true, ""))
	profile := func(handle string) int {
		rep, _ := ask(t, s, post, "/v23.0/1/whatsapp_business_profile", `{"messaging_product":"whatsapp","profile_picture_handle":"`+handle+`"}`, nil)
		return rep.status
	}
	if profile("4::other") != 400 || profile(handle) != 200 {
		t.Error("handles are not checked")
	}
	picture := okay(t, s, read, "/v23.0/1/whatsapp_business_profile", "")
	if rep := do(t.Context(), t, s, read, local(t, at(picture, "data.0.profile_picture_url")), "", nil); rep.raw != string(file) {
		t.Errorf("the picture: %d, %d bytes", rep.status, len(rep.raw))
	}
	for range maxUploads {
		start()
	}
	if rep, _ := ask(t, s, read, session, "", nil); rep.status != 404 || len(s.managed.uploads) != maxUploads || s.managed.depot.bytes() != 0 {
		t.Errorf("%d sessions, %d bytes, the first: %d", len(s.managed.uploads), s.managed.depot.bytes(), rep.status)
	}
}

// TestUploadsAreBounded: the oldest give way, and one that is not complete starts anew.
func TestUploadsAreBounded(t *testing.T) {
	s := New(Config{MediaDir: t.TempDir(), MediaBytes: 700 << 10})
	defer s.Close()
	var sessions []string
	for i, part := range []int{300 << 10, 400 << 10, 200 << 10} { // the first is not complete
		id, _ := okay(t, s, post, "/v23.0/5/uploads?file_name=a&file_length="+[]string{"400000", "409600", "204800"}[i]+"&file_type=image/png", "")["id"].(string)
		sessions = append(sessions, "/v23.0/"+id)
		ask(t, s, post, sessions[i], string(make([]byte, part)), http.Header{"File_offset": {"0"}})
	}
	for i, want := range []float64{0, 400 << 10, 200 << 10} {
		if got := okay(t, s, read, sessions[i], "")["file_offset"]; got != want {
			t.Errorf("session %d is at %v, want %v", i, got, want)
		}
	}
	if n := s.managed.depot.bytes(); n != 600<<10 {
		t.Errorf("%d bytes", n)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestMediaByControl: a control request brings the end of an id forward.
func TestMediaByControl(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		t := r.t
		a, b := uploadMedia(t, r.s, "1", "image/png", []byte("a")), uploadMedia(t, r.s, "1", "image/png", []byte("b"))
		put := func(path, body string) int {
			return do(t.Context(), t, r.s, http.MethodPut, path, body, nil).status
		}
		if put("/_sim/media/"+a, `{"expires_in_ms":1000}`) != 204 || put("/_sim/media/99", `{"expires_in_ms":0}`) != 400 ||
			put("/_sim/media/"+a, `{}`) != 400 || put("/_sim/media/"+a, `{"expires_in_ms":-1}`) != 400 {
			t.Error("control")
		}
		status := func(id string) int {
			rep, _ := ask(t, r.s, read, "/v23.0/"+id, "", nil)
			return rep.status
		}
		if status(a) != 200 {
			t.Error("over too soon")
		}
		pass(time.Second)
		if status(a) != 404 || status(b) != 200 {
			t.Error("the one is not over, or the other is")
		}
		if put("/_sim/media", `{"expires_in_ms":0}`) != 204 || status(b) != 404 {
			t.Error("all are not over")
		}
		_, out := ask(t, r.s, read, "/_sim/media", "", nil)
		if at(out, "media.1.id") != b || at(out, "media.1.expires_in_ms") != 0.0 || at(out, "media.1.kept") != true {
			t.Errorf("media %v", out)
		}
	})
}
