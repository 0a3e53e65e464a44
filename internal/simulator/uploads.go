package simulator

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	uploadPrefix = "upload:"
	maxUploads   = 1000 // sessions remembered; the oldest are forgotten
	uploadLife   = 24 * time.Hour
)

var uploadTypes = map[string]bool{
	"application/pdf": true, "image/jpeg": true, "image/jpg": true, "image/png": true, "video/mp4": true,
}

// upload is a session of the resumable upload API: for pictures of profiles and for
// headers of templates.
type upload struct {
	id, session, sig, mime string
	length                 int64
	blob                   *blob
	handle                 string
	started                time.Duration
	busy                   bool // a request writes to blob
}

func (u *upload) done() bool { return u.handle != "" }

// startUpload answers POST /{app}/uploads. As with Meta the session's id ends in a
// query, so that who drops queries on the way is found out.
func (s *Server) startUpload(c *call) (any, *graphError) {
	name, mime := c.required("file_name", 512), c.required("file_type", 64)
	length := c.number("file_length", 0, 1, maxFileSize)
	switch {
	case c.fault != nil:
	case name == "":
	case length == 0:
		c.wrong(100, "The parameter file_length is required.")
	case !uploadTypes[mime]:
		c.wrong(100, "Param file_type must be one of {application/pdf, image/jpeg, image/jpg, image/png, video/mp4}")
	}
	if c.fault != nil {
		return nil, c.fault
	}
	m := s.managed
	u := &upload{id: s.newID(idUpload), mime: mime, length: length, blob: &blob{d: &m.depot}, started: c.now}
	u.session = uploadPrefix + base64.RawURLEncoding.EncodeToString([]byte("1:attachment:"+u.id))
	u.sig = s.fileHash(u.id, "sig")
	m.uploads[u.id] = u
	m.uploadAge = append(m.uploadAge, u)
	if len(m.uploadAge) > maxUploads {
		m.forgetUpload()
	}
	return map[string]string{"id": u.session + "?sig=" + u.sig}, nil
}

func (m *managed) forgetUpload() {
	oldest := m.uploadAge[0]
	m.uploadAge[0] = nil
	m.uploadAge = m.uploadAge[1:]
	delete(m.uploads, oldest.id)
	delete(m.handles, oldest.handle)
	if !oldest.busy { // else who receives it drops it
		m.depot.drop(oldest.blob)
	}
}

// uploadOf is the session a call is about. A client that escapes the id in the path
// sends its query there.
func (s *Server) uploadOf(c *call) (*upload, *graphError) {
	session, query, _ := strings.Cut(c.id, "?")
	sig := c.r.URL.Query().Get("sig")
	if sig == "" {
		sig = strings.TrimPrefix(query, "sig=")
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(session, uploadPrefix))
	u := s.managed.uploads[strings.TrimPrefix(string(raw), "1:attachment:")]
	if err != nil || u == nil || u.sig != sig || c.now-u.started > uploadLife {
		return nil, errUnknownObject
	}
	return u, nil
}

func (s *Server) readUpload(c *call) (any, *graphError) {
	u, fault := s.uploadOf(c)
	switch {
	case fault != nil:
		return nil, fault
	case u.busy:
		return nil, errUploadBusy
	}
	return map[string]any{"id": u.session + "?sig=" + u.sig, "file_offset": u.blob.size}, nil
}

var errUploadBusy = coded(2, 0, "Another request is sending this file. Ask again when it is over.")

// receiveUpload answers POST /upload:{session}: it appends the body from file_offset on,
// which must be what has come so far. What arrives before a connection breaks stays.
func (s *Server) receiveUpload(c *call) (any, *graphError) {
	done, ok := s.managed.receive(c)
	if !ok {
		return nil, errInternal
	}
	defer done()
	var u *upload
	if _, fault := s.locked(c, func(c *call) (_ any, fault *graphError) {
		if u, fault = s.uploadOf(c); fault != nil {
			return nil, fault
		}
		offset, err := strconv.ParseInt(c.r.Header.Get("file_offset"), 10, 64)
		switch {
		case u.busy:
			return nil, errUploadBusy
		case u.done():
			return nil, invalid(100, "The upload is complete.")
		case err != nil || offset != u.blob.size:
			return nil, invalid(100, fmt.Sprintf("The header file_offset must be %d.", u.blob.size))
		}
		u.busy = true
		return nil, nil
	}); fault != nil {
		return nil, fault
	}
	room := u.length - u.blob.size
	_, err := io.Copy(u.blob, io.LimitReader(c.r.Body, room))
	if err == nil {
		var one [1]byte
		if n, _ := io.ReadFull(c.r.Body, one[:]); n > 0 {
			err = errTooLong
		}
	}
	err = errors.Join(err, u.blob.seal())
	return s.locked(c, func(*call) (any, *graphError) { return s.received(u, err) })
}

var errTooLong = errors.New("more bytes than file_length")

// received ends a request that has sent to a session.
func (s *Server) received(u *upload, err error) (any, *graphError) {
	m := s.managed
	u.busy = false
	switch {
	case m.uploads[u.id] != u: // forgotten meanwhile
		m.depot.drop(u.blob)
		return nil, errUnknownObject
	case errors.Is(err, errTooLong):
		m.depot.drop(u.blob)
		u.blob = &blob{d: &m.depot}
		return nil, invalid(100, fmt.Sprintf("The body has more than the %d bytes that the session was started for.", u.length))
	case err != nil:
		m.trim()
		return nil, coded(131000, 0, "The file could not be received.")
	case u.blob.size < u.length:
		m.trim()
		return map[string]any{"id": u.session + "?sig=" + u.sig, "file_offset": u.blob.size}, nil
	}
	m.trim()
	u.handle = "4::" + base64.StdEncoding.EncodeToString([]byte(u.mime)) + ":AR" + s.fileHash(u.id, "handle") + ":e:" + u.id
	m.handles[u.handle] = u
	return map[string]string{"h": u.handle}, nil
}

// checkHandle checks a file's handle where files must be ours.
func (m *managed) checkHandle(c *call, name, handle string) {
	if m.strictMedia && handle != "" && m.handles[handle] == nil {
		c.fault = &graphError{
			status: http.StatusBadRequest, code: 100, message: "(#100) Invalid parameter",
			details: fmt.Sprintf("Param %s is not the handle of an uploaded file.", name),
		}
	}
}
