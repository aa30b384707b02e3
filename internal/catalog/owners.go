package catalog

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgamqp/pgamqp/sql"
)

// checkOwners refuses to look into a schema amqp in which something of others could run with our rights. It comes before
// everything that reads from there: reading a view is enough.
func checkOwners(ctx context.Context, conn *pgx.Conn, action string) error {
	_, err := conn.Exec(ctx, sql.Owners().Text)
	var refused *pgconn.PgError
	if asPgError(err, &refused) && refused.Code == codeInsufficientPrivilege && refused.Hint != "" {
		return &ProblemsError{Action: action, Problems: []Problem{{What: refused.Message, Fix: refused.Hint}}}
	}
	if err != nil {
		return fmt.Errorf("look whose schema amqp is: %w", describe(err))
	}
	return nil
}
