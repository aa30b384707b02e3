package decoder

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pglogrepl"
)

// Source names the history that positions belong to, so that a message keeps its
// ID when a standby is promoted, and a message of an abandoned timeline never
// shares one with a message of the new.
type Source struct {
	// SystemID is the system identifier of the cluster, from IDENTIFY_SYSTEM.
	SystemID string
	// Timeline is the server's current timeline.
	Timeline int32
	// Ancestors are the timelines before it, oldest first, from TIMELINE_HISTORY.
	Ancestors []Ancestor
}

// Ancestor is a timeline and the position at which the next one left it.
type Ancestor struct {
	Timeline int32
	End      pglogrepl.LSN
}

// TimelineOf returns the timeline on which the record that ends at lsn was written.
func (s Source) TimelineOf(lsn pglogrepl.LSN) int32 {
	for _, a := range s.Ancestors {
		if lsn <= a.End {
			return a.Timeline
		}
	}
	return s.Timeline
}

// ID returns the identity of the message whose record ends at lsn, in the form
// "7423456789012345678-1-0/1581C38": the last part can be cast to pg_lsn.
func (s Source) ID(lsn pglogrepl.LSN) string {
	var room [64]byte // so that the only allocation is the string
	return string(s.appendID(room[:0], lsn))
}

// ChangeID returns the identity of a row change in the transaction whose commit record
// starts at commit: "7423456789012345678-1-0/1581C38-2".
func (s Source) ChangeID(commit pglogrepl.LSN, ordinal int) string {
	var room [80]byte
	b := append(s.appendID(room[:0], commit), '-')
	return string(strconv.AppendInt(b, int64(ordinal), 10))
}

func (s Source) appendID(b []byte, lsn pglogrepl.LSN) []byte {
	b = append(b, s.SystemID...)
	b = append(b, '-')
	b = strconv.AppendInt(b, int64(s.TimelineOf(lsn)), 10)
	b = append(b, '-')
	b = strconv.AppendUint(b, uint64(lsn)>>32, 16)
	b = append(b, '/')
	b = strconv.AppendUint(b, uint64(lsn)&0xffffffff, 16)
	upper(b[len(s.SystemID):])
	return b
}

// upper makes hexadecimal digits look as PostgreSQL prints them.
func upper(b []byte) {
	for i, c := range b {
		if 'a' <= c && c <= 'f' {
			b[i] = c - 'a' + 'A'
		}
	}
}

// ParseHistory reads a timeline history file, as TIMELINE_HISTORY returns it: one
// line a timeline with its number, the position at which it was left, and a
// reason; empty lines and lines starting with # are comments.
func ParseHistory(content []byte) ([]Ancestor, error) {
	var out []Ancestor
	lines := bufio.NewScanner(bytes.NewReader(content))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			return nil, fmt.Errorf("read timeline history: line %q has no position", line)
		}
		tli, err := strconv.ParseInt(f[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read timeline history: line %q: %w", line, err)
		}
		if tli < 1 {
			return nil, fmt.Errorf("read timeline history: line %q: timelines begin with 1", line)
		}
		end, err := pglogrepl.ParseLSN(f[1])
		if err != nil {
			return nil, fmt.Errorf("read timeline history: line %q: %w", line, err)
		}
		if n := len(out); n > 0 && (end < out[n-1].End || int32(tli) <= out[n-1].Timeline) {
			return nil, fmt.Errorf("read timeline history: line %q is out of order", line)
		}
		out = append(out, Ancestor{Timeline: int32(tli), End: end})
	}
	return out, lines.Err()
}
