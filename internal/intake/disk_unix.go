//go:build linux || darwin

package intake

import "syscall"

// freeSpace gives what is free for users and all that there is, in bytes, of a directory's file system.
func freeSpace(dir string) (free, total uint64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	size := uint64(s.Bsize) //nolint:gosec // a block's size is positive; its type depends on the system
	return s.Bavail * size, s.Blocks * size, nil
}
