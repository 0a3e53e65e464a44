//go:build unix && !linux

package embeddedpg

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// tied starts cmd and beside it a shell that waits on a pipe whose other end
// only we hold: when we die the pipe closes and the shell signals cmd.
func tied(cmd *exec.Cmd, sig syscall.Signal) (untie func(), err error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// "done" means that cmd has ended and its number is no longer ours to signal.
	watch := exec.Command("/bin/sh", "-c", `read -r word; [ "$word" = done ] || kill -`+strconv.Itoa(int(sig))+` "$1"`,
		"sh", strconv.Itoa(cmd.Process.Pid))
	watch.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ours, err := watch.StdinPipe()
	if err == nil {
		err = watch.Start()
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("tying its end to ours: %w", err)
	}
	return func() {
		_, _ = ours.Write([]byte("done\n"))
		_ = ours.Close()
		_ = watch.Wait()
	}, nil
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) ([]int, error) {
	out, err := exec.Command("ps", "-axo", "pid=,ppid=").Output()
	if err != nil {
		return nil, fmt.Errorf("listing child processes: %w", err)
	}
	var children []int
	for line := range strings.Lines(string(out)) {
		var child, parent int
		if n, _ := fmt.Sscan(line, &child, &parent); n == 2 && parent == pid && child != os.Getpid() {
			children = append(children, child)
		}
	}
	return children, nil
}

// serves tells whether the process pid is the server of that data directory,
// which stands in its command line.
func serves(pid int, data string) bool {
	out, err := exec.Command("ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(out), "postgres") && strings.Contains(string(out), data)
}
