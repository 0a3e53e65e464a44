//go:build !linux

package pgtest

// memoryDir is not known on this system.
func memoryDir() string { return "" }
