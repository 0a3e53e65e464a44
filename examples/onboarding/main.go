// Onboarding brings a phone number into service, has a template approved and welcomes the first customers:
//
//	go run ./examples/onboarding -url … -key … -from … -ledger …
//
// docs/how-to/onboard-customers.md tells the steps.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"wagate/examples/client"
)

func main() { os.Exit(client.Main(run)) }

func run(ctx context.Context, g *client.Gateway, out io.Writer) (err error) {
	waba, err := connect(ctx, g, out)
	if err != nil {
		return err
	}
	template, err := approve(ctx, g, out, waba)
	if err != nil {
		return err
	}
	inbox, err := g.Subscribe(ctx, "message.status", "message.inbound")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inbox.Close(context.WithoutCancel(ctx))) }()
	return welcome(ctx, g, inbox, out, template)
}

// connect looks at the WABA, adds a phone number to it, proves that it is ours, and lets it send.
func connect(ctx context.Context, g *client.Gateway, out io.Writer) (waba string, err error) {
	var own struct {
		WABA string `json:"waba_id"`
	}
	if err := g.Call(ctx, http.MethodGet, "/v1/phone-numbers/"+g.From, nil, &own); err != nil {
		return "", err
	}
	waba = own.WABA
	var account struct {
		Name   string `json:"name"`
		Health struct {
			CanSend string `json:"can_send_message"`
		} `json:"health_status"`
	}
	if err := g.Graph(ctx, http.MethodGet, waba+"?fields=name,health_status", nil, &account); err != nil {
		return "", fmt.Errorf("reading the WABA with its token: %w", err)
	}
	fmt.Fprintf(out, "1. WABA %s can send: %s\n", waba, account.Health.CanSend)

	var number struct {
		ID string `json:"id"`
	}
	local := fmt.Sprintf("202555%04d", time.Now().UnixNano()/1e6%10_000)
	if err := g.Graph(ctx, http.MethodPost, waba+"/phone_numbers", map[string]any{"cc": "1", "phone_number": local, "verified_name": "Example Shop"}, &number); err != nil {
		return "", err
	}
	for _, step := range []struct {
		edge string
		body map[string]any
	}{
		{"request_code", map[string]any{"code_method": "SMS", "language": "en_US"}},
		{"verify_code", map[string]any{"code": "123456"}}, // what the text message said
		{"register", map[string]any{"messaging_product": "whatsapp", "pin": "428061"}},
	} {
		if err := g.Graph(ctx, http.MethodPost, number.ID+"/"+step.edge, step.body, nil); err != nil {
			return "", err
		}
	}
	if err := g.Graph(ctx, http.MethodPost, waba+"/subscribed_apps", nil, nil); err != nil {
		return "", err
	}
	err = g.Call(ctx, http.MethodPut, "/v1/phone-numbers/"+number.ID, map[string]any{
		"waba_id": waba, "display_phone_number": "+1" + local, "messages_per_second": 76,
	}, nil)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(out, "2. Phone number %s added, verified, registered; the gateway sends 76 messages a second from it\n", number.ID)
	g.From = number.ID
	return waba, nil
}

// approve makes the template that may open a conversation, and waits for Meta's review: in production it takes minutes to a day.
func approve(ctx context.Context, g *client.Gateway, out io.Writer, waba string) (name string, err error) {
	name = fmt.Sprintf("welcome_%d", time.Now().UnixMilli())
	var made struct {
		ID string `json:"id"`
	}
	err = g.Graph(ctx, http.MethodPost, waba+"/message_templates", map[string]any{
		"name": name, "language": "en_US", "category": "UTILITY",
		"components": []any{
			map[string]any{
				"type": "BODY", "text": "Hello {{1}}, your account is ready. Reply to this message to set it up.",
				"example": map[string]any{"body_text": []any{[]any{"Kim"}}},
			},
		},
	}, &made)
	if err != nil {
		return "", err
	}
	if err := g.WaitForTemplate(ctx, made.ID); err != nil {
		return "", err
	}
	var known struct {
		Data []struct {
			Status string `json:"status"`
		} `json:"templates"`
	}
	if err := g.Call(ctx, http.MethodGet, "/v1/templates?waba_id="+waba+"&name="+url.QueryEscape(name)+"&refresh=true", nil, &known); err != nil {
		return "", err
	}
	fmt.Fprintf(out, "3. Template %s is approved, and the gateway knows it: %d\n", name, len(known.Data))
	return name, nil
}

// welcome sends the template to two customers who have agreed to be written to. One answers, which opens 24 hours for free-form
// messages; one cannot be reached, which no second try would change.
func welcome(ctx context.Context, g *client.Gateway, inbox *client.Inbox, out io.Writer, template string) error {
	kim, lost := g.Customer("+16505551234"), g.Customer("+16505550008")
	for _, c := range []client.Customer{kim, lost} {
		m, err := g.Send(ctx, template+c.Number, client.Template(c.Number, template, "en_US", []string{"Kim"}))
		if err != nil {
			return err
		}
		m, err = inbox.Outcome(ctx, m.ID, "delivered")
		if err != nil {
			return err
		}
		switch {
		case m.Error != nil:
			fmt.Fprintf(out, "5. The other is marked as not reachable: %s (%d)\n", m.Status, m.Error.Code)
		default:
			fmt.Fprintf(out, "4. Welcome %s\n", m.Status)
		}
	}

	if err := kim.Writes(ctx, "Let's go"); err != nil {
		return err
	}
	reply, err := inbox.Inbound(ctx, kim)
	if err != nil {
		return err
	}
	question := client.Question(kim.Number, "What shall we write to you about?", "Choose", "Orders", "Offers", "Nothing else")
	question["context"] = map[string]any{"message_id": reply.ID}
	m, err := g.Send(ctx, template+"-question", question)
	if err != nil {
		return err
	}
	if m, err = inbox.Outcome(ctx, m.ID, "delivered"); err != nil {
		return err
	}
	fmt.Fprintf(out, "6. %q was answered with a list: %s\n", reply.Text, m.Status)
	if err := kim.Chooses(ctx, "choice-1", "Orders"); err != nil {
		return err
	}
	choice, err := inbox.Inbound(ctx, kim)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "7. The customer chose %q\nonboarding: done\n", choice.Text)
	return nil
}
