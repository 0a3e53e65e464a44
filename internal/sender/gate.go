package sender

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// guardedConn is a dialled connection whose writes pass the gate of the try
// that holds it. Standing below TLS, it sees what reaches the wire.
type guardedConn struct {
	net.Conn
	gate atomic.Pointer[gate]
}

// Write passes p on once the gate is open. Before the first try (TLS
// handshake, proxy's CONNECT) there is no gate.
func (c *guardedConn) Write(p []byte) (int, error) {
	g := c.gate.Load()
	if g == nil {
		return c.Conn.Write(p)
	}
	if err := g.enter(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	g.leave(n)
	return n, err
}

// guard puts a try's gate into the connection the try got, in place of the one
// of the try before. It is false for a connection that is not ours.
func guard(c net.Conn, g *gate) bool {
	for {
		switch inner := c.(type) {
		case *guardedConn:
			inner.gate.Store(g)
			return true
		case interface{ NetConn() net.Conn }: // *tls.Conn
			c = inner.NetConn()
		default:
			return false
		}
	}
}

// gate is the last check of one try, at the only place where it is certain that
// nothing has been written yet: net/http writes a request's headers before it
// reads a body that is not one of its in-memory readers, so a check in the
// body's first Read would come too late.
type gate struct {
	begin func() error

	mu       sync.Mutex
	open     bool  // begin agreed
	closed   bool  // the try is over
	refusal  error // what begin said instead
	lost     bool  // the connection could not be guarded
	inFlight bool  // a write is under way, and may have put bytes on the wire
	bytes    int64
	openedAt time.Time
}

var errTryOver = errors.New("the try is over")

// enter lets a write through, or says why not.
func (g *gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.open {
		switch {
		case g.refusal != nil:
			return g.refusal
		case g.closed:
			return errTryOver
		}
		if g.begin != nil {
			if err := g.begin(); err != nil {
				g.refusal = err
				return err
			}
		}
		g.open, g.openedAt = true, time.Now()
	}
	g.inFlight = true
	return nil
}

// leave counts what a write put on the wire.
func (g *gate) leave(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight = false
	g.bytes += int64(n)
}

// lose notes that the try's writes cannot be seen, so that nothing is proved.
func (g *gate) lose() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lost = true
}

// ending is what a gate knows when its try is over.
type ending struct {
	written bool  // something was written, or may have been
	got     bool  // begin was reached, so there was a connection
	refusal error // of begin
	latency time.Duration
}

// close ends the try: a write that has not entered by now never will.
func (g *gate) close() ending {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	e := ending{
		written: g.bytes > 0 || g.inFlight || g.lost,
		got:     g.open || g.refusal != nil,
		refusal: g.refusal,
	}
	if g.open {
		e.latency = time.Since(g.openedAt)
	}
	return e
}
