package main

import (
	"strings"

	"github.com/spf13/cobra"
)

const rootHelp = `pgamqp publishes messages from PostgreSQL to RabbitMQ, transactionally.

A transaction calls amqp.publish(...); when it commits, the daemon reads the
message from the write-ahead log, publishes it and waits for the broker's
confirm. When it rolls back, nothing is sent. No committed message is lost;
after a failure some may arrive twice, with the same message_id.

Settings come from a YAML file (--config or PGAMQP_CONFIG), from PGAMQP_*
environment variables and from flags, in rising precedence. What the database
URL leaves out comes from PGHOST, PGUSER, PGPASSWORD and so on, as with psql.
Brokers are not settings: they are rows of the table amqp.broker.

` + exitCodeHelp

const rootExample = `  # once, in the database whose messages are to be published
  pgamqp install --database-url postgres://postgres@localhost/shop
  psql shop -c "insert into amqp.broker (host) values ('localhost')"

  # then, as a service
  pgamqp run --database-url postgres://postgres@localhost/shop`

// newRootCommand returns the whole command line.
func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "pgamqp",
		Short:         "Publish messages from PostgreSQL to RabbitMQ, transactionally",
		Long:          rootHelp,
		Example:       rootExample,
		Version:       currentBuild().Version,
		SilenceErrors: true, // run reports them
		SilenceUsage:  true, // a failure is not a question about usage
	}
	// Cobra does not wrap what it says of flags.
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", ".FlagUsagesWrapped 80"))
	root.AddCommand(
		newInstallCommand(),
		newMigrateCommand(),
		newRunCommand(),
		newConfigCommand(),
		newStatusCommand(),
		newDoctorCommand(),
		newHealthCommand(),
		newTailCommand(),
		newDeadLettersCommand(),
		newSnapshotCommand(),
		newUninstallCommand(),
		newVersionCommand(),
		newDemoCommand(),
		newBenchCommand(),
		newManCommand(),
	)
	return root
}
