package rows

import (
	"cmp"
	"context"
	"reflect"
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
	stale  bool              // a value of it is not what its type says
}

// table is what is known of a table as it was described once.
type table struct {
	routes []*Route // that are for it
	types  []*Type  // of its columns; nil until they are needed
	names  [][]byte // of its columns, see change
	// mutable says that types has some that may have changed since they were asked for; in vain is when asking for them
	// because of a value has brought nothing.
	mutable       bool
	asked, inVain time.Time
}

// How long the composite types of a table are taken for what they were, and for how long they are not asked for again after that
// has brought nothing.
const (
	refreshAfter = 10 * time.Second
	reaskAfter   = time.Second
)

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
		routes[i].Encoding.stale = &r.stale
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

// typesOf asks for the types of a table's columns, once, and for those that may have changed again from time to time.
func (r *Router) typesOf(ctx context.Context, t *table, rel *decoder.Relation) ([]*Type, error) {
	switch {
	case len(rel.Columns) == 0:
		return nil, nil
	case t.types == nil:
		if err := r.askTypes(ctx, t, rel); err != nil {
			return nil, err
		}
	case t.mutable && r.now().Sub(t.asked) >= refreshAfter:
		r.renewTypes(ctx, t, rel)
	}
	return t.types, nil
}

// renewTypes asks for a table's types again, and tells whether they have changed. If it cannot ask, they stay: that must not
// hold the stream up.
func (r *Router) renewTypes(ctx context.Context, t *table, rel *decoder.Relation) (changed bool) {
	before := t.types
	r.types.Forget()
	return r.askTypes(ctx, t, rel) == nil && !reflect.DeepEqual(before, t.types)
}

func (r *Router) askTypes(ctx context.Context, t *table, rel *decoder.Relation) error {
	t.asked = r.now()
	types, mutable := make([]*Type, len(rel.Columns)), false
	for i, column := range rel.Columns {
		known, err := r.types.Of(ctx, column.Type)
		if err != nil {
			return err
		}
		types[i] = known.withModifier(column.Modifier)
		mutable = mutable || known.Mutable
	}
	t.types, t.mutable = types, mutable
	return nil
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
	t := r.table(m.Change.Relation)
	if !slices.ContainsFunc(t.routes, func(route *Route) bool { return route.takes(m.Change.Op) }) {
		return nil, nil
	}
	types, err := r.typesOf(ctx, t, m.Change.Relation)
	if err != nil {
		return nil, err
	}
	out := r.written(t, types, m)
	if r.stale && r.now().Sub(t.inVain) >= reaskAfter {
		// A row may be older than what is known of its type, too. Whole tables can be, so it is not asked for each.
		if r.renewTypes(ctx, t, m.Change.Relation) {
			out = r.written(t, t.types, m)
		}
		if r.stale {
			t.inVain = r.now()
		}
	}
	return out, nil
}

// written returns what a change of a table becomes.
func (r *Router) written(t *table, types []*Type, m *decoder.Message) []decoder.Message {
	r.stale = false
	r.change.set(m, types, t.names)
	clear(r.out)
	r.out = r.out[:0]
	for _, route := range t.routes {
		if route.takes(m.Change.Op) {
			r.out = r.appendMessages(r.out, route, &r.change)
		}
	}
	return r.out
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
