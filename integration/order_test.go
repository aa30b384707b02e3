package integration

import "testing"

func TestP37OrderOfArrivalIsOrderOfCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 2})
	h := w.history()
	d := w.start()
	l := w.startLoad(loadOptions{sessions: 8, transactions: 150})
	l.wait()
	committed, rolledBack, _ := l.counts()
	if committed < 300 || rolledBack < 100 {
		t.Errorf("the load has committed %d and rolled back %d transactions: too few to mean anything", committed, rolledBack)
	}
	for broker := 1; broker <= 2; broker++ {
		c := h.compare(broker, loadQueue)
		c.wantExact(t)
		t.Logf("broker %d: %d messages", broker, c.came)
	}
	if n := d.metric("pgamqp_dropped_duplicates_total"); n != 0 {
		t.Errorf("%v duplicates were dropped although nothing was sent twice", n)
	}
}
