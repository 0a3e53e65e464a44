// Package batch turns concurrent calls into sets: many callers each hand in one item, a flush handles them together
// (one transaction, one statement), and each caller gets its own result. While one flush runs the next set gathers, so
// sets grow with the load and a lone call waits for nobody.
package batch

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed is returned by Do after Close.
var ErrClosed = errors.New("batch: closed")

// Result is what a flush says of one item.
type Result[Out any] struct {
	Out Out
	Err error
}

// Flush handles a set of at most Config.Max items and returns one result an item, in order. Its context is not that of
// any caller; the flush bounds its own time. An error in its second place stands for every item.
type Flush[In, Out any] func(ctx context.Context, items []In) ([]Result[Out], error)

// Config sizes a group. The zero value of a field takes its default.
type Config struct {
	// Max is the largest set; default 500.
	Max int
	// Linger is how long a set waits for company once it has its first item; default 0: take what is there.
	Linger time.Duration
	// Every is the least time from one flush of a flusher to its next: under a steady trickle a set gathers meanwhile, and
	// after a quiet time the first item waits for nobody. Default 0.
	Every time.Duration
	// Flushers is how many sets may be under way at once; default 1.
	Flushers int
	// Waiting is how many items may wait; beyond it Do waits for room. Default 4 × Max.
	Waiting int
}

const (
	waiting int32 = iota
	taken
	abandoned
)

type item[In, Out any] struct {
	in    In
	state atomic.Int32
	done  chan Result[Out]
}

// Group gathers items for one flush function.
type Group[In, Out any] struct {
	cfg    Config
	flush  Flush[In, Out]
	in     chan *item[In, Out]
	closed chan struct{}
	once   sync.Once
	ctx    context.Context //nolint:containedctx // the life of the group, ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New starts the group's flushers. Close ends them.
func New[In, Out any](cfg Config, flush Flush[In, Out]) *Group[In, Out] {
	if cfg.Max <= 0 {
		cfg.Max = 500
	}
	if cfg.Flushers <= 0 {
		cfg.Flushers = 1
	}
	if cfg.Waiting <= 0 {
		cfg.Waiting = 4 * cfg.Max
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &Group[In, Out]{
		cfg: cfg, flush: flush, in: make(chan *item[In, Out], cfg.Waiting), closed: make(chan struct{}),
		ctx: ctx, cancel: cancel,
	}
	for range cfg.Flushers {
		g.wg.Go(g.run)
	}
	return g
}

// Do hands in one item and waits for its result. When ctx ends while the item still waits, it is withdrawn and never
// flushed; once a flush has it, Do waits for the flush, so a caller always knows which of the two happened.
func (g *Group[In, Out]) Do(ctx context.Context, in In) (Out, error) {
	it := &item[In, Out]{in: in, done: make(chan Result[Out], 1)}
	var zero Out
	select {
	case g.in <- it:
	case <-ctx.Done():
		return zero, ctx.Err()
	case <-g.closed:
		return zero, ErrClosed
	}
	select {
	case r := <-it.done:
		return r.Out, r.Err
	case <-ctx.Done():
		if it.state.CompareAndSwap(waiting, abandoned) {
			return zero, ctx.Err()
		}
	case <-g.closed:
		// The flushers empty what waits before they end; an item put in beside Close may be seen by none.
		g.wg.Wait()
		if it.state.CompareAndSwap(waiting, abandoned) {
			return zero, ErrClosed
		}
	}
	r := <-it.done
	return r.Out, r.Err
}

// Close flushes what waits and ends the group's goroutines. Later calls of Do return ErrClosed.
func (g *Group[In, Out]) Close() {
	g.once.Do(func() { close(g.closed) })
	g.wg.Wait()
	g.cancel()
}

func (g *Group[In, Out]) run() {
	var last time.Time // when its last flush began
	next := func(it *item[In, Out]) {
		linger := g.cfg.Linger
		if g.cfg.Every > 0 {
			linger = max(linger, time.Until(last.Add(g.cfg.Every)))
		}
		set := g.gather(it, linger)
		last = time.Now()
		g.handle(set)
	}
	for {
		select {
		case it := <-g.in:
			next(it)
		case <-g.closed:
			for {
				select {
				case it := <-g.in:
					next(it)
				default:
					return
				}
			}
		}
	}
}

// gather takes what waits, up to Max, after lingering for company.
func (g *Group[In, Out]) gather(first *item[In, Out], wait time.Duration) []*item[In, Out] {
	set := make([]*item[In, Out], 0, 16)
	add := func(it *item[In, Out]) {
		if it.state.CompareAndSwap(waiting, taken) {
			set = append(set, it)
		}
	}
	add(first)
	var linger <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		linger = t.C
	}
	for len(set) < g.cfg.Max {
		select {
		case it := <-g.in:
			add(it)
			continue
		default:
		}
		if linger == nil {
			break
		}
		select {
		case it := <-g.in:
			add(it)
		case <-linger:
			linger = nil
		case <-g.closed:
			linger = nil
		}
	}
	return set
}

func (g *Group[In, Out]) handle(set []*item[In, Out]) {
	if len(set) == 0 {
		return
	}
	ins := make([]In, len(set))
	for i, it := range set {
		ins[i] = it.in
	}
	results, err := g.flush(g.ctx, ins)
	for i, it := range set {
		switch {
		case err != nil:
			it.done <- Result[Out]{Err: err}
		case i < len(results):
			it.done <- results[i]
		default:
			it.done <- Result[Out]{Err: errors.New("batch: the flush gave no result for an item")}
		}
	}
}
