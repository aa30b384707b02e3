package rows

import (
	"math/bits"
	"strconv"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/decoder"
)

// appendJSON writes a change in the flat form:
//
//	{"schema": "public", "table": "orders", "op": "update", "lsn": "0/1581C38", "xid": 731,
//	 "commit_time": "2026-01-01T00:00:00.123456Z", "before": {...} or null, "after": {...} or null}
//
// "unchanged" lists the columns that after lacks because an update did not touch them and
// they are stored apart (TOAST); "cascade" and "restart_identity" are those of a TRUNCATE.
func (e Encoding) appendJSON(dst []byte, c *change) []byte {
	dst = appendString(append(dst, `{"schema":`...), []byte(c.relation.Schema))
	dst = appendString(append(dst, `,"table":`...), []byte(c.relation.Name))
	dst = append(append(append(dst, `,"op":"`...), c.operation...), '"')
	dst = append(appendLSN(append(dst, `,"lsn":"`...), c.message.LSN), '"')
	dst = strconv.AppendUint(append(dst, `,"xid":`...), uint64(c.message.XID), 10)
	dst = append(c.appendCommitTime(append(dst, `,"commit_time":"`...)), '"')
	if d := c.message.Change; d.Op == decoder.OpTruncate {
		dst = strconv.AppendBool(append(dst, `,"cascade":`...), d.Cascade)
		dst = strconv.AppendBool(append(dst, `,"restart_identity":`...), d.RestartIdentity)
	}
	dst = e.appendRow(append(dst, `,"before":`...), c, c.before)
	dst = e.appendRow(append(dst, `,"after":`...), c, c.after)
	if c.unchanged {
		dst = append(dst, `,"unchanged":[`...)
		first := true
		for i, v := range c.after {
			if v.absent {
				if !first {
					dst = append(dst, ',')
				}
				first = false
				dst = appendString(dst, []byte(c.relation.Columns[i].Name))
			}
		}
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

// appendLSN writes a position as PostgreSQL does: two hexadecimal numbers.
func appendLSN(dst []byte, lsn pglogrepl.LSN) []byte {
	return appendHex(append(appendHex(dst, uint32(lsn>>32)), '/'), uint32(lsn))
}

func appendHex(dst []byte, n uint32) []byte {
	const digits = "0123456789ABCDEF"
	shift := max(0, 28-bits.LeadingZeros32(n)&^3) // of the first digit that is not 0
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, digits[n>>shift&0xf])
	}
	return dst
}

// appendRow writes a row as an object, null if there is none.
func (e Encoding) appendRow(dst []byte, c *change, row []value) []byte {
	if row == nil {
		return append(dst, "null"...)
	}
	dst = append(dst, '{')
	first := true
	for i, v := range row {
		if v.absent && (!e.debezium || v.State != decoder.Unchanged) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, c.names[i]...)
		switch v.State {
		case decoder.Null:
			dst = append(dst, "null"...)
		case decoder.Unchanged:
			dst = e.appendUnavailable(dst, c.types[i])
		default:
			dst = e.appendValue(dst, c.types[i], v.Text)
		}
	}
	return append(dst, '}')
}
