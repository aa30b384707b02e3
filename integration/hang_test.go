package integration

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
)

// watchForHang ends the run a little before `go test` would, whose report of a hang has the stacks of all goroutines
// behind the names of the tests: of a long output often the end only is kept. This one has the goroutines of the
// tests alone.
func watchForHang() {
	const before = 30 * time.Second
	limit, _ := flag.Lookup("test.timeout").Value.(flag.Getter).Get().(time.Duration)
	if limit > before {
		time.AfterFunc(limit-before, func() {
			fmt.Fprintf(os.Stderr, "The tests hang: after %s these goroutines of theirs are left.\n\n", limit-before)
			stacks := make([]byte, 64<<20)
			writeHung(os.Stderr, stacks[:runtime.Stack(stacks, true)])
			os.Exit(1)
		})
	}
}

// writeHung writes of all goroutines those that run what is in this package and do not only wait for their turn or for
// the tests.
func writeHung(to io.Writer, stacks []byte) {
	for stack := range bytes.SplitSeq(stacks, []byte("\n\n")) {
		text := string(stack)
		if strings.Contains(text, "/integration.") && !strings.Contains(text, "testing.(*T).Parallel") && !strings.Contains(text, "integration.TestMain(") {
			fmt.Fprintf(to, "%s\n\n", text)
		}
	}
}
