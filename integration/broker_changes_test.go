package integration

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// closeConnections makes the broker close the daemon's connections to broker 1, as an administrator
// would, and returns how many there were.
func (w *world) closeConnections() int {
	w.t.Helper()
	ctx := withDeadline(w.t, sqlLimit)
	closed := 0
	await(w.t, startLimit, "the broker lists the daemon's connection", func() bool { // a new one takes a while
		all, err := w.rabbit.Connections(ctx)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, c := range all {
			if c.VHost != w.vhosts[0] || c.Properties["connection_name"] != "pgamqp "+w.slot {
				continue
			}
			if err := w.rabbit.CloseConnection(ctx, c.Name); err == nil { // it may be an old one, gone
				closed++
			}
		}
		return closed > 0
	})
	return closed
}

func TestR18ConnectionsThatTheBrokerClosesAreMadeAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 2})
	h := w.history()
	d := w.start("--window-messages", fmt.Sprint(faultWindow))
	l := w.startLoad(restartLoad())
	l.waitCommits(50)
	goroutines := d.metric("go_goroutines")
	const times = 3
	for range times {
		waitCaughtUp(d)
		l.waitCommits(50)
		connects := func(broker int) float64 {
			return d.metric("pgamqp_broker_connects_total", fmt.Sprintf(`broker="%d"`, broker), `result="ok"`)
		}
		first, second := connects(1), connects(2)
		for _, vhost := range w.vhosts {
			if _, err := w.rabbit.Ctl(withDeadline(t, sqlLimit), "close_all_connections", "--vhost", vhost, "test of faults"); err != nil {
				t.Fatal(err)
			}
		}
		closed := time.Now()
		await(t, recoverLimit, "both brokers are connected again", func() bool { return connects(1) > first && connects(2) > second })
		// Only now: a confirm may have been under way when the connection was closed.
		d.wantRecovery("close_all_connections", closed, d.confirmed(`broker="1"`), `broker="1"`)
	}
	l.stop()
	for broker := 1; broker <= 2; broker++ {
		c := h.compare(broker, loadQueue)
		c.wantRepeatedAtMost(t, times*faultWindow)
		t.Logf("broker %d: %d messages, %d of them came again", broker, c.came, len(c.repeated))
	}
	h.checkLedger()
	if n := w.deadLetters(); n > 0 {
		t.Errorf("%d dead letters", n)
	}
	w.checkLeftovers(d)
	checkGoroutines(t, d, goroutines)
}

func TestR01ExchangeThatIsDeletedUnderLoadLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.exchange(1, "e", false, "q")
	d := w.start("--window-messages", fmt.Sprint(faultWindow))
	l := w.startTrickle("e", "")
	l.waitCommits(100)
	goroutines := d.metric("go_goroutines")
	if err := w.rabbit.DeleteExchange(withDeadline(t, sqlLimit), w.vhosts[0], "e"); err != nil {
		t.Fatal(err)
	}
	await(t, startLimit, "the first dead letter", func() bool { return w.deadLetters() > 0 })
	l.waitCommits(100)
	// What was not judged before the exchange is back goes there.
	await(t, startLimit, "100 dead letters", func() bool { return w.deadLetters() >= 100 })
	before := d.confirmed()
	w.exchange(1, "e", false, "q")
	d.wantRecovery("exchange deleted", time.Now(), before)
	n := l.stop()
	w.wantNoneLost(n, "q")
	w.checkLeftovers(d)
	checkGoroutines(t, d, goroutines)
}

// What a queue holds goes with it, and RabbitMQ confirms what arrives while it goes: a consumer
// takes the messages out at once, and those of this moment may be missing.
func TestR04QueueThatIsDeletedUnderLoadLosesNothingThatComesAfterwards(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	d := w.start("--window-messages", fmt.Sprint(faultWindow))
	first := w.consume(1, "q")
	l := w.startTrickle("", "q")
	l.waitCommits(100)
	goroutines := d.metric("go_goroutines")
	if err := w.rabbit.DeleteQueue(withDeadline(t, sqlLimit), w.vhosts[0], "q"); err != nil {
		t.Fatal(err)
	}
	await(t, startLimit, "the first dead letter", func() bool { return w.deadLetters() > 0 })
	l.waitCommits(100)
	before := d.confirmed()
	w.queue(1, "q")
	d.wantRecovery("queue deleted", time.Now(), before)
	n := l.stop()

	var got []amqp.Delivery
	for delivery := range first.deliveries { // closed by the end of the queue
		got = append(got, delivery)
	}
	got = append(got, w.received(1, "q")...)
	missing := unseen(n, got)
	dead := 0
	for _, l := range w.letters() {
		delete(missing, string(l.Body))
		dead++
		if l.Reason != "unroutable" {
			t.Errorf("a dead letter is %s, want unroutable", l.Reason)
		}
	}
	if !consecutive(missing) {
		t.Errorf("of %d messages more than those of one moment are neither delivered nor dead letters: %v", n, missing)
	}
	t.Logf("%d messages, %d dead letters, gone with the queue: %v", n, dead, missing)
	w.exec(`select amqp.redeliver_all()`)
	if again := w.received(1, "q"); len(again) != dead {
		t.Errorf("%d messages came after the redelivery of %d dead letters", len(again), dead)
	}
	w.checkLeftovers(d)
	checkGoroutines(t, d, goroutines)
}

