package catalog

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// changes runs the statements of a migration and remembers them, so that a dry run can show what it has tried.
type changes struct {
	tx         pgx.Tx
	statements []string
}

// settle makes definitions come out of PostgreSQL in a form that means the same when they are read again, and keeps the
// migration from making all others wait behind a lock that it does not get.
func (c *changes) settle(ctx context.Context) error {
	_, err := c.tx.Exec(ctx, `
		set local search_path = pg_catalog, pg_temp;
		set local datestyle = 'ISO';
		set local intervalstyle = 'postgres';
		set local extra_float_digits = 3;
		set local quote_all_identifiers = off;
		set local transform_null_equals = off;
		set local check_function_bodies = on;
		select set_config('lock_timeout', '10s', true) where current_setting('lock_timeout') = '0'`)
	return err
}

// exec runs a statement and remembers it.
func (c *changes) exec(ctx context.Context, statement string) error {
	c.statements = append(c.statements, statement)
	if _, err := c.tx.Exec(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", firstLine(statement), describe(err))
	}
	return nil
}

// all is exec for several statements.
func (c *changes) all(ctx context.Context, statements []string) error {
	for _, s := range statements {
		if err := c.exec(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// list runs a query that yields one column of text.
func (c *changes) list(ctx context.Context, query string, args ...any) ([]string, error) {
	rows, err := c.tx.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// oids runs a query that yields object ids.
func (c *changes) oids(ctx context.Context, query string) ([]uint32, error) {
	rows, err := c.tx.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[uint32])
}

// generate runs the statements that a query yields.
func (c *changes) generate(ctx context.Context, query string, args ...any) error {
	statements, err := c.list(ctx, query, args...)
	if err != nil {
		return err
	}
	return c.all(ctx, statements)
}

// swap loosens what depends on functions, lets replace drop them and make others of the same names, and brings back what
// was loosened. definition may choose other statements than those that were read. What cannot be brought back is named
// as a whole.
func (c *changes) swap(ctx context.Context, action string, functions []uint32, replace func() error,
	definition func(dependent) []string,
) ([]dependent, error) {
	dependents, err := readDependents(ctx, c.tx, functions)
	if err != nil {
		return nil, err
	}
	var found problems
	for _, d := range dependents {
		if d.Problem != "" {
			found.add(fmt.Sprintf("%s cannot be kept: %s", d.Name, d.Problem), d.Fix)
		}
	}
	if err := found.err(action); err != nil {
		return dependents, err
	}
	for _, d := range dependents {
		if err := c.all(ctx, d.Stub); err != nil {
			return dependents, fmt.Errorf("%s: %w", d.Name, err)
		}
	}
	if err := replace(); err != nil {
		return dependents, err
	}
	for _, d := range dependents {
		err := pgx.BeginFunc(ctx, c.tx, func(tx pgx.Tx) error { // a savepoint
			inner := changes{tx: tx}
			err := inner.all(ctx, definition(d))
			c.statements = append(c.statements, inner.statements...)
			return err
		})
		var refused *pgconn.PgError
		switch {
		case err == nil:
		case asPgError(err, &refused) && refused.Code[:2] == "42": // it does not fit the new functions
			found.add(fmt.Sprintf("%s does not work with the new functions: %s", d.Name, oneLine(describe(refused).Error())),
				"change it, or drop it and create it again afterwards")
		default:
			return dependents, fmt.Errorf("%s: %w", d.Name, err)
		}
	}
	return dependents, found.err(action)
}

// asPgError tells whether an error came from the server, and which.
func asPgError(err error, into **pgconn.PgError) bool { return errors.As(err, into) }

func firstLine(s string) string {
	first, _, more := strings.Cut(s, "\n")
	if more {
		first += " ..."
	}
	return first
}
