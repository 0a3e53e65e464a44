package embeddedpg

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
)

const (
	tailLines   = 20
	maxLineSize = 4 << 10 // bytes of a line that are kept
)

// logTail passes the server's log on, line by line, and keeps the end of it
// for error messages.
type logTail struct {
	log *slog.Logger

	mu      sync.Mutex
	partial []byte
	last    []string
}

func (t *logTail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for rest := p; len(rest) > 0; {
		line, after, complete := bytes.Cut(rest, []byte{'\n'})
		room := maxLineSize - len(t.partial)
		t.partial = append(t.partial, line[:min(room, len(line))]...)
		if !complete {
			break
		}
		text := string(t.partial)
		t.partial, rest = t.partial[:0], after
		t.log.Debug("embedded postgres", "line", text)
		if t.last = append(t.last, text); len(t.last) > tailLines {
			t.last = t.last[1:]
		}
	}
	return len(p), nil
}

// String gives the last lines, as one.
func (t *logTail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.last) == 0 {
		return "(it logged nothing)"
	}
	return strings.Join(t.last, " | ")
}
