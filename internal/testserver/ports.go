package testserver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
)

const (
	firstPort = 20000
	portTries = 500
)

// portLease holds a TCP port of 127.0.0.1 for a server, also while that server is down.
//
// A port that is merely unused now can be gone when the server starts again: another test
// process may pick it. So the lease keeps the UDP port of the same number bound, and a
// picker takes only ports whose UDP port it can bind. The kernel ends the lease with us.
type portLease struct {
	port int
	hold net.PacketConn
}

//nolint:gochecknoglobals // no port may be handed out twice in a process
var leasedPorts struct {
	sync.Mutex
	all map[int]bool
}

// leasePort picks a port that nobody uses and that this process never used before.
//
// It stays below the range from which the kernel takes ports for outgoing connections:
// those would take the port of a stopped server, and a client that keeps dialing such a
// port can even end up connected to itself.
func leasePort() (*portLease, error) {
	leasedPorts.Lock()
	defer leasedPorts.Unlock()
	if leasedPorts.all == nil {
		leasedPorts.all = make(map[int]bool)
	}
	end := ephemeralStart()
	for range portTries {
		wanted := 0 // any
		if end > firstPort+1000 {
			wanted = firstPort + rand.IntN(end-firstPort)
		}
		lease, err := tryPort(wanted)
		if err != nil {
			continue
		}
		if leasedPorts.all[lease.port] || slices.Contains(standardPorts(), lease.port) {
			lease.release()
			continue
		}
		leasedPorts.all[lease.port] = true
		return lease, nil
	}
	return nil, errors.New("find a free port on 127.0.0.1: too many are taken")
}

func tryPort(port int) (*portLease, error) {
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }()
	port = l.Addr().(*net.TCPAddr).Port
	hold, err := net.ListenPacket("udp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	return &portLease{port, hold}, nil
}

func (l *portLease) release() { _ = l.hold.Close() }

// ClosedPort returns a port of 127.0.0.1 on which nobody listens. Until it is released no server of this package gets
// it, and nobody who listens on port 0 does.
func ClosedPort() (port int, release func(), err error) {
	lease, err := leasePort()
	if err != nil {
		return 0, nil, err
	}
	return lease.port, lease.release, nil
}

// leasePorts picks n ports, or none.
func leasePorts(n int) ([]*portLease, error) {
	var all []*portLease
	for range n {
		l, err := leasePort()
		if err != nil {
			releasePorts(all)
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

func releasePorts(all []*portLease) {
	for _, l := range all {
		l.release()
	}
}

// standardPorts are those in our range that a server uses by default.
func standardPorts() []int { return []int{25672} }

// ephemeralStart is the first port that the kernel gives to outgoing connections.
func ephemeralStart() int {
	start := 32768
	if content, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(content), &start) // keeps the default when unreadable
	}
	return min(start, 32768)
}

// portTaken says that a server's log tells of a port that someone else has.
func portTaken(log string) bool {
	log = strings.ToLower(log)
	return strings.Contains(log, "address already in use") || strings.Contains(log, "eaddrinuse")
}
