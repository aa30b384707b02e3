package replication

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	dialTimeout  = 10 * time.Second
	writeTimeout = 10 * time.Second
	// userTimeout bounds how long sent data may stay unacknowledged by the peer's
	// kernel, so that a dead network path is noticed without waiting for TCP's own
	// retransmissions (15 minutes).
	userTimeout = 30 * time.Second
)

// wakeableConn is a connection whose blocked Read can be interrupted by any
// goroutine, without losing data: a read deadline in the past makes Read return a
// timeout, and pgconn keeps the connection and what it has read so far after a
// timeout. This replaces a context per receive, which costs 37 allocations a
// message. Every Write has a deadline, because a peer that is gone would block it.
type wakeableConn struct {
	net.Conn
	address string // as it was dialed

	mu    sync.Mutex // orders deadlines against wake-ups
	woken bool
}

func (c *wakeableConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// wake makes the current or the next Read return a timeout.
func (c *wakeableConn) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.woken {
		c.woken = true
		_ = c.SetReadDeadline(time.Unix(1, 0)) // an error means closed: Read fails anyhow
	}
}

// rest forgets wake-ups so far. The owner calls it before it looks at the state
// that a wake-up announces, so that a later one is not lost.
func (c *wakeableConn) rest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.woken = false
}

// readUntil lets Read block until t, unless a wake-up came since rest.
func (c *wakeableConn) readUntil(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.woken {
		_ = c.SetReadDeadline(t)
	}
}

// ConnectLimit bounds what a connection string may say of its connect_timeout. It is less
// than a session may show no sign of work.
const ConnectLimit = 15 * time.Second

// watchConnects makes each step of connecting with a config a sign of work, and bounds it:
// the look-up of each host, and the attempt at each of its addresses.
func watchConnects(config *pgconn.Config, ticked func()) {
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = dialTimeout
	}
	config.ConnectTimeout = min(config.ConnectTimeout, ConnectLimit)
	lookup, dial := config.LookupFunc, config.DialFunc
	config.LookupFunc = func(ctx context.Context, host string) ([]string, error) {
		ticked()
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		return lookup(ctx, host)
	}
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		ticked()
		return dial(ctx, network, address)
	}
}

// dial connects to PostgreSQL as a walsender for the database in config. The
// returned wakeableConn lies below TLS, if there is any.
func dial(ctx context.Context, config *pgconn.Config, onNotice pgconn.NoticeHandler, ticked func()) (*pgconn.PgConn, *wakeableConn, error) {
	config = config.Copy()
	config.RuntimeParams["replication"] = "database"
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "pgamqp"
	}
	config.OnNotice = onNotice

	dialer := &net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
		Control: func(network, _ string, c syscall.RawConn) error {
			if network == "unix" {
				return nil
			}
			var err error
			ctlErr := c.Control(func(fd uintptr) { err = setUserTimeout(int(fd), userTimeout) })
			if ctlErr != nil {
				return ctlErr
			}
			return err
		},
	}
	config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &wakeableConn{Conn: c, address: addr}, nil
	}
	watchConnects(config, ticked)
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, nil, err
	}
	raw, err := beneath(conn.Conn())
	if err != nil {
		_ = conn.Close(ctx)
		return nil, nil, err
	}
	return conn, raw, nil
}

// beneath returns the connection that was dialed for c. The one dialed last may be another:
// pgconn dials a host again, to cancel there, while it tries the next one.
func beneath(c net.Conn) (*wakeableConn, error) {
	if encrypted, ok := c.(*tls.Conn); ok {
		c = encrypted.NetConn()
	}
	raw, ok := c.(*wakeableConn)
	if !ok {
		return nil, fmt.Errorf("a connection is a %T and cannot be interrupted; report this as a bug", c)
	}
	return raw, nil
}
