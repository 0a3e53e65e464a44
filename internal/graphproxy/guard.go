package graphproxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"wagate/internal/cloudapi"
)

// A body can ask for another call than its request shows: Graph takes its parameters from there too, and answers a batch on
// any path. So the names of a body's parameters are looked at while it streams through; a name that is refused is never
// sent whole, and what was sent before it is no whole request.

// refusedNames are parameters that no call may carry, keyNames those that hold a token or are made of one.
var (
	refusedNames = cloudapi.RequestParameters
	keyNames     = cloudapi.KeyParameters
)

const (
	maxName       = 256     // bytes of a parameter's name
	maxPartHeader = 4 << 10 // bytes of a part's headers
)

// refusedBody is why a body is not sent on.
type refusedBody struct{ message string }

// Error implements error.
func (e *refusedBody) Error() string { return e.message }

// names are what a body's parameters must not be called, beside those that none may.
type names []string

func (also names) check(name string) error {
	if slices.Contains(refusedNames, name) || slices.Contains(keyNames, name) || slices.Contains(also, name) {
		return &refusedBody{"The parameter " + name + " is not supported in a body"}
	}
	return nil
}

var errLongName = &refusedBody{"The body has a parameter with too long a name, or is no form"}

// guard looks at a body as it passes.
type guard interface {
	// feed takes the next bytes; its error says that neither they nor more may go out.
	feed(p []byte) error
}

type guards []guard

func (all guards) feed(p []byte) error {
	for _, g := range all {
		if err := g.feed(p); err != nil {
			return err
		}
	}
	return nil
}

// guardOf picks the guard of a request's body, and the content type it is sent on with.
func guardOf(r *http.Request, who Caller, c *call) (guard, string, *Error) {
	if coding := r.Header.Values("Content-Encoding"); len(coding) > 1 || len(coding) == 1 && !strings.EqualFold(coding[0], "identity") {
		return nil, "", &Error{Status: http.StatusUnsupportedMediaType, Code: codeParameter, Message: "The body must not be compressed"}
	}
	given := r.Header.Values("Content-Type")
	if len(given) > 1 {
		return nil, "", parameter("The request has several content types")
	}
	full := strings.Join(given, "")
	kind, params, err := mime.ParseMediaType(full)
	if err != nil && full != "" {
		return nil, "", parameter("The content type cannot be read")
	}
	if charset := strings.ToLower(params["charset"]); !slices.Contains([]string{"", "utf-8", "utf8", "us-ascii", "iso-8859-1"}, charset) {
		return nil, "", parameter("The body must be UTF-8")
	}
	var also names
	if kinds[c.edge] != "" || len(who.PhoneNumbers) > 0 {
		also = names{"fields"} // they would say what the answer calls an id, which is learned from; or show what is not the key's
	}
	form := kind == "application/x-www-form-urlencoded"
	switch {
	case c.upload() && (form || kind == "multipart/form-data" || strings.Contains(kind, "json")):
		return nil, "application/octet-stream", nil // a file, whatever a client calls it (curl calls it a form): it must not be read as one
	case c.upload():
		return nil, full, nil
	case strings.HasPrefix(kind, "multipart/"):
		if !boundaryForm.MatchString(params["boundary"]) {
			return nil, "", parameter("The boundary of the form cannot be read")
		}
		return &partGuard{names: also, delimiter: []byte("--" + params["boundary"])}, full, nil
	case strings.Contains(kind, "json"):
		return &jsonGuard{names: also}, full, nil
	case form:
		return &formGuard{names: also}, full, nil
	}
	return guards{&jsonGuard{names: also}, &formGuard{names: also}}, full, nil // nobody knows what Graph takes it for
}

// formGuard reads the names of an urlencoded form.
type formGuard struct {
	names
	name  []byte
	value bool // in a value
}

func (g *formGuard) feed(p []byte) error {
	for _, b := range p {
		switch {
		case b == '&':
			g.name, g.value = g.name[:0], false
		case g.value:
		case b == '=':
			g.value = true
			if err := g.check(parameterName(string(g.name))); err != nil {
				return err
			}
		case len(g.name) == maxName:
			return errLongName
		default:
			g.name = append(g.name, b)
		}
	}
	return nil
}

// jsonGuard reads the names of the outermost members.
type jsonGuard struct {
	names
	depth    int
	inString bool
	escaped  bool
	text     []byte // of the newest string of the outermost object
	ended    bool   // ... which has just ended: a colon makes it a name
}

func (g *jsonGuard) feed(p []byte) error {
	for _, b := range p {
		if err := g.next(b); err != nil {
			return err
		}
	}
	return nil
}

