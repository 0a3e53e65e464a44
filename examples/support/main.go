// Support is a help desk: a customer writes, the desk shows that it reads, answers in order with a document, and knows how
// long it may write freely:
//
//	go run ./examples/support -url … -key … -from … -ledger …
//
// docs/how-to/support-customers.md tells the steps.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"wagate/examples/client"
)

func main() { os.Exit(client.Main(run)) }

func run(ctx context.Context, g *client.Gateway, out io.Writer) (err error) {
	inbox, err := g.Subscribe(ctx, "message.status", "message.inbound")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inbox.Close(context.WithoutCancel(ctx))) }()

	customer := g.Customer("+16505552345")
	if err := customer.Writes(ctx, "My parcel is broken"); err != nil {
		return err
	}
	question, err := inbox.Inbound(ctx, customer)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "1. A customer writes: %q\n", question.Text)

	// Blue ticks and "typing …" for 25 s at most. It is worth nothing later, so it is not queued and not repeated.
	receipt := map[string]any{"messaging_product": "whatsapp", "status": "read", "message_id": question.ID, "typing_indicator": map[string]any{"type": "text"}}
	if err := g.Graph(ctx, http.MethodPost, g.From+"/messages", receipt, nil); err != nil {
		return err
	}
	fmt.Fprintln(out, "2. The customer sees that the desk has read it and is typing")

	var window struct {
		State   string    `json:"state"`
		Expires time.Time `json:"window_expires_at"`
	}
	query := url.Values{"phone_number_id": {g.From}, "user": {customer.Number}}
	if err := g.Call(ctx, http.MethodGet, "/v1/windows?"+query.Encode(), nil, &window); err != nil {
		return err
	}
	if window.State != "open" {
		return fmt.Errorf("the window is %s after an inbound message", window.State)
	}
	fmt.Fprintf(out, "3. The desk may write freely for another %.0f hours\n", time.Until(window.Expires).Hours())

	if err := answer(ctx, g, inbox, out, customer, question.ID); err != nil {
		return err
	}

	// Who is rude can be blocked, within a day of what they wrote.
	block := map[string]any{"messaging_product": "whatsapp", "block_users": []any{map[string]any{"user": customer.Number}}}
	if err := g.Graph(ctx, http.MethodPost, g.From+"/block_users", block, nil); err != nil {
		return err
	}
	if err := g.Graph(ctx, http.MethodDelete, g.From+"/block_users", block, nil); err != nil {
		return err
	}
	fmt.Fprintln(out, "6. A user was blocked, and let in again\nsupport: done")
	return nil
}

// answer replies with two messages and a document. The ordering key keeps them in the order of posting; a reply goes before
// other traffic. Should the window close while they wait, the template goes in place of what Meta would refuse.
func answer(ctx context.Context, g *client.Gateway, inbox *client.Inbox, out io.Writer, customer client.Customer, to string) error {
	form, err := g.Upload(ctx, "return-form.pdf", "application/pdf", strings.NewReader("%PDF-1.4\n1 0 obj <<>> endobj\ntrailer <<>>\n%%EOF\n"))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "4. The form is stored once, for every number and for good: %s\n", form)
	replies := []map[string]any{
		client.Text(customer.Number, "We are sorry. You will get a new one."),
		{"to": customer.Number, "type": "document", "document": map[string]any{"id": form, "filename": "return-form.pdf", "caption": "Put this into the parcel."}},
		client.Text(customer.Number, "Is there anything else?"),
	}
	for i, reply := range replies {
		if i == 0 {
			reply["context"] = map[string]any{"message_id": to}
		}
		client.With(reply, map[string]any{
			"ordering_key": "desk-" + customer.Number, "priority": "high", "reference": "case-" + to,
			"fallback_template": map[string]any{"name": "support_answer", "language": map[string]any{"code": "en_US"}},
		})
		m, err := g.Send(ctx, fmt.Sprintf("%s-%d", to, i), reply)
		if err != nil {
			return err
		}
		replies[i] = map[string]any{"id": m.ID}
	}
	for _, reply := range replies {
		m, err := inbox.Outcome(ctx, reply["id"].(string), "delivered")
		if err != nil {
			return err
		}
		if m.Error != nil {
			return fmt.Errorf("message %s %s: %d %s", m.ID, m.Status, m.Error.Code, m.Error.Title)
		}
	}
	fmt.Fprintf(out, "5. %d replies delivered, in the order of posting\n", len(replies))
	return nil
}
