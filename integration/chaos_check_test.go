package integration

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	amqp "github.com/rabbitmq/amqp091-go"
)

// message is what the checker remembers of one, over all rounds.
type message struct {
	hash uint64
	to   place
	ends []pglogrepl.LSN // of the units of its emissions
	id   string          // once it has come
	came int
	dead bool // was a dead letter at some time, so that its place in the order is another
	seen int  // the round in which it was last emitted or came
}

// round is all that is known when everything is delivered.
type round struct {
	emissions []emission // what was committed in it, in order
	came      map[place][]amqp.Delivery
	buried    map[pglogrepl.LSN]int64
	letters   map[string]bool // dead letters that are left
	samples   []sample        // a mark in came is named after the index of one, plus firstSample
	first     int
	troubles  []trouble

	emitted map[string]int // how often each message is among the emissions
	spans   []span         // of the troubles
}

// trouble is a time in which a message without a verdict may have been sent again, so often.
type trouble struct {
	began, ended time.Time
	times        int
	from         pglogrepl.LSN // what was sent again ends behind it; 0: as the samples say
	// crashed are the brokers whose node was killed in this time. A classic queue of such a node may have a later
	// message and not an earlier one that was not confirmed yet: TestR12KilledNodeKeepsWhatItConfirmed.
	crashed []int
}

// checker compares what was committed with what came.
type checker struct {
	messages map[string]*message
	owners   map[string]string // of a message_id

	rounds     int
	complaints map[string][]string // by kind
	repeated   int                 // messages that came again, and were allowed to
	delivered  int
	marks      int // that were compared with a sample
}

func newChecker() *checker {
	return &checker{messages: make(map[string]*message), owners: make(map[string]string), complaints: make(map[string][]string)}
}

// What the checker complains of.
const (
	wasLost      = "committed, and neither delivered nor a dead letter"
	wasPhantom   = "never committed"
	wasChanged   = "not what was committed, or not where"
	wasRenamed   = "came again under another message_id"
	wasShared    = "two messages under one message_id"
	wasMisplaced = "out of order"
	wasRepeated  = "came more often than the faults allow"
	wasAhead     = "not delivered, although a slot said so"
)

func (k *checker) complain(kind, format string, args ...any) {
	k.complaints[kind] = append(k.complaints[kind], fmt.Sprintf(format, args...))
}

// report is all complaints, a few of each kind.
func (k *checker) report() string {
	var b strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(k.complaints)) {
		all := k.complaints[kind]
		fmt.Fprintf(&b, "%d times: %s:\n  %s\n", len(all), kind, strings.Join(all[:min(len(all), 20)], "\n  "))
	}
	return b.String()
}

// judge adds a round.
func (k *checker) judge(r *round) {
	k.rounds++
	r.emitted = make(map[string]int)
	for _, t := range r.troubles {
		r.spans = append(r.spans, r.spanOf(t))
	}
	for _, e := range r.emissions {
		r.emitted[e.name]++
		m := k.messages[e.name]
		if m == nil {
			m = &message{hash: e.hash, to: e.to}
			k.messages[e.name] = m
		} else if m.hash != e.hash || m.to != e.to {
			k.complain(wasChanged, "%s is another in the WAL: %+v", e.name, e)
		}
		m.ends, m.seen = append(m.ends, e.end), k.rounds
		if _, dead := r.buried[e.lsn]; dead {
			m.dead = true
		}
	}
	for to, got := range r.came {
		k.follow(r, to, got)
	}
	k.checkNowhere(r)
	for _, e := range r.emissions {
		if m := k.messages[e.name]; m.came == 0 && !r.letters[e.name] {
			k.complain(wasLost, "%s at %s to %+v, end of unit %s", e.name, e.lsn, e.to, e.end)
		}
	}
	for name := range r.letters {
		if k.messages[name] == nil {
			k.complain(wasPhantom, "dead letter %s", name)
		}
	}
	k.forget(r)
}

// forget bounds the memory of a long run: what was delivered that long ago does not come again, as PostgreSQL has
// saved the slot's position many times since.
func (k *checker) forget(r *round) {
	const rounds = 30
	maps.DeleteFunc(k.messages, func(name string, m *message) bool {
		old := k.rounds-m.seen > rounds && !r.letters[name]
		if old {
			delete(k.owners, m.id)
		}
		return old
	})
}

