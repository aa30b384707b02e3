package rows

import (
	"cmp"
	"context"
	"slices"
	"strconv"

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
	routes []Route
	tables map[*decoder.Relation][]*Route // which routes are for a table
}

// NewRouter returns a Router without routes.
func NewRouter(types *Types) *Router { return &Router{types: types} }

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
	r.routes, r.tables = routes, make(map[*decoder.Relation][]*Route)
	return nil
}

// routesOf returns the routes for a table.
func (r *Router) routesOf(rel *decoder.Relation) []*Route {
	found, known := r.tables[rel]
	if known {
		return found
	}
	for old := range r.tables { // the table has been described anew
		if old.OID == rel.OID {
			delete(r.tables, old)
			r.types.Forget()
		}
	}
	for i := range r.routes {
		if r.routes[i].matches(rel) {
			found = append(found, &r.routes[i])
		}
	}
	r.tables[rel] = found
	return found
}

// Messages returns what a change becomes: a message for each route that it takes, none if it
// takes none. It blocks while a type is looked up; an error is that of looking.
func (r *Router) Messages(ctx context.Context, m *decoder.Message) ([]decoder.Message, error) {
	var c *change
	var out []decoder.Message
	for _, route := range r.routesOf(m.Change.Relation) {
		if !route.takes(m.Change.Op) {
			continue
		}
		if c == nil {
			var err error
			if c, err = r.types.read(ctx, m); err != nil {
				return nil, err
			}
		}
		out = append(out, route.message(c))
	}
	return out, nil
}

// message makes the message that a change becomes on a route.
func (r *Route) message(c *change) decoder.Message {
	m := *c.message
	m.Change = nil
	m.Prefix = decoder.Prefix
	m.ID = m.ID + "-" + strconv.Itoa(int(r.ID))
	e := decoder.Envelope{
		Kind: decoder.KindPublish, BrokerID: r.BrokerID,
		Exchange: r.Exchange, RoutingKey: r.key.fill(c),
		ContentType: "application/json", Timestamp: strconv.FormatInt(m.CommitTime.Unix(), 10),
	}
	m.Content = e.AppendHead(make([]byte, 0, 256+2*c.message.Size()))
	m.Content = r.Encoding.appendJSON(m.Content, c) // the only format so far
	return m
}
