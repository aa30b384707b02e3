package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgamqp/pgamqp/sql"
)

// Table is a published table, as a snapshot reads it.
type Table struct {
	OID          uint32
	Schema, Name string
	partitioned  bool
	Columns      []TableColumn
	filter       string      // the publication's; empty for none
	order        []keyColumn // those of a unique index; empty: by ctid
}

// TableColumn is a published column, in the order of the stream.
type TableColumn struct {
	Name     string
	Type     uint32
	Modifier int32
	Key      bool // of the replica identity
}

// keyColumn is a column of an index. Its operators are those of the index, by name with schema: what a search_path finds
// may be somebody else's.
type keyColumn struct{ name, typ, operand, operators string }

// column is the operand of an operator of the index, and value a constant that stands for one.
func (k keyColumn) column() string {
	return "pgamqp_row." + pgx.Identifier{k.name}.Sanitize() + k.operand
}

func (k keyColumn) value(text string) string { return sql.Literal(text) + "::" + k.typ + k.operand }

func (k keyColumn) operator(name string) string {
	return " operator(" + k.operators + "." + name + ") "
}

// ErrNoSnapshot means that no snapshot of a table can be taken, however often it is tried.
var ErrNoSnapshot = errors.New("no snapshot can be taken")

// ReadTable describes a table.
func ReadTable(ctx context.Context, conn *pgx.Conn, publication, schema, name string) (*Table, error) {
	t := &Table{Schema: schema, Name: name}
	const table = `
		select c.oid, c.relkind = 'p', coalesce(pg_catalog.to_jsonb(t) ->> 'rowfilter', '')
		  from pg_catalog.pg_publication_tables t
		  join pg_catalog.pg_namespace n on n.nspname = t.schemaname
		  join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.tablename
		 where t.pubname = $1 and t.schemaname = $2 and t.tablename = $3`
	err := conn.QueryRow(ctx, table, publication, schema, name).Scan(&t.OID, &t.partitioned, &t.filter)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("%w of %s.%s: the table is not there, or not published", ErrNoSnapshot, schema, name)
	}
	if err != nil {
		return nil, fmt.Errorf("read table %s.%s: %w", schema, name, err)
	}
	const columns = `
		select a.attname::text, a.atttypid, a.atttypmod,
		       c.relreplident = 'f' or exists (
		         select from pg_catalog.pg_index i, pg_catalog.unnest(i.indkey::smallint[]) with ordinality k(attnum, n)
		          where i.indexrelid = pg_catalog.pg_get_replica_identity_index(c.oid) and k.attnum = a.attnum and k.n <= i.indnkeyatts)
		  from pg_catalog.pg_publication_tables t, pg_catalog.pg_class c
		  join pg_catalog.pg_attribute a on a.attrelid = c.oid
		 where t.pubname = $1 and t.schemaname = $2 and t.tablename = $3 and c.oid = $4 and a.attnum > 0 and not a.attisdropped
		   and case when pg_catalog.to_jsonb(t) ? 'attnames' then pg_catalog.to_jsonb(t) -> 'attnames' ? a.attname::text
		         else a.attgenerated = '' end
		 order by a.attnum`
	found, err := conn.Query(ctx, columns, publication, schema, name, t.OID)
	if err == nil {
		t.Columns, err = pgx.CollectRows(found, func(row pgx.CollectableRow) (c TableColumn, err error) {
			return c, row.Scan(&c.Name, &c.Type, &c.Modifier, &c.Key)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the columns of table %s.%s: %w", schema, name, err)
	}
	// The replica identity comes first: by it the stream tells where a row was and is.
	const order = `
		select a.attname::text, pg_catalog.format_type(a.atttypid, -1), -- an operator that fits a domain better is not of the index
		       case when n.nspname = 'pg_catalog' then '' else '::' || pg_catalog.format_type(c.opcintype, -1) end, pg_catalog.quote_ident(n.nspname)
		  from (select i.* from pg_catalog.pg_index i
		         where i.indrelid = $1 and (i.indisprimary or i.indisreplident) and i.indisvalid
		         order by i.indisreplident desc limit 1) i
		  cross join lateral pg_catalog.unnest(i.indkey::smallint[]) with ordinality k(attnum, n)
		  join pg_catalog.pg_attribute a on a.attrelid = $1 and a.attnum = k.attnum
		  join pg_catalog.pg_opclass c on c.oid = (i.indclass::pg_catalog.oid[])[k.n - 1]
		  join pg_catalog.pg_amop m on m.amopfamily = c.opcfamily and m.amoplefttype = c.opcintype and m.amoprighttype = c.opcintype and m.amopstrategy = 5
		  join pg_catalog.pg_operator o on o.oid = m.amopopr
		  join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
		 where k.n <= i.indnkeyatts order by k.n`
	if found, err = conn.Query(ctx, order, t.OID); err == nil {
		t.order, err = pgx.CollectRows(found, func(row pgx.CollectableRow) (c keyColumn, err error) {
			return c, row.Scan(&c.name, &c.typ, &c.operand, &c.operators)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the key of table %s.%s: %w", schema, name, err)
	}
	if len(t.order) == 0 && t.partitioned {
		return nil, fmt.Errorf("%w of %s.%s: it is published under its own name and partitioned, and so needs a primary key", ErrNoSnapshot, schema, name)
	}
	return t, nil
}

// ChunkRows is a part of a table.
type ChunkRows struct {
	Rows  [][][]byte // values as texts, nil for NULL, in the order of the table's columns
	After []string   // where the next part begins; nil: where this one did
	End   bool       // there are no more
}

// ChunkLimits bound a chunk. It ends with the row that reaches MaxBytes.
type ChunkLimits struct{ MaxRows, MaxBytes int }

// blocks is how many blocks a chunk covers of a table that is read by ctid; its rows have to
// be sorted, so it is bounded.
const blocks = 256

// ReadChunk reads the part of a table behind a place, with one snapshot of the server. shown is told
// which, as text, and says whether that will do; ReadChunk returns nil if not. Values are as
// output functions write them, by the settings of the connection.
func (t *Table) ReadChunk(ctx context.Context, conn *pgconn.PgConn, after []string, limits ChunkLimits, shown func(string) (bool, error)) (*ChunkRows, error) {
	return t.within(ctx, conn, shown, func(state [][]byte) (*ChunkRows, error) {
		if len(t.order) > 0 {
			return t.readByKey(ctx, conn, after, limits)
		}
		size, err := strconv.ParseInt(string(state[3]), 10, 64)
		if err != nil {
			return nil, err
		}
		return t.readByPlace(ctx, conn, after, limits, string(state[2]), size)
	})
}

// ReadRows reads rows by their keys, each in the order of the columns that are key; those that are not there are
// left out. It is like ReadChunk otherwise. used says how many of the keys it came to.
func (t *Table) ReadRows(ctx context.Context, conn *pgconn.PgConn, keys [][]string, limits ChunkLimits, shown func(string) (bool, error)) (rows *ChunkRows, used int, err error) {
	types := make(map[string]string, len(t.order))
	for _, k := range t.order {
		types[k.name] = k.typ
	}
	var names, own, values, casts []string
	for _, c := range t.Columns {
		if c.Key {
			own = append(own, "pgamqp_row."+pgx.Identifier{c.Name}.Sanitize())
			names = append(names, fmt.Sprintf("pgamqp_k%d", len(names)))
			casts = append(casts, types[c.Name])
		}
	}
	for i, key := range keys {
		if len(key) != len(casts) || slices.Contains(casts, "") {
			return nil, 0, t.keyAltered()
		}
		row := make([]string, len(key))
		for j, text := range key {
			row[j] = sql.Literal(text) + "::" + casts[j]
		}
		values = append(values, fmt.Sprintf("(%d, %s)", i+1, strings.Join(row, ", ")))
	}
	from := fmt.Sprintf("(values %s) pgamqp_moved (pgamqp_n, %s) join %s pgamqp_row on (%s) = (%s)",
		strings.Join(values, ", "), strings.Join(names, ", "), t.from(), strings.Join(own, ", "), "pgamqp_moved."+strings.Join(names, ", pgamqp_moved."))
	rows, err = t.within(ctx, conn, shown, func([][]byte) (*ChunkRows, error) {
		out, exhausted, err := t.read(ctx, conn, from, "pgamqp_moved.pgamqp_n::text", "true", "pgamqp_moved.pgamqp_n", limits, 1)
		if err != nil {
			return nil, err
		}
		used = len(keys)
		if !exhausted && len(out.Rows) > 0 {
			used, err = strconv.Atoi(out.After[0])
		}
		out.After = nil // the place of the others stays
		return out, err
	})
	return rows, used, err
}

func (t *Table) keyAltered() error {
	return fmt.Errorf("%w of %s.%s any more: its key was altered; ask for another one", ErrNoSnapshot, t.Schema, t.Name)
}

// within runs a function in a transaction whose snapshot will do. state is that, and what else is known.
func (t *Table) within(ctx context.Context, conn *pgconn.PgConn, shown func(string) (bool, error), read func(state [][]byte) (*ChunkRows, error)) (_ *ChunkRows, err error) {
	// The lock comes first: a snapshot from before a rewrite of the table would show it empty. Without row_security
	// a policy that would hide rows is an error.
	begin := `begin isolation level repeatable read read only; set local lock_timeout = '5s'; set local row_security = off; lock table ` + t.from() +
		` in access share mode; select pg_catalog.pg_current_snapshot()::text, ` + sql.Literal(pgx.Identifier{t.Schema, t.Name}.Sanitize()) + `::pg_catalog.regclass::pg_catalog.oid`
	if !t.partitioned {
		begin += `, pg_catalog.pg_relation_filenode(` + strconv.FormatUint(uint64(t.OID), 10) + `), pg_catalog.pg_relation_size(` +
			strconv.FormatUint(uint64(t.OID), 10) + `) / pg_catalog.current_setting('block_size')::bigint`
	}
	defer func() {
		if _, e := conn.Exec(context.WithoutCancel(ctx), `rollback`).ReadAll(); err == nil && e != nil {
			err = fmt.Errorf("end the reading of %s.%s: %w", t.Schema, t.Name, e)
		}
	}()
	results, err := conn.Exec(ctx, begin).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("begin to read %s.%s: %w", t.Schema, t.Name, err)
	}
	state := results[len(results)-1].Rows[0]
	if string(state[1]) != strconv.FormatUint(uint64(t.OID), 10) {
		return nil, t.Exchanged()
	}
	if ok, err := shown(string(state[0])); err != nil || !ok {
		return nil, err
	}
	return read(state)
}

// Exchanged is the error for a table that has the name of the one whose snapshot is taken.
func (t *Table) Exchanged() error {
	return fmt.Errorf("%w of %s.%s any more: another table has its name now; ask for another one", ErrNoSnapshot, t.Schema, t.Name)
}

func (t *Table) readByKey(ctx context.Context, conn *pgconn.PgConn, after []string, limits ChunkLimits) (*ChunkRows, error) {
	names := make([]string, len(t.order))
	for i, k := range t.order {
		names[i] = "pgamqp_row." + pgx.Identifier{k.name}.Sanitize()
	}
	where := "true"
	if after != nil {
		if len(after) != len(t.order) {
			return nil, t.keyAltered()
		}
		where = behind(t.order, after)
	}
	keys := strings.Join(names, "::text, ") + "::text"
	out, exhausted, err := t.read(ctx, conn, t.from()+" pgamqp_row", keys, where, strings.Join(names, ", "), limits, len(t.order))
	if err == nil {
		out.End = exhausted && len(out.Rows) < limits.MaxRows
	}
	return out, err
}

// behind is the condition for rows behind a key.
func behind(order []keyColumn, after []string) string {
	first := order[0]
	if !slices.ContainsFunc(order, func(k keyColumn) bool { return k.operators != first.operators }) {
		columns, values := make([]string, len(order)), make([]string, len(order))
		for i, k := range order {
			columns[i], values[i] = k.column(), k.value(after[i])
		}
		return "row(" + strings.Join(columns, ", ") + ")" + first.operator(">") + "row(" + strings.Join(values, ", ") + ")"
	}
	// Rows are compared by operators of one schema only. The first condition is for the index.
	condition := "false"
	for i := len(order) - 1; i >= 0; i-- {
		k, value := order[i], order[i].value(after[i])
		condition = "(" + k.column() + k.operator(">") + value + " or " + k.column() + k.operator("=") + value + " and " + condition + ")"
	}
	return first.column() + first.operator(">=") + first.value(after[0]) + " and " + condition
}

// readByPlace reads by ctid, whose order is that of the table on disk. Rows that move behind what was
// read already are in the stream.
func (t *Table) readByPlace(ctx context.Context, conn *pgconn.PgConn, after []string, limits ChunkLimits, file string, size int64) (*ChunkRows, error) {
	from := "(0,0)"
	if len(after) == 2 && after[1] == file { // else it was rewritten: all places are others
		from = after[0]
	}
	var block, item int64
	if _, err := fmt.Sscanf(from, "(%d,%d)", &block, &item); err != nil {
		return nil, fmt.Errorf("read the place %q in %s.%s: %w", from, t.Schema, t.Name, err)
	}
	to := fmt.Sprintf("(%d,0)", block+blocks)
	where := "ctid operator(pg_catalog.>) " + sql.Literal(from) + "::pg_catalog.tid and ctid operator(pg_catalog.<) " + sql.Literal(to) + "::pg_catalog.tid"
	out, exhausted, err := t.read(ctx, conn, t.from()+" pgamqp_row", "ctid::text", where, "pgamqp_row.ctid", limits, 1)
	if err != nil {
		return nil, err
	}
	if exhausted && len(out.Rows) < limits.MaxRows {
		out.After, out.End = []string{to}, block+blocks >= size
	}
	out.After = append(out.After, file)
	return out, nil
}

// maxFetch bounds the rows that the server sends in vain when they are larger than those before.
const maxFetch = 128

// read fetches rows by a cursor until it has enough, and keeps no more. exhausted says that the query has no more.
func (t *Table) read(ctx context.Context, conn *pgconn.PgConn, from, keys, where, order string, limits ChunkLimits, keyColumns int) (out *ChunkRows, exhausted bool, err error) {
	columns := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		columns[i] = "pgamqp_row." + pgx.Identifier{c.Name}.Sanitize() + ", "
	}
	if t.filter != "" {
		where = "(" + t.filter + ") and " + where
	}
	query := fmt.Sprintf("declare pgamqp_chunk no scroll cursor for select %s%s from %s where %s order by %s limit %d",
		strings.Join(columns, ""), keys, from, where, order, limits.MaxRows)
	if _, err = conn.Exec(ctx, query).ReadAll(); err != nil {
		return nil, false, fmt.Errorf("read %s.%s: %w", t.Schema, t.Name, err)
	}
	out = &ChunkRows{}
	size := 0
	for fetch := 1; len(out.Rows) < limits.MaxRows && size < limits.MaxBytes; {
		found := 0
		results := conn.Exec(ctx, "fetch "+strconv.Itoa(fetch)+" from pgamqp_chunk")
		for results.NextResult() {
			for rows := results.ResultReader(); rows.NextRow(); found++ {
				if size < limits.MaxBytes {
					size += out.add(rows.Values(), keyColumns)
				}
			}
		}
		if err := results.Close(); err != nil {
			return nil, false, fmt.Errorf("read %s.%s: %w", t.Schema, t.Name, err)
		}
		if found < fetch && size < limits.MaxBytes {
			return out, true, nil
		}
		// As many as fit, if they are like those so far, of which there should be some for that.
		fetch = max(1, min(limits.MaxRows-len(out.Rows), 4*len(out.Rows), (limits.MaxBytes-size)/(size/max(1, len(out.Rows))+1), maxFetch))
	}
	return out, false, nil
}

// add takes a row, whose last values are its place, and returns its size. The values are the connection's.
func (c *ChunkRows) add(values [][]byte, keyColumns int) (size int) {
	last := len(values) - keyColumns
	row := make([][]byte, last)
	for i, value := range values[:last] {
		row[i] = bytes.Clone(value)
	}
	c.Rows = append(c.Rows, row)
	c.After = c.After[:0]
	for _, key := range values[last:] {
		c.After = append(c.After, string(key))
	}
	for _, value := range values {
		size += len(value)
	}
	return size
}

// from is the table for FROM and LOCK. What inherits from it is published under its own name.
func (t *Table) from() string {
	name := pgx.Identifier{t.Schema, t.Name}.Sanitize()
	if t.partitioned {
		return name
	}
	return "only " + name
}
