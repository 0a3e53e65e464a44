package embeddedpg

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// tied starts cmd so that the kernel sends it sig when the calling thread ends.
func tied(cmd *exec.Cmd, sig syscall.Signal) (untie func(), err error) {
	cmd.SysProcAttr.Pdeathsig = sig
	return func() {}, cmd.Start()
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, fmt.Errorf("listing child processes: %w", err)
	}
	var children []int
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // ended since the listing
		}
		// "pid (name) state ppid …", and a name may hold anything
		fields := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
		if len(fields) < 2 || string(fields[1]) != strconv.Itoa(pid) {
			continue
		}
		if child, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			children = append(children, child)
		}
	}
	return children, nil
}

// serves tells whether the process pid is the server of that data directory:
// a postmaster's working directory is its data directory.
func serves(pid int, data string) bool {
	cwd, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "cwd"))
	if err != nil {
		// Gone, or another user's process and so none of ours.
		return !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission)
	}
	real, err := filepath.EvalSymlinks(data)
	return err != nil || cwd == real
}
