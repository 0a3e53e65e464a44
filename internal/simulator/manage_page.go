package simulator

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
)

const (
	defaultPage = 25 // entries of one answer, as in the Graph API
	maxPage     = 1000
)

type cursors struct {
	Before string `json:"before"`
	After  string `json:"after"`
}

type paging struct {
	Cursors  cursors `json:"cursors"`
	Previous string  `json:"previous,omitempty"`
	Next     string  `json:"next,omitempty"`
}

// listing is the answer of an edge.
type listing struct {
	Data   []any   `json:"data"`
	Paging *paging `json:"paging,omitempty"`
}

// page answers the part of all that the call asks for, by limit and after or before. all
// ascends by key; most bounds the limit.
func page[T any](c *call, all []T, key func(T) string, most int64, show func(T) any) (any, *graphError) {
	limit := int(c.number("limit", defaultPage, 1, most))
	after, before := c.cursor("after"), c.cursor("before")
	if c.fault != nil {
		return nil, c.fault
	}
	from, to := 0, len(all)
	if after != "" {
		from = sort.Search(len(all), func(i int) bool { return key(all[i]) > after })
	}
	if before != "" {
		to = max(from, sort.Search(len(all), func(i int) bool { return key(all[i]) >= before }))
		from = max(from, to-limit)
	}
	to = min(to, from+limit)
	out := listing{Data: make([]any, 0, to-from)}
	for _, v := range all[from:to] {
		out.Data = append(out.Data, show(v))
	}
	if from == to {
		return out, nil
	}
	p := &paging{Cursors: cursors{cursorOf(key(all[from])), cursorOf(key(all[to-1]))}}
	if from > 0 {
		p.Previous = c.link(limit, "before", p.Cursors.Before)
	}
	if to < len(all) {
		p.Next = c.link(limit, "after", p.Cursors.After)
	}
	out.Paging = p
	return out, nil
}

func cursorOf(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

func (c *call) cursor(name string) string {
	raw, err := base64.RawURLEncoding.DecodeString(c.text(name))
	if err != nil {
		c.wrong(100, "Param %s is not a cursor of a former answer", name)
	}
	return string(raw)
}

// link is the address of another page: the call's own with its cursor changed and, as
// Meta does it, with the caller's token.
func (c *call) link(limit int, name, cursor string) string {
	q := c.r.URL.Query()
	q.Del("after")
	q.Del("before")
	q.Set("access_token", presented(c.r))
	q.Set("limit", strconv.Itoa(limit))
	q.Set(name, cursor)
	return "http://" + c.r.Host + c.r.URL.Path + "?" + q.Encode()
}

// fileLink is the address of a file of ours, good until the given Unix time.
func (s *Server) fileLink(r *http.Request, id string, until int64) string {
	ext := strconv.FormatInt(until, 10)
	return "http://" + r.Host + "/_media/" + id + "?" + url.Values{"ext": {ext}, "hash": {s.fileHash(id, ext)}}.Encode()
}

// node is what can be asked of a kind of nodes.
type node[T any] struct {
	name     string // as errors call it
	defaults string // fields of an answer to a request that names none
	fields   map[string]func(T) any
}

// read reads a fields parameter: names, each with {…} or .method(…) after it if it
// likes. It says which name is none of the node's.
func (n *node[T]) read(text string) ([]string, *graphError) {
	if text == "" {
		text = n.defaults
	}
	names := []string{"id"}
	depth, start := 0, 0
	for i := 0; i <= len(text); i++ {
		switch {
		case i < len(text) && (text[i] == '{' || text[i] == '('):
			depth++
			continue
		case i < len(text) && (text[i] == '}' || text[i] == ')'):
			depth--
			continue
		case i < len(text) && (text[i] != ',' || depth > 0):
			continue
		}
		name := strings.TrimSpace(text[start:i])
		if cut := strings.IndexAny(name, "{.("); cut >= 0 {
			name = name[:cut]
		}
		start = i + 1
		if _, ok := n.fields[name]; !ok || depth != 0 {
			return nil, &graphError{
				status: http.StatusBadRequest, code: 100, details: "Check the fields parameter.",
				message: fmt.Sprintf("(#100) Tried accessing nonexisting field (%.64s) on node type (%s)", name, n.name),
			}
		}
		names = append(names, name)
	}
	return names, nil
}

// show is the node with the fields named; one without a value is left out.
func (n *node[T]) show(v T, names []string) map[string]any {
	out := make(map[string]any, len(names))
	for _, name := range names {
		if value := n.fields[name](v); value != nil {
			out[name] = value
		}
	}
	return out
}

// answer is the node as the call's fields parameter wants it.
func (n *node[T]) answer(c *call, v T) (any, *graphError) {
	names, fault := n.read(c.text("fields"))
	if fault != nil {
		return nil, fault
	}
	return n.show(v, names), nil
}

// page is a page of such nodes.
func (n *node[T]) page(c *call, all []T, key func(T) string) (any, *graphError) {
	names, fault := n.read(c.text("fields"))
	if fault != nil {
		return nil, fault
	}
	return page(c, all, key, maxPage, func(v T) any { return n.show(v, names) })
}
