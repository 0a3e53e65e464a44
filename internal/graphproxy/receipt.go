package graphproxy

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
)

// Receipt forwards a read receipt, with or without a typing indicator: no message, so it passes no queue and no limit of
// messages, and it is no management call. It is tried once: a typing indicator is worth nothing later. Source: Meta's pages on read receipts and typing
// indicators. An error it returns was not written yet.
func (p *Proxy) Receipt(w http.ResponseWriter, r *http.Request, who Caller, version, phone string, body []byte) (err error) {
	e := &end{edge: "receipt"}
	defer func() { p.note(r.Context(), e, err) }()
	version, err = url.PathUnescape(version)
	if err != nil || !Version.MatchString(version) {
		return NoRoute(http.StatusNotFound)
	}
	c := &call{method: http.MethodPost, version: version, id: phone, edge: "messages", path: "/" + version + "/" + phone + "/messages", body: true}
	if !digits.MatchString(phone) || !who.mayUse(phone) {
		return noObject()
	}
	if !who.May(Send) {
		return Forbidden("This API key lacks the scope " + string(Send))
	}
	look, cancel := context.WithTimeout(r.Context(), lookTime)
	defer cancel()
	n, err := p.Store.GraphNode(look, phone, "", who.PhoneNumbers)
	if err != nil {
		return Failed(err)
	}
	if n.PhoneWABA == "" {
		return noObject()
	}
	t := &target{kind: phoneNode, waba: n.PhoneWABA, phone: phone, free: true}
	if err := p.open(look, c, t); err != nil {
		return err
	}
	e.waba = t.waba
	own := r.Clone(r.Context())
	own.Body, own.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	own.Header.Set("Content-Type", "application/json")
	return p.forward(w, own, who, c, t, e)
}
