package dispatch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"wagate/internal/limiter"
	"wagate/internal/queue"
	"wagate/internal/sender"
	"wagate/internal/store"
)

// api is a Cloud API that answers as it is told, and counts connections.
type api struct {
	*httptest.Server
	status int    // 0 cuts the connection after the request was read
	answer string // empty: an id
	// retryAfter is the header of that name, where not empty.
	retryAfter string

	conns      atomic.Int32
	spoken     atomic.Int32 // connections on which a byte came
	handshakes atomic.Int32

	mu    sync.Mutex
	posts []time.Time // when they came
}

const taking = `{"messaging_product":"whatsapp","contacts":[{"input":"+12025550101","wa_id":"12025550101"}],"messages":[{"id":"wamid.%d"}]}`

func graphError(code int) string {
	return fmt.Sprintf(`{"error":{"message":"(#%d) no","type":"OAuthException","code":%d,"fbtrace_id":"A1"}}`, code, code)
}

func newAPI(t *testing.T, secure bool) *api {
	t.Helper()
	a := &api{status: http.StatusOK}
	a.Server = httptest.NewUnstartedServer(a)
	a.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	a.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			a.conns.Add(1)
		case http.StateActive:
			a.spoken.Add(1)
		default:
		}
	}
	if secure {
		a.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			a.handshakes.Add(1)
			<-time.After(60 * time.Millisecond)
			return nil, nil
		}}
		a.StartTLS()
	} else {
		a.Start()
	}
	t.Cleanup(a.Close)
	return a
}

// ServeHTTP implements http.Handler.
func (a *api) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	at := time.Now()
	_, _ = io.Copy(io.Discard, q.Body)
	a.mu.Lock()
	a.posts = append(a.posts, at)
	n := len(a.posts)
	a.mu.Unlock()
	if a.status == 0 {
		panic(http.ErrAbortHandler)
	}
	if a.retryAfter != "" {
		w.Header().Set("Retry-After", a.retryAfter)
	}
	w.WriteHeader(a.status)
	if a.answer != "" {
		_, _ = io.WriteString(w, a.answer)
		return
	}
	_, _ = fmt.Fprintf(w, taking, n)
}

func (a *api) seen() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.posts)
}

// trust makes a sender take the server's certificate. Its transport is its own affair; SSL_CERT_FILE would be the whole
// process's.
func trust(s *sender.Sender, server *httptest.Server) {
	transport := (*http.Transport)(reflect.ValueOf(s).Elem().FieldByName("transport").UnsafePointer())
	transport.TLSClientConfig.RootCAs = x509.NewCertPool()
	transport.TLSClientConfig.RootCAs.AddCert(server.Certificate())
}

// run works a message's job.
func (r *rig) run(t *testing.T, id uuid.UUID) queue.Verdict {
	t.Helper()
	return r.Handle(bounded(t), claim(t, r.pool, id, "worker-a"))
}

