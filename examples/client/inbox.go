package client

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Event is a callback of the gateway.
type Event struct {
	ID        string          `json:"-"`
	Type      string          `json:"type"`
	Timestamp time.Time       `json:"timestamp"`
	Data      json.RawMessage `json:"data"`
}

// Inbox hears the gateway's callbacks: it listens on the loopback interface, subscribes, and checks each signature.
type Inbox struct {
	g            *Gateway
	secret       []byte
	subscription string
	server       *http.Server
	served       chan struct{}

	mu     sync.Mutex
	seen   map[string]bool
	events []Event
	more   chan struct{} // closed when an event has come
}

// Subscribe starts to hear events of these types about the gateway's phone number. Close ends it.
func (g *Gateway) Subscribe(ctx context.Context, types ...string) (*Inbox, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for callbacks: %w", err)
	}
	in := &Inbox{g: g, seen: map[string]bool{}, more: make(chan struct{}), served: make(chan struct{})}
	in.server = &http.Server{Handler: http.HandlerFunc(in.hear), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	in.mu.Lock() // nothing is checked before the secret is here
	defer in.mu.Unlock()
	go func() {
		defer close(in.served)
		_ = in.server.Serve(l)
	}()
	var made struct {
		ID     string `json:"id"`
		Secret string `json:"secret"`
	}
	err = g.Call(ctx, http.MethodPost, "/v1/subscriptions", map[string]any{
		"url": "http://" + l.Addr().String() + "/wagate", "events": types, "phone_number_id": g.From,
	}, &made)
	if err == nil {
		in.subscription = made.ID
		in.secret, err = base64.StdEncoding.DecodeString(strings.TrimPrefix(made.Secret, "whsec_"))
	}
	if err != nil {
		_ = in.server.Close()
		<-in.served
		return nil, fmt.Errorf("subscribing: %w", err)
	}
	return in, nil
}

// Close ends the subscription and the server.
func (in *Inbox) Close(ctx context.Context) error {
	err := in.g.Call(ctx, http.MethodDelete, "/v1/subscriptions/"+in.subscription, nil, nil)
	err = errors.Join(err, in.server.Shutdown(ctx))
	<-in.served
	return err
}

// hear keeps a callback whose signature is right. The gateway repeats what is not answered with 2xx, and may repeat what
// is, so events are told apart by webhook-id.
func (in *Inbox) hear(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4<<20))
	if err != nil {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	id := r.Header.Get("webhook-id")
	if !in.signed(id, r.Header.Get("webhook-timestamp"), r.Header.Get("webhook-signature"), body) {
		http.Error(w, "wrong signature", http.StatusUnauthorized)
		return
	}
	e := Event{ID: id}
	if err := json.Unmarshal(body, &e); err != nil {
		http.Error(w, "not an event", http.StatusBadRequest)
		return
	}
	if !in.seen[id] {
		in.seen[id] = true
		in.events = append(in.events, e)
		close(in.more)
		in.more = make(chan struct{})
	}
	w.WriteHeader(http.StatusNoContent)
}

// signed checks a signature as Standard Webhooks writes it: v1, and the base64 of HMAC-SHA256 over id, time and body, one for
// each secret in use. Old ones are refused, so that nobody can play back what was overheard.
func (in *Inbox) signed(id, timestamp, signatures string, body []byte) bool {
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || time.Since(time.Unix(seconds, 0)).Abs() > 5*time.Minute {
		return false
	}
	mac := hmac.New(sha256.New, in.secret)
	_, _ = fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
	want := []byte("v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return slices.ContainsFunc(strings.Fields(signatures), func(s string) bool { return hmac.Equal([]byte(s), want) })
}

// next waits for the first event that take takes, and removes it.
func (in *Inbox) next(ctx context.Context, what string, take func(Event) bool) error {
	for {
		in.mu.Lock()
		i := slices.IndexFunc(in.events, take)
		more := in.more
		if i >= 0 {
			in.events = slices.Delete(in.events, i, i+1)
		}
		in.mu.Unlock()
		if i >= 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		case <-more:
		}
	}
}

// Outcome waits until a message has reached one of these statuses, or one after which nothing more will be done.
func (in *Inbox) Outcome(ctx context.Context, id string, statuses ...string) (Message, error) {
	var m Message
	err := in.next(ctx, "message "+id, func(e Event) bool {
		m = Message{}
		return e.Type == "message.status" && json.Unmarshal(e.Data, &m) == nil && m.ID == id && (slices.Contains(statuses, m.Status) || m.Final())
	})
	return m, err
}

// Inbound is a message from a user.
type Inbound struct {
	From string // digits
	ID   string // wamid, to answer to
	Text string // what was written, or the title of what was chosen
}

// Inbound waits for the next message of that user.
func (in *Inbox) Inbound(ctx context.Context, from Customer) (Inbound, error) {
	var heard Inbound
	err := in.next(ctx, "a message of the customer", func(e Event) bool {
		var data struct {
			Message struct {
				From string `json:"from"`
				ID   string `json:"id"`
				Text struct {
					Body string `json:"body"`
				} `json:"text"`
				Interactive struct {
					Choice struct {
						Title string `json:"title"`
					} `json:"list_reply"`
				} `json:"interactive"`
			} `json:"message"`
		}
		if e.Type != "message.inbound" || json.Unmarshal(e.Data, &data) != nil || data.Message.From != strings.TrimPrefix(from.Number, "+") {
			return false
		}
		heard = Inbound{From: data.Message.From, ID: data.Message.ID, Text: data.Message.Text.Body + data.Message.Interactive.Choice.Title}
		return true
	})
	return heard, err
}
