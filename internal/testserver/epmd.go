package testserver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// errEpmdEnded means a taken port: epmd has no other reason to end, and tells none.
var errEpmdEnded = errors.New("start epmd: it ended at once, so its port is taken")

// startEpmd starts Erlang's port mapper for this node alone, unless it runs. A node that
// finds none starts one as a daemon, which then outlives node, test and test run.
func (r *RabbitMQ) startEpmd() error {
	if r.epmd.running() {
		return nil
	}
	epmd, err := findEpmd()
	if err != nil {
		return err
	}
	port := r.ports.epmd.port
	cmd := exec.Command(epmd, "-port", strconv.Itoa(port), "-address", "127.0.0.1")
	cmd.Dir, cmd.Env = "/", r.environment()
	if r.epmd, err = launch("epmd", cmd, r.epmdLog, r.as, syscall.SIGKILL); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), epmdStartLimit)
	defer cancel()
	err = await(ctx, r.epmd, 5*time.Millisecond, func() bool { return epmdAnswers(port) })
	switch {
	case err == nil:
		return nil
	case r.epmd.running():
		return fmt.Errorf("wait until epmd is ready: %w", err)
	default:
		return errEpmdEnded
	}
}

// epmdAnswers asks for the names on a port, as whoever listens there need not be epmd: the
// reply begins with the port.
func epmdAnswers(port int) bool {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }()
	var reply [4]byte
	err = c.SetDeadline(time.Now().Add(time.Second))
	if err == nil {
		_, err = c.Write([]byte{0, 1, 'n'}) // length, NAMES_REQ
	}
	if err == nil {
		_, err = io.ReadFull(c, reply[:])
	}
	return err == nil && binary.BigEndian.Uint32(reply[:]) == uint32(port)
}

func (r *RabbitMQ) stopEpmd() error {
	if !r.epmd.running() {
		return nil
	}
	return r.epmd.end(syscall.SIGKILL, rabbitStopLimit, syscall.SIGKILL)
}

// findEpmd finds the one of the Erlang installation that erl belongs to.
func findEpmd() (string, error) {
	erl, err := exec.LookPath("erl")
	if err != nil {
		return "", errors.New("find erl: Erlang is not in PATH; run `make setup`")
	}
	if erl, err = filepath.EvalSymlinks(erl); err != nil {
		return "", fmt.Errorf("find epmd: %w", err)
	}
	return findProgram("epmd", filepath.Dir(erl))
}