// follow goes through what came to one queue.
func (k *checker) follow(r *round, to place, got []amqp.Delivery) {
	var committed []emission
	position := make(map[string]int) // in the order of commits
	for _, e := range r.emissions {
		if e.to == to {
			if _, again := position[e.name]; !again {
				position[e.name] = len(committed)
			}
			committed = append(committed, e)
		}
	}
	done, highest := 0, -1
	inRound := make(map[string]int)
	for _, d := range got {
		var index int
		if n, _ := fmt.Sscanf(d.Type, "mark %d", &index); n == 1 {
			if index -= r.first; index >= 0 && index < len(r.samples) {
				done = k.checkMark(r, to, committed, done, &r.samples[index])
			}
			continue
		}
		name, hash := told(d.Body)
		m := k.arrived(name, hash, to, d)
		if m == nil {
			continue
		}
		k.delivered++
		m.came, m.seen = m.came+1, k.rounds
		inRound[name]++
		if at, ours := position[name]; ours && m.came == 1 && !m.dead && to.queue != chaosNarrow {
			if at < highest && !r.crashedWith(committed[at]) {
				k.complain(wasMisplaced, "%s at %+v came behind %s", name, to, committed[highest].name)
			}
			highest = max(highest, at)
		}
	}
	for name, n := range inRound {
		k.checkRepeated(r, to, name, n)
	}
}

// arrived finds the message of a delivery and checks what must not change; nil if there is none that looks so.
func (k *checker) arrived(name string, hash uint64, to place, d amqp.Delivery) *message {
	m := k.messages[name]
	switch {
	case m == nil:
		k.complain(wasPhantom, "%.60s at %+v under %s", name, to, d.MessageId)
		return nil
	case m.hash != hash || m.to != to:
		k.complain(wasChanged, "%s at %+v, %d bytes", name, to, len(d.Body))
		return nil
	case m.id != "" && m.id != d.MessageId:
		k.complain(wasRenamed, "%s: %s, then %s", name, m.id, d.MessageId)
	}
	m.id = d.MessageId
	if owner, taken := k.owners[d.MessageId]; taken && owner != name {
		k.complain(wasShared, "%s: %s and %s", d.MessageId, owner, name)
	}
	k.owners[d.MessageId] = name
	return m
}

// checkMark is called at each mark, with everything in front of it counted: what a slot had confirmed before
// the mark was sent must have come. Of the committed ones the first are done; it returns how many.
func (k *checker) checkMark(r *round, to place, committed []emission, done int, s *sample) int {
	k.marks++
	for ; done < len(committed) && committed[done].end <= s.confirmed(to.broker); done++ {
		e := committed[done]
		if n, dead := r.buried[e.lsn]; k.messages[e.name].came == 0 && (!dead || n > s.buried) {
			k.complain(wasAhead, "%s to %+v, end of unit %s, confirmed %s at %s", e.name, to, e.end,
				s.confirmed(to.broker), s.ended.UTC().Format("15:04:05.000"))
		}
	}
	return done
}

// checkNowhere is checkMark for what no queue takes: it must be a dead letter.
func (k *checker) checkNowhere(r *round) {
	next := 0
	var all []emission
	for _, e := range r.emissions {
		if e.to.queue == "" {
			all = append(all, e)
		}
	}
	for i := range r.samples {
		s := &r.samples[i]
		for ; next < len(all) && all[next].end <= s.lowest(); next++ {
			if n, dead := r.buried[all[next].lsn]; !dead || n > s.buried {
				k.complain(wasAhead, "%s to %+v is not a dead letter, end of unit %s, confirmed %s at %s",
					all[next].name, all[next].to, all[next].end, s.lowest(), s.ended.UTC().Format("15:04:05.000"))
			}
		}
	}
}

// checkRepeated compares how often a message came in this round with how often it may: once for each
// emission of the round, and once for each trouble in which it was not yet confirmed.
func (k *checker) checkRepeated(r *round, to place, name string, n int) {
	allowed := r.emitted[name]
	if n <= allowed {
		return
	}
	m := k.messages[name]
	k.repeated += n - max(1, allowed)
	for i, s := range r.spans {
		if slices.ContainsFunc(m.ends, func(end pglogrepl.LSN) bool { return s.from < end && end <= s.to }) {
			allowed += r.troubles[i].times
		}
	}
	if n > allowed {
		k.complain(wasRepeated, "%s at %+v, unit ends %v, came %d times and may %d times", name, to, m.ends, n, allowed)
	}
}

// crashedWith tells whether a message to a classic queue may have been unconfirmed when its broker's node was killed.
func (r *round) crashedWith(e emission) bool {
	if e.to.quorum() {
		return false
	}
	for i, s := range r.spans {
		if slices.Contains(r.troubles[i].crashed, e.to.broker) && s.from < e.end && e.end <= s.to {
			return true
		}
	}
	return false
}

// spanOf returns the WAL that was written and not confirmed in a time of trouble.
func (r *round) spanOf(t trouble) span {
	const slack = 5 * time.Millisecond // the log's clock shows milliseconds
	s := span{to: ^pglogrepl.LSN(0)}
	for i := range r.samples {
		at := &r.samples[i]
		switch {
		case at.ended.Before(t.began.Add(-slack)):
			s.from = at.lowest()
		case at.began.After(t.ended.Add(slack)):
			s.from, s.to = min(s.from, at.lowest()), at.written
			if t.from != 0 {
				s.from = min(s.from, t.from)
			}
			return s
		default:
			s.from = min(s.from, at.lowest())
		}
	}
	if t.from != 0 {
		s.from = min(s.from, t.from)
	}
	return s
}
