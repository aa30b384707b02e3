package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
)

// RouteVersion is all routes as they are from a change of amqp.route on.
type RouteVersion struct {
	// Announced is the LSN of the message that announces the change in the stream.
	Announced pglogrepl.LSN
	// Committed is the start of the commit record of its transaction; 0 while no stream has
	// told it.
	Committed pglogrepl.LSN
	Routes    []Route
}

// Route is a row of amqp.route.
type Route struct {
	ID         int32    `json:"route_id"`
	BrokerID   int32    `json:"broker_id"`
	Exchange   string   `json:"exchange"`
	Schema     string   `json:"schema_name"`
	Table      string   `json:"table_name"`
	Prefix     string   `json:"message_prefix"`
	Operations []string `json:"operations"`
	RoutingKey string   `json:"routing_key"`
	Format     string   `json:"format"`
	NumericAs  string   `json:"numeric_as"`
	ByteaAs    string   `json:"bytea_as"`
}

const routeVersionsQuery = `
select announced - '0/0', coalesce(committed, '0/0') - '0/0', routes from amqp._route_versions()`

// RouteVersions returns all versions that a stream may need, in the order of their
// announcements.
func RouteVersions(ctx context.Context, conn *pgx.Conn) ([]RouteVersion, error) {
	rows, err := conn.Query(ctx, routeVersionsQuery)
	if err != nil {
		return nil, fmt.Errorf("read amqp.route_version: %w", err)
	}
	versions, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (v RouteVersion, err error) {
		var announced, committed uint64
		var routes []byte
		if err := row.Scan(&announced, &committed, &routes); err != nil {
			return v, err
		}
		v.Announced, v.Committed = pglogrepl.LSN(announced), pglogrepl.LSN(committed)
		return v, json.Unmarshal(routes, &v.Routes)
	})
	if err != nil {
		return nil, fmt.Errorf("read amqp.route_version: %w", err)
	}
	return versions, nil
}

// RouteVersionCommitted notes where the commit record of a change of amqp.route begins. It
// must be known before a slot is moved beyond it.
func RouteVersionCommitted(ctx context.Context, conn *pgx.Conn, announced, at pglogrepl.LSN) error {
	if _, err := conn.Exec(ctx, `select amqp._route_version_committed($1::text::pg_lsn, $2::text::pg_lsn)`, announced.String(), at.String()); err != nil {
		return fmt.Errorf("write amqp.route_version: %w", err)
	}
	return nil
}

// Type is a row of pg_type, as far as it says how a value is written.
type Type struct {
	Kind      byte // typtype
	Name      string
	Elem      uint32 // of a true array, else 0
	Base      uint32 // of a domain, else 0
	Modifier  int32  // of a domain's base type, as atttypmod
	Delimiter byte
	// Attributes are those of a composite type, in order.
	Attributes []Attribute
}

// Attribute is a column of a composite type.
type Attribute struct {
	Name     string `json:"name"`
	Type     uint32 `json:"type"`
	Modifier int32  `json:"modifier"`
}

// A true array is the array type of its element type; int2vector has elements, too.
const typeQuery = `
select t.typtype::text, t.typname::text, case when e.typarray = t.oid then e.oid else 0 end, t.typbasetype, t.typtypmod,
       coalesce(e.typdelim, ',')::text,
       (select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', a.attname, 'type', a.atttypid::bigint, 'modifier', a.atttypmod) order by a.attnum), '[]')
          from pg_catalog.pg_attribute a where a.attrelid = t.typrelid and t.typtype = 'c' and a.attnum > 0 and not a.attisdropped)
  from pg_catalog.pg_type t left join pg_catalog.pg_type e on e.oid = t.typelem
 where t.oid = $1`

// ReadType returns a type, nil if there is none.
func ReadType(ctx context.Context, conn *pgx.Conn, oid uint32) (*Type, error) {
	var t Type
	var kind, delimiter string
	var attributes []byte
	err := conn.QueryRow(ctx, typeQuery, oid).Scan(&kind, &t.Name, &t.Elem, &t.Base, &t.Modifier, &delimiter, &attributes)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err == nil {
		t.Kind, t.Delimiter = kind[0], delimiter[0]
		err = json.Unmarshal(attributes, &t.Attributes)
	}
	if err != nil {
		return nil, fmt.Errorf("read type %d: %w", oid, err)
	}
	return &t, nil
}
