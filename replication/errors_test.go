package replication

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgamqp/pgamqp/decoder"
)

func TestRetryable(t *testing.T) {
	pg := func(code string) error { return &pgconn.PgError{Severity: "ERROR", Code: code} }
	for _, c := range []struct {
		err  error
		want bool
	}{
		{io.ErrUnexpectedEOF, true},
		{errStreamEnded, true},
		{errServerStopping, true},
		{errSilent, true},
		{errors.New("unheard of"), true},
		{&SinkError{errors.New("ctx")}, true},
		{pg("57P01"), true},
		{pg("57P02"), true},
		{pg("57P03"), true},
		{pg("53300"), true},
		{pg("55006"), true},
		{pg("08006"), true},
		{pg("55000"), false},
		{pg("42501"), false},
		{pg("28000"), false},
		{pg("28P01"), false},
		{pg("3D000"), false},
		{pg("42602"), false},
		{pg("42704"), false},
		{pg("22023"), false},
		{pg("0A000"), false},
		{pg("XX000"), false},
		{&SlotError{Slot: "s"}, false},
		{&SlotError{Slot: "s", Cause: Gone}, false},
		{&HeldError{Slot: "s", PID: "7"}, true},
		{errStandby, true},
		{&OrderError{errors.New("back")}, false},
		{&decoder.FrameError{Reason: "short"}, false},
	} {
		for _, err := range []error{c.err, fmt.Errorf("around it: %w", c.err)} {
			if got := Retryable(err); got != c.want {
				t.Errorf("%v: %t, want %t", err, got, c.want)
			}
		}
	}
}

func TestServerErrorsSayWhatToDo(t *testing.T) {
	for code, want := range map[string]string{
		"42501": `alter role "o""brien" replication`,
		"28000": "pg_hba.conf",
		"28P01": "password",
		"3D000": "database name",
		"53300": "max_wal_senders",
		"55000": "wal_level = logical",
		"55006": "another process reads this slot",
		"XX000": "poisoned slot",
	} {
		cause := &pgconn.PgError{Code: code, Message: "as the server says"}
		err := explain(fmt.Errorf("start: %w", cause), `o"brien`)
		if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "as the server says") || !errors.Is(err, cause) {
			t.Errorf("%s: %v", code, err)
		}
	}
	for _, err := range []error{io.EOF, &pgconn.PgError{Code: "57P01"}} {
		if got := explain(err, "u"); !errors.Is(got, err) || got.Error() != err.Error() {
			t.Errorf("%v became %v", err, got)
		}
	}
}

func TestErrorsOfTheSinkAndOfPositionsCanBeAskedFor(t *testing.T) {
	cause := errors.New("cause")
	var sink *SinkError
	var positions *OrderError
	if err := fmt.Errorf("x: %w", &SinkError{cause}); !errors.As(err, &sink) || !errors.Is(err, cause) {
		t.Error(err)
	}
	if err := order(cause); !errors.As(err, &positions) || !errors.Is(err, cause) {
		t.Error(err)
	}
	if err := order(nil); err != nil {
		t.Error(err)
	}
}

func TestH10NamesAreQuoted(t *testing.T) {
	for in, want := range map[string]string{"p": `'"p"'`, `a"b'c`: `'"a""b''c"'`} {
		if got := quoteLiteral(quoteIdent(in)); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
