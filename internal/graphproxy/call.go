package graphproxy

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"wagate/internal/cloudapi"
)

const (
	maxSegments = 8
	maxSegment  = 512  // bytes; upload sessions have the longest names
	maxSealed   = 8192 // of a link that the gateway made
	maxQuery    = 32 << 10
	// downloads is the first segment of the links that the gateway puts in the place of Meta's media links.
	downloads = "media-download"
	// library is the one collection of Meta's that stands under no id.
	library = "message_template_library"
)

// Version is the form of the first segment of a path of the Graph API. v1 is the gateway's own API.
var Version = regexp.MustCompile(`^v(?:[2-9]|[1-9][0-9]{1,2})(?:\.[0-9]{1,2})?$|^v1\.[0-9]{1,2}$`)

// segmentForm is what ids and edges are made of: upload sessions have colons and base64.
var segmentForm = regexp.MustCompile(`^[A-Za-z0-9_.:=~,@+-]+$`)

var digits = regexp.MustCompile(`^[0-9]{1,32}$`)

// plainFields are parameters of a field that lead to no other fields: of lists, and of a flow's preview.
var plainFields = regexp.MustCompile(`\.(?:limit\([0-9]+\)|invalidate\((?:true|false)\))`)

// mediaFields are those of a media.
var mediaFields = []string{"", "id", "url", "mime_type", "sha256", "file_size", "messaging_product"}

// call is a request, taken apart.
type call struct {
	method  string
	version string // as the caller wrote it
	id      string // the first segment after it
	edge    string // the second, in lower case; "" for none
	path    string // version and what follows, unescaped
	query   string // as the caller wrote it, without its key
	via     string // phone_number_id of the query
	nested  bool   // fields may ask for fields of fields
	fields  bool   // there are fields
	more    bool   // fields asks for what a media does not have
	renamed bool   // fields may give members other names
	body    bool   // a body may be sent on
}

func (c *call) upload() bool   { return strings.HasPrefix(c.id, "upload:") }
func (c *call) download() bool { return c.id == downloads }

// stream says that the bytes of the call are many: it is bounded by standing still, not by its length.
func (c *call) stream() bool {
	return c.method == http.MethodPost && (c.upload() || c.edge == "media" || c.edge == "assets")
}

// toProve says that the call deletes what would be a media of a phone number. Graph looks at the number for a media alone: of
// an id that is not known it has to be asked first what it is.
func (c *call) toProve() bool {
	return c.method == http.MethodDelete && c.edge == "" && c.via != ""
}

// parse reads a request's path and query. What could make Graph do something else than they say is refused.
func parse(r *http.Request) (*call, *Error) {
	segments := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	if n := len(segments); n > 1 && segments[n-1] == "" {
		segments = segments[:n-1]
	}
	if len(segments) < 2 || len(segments) > maxSegments {
		return nil, parameter("Unsupported request: an id is needed after the version")
	}
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		limit := maxSegment
		if i == 2 && segments[1] == downloads {
			limit = maxSealed
		}
		if err != nil || len(plain) > limit || plain == "." || plain == ".." || !segmentForm.MatchString(plain) {
			return nil, parameter("Unsupported request: the path cannot be one of the Graph API's")
		}
		segments[i] = plain
	}
	if !Version.MatchString(segments[0]) {
		return nil, parameter("Unsupported request: the path must begin with a version of the Graph API")
	}
	c := &call{
		method: r.Method, version: segments[0], id: segments[1], path: "/" + strings.Join(segments, "/"),
		body: r.Method != http.MethodGet,
	}
	if len(segments) > 2 {
		c.edge = strings.ToLower(segments[2])
	}
	if c.method != http.MethodGet {
		for _, s := range segments[2:] {
			if s = strings.ToLower(s); s == "messages" || s == "marketing_messages" {
				// A message that went past the queue would go past every limit.
				return nil, parameter("Unsupported request: messages are not forwarded")
			}
		}
	}
	if err := c.readQuery(r.URL.RawQuery); err != nil {
		return nil, err
	}
	return c, nil
}

// readQuery keeps the query, without the caller's key and what was made of it.
func (c *call) readQuery(raw string) *Error {
	if len(raw) > maxQuery {
		return parameter("The query is too long")
	}
	var kept []string
	asked := false // for a phone number
	for pair := range strings.SplitSeq(raw, "&") {
		key, value, _ := strings.Cut(pair, "=")
		name := parameterName(key)
		if slices.Contains(keyNames, name) {
			continue // of the key: Meta must not see it, and it proves nothing there
		}
		if slices.Contains(refusedNames, name) { // another method, other ids or another form of answer than the request shows
			return parameter("The parameter " + name + " is not supported by the gateway")
		}
		switch name {
		case "phone_number_id":
			exact, _ := url.QueryUnescape(key)
			via, err := url.QueryUnescape(value)
			if err != nil || (via != "" && !digits.MatchString(via)) || asked {
				return parameter("The parameter phone_number_id is not an id")
			}
			if exact != name { // Graph may not take it for the same, and then has not looked whose the media is
				return parameter("The parameter phone_number_id must be written so")
			}
			c.via, asked = via, true
		case "fields":
			fields, err := url.QueryUnescape(value)
			if err != nil {
				return parameter("The parameter fields cannot be read")
			}
			c.fields = c.fields || strings.Trim(fields, ", ") != ""
			c.nested = c.nested || strings.ContainsAny(plainFields.ReplaceAllString(fields, ""), `{}()\`) // a{b} and a.fields(b)
			c.more = c.more || slices.ContainsFunc(strings.Split(fields, ","), func(f string) bool { return !slices.Contains(mediaFields, strings.TrimSpace(f)) })
			c.renamed = c.renamed || strings.ContainsAny(fields, `(\`) // an alias, in whatever spelling, needs one of them
		}
		kept = append(kept, pair)
	}
	c.query = strings.Join(kept, "&")
	return nil
}

// parameterName gives the name that Graph, which is of PHP's family, reads out of the raw key of a query.
func parameterName(raw string) string {
	name, err := url.QueryUnescape(raw)
	if err != nil {
		name = raw
	}
	return cloudapi.FoldParameter(name)
}

// Token gives what a call presents as its access token: of the header Authorization, as Bearer or OAuth, else of the query.
func Token(r *http.Request) string {
	if kind, rest, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && (strings.EqualFold(kind, "Bearer") || strings.EqualFold(kind, "OAuth")) {
		return strings.TrimSpace(rest)
	}
	return r.URL.Query().Get("access_token")
}
