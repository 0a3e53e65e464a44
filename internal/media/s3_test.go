package media

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"wagate/internal/content"
	"wagate/internal/pgtest"
	"wagate/internal/store"
)

// bucketServer answers as an S3-compatible store, as far as media need it, with paths of the form /bucket/key.
type bucketServer struct {
	mu      sync.Mutex
	objects map[string][]byte
	parts   map[string]map[int][]byte // by upload
	seen    map[string]int            // requests by kind
}

// ServeHTTP implements http.Handler.
func (b *bucketServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "", http.StatusBadRequest)
		return
	}
	if strings.Contains(r.Header.Get("Content-Encoding"), "aws-chunked") || strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		body = unchunk(body)
	}
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	q := r.URL.Query()
	b.mu.Lock()
	defer b.mu.Unlock()
	fail := func(status int, code string) {
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `<Error><Code>%s</Code></Error>`, code)
	}
	object, there := b.objects[key]
	upload := q.Get("uploadId")
	switch {
	case r.Header.Get("Authorization") == "":
		fail(http.StatusForbidden, "AccessDenied")
	case r.Method == http.MethodGet && key == "":
		b.list(w, q.Get("prefix"))
	case r.Method == http.MethodPost && q.Has("uploads"):
		b.parts["up"] = map[int][]byte{}
		_, _ = io.WriteString(w, `<InitiateMultipartUploadResult><UploadId>up</UploadId></InitiateMultipartUploadResult>`)
	case r.Method == http.MethodPut && upload != "":
		n, _ := strconv.Atoi(q.Get("partNumber"))
		b.parts[upload][n] = body
		b.seen["part"]++
		w.Header().Set("ETag", `"part"`)
	case r.Method == http.MethodPost && upload != "":
		var whole []byte
		for n := range len(b.parts[upload]) {
			whole = append(whole, b.parts[upload][n+1]...)
		}
		b.objects[key] = whole
		_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><ETag>"whole"</ETag></CompleteMultipartUploadResult>`)
	case r.Method == http.MethodDelete && upload != "":
		b.seen["abort"]++
		delete(b.parts, upload)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPut && there && r.Header.Get("If-None-Match") == "*":
		fail(http.StatusPreconditionFailed, "PreconditionFailed")
	case r.Method == http.MethodPut:
		b.objects[key] = body
		w.Header().Set("ETag", `"whole"`)
	case r.Method == http.MethodDelete:
		delete(b.objects, key)
		w.WriteHeader(http.StatusNoContent)
	case !there:
		fail(http.StatusNotFound, "NoSuchKey")
	default:
		http.ServeContent(w, r, "", time.Now(), bytes.NewReader(object))
	}
}

func (b *bucketServer) list(w io.Writer, prefix string) {
	type entry struct {
		Key          string
		LastModified string
		Size         int
		ETag         string
	}
	var out struct {
		XMLName  xml.Name `xml:"ListBucketResult"`
		Contents []entry
	}
	for key, body := range b.objects {
		if strings.HasPrefix(key, prefix) {
			out.Contents = append(out.Contents, entry{key, time.Now().UTC().Format(time.RFC3339), len(body), `"whole"`})
		}
	}
	slices.SortFunc(out.Contents, func(x, y entry) int { return strings.Compare(x.Key, y.Key) })
	_ = xml.NewEncoder(w).Encode(out)
}

// unchunk takes the frames of aws-chunked away.
func unchunk(body []byte) (out []byte) {
	r := bufio.NewReader(bytes.NewReader(body))
	for {
		line, err := r.ReadString('\n')
		size, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		n, bad := strconv.ParseInt(size, 16, 64)
		if err != nil || bad != nil || n == 0 {
			return out
		}
		chunk := make([]byte, n)
		_, _ = io.ReadFull(r, chunk)
		out = append(out, chunk...)
		_, _ = r.Discard(2)
	}
}

// A bucket of an S3-compatible store does all that a folder does: files of several parts too.
func TestABucket(t *testing.T) {
	server := &bucketServer{objects: map[string][]byte{}, parts: map[string]map[int][]byte{}, seen: map[string]int{}}
	srv := httptest.NewServer(server)
	defer srv.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	bucket, err := Open(t.Context(), "s3://files?region=eu-south-1&endpoint="+srv.URL+"&use_path_style=true&response_checksum_validation=when_required&request_checksum_calculation=when_required")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bucket.Close() }()
	s := store.New(pgtest.New(t))
	for range 2 {
		if err := Attach(t.Context(), s, bucket, true); err != nil {
			t.Fatal(err)
		}
	}
	l := New(s, bucket, 0, slog.New(slog.DiscardHandler))
	small, _ := put(t, l, "a", "one")
	if got := read(t, l, small); got != "one" {
		t.Errorf("%q", got)
	}
	size := int64(4*partSize + 1234)
	r, err := l.Receive(t.Context(), io.LimitReader(zeros{}, size), content.MaxMedia)
	if err != nil {
		t.Fatal(err)
	}
	if r.Size != size || server.seen["part"] != 5 || len(server.objects[r.blob]) != int(size) {
		t.Errorf("%d bytes in %d parts, %d kept", r.Size, server.seen["part"], len(server.objects[r.blob]))
	}
	if _, err := l.Receive(t.Context(), io.LimitReader(zeros{}, size), size-1); err == nil {
		t.Error("a file that is too large was kept")
	}
	l.Discard(t.Context(), r)
	if waiting, err := l.Delete(t.Context(), small.ID); waiting != 0 || err != nil {
		t.Errorf("%d, %v", waiting, err)
	}
	if got := keys(t, bucket); len(got) != 1 || got[0] != markKey {
		t.Errorf("left: %v", got)
	}
}

// A blob store that takes a request and says nothing costs an upload its place for a while only.
func TestABucketThatDoesNotAnswer(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer srv.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	bucket, err := Open(t.Context(), "s3://files?region=eu-south-1&endpoint="+srv.URL+"&use_path_style=true")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bucket.Close() }()
	l, s := library(t, memory(t), 0)
	m, _ := put(t, l, "a", "one")
	u := NewUploader(s, bucket, nil, slog.New(slog.DiscardHandler))
	u.opening = time.Millisecond
	err = u.Upload(t.Context(), "100", store.MediaAt{ID: m.ID, PhoneNumberID: "200"}, "token")
	if _, ok := errors.AsType[*StoreError](err); !ok {
		t.Errorf("%v", err)
	}
}
