package integration

import (
	"slices"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	amqp "github.com/rabbitmq/amqp091-go"
)

// checkedRound is a round in which all went well: a is dead at first and comes when it is redelivered, b and c
// come in order, d is a dead letter and stays one. The slot says so at three moments.
func checkedRound() *round {
	load := place{1, loadQueue}
	began := time.Unix(0, 0)
	at := func(second int) time.Time { return began.Add(time.Duration(second) * time.Second) }
	sampled := func(second int, main pglogrepl.LSN, buried int64) sample {
		return sample{began: at(second), ended: at(second), main: main, written: main + 100, buried: buried}
	}
	sent := func(name string, end pglogrepl.LSN, to place) emission {
		return emission{name: name, hash: hashOf(name), lsn: end, end: end, to: to}
	}
	mark := func(n string) amqp.Delivery { return amqp.Delivery{Type: "mark " + n} }
	came := func(name, id string) amqp.Delivery { return amqp.Delivery{Body: []byte(name), MessageId: id} }
	return &round{
		emissions: []emission{sent("a", 10, load), sent("b", 20, load), sent("c", 30, load), sent("d", 40, place{broker: 1}), sent("a", 50, load)},
		came: map[place][]amqp.Delivery{load: {
			mark("7"), came("b", "2"), came("c", "3"), mark("8"), came("a", "1"), mark("9"),
		}},
		buried:   map[pglogrepl.LSN]int64{10: 1, 40: 2},
		letters:  map[string]bool{"d": true},
		samples:  []sample{sampled(1, 10, 1), sampled(2, 40, 2), sampled(3, 60, 2)},
		first:    7,
		troubles: []trouble{{began: at(2), ended: at(2), times: 1, from: 15}},
	}
}

func TestCheckerOfFaultRunsFindsEveryDifference(t *testing.T) {
	t.Parallel()
	load := place{1, loadQueue}
	again := func(i int) func(*round) {
		return func(r *round) { r.came[load] = append(r.came[load], r.came[load][i]) }
	}
	for _, c := range []struct {
		name   string
		change func(*round)
		want   []string
	}{
		{"all is well", func(*round) {}, nil},
		{"c is lost", func(r *round) { r.came[load] = slices.Delete(r.came[load], 2, 3) }, []string{wasLost, wasAhead}},
		{"c is lost, and no slot says that it is not", func(r *round) {
			r.came[load] = slices.Delete(r.came[load], 2, 3)
			r.samples[1].main, r.samples[2].main = 29, 29
		}, []string{wasLost}},
		{"d is lost", func(r *round) { delete(r.letters, "d"); delete(r.buried, 40) }, []string{wasLost, wasAhead}},
		{"d was buried after the slot had moved", func(r *round) { r.samples[1].buried = 1 }, []string{wasAhead}},
		{"c came after the slot had moved", func(r *round) { r.came[load][2], r.came[load][3] = r.came[load][3], r.came[load][2] }, []string{wasAhead}},
		{"c came later, and the slot of its broker waited", func(r *round) {
			r.came[load][2], r.came[load][3] = r.came[load][3], r.came[load][2]
			r.samples[1].lanes = map[int]pglogrepl.LSN{1: 20}
		}, nil},
		{"e was never committed", func(r *round) { r.came[load] = append(r.came[load], amqp.Delivery{Body: []byte("e"), MessageId: "5"}) }, []string{wasPhantom}},
		{"a dead letter was never committed", func(r *round) { r.letters["e"] = true }, []string{wasPhantom}},
		{"b is another", func(r *round) { r.came[load][1].Body = []byte("b, changed") }, []string{wasPhantom, wasLost, wasAhead}},
		{"b is changed", func(r *round) { r.came[load][1].Body = []byte("b changed") }, []string{wasChanged, wasLost, wasAhead}},
		{"b came to another broker", func(r *round) {
			r.came[place{2, loadQueue}] = r.came[load][1:2]
			r.came[load] = slices.Delete(slices.Clone(r.came[load]), 1, 2)
		}, []string{wasChanged, wasLost, wasAhead}},
		{"b and c are turned around", func(r *round) { r.came[load][1], r.came[load][2] = r.came[load][2], r.came[load][1] }, []string{wasMisplaced}},
		{"b and c are turned around by a node that was killed", func(r *round) {
			r.came[load][1], r.came[load][2] = r.came[load][2], r.came[load][1]
			r.troubles = append(r.troubles, trouble{began: time.Unix(2, 0), ended: time.Unix(2, 0), from: 5, crashed: []int{1}})
		}, nil},
		{"b and c are turned around, and another node was killed", func(r *round) {
			r.came[load][1], r.came[load][2] = r.came[load][2], r.came[load][1]
			r.troubles = append(r.troubles, trouble{began: time.Unix(2, 0), ended: time.Unix(2, 0), from: 5, crashed: []int{2}})
		}, []string{wasMisplaced}},
		{"b and c are turned around in a quorum queue of a node that was killed", func(r *round) {
			quorum := place{2, loadQueue}
			for i := range r.emissions {
				r.emissions[i].to = quorum
			}
			r.came = map[place][]amqp.Delivery{quorum: r.came[load]}
			r.came[quorum][1], r.came[quorum][2] = r.came[quorum][2], r.came[quorum][1]
			r.troubles = append(r.troubles, trouble{began: time.Unix(2, 0), ended: time.Unix(2, 0), from: 5, crashed: []int{2}})
		}, []string{wasMisplaced}},
		{"c came again in a time of trouble", again(2), nil},
		{"c came twice again", func(r *round) { again(2)(r); again(2)(r) }, []string{wasRepeated}},
		{"b came again without a reason", func(r *round) {
			again(1)(r)
			r.troubles[0].from, r.samples[0].main = 25, 25
			r.came[load] = r.came[load][1:]
		}, []string{wasRepeated}},
		{"b and c have one id", func(r *round) { r.came[load][1].MessageId = "3" }, []string{wasShared}},
		{"c came again under another id", func(r *round) { again(2)(r); r.came[load][6].MessageId = "4" }, []string{wasRenamed}},
	} {
		r, k := checkedRound(), newChecker()
		c.change(r)
		k.judge(r)
		got := make([]string, 0, len(k.complaints))
		for kind := range k.complaints {
			got = append(got, kind)
		}
		slices.Sort(got)
		slices.Sort(c.want)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: it complains of %q, want %q\n%s", c.name, got, c.want, k.report())
		}
	}
}
