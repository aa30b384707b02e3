package main

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgamqp/pgamqp/internal/config"
)

// addSettings gives a command the flag --config and a flag for each named setting, or for all.
func addSettings(cmd *cobra.Command, names ...string) {
	cmd.Flags().String("config", "", "read settings from a YAML `file` (environment PGAMQP_CONFIG)")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml") // fails only for a flag that does not exist
	for _, o := range config.Options() {
		if len(names) == 0 || slices.Contains(names, o.Name) {
			cmd.Flags().String(o.Flag, o.Default, o.Doc)
		}
	}
	cmd.Flags().SortFlags = false
}

// loadSettings reads file, environment and flags. Its errors lead to the exit code of a wrong configuration.
func loadSettings(cmd *cobra.Command) (config.Loaded, error) {
	in := config.Input{Environ: os.Environ(), Flags: make(map[string]string)}
	for _, o := range config.Options() {
		if f := cmd.Flags().Lookup(o.Flag); f != nil && f.Changed {
			in.Flags[o.Flag] = f.Value.String()
		}
	}
	if f := cmd.Flags().Lookup("config"); f != nil {
		in.File = f.Value.String()
	}
	loaded, err := config.Load(in)
	if err == nil {
		err = checkDatabaseURL(loaded.DatabaseURL)
	}
	if err != nil {
		return loaded, exitWith(exitUsage, fmt.Errorf("configuration:\n%w", err))
	}
	return loaded, nil
}

// checkDatabaseURL asks the driver whether it can read the connection string. The driver quotes what it cannot read,
// so the question is asked again with the passwords masked, and only that answer is shown.
func checkDatabaseURL(c config.ConnString) error {
	if _, err := pgx.ParseConfig(string(c)); err == nil {
		return nil
	}
	if _, err := pgx.ParseConfig(c.String()); err != nil {
		return fmt.Errorf("database_url: %w", err)
	}
	return errors.New("database_url: the password has a character that needs escaping: " +
		"%-encode it in a URL, put it in single quotes among keywords, or use PGPASSWORD or a password file")
}
