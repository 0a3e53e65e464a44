package content

import "encoding/json"

// The kinds of media, as a message names them.
const (
	Image    = "image"
	Video    = "video"
	Audio    = "audio"
	Document = "document"
	Sticker  = "sticker"
)

// MediaRef is a media that a message names by an id of ours.
type MediaRef struct {
	// ID is as it stands in the message: a UUID in its 36-character form, in either case. Meta's own ids are digits.
	ID string
	// Kind is what the message takes it for: image, video, audio, document or sticker.
	Kind string
	// Pointer is the JSON Pointer of the id.
	Pointer string
	// Fallback says that it stands in gateway.fallback_template: it is needed only where that goes instead of the message.
	Fallback bool
}

// every stands for each element of an array in a path.
const every = "*"

// mediaPlaces are the objects of a message that may have a media object as a member named by its kind.
var mediaPlaces = [][]string{
	{},
	{"interactive", "header"},
	{"interactive", "action", "cards", every, "header"},
	{"template", "components", every, "parameters", every},
	{"template", "components", every, "cards", every, "components", every, "parameters", every},
}

// fallbackPlaces are those of the template that goes where the message may not.
var fallbackPlaces = [][]string{
	{"gateway", "fallback_template", "components", every, "parameters", every},
	{"gateway", "fallback_template", "components", every, "cards", every, "components", every, "parameters", every},
}

// Media gives the media that a message and its fallback template name by ids of ours, in the order in which they stand. Of what
// is no JSON object it gives none.
func Media(body []byte) []MediaRef {
	var d doc
	if d.scan(body) != nil || d.bound != "" {
		return nil
	}
	return d.media()
}

// ReplaceMedia puts other ids in the place of ours, and leaves every other byte as it is.
func ReplaceMedia(body []byte, with map[string]string) []byte {
	var d doc
	if d.scan(body) != nil || d.bound != "" {
		return body
	}
	out, from := make([]byte, 0, len(body)), 0
	d.eachMedia(func(_ string, _ bool, v value) {
		id, ok := with[string(v.str())]
		if !ok {
			return
		}
		quoted, _ := json.Marshal(id) // a string always marshals
		out = append(append(out, body[from:v.node().start]...), quoted...)
		from = v.node().end
	})
	return append(out, body[from:]...)
}

func (d *doc) media() (refs []MediaRef) {
	d.eachMedia(func(kind string, fallback bool, v value) {
		refs = append(refs, MediaRef{ID: string(v.str()), Kind: kind, Pointer: v.pointer(), Fallback: fallback})
	})
	return refs
}

// eachMedia calls f for the ids of ours in the order in which they stand. It goes through the values once and looks at few of
// them: strings named id that have the form of one.
func (d *doc) eachMedia(f func(kind string, fallback bool, v value)) {
	for at := range d.nodes {
		n := &d.nodes[at]
		if n.kind != text || string(n.key) != "id" || n.parent < 0 {
			continue
		}
		v := value{d, int32(at)}
		if !isUUID(v.str()) {
			continue
		}
		if kind, fallback := d.mediaKind(n.parent); kind != "" {
			f(kind, fallback, v)
		}
	}
}

// mediaKind gives the kind of media that an object is by its name and place; "" where it is none.
func (d *doc) mediaKind(at int32) (kind string, fallback bool) {
	n := &d.nodes[at]
	if n.kind != object || n.parent < 0 {
		return "", false
	}
	switch kind := string(n.key); kind {
	case Image, Video, Audio, Document, Sticker:
		for _, path := range mediaPlaces {
			if d.isAt(n.parent, path) {
				return kind, false
			}
		}
		for _, path := range fallbackPlaces {
			if d.isAt(n.parent, path) {
				return kind, true
			}
		}
	}
	return "", false
}

// isAt says whether a value stands at a path.
func (d *doc) isAt(at int32, path []string) bool {
	for i := len(path) - 1; i >= 0; i-- {
		parent := d.nodes[at].parent
		if parent < 0 {
			return false
		}
		if path[i] == every {
			if d.nodes[parent].kind != array {
				return false
			}
		} else if d.nodes[parent].kind != object || string(d.nodes[at].key) != path[i] {
			return false
		}
		at = parent
	}
	return d.nodes[at].parent < 0 && d.nodes[at].kind == object
}

// isUUID says whether a text is a UUID in its 36-character form.
func isUUID(b []byte) bool {
	if len(b) != 36 {
		return false
	}
	for i, c := range b {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
		} else if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}
