package simulator

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	maxHistoryPage = 100
	maxHistory     = 10_000 // newest messages that a list goes through
)

// historyBase turns a message's sequence number into the id of its history.
const historyBase = int64(idHistory) * 1_000_000_000_000_000

// seqOf is the sequence number in a wamid of an accepted message; 0 for any other.
func (s *Server) seqOf(wamid string) int64 {
	text, ok := strings.CutPrefix(wamid, "wamid.HBgL")
	raw, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(raw) != 19 || !bytes.Equal(raw[:10], s.nonce[:]) || raw[10] != outboundMark {
		return 0
	}
	return int64(binary.BigEndian.Uint64(raw[11:])) //nolint:gosec // made from an int64
}

// historyEvent is one thing that happened to a message.
type historyEvent struct {
	n          int // of those of its message, from 0
	id, status string
	at         int64 // Unix time
}

// historyOf is what the ledger knows of a message: that it was accepted, and the statuses
// that the webhook's receiver took. When those were is guessed from the delay between
// statuses.
func (s *Server) historyOf(seq int64, r *record) []historyEvent {
	at := s.epoch.Add(r.arrival)
	id := historyBase + seq
	out := []historyEvent{{0, fmt.Sprint(id*10 + 9), "ACCEPTED", at.Unix()}}
	for st := range statusCount {
		if r.posted&(1<<st) == 0 {
			continue
		}
		name := strings.ToUpper(st.String())
		if st == statusFailed {
			name = "ERROR"
		}
		after := time.Duration(len(out)) * s.settings.Load().statusDelay
		out = append(out, historyEvent{len(out), fmt.Sprint(id*10 + int64(st)), name, at.Add(after).Unix()})
	}
	return out
}

type historyView struct {
	seq int64
	r   record
	p   *phone
	s   *Server
}

func (h historyView) events() any {
	type event struct {
		ID      string `json:"id"`
		Status  string `json:"delivery_status"`
		At      int64  `json:"timestamp"`
		Webhook string `json:"webhook_update_state"`
		App     idOnly `json:"application"`
		URI     string `json:"webhook_uri,omitempty"`
		Error   string `json:"error_description,omitempty"`
	}
	data := []event{}
	for _, e := range h.s.historyOf(h.seq, &h.r) {
		one := event{ID: e.id, Status: e.status, At: e.at, Webhook: "DELIVERED", App: idOnly{h.p.app.id}, URI: h.s.settings.Load().webhookURL}
		switch e.status {
		case "ACCEPTED":
			one.Webhook, one.URI = "NOT_SENT", ""
		case "ERROR":
			one.Error = undeliverableDetails
		}
		data = append(data, one)
	}
	return map[string]any{"data": data}
}

type idOnly struct {
	ID string `json:"id"`
}

var historyNode = node[historyView]{
	name:     "WhatsAppMessageHistory",
	defaults: "id,message_id",
	fields: map[string]func(historyView) any{
		"id":         func(h historyView) any { return strconv.FormatInt(historyBase+h.seq, 10) },
		"message_id": func(h historyView) any { return h.s.wamid(h.seq) },
		"events":     func(h historyView) any { return h.events() },
	},
}

// readHistory answers GET /{phone}/message_history: of one message, or of those
// of the phone number among the ledger's newest, oldest first.
func (s *Server) readHistory(c *call) (any, *graphError) {
	p, fault := s.numberOf(c)
	if fault != nil {
		return nil, fault
	}
	names, fault := historyNode.read(c.text("fields"))
	if fault != nil {
		return nil, fault
	}
	var of []historyView
	l := &s.ledger
	if wamid := c.text("message_id"); wamid != "" {
		if r := l.at(s.seqOf(wamid)); r != nil && r.phone == p.index {
			of = append(of, historyView{s.seqOf(wamid), *r, p, s})
		}
	} else {
		for seq := max(l.base, l.next-maxHistory); seq < l.next; seq++ {
			if r := l.at(seq); r.phone == p.index {
				of = append(of, historyView{seq, *r, p, s})
			}
		}
	}
	return page(c, of, func(h historyView) string { return fmt.Sprintf("%019d", h.seq) }, maxHistoryPage, func(h historyView) any {
		return historyNode.show(h, names)
	})
}

// readHistoryEvents answers GET /{history}/events, in Meta's edges of cursor and node.
func (s *Server) readHistoryEvents(c *call) (any, *graphError) {
	id, err := strconv.ParseInt(c.id, 10, 64)
	seq := id - historyBase
	var r *record
	if err == nil && seq > 0 {
		r = s.ledger.at(seq)
	}
	if r == nil {
		return nil, errUnknownObject
	}
	filter := c.choice("status_filter", "ACCEPTED", "SENT", "DELIVERED", "READ", "PLAYED", "ERROR")
	if c.fault != nil {
		return nil, c.fault
	}
	var of []historyEvent
	for _, e := range s.historyOf(seq, r) {
		if filter == "" || filter == e.status {
			of = append(of, e)
		}
	}
	app := s.scopes.byIndex[r.phone].app.id
	key := func(e historyEvent) string { return strconv.Itoa(e.n) }
	return page(c, of, key, maxHistoryPage, func(e historyEvent) any {
		return map[string]any{"cursor": cursorOf(key(e)), "node": map[string]any{
			"id": e.id, "delivery_status": e.status, "occurrence_timestamp": e.at, "status_timestamp": e.at,
			"application": map[string]string{"id": app, "name": "Simulated app " + app},
		}}
	})
}
