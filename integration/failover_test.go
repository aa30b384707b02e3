package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// pair is a primary with a physical standby that both run.
type pair struct {
	*world
	primary, standby *testserver.Postgres
}

const physicalSlot = "standby1"

// newCluster makes one whose primary has pgamqp installed. sync makes the standby
// synchronize failover slots.
func newPair(t *testing.T, version int, sync bool) *pair {
	t.Helper()
	primary := ownPostgres(t, testserver.PostgresOptions{Version: version})
	c := &pair{world: newWorld(t, worldOptions{postgres: primary}), primary: primary}
	o := testserver.StandbyOptions{Name: physicalSlot}
	if sync {
		o.Settings = map[string]string{"sync_replication_slots": "on"}
	}
	standby, err := primary.StartStandby(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the standby:\n%s", standby.LogTail())
		}
		if err := standby.Close(); err != nil {
			t.Error(err)
		}
	})
	c.standby = standby
	return c
}

// hosts is the address of the database with both hosts, the standby first.
func (c *pair) hosts(more string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/%s?sslmode=disable%s",
		c.standby.Port(), c.primary.Port(), c.database, more)
}

// onStandby is the world as the standby shows it.
func (c *pair) onStandby() *world {
	w := *c.world
	w.postgres = c.standby
	return &w
}

// awaitReplay waits until the standby has all that the primary has.
func (c *pair) awaitReplay() {
	c.t.Helper()
	end := value[string](c.world, `select pg_current_wal_lsn()::text`)
	await(c.t, startLimit, "the standby has replayed everything", func() bool {
		return value[bool](c.onStandby(), `select pg_last_wal_replay_lsn() >= $1::text::pg_lsn`, end)
	})
}

// failOver crashes the primary and promotes the standby, which the world is about from then on.
func (c *pair) failOver() {
	c.t.Helper()
	if err := c.primary.Stop(testserver.Immediate); err != nil {
		c.t.Fatal(err)
	}
	if err := c.standby.Promote(withDeadline(c.t, sqlLimit)); err != nil {
		c.t.Fatal(err)
	}
	c.postgres = c.standby
}

// publish publishes a message for each number, each in a transaction of its own.
func (c *pair) publish(from, to int) {
	c.t.Helper()
	c.exec(fmt.Sprintf(`do $$ begin for i in %d .. %d loop perform amqp.publish(1, '', 'q', 'good ' || i); commit; end loop; end $$`, from, to))
}

// Versions 17 and 18 keep copies of a failover slot on a standby.
func TestP46AndP47AndP48AndP50FailoverToASyncedSlotLosesNothing(t *testing.T) {
	t.Parallel()
	for version, attributes := range map[int]string{17: "&target_session_attrs=read-write", 18: ""} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			t.Parallel()
			c := newPair(t, version, true)
			c.queue(1, "q")
			c.exec(`alter system set synchronized_standby_slots = '` + physicalSlot + `'`)
			c.exec(`select pg_reload_conf()`)
			d := c.start("--database-url", c.hosts(attributes)) // passes over the standby
			c.publish(1, 100)
			c.waitDelivered()
			await(t, startLimit, "the slot is synced", func() bool {
				synced := query[bool](c.onStandby(), `select synced and not temporary from pg_replication_slots where slot_name = $1`, c.slot)
				return len(synced) == 1 && synced[0]
			})

			// A daemon that is given the standby alone waits for its promotion.
			waiting := c.onStandby().launch()
			waiting.waitLog("the server is a standby (it is in recovery); waiting for its promotion")
			waiting.wantAnswer("/readyz", http.StatusServiceUnavailable, `^not ready: replication is connecting`)
			waiting.wantAnswer("/healthz", http.StatusOK, `^alive`)

			// Nothing is sent that the standby could still lose.
			if err := c.standby.Stop(testserver.Fast); err != nil {
				t.Fatal(err)
			}
			c.publish(101, 110)
			if value[bool](c.world, `select amqp.wait_delivered("timeout" => '1s')`) {
				t.Error("delivered what the standby has not got")
			}
			if err := c.standby.Start(); err != nil {
				t.Fatal(err)
			}
			c.waitDelivered()

			c.breakBroker(d, 1)
			c.publish(111, 200)
			c.awaitReplay()
			c.failOver()
			c.mendBroker(1)
			c.publish(201, 300)
			got := c.received(1, "q")
			compare(good(300), got).wantComplete(t)
			for _, m := range got {
				var n int
				_, _ = fmt.Sscanf(string(m.Body), "good %d", &n)
				if want := map[bool]string{true: "-1-", false: "-2-"}[n <= 200]; !strings.Contains(m.MessageId, want) {
					t.Errorf("%s has the message_id %s, want the timeline in which it was written: %s", m.Body, m.MessageId, want)
				}
			}
			if !d.running() || d.metric("pgamqp_leader")+waiting.metric("pgamqp_leader") != 1 {
				t.Error("not one of the daemons works after the promotion")
			}
			leader(t, []*daemon{d, waiting})
		})
	}
}

