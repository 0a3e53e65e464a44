package graphproxy

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// removed stands in the place of a secret.
const removed = "[removed]"

// graphHosts are the Graph API's own, whatever address the gateway reaches it by.
var graphHosts = []string{"graph.facebook.com", "graph.whatsapp.com"}

// tokenForm is what Meta's access tokens look like. A string that is one as a whole is never an id or a handle.
var tokenForm = regexp.MustCompile(`^EAA[A-Za-z0-9]{20,}$`)

// rewriter makes an answer of Meta's one of the gateway: links to the Graph API and to media lead to the gateway, and no
// token stays in it.
type rewriter struct {
	secrets []string                        // in every spelling
	graph   *url.URL                        // where the gateway finds the Graph API
	base    string                          // of the gateway's links, without a slash at the end
	version string                          // of the request, for links that have none
	media   bool                            // the answer is a media: its url is one to download from
	seal    func(raw string) (string, bool) // makes a download link of an address
}

// spellings gives a secret as it may stand in an answer.
func spellings(secret string) []string {
	if secret == "" {
		return nil
	}
	all := []string{secret}
	if q := url.QueryEscape(secret); q != secret {
		all = append(all, q)
	}
	if p := url.PathEscape(secret); p != secret && p != all[len(all)-1] {
		all = append(all, p)
	}
	return all
}

func (rw *rewriter) redact(s string) string {
	for _, secret := range rw.secrets {
		if strings.Contains(s, secret) {
			s = strings.ReplaceAll(s, secret, removed)
		}
	}
	return s
}

// json rewrites a JSON text that json.Valid has passed; what is nothing of its business stays as it is, byte by byte.
func (rw *rewriter) json(b []byte) []byte {
	out := bytes.NewBuffer(make([]byte, 0, len(b)+len(b)/8+256))
	root := bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte("{"))
	depth, key := 0, ""
	for i := 0; i < len(b); {
		switch b[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			end := endOfString(b, i)
			raw := b[i:end]
			i = end
			s := decoded(raw)
			if isKey(b, end) {
				key = s
				write(out, raw, s, rw.redact(s))
				continue
			}
			write(out, raw, s, rw.text(key, s, root && depth == 1))
			continue
		}
		next := i + 1
		if n := bytes.IndexAny(b[next:], `"{}[]`); n >= 0 {
			next += n
		} else {
			next = len(b)
		}
		out.Write(b[i:next])
		i = next
	}
	return out.Bytes()
}

// endOfString gives the place after the string that begins at i.
func endOfString(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

func isKey(b []byte, i int) bool {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i < len(b) && b[i] == ':'
}

func decoded(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	_ = json.Unmarshal(raw, &s) // it is valid
	return s
}

func write(out *bytes.Buffer, raw []byte, was, is string) {
	if is == was {
		out.Write(raw)
		return
	}
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	_ = e.Encode(is)            // a string, into memory
	out.Truncate(out.Len() - 1) // the line's end
}

// text rewrites one string; top says that it is a member of the answer itself.
func (rw *rewriter) text(key, s string, top bool) string {
	if key == "access_token" && s != "" || tokenForm.MatchString(s) {
		return removed
	}
	if len(s) > 8 && (strings.EqualFold(s[:7], "http://") || strings.EqualFold(s[:8], "https://")) {
		return rw.redact(rw.address(s, rw.media && top && key == "url"))
	}
	return rw.redact(s)
}

// address rewrites what is an address as a whole.
func (rw *rewriter) address(s string, media bool) string {
	u, err := url.Parse(s)
	if err != nil {
		return s
	}
	if media || mediaHost(u.Hostname()) {
		if link, ok := rw.seal(s); ok {
			return link
		}
	}
	query := cleanQuery(u.RawQuery)
	if !rw.isGraph(u) {
		if query == u.RawQuery {
			return s
		}
		u.RawQuery = query
		return u.String()
	}
	path := u.EscapedPath()
	if rest, ok := strings.CutPrefix(path, rw.graph.EscapedPath()); ok && sameHost(u, rw.graph) {
		path = rest
	}
	path = "/" + strings.TrimPrefix(path, "/")
	if first, _, _ := strings.Cut(path[1:], "/"); !Version.MatchString(first) {
		path = "/" + rw.version + path
	}
	if query != "" {
		path += "?" + query
	}
	return rw.base + path
}

// mediaHost says whether bytes of that host are got with the token: those of media. Meta's other hosts for content
// (scontent, pps, mmg) give them to whoever has the link.
func mediaHost(host string) bool {
	return strings.HasSuffix(strings.ToLower(host), ".fbsbx.com")
}

func (rw *rewriter) isGraph(u *url.URL) bool {
	for _, host := range graphHosts {
		if strings.EqualFold(u.Hostname(), host) {
			return true
		}
	}
	return sameHost(u, rw.graph)
}

func sameHost(a, b *url.URL) bool { return strings.EqualFold(hostPort(a), hostPort(b)) }

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[strings.ToLower(u.Scheme)]
	}
	return u.Hostname() + ":" + port
}

// cleanQuery takes tokens out of a raw query.
func cleanQuery(raw string) string {
	if raw == "" {
		return ""
	}
	var kept []string
	for pair := range strings.SplitSeq(raw, "&") {
		key, _, _ := strings.Cut(pair, "=")
		if slices.Contains(keyNames, parameterName(key)) {
			continue
		}
		kept = append(kept, pair)
	}
	return strings.Join(kept, "&")
}

// answerHeaders are those of Meta's answers that are passed on.
var answerHeaders = []string{
	"Content-Type", "Retry-After", "Www-Authenticate", "X-Business-Use-Case-Usage", "X-App-Usage", "X-Ad-Account-Usage",
	"Facebook-Api-Version", "X-Fb-Trace-Id", "X-Fb-Request-Id", "X-Fb-Rev", "X-Fb-Debug", "X-Fb-Rlafr",
}

// fileHeaders are those of a file beside them.
var fileHeaders = []string{"Content-Length", "Content-Disposition", "Content-Range", "Accept-Ranges", "Etag", "Last-Modified"}

// headers passes headers on.
func (rw *rewriter) headers(to, from http.Header, names []string) {
	for _, name := range names {
		for _, v := range from[name] {
			to.Add(name, rw.redact(v))
		}
	}
}
