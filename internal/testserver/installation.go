package testserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	// rabbitVariable names the RabbitMQ version of nodes that do not ask for one.
	rabbitVariable = "PGAMQP_TEST_RABBITMQ"

	rabbitFolder = "/usr/lib/rabbitmq"

	// jailedFolder is where the programs of an unpacked RabbitMQ see the folder of their node.
	jailedFolder = "/node"
)

// rabbitVersions lists the major versions of RabbitMQ that a node may ask for.
//
//nolint:gochecknoglobals // read-only; Go has no constant slices
var rabbitVersions = []int{3, 4}

// rabbitInstallation is a RabbitMQ on this machine, with the Erlang it runs on.
//
// One that the set-up script has unpacked comes with a C library of its own, as it needs a
// newer one than the machine has. Its programs are started by chroot into its folder, which only
// root can do, each in a private mount namespace that has /proc, /dev and the folder of the
// node in it. The mounts are nobody else's, and gone with the last process in there.
type rabbitInstallation struct {
	root string // what the programs see as /; empty for the machine's own
}

// findRabbitMQ finds a version; 0 is that of PGAMQP_TEST_RABBITMQ if set, else whichever
// the machine has.
func findRabbitMQ(version int) (rabbitInstallation, error) {
	if s := os.Getenv(rabbitVariable); version == 0 && s != "" {
		var err error
		if version, err = strconv.Atoi(s); err != nil || !slices.Contains(rabbitVersions, version) {
			return rabbitInstallation{}, fmt.Errorf("read %s: %q is not one of %v", rabbitVariable, s, rabbitVersions)
		}
	}
	var machine rabbitInstallation
	switch own := machine.major(); version {
	case 0, own:
		_, err := machine.find("rabbitmq-server")
		return machine, err
	case 4:
		return findUnpacked()
	default:
		return rabbitInstallation{}, fmt.Errorf("find RabbitMQ %d: %s has version %d (0 is none); run `make setup`", version, rabbitFolder, own)
	}
}

func findUnpacked() (rabbitInstallation, error) {
	var places []string
	for _, cache := range cacheFolders() {
		root := filepath.Join(cache, "rabbitmq-4")
		if i := (rabbitInstallation{root}); i.major() != 4 {
			places = append(places, root)
			continue
		}
		if os.Getuid() != 0 {
			return rabbitInstallation{}, fmt.Errorf("find RabbitMQ 4: the one in %s is started by chroot, which needs root", root)
		}
		return rabbitInstallation{root}, nil
	}
	return rabbitInstallation{}, fmt.Errorf("find RabbitMQ 4: not in any of %v; run `scripts/setup.sh rabbitmq4`", places)
}

// major is the version, told by the name of a folder; 0 if there is none.
func (i rabbitInstallation) major() int {
	const prefix = "rabbitmq_server-"
	found, _ := filepath.Glob(filepath.Join(i.root, rabbitFolder, "lib", prefix+"*"))
	for _, folder := range found {
		text, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(folder), prefix), ".")
		if version, err := strconv.Atoi(text); err == nil {
			return version
		}
	}
	return 0
}

// find finds a program of RabbitMQ. Those in PATH are often wrappers that switch to a user of
// the distribution, who does not know our cookie.
func (i rabbitInstallation) find(name string) (string, error) {
	if i.root != "" {
		return filepath.Join(rabbitFolder, "bin", name), nil
	}
	return findProgram(name, filepath.Join(rabbitFolder, "bin"))
}

// findEpmd finds the one of the Erlang installation that erl belongs to.
func (i rabbitInstallation) findEpmd() (string, error) {
	if i.root != "" {
		return "/usr/bin/epmd", nil
	}
	erl, err := exec.LookPath("erl")
	if err != nil {
		return "", errors.New("find erl: Erlang is not in PATH; run `make setup`")
	}
	if erl, err = filepath.EvalSymlinks(erl); err != nil {
		return "", fmt.Errorf("find epmd: %w", err)
	}
	return findProgram("epmd", filepath.Dir(erl))
}

// seen is where the programs see the folder of their node.
func (i rabbitInstallation) seen(folder string) string {
	if i.root != "" {
		return jailedFolder
	}
	return folder
}

// enter replaces itself with a program in the jail. A change of the user takes back the
// parent-death signal, so that setpriv asks for it again.
const enter = `set -e
root=$1 folder=$2 uid=$3 gid=$4
shift 4
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$folder" "$root/node"
exec chroot "$root" setpriv --reuid "$uid" --regid "$gid" --clear-groups --pdeathsig KILL "$@"`

// command prepares a program for a node that has a folder, to be started as the account
// that it returns.
func (i rabbitInstallation) command(ctx context.Context, folder string, as *account, env []string, program string, args ...string) (*exec.Cmd, *account) {
	if i.root == "" {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Dir, cmd.Env = "/", env
		return cmd, as
	}
	// Root has an account to run servers as, see serverAccount.
	jail := []string{
		"--mount", "--propagation", "private", "sh", "-c", enter, "sh", i.root, folder,
		strconv.Itoa(int(as.uid)), strconv.Itoa(int(as.gid)), program,
	}
	cmd := exec.CommandContext(ctx, "unshare", append(jail, args...)...)
	cmd.Dir = "/"
	cmd.Env = append(slices.Clone(env), "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR="+jailedFolder)
	return cmd, nil
}
