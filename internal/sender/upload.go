package sender

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"sync"
	"time"

	"wagate/internal/cloudapi"
)

const (
	// uploadTime bounds an upload beside the time that its bytes take at uploadPace, in bytes a second.
	uploadTime = time.Minute
	uploadPace = 256 << 10
	maxMetaID  = 64 // bytes
)

// MediaFile is a file for Meta.
type MediaFile struct {
	PhoneNumberID string
	WABAID        string // to find its object in Meta's usage header
	Token         string // access token
	Name          string // of the file
	MIMEType      string
	Size          int64     // bytes; From gives as many
	From          io.Reader // read once
}

// UploadError is why an upload gave no id.
type UploadError struct {
	// Err is Meta's error; nil where no such answer came.
	Err *cloudapi.Error
	// HTTPStatus is 0 where no answer came.
	HTTPStatus int
	// Wait is a lower bound of the time until another attempt, by the answer's headers; 0 where they say nothing.
	Wait time.Duration
	// Cause is the error underneath where no answer came, or one that could not be read.
	Cause error
}

// Error implements error.
func (e *UploadError) Error() string {
	switch {
	case e.Err != nil:
		return e.Err.Error()
	case e.Cause != nil:
		return e.Cause.Error()
	}
	return fmt.Sprintf("HTTP status %d", e.HTTPStatus)
}

// Unwrap gives the cause.
func (e *UploadError) Unwrap() error {
	if e.Err != nil {
		return e.Err
	}
	return e.Cause
}

// UploadTime is how long an upload of so many bytes takes at the most: a minute, and the time of its bytes at 256 KiB/s.
func UploadTime(size int64) time.Duration {
	return uploadTime + time.Duration(size/uploadPace)*time.Second
}

// fileBody is the body of an upload. Once closed it reads no more, and none of it is being read: an answer may come, and the
// caller close the file, while net/http is still at it.
type fileBody struct {
	mu   sync.Mutex
	from io.Reader
	over bool
}

// Read implements io.Reader.
func (b *fileBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return 0, errors.New("the upload is over")
	}
	return b.from.Read(p)
}

// Close implements io.Closer.
func (b *fileBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	return nil
}

// Upload makes one POST /{version}/{phone number id}/media and gives the id of the answer. The file is streamed; nothing reads it
// when Upload has returned. It takes UploadTime at the most, and as long as one read of the file. An error is an *UploadError. It
// takes part in no limit here.
func (s *Sender) Upload(ctx context.Context, f MediaFile) (id string, err error) {
	fail := func(err error) (string, error) { return "", &UploadError{Cause: err} }
	if !isPhoneID(f.PhoneNumberID) {
		return fail(errors.New("the phone number id cannot be one"))
	}
	if f.Token == "" || len(f.Token) > maxToken || !isHeaderValue(f.Token) {
		return fail(errors.New("the access token is empty or cannot stand in a header"))
	}
	head, tail, kind, err := mediaForm(f)
	if err != nil {
		return fail(err)
	}
	ctx, cancel := context.WithTimeout(ctx, UploadTime(f.Size))
	defer cancel()
	u := s.base
	u.Path += f.PhoneNumberID + "/media"
	file := &fileBody{from: io.MultiReader(bytes.NewReader(head), io.LimitReader(f.From, f.Size), bytes.NewReader(tail))}
	defer func() { _ = file.Close() }() // never fails
	r := &http.Request{
		Method: http.MethodPost, URL: &u, Host: u.Host,
		Header: http.Header{"Authorization": {"Bearer " + f.Token}, "User-Agent": agent, "Content-Type": {kind}},
		// Its length is known, and it cannot be read twice: net/http repeats nothing.
		Body:          file,
		ContentLength: int64(len(head)) + f.Size + int64(len(tail)),
	}
	answer, err := s.uploads.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return fail(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return "", &UploadError{HTTPStatus: answer.StatusCode, Cause: err}
	}
	var ok struct {
		ID string `json:"id"`
	}
	if answer.StatusCode/100 == 2 && json.Unmarshal(body, &ok) == nil && ok.ID != "" && len(ok.ID) <= maxMetaID && isHeaderValue(ok.ID) {
		return ok.ID, nil
	}
	out := &UploadError{HTTPStatus: answer.StatusCode}
	if e, is := cloudapi.ParseError(answer.StatusCode, body); is {
		out.Err = e
	}
	if now := time.Now(); answer.StatusCode >= 400 {
		out.Wait = max(cloudapi.RetryAfter(answer.Header, now), cloudapi.ManagementRegain(answer.Header, f.WABAID))
	}
	return "", out
}

// mediaForm gives what stands before and behind the file in the form of an upload, and the form's content type.
func mediaForm(f MediaFile) (head, tail []byte, kind string, err error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	err = errors.Join(w.WriteField("messaging_product", "whatsapp"), w.WriteField("type", f.MIMEType))
	if err != nil {
		return nil, nil, "", err
	}
	_, err = w.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {multipart.FileContentDisposition("file", f.Name)}, "Content-Type": {f.MIMEType},
	})
	if err != nil {
		return nil, nil, "", err
	}
	at := b.Len()
	if err := w.Close(); err != nil {
		return nil, nil, "", err
	}
	return b.Bytes()[:at:at], b.Bytes()[at:], w.FormDataContentType(), nil
}
