// Twofactor sends one-time codes, and falls back to another way when WhatsApp cannot be counted on:
//
//	go run ./examples/twofactor -url … -key … -from … -ledger …
//
// docs/how-to/two-factor-codes.md tells the steps.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"time"

	"wagate/examples/client"
)

func main() { os.Exit(client.Main(run)) }

const (
	// validFor is how long a code is good; the template's code_expiration_minutes says the same to the user.
	validFor = 10 * time.Minute
	// patience is how long the user looks at an empty screen before the code goes by text message as well.
	patience = 10 * time.Second
)

func run(ctx context.Context, g *client.Gateway, out io.Writer) (err error) {
	inbox, err := g.Subscribe(ctx, "message.status")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inbox.Close(context.WithoutCancel(ctx))) }()
	for i, user := range []struct{ who, number string }{
		{"a user with WhatsApp", "+16505554567"},
		{"a number without WhatsApp", "+16505550001"},
		{"a phone that is off", "+16505550017"},
	} {
		how, err := signIn(ctx, g, inbox, user.number)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%d. %s: %s\n", i+1, user.who, how)
	}
	fmt.Fprintln(out, "twofactor: done")
	return nil
}

// signIn makes a code and sends it. The same code may arrive twice without harm, so an answer lost on the way is followed by a
// new try (on_unknown resend, which authentication messages have without saying so).
func signIn(ctx context.Context, g *client.Gateway, inbox *client.Inbox, number string) (how string, err error) {
	code, err := newCode()
	if err != nil {
		return "", err
	}
	button := map[string]any{"type": "button", "sub_type": "url", "index": "0", "parameters": []any{map[string]any{"type": "text", "text": code}}}
	// The attempt is the idempotency key: a double click makes one message. It holds neither the code nor the number.
	attempt := fmt.Sprintf("login-%d", time.Now().UnixNano())
	m, err := g.Send(ctx, attempt, client.With(client.Template(number, "login_code", "en_US", []string{code}, button), map[string]any{
		"category": "authentication", "expires_at": time.Now().Add(validFor).UTC().Format(time.RFC3339),
	}))
	if err != nil {
		return "", err
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	m, err = inbox.Outcome(wait, m.ID, "sent", "delivered", "read")
	switch {
	case err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		return "no word after " + patience.String() + ", the code goes by text message too", nil
	case err != nil:
		return "", err
	case m.Error != nil:
		return fmt.Sprintf("%s (%d), the code goes by text message", m.Status, m.Error.Code), nil
	}
	return "code " + m.Status, nil
}

func newCode() (string, error) {
	n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
	if err != nil {
		return "", fmt.Errorf("making a code: %w", err)
	}
	return fmt.Sprintf("%06d", n), nil
}
