package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"wagate/internal/access"
	"wagate/internal/cloudapi"
	"wagate/internal/form"
	"wagate/internal/intake"
)

const (
	// streamSet and streamBytes bound what of a stream is gathered before it is stored.
	streamSet   = 500
	streamBytes = 8 << 20
	// streamIdle is how long a stream may stand still, in either direction.
	streamIdle = 60 * time.Second
	// batchWait is how long a batch waits for room in memory.
	batchWait = 5 * time.Second
)

// resultView is the answer to one message of a batch.
type resultView struct {
	Index int        `json:"index"`
	ID    *uuid.UUID `json:"id,omitempty"`
	Error *problem   `json:"error,omitempty"`
	// Replayed says that the message was accepted before under its idempotency key.
	Replayed bool `json:"replayed,omitempty"`
}

func (a *API) postBatch(c echo.Context, key access.Key) error {
	if c.Request().Header.Get("Idempotency-Key") != "" {
		return newProblem(http.StatusBadRequest, "malformed", "In a batch each message has its own key: gateway.idempotency_key.")
	}
	if kind, _, _ := mime.ParseMediaType(c.Request().Header.Get(echo.HeaderContentType)); kind == "application/x-ndjson" || kind == "application/ndjson" {
		return a.stream(c, key)
	}
	wait, cancel := context.WithTimeout(c.Request().Context(), batchWait)
	defer cancel()
	select {
	case a.batches <- struct{}{}:
		defer func() { <-a.batches }()
	case <-wait.Done():
		p := newProblem(http.StatusServiceUnavailable, "busy", "Too many batches at once. Nothing was stored.")
		p.retryAfter = dbRetryAfter
		return p
	}
	body, err := readBody(c, maxBatchBody)
	if err != nil {
		return err
	}
	messages, err := splitBatch(body)
	if err != nil {
		return err
	}
	results, unavailable := a.acceptSet(c.Request().Context(), key, messages, 0)
	if unavailable != nil {
		return unavailable
	}
	return c.JSON(http.StatusOK, map[string]any{"results": results})
}

// splitBatch reads {"messages":[…]}.
func splitBatch(body []byte) ([]json.RawMessage, error) {
	if !json.Valid(body) {
		return nil, newProblem(http.StatusBadRequest, "malformed", "The body is not JSON.", cloudapi.Fault{Pointer: "", Detail: "is not JSON"})
	}
	var faults []cloudapi.Fault
	o := form.Parse(body, "", &faults)
	var messages []json.RawMessage
	switch raw := o.Raw("messages"); {
	case o == nil:
	case raw == nil:
		o.Fault("messages", "is required")
	case json.Unmarshal(raw, &messages) != nil:
		o.Fault("messages", "must be an array")
	case len(messages) == 0 || len(messages) > maxBatch:
		o.Fault("messages", "must have 1 to %d messages", maxBatch)
	}
	o.End()
	if len(faults) > 0 {
		return nil, invalid(faults)
	}
	return messages, nil
}

// acceptSet accepts messages and gives a result each, the first with the index first; a problem instead when the
// database was away for all of them.
func (a *API) acceptSet(ctx context.Context, key access.Key, messages []json.RawMessage, first int) ([]resultView, *problem) {
	views := make([]resultView, len(messages))
	requests := make([]intake.Request, 0, len(messages))
	at := make([]int, 0, len(messages)) // which message a request is
	for i, m := range messages {
		views[i].Index = first + i
		if len(m) > maxBody {
			views[i].Error = tooLarge(maxBody)
			continue
		}
		requests = append(requests, intake.Request{Caller: caller(key), Body: m})
		at = append(at, i)
	}
	away := 0
	var last *problem
	for n, r := range a.Intake.AcceptMany(ctx, requests) {
		v := &views[at[n]]
		if r.Err == nil {
			v.ID, v.Replayed = &r.Accepted.ID, r.Accepted.Replayed
			continue
		}
		v.Error = toProblem(r.Err)
		v.Error.RetryAfter = v.Error.retrySeconds()
		if v.Error.Status == http.StatusServiceUnavailable {
			away++
			last = v.Error
		}
	}
	if away == len(views) {
		return views, last
	}
	return views, nil
}

// stream accepts messages line by line and answers line by line, as sets are stored. A caller has to read the answers
// while it writes.
func (a *API) stream(c echo.Context, key access.Key) error {
	rc := http.NewResponseController(c.Response())
	if err := rc.EnableFullDuplex(); err != nil && c.Request().ProtoMajor == 1 {
		return fmt.Errorf("streaming a batch: %w", err)
	}
	lines := &lineReader{r: bufio.NewReaderSize(c.Request().Body, 64<<10)}
	encoder := json.NewEncoder(c.Response())
	index := 0
	for {
		_ = rc.SetReadDeadline(time.Now().Add(streamIdle)) // not every connection has deadlines
		set, readErr := lines.set()
		if readErr != nil && index == 0 && len(set) == 0 && !errors.Is(readErr, io.EOF) {
			return bodyError(readErr)
		}
		_ = rc.SetWriteDeadline(time.Now().Add(streamIdle))
		if !c.Response().Committed {
			c.Response().Header().Set(echo.HeaderContentType, "application/x-ndjson")
			c.Response().WriteHeader(http.StatusOK)
		}
		if len(set) > 0 {
			results, _ := a.acceptSet(c.Request().Context(), key, set, index)
			index += len(set)
			for _, r := range results {
				if err := encoder.Encode(r); err != nil {
					return nil //nolint:nilerr // the caller has gone; what was accepted stays accepted
				}
			}
			if err := rc.Flush(); err != nil {
				return nil //nolint:nilerr // as above
			}
		}
		if errors.Is(readErr, io.EOF) {
			return nil
		}
		if readErr != nil {
			_ = encoder.Encode(resultView{Index: index, Error: toProblem(bodyError(readErr))})
			return nil
		}
	}
}

// lineReader cuts a stream into lines of at most maxBody bytes; a longer one is cut to one byte more, which is enough to
// know it.
type lineReader struct{ r *bufio.Reader }

// set reads at least one line, if there is one, and then those that are there already. It leaves blank lines out. Beside
// an error the complete lines before it are given.
func (l *lineReader) set() ([]json.RawMessage, error) {
	var set []json.RawMessage
	size := 0
	for len(set) < streamSet && size < streamBytes {
		line, err := l.line()
		if line = bytes.TrimSpace(line); len(line) > 0 && (err == nil || errors.Is(err, io.EOF)) {
			set = append(set, line)
			size += len(line)
		}
		if err != nil {
			return set, err
		}
		if len(set) > 0 && !l.another() {
			break
		}
	}
	return set, nil
}

// another says whether a whole line is there without waiting for it.
func (l *lineReader) another() bool {
	waiting, _ := l.r.Peek(l.r.Buffered())
	return bytes.IndexByte(waiting, '\n') >= 0
}

func (l *lineReader) line() ([]byte, error) {
	var line []byte
	for {
		part, err := l.r.ReadSlice('\n')
		line = append(line, part[:min(len(part), maxBody+2-len(line))]...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}
