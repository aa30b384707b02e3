package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgamqp/pgamqp/internal/bench"
)

const benchHelp = `Measure how fast a PostgreSQL, a RabbitMQ and pgamqp are together, and what
limits them. Every figure stands beside its limit, measured in the same run:

  delivery  a backlog through pgamqp, against a loop that only publishes
  reading   the same without a broker, against a bare loop and pg_recvlogical
  latency   from the answer to COMMIT until a consumer has the message
  sql       a call of amqp.publish, against a bare pg_logical_emit_message
  tps       pgbench with and without a message, or a row in an outbox
  flat      cost of a message over sizes of the backlog and exchanges
  memory    the daemon's largest resident set, with large bodies too
  sweep     throughput and confirms over windows and sizes of transactions
  rows      delivery of changes of rows, against a loop that only publishes

Without URLs it starts private servers on free ports of 127.0.0.1. With them it
makes databases, a queue and exchanges there, named pgamqp_bench_..., and removes
them in the end; the role must be a superuser, or have CREATEDB and REPLICATION.
Expect some minutes of full load on both servers. URLs with passwords are better
given as PGAMQP_BENCH_DATABASE_URL and PGAMQP_BENCH_BROKER_URL.

Read ratios, which are made of runs of one round, rather than absolute figures.
Times in µs are CPU time for each message, of the process that is named.`

const benchExample = `  pgamqp bench
  pgamqp bench --messages 1000000 --runs 5 --queue classic,quorum --section delivery
  pgamqp bench --database-url postgres://postgres@db --broker-url amqp://rabbit/
  pgamqp bench --section sweep --plot sweep.svg --json sweep.json`

func newBenchCommand() *cobra.Command {
	var o bench.Options
	var json, plot string
	cmd := &cobra.Command{
		Use:     "bench",
		Short:   "Measure a pair of servers, and pgamqp between them",
		Long:    benchHelp,
		Example: benchExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Program, err = os.Executable(); err != nil {
				return fmt.Errorf("find the program itself: %w", err)
			}
			o.DatabaseURL = cmp.Or(o.DatabaseURL, os.Getenv("PGAMQP_BENCH_DATABASE_URL"))
			o.BrokerURL = cmp.Or(o.BrokerURL, os.Getenv("PGAMQP_BENCH_BROKER_URL"))
			o.Version, o.Out = currentBuild().Version, cmd.OutOrStdout()
			o.Progress = bench.NewProgress(cmd.ErrOrStderr(), isTerminal(cmd.ErrOrStderr()))
			for _, f := range []struct {
				path string
				to   *io.Writer
			}{{json, &o.JSON}, {plot, &o.Plot}} {
				if f.path == "" {
					continue
				}
				file, err := os.Create(f.path) // before an hour of work, not after it
				if err != nil {
					return exitWith(exitUsage, err)
				}
				defer func() { err = errors.Join(err, file.Close()) }()
				*f.to = file
			}
			if json == "/dev/stdout" {
				o.Out = nil
			}
			return bench.Run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.Sections, "section", bench.DefaultSections(), "what to measure: `list` of "+strings.Join(bench.SectionNames(), ", "))
	f.StringSliceVar(&o.Cases, "case", nil, "measure only cases whose names have one of a `list` of texts in them, and what they are compared with")
	f.IntVar(&o.Messages, "messages", 100_000, "`number` of messages in a backlog")
	f.IntVar(&o.Runs, "runs", 3, "`number` of times that each case is measured")
	f.IntVar(&o.Body, "body", 200, "size of a message in `bytes`")
	f.IntSliceVar(&o.Transactions, "transaction", []int{1, 1000, 0}, "`list` of sizes of transactions in messages; 0 is all in one")
	f.StringSliceVar(&o.Queues, "queue", []string{"classic"}, "`list` of queue types: classic, quorum, stream")
	f.IntSliceVar(&o.Rates, "rate", []int{100, 1000, 5000}, "`list` of messages a second at which latency is measured")
	f.DurationVar(&o.Time, "time", 5*time.Second, "how `long` each rate and each pgbench runs")
	f.BoolVar(&o.AllProperties, "all-properties", false, "give messages every property, and headers")
	f.IntVar(&o.Window, "window", 0, "window_messages of the daemon as a `number`; 0 is its default")
	f.StringVar(&o.DatabaseURL, "database-url", "", "`URL` of a PostgreSQL; without it a private one is started")
	f.StringVar(&o.BrokerURL, "broker-url", "", "`URL` of a RabbitMQ: amqp://user:password@host/vhost")
	f.IntVar(&o.BrokerPID, "broker-pid", 0, "process `id` of that RabbitMQ if it is on this machine, for its CPU time")
	f.IntVar(&o.PostgresVersion, "postgres", 0, "`version` of the private PostgreSQL; 0 is what the machine has")
	f.IntVar(&o.RabbitMQVersion, "rabbitmq", 0, "`version` of the private RabbitMQ: 3 or 4; 0 is what the machine has")
	f.BoolVar(&o.TLS, "tls", false, "use TLS to both private servers")
	f.BoolVar(&o.Socket, "socket", false, "reach the private PostgreSQL by its Unix socket")
	f.StringArrayVar(&o.Environment, "env", nil, "`NAME=value` in the environment of the daemon, for example GOGC=50; may be repeated")
	f.StringVar(&o.Other, "other", "", "another pgamqp, as the path of its `program`, whose delivery is measured beside")
	f.BoolVar(&o.Markdown, "markdown", false, "print the tables as Markdown")
	f.StringVar(&json, "json", "", "write all samples to a `file` as JSON; /dev/stdout instead of the tables")
	f.StringVar(&plot, "plot", "", "write charts of the sweep to a `file` as SVG")
	f.SortFlags = false
	cmd.AddCommand(&cobra.Command{
		Use:    "worker",
		Short:  "Run against one limit, as told by standard input",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return bench.RunWorker(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	})
	return cmd
}
