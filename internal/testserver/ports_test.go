package testserver

import (
	"fmt"
	"net"
	"testing"
)

func TestPortsAreNeverHandedOutTwice(t *testing.T) {
	t.Parallel()
	seen := make(map[int]bool)
	for range 200 {
		lease, err := leasePort()
		if err != nil {
			t.Fatal(err)
		}
		lease.release() // free again, yet not for this process
		if seen[lease.port] {
			t.Fatalf("port %d came twice", lease.port)
		}
		seen[lease.port] = true
	}
}

func TestLeaseKeepsThePortOfAStoppedServer(t *testing.T) {
	t.Parallel()
	lease, err := leasePort()
	if err != nil {
		t.Fatal(err)
	}
	if other, err := tryPort(lease.port); err == nil {
		other.release()
		t.Error("another process could lease a leased port")
	}
	server, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", lease.port))
	if err != nil {
		t.Fatalf("a server cannot use its port: %v", err)
	}
	_ = server.Close()
	lease.release()
	again, err := tryPort(lease.port)
	if err != nil {
		t.Fatalf("a released port is not free: %v", err)
	}
	again.release()
}

func TestTakenPortIsReplaced(t *testing.T) {
	t.Parallel()
	p, err := newPostgres(PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	intruder, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p.Port()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = intruder.Close() }()
	taken := p.Port()
	if err := p.startAnywhere(); err != nil {
		t.Fatal(err)
	}
	if p.Port() == taken || query(t, p, "select 'here'") != "here" {
		t.Errorf("the server is on port %d", p.Port())
	}
}
