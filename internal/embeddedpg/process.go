//go:build unix

package embeddedpg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// process is a child that the system, or a helper of ours, ends when this
// process ends.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it and all who share its stderr are gone
}

// startTied starts cmd as user with a small environment; atOurDeath is what it
// gets when this process dies, however that happens.
func startTied(cmd *exec.Cmd, user *account, dir string, atOurDeath syscall.Signal) (*process, error) {
	cmd.Env = childEnv()
	cmd.Dir = dir // the one we are in may be closed to that user
	cmd.WaitDelay = immediate
	// A group of its own: Ctrl-C in a terminal is for us, who then stop it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: user.credential()}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		// On Linux the child's end is tied to the thread that started it, so
		// this goroutine keeps that thread until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		untie, err := tied(cmd, atOurDeath)
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait() // how it ended is told by its log
		untie()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// runTied runs cmd to its end and gives what it wrote, in an error too.
func runTied(cmd *exec.Cmd, user *account, dir string) (string, error) {
	out := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	p, err := startTied(cmd, user, dir, syscall.SIGKILL)
	if err != nil {
		return "", err
	}
	<-p.exited
	text := strings.Join(strings.Fields(out.String()), " ")
	if !cmd.ProcessState.Success() {
		return text, fmt.Errorf("%s: %s", cmd.ProcessState, text[max(0, len(text)-500):])
	}
	return text, nil
}

func (p *process) signal(sig syscall.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// end sends sig and tells whether the process then ended within ctx and d.
func (p *process) end(ctx context.Context, sig syscall.Signal, d time.Duration) bool {
	if p.signal(sig) != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	select {
	case <-p.exited:
		return true
	case <-ctx.Done():
		return false
	}
}

// killAll kills the process and its children; no child can be born meanwhile.
func (p *process) killAll() error {
	pid := p.cmd.Process.Pid
	select {
	case <-p.exited:
		return nil
	default:
	}
	err := p.signal(syscall.SIGSTOP)
	children, listErr := childrenOf(pid)
	for _, child := range children {
		_ = syscall.Kill(child, syscall.SIGKILL) // it may have ended meanwhile
	}
	err = errors.Join(err, listErr, p.signal(syscall.SIGKILL))
	<-p.exited // bounded by WaitDelay after the death of the process
	return err
}

// childEnv is all that Postgres needs of our environment: no secret of ours
// and none of libpq's variables.
func childEnv() []string {
	pass := []string{"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}
	env := []string{"LC_ALL=C", "TZ=UTC"}
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); slices.Contains(pass, name) {
			env = append(env, kv)
		}
	}
	return env
}
