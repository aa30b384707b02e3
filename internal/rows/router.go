package rows

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/decoder"
)

// Version is all routes as they are from a change of amqp.route on.
type Version struct {
	// Announced is the LSN of the message that announces the change in the stream.
	Announced pglogrepl.LSN
	// Committed is the start of the commit record of its transaction; 0 if no stream has
	// come to it yet.
	Committed pglogrepl.LSN
	Routes    []Route
}

// Router turns the changes of one stream into messages. It is not safe for concurrent use.
//
// A change of amqp.route holds from its place in the stream on: what was committed before
// takes the routes that were there before, however often the stream starts again. That is
// why there are versions.
type Router struct {
	types  *Types
	origin Origin
	now    func() time.Time
	routes []Route
	tables map[*decoder.Relation]*table

	change change            // the one at hand
	out    []decoder.Message // and its messages
}

// table is what is known of a table as it was described once.
type table struct {
	routes []*Route // that are for it
	types  []*Type  // of its columns; nil until they are needed
	names  [][]byte // of its columns, see change
}

// NewRouter returns a Router without routes. now tells the time that formats have in which a
// message says when it was made.
func NewRouter(types *Types, origin Origin, now func() time.Time) *Router {
	return &Router{types: types, origin: origin, now: now}
}

// Begin chooses the version that holds where a stream starts: the last one whose change lies
// before. Those behind it are announced in the stream. versions are in the order of their
// announcements, which is that of their commits, as changes of amqp.route wait for each other.
//
// What no stream has come to was committed before the slot was made. Or it is about to come,
// because its transaction was open at the stream's start; then it holds a moment early.
func (r *Router) Begin(from pglogrepl.LSN, versions []Version) error {
	var holds Version
	for _, v := range versions {
		if cmp.Or(v.Committed, v.Announced) < from {
			holds = v
		}
	}
	return r.Use(holds)
}

// Use makes a version hold from now on.
func (r *Router) Use(v Version) error {
	routes := slices.Clone(v.Routes)
	for i := range routes {
		if err := routes[i].prepare(); err != nil {
			return err
		}
	}
	r.routes, r.tables = routes, make(map[*decoder.Relation]*table)
	return nil
}

// table returns what is known of a table.
func (r *Router) table(rel *decoder.Relation) *table {
	if known := r.tables[rel]; known != nil {
		return known
	}
	for old := range r.tables { // the table has been described anew
		if old.OID == rel.OID {
			delete(r.tables, old)
			r.types.Forget()
		}
	}
	t := &table{}
	for _, column := range rel.Columns {
		t.names = append(t.names, append(appendString(nil, []byte(column.Name)), ':'))
	}
	for i := range r.routes {
		if r.routes[i].matches(rel) {
			t.routes = append(t.routes, &r.routes[i])
		}
	}
	r.tables[rel] = t
	return t
}

// typesOf asks for the types of a table's columns, once.
func (r *Router) typesOf(ctx context.Context, t *table, rel *decoder.Relation) ([]*Type, error) {
	if t.types != nil || len(rel.Columns) == 0 {
		return t.types, nil
	}
	types := make([]*Type, len(rel.Columns))
	for i, column := range rel.Columns {
		known, err := r.types.Of(ctx, column.Type)
		if err != nil {
			return nil, err
		}
		types[i] = known.withModifier(column.Modifier)
	}
	t.types = types
	return types, nil
}

// Brokers returns those to which the rows of a table go now when a snapshot is taken.
func (r *Router) Brokers(rel *decoder.Relation) []int32 {
	var out []int32
	for i := range r.routes {
		if route := &r.routes[i]; route.matches(rel) && route.takes(decoder.OpRead) {
			out = append(out, route.BrokerID)
		}
	}
	return out
}

// Messages returns what a change, or a message with a prefix that is not ours, becomes: one for
// each route that takes it, none if none does; they hold until the next call. It blocks while a type
// is looked up; an error is that of looking.
func (r *Router) Messages(ctx context.Context, m *decoder.Message) ([]decoder.Message, error) {
	if m.Change == nil {
		return r.foreign(m), nil
	}
	var c *change
	clear(r.out)
	out := r.out[:0]
	t := r.table(m.Change.Relation)
	for _, route := range t.routes {
		if !route.takes(m.Change.Op) {
			continue
		}
		if c == nil {
			types, err := r.typesOf(ctx, t, m.Change.Relation)
			if err != nil {
				return nil, err
			}
			c = &r.change
			c.set(m, types, t.names)
		}
		out = r.appendMessages(out, route, c)
	}
	r.out = out
	return out, nil
}

// foreign returns the messages that one with a prefix becomes.
func (r *Router) foreign(m *decoder.Message) (out []decoder.Message) {
	for i := range r.routes {
		route := &r.routes[i]
		if route.Prefix == "" || !glob(route.Prefix, m.Prefix) {
			continue
		}
		e := route.envelope()
		e.ContentType, e.RoutingKey = "application/octet-stream", route.key.fill(func(string) string { return m.Prefix })
		out = append(out, route.message(m, "", append(e.AppendHead(make([]byte, 0, 256+len(m.Content))), m.Content...)))
	}
	return out
}

// appendMessages appends what a change becomes on a route: one message, or two where a format
// knows no change of a key.
func (r *Router) appendMessages(out []decoder.Message, route *Route, c *change) []decoder.Message {
	m := c.message
	e := route.envelope()
	e.ContentType, e.RoutingKey = "application/json", route.key.fill(c.place)
	room := func() []byte { return make([]byte, 0, 256+2*m.Size()) }
	switch route.Format {
	case FormatDebezium:
		ops := c.debeziumOps()
		for i := range len(ops) {
			of, suffix := e, ""
			if len(ops) > 1 && ops[i] == 'd' { // for those who have the row under its old key
				of.RoutingKey, suffix = route.key.fill(c.oldPlace), "-delete"
			}
			content := route.Encoding.appendDebezium(of.AppendHead(room()), c, ops[i], r.origin, r.now())
			out = append(out, route.message(m, suffix, content))
		}
		return out
	case FormatCloudEvents:
		e.Headers = string(appendHeaders(nil, c.attributes(route.id(m), r.origin)))
		return append(out, route.message(m, "", route.Encoding.appendJSON(e.AppendHead(room()), c)))
	case FormatStructured:
		e.ContentType = "application/cloudevents+json; charset=utf-8"
		attributes := c.attributes(route.id(m), r.origin)
		return append(out, route.message(m, "", route.Encoding.appendStructured(e.AppendHead(room()), c, attributes)))
	default:
		return append(out, route.message(m, "", route.Encoding.appendJSON(e.AppendHead(room()), c)))
	}
}

// envelope returns where a message goes. It has no timestamp, which would take a tenth of the
// broker's throughput; each format has a better one in the body or in headers.
func (r *Route) envelope() decoder.Envelope {
	return decoder.Envelope{Kind: decoder.KindPublish, BrokerID: r.BrokerID, Exchange: r.Exchange}
}

// id returns the identity of what m becomes on the route.
func (r *Route) id(m *decoder.Message) string { return m.ID + "-" + strconv.Itoa(int(r.ID)) }

// message makes the message that m becomes on the route.
func (r *Route) message(m *decoder.Message, suffix string, content []byte) decoder.Message {
	out := *m
	out.Change, out.Prefix, out.Content = nil, decoder.Prefix, content
	out.ID = r.id(m) + suffix
	return out
}
