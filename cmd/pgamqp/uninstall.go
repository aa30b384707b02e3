package main

import (
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgamqp/pgamqp/internal/catalog"
)

const uninstallHelp = `Remove pgamqp from a database: the schema amqp with all brokers, the slot with
everything that was published and not delivered yet, the publication, and the
three roles if nobody has them.

It refuses while a daemon uses the slot, so stop "pgamqp run" first; and while
there are dead letters or objects that were built on the schema, unless --force
is given. After a refusal nothing has been changed.`

const uninstallExample = `  pgamqp uninstall --database-url postgres://postgres@localhost/shop
  pgamqp uninstall --database-url postgres://postgres@localhost/shop --force`

func newUninstallCommand() *cobra.Command {
	var force, asJSON bool
	cmd := &cobra.Command{
		Use:     "uninstall",
		Short:   "Remove pgamqp from a database",
		Long:    uninstallHelp,
		Example: uninstallExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			slot, publication := namesAsked(settings)
			return withDatabase(cmd.Context(), settings.DatabaseURL, func(conn *pgx.Conn) error {
				options := catalog.UninstallOptions{Slot: slot, Publication: publication, Force: force}
				report, err := catalog.Uninstall(cmd.Context(), conn, options)
				if asJSON {
					listed(&report.Removed, &report.Kept)
					return errors.Join(err, printJSON(cmd.OutOrStdout(), report))
				}
				showList(cmd.OutOrStdout(), "removed", report.Removed)
				showList(cmd.OutOrStdout(), "kept", report.Kept)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: what was removed, and what was kept")
	cmd.Flags().BoolVar(&force, "force", false, "drop dead letters, and what was built on the schema, as well")
	addSettings(cmd, "database_url", "slot", "publication")
	return cmd
}
