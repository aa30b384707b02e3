package integration

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// tlsFront speaks TLS to the daemon and plain AMQP to a broker, as a load balancer does.
type tlsFront struct {
	listener net.Listener

	mu          sync.Mutex // guards all below
	certificate *tls.Certificate
	names       []string // that clients have asked for (SNI)
	open        []net.Conn
}

func newTLSFront(t *testing.T, certificate *testserver.TLS, newest uint16, broker string) *tlsFront {
	t.Helper()
	f := &tlsFront{}
	f.show(t, certificate)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS10, MaxVersion: newest, //nolint:gosec // what is refused
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.names = append(f.names, hello.ServerName)
			return f.certificate, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.listener = listener
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", broker)
			if err != nil {
				_ = client.Close()
				continue
			}
			f.mu.Lock()
			f.open = append(f.open, client, server)
			f.mu.Unlock()
			for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
				all.Go(func() {
					_, _ = io.Copy(way[0], way[1]) // until one of them ends
					_ = way[0].Close()
					_ = way[1].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		f.cut()
		all.Wait()
	})
	return f
}

// show is the certificate from now on.
func (f *tlsFront) show(t *testing.T, c *testserver.TLS) {
	t.Helper()
	pair, err := tls.X509KeyPair(c.Certificate, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.certificate = &pair
}

// cut ends all connections.
func (f *tlsFront) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.open {
		_ = c.Close()
	}
	f.open = nil
}

// asked returns the name that was asked for last.
func (f *tlsFront) asked() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.names) == 0 {
		return ""
	}
	return f.names[len(f.names)-1]
}

func (f *tlsFront) port() int { return f.listener.Addr().(*net.TCPAddr).Port }

// TestBrokerIsAskedForByItsName looks at what a load balancer with many names behind one address sees, has its certificate and
// its authority replaced, and then has one that is too old.
func TestBrokerIsAskedForByItsName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	broker := fmt.Sprintf("127.0.0.1:%d", value[int](w, `select port from amqp.broker`))
	ca, dir := authority(t, "old"), t.TempDir()
	front := newTLSFront(t, issue(t, ca, "localhost", time.Hour), tls.VersionTLS13, broker)
	putFile(t, filepath.Join(dir, "ca.pem"), ca.PEM())
	d := w.start("--secrets-dir", dir)
	w.exec(`update amqp.broker set host = 'localhost', port = $1, tls = true, tls_ca = 'file:ca.pem'`, front.port())
	w.exec(`select amqp.publish(1, '', 'q', 'by the name of the host')`)
	w.waitDelivered()
	if name := front.asked(); name != "localhost" {
		t.Errorf("asked for %q", name)
	}
	front.show(t, issue(t, ca, "rabbit.example.com", time.Hour))
	w.exec(`update amqp.broker set tls_server_name = 'rabbit.example.com'`)
	w.exec(`select amqp.publish(1, '', 'q', 'by a name of its own')`)
	w.waitDelivered()
	if name := front.asked(); name != "rabbit.example.com" {
		t.Errorf("asked for %q", name)
	}

	ca = authority(t, "new")
	front.show(t, issue(t, ca, "rabbit.example.com", time.Hour))
	front.cut()
	w.exec(`select amqp.publish(1, '', 'q', 'when nobody trusts it')`)
	d.waitLog("signed by nobody we trust")
	putFile(t, filepath.Join(dir, "ca.pem"), ca.PEM())
	w.waitDelivered()

	old := newTLSFront(t, issue(t, ca, "localhost", time.Hour), tls.VersionTLS11, broker)
	w.exec(`update amqp.broker set tls_server_name = null, port = $1`, old.port())
	w.exec(`select amqp.publish(1, '', 'q', 'when it is too old')`)
	d.waitLog("the broker speaks no TLS of version 1.2 or newer")
	w.exec(`update amqp.broker set tls_server_name = 'rabbit.example.com', port = $1`, front.port())
	compare([]string{"by the name of the host", "by a name of its own", "when nobody trusts it", "when it is too old"}, w.received(1, "q")).wantComplete(t)
}
