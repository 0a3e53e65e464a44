//go:build !linux && !darwin

package intake

// freeSpace is not known here.
var freeSpace func(dir string) (free, total uint64, err error)
