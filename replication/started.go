package replication

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pglogrepl"
)

// Start tells where a stream starts, and in which server.
type Start struct {
	// History names the WAL that positions lie in: system identifier and timeline.
	// Positions of different histories cannot be compared.
	History string
	// PID is the server's process that reads the slot for this stream. While it is the
	// slot's active_pid, no other stream reads the slot.
	PID uint32
	// Confirmed is the slot's position: what lies before it is not sent.
	Confirmed pglogrepl.LSN
	// Remembered is at least that; what lies before it was confirmed in an earlier
	// stream of this Session, so it is not delivered again.
	Remembered pglogrepl.LSN
	// Others says that another process has read the slot since the last stream of this
	// Session. It may have done so unseen, too.
	Others bool
	// LostWAL says that the server has lost WAL since then: what it writes at positions
	// that were seen before is new.
	LostWAL bool
}

// Begun is what Started has to say.
type Begun struct {
	// Ended, if not nil, is called when the stream has ended, before the Sink is drained
	// for the next one.
	Ended func()
	// Forget says that what is remembered cannot be relied on: deliver from Confirmed on.
	Forget bool
}

// ErrAbandon as the cause of the end of Run's ctx makes Run return at once: what is
// not confirmed is left for others to deliver.
var ErrAbandon = errors.New("the stream is abandoned")

// started tells of a stream before it delivers. If that fails the stream is closed.
func (s *Session) started(ctx context.Context, st *stream) (ended func(), err error) {
	ended = func() {}
	if s.cfg.Started == nil {
		return ended, nil
	}
	s.Tick()
	defer s.Tick()
	m := &s.memory
	others := m.others || m.flushed != 0 && m.identity == st.server.identity && st.server.confirmed > m.flushed
	begun, err := s.cfg.Started(ctx, Start{
		History:    fmt.Sprintf("%s-%d", st.server.identity.systemID, st.server.identity.timeline),
		PID:        st.conn.PID(),
		Confirmed:  st.server.confirmed,
		Remembered: max(st.server.confirmed, st.skipTo),
		Others:     others,
		LostWAL:    m.lostWAL,
	})
	if err != nil {
		st.close()
		return ended, err
	}
	m.pid, m.others, m.lostWAL = strconv.FormatUint(uint64(st.conn.PID()), 10), false, false
	if begun.Forget {
		st.skipTo, m.flushed = 0, 0
	}
	if begun.Ended != nil {
		ended = begun.Ended
	}
	return ended, nil
}

// Confirmed returns the position up to which the current stream has everything
// confirmed, 0 if there is no stream.
func (s *Session) Confirmed() pglogrepl.LSN {
	if st := s.current.Load(); st != nil {
		return st.tracker.Flushed()
	}
	return 0
}

// Received returns the position up to which the current stream has received
// everything, 0 if there is no stream.
func (s *Session) Received() pglogrepl.LSN {
	if st := s.current.Load(); st != nil {
		return st.tracker.Received()
	}
	return 0
}
