package publisher

import (
	"testing"

	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

// The library can reconnect by itself, and then counts confirms from one again while old ones are still
// awaited. One owner decides when there is a connection: the lane.
func TestR36LibraryDoesNotReconnectByItself(t *testing.T) {
	t.Parallel()
	s := fakeamqp.Start(t, fakeamqp.Config{})
	c, err := dial(t.Context(), hostOf(s), "test", func(bool, string) {})
	if err != nil {
		t.Fatal(err)
	}
	conn := fakeamqp.Await[*fakeamqp.Conn](t, s)
	if c.IsRecoveryEnabled() {
		t.Error("the library's own recovery is on")
	}
	conn.Drop()
	receive(t, "the end of the connection", c.watched) // the library tells its listeners last
	c.close()
	fakeamqp.Await[*fakeamqp.Closed](t, s)
	for _, e := range s.Pending() {
		if again, ok := e.(*fakeamqp.Conn); ok {
			t.Errorf("another connection: %v", again)
		}
	}
}