// A failover slot that nobody has read from yet may not be on the standby in a form that
// outlives the promotion.
func TestP46SlotThatWasNeverSyncedIsGoneAfterThePromotion(t *testing.T) {
	t.Parallel()
	c := newPair(t, 17, true)
	c.exec(`select amqp.publish(1, '', 'q', 'a')`)
	await(t, startLimit, "the standby has tried to sync the slot", func() bool {
		temporary := query[bool](c.onStandby(), `select temporary from pg_replication_slots where slot_name = $1`, c.slot)
		return len(temporary) == 1 && temporary[0]
	})
	c.awaitReplay()
	c.failOver()
	c.refuseRun(exitSlotGone, nil, `slot "`+c.slot+`" does not exist, and did when pgamqp was installed; the WAL ends at [0-9A-F]+/[0-9A-F]+ on timeline 2`, `run "pgamqp install"`)
}

func TestP08AndP45PromotedStandbyWithoutTheSlotStopsTheDaemonWithTheGap(t *testing.T) {
	t.Parallel()
	c := newPair(t, shared.postgres.Version(), false)
	c.queue(1, "q")
	d := c.start("--database-url", c.hosts(""))
	c.publish(1, 10)
	compare(good(10), c.received(1, "q")).wantExact(t)
	c.awaitReplay()
	c.breakBroker(d, 1)
	confirmed := c.lsn(`select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1`, c.slot)
	c.publish(11, 20)
	c.failOver()
	d.ends(exitSlotGone, `does not exist any more; it was confirmed up to [0-9A-F]+/[0-9A-F]+ on timeline 1, the server's WAL ends at [0-9A-F]+/[0-9A-F]+ on timeline 2: a standby was promoted`)
	if said := d.said(`confirmed up to ([0-9A-F]+/[0-9A-F]+) on`); said < confirmed {
		t.Errorf("it says confirmed up to %s, and %s was before", said, confirmed)
	}
	c.refuseRun(exitSlotGone, []string{"--database-url", c.hosts("")}, `does not exist, and did when pgamqp was installed`, `on timeline 2`)

	// It goes on where the operator says, and skips nothing that is new, although less WAL
	// may be there than was confirmed on the old timeline.
	c.mendBroker(1)
	if code, out := pgamqp(t, "install", "--database-url", c.hosts(""), "--slot", c.slot); code != 0 {
		t.Fatalf("install: exit code %d\n%s", code, out)
	}
	c.start("--database-url", c.hosts(""))
	c.publish(21, 30)
	compare(good(30)[20:], c.received(1, "q")).wantExact(t)
}

// Another cluster with a slot of the same name behind the same address: its positions mean
// something else.
func TestP49OtherSystemBehindTheAddressStopsTheDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	other := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{}), bare: true})
	other.slot, other.database = w.slot, w.database
	if err := other.postgres.CreateDatabase(withDeadline(t, sqlLimit), w.database); err != nil {
		t.Fatal(err)
	}
	other.install()
	p := startProxy(t, fmt.Sprintf("127.0.0.1:%d", w.postgres.Port()))
	url := strings.Replace(w.url(), fmt.Sprint(":", w.postgres.Port()), fmt.Sprint(":", p.port()), 1)
	d := w.start("--database-url", url)
	const system = `select system_identifier::text from pg_control_system()`
	p.redirect(fmt.Sprintf("127.0.0.1:%d", other.postgres.Port()))
	d.ends(exitOtherSystem, fmt.Sprintf(`slot "%s" belonged to database system %s and was confirmed up to [0-9A-F]+/[0-9A-F]+; now system %s answers`,
		w.slot, value[string](w, system), value[string](other, system)))
	w.start("--database-url", url) // if that is what is meant
}
