package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"wagate/internal/simulator"
)

// BenchmarkLargeMedia has three documents of 100 MB uploaded at once through a gateway process of its own, and then downloads
// them at once while three more go up. It prints the most memory that the process held, and fails above 96 MB.
func BenchmarkLargeMedia(b *testing.B) {
	const size, each, bound = 100_000_000, 3, 96.0
	for b.Loop() {
		c := newCluster(b, simulator.Config{MediaDir: b.TempDir(), MediaBytes: 2 * 2 * each * size})
		c.phone("100", "101", 80, 80)
		gateway, url := c.startGateway()
		client := &http.Client{Timeout: 10 * time.Minute}
		before := gateway.peakMB(b)
		begun := time.Now()
		first := c.uploads(client, url, each, 0, size)
		up := time.Since(begun)
		var both sync.WaitGroup
		both.Go(func() { c.uploads(client, url, each, each, size) })
		for i, id := range first {
			both.Go(func() {
				if err := c.download(client, url, id, i, size); err != nil {
					b.Error(err)
				}
			})
		}
		both.Wait()
		client.CloseIdleConnections()
		peak := gateway.peakMB(b)
		b.ReportMetric(before, "MB-at-rest")
		b.ReportMetric(peak, "MB-peak")
		b.ReportMetric(each*size/1e6/up.Seconds(), "MB/s-up")
		if peak > bound {
			b.Errorf("the gateway held %.1f MB, more than %.0f", peak, bound)
		}
		if err := gateway.stop(); err != nil {
			b.Errorf("the gateway ended with %v", err)
		}
	}
}

// peakMB is the most memory that a process has held, by Linux's count of its resident pages.
func (w *worker) peakMB(t testing.TB) float64 {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid))
	if err != nil {
		t.Fatalf("this benchmark needs Linux: %v", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib * 1024 / 1e6
		}
	}
	t.Fatal("the process has no VmHWM")
	return 0
}

// uploads sends documents at once and gives their ids; each is told by its number.
func (c *cluster) uploads(client *http.Client, url string, n, from int, size int64) []string {
	ids := make([]string, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			id, err := c.upload(client, url, from+i, size)
			if err != nil {
				c.t.Error(err)
			}
			ids[i] = id
		})
	}
	all.Wait()
	return ids
}

// document is the content of a file.
func document(number int, size int64) io.Reader {
	return io.LimitReader(&pattern{at: uint32(number) * 7919}, size) //nolint:gosec // a small number
}

// pattern goes on without an end, and does not repeat soon.
type pattern struct{ at uint32 }

// Read implements io.Reader.
func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		p.at = p.at*1664525 + 1013904223
		b[i] = byte(p.at >> 24)
	}
	return len(b), nil
}

func (c *cluster) upload(client *http.Client, url string, number int, size int64) (string, error) {
	in, out := io.Pipe()
	form := multipart.NewWriter(out)
	go func() {
		part, err := form.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="file"; filename="a.pdf"`}, "Content-Type": {"application/pdf"}})
		if err == nil {
			_, err = io.Copy(part, document(number, size))
		}
		_ = out.CloseWithError(errors.Join(err, form.WriteField("messaging_product", "whatsapp"), form.Close()))
	}()
	defer func() { _ = in.Close() }()
	var answer struct {
		ID string `json:"id"`
	}
	err := c.fetch(client, http.MethodPost, url+"/v23.0/101/media", in, form.FormDataContentType(), func(r io.Reader) error { return json.NewDecoder(r).Decode(&answer) })
	if err == nil && answer.ID == "" {
		err = errors.New("an upload was answered without an id")
	}
	return answer.ID, err
}

// download gets a document and looks at every byte of it.
func (c *cluster) download(client *http.Client, url, id string, number int, size int64) error {
	var media struct {
		URL string `json:"url"`
	}
	if err := c.fetch(client, http.MethodGet, url+"/v23.0/"+id, http.NoBody, "", func(r io.Reader) error { return json.NewDecoder(r).Decode(&media) }); err != nil {
		return err
	}
	got, want := crc32.NewIEEE(), crc32.NewIEEE()
	if err := c.fetch(client, http.MethodGet, media.URL, http.NoBody, "", func(r io.Reader) error { _, err := io.Copy(got, r); return err }); err != nil {
		return err
	}
	if _, err := io.Copy(want, document(number, size)); err != nil {
		return err
	}
	if got.Sum32() != want.Sum32() {
		return fmt.Errorf("document %d came back as another", number)
	}
	return nil
}

func (c *cluster) fetch(client *http.Client, method, url string, body io.Reader, kind string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(context.WithoutCancel(c.t.Context()), method, url, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %d", method, req.URL.Path, res.StatusCode)
	}
	return read(res.Body)
}
