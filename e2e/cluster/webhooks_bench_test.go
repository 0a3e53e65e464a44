package cluster

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/app"
	"wagate/internal/cloudapi"
	"wagate/internal/config"
	"wagate/internal/embeddedpg"
	"wagate/internal/message"
	"wagate/internal/simulator"
)

// BenchmarkWebhookStatuses posts 300,000 statuses of 100,000 sent messages to a gateway process with a durable Postgres, in
// signed notifications of 100 to 1,000, while a worker process sends 50 messages a second and hears of them by webhook. At 10,000
// statuses a second for 30 s it prints how long the answers took and how late the statuses were applied; without a pace, what can
// be applied a second at most. Every status is looked for in the end.
func BenchmarkWebhookStatuses(b *testing.B) {
	for _, pace := range []int{10_000, 0} {
		name := "AsFastAsItGoes"
		if pace > 0 {
			name = fmt.Sprintf("PerSecond%d", pace)
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				postStatuses(b, 100_000, pace)
			}
		})
	}
}

func postStatuses(b *testing.B, messages, pace int) {
	const posters = 8
	pg, err := embeddedpg.Start(b.Context(), embeddedpg.Config{TempDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := pg.Stop(context.WithoutCancel(b.Context())); err != nil {
			b.Errorf("stopping Postgres: %v", err)
		}
	})
	if err := app.Migrate(b.Context(), config.Config{DatabaseURL: config.NewSecret(pg.DSN())}, slog.New(slog.DiscardHandler)); err != nil {
		b.Fatal(err)
	}
	c := newClusterOn(b, pg.DSN(), simulator.Config{Latency: 50 * time.Millisecond})
	c.phone("100", "101", 0, 0)
	c.phone("200", "201", 50, 0)
	c.accept("201", texts(3000))
	bodies := c.sentMessages("100", "101", messages)
	if err := c.gateway.Stop(b.Context()); err != nil { // the one that is measured is a process of its own
		b.Fatal(err)
	}
	gateway, url := c.startGateway()
	c.sim.SetWebhook(url+"/webhooks/whatsapp", appSecret)
	c.startWorker()
	c.until(time.Minute, "the worker sending", func(context.Context) (bool, string) { return c.sim.Ledger().Totals.Accepted > 20, "" })

	gatewayBefore, pgBefore := c.cpu(gateway)
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	next := make(chan statusPost)
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: posters}}
	for range posters {
		wg.Go(func() {
			for p := range next {
				began := time.Now()
				code, err := postSigned(b.Context(), client, url, p)
				if err != nil || code != http.StatusOK {
					b.Errorf("a notification was answered with %d, %v", code, err)
				}
				mu.Lock()
				took = append(took, time.Since(began))
				mu.Unlock()
			}
		})
	}
	began := time.Now()
	posted := 0
	for _, p := range bodies {
		if pace > 0 {
			if wait := time.Until(began.Add(time.Duration(posted) * time.Second / time.Duration(pace))); wait > 0 {
				<-time.After(wait)
			}
		}
		next <- p
		posted += p.statuses
	}
	close(next)
	wg.Wait()
	inTook := time.Since(began)
	ids := fmt.Sprintf(`(SELECT id FROM webhook_raw WHERE octet_length(body) > %d)`, 20_000) // the others are the worker's
	c.until(10*time.Minute, "every notification applied", func(ctx context.Context) (bool, string) {
		n := c.count(`SELECT count(*) FROM webhook_raw WHERE processed_at IS NULL AND octet_length(body) > 20000`)
		return n == 0, fmt.Sprint(n, " wait")
	})
	gatewayAfter, pgAfter := c.cpu(gateway)

	if n := c.count(`SELECT count(*) FROM messages WHERE phone_number_id = '101' AND status = 'read' AND sent_at IS NOT NULL AND delivered_at IS NOT NULL AND read_at IS NOT NULL`); n != messages {
		b.Errorf("%d of %d messages are where their statuses say", n, messages)
	}
	if n := c.count(`SELECT count(*) FROM message_events e JOIN messages m ON m.id = e.message_id WHERE m.phone_number_id = '101' AND e.kind IN ('status.sent', 'status.delivered', 'status.read')`); n != posted {
		b.Errorf("%d events of %d statuses", n, posted)
	}
	if n := c.count(`SELECT count(*) FROM webhook_raw WHERE error IS NOT NULL`); n != 0 {
		b.Errorf("%d notifications with an error", n)
	}
	lags := c.seconds(`SELECT extract(epoch FROM processed_at - received_at)::double precision FROM webhook_raw WHERE id IN ` + ids + ` ORDER BY 1`)
	applied := c.seconds(`SELECT extract(epoch FROM max(processed_at) - min(received_at))::double precision FROM webhook_raw WHERE id IN ` + ids)
	slices.Sort(took)
	b.ReportMetric(float64(posted)/applied[0], "statuses/s")
	b.ReportMetric(float64(posted)/inTook.Seconds(), "taken-in/s")
	b.ReportMetric(1000*quantile(took, .5), "answer-p50-ms")
	b.ReportMetric(1000*quantile(took, .99), "answer-p99-ms")
	b.ReportMetric(1000*lags[len(lags)/2], "lag-p50-ms")
	b.ReportMetric(1000*lags[len(lags)*99/100], "lag-p99-ms")
	b.ReportMetric(1000*(gatewayAfter-gatewayBefore).Seconds()/float64(posted), "gateway-CPU-ms/status")
	b.ReportMetric(1000*(pgAfter-pgBefore).Seconds()/float64(posted), "postgres-CPU-ms/status")
	b.ReportMetric(float64(c.sim.Ledger().Totals.Accepted), "sent-beside")
}

