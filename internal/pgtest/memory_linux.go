package pgtest

import "syscall"

const (
	shm       = "/dev/shm"
	tmpfs     = 0x01021994 // statfs(2)
	minMemory = 2 << 30    // bytes free
)

// memoryDir is a folder in memory with room for a test server's data, if there
// is one. A test database of many small files is made there about ten times as
// fast as on a busy disk.
func memoryDir() string {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(shm, &fs); err != nil || fs.Type != tmpfs {
		return ""
	}
	if fs.Bavail*uint64(fs.Bsize) < minMemory { //nolint:gosec // a block's size is small and positive
		return ""
	}
	return shm
}
