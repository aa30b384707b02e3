package integration

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestTerminalGetsColors runs commands on a pseudo terminal, which script(1) makes.
func TestTerminalGetsColors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	onTerminal := func(environment, arguments string) string {
		t.Helper()
		line := fmt.Sprintf("env %s %s %s --database-url '%s'", environment, shared.program, arguments, w.url())
		cmd := exec.CommandContext(withDeadline(t, time.Minute), "script", "--quiet", "--command", line, "/dev/null")
		cmd.Env = cleanEnvironment()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		return string(out)
	}
	const red, yellow = "\x1b[31m", "\x1b[33m"
	status := "status --interval 100ms --slot missing --listen 127.0.0.1:1"
	for _, c := range []struct{ environment, arguments, want string }{
		{"TERM=xterm", status, red + "missing"},
		{"TERM=xterm", status, yellow + "not seen"},
		{"TERM=xterm", "dead-letters show 1", red + "pgamqp:"},
		{"TERM=xterm NO_COLOR=1", status, "missing"},
		{"TERM=dumb", status, "missing"},
		{"TERM=dumb", "dead-letters show 1", "pgamqp: no dead letter"},
	} {
		got := onTerminal(c.environment, c.arguments)
		if colored := strings.Contains(got, "\x1b"); !strings.Contains(got, c.want) || colored != strings.Contains(c.want, "\x1b") {
			t.Errorf("%s pgamqp %s prints\n%q\nwant %q", c.environment, c.arguments, got, c.want)
		}
	}
}
