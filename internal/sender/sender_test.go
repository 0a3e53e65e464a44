package sender

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"wagate/internal/cloudapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const okAnswer = `{"messaging_product":"whatsapp","contacts":[{"input":"+12025550101","wa_id":"12025550101"}],"messages":[{"id":"wamid.OK"}]}`

func testSender(t *testing.T, baseURL string, change func(*Config)) *Sender {
	t.Helper()
	c := Config{BaseURL: baseURL, Version: "v23.0", MaxConns: 8}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func testTry(begin func() error) Try {
	if begin == nil {
		begin = func() error { return nil }
	}
	return Try{PhoneNumberID: "2001", WABAID: "7001", Token: "EAAtoken", Body: []byte(`{"to":"+12025550101"}`), Begin: func(context.Context) error { return begin() }}
}

// server answers every request by handle.
func server(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return s.URL
}

// listen runs serve for each connection of a raw listener, one after the other
// in number, and waits for all of them at the end of the test.
func listen(t *testing.T, serve func(number int, c *net.TCPConn)) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for number := 1; ; number++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				serve(number, c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}

// readRequest takes one whole request off the connection.
func readRequest(r *bufio.Reader) error {
	request, err := http.ReadRequest(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, request.Body)
	return err
}

func writeAnswer(c net.Conn, status, body string) {
	_, _ = io.WriteString(c, "HTTP/1.1 "+status+"\r\nContent-Type: application/json\r\nContent-Length: "+
		itoa(len(body))+"\r\n\r\n"+body)
}

func itoa(n int) string {
	var b []byte
	for ; n > 0 || b == nil; n /= 10 {
		b = append(b, byte('0'+n%10))
	}
	slices.Reverse(b)
	return string(b)
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// ended is a context that ends when the test says, with the error it says.
type ended struct {
	context.Context
	done chan struct{}
	err  error
}

func (e *ended) Done() <-chan struct{} { return e.done }

func (e *ended) Err() error {
	select {
	case <-e.done:
		return e.err
	default:
		return nil
	}
}

func newEnded(err error) *ended {
	return &ended{context.Background(), make(chan struct{}), err}
}

func check(t *testing.T, out Outcome, kind Kind, reasons ...string) {
	t.Helper()
	if out.Kind != kind || !slices.Contains(reasons, out.Reason) {
		t.Errorf("%s/%s (cause %v), want %s/%v", out.Kind, out.Reason, out.Cause, kind, reasons)
	}
}

// A try goes to the endpoint that it names.
func TestSendToAnEndpoint(t *testing.T) {
	var paths []string
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.Path)
		_, _ = io.WriteString(w, okAnswer)
	})
	s := testSender(t, url, nil)
	for _, api := range []string{"", "messages", "marketing_messages"} {
		try := testTry(nil)
		try.API = api
		check(t, s.Send(t.Context(), try), Accepted, "accepted")
	}
	if want := []string{"/v23.0/2001/messages", "/v23.0/2001/messages", "/v23.0/2001/marketing_messages"}; !slices.Equal(paths, want) {
		t.Errorf("went to %q", paths)
	}
}

func TestSendAccepted(t *testing.T) {
	var got *http.Request
	var body []byte
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Clone(context.Background())
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, okAnswer)
	})
	s := testSender(t, url+"/graph/", func(c *Config) { c.WorkerID = "w-1" })
	begun := 0
	out := s.Send(t.Context(), testTry(func() error { begun++; return nil }))
	check(t, out, Accepted, "accepted")
	if out.WAMID != "wamid.OK" || out.WAID != "12025550101" || out.HTTPStatus != 200 || out.Latency <= 0 || out.Cause != nil {
		t.Errorf("%+v", out)
	}
	if begun != 1 {
		t.Errorf("Begin was called %d times", begun)
	}
	if got.Method != "POST" || got.URL.Path != "/graph/v23.0/2001/messages" || got.Proto != "HTTP/1.1" || string(body) != `{"to":"+12025550101"}` {
		t.Errorf("%s %s %s %s", got.Method, got.URL.Path, got.Proto, body)
	}
	if got.ContentLength != int64(len(body)) || len(got.TransferEncoding) > 0 {
		t.Errorf("length %d, %v", got.ContentLength, got.TransferEncoding)
	}
	want := map[string]string{
		"Authorization": "Bearer EAAtoken", "Content-Type": "application/json", "User-Agent": userAgent,
		"X-Wagate-Worker": "w-1", "Content-Length": itoa(len(body)),
	}
	if len(got.Header) != len(want) {
		t.Errorf("headers %v", got.Header)
	}
	for name, value := range want {
		if got.Header.Get(name) != value {
			t.Errorf("%s: %q, want %q", name, got.Header.Get(name), value)
		}
	}
}

