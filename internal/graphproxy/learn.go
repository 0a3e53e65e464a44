package graphproxy

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"wagate/internal/store"
)

// learnTime bounds the visit of the database between an answer of Meta's and its caller.
const learnTime = 2 * time.Second

// kinds says which ids the answers under an edge hold.
var kinds = map[string]string{
	"media": "media", "message_templates": "template", "flows": "flow",
	"uploads": "upload", "message_history": "history", "phone_numbers": "phone", upserts: "template",
}

// upserts is the one edge whose writes answer with a list: of the templates that were made or changed, one a language.
const upserts = "upsert_message_templates"

// learn remembers whose the ids are that an answer shows, so that a call which names one finds its WABA, on any gateway:
// before the caller gets them. Failing, it costs a later call its answer, not this one.
func (p *Proxy) learn(ctx context.Context, c *call, t *target, a *answer) {
	if a.status < 200 || a.status > 299 || t.waba == "" {
		return
	}
	ids := learned(c, t, a.body)
	if len(ids) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), learnTime)
	defer cancel()
	if err := p.Store.SeeGraphIDs(ctx, ids); err != nil {
		p.Logger.WarnContext(ctx, "ids of the Graph API were not remembered", "waba_id", t.waba, "ids", len(ids), "err", err)
	}
}

// isMedia says whether an answer is the media that was asked for.
func isMedia(c *call, body []byte) bool {
	var m struct{ ID, URL, SHA256 string }
	return c.method == http.MethodGet && c.edge == "" && !c.renamed && json.Unmarshal(body, &m) == nil && m.ID == c.id && m.URL != "" && m.SHA256 != ""
}

// learned reads the ids out of an answer.
func learned(c *call, t *target, body []byte) []store.GraphID {
	of := func(id, kind string) store.GraphID {
		g := store.GraphID{ID: id, WABAID: t.waba, Kind: kind}
		if t.phone != "" && (kind == "media" || kind == "history") {
			g.PhoneNumberID = &t.phone
		}
		return g
	}
	var ids []store.GraphID
	if t.stale && t.seen != "media" {
		ids = append(ids, of(sessionID(c.id), t.seen)) // still in use
	}
	if t.kind == objectNode {
		if t.seen == "" && c.via != "" && isMedia(c, body) {
			ids = append(ids, of(c.id, "media")) // Meta has looked whether it is of that phone number
		}
		return ids // the token may reach more than its WABA: that it did proves nothing
	}
	kind := kinds[c.edge]
	if c.method == http.MethodDelete || kind == "" || c.renamed || strings.Count(c.path, "/") > 3 {
		return ids
	}
	var shown struct {
		ID   any `json:"id"`
		Data []struct {
			ID any `json:"id"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &shown) != nil {
		return ids
	}
	add := func(v any) {
		id, _ := v.(string)
		if id = sessionID(id); id != "" && len(id) <= maxSegment && segmentForm.MatchString(id) {
			ids = append(ids, of(id, kind))
		}
	}
	if c.method != http.MethodGet && c.edge != upserts {
		add(shown.ID) // what was made, and no list, which a write has no business to show
		return ids
	}
	for _, d := range shown.Data {
		add(d.ID)
	}
	return ids
}

// writesTemplates says whether a call may change templates: of its WABA, of a template, or of an id of which nothing is known.
func writesTemplates(c *call, t *target) bool {
	if c.method == http.MethodGet || t.waba == "" || c.upload() {
		return false
	}
	return strings.HasSuffix(c.edge, "message_templates") || t.kind == objectNode && (t.seen == "template" || t.seen == "" && !c.toProve())
}

// staleTemplates notes that what is known of the templates of a WABA may not be so any more: no message is refused by it until
// their list is read again. Failing, a message may be, until then.
func (p *Proxy) staleTemplates(ctx context.Context, t *target) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), learnTime)
	defer cancel()
	if err := p.Store.StaleTemplates(ctx, t.waba); err != nil {
		p.Logger.WarnContext(ctx, "templates were written, and that was not noted", "waba_id", t.waba, "err", err)
	}
}
