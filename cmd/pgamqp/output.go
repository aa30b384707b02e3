package main

import (
	"encoding/json"
	"io"
	"os"
)

// isTerminal tells whether w is a terminal, where a line can be overwritten.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// printJSON prints a value for scripts, and for people who look at what scripts get.
func printJSON(out io.Writer, value any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(value)
}