func (g *jsonGuard) next(b byte) error {
	if g.inString {
		if b == '"' && !g.escaped {
			g.inString, g.ended = false, g.depth == 1
			return nil
		}
		g.escaped = b == '\\' && !g.escaped
		if g.depth == 1 && len(g.text) <= 6*maxName { // the longest way to write it
			g.text = append(g.text, b)
		}
		return nil
	}
	switch b {
	case ' ', '\t', '\r', '\n':
		return nil
	case '"':
		g.inString, g.escaped, g.text = true, false, g.text[:0]
	case '{', '[':
		g.depth++
	case '}', ']':
		g.depth--
	case ':':
		if g.ended {
			return g.named()
		}
	}
	g.ended = false
	return nil
}

func (g *jsonGuard) named() error {
	g.ended = false
	var name string
	if len(g.text) > 6*maxName || json.Unmarshal(slices.Concat([]byte{'"'}, g.text, []byte{'"'}), &name) != nil {
		return errLongName
	}
	return g.check(cloudapi.FoldParameter(name))
}

// boundaryForm is what a boundary is made of by RFC 2046, less what would need quotes read in one way only.
var boundaryForm = regexp.MustCompile(`^[A-Za-z0-9'()+_,./:=?-]{1,70}$`)

var (
	partName    = regexp.MustCompile(`(?i)(?:^|[^a-z0-9_])name\*?[0-9]*\*?[ \t]*=[ \t]*("[^"]*"|[^;\s]*)`)
	plainName   = regexp.MustCompile(`^[A-Za-z0-9_.\[\]-]{1,100}$`)
	partHeaders = []string{"content-disposition", "content-type", "content-length", "content-transfer-encoding"}
	errPart     = &refusedBody{"The headers of a part of the form cannot be read"}
	headersOver = [][]byte{[]byte("\n\n"), []byte("\n\r\n")}
)

// partGuard reads the headers of the parts of a form. It takes every place where the delimiter stands for the beginning of a
// part, and reads nothing that might be read in two ways.
type partGuard struct {
	names
	delimiter []byte
	tail      []byte // of what has passed, less than a delimiter
	header    []byte
	inHeader  bool
}

func (g *partGuard) feed(p []byte) error {
	for len(p) > 0 {
		if g.inHeader {
			n, err := g.headers(p)
			if err != nil {
				return err
			}
			p = p[n:]
			continue
		}
		window := slices.Concat(g.tail, p)
		at := bytes.Index(window, g.delimiter)
		if at < 0 {
			g.tail = append(g.tail[:0], window[max(0, len(window)-len(g.delimiter)+1):]...)
			return nil
		}
		p = window[at+len(g.delimiter):]
		g.tail, g.header, g.inHeader = g.tail[:0], g.header[:0], true
	}
	return nil
}

// headers takes bytes of a part's headers and gives how many.
func (g *partGuard) headers(p []byte) (int, error) {
	before := len(g.header)
	g.header = append(g.header, p[:min(len(p), maxPartHeader+1-before)]...)
	if bytes.HasPrefix(g.header, []byte("--")) { // the end of the form; what follows is searched on
		g.inHeader = false
		return max(2-before, 0), nil
	}
	end := -1
	for _, over := range headersOver {
		if i := bytes.Index(g.header, over); i >= 0 && (end < 0 || i+len(over) < end) {
			end = i + len(over)
		}
	}
	switch {
	case end >= 0:
		g.inHeader = false
		return end - before, g.part(g.header[:end])
	case len(g.header) > maxPartHeader:
		return 0, errPart
	}
	return len(p), nil
}

// part checks the headers of one part.
func (g *partGuard) part(header []byte) error {
	named := 0
	for i, line := range strings.Split(strings.ReplaceAll(string(header), "\r\n", "\n"), "\n") {
		switch {
		case i == 0 && strings.TrimSpace(line) == "", line == "":
			continue // what follows the delimiter; the end
		case strings.ContainsAny(line, "\r\x00"), line[0] == ' ', line[0] == '\t':
			return errPart
		}
		name, value, ok := strings.Cut(line, ":")
		name = strings.ToLower(strings.TrimSpace(name))
		if !ok || !slices.Contains(partHeaders, name) {
			return errPart
		}
		if name != "content-disposition" {
			continue
		}
		found := partName.FindAllStringSubmatch(value, -1)
		if named++; named > 1 || len(found) != 1 {
			return errPart
		}
		parameter := strings.Trim(found[0][1], `"`)
		if !plainName.MatchString(parameter) {
			return errPart
		}
		if err := g.check(cloudapi.FoldParameter(parameter)); err != nil {
			return err
		}
	}
	if named != 1 {
		return errPart
	}
	return nil
}

// asRefused gives the refusal that an error holds.
func asRefused(err error) (*Error, bool) {
	if r, ok := errors.AsType[*refusedBody](err); ok {
		return parameter(r.message), true
	}
	return nil, false
}