func TestSendGivesGraphErrorsOn(t *testing.T) {
	url := server(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Business-Use-Case-Usage", `{"7001":[{"type":"whatsapp","estimated_time_to_regain_access":3}]}`)
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, graphBody(80007))
	})
	out := testSender(t, url, nil).Send(t.Context(), testTry(nil))
	check(t, out, Throttled, "retry_after_window")
	if out.Scope != cloudapi.ScopeWABA || out.Wait != 3*time.Minute || out.Err == nil || out.Err.Code != 80007 || out.HTTPStatus != 400 {
		t.Errorf("%+v", out)
	}
}

func TestSendFollowsNoRedirect(t *testing.T) {
	var requests atomic.Int32
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	out := testSender(t, url, nil).Send(t.Context(), testTry(nil))
	check(t, out, Refused, "redirect")
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestSendReusesConnections(t *testing.T) {
	var conns atomic.Int32
	url := listen(t, func(_ int, c *net.TCPConn) {
		conns.Add(1)
		for r := bufio.NewReader(c); readRequest(r) == nil; {
			writeAnswer(c, "200 OK", okAnswer)
		}
	})
	s := testSender(t, url, nil)
	begun := 0
	for range 20 {
		check(t, s.Send(t.Context(), testTry(func() error { begun++; return nil })), Accepted, "accepted")
	}
	if n := conns.Load(); n != 1 || begun != 20 {
		t.Errorf("%d connections, Begin called %d times", n, begun)
	}
	s.Close() // so that the listener's connection ends
}

var errLate = errors.New("too late")

func TestBeginErrorLeavesNothingOnTheWire(t *testing.T) {
	got := make(chan []byte, 1)
	url := listen(t, func(_ int, c *net.TCPConn) {
		b, _ := io.ReadAll(c)
		got <- b
	})
	out := testSender(t, url, nil).Send(t.Context(), testTry(func() error { return errLate }))
	check(t, out, NotBegun, "begin")
	if !errors.Is(out.Cause, errLate) || out.Latency != 0 {
		t.Errorf("%+v", out)
	}
	if b := <-got; len(b) > 0 {
		t.Errorf("on the wire: %q", b)
	}
}

func TestBeginErrorOnAReusedConnection(t *testing.T) {
	rest := make(chan []byte, 1)
	url := listen(t, func(_ int, c *net.TCPConn) {
		r := bufio.NewReader(c)
		if readRequest(r) != nil {
			return
		}
		writeAnswer(c, "200 OK", okAnswer)
		b, _ := io.ReadAll(r)
		rest <- b
	})
	s := testSender(t, url, nil)
	check(t, s.Send(t.Context(), testTry(nil)), Accepted, "accepted")
	check(t, s.Send(t.Context(), testTry(func() error { return errLate })), NotBegun, "begin")
	if b := <-rest; len(b) > 0 {
		t.Errorf("on the wire: %q", b)
	}
}

func tlsSender(t *testing.T, handle http.HandlerFunc, trust bool) *Sender {
	t.Helper()
	server := httptest.NewUnstartedServer(handle)
	server.EnableHTTP2 = true                                                        // offered, and to be declined
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // refused handshakes are the point
	server.StartTLS()
	t.Cleanup(server.Close)
	s := testSender(t, server.URL, nil)
	if trust {
		s.transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		s.transport.TLSClientConfig.RootCAs.AddCert(server.Certificate())
	}
	return s
}

func TestSendOverTLS(t *testing.T) {
	var requests atomic.Int32
	s := tlsSender(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.ProtoMajor != 1 {
			t.Errorf("spoke %s", r.Proto)
		}
		_, _ = io.WriteString(w, okAnswer)
	}, true)
	check(t, s.Send(t.Context(), testTry(nil)), Accepted, "accepted")
	out := s.Send(t.Context(), testTry(func() error { return errLate }))
	check(t, out, NotBegun, "begin")
	check(t, s.Send(t.Context(), testTry(nil)), Accepted, "accepted")
	if n := requests.Load(); n != 2 {
		t.Errorf("%d requests arrived, want 2", n)
	}
}

