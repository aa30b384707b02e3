package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/rows"
	"github.com/pgamqp/pgamqp/internal/tail"
)

const tailHelp = `Show messages as they pass, from now on: what applications publish when it
commits, and the messages that changes of rows become by their routes.

It reads the WAL by a temporary slot of its own, beside the daemon and whether one
runs or not. Nothing is consumed, nothing is confirmed, and the slot goes with the
connection. It needs a free replication slot and a role that may use it, begins when
the transactions that are writing have ended, and costs the server as much as the
daemon does: decoding all that is written.

It tells what is to be sent, not whether it arrived; see pgamqp status for that.`

const tailExample = `  pgamqp tail
  pgamqp tail --broker 1 --key 'orders.*'
  pgamqp tail --json --count 10 | jq -r .body`

// tailFilter is which messages are shown.
type tailFilter struct {
	broker   int32
	exchange *string
	key      *regexp.Regexp // nil for all
}

func (f *tailFilter) takes(e *decoder.Envelope) bool {
	return e.Kind == decoder.KindPublish && (f.broker == 0 || e.BrokerID == f.broker) &&
		(f.exchange == nil || e.Exchange == *f.exchange) && (f.key == nil || f.key.MatchString(e.RoutingKey))
}

func newTailCommand() *cobra.Command {
	var f tailFilter
	var exchange, key string
	var count, body int
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "tail",
		Short:   "Show messages as they pass, without consuming any",
		Long:    tailHelp,
		Example: tailExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			if count < 0 || body < 0 {
				return exitWith(exitUsage, errors.New("--count and --body: give a number that is not negative"))
			}
			if cmd.Flags().Changed("exchange") {
				f.exchange = &exchange
			}
			if key != "" {
				f.key = regexp.MustCompile(`^(?s:` + strings.ReplaceAll(regexp.QuoteMeta(key), `\*`, `.*`) + `)$`)
			}
			show := func(m *decoder.Message, e *decoder.Envelope) error {
				return showPassing(cmd.OutOrStdout(), colorsFor(cmd.OutOrStdout()), m, e, body)
			}
			if asJSON {
				lines := json.NewEncoder(cmd.OutOrStdout())
				show = func(m *decoder.Message, e *decoder.Envelope) error { return lines.Encode(passingOf(m, e)) }
			}
			return withDatabase(cmd.Context(), settings.DatabaseURL, func(conn *pgx.Conn) error {
				return watchPassing(cmd.Context(), conn, settings.Publication, f, count, show, cmd.ErrOrStderr())
			})
		},
	}
	flags := cmd.Flags()
	flags.Int32Var(&f.broker, "broker", 0, "only messages to the broker with this broker_id")
	flags.StringVar(&exchange, "exchange", "", `only messages to this exchange; "" is the default exchange`)
	flags.StringVar(&key, "key", "", "only messages whose routing key is like this `pattern`; * stands for any characters")
	flags.IntVar(&count, "count", 0, "end after so many messages; 0 is no limit")
	flags.IntVar(&body, "body", 120, "show so many characters of each body")
	flags.BoolVar(&asJSON, "json", false, "print a JSON object for each message, on a line, with the whole body")
	addSettings(cmd, "database_url", "publication")
	return cmd
}

var errEnough = errors.New("as many messages as were asked for")

