package sender

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"wagate/internal/cloudapi"
)

func TestNobodyListens(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	out := testSender(t, "http://"+address, nil).Send(t.Context(), testTry(func() error { t.Error("Begin was called"); return nil }))
	check(t, out, Transient, "dial")
	if out.Latency != 0 || out.Action != cloudapi.ActionRetryBackoff {
		t.Errorf("%+v", out)
	}
}

func TestNameThatDoesNotExist(t *testing.T) {
	s, err := newSender(Config{BaseURL: "http://graph.invalid", Version: "v23.0"},
		func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "graph.invalid", IsNotFound: true}}
		})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	check(t, s.Send(t.Context(), testTry(nil)), Transient, "dns")
}

// A connection that the server has reset before the first byte was written
// proves that nothing went out: a fresh one, and a stale idle one.
func TestResetBeforeTheRequest(t *testing.T) {
	for _, answered := range []int{0, 1} {
		now, done := make(chan struct{}), make(chan struct{})
		url := listen(t, func(_ int, c *net.TCPConn) {
			r := bufio.NewReader(c)
			for range answered {
				if readRequest(r) != nil {
					return
				}
				writeAnswer(c, "200 OK", okAnswer)
			}
			<-now
			reset(c)
			close(done)
		})
		s := testSender(t, url, nil)
		for range answered {
			check(t, s.Send(t.Context(), testTry(nil)), Accepted, "accepted")
		}
		out := s.Send(t.Context(), testTry(func() error {
			close(now)
			<-done
			return nil
		}))
		check(t, out, Transient, "stale")
	}
}

func TestCutAfterTheRequest(t *testing.T) {
	for name, c := range map[string]struct {
		end     func(c *net.TCPConn)
		reasons []string
	}{
		"reset":              {reset, []string{"reset", "eof", "cut"}},
		"answer dropped":     {func(*net.TCPConn) {}, []string{"eof", "cut"}},
		"half a status line": {func(c *net.TCPConn) { _, _ = io.WriteString(c, "HTTP/1.1 20") }, []string{"eof", "cut"}},
		"no HTTP":            {func(c *net.TCPConn) { _, _ = io.WriteString(c, "SSH-2.0-x\r\n\r\n") }, []string{"cut"}},
		"half a body":        {func(c *net.TCPConn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{") }, []string{"eof"}},
		"half an error body": {func(c *net.TCPConn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad\r\nContent-Length: 500\r\n\r\n{") }, []string{"eof"}},
		"a header that has no end": {func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 4*maxAnswerHeader))
		}, []string{"cut", "eof", "reset"}},
	} {
		t.Run(name, func(t *testing.T) {
			url := listen(t, func(_ int, conn *net.TCPConn) {
				if readRequest(bufio.NewReader(conn)) == nil {
					c.end(conn)
				}
			})
			out := testSender(t, url, nil).Send(t.Context(), testTry(nil))
			check(t, out, Unknown, c.reasons...)
			if out.Cause == nil || out.Latency <= 0 {
				t.Errorf("%+v", out)
			}
		})
	}
}

// The context ends while the request is out: whether by cancelling or by time,
// whether before the answer or within its body.
func TestContextEndsAfterTheRequest(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		start  string
		reason string
	}{
		"cancelled":               {context.Canceled, "", "cancelled"},
		"timed out":               {context.DeadlineExceeded, "", "timeout"},
		"timed out within a body": {context.DeadlineExceeded, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", "timeout"},
		"cancelled within a body": {context.Canceled, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", "cancelled"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := newEnded(c.err)
			url := listen(t, func(_ int, conn *net.TCPConn) {
				r := bufio.NewReader(conn)
				if readRequest(r) != nil {
					return
				}
				_, _ = io.WriteString(conn, c.start)
				close(ctx.done)
				_, _ = io.Copy(io.Discard, r) // until the client gives up
			})
			check(t, testSender(t, url, nil).Send(ctx, testTry(nil)), Unknown, c.reason)
		})
	}
}

func TestContextEndsBeforeTheRequest(t *testing.T) {
	url := listen(t, func(_ int, c *net.TCPConn) {
		if b, _ := io.ReadAll(c); len(b) > 0 {
			t.Errorf("on the wire: %q", b)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check(t, testSender(t, url, nil).Send(ctx, testTry(nil)), Transient, "cancelled")
	out := testSender(t, url, func(c *Config) { c.Timeout = 1 }).Send(t.Context(), testTry(nil))
	check(t, out, Transient, "timeout", "dial")
}

// pipeSender is a Sender whose one connection ends in the test.
func pipeSender(t *testing.T, change func(*Config)) (*Sender, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	c := Config{BaseURL: "http://graph.test", Version: "v23.0"}
	if change != nil {
		change(&c)
	}
	s, err := newSender(c, func(context.Context, string, string) (net.Conn, error) { return theirs, nil })
	if err != nil {
		t.Fatal(err)
	}
	return s, ours
}

// With a clock of its own: the preset timeout ends a try whose answer never
// comes, and no sooner.
func TestTimeoutOfAWholeTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, server := pipeSender(t, nil)
		go func() {
			_ = readRequest(bufio.NewReader(server))
			_, _ = io.Copy(io.Discard, server)
		}()
		start := time.Now()
		out := s.Send(t.Context(), testTry(nil))
		check(t, out, Unknown, "timeout")
		if took := time.Since(start); took != 30*time.Second || out.Latency != took {
			t.Errorf("took %v, latency %v", took, out.Latency)
		}
		s.Close()
		_ = server.Close()
	})
}

// A body that trickles in does not hold a try beyond its timeout.
func TestSlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, server := pipeSender(t, func(c *Config) { c.Timeout = 5 * time.Second })
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = readRequest(bufio.NewReader(server))
			_, err := io.WriteString(server, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
			for tick := time.NewTicker(time.Second); err == nil; <-tick.C {
				_, err = io.WriteString(server, " ")
			}
		})
		start := time.Now()
		check(t, s.Send(t.Context(), testTry(nil)), Unknown, "timeout")
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("took %v", took)
		}
		s.Close()
		_ = server.Close()
		wg.Wait()
	})
}
