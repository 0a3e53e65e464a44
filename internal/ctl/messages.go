package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

var messagesCommand = command{
	name: "messages", args: "[--status S] [--from ID] [--to N] [--reference R] [--wamid W] [--tag NAME=VALUE]… [--after T] [--before T] [--json]", short: "the newest messages, by filter",
	help: `
Lists messages, newest first; what all filters say must be true of a message. It goes on until it has found as many as asked
for, or has looked long enough: then it says where to go on. With --json it gives one page.

Example:
  gatewayctl messages --status unknown --after 2026-12-01T00:00:00Z`,
	run: runMessages,
}

var messageCommand = command{
	name: "message", args: "ID [--json]", short: "one message, what holds it, and all that happened to it",
	help: `
Shows a message with what it waits for, and its events: tries, statuses, decisions.

Example:
  gatewayctl message 01997b32-8a00-7000-8000-000000000001`,
	run: runMessage,
}

var cancelCommand = command{
	name: "cancel", args: "ID | --from ID --to N --tag NAME=VALUE… --priority P --after T --before T", short: "cancel a message that waits, or all that a filter picks",
	help: `
By filter, at least one of them; what all of them say must be true of a message. It goes on until nothing is left.

Examples:
  gatewayctl cancel 01997b32-8a00-7000-8000-000000000001
  gatewayctl cancel --tag campaign=black-friday --after 2026-12-01T00:00:00Z`,
	run: runCancel,
}

var resendCommand = command{
	name: "resend", args: "ID [--idempotency-key KEY]", short: "send a message that failed, expired or was cancelled once more",
	help: `
Makes a new message of it, linked to the old one. With an idempotency key, repeating the command makes no second one.

Example:
  gatewayctl resend 01997b32-8a00-7000-8000-000000000001 --idempotency-key again-1`,
	run: runResend,
}

var settleCommand = command{
	name: "settle", args: "ID sent|failed|resend", short: "decide a message whose outcome is unknown",
	help: `
sent: it went out. failed: it did not, and it is too late for it. resend: send it again; getting it twice does no harm.

Example:
  gatewayctl settle 01997b32-8a00-7000-8000-000000000001 resend`,
	run: runSettle,
}

type heldBy struct {
	Kind   string     `json:"kind"`
	Scope  string     `json:"scope"`
	Value  string     `json:"value"`
	Reason string     `json:"reason"`
	Until  *time.Time `json:"until"`
}

type shown struct {
	ID        string  `json:"id"`
	From      string  `json:"from"`
	To        string  `json:"to"`
	Type      string  `json:"type"`
	Status    string  `json:"status"`
	Priority  string  `json:"priority"`
	WAMID     *string `json:"wamid"`
	Tries     int     `json:"tries"`
	Reference *string `json:"reference"`
	Error     *struct {
		Code    *int    `json:"code"`
		Title   *string `json:"title"`
		Details *string `json:"details"`
	} `json:"error"`
	HeldBy      *heldBy    `json:"held_by"`
	CreatedAt   time.Time  `json:"created_at"`
	AcceptedAt  *time.Time `json:"accepted_at"`
	SentAt      *time.Time `json:"sent_at"`
	DeliveredAt *time.Time `json:"delivered_at"`
	ReadAt      *time.Time `json:"read_at"`
	FailedAt    *time.Time `json:"failed_at"`
}

func (c *cli) held(h *heldBy) string {
	if h == nil {
		return "-"
	}
	what := h.Kind
	if of := strings.TrimSpace(h.Scope + " " + h.Value); of != "" {
		what += " of " + of
	}
	if h.Reason != "" {
		what += " (" + h.Reason + ")"
	}
	if h.Until != nil {
		what += " " + end(h.Until, c.now())
	}
	return flat(what)
}

