package fakewal

import (
	"encoding/binary"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Frame is the content of one XLogData message. ServerWALEnd equals WALStart on
// the wire, as in the logical streams of a real server.
type Frame struct {
	WALStart pglogrepl.LSN
	Data     []byte
}

// Raw is a frame with any content.
func Raw(walStart pglogrepl.LSN, data []byte) Frame { return Frame{walStart, data} }

// Begin opens a transaction. finalLSN is the start of its commit record. A real
// server puts the position of the first change into WALStart; so does [Log].
func Begin(xid uint32, finalLSN pglogrepl.LSN, at time.Time) Frame {
	b := appendLSN([]byte{'B'}, finalLSN)
	b = appendTime(b, at)
	return Frame{finalLSN, binary.BigEndian.AppendUint32(b, xid)}
}

// Message is a message of pg_logical_emit_message, whose result is lsn.
func Message(lsn pglogrepl.LSN, transactional bool, prefix string, content []byte) Frame {
	b := []byte{'M', 0}
	if transactional {
		b[1] = 1
	}
	b = appendLSN(b, lsn)
	b = append(append(b, prefix...), 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(content)))
	return Frame{lsn, append(b, content...)}
}

// Commit closes a transaction: commitLSN is the start of the commit record and
// endLSN its end, the only position of a transaction that may be confirmed.
func Commit(commitLSN, endLSN pglogrepl.LSN, at time.Time) Frame {
	b := appendLSN([]byte{'C', 0}, commitLSN)
	b = appendLSN(b, endLSN)
	return Frame{endLSN, appendTime(b, at)}
}

// Relation describes a table whose columns are all of type text. Its WALStart is
// 0/0, as on a real server.
func Relation(id uint32, schema, table string, columns ...string) Frame {
	b := binary.BigEndian.AppendUint32([]byte{'R'}, id)
	b = append(append(b, schema...), 0)
	b = append(append(b, table...), 0)
	b = append(b, 'd') // default replica identity
	b = binary.BigEndian.AppendUint16(b, uint16(len(columns)))
	for _, c := range columns {
		b = append(b, 0) // not part of the key
		b = append(append(b, c...), 0)
		b = binary.BigEndian.AppendUint32(b, 25)
		b = binary.BigEndian.AppendUint32(b, 0xffffffff) // no type modifier
	}
	return Frame{0, b}
}

// Insert is a new row of a table; a nil value is NULL.
func Insert(walStart pglogrepl.LSN, relation uint32, values ...[]byte) Frame {
	b := binary.BigEndian.AppendUint32([]byte{'I'}, relation)
	b = append(b, 'N')
	b = binary.BigEndian.AppendUint16(b, uint16(len(values)))
	for _, v := range values {
		if v == nil {
			b = append(b, 'n')
			continue
		}
		b = binary.BigEndian.AppendUint32(append(b, 't'), uint32(len(v)))
		b = append(b, v...)
	}
	return Frame{walStart, b}
}

// Truncate empties tables.
func Truncate(walStart pglogrepl.LSN, relations ...uint32) Frame {
	b := binary.BigEndian.AppendUint32([]byte{'T'}, uint32(len(relations)))
	b = append(b, 0) // neither CASCADE nor RESTART IDENTITY
	for _, id := range relations {
		b = binary.BigEndian.AppendUint32(b, id)
	}
	return Frame{walStart, b}
}

func (f Frame) copyData() *pgproto3.CopyData {
	b := appendLSN([]byte{pglogrepl.XLogDataByteID}, f.WALStart)
	b = appendLSN(b, f.WALStart)
	b = appendTime(b, time.Now())
	return &pgproto3.CopyData{Data: append(b, f.Data...)}
}

func keepalive(walEnd pglogrepl.LSN, replyRequested bool) *pgproto3.CopyData {
	b := appendLSN([]byte{pglogrepl.PrimaryKeepaliveMessageByteID}, walEnd)
	b = append(appendTime(b, time.Now()), 0)
	if replyRequested {
		b[len(b)-1] = 1
	}
	return &pgproto3.CopyData{Data: b}
}

func appendLSN(b []byte, l pglogrepl.LSN) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(l))
}

func appendTime(b []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(t.UnixMicro()-epoch))
}
