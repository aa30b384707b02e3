package integration

import (
	"bufio"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"
)

// The browser of the tests; make setup installs it.
const browserProgram = "/usr/bin/chromium"

// screenshotFile names the environment variable with the file that a picture of the page goes to, if there is to be one.
const screenshotFile = "PGAMQP_TEST_SCREENSHOT"

// TestStatusPageInABrowser looks at the status page of a daemon that has lost a broker as people do: on a desk and on a phone,
// light and dark, by keyboard, by the rules for those who cannot see, without scripts, when the broker comes back, and when
// the daemon goes away.
func TestStatusPageInABrowser(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 3})
	w.queue(1, "q")
	w.queue(2, "q")
	w.queue(3, "q")
	w.exec(`update amqp.broker set port = $1 where broker_id = 2`, closedPort(t))
	d := w.start("--detach-after", "1s")
	w.exec(`select amqp.publish(1, '', 'nowhere', 'unroutable')`)
	w.exec(`select amqp.publish(b, '', 'q', 'good') from unnest(array[1, 3]) b`)
	w.waitDelivered()
	w.exec(`select amqp.publish(2, '', 'q', 'waits')`)
	await(t, time.Minute, "broker 2 is detached", func() bool {
		w.exec(`select amqp.publish(b, '', 'q', 'more') from unnest(array[1, 3]) b`)
		return w.ownSlots() == 1
	})
	await(t, time.Minute, "the daemon is not ready", func() bool {
		w.exec(`select amqp.publish(b, '', 'q', 'more') from unnest(array[1, 3]) b, generate_series(1, 100)`)
		code, _ := d.get("/readyz")
		return code != http.StatusOK
	})
	ctx := withDeadline(t, 4*time.Minute)
	args := []string{"browser/check.mjs", "http://" + d.address() + "/", browserProgram}
	if file := os.Getenv(screenshotFile); file != "" {
		args = append(args, file)
	}
	check := exec.CommandContext(ctx, "node", args...)
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
		switch lines.Text() {
		case "mend":
			w.exec(`update amqp.broker set port = $1 where broker_id = 2`, w.rabbit.Port())
		case "opened":
			opened = true
			d.kill()
		default:
			t.Error(lines.Text())
		}
	}
	if err := check.Wait(); err != nil || !opened {
		t.Errorf("the check of the page ends early, or with %v", err)
	}
}