func runMessages(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	query := url.Values{}
	flags := map[string]*string{
		"status": fs.String("status", "", "queued, sending, unknown, accepted, sent, delivered, read, failed …"), "from": fs.String("from", "", "phone number id"),
		"to": fs.String("to", "", "recipient, in any spelling"), "reference": fs.String("reference", "", "the caller's reference"),
		"wamid":         fs.String("wamid", "", "Meta's id of the message"),
		"created_after": fs.String("after", "", "created after, such as 2026-12-01T00:00:00Z"), "created_before": fs.String("before", "", "created before"),
		"limit": fs.String("limit", "", "how many, 200 at most (50)"), "cursor": fs.String("cursor", "", "go on after this message"),
	}
	var tags pairs
	fs.Var(&tags, "tag", "NAME=VALUE; may be given several times")
	asJSON := fs.Bool("json", false, "the gateway's document as it is")
	if _, err := parse(fs, args, 0, 0); err != nil {
		return err
	}
	for name, value := range flags {
		if *value != "" {
			query.Set(name, *value)
		}
	}
	named, err := tags.named()
	if err != nil {
		return err
	}
	for name, value := range named {
		query.Set("tag."+name, value)
	}
	type page struct {
		Messages   []shown `json:"messages"`
		NextCursor *string `json:"next_cursor"`
	}
	var a page
	raw, err := c.api.get(ctx, "/v1/messages?"+query.Encode(), &a)
	if err != nil {
		return err
	}
	if *asJSON {
		return c.write(raw)
	}
	// A page may hold fewer than asked for, and still have a next one.
	for n := 1; a.NextCursor != nil && len(a.Messages) < wanted(*flags["limit"]) && n < pagesAtOnce; n++ {
		var more page
		query.Set("cursor", *a.NextCursor)
		query.Set("limit", strconv.Itoa(wanted(*flags["limit"])-len(a.Messages)))
		if _, err := c.api.get(ctx, "/v1/messages?"+query.Encode(), &more); err != nil {
			return err
		}
		a.Messages, a.NextCursor = append(a.Messages, more.Messages...), more.NextCursor
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tCREATED\tFROM\tTO\tTYPE\tSTATUS\tTRIES\tERROR\tHELD BY")
	for _, m := range a.Messages {
		code := "-"
		if m.Error != nil && m.Error.Code != nil {
			code = strconv.Itoa(*m.Error.Code)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", flat(m.ID), m.CreatedAt.UTC().Format(time.RFC3339), flat(m.From), flat(m.To), flat(m.Type), flat(m.Status), m.Tries, code, c.held(m.HeldBy))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if a.NextCursor != nil {
		fmt.Fprintf(c.stdout, "\nThere are more: --cursor %s\n", clean(*a.NextCursor))
	}
	return nil
}

// pagesAtOnce bounds how many pages one command looks at.
const pagesAtOnce = 50

// wanted is how many messages a list is to hold: what was asked for, else as many as a page does.
func wanted(limit string) int {
	if n, err := strconv.Atoi(limit); err == nil {
		return n
	}
	return 50
}

// named reads NAME=VALUE.
func (p *pairs) named() (map[string]string, error) {
	m := map[string]string{}
	for _, s := range *p {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" || value == "" {
			return nil, wrong("%q is not NAME=VALUE", s)
		}
		m[name] = value
	}
	return m, nil
}

func runMessage(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	asJSON := fs.Bool("json", false, "the gateway's documents as they are, in one")
	found, err := parse(fs, args, 1, 1)
	if err != nil {
		return err
	}
	path := "/v1/messages/" + url.PathEscape(found[0])
	var m shown
	raw, err := c.api.get(ctx, path, &m)
	if err != nil {
		return err
	}
	var log struct {
		Events []struct {
			Kind   string          `json:"kind"`
			Try    *int            `json:"try"`
			At     time.Time       `json:"at"`
			Detail json.RawMessage `json:"detail"`
		} `json:"events"`
	}
	events, err := c.api.get(ctx, path+"/events", &log)
	if err != nil {
		return err
	}
	if *asJSON {
		return c.writeIndented(fmt.Appendf(nil, `{"message":%s,"log":%s}`, raw, events))
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "id\t%s\nstatus\t%s\nfrom\t%s\nto\t%s\ntype\t%s\npriority\t%s\ntries\t%d\n", flat(m.ID), flat(m.Status), flat(m.From), flat(m.To), flat(m.Type), flat(m.Priority), m.Tries)
	fmt.Fprintf(w, "wamid\t%s\nreference\t%s\nheld by\t%s\n", orDash(m.WAMID), orDash(m.Reference), c.held(m.HeldBy))
	if e := m.Error; e != nil {
		code := "-"
		if e.Code != nil {
			code = strconv.Itoa(*e.Code)
		}
		fmt.Fprintf(w, "error\t%s %s %s\n", code, orDash(e.Title), orDash(e.Details))
	}
	created := m.CreatedAt
	for _, at := range []struct {
		name string
		t    *time.Time
	}{{"created", &created}, {"accepted", m.AcceptedAt}, {"sent", m.SentAt}, {"delivered", m.DeliveredAt}, {"read", m.ReadAt}, {"failed", m.FailedAt}} {
		if at.t != nil {
			fmt.Fprintf(w, "%s\t%s\n", at.name, at.t.UTC().Format(time.RFC3339Nano))
		}
	}
	fmt.Fprintln(w)
	for _, e := range log.Events {
		try := "-"
		if e.Try != nil {
			try = "try " + strconv.Itoa(*e.Try)
		}
		detail := string(e.Detail)
		if detail == "null" {
			detail = ""
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.At.UTC().Format(time.RFC3339Nano), flat(e.Kind), try, flat(detail))
	}
	return w.Flush()
}

// writeIndented gives a document for people.
func (c *cli) writeIndented(raw []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(raw), "", "  "); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return c.write(b.Bytes())
}

