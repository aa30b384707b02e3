package main

import "github.com/spf13/cobra"

const configHelp = `Print the settings that "pgamqp run" would use, given the same file, environment
and flags. Each line says where its value comes from; passwords are masked. The
output is a valid configuration file, but for the passwords.

All mistakes are reported at once, with exit code 2.`

const configExample = `  pgamqp config
  pgamqp config --config /etc/pgamqp.yaml
  PGAMQP_WINDOW_BYTES=64MiB pgamqp config --slot orders`

func newConfigCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Check the settings and print the effective ones",
		Long:    configHelp,
		Example: configExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), settings.Effective())
			}
			return settings.WriteYAML(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: name, value and origin of each setting")
	addSettings(cmd)
	return cmd
}
