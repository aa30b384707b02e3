package integration

import (
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// resettingPort is the port of a broker that hangs up on whoever says hello.
func resettingPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(c, make([]byte, len("AMQP0091")))
			_ = c.(*net.TCPConn).SetLinger(0) // or the other end could not tell it from a clean end
			_ = c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// A broker is down, which fails each heartbeat, too, and another one has no queue for a thousand messages: that is worth a few
// lines, and all dead letters are in them.
func TestO08WhatFailsAgainAndAgainIsAFewLines(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 2})
	w.exec(`update amqp.broker set port = $1 where broker_id = 2`, resettingPort(t))
	began := time.Now()
	d := w.start("--heartbeat-interval", "1s", "--detach-after", "0s")
	w.exec(`select amqp.publish(2, '', 'q', 'waits')`)
	const letters = 1000
	w.exec(`select amqp.publish(1, '', 'no queue', g::text) from generate_series(1, $1::int) g`, letters)
	await(t, time.Minute, "all are dead letters", func() bool { return w.deadLetters() == letters })
	await(t, time.Minute, "the status page shows the last ten of them", func() bool {
		_, page := d.get("/")
		return strings.Count(page, `<td class="text">dead letter; message id: `) == 10
	})
	await(t, time.Minute, "the broker that is down is tried 20 times", func() bool {
		return d.reading("pgamqp_broker_connects_total", `broker="2"`, `result="unreachable"`) >= 20
	})
	d.waitLog("heartbeat did not come through")
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	halfMinutes := 1 + int(time.Since(began)/(30*time.Second))
	for text, most := range map[string]int{
		"heartbeat did not come through": halfMinutes, "no connection to broker": halfMinutes, "dead letter": halfMinutes + 1, // one at the end
	} {
		if n := strings.Count(d.log.String(), `msg="`+text); n == 0 || n > most {
			t.Errorf("%q has %d lines, of at most %d", text, n, most)
		}
	}
	sum := 0
	for _, m := range regexp.MustCompile(`msg="dead letter".* count=(\d+)`).FindAllStringSubmatch(d.log.String(), -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	if sum != letters {
		t.Errorf("the lines are about %d dead letters, of %d", sum, letters)
	}
}
