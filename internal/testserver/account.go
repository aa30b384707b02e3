package testserver

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
)

// account is the user that the servers run as; a nil *account means the current user.
type account struct{ uid, gid uint32 }

// serverAccount returns an unprivileged account when we are root, else nil.
func serverAccount() (*account, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	var first error
	for _, name := range []string{"postgres", "nobody"} {
		a, err := accountOf(name)
		if err == nil {
			return a, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, fmt.Errorf("find a user to run servers as, as they must not run as root: %w", first)
}

func accountOf(name string) (*account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user id of %s: %w", name, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("group id of %s: %w", name, err)
	}
	return &account{uint32(uid), uint32(gid)}, nil
}

// own gives path to the account.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// mkdir makes a folder that only the account can enter.
func (a *account) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return a.own(path)
}

// write makes a file that belongs to the account.
func (a *account) write(path string, content []byte, mode os.FileMode) error {
	if err := os.WriteFile(path, content, mode); err != nil {
		return err
	}
	return a.own(path)
}
