package graphproxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// watch ends a stream that stands still, or takes too long.
type watch struct {
	timer *time.Timer
	after time.Duration
}

func (w *watch) moved() {
	if w != nil {
		w.timer.Reset(w.after)
	}
}

// watched gives a context that ends when nothing has moved for too long, and when the whole takes too long: a byte a minute
// is no reason to hold a place for ever.
func (p *Proxy) watched(ctx context.Context) (context.Context, *watch, context.CancelFunc) {
	ctx, end := context.WithTimeoutCause(ctx, p.streamTime, errSlow)
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{after: p.still}
	w.timer = time.AfterFunc(p.still, func() { cancel(errStill) })
	return ctx, w, func() { w.timer.Stop(); cancel(nil); end() }
}

var (
	errTooLarge = errors.New("the body is too large")
	errBodyOver = errors.New("the call is over")
)

// body is a caller's request body on its way to Meta. It is read by a goroutine of the transport's, which may outlive the
// call by an instant.
type body struct {
	from  io.ReadCloser
	rc    *http.ResponseController
	still time.Duration
	watch *watch // nil for a call that is bounded as a whole
	guard guard  // nil for a file alone
	kind  string // its content type, "" for none
	left  int64  // bytes that may still come
	bytes int64

	mu   sync.Mutex
	over bool  // the handler has returned, and the connection is no longer this call's
	all  bool  // it has come to its end
	err  error // why the body did not come whole, io.EOF aside
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	if b.over {
		b.mu.Unlock()
		return 0, errBodyOver
	}
	_ = b.rc.SetReadDeadline(time.Now().Add(b.still)) // not every connection has deadlines
	b.mu.Unlock()
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1] // one byte more tells what is too large
	}
	n, err := b.from.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		n, err = 0, errTooLarge
	} else if b.guard != nil {
		if refused := b.guard.feed(p[:n]); refused != nil {
			n, err = 0, refused
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes += int64(n)
	if b.all = errors.Is(err, io.EOF); err != nil && !b.all {
		b.err = err
	}
	if n > 0 {
		b.watch.moved()
	}
	return n, err
}

// Close implements io.Closer; the server closes what it has read from by itself.
func (b *body) Close() error { return nil }

// finish ends the body's use: the connection behind it may serve another request from now on.
func (b *body) finish() (n int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	return b.bytes, b.err
}

// drop ends the waiting for what is left of a body when the time of its call is over: the server would read on before it
// sends the answer.
func (b *body) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.all {
		_ = b.rc.SetReadDeadline(time.Now()) // not every connection has deadlines
	}
}
