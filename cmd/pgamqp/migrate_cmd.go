package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgamqp/pgamqp/internal/catalog"
)

const migrateHelp = `Put pgamqp in the place of the extension pg_amqp, or of its functions without the
extension. Calls of amqp.publish go on as they are written; what they do from
then on, and what differs, is in docs/migrate-from-pg_amqp.md.

It keeps the rows of amqp.broker (and gives tls, tls_ca, tls_cert and tls_key
what requiressl, ca, cert and key say), the grants on functions and tables, and
what was built on the functions: views, rules, functions, triggers, defaults,
checks, policies. What cannot be kept is named, and then nothing is changed.
PUBLIC may not execute the functions any more, unless --keep-public is given.

All that is one transaction. When it commits, calls reach pgamqp; what open
transactions have published before goes pg_amqp's way. It locks what it changes,
and gives up after waiting for 10 seconds, or for PostgreSQL's lock_timeout.
--dry-run does the same, prints it, and rolls it back.

--undo brings the functions of pg_amqp back, with what is built on them, as long
as its library is on the server. The daemon then delivers what is on its way, and
"pgamqp uninstall" removes the rest of pgamqp.`

const migrateExample = `  export PGHOST=localhost PGUSER=postgres PGDATABASE=shop
  pgamqp migrate --from-pg_amqp --dry-run
  pgamqp migrate --from-pg_amqp
  pgamqp migrate --undo`

func newMigrateCommand() *cobra.Command {
	var fromPgAMQP, undo, dryRun, asJSON, keepPublic bool
	cmd := &cobra.Command{
		Use:     "migrate",
		Short:   "Take over from the extension pg_amqp, or give back to it",
		Long:    migrateHelp,
		Example: migrateExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case fromPgAMQP == undo:
				return exitWith(exitUsage, errors.New("which way? Give --from-pg_amqp or --undo"))
			case undo && keepPublic:
				return exitWith(exitUsage, errors.New("--keep-public is for --from-pg_amqp; --undo brings back what was"))
			}
			settings, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			slot, publication := namesAsked(settings)
			return withDatabase(cmd.Context(), settings.DatabaseURL, func(conn *pgx.Conn) error {
				var report catalog.MigrateReport
				var err error
				if undo {
					report, err = catalog.UndoMigration(cmd.Context(), conn, dryRun)
				} else {
					options := catalog.MigrateOptions{Slot: slot, Publication: publication, KeepPublic: keepPublic, DryRun: dryRun}
					report, err = catalog.Migrate(cmd.Context(), conn, options)
				}
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(cmd.OutOrStdout(), report)
				}
				showMigration(cmd.OutOrStdout(), report, undo)
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&fromPgAMQP, "from-pg_amqp", false, "take over from pg_amqp")
	f.BoolVar(&undo, "undo", false, "bring the functions of pg_amqp back")
	f.BoolVar(&keepPublic, "keep-public", false, "let every role call the functions that every role could call")
	f.BoolVar(&dryRun, "dry-run", false, "print what would be done, and change nothing")
	f.BoolVar(&asJSON, "json", false, "print JSON, with all statements")
	addSettings(cmd, "database_url", "slot", "publication")
	return cmd
}

// migrationScript is every statement that was run.
func migrationScript(report catalog.MigrateReport) string {
	var b strings.Builder
	for _, s := range report.Statements {
		b.WriteString(s)
		if !strings.HasPrefix(s, "--") {
			b.WriteString(";")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func showMigration(w io.Writer, report catalog.MigrateReport, undo bool) {
	if report.DryRun {
		fmt.Fprintf(w, "%s-- nothing was changed; with the changes above:\n", migrationScript(report))
	}
	showList(w, "done", report.Done)
	showList(w, "present", report.Present)
	showList(w, "warning", report.Warnings)
	showList(w, "to do", report.ToDo)
	if !report.DryRun && !undo {
		fmt.Fprint(w, "\nNext:\n  pgamqp run\n")
	}
}
