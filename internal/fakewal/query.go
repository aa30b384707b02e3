package fakewal

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Query is a simple query. As an event it has been answered.
type Query struct {
	Conn *Conn
	SQL  string
}

func (q *Query) String() string { return fmt.Sprintf("conn %d query %q", q.Conn.ID, q.SQL) }

// Answer is the answer to one query: rows of text, or an error.
type Answer struct {
	Columns []string
	// Rows hold nil for NULL; anything else is written as fmt.Sprint does.
	Rows [][]any
	// Tag is the command tag; "" means SELECT with the number of rows.
	Tag string
	// Error ends the query instead, behind the names of the columns if there are some.
	// With severity FATAL the connection closes.
	Error *Error
	// Drop closes the connection without an answer.
	Drop bool
}

var startReplication = regexp.MustCompile(
	`(?is)^\s*START_REPLICATION\s+SLOT\s+("[^"]+"|\S+)\s+LOGICAL\s+([0-9A-F]+/[0-9A-F]+)\s*(?:\((.*)\))?\s*;?\s*$`)

var pluginOption = regexp.MustCompile(`(?s)"?(\w+)"?\s+'((?:[^']|'')*)'`)

// query answers one simple query; an error ends the connection.
func (c *Conn) query(sql string) error {
	if c.current() != nil {
		e := Error{Code: "08P01", Message: "unexpected message type 0x51 during COPY"}
		c.Send(e.response("FATAL"))
		return errFatal
	}
	q := &Query{Conn: c, SQL: sql}
	var a *Answer
	if c.server.config.Query != nil {
		a = c.server.config.Query(q)
	}
	if m := startReplication.FindStringSubmatch(sql); a == nil && m != nil {
		return c.start(sql, m[1], m[2], m[3])
	}
	c.server.events.Put(q)
	if a == nil {
		a = c.server.builtin(sql)
	}
	if a.Drop {
		c.Drop()
		return errRefused
	}
	if a.Error == nil {
		c.write(append(a.encode(), encode(ready())...))
		return nil
	}
	if len(a.Columns) > 0 {
		c.write(a.columns())
	}
	r := a.Error.response("ERROR")
	if r.Severity != "ERROR" {
		c.Send(r)
		return errFatal
	}
	c.Send(r, ready())
	return nil
}

// columns encodes the description of the rows.
func (a *Answer) columns() []byte {
	d := &pgproto3.RowDescription{}
	for _, name := range a.Columns {
		d.Fields = append(d.Fields, pgproto3.FieldDescription{
			Name: []byte(name), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1,
		})
	}
	return encode(d)
}

func (a *Answer) encode() []byte {
	var b []byte
	if len(a.Columns) > 0 {
		b = a.columns()
	}
	var messages []pgproto3.BackendMessage
	for _, row := range a.Rows {
		r := &pgproto3.DataRow{}
		for _, v := range row {
			var text []byte
			if v != nil {
				text = fmt.Append([]byte{}, v)
			}
			r.Values = append(r.Values, text)
		}
		messages = append(messages, r)
	}
	tag := a.Tag
	if tag == "" {
		tag = fmt.Sprintf("SELECT %d", len(a.Rows))
	}
	return append(b, encode(append(messages, &pgproto3.CommandComplete{CommandTag: []byte(tag)})...)...)
}

// builtin is what the server knows without the test.
func (s *Server) builtin(sql string) *Answer {
	words := strings.Fields(strings.TrimRight(sql, "; \t\n"))
	switch {
	case len(words) == 1 && strings.EqualFold(words[0], "IDENTIFY_SYSTEM"):
		s.mu.Lock()
		y := s.system
		s.mu.Unlock()
		return &Answer{
			Columns: []string{"systemid", "timeline", "xlogpos", "dbname"},
			Rows:    [][]any{{y.ID, y.Timeline, y.Position, y.Database}}, Tag: "IDENTIFY_SYSTEM",
		}
	case len(words) == 2 && strings.EqualFold(words[0], "SHOW"):
		v, ok := s.config.Settings[words[1]]
		switch {
		case ok:
		case words[1] == "wal_sender_timeout":
			v = "1min"
		default:
			return &Answer{Error: &Error{Code: "42704", Message: fmt.Sprintf("unrecognized configuration parameter %q", words[1])}}
		}
		return &Answer{Columns: words[1:], Rows: [][]any{{v}}, Tag: "SHOW"}
	case len(words) == 2 && strings.EqualFold(words[0], "TIMELINE_HISTORY"):
		return &Answer{Columns: []string{"filename", "content"}, Error: &Error{Code: "58P01", Message: fmt.Sprintf("could not open file of timeline %s", words[1])}}
	case len(words) == 0:
		return &Answer{Tag: "SELECT 0"}
	}
	return &Answer{Error: &Error{Code: "42601", Message: fmt.Sprintf("fakewal has no answer for %q", sql)}}
}

// start is START_REPLICATION.
func (c *Conn) start(sql, slot, position, options string) error {
	from, err := pglogrepl.ParseLSN(position)
	if err != nil {
		return err
	}
	st := &Stream{
		Conn: c, SQL: sql, Slot: strings.Trim(slot, `"`), From: from, Options: map[string]string{}, running: true,
	}
	for _, o := range pluginOption.FindAllStringSubmatch(options, -1) {
		st.Options[o[1]] = strings.ReplaceAll(o[2], "''", "'")
	}
	c.stream = st
	c.Send(&pgproto3.CopyBothResponse{})
	c.server.events.Put(st)
	return nil
}
