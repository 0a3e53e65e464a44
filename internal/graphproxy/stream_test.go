package graphproxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

// A stream that stands still is cut, on either side; one that moves goes on for longer than any other call may take.
func TestStreamsThatStandStill(t *testing.T) {
	r := newRig(t)
	r.knowMedia()
	link := r.link(r.meta.URL + "/file")
	r.proxy.callTime = time.Nanosecond // bounds no stream
	r.on(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		_, _ = io.WriteString(w, `{"id":"5001"}`)
	})
	r.must(http.StatusOK, "POST", "/v23.0/101/media", "body")

	r.proxy.still = 100 * time.Millisecond
	// The caller's own body stands still.
	in, out := io.Pipe()
	go func() { _, _ = out.Write([]byte("begun")) }()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.gw.URL+"/v23.0/101/media", in)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := r.client.Do(req)
	if err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode < 400 {
			t.Errorf("a body that stands still: %d", resp.StatusCode)
		}
	}
	_ = in.CloseWithError(io.ErrClosedPipe)
	// Meta does not answer.
	r.on(func(_ http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		<-req.Context().Done()
	})
	r.wantError("no answer", r.do("POST", "/v23.0/101/media", "body"), http.StatusGatewayTimeout, codeUnknown)
	// A file stands still.
	r.on(func(w http.ResponseWriter, req *http.Request) {
		_, _ = w.Write([]byte("begun"))
		_ = http.NewResponseController(w).Flush()
		<-req.Context().Done()
	})
	get, err := http.NewRequestWithContext(t.Context(), http.MethodGet, link, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err = r.client.Do(get); err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	if err == nil && resp.StatusCode == http.StatusOK { // a slow machine may not have begun: then it is an error
		t.Error("a file that stands still was taken for whole")
	}
}

// A stream that moves has its end too: a byte now and then holds no place for ever, neither up nor down.
func TestStreamsThatTakeTooLong(t *testing.T) {
	r := newRig(t)
	r.knowMedia()
	link := r.link(r.meta.URL + "/file")
	r.proxy.streamTime = 100 * time.Millisecond
	drip := func(to io.Writer, until <-chan struct{}) {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-until:
				return
			}
			if _, err := to.Write([]byte("x")); err != nil {
				return
			}
			if w, ok := to.(http.ResponseWriter); ok {
				_ = http.NewResponseController(w).Flush()
			}
		}
	}
	r.on(func(w http.ResponseWriter, req *http.Request) { drip(w, req.Context().Done()) })
	get, err := http.NewRequestWithContext(t.Context(), http.MethodGet, link, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := r.client.Do(get)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	if err == nil && resp.StatusCode == http.StatusOK {
		t.Error("a part was taken for the whole")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller had to end it: %v", err)
	}
	r.on(func(_ http.ResponseWriter, req *http.Request) { _, _ = io.Copy(io.Discard, req.Body) })
	in, out := io.Pipe()
	end := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() { drip(out, end) })
	post, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.gw.URL+"/v23.0/101/media", in)
	if err != nil {
		t.Fatal(err)
	}
	resp, err = r.client.Do(post)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("an upload without end: %d", resp.StatusCode)
	}
	close(end)
	_ = in.Close()
	work.Wait()
	if len(r.proxy.streams) != 0 {
		t.Errorf("%d places are still taken", len(r.proxy.streams))
	}
}