// marked is the run of a message's job whose try is marked for a slot.
func (r *rig) marked(t *testing.T, ln *lane, slot time.Time) *run {
	t.Helper()
	id := r.accept(t)
	job := claim(t, r.pool, id, "worker-a")
	msg, err := r.loads.Do(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	grant, err := ln.waba.line.Wait(bounded(t), limiter.Request{Phone: testPhone, Recipient: msg.User})
	if err != nil {
		t.Fatal(err)
	}
	grant.Slot = slot
	marked, err := r.marks.Do(t.Context(), store.Mark{ID: id, WABAID: testWABA, Epoch: ln.waba.lease.Epoch, Slot: r.cfg.Owner.SlotTime(slot)})
	if err != nil || !marked {
		t.Fatalf("marked %v, %v", marked, err)
	}
	return &run{ln: ln, job: job, msg: msg, try: 1, body: msg.Body, grant: grant, paired: true}
}

func TestASlowHandshake(t *testing.T) {
	server := newAPI(t, true)
	r := newRig(t, newPool(t), "worker-a", server.URL)
	trust(r.cfg.Sender, server.Server)
	exec(t, r.pool, `UPDATE phone_numbers SET messages_per_second = 80`)
	ln := r.own(t)
	sent := func(id uuid.UUID) {
		t.Helper()
		if m := read(t, r.pool, id); m.Status != "accepted" || m.Try != 1 || m.Retries != 0 {
			t.Errorf("%+v", m)
		}
		wantJobs(t, r.pool, id, "completed")
		wantEvents(t, r.pool, id, "try.accepted")
	}
	// The first slot passes during the handshake; the connection is there for the next one, and for the next message.
	for range 3 {
		id := r.accept(t)
		if v := r.run(t, id); v != queue.Settled() {
			t.Fatalf("verdict %+v", v)
		}
		sent(id)
	}
	if h, c := server.handshakes.Load(), server.conns.Load(); h != 1 || c != 1 {
		t.Errorf("three messages took %d handshakes on %d connections, want one", h, c)
	}
	if r.count(t, "wagate_slots_missed_total") == 0 {
		t.Error("no slot was missed: the handshake was not slow")
	}

	// Several at once need as many connections at most, and none is thrown away.
	var ids []uuid.UUID
	var wg sync.WaitGroup
	for range 4 {
		id := r.accept(t)
		job := claim(t, r.pool, id, "worker-a")
		ids = append(ids, id)
		wg.Go(func() { r.Handle(bounded(t), job) })
	}
	wg.Wait()
	for _, id := range ids {
		sent(id)
	}
	if c := server.conns.Load(); c > 4 {
		t.Errorf("%d connections for four messages at a time", c)
	}

	// However early the connection stands, nothing goes out before the slot.
	r.cfg.Sender.Close()
	slot := time.Now().Add(250 * time.Millisecond)
	one := r.marked(t, ln, slot)
	if v := r.send(bounded(t), one); v != queue.Settled() {
		t.Fatalf("verdict %+v", v)
	}
	sent(one.msg.ID)
	if posts := server.seen(); len(posts) != 8 || posts[7].Before(slot) {
		t.Errorf("POSTed at %v, the slot was %v", posts, slot)
	}
}

func TestAMissedSlotTakesAnotherOnTheSameConnection(t *testing.T) {
	server := newAPI(t, false)
	r := newRig(t, newPool(t), "worker-a", server.URL)
	ln := r.own(t)
	slot := time.Now().Add(-time.Second)
	one := r.marked(t, ln, slot)
	if v := r.send(bounded(t), one); v != queue.Settled() {
		t.Fatalf("verdict %+v", v)
	}
	if m := read(t, r.pool, one.msg.ID); m.Status != "accepted" || m.Try != 1 || m.Retries != 0 {
		t.Errorf("%+v", m)
	}
	wantEvents(t, r.pool, one.msg.ID, "try.accepted")
	if posts, conns := len(server.seen()), server.conns.Load(); posts != 1 || conns != 1 {
		t.Errorf("%d POSTs on %d connections, want one on one", posts, conns)
	}
	if r.count(t, "wagate_slots_missed_total") == 0 {
		t.Error("the missed slot was not counted")
	}
	if n := len(ln.posts.began); n != 0 {
		t.Errorf("%d POSTs are still taken for under way", n)
	}
}

func TestWhatStandsAgainstATryLeavesNothingOnTheWire(t *testing.T) {
	past := time.Now().Add(-time.Minute)
	for _, c := range []struct {
		name   string
		slot   time.Duration // from now
		prime  func(t *testing.T, r *rig, ln *lane, msg *store.Outbound) (context.Context, error)
		reason string // of the try that was not sent; empty: the message ended
	}{
		{"lease over", 0, func(t *testing.T, r *rig, ln *lane, _ *store.Outbound) (context.Context, error) {
			return t.Context(), r.cfg.Owner.Release(t.Context(), ln.waba.lease)
		}, "lease_over"},
		{"lease over and slot missed", -time.Second, func(t *testing.T, r *rig, ln *lane, _ *store.Outbound) (context.Context, error) {
			return t.Context(), r.cfg.Owner.Release(t.Context(), ln.waba.lease)
		}, "lease_over"},
		{"phone paused", 0, func(t *testing.T, r *rig, ln *lane, _ *store.Outbound) (context.Context, error) {
			r.hit(t, ln, phoneKey, time.Hour)
			return t.Context(), nil
		}, "paused"},
		{"app paused", 0, func(t *testing.T, r *rig, ln *lane, _ *store.Outbound) (context.Context, error) {
			r.hit(t, ln, appKey, time.Hour)
			return t.Context(), nil
		}, "paused"},
		{"lane shut after a missed slot", -time.Second, func(t *testing.T, _ *rig, ln *lane, _ *store.Outbound) (context.Context, error) {
			ln.waba.line.Shut(testPhone)
			return t.Context(), nil
		}, "slot_missed"},
		{"stopped", time.Hour, func(t *testing.T, _ *rig, _ *lane, _ *store.Outbound) (context.Context, error) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return ctx, nil
		}, "stopped"},
		{"no token", 0, func(t *testing.T, _ *rig, ln *lane, _ *store.Outbound) (context.Context, error) {
			ln.waba.token.Store(nil)
			return t.Context(), nil
		}, "no_token"},
		{"expired", 0, func(t *testing.T, _ *rig, _ *lane, msg *store.Outbound) (context.Context, error) {
			msg.ExpiresAt = &past
			return t.Context(), nil
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := newAPI(t, false)
			r := newRig(t, newPool(t), "worker-a", server.URL)
			ln := r.own(t)
			slot := time.Now().Add(c.slot)
			one := r.marked(t, ln, slot)
			ctx, err := c.prime(t, r, ln, &one.msg)
			if err != nil {
				t.Fatal(err)
			}
			v := r.send(ctx, one)
			if n := server.spoken.Load(); n != 0 {
				t.Errorf("bytes on %d connections", n)
			}
			if c.reason == "" {
				if m := read(t, r.pool, one.msg.ID); m.Status != "expired" || m.SlotAt != nil {
					t.Errorf("%+v", m)
				}
				wantJobs(t, r.pool, one.msg.ID, "completed")
				wantEvents(t, r.pool, one.msg.ID, "expired")
				return
			}
			wantQueued(t, r.pool, one.msg.ID)
			wantEvents(t, r.pool, one.msg.ID, "try.unsent")
			var reason string
			scan(t, r.pool, &reason, `SELECT detail ->> 'reason' FROM message_events`)
			if reason != c.reason {
				t.Errorf("not sent because of %q, want %q", reason, c.reason)
			}
			if c.reason == "no_token" {
				if v != queue.Snooze(time.Second) {
					t.Errorf("verdict %+v", v)
				}
				return
			}
			if v != queue.Settled() {
				t.Errorf("verdict %+v", v)
			}
			wantGivenBack(t, r.pool, one.msg.ID)
		})
	}
}

