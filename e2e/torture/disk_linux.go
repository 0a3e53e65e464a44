package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// diskSize is how large the disk of the database is, in bytes.
const diskSize = 200 << 20

// disk is a small file system in memory that can be filled.
type disk struct{ path string }

// newDisk mounts one, for which it must be root.
func newDisk(context.Context) (*disk, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("mounting a disk of our own takes root")
	}
	path, err := os.MkdirTemp("", "wagate-disk-")
	if err != nil {
		return nil, fmt.Errorf("making a mount point: %w", err)
	}
	d := &disk{path: path}
	if err := os.Chmod(path, 0o755); err != nil {
		return nil, errors.Join(fmt.Errorf("making a mount point: %w", err), os.Remove(path))
	}
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0755", diskSize)); err != nil {
		return nil, errors.Join(fmt.Errorf("mounting a disk: %w", err), os.Remove(path))
	}
	return d, nil
}

// fill takes all the room there is, and again what becomes free, until ctx ends; then it gives the room back.
func (d *disk) fill() error {
	f, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("filling the disk: %w", err)
	}
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	for _, size := range []int{1 << 20, 4 << 10} {
		block := make([]byte, size)
		for {
			if _, err = f.Write(block); err != nil {
				break
			}
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("filling the disk: %w", err)
		}
	}
	return nil
}

func (d *disk) free() error {
	if err := os.Remove(d.ballast()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("freeing the disk: %w", err)
	}
	return nil
}

func (d *disk) ballast() string { return filepath.Join(d.path, "ballast") }

func (d *disk) remove(context.Context) error {
	if err := syscall.Unmount(d.path, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting the disk: %w", err)
	}
	return os.Remove(d.path)
}
