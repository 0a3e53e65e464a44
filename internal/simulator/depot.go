package simulator

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

const (
	smallFile   = 256 << 10 // bytes of a file that may stay in memory
	memoryFiles = 64 << 20  // bytes of all files in memory
)

var errDepotClosed = errors.New("the simulator is closed")

// depot keeps the bytes of uploaded files: small ones in memory while there is room, the
// others each in a temporary file.
type depot struct {
	mu       sync.Mutex
	parent   string // of the directory; empty means the system's for temporary files
	dir      string // made when first needed
	closed   bool
	inMemory int64
	kept     int64 // bytes in memory and on disk
}

// blob is one file of a depot. It is written by one goroutine, and read only afterwards.
type blob struct {
	d    *depot
	size int64
	data []byte // while path is empty
	path string
	file *os.File // open while it is written
	gone bool
}

// Write appends to the blob.
func (b *blob) Write(p []byte) (int, error) {
	if b.path == "" && !b.d.remember(b.size, int64(len(p))) {
		if err := b.spill(); err != nil {
			return 0, err
		}
	}
	if b.path == "" {
		b.data = append(b.data, p...)
		b.size += int64(len(p))
		return len(p), nil
	}
	if b.file == nil {
		file, err := os.OpenFile(b.path, os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return 0, fmt.Errorf("opening a file of media: %w", err)
		}
		b.file = file
	}
	n, err := b.file.Write(p)
	b.size += int64(n)
	b.d.add(0, int64(n))
	if err != nil {
		return n, fmt.Errorf("writing a file of media: %w", err)
	}
	return n, nil
}

// spill moves what is in memory to a file.
func (b *blob) spill() error {
	file, err := b.d.create()
	if err != nil {
		return err
	}
	b.path, b.file = file.Name(), file
	b.d.add(-b.size, 0)
	_, err = file.Write(b.data)
	b.data = nil
	if err != nil {
		return fmt.Errorf("writing a file of media: %w", err)
	}
	return nil
}

// seal ends writing, for now.
func (b *blob) seal() error {
	if b.file == nil {
		return nil
	}
	file := b.file
	b.file = nil
	if err := file.Close(); err != nil {
		return fmt.Errorf("closing a file of media: %w", err)
	}
	return nil
}

type memoryReader struct{ *bytes.Reader }

func (memoryReader) Close() error { return nil }

// open reads the blob.
func (b *blob) open() (io.ReadSeekCloser, error) {
	if b.path == "" {
		return memoryReader{bytes.NewReader(b.data)}, nil
	}
	file, err := os.Open(b.path)
	if err != nil {
		return nil, fmt.Errorf("opening a file of media: %w", err)
	}
	return file, nil
}

// remember counts n more bytes in memory if a blob of that size may have them there.
func (d *depot) remember(size, n int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if size+n > smallFile || d.inMemory+n > memoryFiles || d.closed {
		return false
	}
	d.inMemory += n
	d.kept += n
	return true
}

func (d *depot) add(memory, kept int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inMemory += memory
	d.kept += kept
}

func (d *depot) bytes() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kept
}

// create makes a temporary file, under the lock, so that none is made after close.
func (d *depot) create() (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errDepotClosed
	}
	if d.dir == "" {
		dir, err := os.MkdirTemp(d.parent, "wagate-simulator-")
		if err != nil {
			return nil, fmt.Errorf("making a directory for media: %w", err)
		}
		d.dir = dir
	}
	file, err := os.CreateTemp(d.dir, "media-")
	if err != nil {
		return nil, fmt.Errorf("making a file for media: %w", err)
	}
	return file, nil
}

// drop forgets a blob's bytes. Who reads its file reads on.
func (d *depot) drop(b *blob) {
	if b == nil || b.gone {
		return
	}
	b.gone = true
	_ = b.seal() // its bytes do not matter any more
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kept -= b.size
	if b.path == "" {
		d.inMemory -= b.size
		b.data = nil
		return
	}
	_ = os.Remove(b.path) // or close has
}

// close removes all files, and lets none be made any more.
func (d *depot) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.dir == "" {
		return nil
	}
	dir := d.dir
	d.dir = ""
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing media: %w", err)
	}
	return nil
}
