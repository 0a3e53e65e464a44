package content

import (
	"mime"
	"slices"
	"strings"
)

// MediaType is a MIME type that Meta takes.
type MediaType struct {
	MIME string
	// Kind is what a message names it as: image, video, audio, document or sticker.
	Kind string
	// Max is how large such a file may be, in bytes.
	Max int64
	// Ext is how the names of its files end.
	Ext string
}

// Sizes of Meta's kinds of media, in bytes. Source: its page on media. Of stickers the animated ones may be that large, the
// others 100 KB; which one a file is, Meta judges.
const (
	maxImage    = 5 << 20
	maxSticker  = 500 << 10
	maxAudio    = 16 << 20
	maxVideo    = 16 << 20
	maxDocument = 100 << 20

	// MaxMedia is how large the largest kind may be.
	MaxMedia = maxDocument
)

// mediaTypes are those of Meta's page on media.
var mediaTypes = []MediaType{
	{"audio/aac", Audio, maxAudio, ".aac"},
	{"audio/amr", Audio, maxAudio, ".amr"},
	{"audio/mp4", Audio, maxAudio, ".m4a"},
	{"audio/mpeg", Audio, maxAudio, ".mp3"},
	{"audio/ogg", Audio, maxAudio, ".ogg"},
	{"audio/opus", Audio, maxAudio, ".opus"},
	{"image/jpeg", Image, maxImage, ".jpg"},
	{"image/png", Image, maxImage, ".png"},
	{"image/webp", Sticker, maxSticker, ".webp"},
	{"video/3gpp", Video, maxVideo, ".3gp"},
	{"video/mp4", Video, maxVideo, ".mp4"},
	{"text/plain", Document, maxDocument, ".txt"},
	{"application/pdf", Document, maxDocument, ".pdf"},
	{"application/msword", Document, maxDocument, ".doc"},
	{"application/vnd.ms-excel", Document, maxDocument, ".xls"},
	{"application/vnd.ms-powerpoint", Document, maxDocument, ".ppt"},
	{"application/vnd.openxmlformats-officedocument.wordprocessingml.document", Document, maxDocument, ".docx"},
	{"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", Document, maxDocument, ".xlsx"},
	{"application/vnd.openxmlformats-officedocument.presentationml.presentation", Document, maxDocument, ".pptx"},
}

// MediaTypeOf finds the type of a Content-Type; false for one that Meta does not take. Parameters (codecs, charset) count for nothing.
func MediaTypeOf(contentType string) (MediaType, bool) {
	name, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		name = strings.ToLower(strings.TrimSpace(contentType))
	}
	if i := slices.IndexFunc(mediaTypes, func(t MediaType) bool { return t.MIME == name }); i >= 0 {
		return mediaTypes[i], true
	}
	return MediaType{}, false
}

// MIMETypes lists the types that Meta takes.
func MIMETypes() []string {
	names := make([]string, len(mediaTypes))
	for i, t := range mediaTypes {
		names[i] = t.MIME
	}
	return names
}

// MediaFits says whether a message may name a file of a MIME type as a kind. As a document it may name any: Meta documents no more
// than which types it takes for sure.
func MediaFits(mimeType, kind string) bool {
	t, ok := MediaTypeOf(mimeType)
	return ok && (t.Kind == kind || kind == Document)
}
