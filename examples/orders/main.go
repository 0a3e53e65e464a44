// Orders tells customers what becomes of their orders, beside a campaign that must not be in the way:
//
//	go run ./examples/orders -url … -key … -from … -ledger …
//
// docs/how-to/order-updates.md tells the steps.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"wagate/examples/client"
)

func main() { os.Exit(client.Main(run)) }

const campaign = 300 // messages

func run(ctx context.Context, g *client.Gateway, out io.Writer) (err error) {
	inbox, err := g.Subscribe(ctx, "message.status")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inbox.Close(context.WithoutCancel(ctx))) }()

	if err := advertise(ctx, g, out); err != nil {
		return err
	}
	order := fmt.Sprintf("order-%d", time.Now().UnixMilli())
	if err := follow(ctx, g, inbox, out, order); err != nil {
		return err
	}
	return supersede(ctx, g, inbox, out, order)
}

// advertise puts a campaign into the queue: marketing goes behind everything else, at the pace Meta allows.
func advertise(ctx context.Context, g *client.Gateway, out io.Writer) error {
	messages := make([]any, campaign)
	for i := range messages {
		m := client.Template(fmt.Sprintf("+1650556%04d", 2000+i), "autumn_offer", "en_US", []string{"20 %"})
		m["from"] = g.From
		messages[i] = client.With(m, map[string]any{"category": "marketing", "tags": map[string]any{"campaign": "autumn"}})
	}
	var answer struct {
		Results []struct {
			ID string `json:"id"`
		} `json:"results"`
	}
	if err := g.Call(ctx, http.MethodPost, "/v1/messages/batch", map[string]any{"messages": messages}, &answer); err != nil {
		return err
	}
	fmt.Fprintf(out, "1. A campaign of %d messages waits in the queue\n", len(answer.Results))
	return nil
}

// follow tells of one order. Whoever posts the same event again, after a crash or a time-out, gets the same message.
func follow(ctx context.Context, g *client.Gateway, inbox *client.Inbox, out io.Writer, order string) error {
	customer := "+16505553456"
	for i, event := range []string{"confirmed", "shipped", "arriving"} {
		post := func() (client.Message, error) {
			return g.Send(ctx, order+"-"+event, client.With(
				client.Template(customer, "order_"+event, "en_US", []string{order}),
				map[string]any{
					"category": "utility", "reference": order, "ordering_key": order,
					// News of yesterday is none: what could not go out by then expires, and costs nothing.
					"expires_at": time.Now().Add(12 * time.Hour).UTC().Truncate(12 * time.Hour).Add(12 * time.Hour).Format(time.RFC3339),
				}))
		}
		m, err := post()
		if err != nil {
			return err
		}
		again, err := post()
		if err != nil {
			return err
		}
		if again.ID != m.ID {
			return fmt.Errorf("the event %s of %s was posted twice and made two messages", event, order)
		}
		if m, err = inbox.Outcome(ctx, m.ID, "delivered"); err != nil {
			return err
		}
		fmt.Fprintf(out, "%d. %s: posted twice, one message, %s, before the campaign's end\n", i+2, event, m.Status)
	}
	return nil
}

// supersede replaces news that still waits: the later event cancels what it makes untrue.
func supersede(ctx context.Context, g *client.Gateway, inbox *client.Inbox, out io.Writer, order string) error {
	customer := "+16505553457"
	late := client.With(client.Template(customer, "order_delayed", "en_US", []string{order}), map[string]any{
		"category": "utility", "reference": order + "-delivery", "send_at": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
	})
	if _, err := g.Send(ctx, order+"-delayed", late); err != nil {
		return err
	}
	var cancelled struct {
		N int `json:"cancelled"`
	}
	if err := g.Call(ctx, http.MethodPost, "/v1/messages/cancel", map[string]any{"filter": map[string]any{"reference": order + "-delivery"}}, &cancelled); err != nil {
		return err
	}
	m, err := g.Send(ctx, order+"-delivered", client.With(
		client.Template(customer, "order_delivered", "en_US", []string{order}), map[string]any{"category": "utility", "reference": order + "-delivery"}))
	if err != nil {
		return err
	}
	if m, err = inbox.Outcome(ctx, m.ID, "delivered"); err != nil {
		return err
	}
	fmt.Fprintf(out, "5. \"delayed\" was still waiting and was cancelled (%d); \"delivered\" was %s\norders: done\n", cancelled.N, m.Status)
	return nil
}
