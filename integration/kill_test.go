package integration

import "testing"

func TestTwentyKillsUnderLoadLoseNothingAndRepeatOnlyWhatWasNotConfirmed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 2})
	h := w.history()
	random := newSeed(t)
	l := w.startLoad(restartLoad())
	var spans []span
	for kill := range 20 {
		d := w.launch()
		switch kill % 5 {
		case 3:
			d.waitLog("msg=listening")
		case 4:
			d.waitLog("msg=streaming")
		default:
			d.waitReady()
			l.waitCommits(1 + random.IntN(200))
		}
		d.kill()
		spans = append(spans, w.unconfirmed())
	}
	d := w.start()
	l.stop()
	ends := h.ends()
	for broker := 1; broker <= 2; broker++ {
		got := w.received(broker, loadQueue)
		c := compare(h.bodies(broker), got)
		c.wantComplete(t)
		checkRepeated(t, got, ends, spans)
		t.Logf("broker %d: %d messages, %d of them came again", broker, len(got), len(c.repeated))
	}
	h.checkLedger()
	w.checkLeftovers(d)
}