// statusPost is a notification, signed.
type statusPost struct {
	body      []byte
	signature string
	statuses  int
}

// sentMessages makes messages that Meta has accepted and gives the notifications of their statuses: each is sent, delivered and
// read, and those of one message lie some notifications apart.
func (c *cluster) sentMessages(waba, phone string, n int) []statusPost {
	c.t.Helper()
	ids, now := make([]uuid.UUID, n), time.Now()
	for i := range ids {
		ids[i] = message.NewID(now.Add(time.Duration(i-n) * time.Millisecond))
	}
	wamid := func(i int) string {
		sum := sha256.Sum256(ids[i][:])
		return "wamid.HBgLMTIwMjU1NTAxMDAVAgARGBI" + strings.ToUpper(hex.EncodeToString(sum[:9])) + "AA=="
	}
	recipient := func(i int) string { return fmt.Sprintf("1202%07d", i) }
	ctx := c.t.Context()
	if _, err := c.pool.CopyFrom(ctx, pgx.Identifier{"messages"},
		[]string{"id", "phone_number_id", "waba_id", "recipient", "type", "status", "priority", "category", "body", "created_at", "try", "marked_by", "epoch", "wamid", "wa_id", "accepted_at"},
		pgx.CopyFromSlice(n, func(i int) ([]any, error) {
			at := now.Add(time.Duration(i-n) * time.Millisecond)
			body := fmt.Appendf(nil, `{"messaging_product":"whatsapp","to":"+%s","type":"text","text":{"body":"Your order has left the house and will be with you soon."}}`, recipient(i))
			return []any{ids[i], phone, waba, "+" + recipient(i), "text", "accepted", int16(3), "utility", body, at, int32(1), "worker-1", int64(1), wamid(i), recipient(i), at}, nil
		})); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.pool.Exec(ctx, `INSERT INTO wamids (wamid, message_id) SELECT wamid, id FROM messages WHERE wamid IS NOT NULL`); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.pool.Exec(ctx, `INSERT INTO message_events (id, message_id, kind, try, wamid, at)
		SELECT id, id, 'try.accepted', 1, wamid, accepted_at FROM messages WHERE wamid IS NOT NULL`); err != nil {
		c.t.Fatal(err)
	}
	// A real system's tables have been vacuumed and analysed.
	for _, table := range []string{"messages", "wamids", "message_events"} {
		if _, err := c.pool.Exec(ctx, `VACUUM ANALYZE `+table); err != nil {
			c.t.Fatal(err)
		}
	}
	const chunk = 200
	var all []string
	words := []string{"sent", "delivered", "read"}
	for start := 0; start < n+chunk*8; start += chunk {
		for k, word := range words {
			first := start - chunk*[]int{0, 3, 7}[k]
			for i := max(first, 0); i < min(first+chunk, n); i++ {
				extra := ""
				if word != "read" {
					extra = `,"conversation":{"id":"` + hex.EncodeToString(ids[i][:]) + `","origin":{"type":"utility"}},"pricing":{"billable":true,"pricing_model":"PMP","category":"utility","type":"regular"}`
				}
				all = append(all, fmt.Sprintf(`{"id":%q,"status":%q,"timestamp":"%d","recipient_id":%q,"biz_opaque_callback_data":%q%s}`,
					wamid(i), word, now.Unix()+int64(k), recipient(i), cloudapi.Token(ids[i].String(), 1), extra))
			}
		}
	}
	if len(all) != len(words)*n {
		c.t.Fatalf("%d statuses made", len(all))
	}
	sizes := []int{100, 250, 500, 1000}
	var posts []statusPost
	for i := 0; len(all) > 0; i++ {
		m := min(sizes[i%len(sizes)], len(all))
		body := fmt.Appendf(nil, `{"object":"whatsapp_business_account","entry":[{"id":%q,"changes":[{"value":{"messaging_product":"whatsapp","metadata":{"display_phone_number":"12025550100","phone_number_id":%q},"statuses":[%s]},"field":"messages"}]}]}`,
			waba, phone, strings.Join(all[:m], ","))
		mac := hmac.New(sha256.New, []byte(appSecret))
		mac.Write(body)
		posts = append(posts, statusPost{body, "sha256=" + hex.EncodeToString(mac.Sum(nil)), m})
		all = all[m:]
	}
	return posts
}

func postSigned(ctx context.Context, client *http.Client, url string, p statusPost) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/webhooks/whatsapp", bytes.NewReader(p.body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Hub-Signature-256", p.signature)
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

// seconds reads one column of numbers, which must not be empty.
func (c *cluster) seconds(sql string) []float64 {
	c.t.Helper()
	rows, err := c.pool.Query(c.t.Context(), sql)
	if err != nil {
		c.t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[float64])
	if err != nil || len(all) == 0 {
		c.t.Fatalf("%d rows, %v", len(all), err)
	}
	return all
}