// consecutive tells whether the numbers at the end of names follow each other without a gap.
func consecutive(names map[string]bool) bool {
	lowest, highest := math.MaxInt, 0
	for name := range names {
		n, err := strconv.Atoi(name[strings.LastIndexByte(name, ' ')+1:])
		if err != nil {
			return false
		}
		lowest, highest = min(lowest, n), max(highest, n)
	}
	return len(names) == 0 || highest-lowest+1 == len(names)
}

// The broker asks once a channel who may write, so that a revocation shows with the next connection.
func TestR02PermissionThatIsRevokedUnderLoadLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	user := w.limitedUser(".*")
	d := w.start("--window-messages", fmt.Sprint(faultWindow))
	l := w.startTrickle("", "q")
	l.waitCommits(100)
	goroutines := d.metric("go_goroutines")
	w.allow(user, "")
	w.closeConnections()
	await(t, startLimit, "the first dead letter", func() bool { return w.deadLetters() > 0 })
	l.waitCommits(100)
	for _, l := range w.letters() {
		if l.Reason != "access_refused" || l.Code == nil || *l.Code != 403 || !strings.Contains(*l.Text, "ACCESS_REFUSED") {
			t.Fatalf("a dead letter is %+v", l)
		}
	}
	before := d.confirmed()
	w.allow(user, ".*")
	d.wantRecovery("permission revoked", time.Now(), before)
	n := l.stop()
	w.wantNoneLost(n, "q")
	w.checkLeftovers(d)
	checkGoroutines(t, d, goroutines)
}

// A password that has changed at the broker concerns the next login. Until amqp.broker says it, too,
// messages wait.
func TestR18ExpiredPasswordIsWaitedFor(t *testing.T) {
	t.Parallel()
	for name, window := range map[string]int{
		"the daemon reads on": 2048,
		// The news of the change stands behind messages that wait for room: the table is read once a second then.
		"the window is full": faultWindow,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testExpiredPassword(t, window)
		})
	}
}

func testExpiredPassword(t *testing.T, window int) {
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	h := w.history()
	user := w.limitedUser(".*")
	d := w.start("--window-messages", fmt.Sprint(window))
	l := w.startTrickle("", "q")
	l.waitCommits(100)
	goroutines := d.metric("go_goroutines")
	if err := w.rabbit.AddUser(withDeadline(t, sqlLimit), user, changedPassword, ""); err != nil {
		t.Fatal(err)
	}
	before := d.confirmed()
	await(t, startLimit, "the connection works on", func() bool { return d.confirmed() > before+20 })
	w.closeConnections()
	await(t, startLimit, "the login is refused", func() bool { return d.reading("pgamqp_broker_connects_total", `result="denied"`) > 0 })
	if window == faultWindow {
		l.waitCommits(faultWindow + 1)
	}
	before = d.confirmed()
	w.exec(`update amqp.broker set password = $1 where broker_id = 1`, changedPassword)
	d.wantRecovery("password expired", time.Now(), before)
	l.stop()
	h.compare(1, "q").wantRepeatedAtMost(t, window)
	if n := w.deadLetters(); n > 0 {
		t.Errorf("%d dead letters", n)
	}
	w.checkLeftovers(d)
	checkGoroutines(t, d, goroutines)
}

// A user who is deleted loses his connections at once. The daemon asks again until he is back.
func TestR18DeletedUserIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	h := w.history()
	user := w.limitedUser(".*")
	d := w.start()
	l := w.startTrickle("", "q")
	l.waitCommits(50)
	ctx := withDeadline(t, sqlLimit)
	if err := w.rabbit.API(ctx, http.MethodDelete, "/users/"+user, nil, nil); err != nil {
		t.Fatal(err)
	}
	await(t, startLimit, "the login is refused", func() bool { return d.reading("pgamqp_broker_connects_total", `result="denied"`) > 0 })
	before := d.confirmed()
	if err := w.rabbit.AddUser(ctx, user, userPassword, ""); err != nil {
		t.Fatal(err)
	}
	w.allow(user, ".*")
	await(t, startLimit, "messages are delivered again", func() bool { return d.confirmed() > before })
	l.stop()
	h.compare(1, "q").wantComplete(t)
	if n := w.deadLetters(); n > 0 {
		t.Errorf("%d dead letters", n)
	}
	w.checkLeftovers(d)
}
