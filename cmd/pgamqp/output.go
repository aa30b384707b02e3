package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// isTerminal tells whether w is a terminal, where a line can be overwritten: not if TERM is dumb.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
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

// listed makes lists that are empty lists in JSON, too.
func listed(lists ...*[]string) {
	for _, l := range lists {
		if *l == nil {
			*l = []string{}
		}
	}
}

// color is the number of a color of terminals. Each is written with two digits, so that cells of a table that are
// colored are all wider by the same, and stand below each other.
type color int

const (
	plain  color = 39 // the terminal's own
	dim    color = 2  // what is less important
	red    color = 31 // somebody must do something
	yellow color = 33 // it may become that
	green  color = 32
)

// colors tells whether to color.
type colors bool

// colorsFor says no if out is no terminal, or one that cannot, or somebody does not want it (NO_COLOR).
func colorsFor(out any) colors { return colors(isTerminal(out) && os.Getenv("NO_COLOR") == "") }

// paint colors a text. In a table all cells of a column must be painted, or none: the others with plain.
func (c colors) paint(with color, text string) string {
	if !c {
		return text
	}
	return fmt.Sprintf("\x1b[%02dm%s\x1b[0m", with, text)
}
