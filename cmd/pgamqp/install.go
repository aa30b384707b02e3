package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/config"
	"github.com/pgamqp/pgamqp/sql"
)

const installHelp = `Install pgamqp in a database, or upgrade it: the schema amqp with its functions
and tables, the publication, the replication slot and three roles to grant.

It may be repeated at any time. What is there stays: brokers, dead letters,
privileges. An amqp.broker table of the extension pg_amqp is taken over with its
rows ("pgamqp migrate" keeps its grants, and what was built on it, as well). What
cannot work is refused before anything is changed.

The server needs wal_level = logical. A superuser can do everything; another
role needs CREATE on the database and REPLICATION, and the report says what it
could not do. Creating the slot waits for the transactions that are writing now.

From then on the server keeps WAL until the daemon has read it: start
"pgamqp run" soon, or remove everything with "pgamqp uninstall".`

const installExample = `  pgamqp install --database-url postgres://postgres@localhost/shop
  PGHOST=db PGUSER=postgres PGDATABASE=shop pgamqp install --slot shop_amqp
  pgamqp install --print > pgamqp.sql    # to read it, or to run it with psql`

const installNext = `
Next:
  insert into amqp.broker (host, username, password) values ('rabbit.example.com', 'app', '...');
  grant pgamqp_publisher to ROLE;    -- for each role that is to publish
  pgamqp run
`

func newInstallCommand() *cobra.Command {
	var printSQL, asJSON bool
	cmd := &cobra.Command{
		Use:     "install",
		Short:   "Install pgamqp in a database, or upgrade it",
		Long:    installHelp,
		Example: installExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			slot, publication := namesAsked(settings)
			if printSQL {
				_, err := io.WriteString(cmd.OutOrStdout(), sql.Text(slot, publication))
				return err
			}
			return withDatabase(cmd.Context(), settings.DatabaseURL, func(conn *pgx.Conn) error {
				options := catalog.InstallOptions{Slot: slot, Publication: publication}
				report, err := catalog.Install(cmd.Context(), conn, options)
				// What was done before a failure is worth knowing most.
				if asJSON {
					listed(&report.Done, &report.Present, &report.Warnings)
					return errors.Join(err, printJSON(cmd.OutOrStdout(), report))
				}
				showInstall(cmd.OutOrStdout(), report, err == nil)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: what was done, what was there, and warnings")
	cmd.Flags().BoolVar(&printSQL, "print", false, "print the SQL and change nothing")
	addSettings(cmd, "database_url", "slot", "publication")
	return cmd
}

// namesAsked returns the names of slot and publication that somebody has asked for, "" for those that are only our
// default: an earlier installation may have chosen others.
func namesAsked(settings config.Loaded) (slot, publication string) {
	if settings.Origin("slot") != config.OriginDefault {
		slot = settings.Slot
	}
	if settings.Origin("publication") != config.OriginDefault {
		publication = settings.Publication
	}
	return slot, publication
}

func showInstall(w io.Writer, report catalog.InstallReport, complete bool) {
	showList(w, "done", report.Done)
	showList(w, "present", report.Present)
	showList(w, "warning", report.Warnings)
	if complete && len(report.Done) > 0 {
		_, _ = fmt.Fprint(w, installNext)
	}
}

// showList prints each sentence on a line, behind a word that says what kind it is.
func showList(w io.Writer, kind string, sentences []string) {
	for _, s := range sentences {
		_, _ = fmt.Fprintf(w, "%-8s %s\n", kind, s)
	}
}
