package graphproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"runtime/metrics"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// heap is what the Go runtime of this process holds of memory, in bytes, without what it gave back.
func heap() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}

// Three documents of 100 MB up and three down at once: nothing is held but a few buffers. The callers and Meta's stand-in
// live in this process too, and are counted with it.
func TestLargeMediaTakeLittleMemory(t *testing.T) {
	const size, each, bound = 100_000_000, 3, 96 << 20
	r := newRig(t)
	r.knowMedia()
	link := r.link(r.meta.URL + "/file")
	var arrived atomic.Int64
	under := make(chan struct{})
	var once sync.Once
	var at atomic.Int64
	r.on(func(w http.ResponseWriter, req *http.Request) {
		if at.Add(1) == 2*each {
			once.Do(func() { close(under) }) // all at once
		}
		<-under
		if req.Method == http.MethodGet {
			w.Header().Set("Content-Length", strconv.Itoa(size))
			_, _ = io.Copy(w, newNoise(size))
			return
		}
		n, _ := io.Copy(io.Discard, req.Body)
		arrived.Add(n)
		_, _ = io.WriteString(w, `{"id":"5002"}`)
	})
	ctx, done := context.WithCancel(t.Context())
	var most uint64
	var watcher, work sync.WaitGroup
	watcher.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			most = max(most, heap())
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	before := heap()
	var down atomic.Int64
	for range each {
		work.Go(func() {
			in, out := io.Pipe()
			part := multipart.NewWriter(out)
			go func() {
				file, err := part.CreateFormFile("file", "a.pdf")
				if err == nil {
					_, err = io.Copy(file, newNoise(size))
				}
				_ = out.CloseWithError(errors.Join(err, part.Close()))
			}()
			if err := r.transfer(http.MethodPost, r.gw.URL+"/v23.0/101/media", in, part.FormDataContentType(), nil); err != nil {
				t.Error(err)
			}
		})
		work.Go(func() {
			if err := r.transfer(http.MethodGet, link, http.NoBody, "", &down); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	done()
	watcher.Wait()
	if arrived.Load() < each*size || down.Load() != each*size {
		t.Errorf("%d bytes went up, %d down", arrived.Load(), down.Load())
	}
	t.Logf("%d MB up and %d MB down at once: %.1f MB of memory at most, %.1f before", each*size/1_000_000, each*size/1_000_000, float64(most)/1e6, float64(before)/1e6)
	if most > bound {
		t.Errorf("%d bytes of memory, more than %d", most, bound)
	}
}

// transfer makes one call and counts what comes.
func (r *rig) transfer(method, url string, body io.Reader, kind string, down *atomic.Int64) error {
	req, err := http.NewRequestWithContext(r.t.Context(), method, url, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", kind)
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %d", method, resp.StatusCode)
	}
	if down != nil {
		down.Add(n)
	}
	return nil
}
