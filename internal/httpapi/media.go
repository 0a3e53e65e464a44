package httpapi

import (
	"context"
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

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/cloudapi"
	"wagate/internal/content"
	"wagate/internal/media"
	"wagate/internal/store"
)

const (
	// maxFormField bounds the text fields of a form with a file, in bytes.
	maxFormField = 1024
	// maxFormParts bounds the parts of such a form.
	maxFormParts = 16
	// fileTime bounds a file on its way in or out: 100 MB at 100 KB/s take 17 minutes.
	fileTime = 30 * time.Minute
)

// mediaView is a media.
type mediaView struct {
	ID        uuid.UUID `json:"id"`
	SHA256    string    `json:"sha256"`
	Size      int64     `json:"size"`
	MIMEType  string    `json:"mime_type"`
	Filename  string    `json:"filename,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UsedAt    time.Time `json:"used_at"`
	// Uploads are where Meta has it; only of one that is asked for.
	Uploads *[]uploadView `json:"uploads,omitempty"`
}

type uploadView struct {
	PhoneNumberID string    `json:"phone_number_id"`
	MetaID        string    `json:"meta_id"`
	UploadedAt    time.Time `json:"uploaded_at"`
	// ValidUntil is up to when that id is used.
	ValidUntil time.Time `json:"valid_until"`
}

func viewMedia(m store.Media) mediaView {
	return mediaView{
		ID: m.ID, SHA256: hex.EncodeToString(m.SHA256), Size: m.Size, MIMEType: m.MIMEType, Filename: m.Filename,
		CreatedAt: m.CreatedAt.UTC(), UsedAt: m.UsedAt.UTC(),
	}
}

func (a *API) mediaRoutes() {
	a.echo.POST("/v1/media", a.authed(access.Send, a.postMedia))
	a.echo.GET("/v1/media/:id", a.authedAny([]access.Scope{access.Send, access.Manage}, a.withMedia(a.getMedia)))
	a.echo.GET("/v1/media/:id/content", a.authedAny([]access.Scope{access.Send, access.Manage}, a.withMedia(a.getMediaContent)))
	a.echo.DELETE("/v1/media/:id", a.authedAny([]access.Scope{access.Send, access.Manage}, a.withMedia(a.deleteMedia)))
}

// noMediaStore is the answer where files cannot be kept.
func noMediaStore() error {
	return newProblem(http.StatusServiceUnavailable, "no_media_store", "This gateway keeps no media: WAGATE_MEDIA is not set.")
}

// postMedia takes a file in: the body itself, or the part file of a form.
func (a *API) postMedia(c echo.Context, key access.Key) error {
	if a.Media == nil {
		return noMediaStore()
	}
	r := c.Request()
	if encoding := r.Header.Get(echo.HeaderContentEncoding); encoding != "" && encoding != "identity" {
		return newProblem(http.StatusUnsupportedMediaType, "unsupported_encoding", "The body must not be compressed.")
	}
	ctx, cancel := context.WithTimeout(r.Context(), fileTime)
	defer cancel()
	rc := http.NewResponseController(c.Response())
	_ = rc.SetWriteDeadline(time.Now().Add(fileTime + writeTimeout)) // not every connection has deadlines
	r.Body = &pacedBody{from: r.Body, rc: rc}
	f, err := a.receiveFile(ctx, r)
	if err != nil {
		return mediaProblem(err)
	}
	kept, fresh, err := a.Media.Keep(context.WithoutCancel(ctx), f.received, key.Name, key.ID, f.kind, f.name)
	if err != nil {
		return mediaProblem(err)
	}
	status := http.StatusOK
	if fresh {
		status = http.StatusCreated
	}
	c.Response().Header().Set(echo.HeaderLocation, "/v1/media/"+kept.ID.String())
	return c.JSON(status, viewMedia(kept))
}

// pacedBody is a body that may take its time as long as it moves.
type pacedBody struct {
	from io.ReadCloser
	rc   *http.ResponseController
}

// Read implements io.Reader.
func (b *pacedBody) Read(p []byte) (int, error) {
	_ = b.rc.SetReadDeadline(time.Now().Add(streamIdle)) // not every connection has deadlines
	return b.from.Read(p)
}

// Close implements io.Closer.
func (b *pacedBody) Close() error { return b.from.Close() }

// file is one that was handed in.
type file struct {
	received *media.Received
	kind     content.MediaType
	name     string
}

// receiveFile streams the file of a request into the store and settles its type. Where it gives an error nothing stays behind.
func (a *API) receiveFile(ctx context.Context, r *http.Request) (f file, err error) {
	contentType := r.Header.Get(echo.HeaderContentType)
	kind, params, _ := mime.ParseMediaType(contentType)
	if kind == "multipart/form-data" {
		return a.receiveForm(ctx, multipart.NewReader(r.Body, params["boundary"]))
	}
	if f.kind, err = mediaType(contentType, "Content-Type"); err != nil {
		return f, err
	}
	f.name = r.URL.Query().Get("filename")
	if r.ContentLength > f.kind.Max {
		return f, &media.TooLargeError{Max: f.kind.Max}
	}
	f.received, err = a.Media.Receive(ctx, r.Body, f.kind.Max)
	return f, err
}

// receiveForm reads a form: the part file, and type before or behind it, which goes before the part's own Content-Type.
func (a *API) receiveForm(ctx context.Context, form *multipart.Reader) (f file, err error) {
	defer func() {
		if err != nil && f.received != nil {
			a.Media.Discard(ctx, f.received)
		}
	}()
	var own, given string
	limit := int64(content.MaxMedia) // its type may still come
	for n := 0; ; n++ {
		part, err := form.NextPart()
		switch {
		case errors.Is(err, io.EOF) && f.received == nil:
			return f, fileFault("/file", "is required: a part with the file")
		case errors.Is(err, io.EOF) && given == "":
			f.kind, err = mediaType(own, "/file")
			return f, err
		case errors.Is(err, io.EOF):
			return f, nil
		case err != nil:
			return f, &media.BodyError{Err: err}
		case n == maxFormParts:
			return f, fileFault("", fmt.Sprintf("must have at most %d parts", maxFormParts))
		}
		switch part.FormName() {
		case "file":
			if f.received != nil {
				return f, fileFault("/file", "must be one file")
			}
			own, f.name = part.Header.Get(echo.HeaderContentType), part.FileName()
			if f.received, err = a.Media.Receive(ctx, part, limit); err != nil {
				return f, err
			}
		case "type":
			raw, err := io.ReadAll(io.LimitReader(part, maxFormField))
			if err != nil {
				return f, &media.BodyError{Err: err}
			}
			if given = strings.TrimSpace(string(raw)); given == "" {
				continue
			}
			if f.kind, err = mediaType(given, "/type"); err != nil {
				return f, err
			}
			limit = f.kind.Max
		}
	}
}

// mediaType finds the type of a file; where tells of what said it.
func mediaType(contentType, where string) (content.MediaType, error) {
	t, ok := content.MediaTypeOf(contentType)
	if ok {
		return t, nil
	}
	return t, fileFault(where, "must have a type that Meta takes, as Content-Type or type: "+strings.Join(content.MIMETypes(), ", "))
}

func fileFault(pointer, detail string) error {
	return invalid([]cloudapi.Fault{{Pointer: pointer, Detail: detail}})
}

// mediaProblem tells why a file was not taken.
func mediaProblem(err error) error {
	if large, ok := errors.AsType[*media.TooLargeError](err); ok {
		detail := "is over " + strconv.FormatInt(large.Max, 10) + " bytes, the most that Meta takes of its type"
		return newProblem(http.StatusRequestEntityTooLarge, "too_large", "The file "+detail+".", cloudapi.Fault{Pointer: "", Detail: detail})
	}
	if body, ok := errors.AsType[*media.BodyError](err); ok {
		return bodyError(body.Err)
	}
	if st, ok := errors.AsType[*media.StoreError](err); ok {
		p := newProblem(http.StatusServiceUnavailable, "media_store_unavailable", "The store of media is not available.")
		p.cause, p.retryAfter = st, dbRetryAfter
		return p
	}
	switch {
	case errors.Is(err, media.ErrEmpty):
		return fileFault("", "must not be empty")
	case errors.Is(err, media.ErrBusy):
		p := newProblem(http.StatusServiceUnavailable, "busy", "Too many files at once. Nothing was stored.")
		p.retryAfter = dbRetryAfter
		return p
	case errors.Is(err, media.ErrFileGone):
		p := newProblem(http.StatusGone, "file_gone", "The store of media has lost the file: hand it in again.")
		p.cause = err
		return p
	}
	return err
}

// withMedia finds the media of the path. A key that may send sees those of its own owner, one that may manage, and is bound to no
// phone numbers, all; others are not there.
func (a *API) withMedia(h func(c echo.Context, key access.Key, m store.Media) error) handler {
	return func(c echo.Context, key access.Key) error {
		if a.Media == nil {
			return noMediaStore()
		}
		id, err := uuid.Parse(c.Param("id"))
		if err != nil || len(c.Param("id")) != len(id.String()) {
			return store.ErrNotFound
		}
		ctx, cancel := a.bounded(c)
		m, err := a.Store.GetMedia(ctx, id)
		cancel()
		if err != nil {
			return err
		}
		if own := key.May(access.Send) && m.Owner == key.Name; !own && (!key.May(access.Manage) || len(key.PhoneNumbers) > 0) {
			return store.ErrNotFound
		}
		return h(c, key, m)
	}
}

func (a *API) getMedia(c echo.Context, key access.Key, m store.Media) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	uploads, err := a.Store.MediaUploads(ctx, m.ID)
	if err != nil {
		return err
	}
	views := make([]uploadView, 0, len(uploads))
	for _, u := range uploads {
		if key.MayUse(u.PhoneNumberID) {
			views = append(views, uploadView{u.PhoneNumberID, u.MetaID, u.UploadedAt.UTC(), u.ValidUntil.UTC()})
		}
	}
	v := viewMedia(m)
	v.Uploads = &views
	return c.JSON(http.StatusOK, v)
}

func (a *API) getMediaContent(c echo.Context, _ access.Key, m store.Media) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), fileTime)
	defer cancel()
	f, err := a.Media.Open(ctx, m)
	if err != nil {
		return mediaProblem(err)
	}
	defer func() { _ = f.Close() }() // only read
	_ = http.NewResponseController(c.Response()).SetWriteDeadline(time.Now().Add(fileTime))
	h := c.Response().Header()
	h.Set(echo.HeaderContentType, m.MIMEType)
	h.Set(echo.HeaderXContentTypeOptions, "nosniff")
	h.Set("ETag", `"`+hex.EncodeToString(m.SHA256)+`"`)
	disposition := map[string]string{}
	if m.Filename != "" {
		disposition["filename"] = m.Filename
	}
	h.Set(echo.HeaderContentDisposition, mime.FormatMediaType("attachment", disposition))
	http.ServeContent(c.Response(), c.Request(), "", time.Time{}, f)
	return nil
}

func (a *API) deleteMedia(c echo.Context, _ access.Key, m store.Media) error {
	ctx, cancel := a.bounded(c)
	defer cancel()
	waiting, err := a.Media.Delete(ctx, m.ID)
	if err == nil && waiting > 0 {
		p := newProblem(http.StatusConflict, "in_use", fmt.Sprintf("%d messages that name it are waiting, being sent or unknown.", waiting))
		p.Waiting = waiting
		return p
	}
	return gone(c, err)
}
