package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	roleGateway = "gateway"
	roleWorker  = "worker"
)

// process is a gateway or a worker.
type process struct {
	role string
	cmd  *exec.Cmd
	// done is closed when it has ended.
	done chan struct{}
	log  *tail
	once sync.Once
}

// start runs this binary in a role.
func start(role string, settings []string) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding the binary to run: %w", err)
	}
	// Its end is the stage's doing, not a context's: some are killed, some are frozen.
	p := &process{role: role, cmd: exec.CommandContext(context.Background(), exe), done: make(chan struct{}), log: &tail{}}
	p.cmd.Env = append(environment(), append([]string{roleVariable + "=" + role}, settings...)...)
	p.cmd.Stderr = p.log
	if _, err := p.cmd.StdinPipe(); err != nil { // its end tells the child that we have ended
		return nil, fmt.Errorf("starting a %s: %w", role, err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a %s: %w", role, err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // how it ended says its log
	}()
	return p, nil
}

// environment is ours without the settings of the product.
func environment() []string {
	var kept []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "WAGATE_") && !strings.HasPrefix(v, "DATABASE_URL") {
			kept = append(kept, v)
		}
	}
	return kept
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// idPattern is the form of the worker id of this process.
func (p *process) idPattern() string { return "-" + strconv.Itoa(p.pid()) + "-[0-9a-f]{8}$" }

func (p *process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%v to a %s: %w", s, p.role, err)
	}
	return nil
}

// kill ends it with SIGKILL and waits for that.
func (p *process) kill() {
	p.once.Do(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
}

// ended says whether the process has ended by itself.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// tail keeps the last words of a process.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

const tailSize = 256 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.b.Len()+len(p) > 2*tailSize {
		t.b = *bytes.NewBuffer(bytes.Clone(t.b.Bytes()[t.b.Len()/2:]))
	}
	return t.b.Write(p)
}

func (t *tail) lines(n int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := strings.Split(strings.TrimSpace(t.b.String()), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}

// freeAddress gives a loopback address that nobody listens on.
func freeAddress(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("looking for a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

// awaitReady waits until a gateway answers that it is ready.
func awaitReady(ctx context.Context, client *http.Client, url string, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
		if err != nil {
			return fmt.Errorf("asking the gateway: %w", err)
		}
		if res, err := client.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-p.done:
			return fmt.Errorf("the gateway ended while starting: %s", p.log.lines(5))
		case <-ctx.Done():
			return fmt.Errorf("waiting for the gateway: %w: %s", ctx.Err(), p.log.lines(5))
		case <-tick.C:
		}
	}
}
