package cluster

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"wagate/internal/simulator"
)

// Messages of an ordering key go out one at a time and in their order, whatever happens to some of them, from two workers
// of which one goes away.
func TestOrderingKeysHold(t *testing.T) {
	const keys, each = 12, 12
	c := newCluster(t, simulator.Config{Latency: 10 * time.Millisecond, LatencyJitter: 30 * time.Millisecond, StatusDelay: 100 * time.Millisecond})
	c.phone("100", "101", 0, 0)
	c.phone("200", "201", 0, 0)
	// Delivered, throttled once, refused at once, the answer lost, reset before the accept, failed by webhook.
	behaviours := []string{"0100", "0010", "0001", "0007", "0012", "0008"}
	for _, phone := range []string{"101", "201"} {
		var all []map[string]any
		for i := range each {
			for k := range keys {
				all = append(all, map[string]any{
					"to": fmt.Sprintf("+1202%03d%04d%s", k, i, behaviours[(i*5+k)%len(behaviours)]), "type": "text", "text": map[string]any{"body": "hello"},
					"gateway": map[string]any{"ordering_key": fmt.Sprintf("chat-%d", k), "on_unknown": "fail"},
				})
			}
		}
		c.accept(phone, all)
	}
	c.startWorker("WAGATE_UNKNOWN_AFTER=2s")
	second := c.startWorker("WAGATE_UNKNOWN_AFTER=2s")
	c.until(time.Minute, "half of it", func(context.Context) (bool, string) { return c.sim.Ledger().Totals.Accepted > keys*each/2, "" })
	if err := second.stop(); err != nil {
		t.Fatal(err)
	}
	c.untilStatus(2*time.Minute, 2*keys*each, "delivered", "failed", "read", "unknown")

	// In the log of events (Meta's times are whole seconds): before a message's first try has an end, every earlier one of its key is settled.
	var early int
	err := c.pool.QueryRow(t.Context(), `
		WITH ends AS (
			SELECT m.id, m.phone_number_id, m.ordering_key, min(e.at) FILTER (WHERE e.kind NOT LIKE 'status.%') AS first, max(e.at) FILTER (WHERE e.kind NOT LIKE 'status.%') AS settled
			FROM messages m JOIN message_events e ON e.message_id = m.id GROUP BY m.id, m.phone_number_id, m.ordering_key
		)
		SELECT count(*) FROM ends a JOIN ends b ON b.phone_number_id = a.phone_number_id AND b.ordering_key = a.ordering_key AND b.id > a.id
		WHERE b.first < a.settled`).Scan(&early)
	if err != nil {
		t.Fatal(err)
	}
	if early > 0 {
		t.Errorf("%d pairs of messages of one key overlap", early)
	}
	sent := map[string][]simulator.Accept{}
	for _, a := range c.accepts() {
		var key string
		if err := c.pool.QueryRow(t.Context(), `SELECT phone_number_id || ordering_key FROM messages WHERE id = $1::uuid`, a.OurID).Scan(&key); err != nil {
			t.Fatal(err)
		}
		sent[key] = append(sent[key], a)
	}
	if len(sent) != 2*keys {
		t.Errorf("messages of %d keys went out, want %d", len(sent), 2*keys)
	}
	for key, all := range sent {
		for i := 1; i < len(all); i++ {
			if all[i].OurID < all[i-1].OurID { // UUIDv7 ascend in the order of acceptance
				t.Errorf("%s: %s went out after %s", key, all[i].OurID, all[i-1].OurID)
			}
		}
	}
	if n := c.sim.Ledger().Totals.ExtraAccepts; n != 0 {
		t.Errorf("%d were sent twice", n)
	}
}

// Marketing has its share while urgent messages wait in plenty, and an authentication message passes a full marketing
// backlog: at most what the lane had claimed, and what it sends in half a second, goes before it.
func TestPrioritiesAndTheirShares(t *testing.T) {
	const rate = 40.0
	c := newCluster(t, simulator.Config{Latency: 10 * time.Millisecond, LatencyJitter: 20 * time.Millisecond, StatusDelay: time.Hour})
	c.phone("100", "101", rate, 0)
	c.phone("200", "201", rate, 0)
	c.fill("100", "101", 600, 1)
	c.fill("100", "101", 300, 4)
	c.fill("200", "201", 2000, 4)
	c.startWorker()
	c.until(time.Minute, "the marketing backlog sending", func(context.Context) (bool, string) { return c.sim.Ledger().Totals.Accepted > 100, "" })

	before := c.sentBy("201")
	for i := range 10 {
		var answer struct {
			ID string `json:"id"`
		}
		c.call(http.MethodPost, "/v1/messages", map[string]any{
			"from": "201", "to": fmt.Sprintf("+4420%06d0100", i), "type": "text", "text": map[string]any{"body": "1234"},
			"gateway": map[string]any{"category": "authentication"},
		}, &answer)
		at := c.sentBy("201")
		c.until(time.Minute, "an authentication message", func(context.Context) (bool, string) {
			for _, a := range c.accepts() {
				if a.OurID == answer.ID {
					return true, ""
				}
			}
			return false, ""
		})
		passed := 0
		for _, a := range c.accepts() {
			if a.Phone != "201" {
				continue
			}
			if a.OurID == answer.ID {
				break
			}
			passed++
		}
		// Slots are given out 0.25 s ahead; a claim takes up to 0.2 s.
		if n := passed - at; n > rate/2+5 {
			t.Errorf("%d marketing messages went before authentication message %d, want %v at most", n, i, rate/2)
		}
	}
	if c.sentBy("201") == before {
		t.Error("marketing did not go on")
	}

	c.until(2*time.Minute, "most of the urgent ones", func(ctx context.Context) (bool, string) {
		urgent, _ := c.sentByPriority(ctx, "101")
		return urgent >= 500, fmt.Sprint(urgent)
	})
	urgent, low := c.sentByPriority(t.Context(), "101")
	if low*100 < (urgent+low)*3 || low*100 > (urgent+low)*12 {
		t.Errorf("%d of low priority went out beside %d urgent ones, want about one in twenty", low, urgent)
	}
}

func (c *cluster) sentBy(phone string) (n int) {
	for _, a := range c.accepts() {
		if a.Phone == phone {
			n++
		}
	}
	return n
}

func (c *cluster) sentByPriority(ctx context.Context, phone string) (urgent, low int) {
	_ = c.pool.QueryRow(ctx, `SELECT count(*) FILTER (WHERE priority = 1), count(*) FILTER (WHERE priority = 4) FROM messages
		WHERE phone_number_id = $1::text AND status = 'accepted'`, phone).Scan(&urgent, &low)
	return urgent, low
}
