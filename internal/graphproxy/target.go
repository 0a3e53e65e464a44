package graphproxy

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"wagate/internal/seal"
	"wagate/internal/store"
)

// lookTime bounds one visit of the database.
const lookTime = 5 * time.Second

// target is what a call goes to: which node, with whose token.
type target struct {
	kind  nodeKind
	seen  string // the kind that graph_ids holds, for an objectNode; "" where it holds nothing
	waba  string // whose bucket the call is counted in; "" for none
	phone string // the phone number the id is, or is of; "" for none
	token string
	free  bool // no management call
	stale bool // graph_ids has seen it last more than a day ago
}

// defaultApp is the app that a gateway with a single one may have without knowing its id (see httpapi).
const defaultApp = "default"

// ambiguous is the answer to an id that says nothing of its WABA.
func ambiguous() *Error {
	return parameter("The gateway cannot tell which WhatsApp Business Account this id belongs to: use an API key that is bound to phone numbers of one account, or read the id from a list of its account first")
}

// sessionID is the name of an id in graph_ids: an upload session's ends before its signature.
func sessionID(id string) string {
	id, _, _ = strings.Cut(id, "?")
	return id
}

// resolve finds out whose the id of a call is, and whether the caller may use it.
func (p *Proxy) resolve(ctx context.Context, who Caller, c *call) (*target, error) {
	look, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	n, err := p.Store.GraphNode(look, sessionID(c.id), c.via, who.PhoneNumbers)
	if err != nil {
		return nil, Failed(err)
	}
	if len(who.PhoneNumbers) > 0 && c.nested {
		return nil, parameter("An API key that is bound to phone numbers may not ask for fields of fields")
	}
	if c.via != "" && !who.mayUse(c.via) {
		return nil, noObject()
	}
	t, refused := find(n, who, c)
	if refused != nil {
		return nil, refused
	}
	if refused := needs(c, t).allow(who); refused != nil {
		return nil, refused
	}
	return t, p.open(look, c, t)
}

// find is resolve without the database.
func find(n store.GraphNode, who Caller, c *call) (*target, *Error) {
	whole := func(waba string) bool { // the caller may use what belongs to all of a WABA
		return len(who.PhoneNumbers) == 0 || len(n.Mine) == 1 && n.Mine[0] == waba
	}
	switch {
	case c.id == library && c.method == http.MethodGet:
		return only(n.Mine, target{kind: objectNode, seen: library})
	case n.PhoneWABA != "":
		if !who.mayUse(c.id) {
			return nil, noObject()
		}
		return &target{kind: phoneNode, waba: n.PhoneWABA, phone: c.id}, nil
	case n.WABA:
		if !whole(c.id) {
			return nil, noObject()
		}
		return &target{kind: wabaNode, waba: c.id}, nil
	case c.edge == "subscriptions" && digits.MatchString(c.id):
		return &target{kind: appNode}, nil // by the app's own token
	case n.App:
		return only(n.AppWABAs, target{kind: appNode})
	case n.Seen != nil:
		return seen(n.Seen, who, whole, c)
	case c.edge == "uploads" && digits.MatchString(c.id):
		return only(n.Mine, target{kind: appNode})
	case !c.upload() && !digits.MatchString(c.id), slices.Contains(ownEdges, c.edge):
		return nil, noObject()
	case n.ViaWABA != "":
		return &target{kind: objectNode, waba: n.ViaWABA, phone: c.via}, nil
	case c.via != "":
		return nil, noObject()
	}
	return only(n.Mine, target{kind: objectNode})
}

// only gives the target the caller's one WABA.
func only(wabas []string, t target) (*target, *Error) {
	switch len(wabas) {
	case 0:
		return nil, noObject()
	case 1:
		t.waba = wabas[0]
		return &t, nil
	}
	return nil, ambiguous()
}

func seen(g *store.GraphID, who Caller, whole func(string) bool, c *call) (*target, *Error) {
	t := &target{kind: objectNode, seen: g.Kind, waba: g.WABAID, stale: time.Since(g.SeenAt) > 24*time.Hour}
	switch {
	case g.Kind == "phone":
		t.kind, t.phone = phoneNode, c.id
		if !who.mayUse(c.id) {
			return nil, noObject()
		}
		return t, nil
	case slices.Contains(ownEdges, c.edge):
		return nil, noObject()
	case g.PhoneNumberID != nil:
		t.phone = *g.PhoneNumberID
		if !who.mayUse(t.phone) {
			return nil, noObject()
		}
		return t, nil
	case !whole(g.WABAID):
		return nil, noObject()
	}
	return t, nil
}

// open gives the target its token.
func (p *Proxy) open(ctx context.Context, c *call, t *target) error {
	if t.kind == appNode && c.edge == "subscriptions" {
		return p.openApp(ctx, c, t)
	}
	w, err := p.Store.WABA(ctx, t.waba)
	if errors.Is(err, store.ErrNotFound) {
		return noObject()
	}
	if err != nil {
		return Failed(err)
	}
	if len(w.AccessToken) == 0 {
		return &Error{Status: http.StatusForbidden, Code: codeAccess, Message: "The gateway has no access token for this WhatsApp Business Account"}
	}
	token, err := p.Sealer.Open(w.AccessToken, seal.AccessToken(w.ID))
	if err != nil {
		return Failed(err)
	}
	t.token = string(token)
	return nil
}

// openApp makes an app's own token, which subscriptions take: its id and its secret.
func (p *Proxy) openApp(ctx context.Context, c *call, t *target) error {
	apps, err := p.Store.Apps(ctx)
	if err != nil {
		return Failed(err)
	}
	for _, app := range apps {
		if app.ID != c.id && (app.ID != defaultApp || len(apps) > 1) {
			continue
		}
		if len(app.Secret) == 0 {
			break
		}
		secret, err := p.Sealer.Open(app.Secret, seal.AppSecret(app.ID))
		if err != nil {
			return Failed(err)
		}
		t.token = c.id + "|" + string(secret)
		return nil
	}
	return noObject()
}