// Behind a pause of seconds the lane stays open; its job is given back to its place and waits there.
func TestAShortPauseGivesTheJobBack(t *testing.T) {
	server := newAPI(t, false)
	r := newRig(t, newPool(t), "worker-a", server.URL)
	ln := r.own(t)
	one := r.marked(t, ln, time.Now())
	r.hit(t, ln, phoneKey, closeForPause)
	if v := r.send(bounded(t), one); v != queue.Settled() {
		t.Errorf("verdict %+v", v)
	}
	if n := server.spoken.Load(); n != 0 {
		t.Errorf("bytes on %d connections", n)
	}
	wantQueued(t, r.pool, one.msg.ID)
	wantGivenBack(t, r.pool, one.msg.ID)
}

func TestAMarkOfAnEarlierEpochIsRefused(t *testing.T) {
	server := newAPI(t, false)
	r := newRig(t, newPool(t), "worker-a", server.URL)
	r.own(t)
	id := r.accept(t)
	exec(t, r.pool, `UPDATE leases SET epoch = epoch + 1, worker_id = 'worker-b'`)
	if v := r.run(t, id); v != queue.Snooze(100*time.Millisecond) {
		t.Errorf("verdict %+v", v)
	}
	wantQueued(t, r.pool, id)
	if m := read(t, r.pool, id); m.Try != 0 || server.conns.Load() != 0 {
		t.Errorf("%+v, %d connections", m, server.conns.Load())
	}
	wantEvents(t, r.pool, id)
}
