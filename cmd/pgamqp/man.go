package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newManCommand writes the manual pages, for packages. It is not listed.
func newManCommand() *cobra.Command {
	var folder string
	cmd := &cobra.Command{
		Use:     "man",
		Short:   "Write a manual page for each command",
		Example: "  pgamqp man --dir /usr/local/share/man/man1",
		Hidden:  true,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if folder == "" {
				return exitWith(exitUsage, errors.New("--dir: give the folder that they are written to"))
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // equal commands give equal pages
			header := &doc.GenManHeader{Title: "PGAMQP", Section: "1", Source: "pgamqp", Manual: "pgamqp"}
			if err := doc.GenManTree(root, header, folder); err != nil {
				return fmt.Errorf("write manual pages: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&folder, "dir", "", "write them to this `folder`")
	return cmd
}