func TestUntrustedCertificateIsTransient(t *testing.T) {
	s := tlsSender(t, func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") }, false)
	out := s.Send(t.Context(), testTry(func() error { t.Error("Begin was called"); return nil }))
	check(t, out, Transient, "tls")
}

// Headers and a message of usual size leave in one write, so that the check in
// Begin stands before all of it.
func TestRequestLeavesInOneWrite(t *testing.T) {
	s, server := pipeSender(t, nil)
	defer func() { _ = server.Close() }()
	first := make(chan string, 1)
	go func() {
		b := make([]byte, 64<<10)
		n, _ := server.Read(b) // a pipe's Read gives what one Write brought
		first <- string(b[:n])
		writeAnswer(server, "200 OK", okAnswer)
	}()
	try := testTry(nil)
	try.Body = []byte(`{"text":"` + strings.Repeat("x", 5000) + `"}`)
	check(t, s.Send(t.Context(), try), Accepted, "accepted")
	s.Close()
	head, body, found := strings.Cut(<-first, "\r\n\r\n")
	if !found || body != string(try.Body) || len(head) > 4096 {
		t.Errorf("first write: %d bytes of headers, %d of body", len(head), len(body))
	}
}

// What comes before our request was written is not the answer to it.
func TestStrayAnswerIsNotOurs(t *testing.T) {
	now, answered := make(chan struct{}), make(chan struct{})
	url := listen(t, func(_ int, c *net.TCPConn) {
		<-now
		writeAnswer(c, "200 OK", okAnswer)
		close(answered)
		_, _ = io.Copy(io.Discard, c)
	})
	out := testSender(t, url, nil).Send(t.Context(), testTry(func() error {
		close(now)
		<-answered
		return errLate
	}))
	check(t, out, NotBegun, "begin")
	check(t, broken(ending{}, errStrayAnswer, false), Transient, "stale")
}

func TestConnectionThatCannotBeGuarded(t *testing.T) {
	a, b := net.Pipe()
	defer func() { _ = a.Close(); _ = b.Close() }()
	g := &gate{}
	if guard(a, g) {
		t.Fatal("a connection that is not ours is guarded")
	}
	g.lose()
	check(t, broken(g.close(), context.Canceled, false), Unknown, "cancelled")
}

func TestGateAfterItsEnd(t *testing.T) {
	g := &gate{begin: func() error { t.Error("Begin was called"); return nil }}
	if end := g.close(); end.written || end.got {
		t.Errorf("%+v", end)
	}
	if err := g.enter(); !errors.Is(err, errTryOver) {
		t.Errorf("enter after close: %v", err)
	}
	open := &gate{}
	if err := open.enter(); err != nil {
		t.Fatal(err)
	}
	if end := open.close(); !end.written {
		t.Error("a write under way does not count as written")
	}
	open.leave(0)
	if end := open.close(); end.written {
		t.Error("a write that failed before its first byte counts as written")
	}
}

func TestManyAtOnce(t *testing.T) {
	var requests atomic.Int32
	url := server(t, func(w http.ResponseWriter, _ *http.Request) {
		if requests.Add(1)%5 == 0 {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, graphBody(130429))
			return
		}
		_, _ = io.WriteString(w, okAnswer)
	})
	s := testSender(t, url, nil)
	var accepted, throttled, refused atomic.Int32
	var wg sync.WaitGroup
	for worker := range 16 {
		wg.Go(func() {
			for i := range 25 {
				begin := func() error { return nil }
				if (worker+i)%7 == 0 {
					begin = func() error { return errLate }
				}
				switch out := s.Send(t.Context(), testTry(begin)); out.Kind {
				case Accepted:
					accepted.Add(1)
				case Throttled:
					throttled.Add(1)
				case NotBegun:
					refused.Add(1)
				default:
					t.Errorf("%+v", out)
				}
			}
		})
	}
	wg.Wait()
	if got := accepted.Load() + throttled.Load(); got != requests.Load() || got+refused.Load() != 400 || refused.Load() == 0 || throttled.Load() == 0 {
		t.Errorf("%d accepted, %d throttled, %d not begun, %d arrived", accepted.Load(), throttled.Load(), refused.Load(), requests.Load())
	}
}

func BenchmarkSend(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, okAnswer) }))
	defer server.Close()
	s, err := New(Config{BaseURL: server.URL, Version: "v23.0"})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	for b.Loop() {
		if out := s.Send(context.Background(), testTry(nil)); out.Kind != Accepted {
			b.Fatal(out)
		}
	}
}
