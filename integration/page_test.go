package integration

import (
	"bufio"
	"os/exec"
	"testing"
	"time"
)

// The browser of the tests; make setup installs it.
const browserProgram = "/usr/bin/chromium"

// TestStatusPageInABrowser looks at the status page as people do: on a desk and on a phone, light and dark, by
// keyboard, by the rules for those who cannot see, without scripts, and when the daemon goes away.
func TestStatusPageInABrowser(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 2})
	w.queue(1, "q")
	w.exec(`update amqp.broker set port = $1 where broker_id = 2`, closedPort(t))
	d := w.start("--detach-after", "1s")
	w.exec(`select amqp.publish(1, '', 'nowhere', 'unroutable')`)
	w.exec(`select amqp.publish(1, '', 'q', 'good')`)
	w.waitDelivered()
	w.exec(`select amqp.publish(2, '', 'q', 'waits')`)
	await(t, time.Minute, "broker 2 is detached", func() bool {
		w.exec(`select amqp.publish(1, '', 'q', 'more')`)
		return w.ownSlots() == 1
	})
	ctx := withDeadline(t, 3*time.Minute)
	check := exec.CommandContext(ctx, "node", "browser/check.mjs", "http://"+d.address()+"/", browserProgram)
	out, err := check.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	check.Stderr = check.Stdout
	if err := check.Start(); err != nil {
		t.Fatal(err)
	}
	opened := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() != "opened" {
			t.Error(lines.Text())
			continue
		}
		opened = true
		d.kill()
	}
	if err := check.Wait(); err != nil || !opened {
		t.Errorf("the check of the page ends early, or with %v", err)
	}
}
