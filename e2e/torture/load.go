package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// posters is how many requests a client has under way at most, bursts aside.
	posters = 24
	// batchOf is how many messages a batch has.
	batchOf = 20
	// loadFor is over how long the messages of a cycle are spread, bursts aside.
	loadFor = 11 * time.Second
	// burstOf is how many messages are sent at once at the moment of a fault of the accept side.
	burstOf = 120
	// clientWait bounds one request, and the wait before it is repeated.
	clientWait = 4 * time.Second
)

// sent is a message of the load and what its client was told of it. Its client's goroutine alone writes it until the load
// has ended.
type sent struct {
	n      int
	phone  string
	to     string
	policy string // on_unknown
	due    time.Duration
	// cancel is how long after the answer the client cancels it; 0: never.
	cancel time.Duration
	// lives is how long after due it expires; 0: never.
	lives time.Duration

	expiresAt time.Time
	id        string // by the newest answer
	otherID   string // another id under the same idempotency key: a fault
	cancelled bool   // the gateway said so
}

func (m *sent) key() string { return fmt.Sprintf("key-%d", m.n) }

// load is the client side of a cycle.
type load struct {
	client  *http.Client
	url     string
	apiKey  string
	started time.Time
	// requests are what is posted together: one message, or a batch.
	requests [][]*sent
	bursts   [][]*sent
	next     atomic.Int64
	flying   atomic.Int64 // messages in requests under way
	refused  atomic.Int64 // answers that were neither a success nor worth another try
	wrong    atomic.Pointer[string]
	last     atomic.Pointer[string] // the newest answer that asks for a repetition
	ctx      context.Context        //nolint:containedctx // of the whole load: bursts are part of it
	wg       sync.WaitGroup
}

// newLoad plans n messages, and bursts beside them, by the random numbers.
func newLoad(random *rand.Rand, n, bursts int, phones []string) *load {
	l := &load{client: &http.Client{Timeout: clientWait, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}}
	policies := []string{"hold", "hold", "hold", "fail", "resend", "resend"}
	made := 0
	make1 := func(due time.Duration) *sent {
		m := &sent{
			n: made, phone: phones[random.IntN(len(phones))], policy: policies[random.IntN(len(policies))], due: due,
			// Its last four digits ask the simulator for nothing.
			to: fmt.Sprintf("+49151%04d%04d", random.IntN(10_000), 1000+random.IntN(9000)),
		}
		made++
		switch random.IntN(25) {
		case 0:
			m.policy, m.cancel = "hold", time.Duration(1+random.IntN(2000))*time.Millisecond
		case 1:
			m.policy, m.lives = "hold", time.Duration(500+random.IntN(6000))*time.Millisecond
		}
		return m
	}
	for range bursts {
		var burst []*sent
		for range burstOf {
			burst = append(burst, make1(0))
		}
		l.bursts = append(l.bursts, burst)
	}
	left := n - made
	for left > 0 {
		size := 1
		if left >= batchOf && random.IntN(30) == 0 {
			size = batchOf
		}
		due := time.Duration(float64(loadFor) * float64(n-left) / float64(n))
		var request []*sent
		for range size {
			request = append(request, make1(due))
		}
		l.requests, left = append(l.requests, request), left-size
	}
	return l
}

func (l *load) all() []*sent {
	var all []*sent
	for _, set := range [][][]*sent{l.requests, l.bursts} {
		for _, request := range set {
			all = append(all, request...)
		}
	}
	return all
}

// run posts the planned requests at their times; wait ends when each was answered, or with ctx.
func (l *load) run(ctx context.Context) {
	l.ctx, l.started = ctx, time.Now()
	for range posters {
		l.wg.Go(func() {
			for {
				i := int(l.next.Add(1)) - 1
				if i >= len(l.requests) || !pause(ctx, time.Until(l.started.Add(l.requests[i][0].due))) {
					return
				}
				l.deliver(ctx, l.requests[i])
			}
		})
	}
}

