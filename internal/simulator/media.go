package simulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// DefaultMediaBytes is how many bytes of uploaded files are kept at most.
	DefaultMediaBytes = 1 << 30

	mediaLife    = 30 * 24 * time.Hour // of an uploaded file and its id
	linkLife     = 5 * time.Minute     // of a file's address
	maxMedia     = 10_000              // ids remembered; the oldest are forgotten
	maxReceiving = 16                  // uploads read at once; others wait
	maxFileSize  = 100 << 20           // bytes of the largest kind of media
)

// mediaSizes are the types that Meta takes, and how large each may be, in bytes.
var mediaSizes = func() map[string]int64 {
	sizes := map[string]int64{"image/webp": 500 << 10}
	for most, types := range map[int64]string{
		16 << 20:    "audio/aac audio/amr audio/mpeg audio/mp4 audio/ogg audio/opus video/mp4 video/3gpp",
		5 << 20:     "image/jpeg image/png",
		maxFileSize: "text/plain application/pdf application/msword application/vnd.ms-excel application/vnd.ms-powerpoint",
	} {
		for _, t := range strings.Fields(types) {
			sizes[t] = most
		}
	}
	for _, t := range strings.Fields("wordprocessingml.document spreadsheetml.sheet presentationml.presentation") {
		sizes["application/vnd.openxmlformats-officedocument."+t] = maxFileSize
	}
	return sizes
}()

// media is an uploaded file; deleted and expired ones are remembered, without bytes.
type media struct {
	id, phone, mime, sha string
	size                 int64
	blob                 *blob // nil: bytes not kept any more
	expires              time.Duration
	deleted              bool
}

func (f *media) live(now time.Duration) bool { return !f.deleted && now < f.expires }

// serveMediaUpload answers POST /{phone}/media. The file goes to the depot as it comes.
func (s *Server) serveMediaUpload(w http.ResponseWriter, r *http.Request) {
	c := &call{r: r, id: r.PathValue("id")}
	if !c.pathOK() {
		s.serveUnknown(w, r)
		return
	}
	body, fault := s.receiveMedia(c)
	s.answerCall(w, c, body, fault)
}

func (s *Server) receiveMedia(c *call) (any, *graphError) {
	if !tokenOK(c.r, s.settings.Load().token) {
		return nil, errToken
	}
	if _, fault := s.locked(c, func(c *call) (any, *graphError) {
		_, fault := s.numberOf(c)
		return nil, fault
	}); fault != nil {
		return nil, fault
	}
	done, ok := s.managed.receive(c)
	if !ok {
		return nil, errInternal
	}
	defer done()
	var f *media
	fault := c.readForm(c.r, func(part *multipart.Part) *graphError {
		if f != nil {
			return invalid(100, "Param file must be one file.")
		}
		var fault *graphError
		f, fault = s.keepPart(part)
		return fault
	})
	if fault == nil {
		fault = checkMedia(c, f)
	}
	if fault != nil {
		if f != nil {
			s.managed.depot.drop(f.blob)
		}
		return nil, fault
	}
	return s.locked(c, func(c *call) (any, *graphError) {
		f.id, f.phone, f.expires = s.newID(idMedia), c.id, c.now+mediaLife
		s.managed.addMedia(f)
		return map[string]string{"id": f.id}, nil
	})
}

// receive waits for a place among the uploads read at once.
func (m *managed) receive(c *call) (done func(), ok bool) {
	select {
	case m.receiving <- struct{}{}:
		return func() { <-m.receiving }, true
	case <-c.r.Context().Done():
		return nil, false
	}
}

// keepPart stores the file of a form and hashes it on the way.
func (s *Server) keepPart(part *multipart.Part) (*media, *graphError) {
	f := &media{mime: part.Header.Get("Content-Type"), blob: &blob{d: &s.managed.depot}}
	sum := sha256.New()
	_, err := io.Copy(io.MultiWriter(f.blob, sum), io.LimitReader(part, maxFileSize+1))
	err = errors.Join(err, f.blob.seal())
	f.size, f.sha = f.blob.size, hex.EncodeToString(sum.Sum(nil))
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		s.managed.depot.drop(f.blob)
		return nil, invalid(100, "The file was cut off.")
	case err != nil:
		s.managed.depot.drop(f.blob)
		return nil, coded(131000, 0, "The file could not be received: "+err.Error())
	case f.size > maxFileSize:
		s.managed.depot.drop(f.blob)
		return nil, invalid(100, "Param file must be at most 100 MB large.")
	}
	return f, nil
}

// checkMedia checks an upload's form and settles the file's type: that of its part or,
// where that says nothing, the parameter type.
func checkMedia(c *call, f *media) *graphError {
	c.product()
	if f == nil {
		c.wrong(100, "The parameter file is required.")
		return c.fault
	}
	if kind, _, err := mime.ParseMediaType(f.mime); err == nil && kind != "application/octet-stream" {
		f.mime = kind
	} else {
		f.mime = c.required("type", 128)
	}
	most := mediaSizes[f.mime]
	switch {
	case most == 0:
		c.wrong(100, "Param file must be a file with one of the types that WhatsApp supports. Received file of type '%.64s'.", f.mime)
	case f.size == 0:
		c.wrong(100, "Param file must not be empty.")
	case f.size > most:
		c.wrong(100, "Param file must be at most %d bytes large for type %s.", most, f.mime)
	}
	return c.fault
}

