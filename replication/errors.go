package replication

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgamqp/pgamqp/decoder"
)

var (
	// errStreamEnded: the server stopped streaming without an error.
	errStreamEnded = errors.New("the server ended the stream")
	// errServerStopping: the server is shutting down and waits for confirmations
	// that cannot be given; holding on would keep it from ending (it waits without
	// limit).
	errServerStopping = errors.New("the server is shutting down")
	// errStandby: the server is in recovery. It may be promoted any moment, and in a
	// list of hosts it is the next one's turn.
	errStandby = errors.New("the server is a standby; waiting for its promotion (give the primary's address, or all hosts of the cluster)")
	// errSilent: nothing was received for so long that the connection must be dead.
	errSilent = errors.New("the server is silent")
)

// SinkError wraps an error of the Sink: the messages could not be handed over.
type SinkError struct{ Err error }

func (e *SinkError) Error() string { return "deliver: " + e.Err.Error() }
func (e *SinkError) Unwrap() error { return e.Err }

// Retryable tells whether a new session may succeed where this one failed with
// err. Unknown errors are: giving up stops everything, trying again is seen in the
// log and the metrics.
func Retryable(err error) bool {
	var slot *SlotError
	var frame *decoder.FrameError
	var order *OrderError
	if errors.As(err, &slot) || errors.As(err, &frame) || errors.As(err, &order) {
		return false
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return true
	}
	switch pg.Code {
	case "55000", // wrong state: wal_level, or a slot lost between check and start
		"42501", // no REPLICATION
		"28000", // pg_hba.conf
		"28P01", // password
		"3D000", // no such database
		"42602", // slot name
		undefinedObject,
		"22023", // option unknown
		"0A000", // protocol version
		"XX000": // poison record, unknown plugin option
		return false
	}
	return true
}

// loginRefused tells whether the server does not let us in.
func loginRefused(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "28000" || pg.Code == "28P01")
}

// OrderError says that positions went backwards or a report would have been
// wrong. It is never expected, and going on could lose messages.
type OrderError struct{ Err error }

func (e *OrderError) Error() string { return "positions: " + e.Err.Error() }
func (e *OrderError) Unwrap() error { return e.Err }

// explain adds to an error of the server what an operator can do about it.
func explain(err error, user string) error {
	var pg *pgconn.PgError
	var slot *SlotError
	if !errors.As(err, &pg) || errors.As(err, &slot) { // the latter says it better
		return err
	}
	var fix string
	switch pg.Code {
	case "42501":
		fix = fmt.Sprintf("allow it with: alter role %s replication", quoteIdent(user))
	case "28000":
		fix = "add a line for this database, user and address to pg_hba.conf (logical replication matches the database's name, not the word replication) and reload"
	case "28P01":
		fix = "correct the password in the database URL, PGPASSWORD or the password file"
	case "3D000":
		fix = "correct the database name in the database URL"
	case "53300":
		fix = "raise max_wal_senders (or max_connections) and restart PostgreSQL, or free one; trying again meanwhile"
	case "55000":
		fix = "if wal_level is meant: alter system set wal_level = logical, and restart PostgreSQL"
	case "55006":
		fix = "another process reads this slot; waiting for it to end"
	case "XX000":
		fix = "if the text speaks of an invalid memory alloc request: a record of 1 GB blocks the slot, see docs/operations.md, poisoned slot"
	default:
		return err
	}
	return fmt.Errorf("%w; %s", err, fix)
}

// undefinedObject is the SQLSTATE of a slot that is missing when streaming starts,
// and of a publication that is missing when a row is decoded.
const undefinedObject = "42704"

// hasCode tells whether the server refused with this SQLSTATE.
func hasCode(err error, code string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == code
}

func quoteLiteral(s string) string {
	return `'` + strings.ReplaceAll(s, `'`, `''`) + `'`
}

func quoteIdent(s string) string {
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}
