package catalog

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs that mean something to us.
const (
	codeDuplicateObject       = "42710"
	codeDependentObjects      = "2BP01"
	codeInsufficientPrivilege = "42501"
	codeUniqueViolation       = "23505"
	codeObjectInUse           = "55006"
	codeUndefinedObject       = "42704"
	codeTooManySlots          = "53400"
	codeInvalidName           = "42602"
	codeTooManyConnections    = "53300"
	codeInvalidAuthorization  = "28000"
)

// hasCode tells whether an error came from the server with this SQLSTATE.
func hasCode(err error, code string) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == code
}

// describe adds the server's detail and hint, which pgconn keeps out of its text.
func describe(err error) error {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Detail != "" && e.Hint != "":
		return fmt.Errorf("%w: %s (hint: %s)", err, e.Detail, e.Hint)
	case e.Detail != "":
		return fmt.Errorf("%w: %s", err, e.Detail)
	case e.Hint != "":
		return fmt.Errorf("%w (hint: %s)", err, e.Hint)
	}
	return err
}
