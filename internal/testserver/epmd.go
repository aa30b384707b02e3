package testserver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// errEpmdEnded means a taken port: epmd has no other reason to end, and tells none.
var errEpmdEnded = errors.New("start epmd: it ended at once, so its port is taken")

// epmd is Erlang's port mapper, by which nodes find each other. Each node, or cluster, has one
// to itself: a node that finds none starts one as a daemon, which then outlives node, test
// and test run.
type epmd struct {
	lease *portLease
	log   logFile

	mu   sync.Mutex // guards proc, and one start or stop at a time
	proc *process
}

func newEpmd(log logFile) (*epmd, error) {
	lease, err := leasePort()
	if err != nil {
		return nil, err
	}
	return &epmd{lease: lease, log: log}, nil
}

// start starts it with the programs of a node, unless it runs.
func (e *epmd) start(r *RabbitMQ) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.proc.running() {
		return nil
	}
	program, err := r.programs.findEpmd()
	if err != nil {
		return err
	}
	port := e.lease.port
	cmd, as := r.command(context.Background(), program, "-port", strconv.Itoa(port), "-address", "127.0.0.1")
	if e.proc, err = launch("epmd", cmd, e.log, as, syscall.SIGKILL); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), epmdStartLimit)
	defer cancel()
	err = await(ctx, e.proc, 5*time.Millisecond, func() bool { return epmdAnswers(port) })
	switch {
	case err == nil:
		return nil
	case e.proc.running():
		return fmt.Errorf("wait until epmd is ready: %w", err)
	default:
		return fmt.Errorf("%w\n%s", errEpmdEnded, e.log.tail())
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

// close ends it and gives its port away. It may be called twice.
func (e *epmd) close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lease.release()
	if !e.proc.running() {
		return nil
	}
	return e.proc.end(syscall.SIGKILL, rabbitStopLimit, syscall.SIGKILL)
}
