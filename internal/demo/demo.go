package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"wagate/examples/messages"
	"wagate/internal/config"
	"wagate/internal/simulator"
)

// ErrDisagree says that the gateway's report and the simulator's ledger differ, or a message was lost, doubled or stuck.
var ErrDisagree = errors.New("demo: the report and the ledger do not agree")

// demoPhones are three phone numbers of two WABAs with different limits; the gateway sends a little below each.
var demoPhones = []phoneNumber{
	{id: "200000000000001", waba: "100000000000001", display: "+1 202-555-0100", limit: 80, rate: 75},
	{id: "200000000000002", waba: "100000000000001", display: "+1 202-555-0101", limit: 40, rate: 36},
	{id: "200000000000003", waba: "100000000000002", display: "+44 20 7946 0100", limit: 20, rate: 18},
}

// share of each phone number in the demo's messages, by its rate: all end at about the same time.
var demoShare = []int{4, 2, 1}

// planned is how many messages get a recipient with each steering ending. The rest are simply delivered.
var planned = []struct {
	ending string
	count  int
	what   string
}{
	{"0002", 4, "throttled once with HTTP 400"},
	{"0010", 2, "throttled once with HTTP 429"},
	{"0011", 3, "throttled once for the recipient"},
	{"0007", 14, "accepted, the answer lost on the way"},
	{"0009", 4, "accepted, then a 502 from a proxy"},
	{"0005", 14, "every status twice"},
	{"0006", 14, "statuses in the wrong order"},
	{"0016", 10, "statuses before the answer"},
	{"0012", 6, "connection cut before Meta read it: resent after 5 s by their own on_unknown"},
	{"0004", 20, "read without delivered"},
	{"0014", 60, "delivered and read"},
	{"0019", 5, "delivered and played"},
	{"0001", 8, "refused: not on WhatsApp"},
	{"0008", 8, "accepted, then failed by webhook"},
}

// Total is how many messages the demo sends.
const Total = 630

// Run sends Total messages made from every example payload through a Cloud API that throttles, loses answers and
// repeats itself, and shows that each arrived once. It returns an error when one is lost, sent twice or stuck.
func Run(ctx context.Context, cfg config.Config, out io.Writer, logger *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	started := time.Now()
	cfg.Listen = "127.0.0.1:0"
	cfg.DataDir, cfg.Media, cfg.RecipientAllow = "", "", nil
	cfg.UnknownAfter = 5 * time.Second
	fmt.Fprintln(out, "Starting Postgres, a simulated Cloud API, the gateway and a worker in this process ...")
	s, err := start(ctx, cfg, simulator.Config{
		Latency: 25 * time.Millisecond, LatencyJitter: 50 * time.Millisecond, StatusDelay: 100 * time.Millisecond,
		PhonePerSecond: simulator.DefaultPhonePerSecond, Logger: logger,
	}, logger)
	if err != nil {
		return err
	}
	err = s.demo(ctx, out, started)
	return errors.Join(err, s.stop(context.WithoutCancel(ctx)))
}

func (s *stack) demo(ctx context.Context, out io.Writer, started time.Time) error {
	if err := s.setUp(ctx, demoPhones); err != nil {
		return err
	}
	fmt.Fprintf(out, "Ready after %.1f s: %d phone numbers, limits", time.Since(started).Seconds(), len(demoPhones))
	for _, p := range demoPhones {
		fmt.Fprintf(out, " %d/s", p.limit)
	}
	fmt.Fprintln(out, " at the Cloud API; the gateway sends at 75/s, 36/s and 18/s.")
	bodies, kinds, err := plan()
	if err != nil {
		return err
	}
	sending := time.Now()
	if err := s.post(ctx, bodies); err != nil {
		return err
	}
	fmt.Fprintf(out, "Accepted %d messages, %d different payloads, in %.2f s. On the way:\n", len(bodies), kinds, time.Since(sending).Seconds())
	for _, p := range planned {
		fmt.Fprintf(out, "  %4d × %s\n", p.count, p.what)
	}
	if err := s.watch(ctx, out, len(bodies), sending); err != nil {
		return err
	}
	return s.compare(ctx, out, len(bodies), started)
}

// plan makes the messages: the examples in turn, each to a recipient of its own.
func plan() (bodies []json.RawMessage, kinds int, err error) {
	examples, err := messages.All()
	if err != nil {
		return nil, 0, err
	}
	endings := make([]string, 0, Total)
	for _, p := range planned {
		for range p.count {
			endings = append(endings, p.ending)
		}
	}
	// Spread: neighbours in the list come far apart.
	spread := make([]string, len(endings))
	for i := range endings {
		spread[i] = endings[i*61%len(endings)] // 61 is prime and does not divide their number
	}
	endings = spread
	bodies = make([]json.RawMessage, 0, Total)
	for i := range Total {
		// Every third message is steered, so that they spread over the payloads and the phone numbers.
		ending := "0100"
		if i%3 == 1 && len(endings) > 0 {
			ending, endings = endings[0], endings[1:]
		} else if Total-i <= len(endings) {
			ending, endings = endings[0], endings[1:]
		}
		var m map[string]any
		if err := json.Unmarshal(examples[i%len(examples)].Body, &m); err != nil {
			return nil, 0, fmt.Errorf("example %s: %w", examples[i%len(examples)].Name, err)
		}
		delete(m, "recipient")
		delete(m, "recipient_type")
		m["to"] = fmt.Sprintf("+1202555%03d%s", i, ending) // a recipient each; longer than a real number, never routable
		m["from"] = demoPhones[phoneOf(i)].id
		gateway := map[string]any{"reference": fmt.Sprintf("demo-%d", i), "tags": map[string]string{"campaign": "demo"}, "on_unknown": "hold"}
		if ending == "0012" {
			gateway["on_unknown"] = "resend"
		}
		m["gateway"] = gateway
		raw, err := json.Marshal(m)
		if err != nil {
			return nil, 0, fmt.Errorf("example %s: %w", examples[i%len(examples)].Name, err)
		}
		bodies = append(bodies, raw)
	}
	return bodies, min(len(examples), Total), nil
}

func phoneOf(i int) int {
	n := 0
	for _, s := range demoShare {
		n += s
	}
	i %= n
	for p, s := range demoShare {
		if i < s {
			return p
		}
		i -= s
	}
	return 0
}

// post hands the messages in, as batches of 100.
func (s *stack) post(ctx context.Context, bodies []json.RawMessage) error {
	for len(bodies) > 0 {
		n := min(len(bodies), 100)
		var answer struct {
			Results []batchResult `json:"results"`
		}
		if err := s.api.call(ctx, http.MethodPost, "/v1/messages/batch", map[string]any{"messages": bodies[:n]}, &answer); err != nil {
			return err
		}
		if len(answer.Results) != n {
			return fmt.Errorf("a batch of %d messages got %d answers", n, len(answer.Results))
		}
		for _, r := range answer.Results {
			if r.ID == "" {
				return fmt.Errorf("message %d of a batch was not accepted: %s", r.Index, r.Error)
			}
		}
		bodies = bodies[n:]
	}
	return nil
}

type batchResult struct {
	Index int             `json:"index"`
	ID    string          `json:"id"`
	Error json.RawMessage `json:"error"`
}