// watchPassing shows messages until ctx ends or there were enough. conn answers the questions about routes and types.
func watchPassing(ctx context.Context, conn *pgx.Conn, publication string, f tailFilter, count int,
	show func(*decoder.Message, *decoder.Envelope) error, notes io.Writer,
) error {
	w := passing{ctx: ctx, conn: conn}
	origin := rows.Origin{Version: currentBuild().Version, Name: "tail", Database: conn.Config().Database}
	w.router = rows.NewRouter(rows.NewTypes(func(ctx context.Context, oid uint32) (*rows.Description, error) {
		t, err := catalog.ReadType(ctx, conn, oid)
		return rowDescription(t), err
	}), origin, time.Now)
	shown := 0
	err := tail.Run(ctx, tail.Options{
		Postgres: &conn.Config().Config, Publication: publication, Settings: rows.Settings(),
		Watching: func(from pglogrepl.LSN) error {
			fmt.Fprintf(notes, "watching from %s on\n", from)
			versions, err := rowVersions(ctx, conn, 0)
			if err != nil {
				return err
			}
			return w.router.Begin(from, versions)
		},
		Message: func(m *decoder.Message) error {
			messages, err := w.messages(m)
			for i := range messages {
				e, malformed := decoder.ParseEnvelope(messages[i].Content)
				if malformed != nil || !f.takes(&e) {
					continue // what is malformed is a dead letter, which says more
				}
				if err := show(&messages[i], &e); err != nil {
					return err
				}
				if shown++; shown == count {
					return errEnough
				}
			}
			return err
		},
	})
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == "53400" {
		return exitWith(exitPrecondition, fmt.Errorf("%w; drop a slot that nobody needs, or raise max_replication_slots", err))
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// passing turns what the stream brings into messages, as the daemon does.
type passing struct {
	ctx    context.Context //nolint:containedctx // lives as long as one call of watchPassing
	conn   *pgx.Conn
	router *rows.Router
}

func (w *passing) messages(m *decoder.Message) ([]decoder.Message, error) {
	if m.Change != nil || m.Prefix != decoder.Prefix {
		return w.router.Messages(w.ctx, m)
	}
	// Whether it is forged the daemon says; here its signature is only in the way.
	if new(decoder.Trust).Open(m) != nil {
		return nil, nil
	}
	e, err := decoder.ParseEnvelope(m.Content)
	if err != nil || e.Kind != decoder.KindRoutesChanged {
		return []decoder.Message{*m}, nil
	}
	versions, err := rowVersions(w.ctx, w.conn, m.XID)
	for _, v := range versions {
		if v.Announced == m.LSN {
			return nil, w.router.Use(v)
		}
	}
	return nil, err
}

// passingMessage is a message as --json prints it. Exactly one of the bodies is there.
type passingMessage struct {
	LSN        string          `json:"lsn"`
	MessageID  string          `json:"message_id"`
	CommitTime *time.Time      `json:"commit_time"` // null for autonomous messages
	XID        uint32          `json:"xid,omitempty"`
	Broker     int32           `json:"broker_id"`
	Exchange   string          `json:"exchange"`
	RoutingKey string          `json:"routing_key"`
	Headers    json.RawMessage `json:"headers,omitempty"`
	Properties json.RawMessage `json:"properties,omitempty"`
	Body       *string         `json:"body,omitempty"`
	BodyBase64 []byte          `json:"body_base64,omitempty"` // of what is not text
}

func passingOf(m *decoder.Message, e *decoder.Envelope) passingMessage {
	p := passingMessage{
		LSN: m.LSN.String(), MessageID: m.ID, XID: m.XID, Broker: e.BrokerID, Exchange: e.Exchange, RoutingKey: e.RoutingKey,
		Properties: describeProperties(e),
	}
	if e.MessageID != "" {
		p.MessageID = e.MessageID
	}
	if !m.CommitTime.IsZero() {
		at := m.CommitTime.UTC()
		p.CommitTime = &at
	}
	if json.Valid([]byte(e.Headers)) {
		p.Headers = json.RawMessage(e.Headers)
	}
	if utf8.Valid(e.Body) {
		body := string(e.Body)
		p.Body = &body
	} else {
		p.BodyBase64 = e.Body
	}
	return p
}

// showPassing prints a message on a line: what it is about, and less brightly what only describes it.
func showPassing(out io.Writer, c colors, m *decoder.Message, e *decoder.Envelope, most int) error {
	at := m.CommitTime
	if at.IsZero() {
		at = time.Now() // an autonomous one is seen at once
	}
	body := ""
	switch {
	case most == 0:
	case utf8.Valid(e.Body):
		body = short(printable(strings.TrimSpace(string(e.Body))), most)
	default:
		body = fmt.Sprintf("%x", e.Body[:min(len(e.Body), most/2)])
	}
	_, err := fmt.Fprintf(out, "%s  broker %d  %s  %s  %s  %s\n", c.paint(dim, at.Local().Format("15:04:05.000")+"  "+m.LSN.String()),
		e.BrokerID, exchangeName(&e.Exchange), printable(e.RoutingKey), c.paint(dim, fmt.Sprintf("%d B", len(e.Body))), body)
	return err
}