// addMedia keeps a file, and of the oldest no more than there is room for.
func (m *managed) addMedia(f *media) {
	m.media[f.id] = f
	m.mediaAge = append(m.mediaAge, f)
	if len(m.mediaAge) > maxMedia {
		oldest := m.mediaAge[0]
		m.depot.drop(oldest.blob)
		delete(m.media, oldest.id)
		m.mediaAge[0] = nil
		m.mediaAge = m.mediaAge[1:]
	}
	m.trim()
}

// trim drops the bytes of the oldest files, of media before those of uploads, until there
// are no more than are kept. An upload that is not complete starts anew.
func (m *managed) trim() {
	for _, f := range m.mediaAge {
		if m.depot.bytes() <= m.mediaKeep {
			return
		}
		m.depot.drop(f.blob)
		f.blob = nil
	}
	for _, u := range m.uploadAge {
		if m.depot.bytes() <= m.mediaKeep {
			return
		}
		if !u.busy {
			m.depot.drop(u.blob)
			u.blob = &blob{d: &m.depot}
		}
	}
}

// mediaOf is the media that a GET or DELETE is about.
func (s *Server) mediaOf(c *call) (*media, *graphError) {
	f := s.managed.media[c.id]
	if f == nil || !f.live(c.now) {
		return nil, errUnknownObject
	}
	if phone := c.text("phone_number_id"); phone != "" && phone != f.phone {
		return nil, errUnknownObject
	}
	return f, nil
}

func (s *Server) readMedia(c *call) (any, *graphError) {
	f, fault := s.mediaOf(c)
	if fault != nil {
		return nil, fault
	}
	return map[string]any{
		"messaging_product": "whatsapp", "id": f.id, "mime_type": f.mime, "sha256": f.sha, "file_size": f.size,
		"url": s.freshLink(c, f.id),
	}, nil
}

func (s *Server) deleteMedia(c *call) (any, *graphError) {
	f, fault := s.mediaOf(c)
	if fault != nil {
		return nil, fault
	}
	s.managed.depot.drop(f.blob)
	f.blob, f.deleted = nil, true
	return success, nil
}

// freshLink is a file's address, good for five minutes (rounded up to a second).
func (s *Server) freshLink(c *call, id string) string {
	return s.fileLink(c.r, id, s.epoch.Add(c.now+linkLife+time.Second-1).Unix())
}

func (s *Server) fileHash(id, ext string) string {
	mac := hmac.New(sha256.New, s.managed.secret[:])
	_, _ = fmt.Fprint(mac, id, "\n", ext) // never fails (hash.Hash)
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// serveFile answers GET /_media/{id}: the bytes of a file to who has the token and an
// address that is still good, 404 otherwise.
func (s *Server) serveFile(w http.ResponseWriter, r *http.Request) {
	c := &call{r: r, id: r.PathValue("id")}
	set := s.settings.Load()
	if !tokenOK(r, set.token) {
		s.answerCall(w, c, nil, errToken)
		return
	}
	ext, hash := r.URL.Query().Get("ext"), r.URL.Query().Get("hash")
	until, err := strconv.ParseInt(ext, 10, 64)
	good := err == nil && hmac.Equal([]byte(hash), []byte(s.fileHash(c.id, ext))) &&
		s.epoch.Add(s.now()).Before(time.Unix(until, 0))
	var file io.ReadSeekCloser
	var kind string
	if good {
		if _, fault := s.locked(c, func(c *call) (any, *graphError) {
			var b *blob
			if b, kind = s.managed.file(c.id, c.now); b == nil {
				return nil, errUnknownObject
			}
			file, err = b.open()
			return nil, nil
		}); fault != nil {
			good = false
		}
	}
	if !good || err != nil {
		s.answerCall(w, c, nil, errUnknownObject)
		return
	}
	defer func() { _ = file.Close() }() // only read from
	s.mu.Lock()
	s.managed.calls.add(Call{AtMS: s.now().Milliseconds(), Method: r.Method, Path: r.URL.Path, Status: http.StatusOK})
	s.mu.Unlock()
	if s.wait(r.Context(), set.answerAfter()) {
		w.Header().Set("Content-Type", kind)
		http.ServeContent(w, r, "", time.Time{}, file)
	}
}

// file is the file with that id, of any kind, and its MIME type.
func (m *managed) file(id string, now time.Duration) (*blob, string) {
	if f := m.media[id]; f != nil && f.live(now) {
		return f.blob, f.mime
	}
	if u := m.uploads[id]; u != nil && u.done() && u.blob.size > 0 {
		return u.blob, u.mime
	}
	if f := m.flows[id]; f != nil && f.json != nil {
		return &blob{data: f.json}, "application/json"
	}
	return nil, ""
}
