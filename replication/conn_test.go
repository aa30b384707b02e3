package replication

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// piped is a wakeableConn and its other end, inside a bubble.
func piped(t *testing.T) (*wakeableConn, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	return &wakeableConn{Conn: ours}, theirs
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

func TestWakeInterruptsABlockedRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := piped(t)
		failed := make(chan error, 1)
		go func() {
			_, err := c.Read(make([]byte, 1))
			failed <- err
		}()
		synctest.Wait()
		c.wake()
		if err := <-failed; !isTimeout(err) {
			t.Errorf("got %v", err)
		}
	})
}

// A wake-up between two reads must not be lost, whatever deadline is set then.
func TestWakeBeforeAReadIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := piped(t)
		c.wake()
		c.readUntil(time.Now().Add(time.Hour))
		began := time.Now()
		if _, err := c.Read(make([]byte, 1)); !isTimeout(err) || time.Since(began) != 0 {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
		c.rest()
		c.readUntil(time.Now().Add(time.Hour))
		if _, err := c.Read(make([]byte, 1)); !isTimeout(err) || time.Since(began) != time.Hour {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
	})
}

func TestP54InterruptedReadLosesNoData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, server := piped(t)
		go func() { _, _ = server.Write([]byte("x")) }()
		c.wake()
		if _, err := c.Read(make([]byte, 1)); !isTimeout(err) {
			t.Fatalf("got %v", err)
		}
		c.rest()
		c.readUntil(time.Now().Add(time.Second))
		b := make([]byte, 1)
		if n, err := c.Read(b); err != nil || n != 1 || b[0] != 'x' {
			t.Errorf("read %q, %v", b[:n], err)
		}
	})
}

func TestP54WriteToAPeerThatIsGoneEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := piped(t) // nobody reads
		began := time.Now()
		if _, err := c.Write([]byte("x")); !isTimeout(err) || time.Since(began) != writeTimeout {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
	})
}
