package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/app"
	"wagate/internal/config"
	"wagate/internal/simulator"
)

// A thousand requests of the same idempotency key at once, at two gateways: one message, one job, one send, and every answer
// that is not "still in flight" names it.
func TestAThousandRequestsOfOneKeyAreOneMessage(t *testing.T) {
	const n = 1000
	c := newCluster(t, simulator.Config{})
	c.phone("100", "101", 80, 0)
	second, err := app.StartGateway(t.Context(), config.Config{
		Listen: "127.0.0.1:0", GraphURL: c.simURL, GraphVersion: "v23.0", SecretKey: config.NewSecret(c.secret), AdminKey: config.NewSecret(c.key),
		IdempotencyKeep: 24 * time.Hour,
	}, c.pool, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := second.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("stopping the second gateway: %v", err)
		}
	})
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: n, MaxConnsPerHost: n}}
	t.Cleanup(client.CloseIdleConnections)
	type answer struct {
		status int
		id     string
		err    error
	}
	answers := make([]answer, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		url := c.gateway.URL()
		if i%2 == 1 {
			url = second.URL()
		}
		wg.Go(func() {
			<-start
			answers[i].status, answers[i].id, answers[i].err = post(t.Context(), client, url, c.key, "101", "+447700900100", "one-key-for-all")
		})
	}
	close(start)
	wg.Wait()
	var stored, replayed, flying int
	ids := map[string]bool{}
	for _, a := range answers {
		switch {
		case a.err != nil:
			t.Fatal(a.err)
		case a.status == http.StatusAccepted:
			stored++
		case a.status == http.StatusOK:
			replayed++
		case a.status == http.StatusConflict:
			flying++
			continue
		default:
			t.Fatalf("answered %d", a.status)
		}
		ids[a.id] = true
	}
	if stored != 1 || len(ids) != 1 || stored+replayed+flying != n {
		t.Errorf("%d stored, %d replayed, %d told to come again; ids %v", stored, replayed, flying, ids)
	}
	if status, id, err := post(t.Context(), client, second.URL(), c.key, "101", "+447700900100", "one-key-for-all"); err != nil || status != http.StatusOK || !ids[id] {
		t.Errorf("once more: %d, %s, %v", status, id, err)
	}
	if messages, jobs := c.count(`SELECT count(*) FROM messages`), c.count(`SELECT count(*) FROM river_job WHERE kind = 'send'`); messages != 1 || jobs != 1 {
		t.Errorf("%d messages and %d jobs", messages, jobs)
	}
	c.startWorker()
	c.untilStatus(time.Minute, 1, "delivered")
	if accepted := c.sim.Ledger().Totals.Accepted; accepted != 1 {
		t.Errorf("%d sends", accepted)
	}
}

// post hands one message in, with an idempotency key where one is given.
func post(ctx context.Context, client *http.Client, url, apiKey, from, to, key string) (status int, id string, err error) {
	body := fmt.Appendf(nil, `{"from":%q,"to":%q,"type":"text","text":{"body":"hi"}}`, from, to)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/messages", bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, "", err
	}
	var answer struct {
		ID string `json:"id"`
	}
	_ = json.Unmarshal(raw, &answer) // a problem has none
	return res.StatusCode, answer.ID, nil
}