// burst posts a burst at once, each message in a request of its own, and returns as soon as half of it is under way.
func (l *load) burst(i int) {
	under := make(chan struct{}, len(l.bursts[i]))
	for _, m := range l.bursts[i] {
		l.wg.Go(func() {
			under <- struct{}{}
			l.deliver(l.ctx, []*sent{m})
		})
	}
	for range len(l.bursts[i]) / 2 {
		<-under
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// deliver repeats a request until each of its messages has an answer that is final, as a careful client does.
func (l *load) deliver(ctx context.Context, request []*sent) {
	wait := 50 * time.Millisecond
	for len(request) > 0 {
		request = l.attempt(ctx, request)
		if len(request) > 0 && !pause(ctx, wait) {
			return
		}
		wait = min(2*wait, time.Second)
	}
}

// attempt makes one request and gives the messages that are to be repeated.
func (l *load) attempt(ctx context.Context, request []*sent) (again []*sent) {
	path := "/v1/messages"
	var body any
	if len(request) == 1 {
		body = request[0].body(time.Now())
	} else {
		messages := make([]any, len(request))
		for i, m := range request {
			messages[i] = m.body(time.Now())
		}
		path, body = "/v1/messages/batch", map[string]any{"messages": messages}
	}
	l.flying.Add(int64(len(request)))
	status, answer, err := l.call(ctx, http.MethodPost, path, body)
	l.flying.Add(-int64(len(request)))
	if err != nil || retryable(status) {
		text := fmt.Sprintf("%d %.200s %v", status, answer, err)
		l.last.Store(&text)
		return request
	}
	if status == http.StatusUnprocessableEntity && request[0].lives > 0 {
		return nil // expired before it was taken
	}
	if status >= 300 {
		l.refuse(status, answer)
		return nil
	}
	if len(request) == 1 {
		var one struct {
			ID string `json:"id"`
		}
		if json.Unmarshal(answer, &one) != nil || one.ID == "" {
			l.refuse(status, answer)
			return nil
		}
		l.acknowledged(ctx, request[0], one.ID)
		return nil
	}
	var many struct {
		Results []struct {
			ID    string `json:"id"`
			Error *struct {
				Status int `json:"status"`
			} `json:"error"`
		} `json:"results"`
	}
	if json.Unmarshal(answer, &many) != nil || len(many.Results) != len(request) {
		l.refuse(status, answer)
		return nil
	}
	for i, r := range many.Results {
		switch {
		case r.ID != "":
			l.acknowledged(ctx, request[i], r.ID)
		case r.Error != nil && retryable(r.Error.Status):
			again = append(again, request[i])
		case r.Error != nil && r.Error.Status == http.StatusUnprocessableEntity && request[i].lives > 0: // expired before it was taken
		default:
			l.refuse(status, answer)
		}
	}
	return again
}

func retryable(status int) bool {
	return status >= 500 || status == http.StatusTooManyRequests || status == http.StatusConflict
}

func (l *load) refuse(status int, answer []byte) {
	l.refused.Add(1)
	text := fmt.Sprintf("%d %.300s", status, answer)
	l.wrong.CompareAndSwap(nil, &text)
}

// acknowledged takes the gateway's word for a message, and cancels it where that is its lot.
func (l *load) acknowledged(ctx context.Context, m *sent, id string) {
	if m.id != "" && m.id != id {
		m.otherID = id
	}
	first := m.id == ""
	m.id = id
	if m.cancel == 0 || !first {
		return
	}
	l.wg.Go(func() {
		for pause(ctx, m.cancel) {
			status, _, err := l.call(ctx, http.MethodPost, "/v1/messages/"+id+"/cancel", nil)
			switch {
			case err != nil || status >= 500:
				continue
			case status != http.StatusOK && status != http.StatusConflict:
				l.refuse(status, []byte("to a cancel"))
			}
			m.cancelled = status == http.StatusOK
			return
		}
	})
}

func (m *sent) body(now time.Time) map[string]any {
	gateway := map[string]any{"idempotency_key": m.key(), "reference": m.key(), "on_unknown": m.policy}
	if m.lives > 0 {
		if m.expiresAt.IsZero() {
			m.expiresAt = now.Add(m.lives).UTC().Truncate(time.Millisecond)
		}
		gateway["expires_at"] = m.expiresAt.Format("2006-01-02T15:04:05.000Z")
	}
	return map[string]any{
		"from": m.phone, "to": m.to, "type": "text", "text": map[string]any{"body": fmt.Sprintf("message %d", m.n)}, "gateway": gateway,
	}
}

// call asks the gateway once.
func (l *load) call(ctx context.Context, method, path string, body any) (status int, answer []byte, err error) {
	var content io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return 0, nil, fmt.Errorf("encoding a request: %w", err)
		}
		content = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, l.url+path, content)
	if err != nil {
		return 0, nil, fmt.Errorf("making a request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+l.apiKey)
	req.Header.Set("Content-Type", "application/json")
	res, err := l.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err = io.ReadAll(io.LimitReader(res.Body, 8<<20))
	return res.StatusCode, answer, err
}

// must is call for what has to succeed.
func (l *load) must(ctx context.Context, method, path string, body any) error {
	status, answer, err := l.call(ctx, method, path, body)
	if err == nil && status >= 300 {
		err = errors.New(string(answer[:min(len(answer), 300)]))
	}
	if err != nil {
		return fmt.Errorf("%s %s: %d %w", method, path, status, err)
	}
	return nil
}
