//go:build unix

package embeddedpg

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the user that the server runs as; nil stands for our own.
type account struct {
	name     string
	uid, gid uint32
}

// serverUser is nil unless we are root, as whom Postgres does not run.
func serverUser() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 != nil || err2 != nil || uid == 0 {
			continue
		}
		return &account{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
	}
	return nil, fmt.Errorf("embedded Postgres cannot run as root, and there is no user postgres or nobody: run as another user or set DATABASE_URL")
}

func (a *account) credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid}
}

// own gives path to the account.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// reaches tells whether the account may pass through every folder of path
// that exists. Only modes are read; what ACLs allow beyond is not used.
func (a *account) reaches(path string) bool {
	if a == nil {
		return true
	}
	for ; ; path = filepath.Dir(path) {
		real := path
		if r, err := filepath.EvalSymlinks(path); err == nil {
			real = r
		}
		info, err := os.Stat(real)
		if err == nil && (!info.IsDir() || !a.passes(info)) {
			return false
		}
		if real != path && !a.reaches(real) {
			return false
		}
		if path == filepath.Dir(path) {
			return true
		}
	}
}

func (a *account) passes(info os.FileInfo) bool {
	sys, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	switch perm := info.Mode().Perm(); {
	case sys.Uid == a.uid:
		return perm&0o100 != 0
	case sys.Gid == a.gid:
		return perm&0o010 != 0
	default:
		return perm&0o001 != 0
	}
}
