// Licenses lists the modules that are linked into the program with their licenses, and their texts for packages.
//
//	go run ./internal/licenses page   docs/licenses.md, see `make licenses`
//	go run ./internal/licenses texts  licenses.txt of packages
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "licenses:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) != 1 || args[0] != "page" && args[0] != "texts" {
		return errors.New("usage: licenses page|texts")
	}
	all, err := collect()
	if err != nil {
		return err
	}
	text := page(all)
	if args[0] == "texts" {
		text = texts(all)
	}
	_, err = io.WriteString(out, text)
	return err
}