func runCancel(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	flags := map[string]*string{
		"from": fs.String("from", "", "phone number id"), "to": fs.String("to", "", "recipient, as the caller wrote it"), "reference": fs.String("reference", "", "the caller's reference"),
		"priority": fs.String("priority", "", "urgent, high, normal or low"), "created_after": fs.String("after", "", "created after, such as 2026-12-01T00:00:00Z"),
		"created_before": fs.String("before", "", "created before"),
	}
	var tags pairs
	fs.Var(&tags, "tag", "NAME=VALUE; may be given several times")
	found, err := parse(fs, args, 0, 1)
	if err != nil {
		return err
	}
	filter := map[string]any{}
	for name, value := range flags {
		if *value != "" {
			filter[name] = *value
		}
	}
	named, err := tags.named()
	if err != nil {
		return err
	}
	if len(named) > 0 {
		filter["tag"] = named
	}
	switch {
	case len(found) == 1 && len(filter) > 0:
		return wrong("cancel one message by its id, or many by a filter, not both")
	case len(found) == 1:
		return c.decided(ctx, "/v1/messages/"+url.PathEscape(found[0])+"/cancel", struct{}{})
	case len(filter) == 0:
		return wrong("name a message, or --from, --to, --reference, --tag, --priority, --after or --before")
	}
	total := 0
	for {
		var a struct {
			Cancelled int  `json:"cancelled"`
			More      bool `json:"more"`
		}
		if _, err := c.api.read(ctx, http.MethodPost, "/v1/messages/cancel", map[string]any{"filter": filter}, &a); err != nil {
			if total > 0 {
				fmt.Fprintf(c.stdout, "cancelled %d messages, and then:\n", total)
			}
			return err
		}
		total += a.Cancelled
		if !a.More {
			_, err := fmt.Fprintf(c.stdout, "cancelled %d messages\n", total)
			return err
		}
	}
}

// decided tells the gateway a decision on a message, and shows what became of it.
func (c *cli) decided(ctx context.Context, path string, body any, headers ...string) error {
	var m shown
	if _, err := c.api.read(ctx, http.MethodPost, path, body, &m, headers...); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.stdout, "message %s is %s\n", clean(m.ID), clean(m.Status))
	return err
}

func runResend(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	key := fs.String("idempotency-key", "", "the same key makes the same message")
	found, err := parse(fs, args, 1, 1)
	if err != nil {
		return err
	}
	var headers []string
	if *key != "" {
		headers = []string{"Idempotency-Key", *key}
	}
	return c.decided(ctx, "/v1/messages/"+url.PathEscape(found[0])+"/resend", struct{}{}, headers...)
}

func runSettle(ctx context.Context, c *cli, fs *flag.FlagSet, args []string) error {
	found, err := parse(fs, args, 2, 2)
	if err != nil {
		return err
	}
	if found[1] != "sent" && found[1] != "failed" && found[1] != "resend" {
		return wrong("a message is settled as sent, failed or resend, not %q", found[1])
	}
	return c.decided(ctx, "/v1/messages/"+url.PathEscape(found[0])+"/settle", map[string]string{"as": found[1]})
}
