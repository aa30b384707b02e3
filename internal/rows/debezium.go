package rows

import (
	"bytes"
	"strconv"
	"time"

	"github.com/pgamqp/pgamqp/decoder"
)

// Origin is what messages tell of where they come from.
type Origin struct {
	// Version is that of this program, Name the slot's, Database the database's.
	Version, Name, Database string
}

// appendDebezium writes a change as the value of Debezium's events, as its JSON converter
// writes it without schemas ("Data change events" in the documentation of its connector for
// PostgreSQL). op is Debezium's letter.
func (e Encoding) appendDebezium(dst []byte, c *change, op byte, from Origin, now time.Time) []byte {
	m := c.message
	e.debezium = true
	before, after := c.before, c.after
	switch op {
	case 'c', 'r': // for an update of the key, too
		before = nil
	case 'd':
		after = nil
	}
	dst = e.appendRow(append(dst, `{"before":`...), c, before)
	dst = e.appendRow(append(dst, `,"after":`...), c, after)

	dst = appendString(append(dst, `,"source":{"version":`...), []byte(from.Version))
	dst = appendString(append(dst, `,"connector":"postgresql","name":`...), []byte(from.Name))
	dst = appendUnix(append(dst, `,"ts_ms":`...), m.CommitTime, 1000)
	dst = append(dst, `,"snapshot":`...)
	if m.Change.Op == decoder.OpRead {
		dst = append(dst, `"incremental"`...)
	} else {
		dst = append(dst, `"false"`...)
	}
	dst = appendString(append(dst, `,"db":`...), []byte(from.Database))
	dst = strconv.AppendUint(append(dst, `,"sequence":"[\"`...), uint64(m.Commit), 10)
	dst = strconv.AppendUint(append(dst, `\",\"`...), uint64(m.LSN), 10)
	dst = appendUnix(append(dst, `\"]","ts_us":`...), m.CommitTime, 1e6)
	dst = appendUnix(append(dst, `,"ts_ns":`...), m.CommitTime, 1e9)
	dst = appendString(append(dst, `,"schema":`...), []byte(c.relation.Schema))
	dst = appendString(append(dst, `,"table":`...), []byte(c.relation.Name))
	dst = append(dst, `,"txId":`...)
	if m.XID == 0 {
		dst = append(dst, "null"...)
	} else {
		dst = strconv.AppendUint(dst, uint64(m.XID), 10)
	}
	dst = strconv.AppendUint(append(dst, `,"lsn":`...), uint64(m.LSN), 10)

	dst = append(append(dst, `,"xmin":null},"transaction":null,"op":"`...), op)
	dst = appendUnix(append(dst, `","ts_ms":`...), now, 1000)
	dst = appendUnix(append(dst, `,"ts_us":`...), now, 1e6)
	dst = appendUnix(append(dst, `,"ts_ns":`...), now, 1e9)
	return append(dst, '}')
}

// appendUnix appends a time as so many parts of a second since 1970.
func appendUnix(dst []byte, t time.Time, parts int64) []byte {
	return strconv.AppendInt(dst, t.Unix()*parts+int64(t.Nanosecond())/(1e9/parts), 10)
}

// debeziumOps returns the letters of the events that a change is. An update that changes the key is
// a deletion and a creation, as for Debezium: whoever keeps rows by their keys would keep the
// old one else.
func (c *change) debeziumOps() string {
	switch c.message.Change.Op {
	case decoder.OpInsert:
		return "c"
	case decoder.OpUpdate:
		if c.keyChanged() {
			return "dc"
		}
		return "u"
	case decoder.OpDelete:
		return "d"
	case decoder.OpTruncate:
		return "t"
	default:
		return "r"
	}
}

// keyChanged tells whether an update changed the key. PostgreSQL sends the old key alone if so, and
// if a part of it is stored apart (TOAST). Under FULL every column belongs to the identity, and
// what the key is is not known.
func (c *change) keyChanged() bool {
	if !c.message.Change.KeyOnly {
		return false
	}
	for i, old := range c.before {
		if !old.absent && (old.State != c.after[i].State || !bytes.Equal(old.Text, c.after[i].Text)) {
			return true
		}
	}
	return false
}
