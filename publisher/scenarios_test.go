package publisher

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/metrics"
)

// smallWindow makes a scenario meet a full window.
func smallWindow(c *Config) { c.WindowMessages = 10 }

func TestMessagesArriveOnceAndInOrder(t *testing.T) {
	onBoth(t, smallWindow, func(s *stage) {
		s.exchange("x", true)
		s.exchange("y", true)
		want := list("m", 300)
		for i, text := range want {
			s.to([]string{"x", "y"}[i/7%2], text)
		}
		s.awaitAll()
		s.wantStored(0, want...)
		s.noLetters()
		if n := s.connects(); n != 1 {
			t.Errorf("%v connections", n)
		}
	})
}

// A broker acks what no queue takes, too. The return comes before that ack.
func TestR05AndR06ReturnsAreReadBeforeTheirAcks(t *testing.T) {
	onBoth(t, smallWindow, func(s *stage) {
		s.exchange("x", true)
		s.exchange("void", false)
		var dead []letter
		good := list("good", 100)
		for i, text := range good {
			s.to("x", text)
			if i%3 > 0 {
				dead = append(dead, letter{s.to("void", "nowhere"), ReasonUnroutable, 312, "NO_ROUTE"})
			}
		}
		dead = append(dead, letter{s.to("", "no such queue"), ReasonUnroutable, 312, "NO_ROUTE"})
		s.awaitAll()
		s.wantDead(dead...)
		s.wantStored(0, good...)
	})
}

func TestMessageThatNeedNotBeRoutedIsDone(t *testing.T) {
	onBoth(t, nil, func(s *stage) {
		s.exchange("void", false)
		s.publish(envelope(decoder.KindPublish, 1, fields{'x': "void", 'f': "u"}, ""))
		s.awaitAll()
		s.noLetters()
	})
}

// A nack that is overtaken by an ack of many is still one.
func TestR07NacksAmongAcksAreNoAcks(t *testing.T) {
	onBoth(t, func(c *Config) { c.NackRetry = 300 * time.Millisecond }, func(s *stage) {
		s.exchange("x", true)
		s.overflowing("full")
		s.to("x", "first")
		s.to("", theQueue) // so that nothing below goes alone
		s.awaitAll()
		var dead []letter
		good := append([]string{"first", theQueue}, list("good", 40)...)
		for i, text := range good[2:] {
			s.to("x", text)
			if i%20 == 7 {
				dead = append(dead, letter{s.to("full", "bad"), ReasonNacked, 0, "the broker could not take the message for 300ms"})
			}
		}
		s.awaitAll()
		s.wantDead(dead...)
		s.wantStored(0, good...) // a nack takes no ack of another message along
		if n := s.counted("pgamqp_nacked_messages_total", "full"); n < float64(len(dead)) {
			t.Errorf("%v nacks counted", n)
		}
	})
}

// Whatever the broker refuses becomes a dead letter with its words, and the others
// arrive: none is lost, and at most a window full comes again.
func TestRefusedMessagesDisturbNoOther(t *testing.T) {
	onBoth(t, smallWindow, func(s *stage) {
		s.exchange("x", true)
		s.exchange("gone", true)
		s.exchange("forbidden", true)
		s.internal("internal")
		s.forbid("forbidden")
		s.to("x", "warm x")
		s.to("gone", "warm gone")
		s.awaitAll()
		s.remove("gone")
		good := list("good", 90)
		bad := map[int]func() letter{
			10: func() letter {
				return letter{s.to("missing", "bad"), ReasonNotFound, 404, "NOT_FOUND - no exchange 'missing' in vhost '/'"}
			},
			25: func() letter {
				return letter{s.to("forbidden", "bad"), metrics.ReasonAccessRefused, 403, "ACCESS_REFUSED - access to exchange 'forbidden' in vhost '/' refused for user 'guest'"}
			},
			40: func() letter {
				return letter{s.to("internal", "bad"), metrics.ReasonAccessRefused, 403, "ACCESS_REFUSED - cannot publish to internal exchange 'internal' in vhost '/'"}
			},
			55: func() letter {
				n := s.publish(envelope(decoder.KindPublish, 1, fields{'x': "x", 'u': "bob"}, "bad"))
				return letter{n, metrics.ReasonPreconditionFailed, 406, "PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was 'guest'"}
			},
			70: func() letter {
				return letter{s.to("gone", "bad"), ReasonNotFound, 404, "NOT_FOUND - no exchange 'gone' in vhost '/'"}
			},
		}
		var dead []letter
		for i, text := range good {
			if b := bad[i]; b != nil {
				dead = append(dead, b())
			}
			s.to("x", text)
		}
		s.awaitAll()
		s.wantDead(dead...)
		s.wantStored(10, append([]string{"warm x", "warm gone"}, good...)...) // only "gone" was known to work
		if n := s.connects(); n != 1 {
			t.Errorf("%v connections", n)
		}
	})
}

func TestR32BodyLargerThanTheBrokerTakesIsADeadLetter(t *testing.T) {
	onBoth(t, smallWindow, func(s *stage) {
		s.exchange("x", true)
		body := func(n int) []byte { return envelope(decoder.KindPublish, 1, fields{'x': "x"}, strings.Repeat("b", n)) }
		s.to("x", "a")
		s.publish(body(maxBody))
		n := s.publish(body(maxBody + 1))
		s.to("x", "c")
		s.awaitAll()
		s.wantDead(letter{
			n, metrics.ReasonPreconditionFailed, 406,
			fmt.Sprintf("PRECONDITION_FAILED - message size %d is larger than configured max size %d", maxBody+1, maxBody),
		})
		s.wantStored(10, "a", strings.Repeat("b", maxBody), "c")
	})
}

func TestR20PropertiesLargerThanAFrameAreNotSent(t *testing.T) {
	onBoth(t, nil, func(s *stage) {
		const frame = 131072 // what both offer
		s.exchange("x", true)
		s.publish(withHeaders(t, frame-8))
		n := s.publish(withHeaders(t, frame-7))
		s.to("x", "behind")
		s.awaitAll()
		s.wantDead(letter{n, ReasonTooLarge, 0, fmt.Sprintf("properties and headers take more than the %d bytes that the broker takes", frame-8)})
		s.wantStored(0, "", "behind")
		if n := s.connects(); n != 1 {
			t.Errorf("%v connections", n)
		}
	})
}

func TestDeclarationsTakeEffectBetweenTheMessages(t *testing.T) {
	onBoth(t, nil, func(s *stage) {
		s.exchange("x", true)
		s.to("x", "a")
		lost := s.to("new", "too early")
		s.publish(
			envelope(decoder.KindExchangeDeclare, 1, fields{'x': "new", 'w': "fanout", 'f': "d"}, ""),
			envelope(decoder.KindQueueDeclare, 1, fields{'q': "q", 'f': "d"}, ""),
			envelope(decoder.KindQueueBind, 1, fields{'x': "new", 'q': "q"}, ""),
			envelope(decoder.KindQueueBind, 1, fields{'x': "new", 'q': theQueue}, ""),
		)
		s.to("new", "b")
		s.publish(
			envelope(decoder.KindExchangeDeclare, 1, fields{'x': "outer", 'w': "topic", 'f': "d"}, ""),
			envelope(decoder.KindExchangeBind, 1, fields{'x': "outer", 'q': "x", 'k': "#"}, ""),
		)
		s.to("outer", "c")
		s.awaitAll()
		s.wantDead(letter{lost, ReasonNotFound, 404, "NOT_FOUND - no exchange 'new' in vhost '/'"})
		s.wantStored(0, "a", "b", "c")
	})
}

func TestRefusedDeclarationsDisturbNoMessage(t *testing.T) {
	onBoth(t, smallWindow, func(s *stage) {
		s.exchange("x", true)
		exchange := func(name, kind string) []byte {
			return envelope(decoder.KindExchangeDeclare, 1, fields{'x': name, 'w': kind, 'f': "d"}, "")
		}
		var dead []letter
		good := list("good", 70)
		for i, text := range good {
			s.to("x", text)
			if i%10 == 5 {
				c := []struct {
					content []byte
					want    letter
				}{
					{exchange("x", "topic"), letter{0, metrics.ReasonPreconditionFailed, 406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'x' in vhost '/': received 'topic' but current is 'fanout'"}},
					{exchange("amq.mine", "topic"), letter{0, metrics.ReasonAccessRefused, 403, "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'"}},
					{exchange("", "direct"), letter{0, metrics.ReasonAccessRefused, 403, "ACCESS_REFUSED - operation not permitted on the default exchange"}},
					{exchange("new", "no-such"), letter{0, metrics.ReasonRefused, 503, "COMMAND_INVALID - unknown exchange type 'no-such'"}},
					{
						envelope(decoder.KindQueueDeclare, 1, fields{'q': "amq.mine", 'f': "d"}, ""),
						letter{0, metrics.ReasonAccessRefused, 403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'"},
					},
					{
						envelope(decoder.KindQueueBind, 1, fields{'x': "x", 'q': "missing"}, ""),
						letter{0, ReasonNotFound, 404, "NOT_FOUND - no queue 'missing' in vhost '/'"},
					},
					{
						envelope(decoder.KindExchangeBind, 1, fields{'x': "missing", 'q': "x"}, ""),
						letter{0, ReasonNotFound, 404, "NOT_FOUND - no exchange 'missing' in vhost '/'"},
					},
				}[i/10]
				c.want.number = s.publish(c.content)
				dead = append(dead, c.want)
			}
		}
		s.awaitAll()
		s.wantDead(dead...)
		s.wantStored(0, good...)
	})
}

func TestForcedClosesLoseNothingAndKeepTheOrder(t *testing.T) {
	onBoth(t, smallWindow, func(s *stage) {
		s.exchange("x", true)
		want := list("m", 1500)
		for i, text := range want {
			s.to("x", text)
			if i%500 == 250 {
				s.kick()
			}
		}
		s.awaitAll()
		s.wantStored(3*10, want...)
		s.noLetters()
		if n := s.counted("pgamqp_nacked_messages_total", "x"); n != 0 {
			t.Errorf("%v nacks counted", n)
		}
		if n := s.connects(); n < 2 {
			t.Errorf("%v connections", n)
		}
	})
}

func TestDisconnectMakesANewConnection(t *testing.T) {
	onBoth(t, nil, func(s *stage) {
		s.exchange("x", true)
		s.to("x", "a", "b")
		s.publish(envelope(decoder.KindDisconnect, 1, nil, ""))
		s.to("x", "c", "d")
		s.awaitAll()
		s.wantStored(0, "a", "b", "c", "d")
		if n := s.connects(); n != 2 {
			t.Errorf("%v connections", n)
		}
	})
}

func TestChangedBrokerGetsWhatFollowsTheChange(t *testing.T) {
	onBoth(t, func(c *Config) {
		smallWindow(c)
		unhurried(c)
	}, func(s *stage) {
		other := s.another()
		s.exchange("x", true)
		other.exchange("x", true)
		before, after := list("before", 50), list("after", 50)
		s.to("x", before...)
		s.define(true, Broker{ID: 1, Hosts: []Host{other.at()}})
		s.to("x", after...)
		s.awaitAll()
		s.noLetters()
		s.wantStored(0, before...)
		s.broker = other
		s.wantStored(0, after...)
	})
}

func TestR17NothingIsUnresolvedAfterADrain(t *testing.T) {
	onBoth(t, func(c *Config) { c.WindowMessages = 1000 }, func(s *stage) {
		s.exchange("x", true)
		s.exchange("void", false)
		want := list("m", 500)
		s.to("x", want...)
		n := s.to("void", "nowhere")
		if err := receive(t, "drain", s.drained(t.Context())); err != nil {
			t.Error(err)
		}
		for n := range s.sent {
			if !s.isDone(n) {
				t.Errorf("message %d has no verdict", n)
			}
		}
		s.stop()
		receive(t, "end of Run", s.ended)
		s.wantStored(0, want...)
		s.wantDead(letter{n, ReasonUnroutable, 312, "NO_ROUTE"})
	})
}

// limits publishes a message for each set of fields, those of valid between those of
// invalid. The valid ones arrive; the others become dead letters before the broker could
// punish anybody for them.
func limits(t *testing.T, valid, invalid []fields) {
	onBoth(t, smallWindow, func(s *stage) {
		long := strings.Repeat("x", 255)
		s.exchange("x", true)
		s.exchange(long, true)
		want := []string{"first"}
		s.to("x", want...)
		var bad []int
		for i := range max(len(valid), len(invalid)) {
			if i < len(invalid) {
				bad = append(bad, s.publish(envelope(decoder.KindPublish, 1, invalid[i], "bad")))
			}
			if i < len(valid) {
				f := fields{'x': "x"}
				for tag, value := range valid[i] {
					f[tag] = value
				}
				want = append(want, fmt.Sprint("valid ", i))
				s.publish(envelope(decoder.KindPublish, 1, f, want[len(want)-1]))
			}
		}
		s.awaitAll()
		s.wantStored(0, want...)
		var got []int
		for _, d := range s.dead() {
			got = append(got, numberOf(d.Message))
			if d.ReplyCode != 0 || d.Reason != ReasonInvalid && d.Reason != ReasonUndecodable {
				t.Errorf("dead letter %s %d %s", d.Reason, d.ReplyCode, d.ReplyText)
			}
		}
		if !slices.Equal(got, bad) {
			t.Errorf("dead letters of %v, want %v", got, bad)
		}
		if n := s.connects(); n != 1 {
			t.Errorf("%v connections", n)
		}
	})
}

// each is one set of fields for each value.
func each(tag byte, values ...string) []fields {
	var out []fields
	for _, v := range values {
		out = append(out, fields{tag: v})
	}
	return out
}

func TestR19ShortStringsOf256BytesAreNotSent(t *testing.T) {
	var valid, invalid []fields
	for _, tag := range []byte("xktnyciwa") {
		valid = append(valid, fields{tag: strings.Repeat("x", 255)})
		invalid = append(invalid, fields{tag: strings.Repeat("x", 256)})
	}
	key := func(n int) string { return `{"` + strings.Repeat("k", n) + `": 1}` }
	limits(t, append(valid, fields{'h': key(255)}), append(invalid, fields{'h': key(256)}, fields{'u': strings.Repeat("u", 256)}))
}

func TestR21NumbersThatAreNotFiniteAreNotSent(t *testing.T) {
	limits(t,
		each('h', `{"a": 1.7976931348623157e308}`, `{"a": {"$float": -3.4e38}}`),
		each('h', `{"a": {"$double": "NaN"}}`, `{"a": {"$double": "-Inf"}}`, `{"a": {"$float": "Infinity"}}`, `{"a": 1e309}`))
}

func TestR24ExpirationsThatAreNoMillisecondsAreNotSent(t *testing.T) {
	limits(t, each('e', "60000", "4294967295"), each('e', "abc", "-1", "1.5", "4294967296", "+1", " 1"))
}

func TestR25DeliveryModesThatDoNotExistAreNotSent(t *testing.T) {
	limits(t, each('m', "1", "2"), each('m', "7", "0", "-1", "x"))
}

func TestR26PrioritiesAreBytes(t *testing.T) {
	limits(t, each('p', "0", "9", "255"), each('p', "256", "-1", "x"))
}

func TestR28DirectReplyQueueIsNotSent(t *testing.T) {
	limits(t, each('y', "amq.rabbitmq.reply", "q"), each('y', "amq.rabbitmq.reply-to"))
}

func TestR29RoutingHeadersThatAreNoListsAreNotSent(t *testing.T) {
	limits(t,
		each('h', `{"CC": []}`, `{"CC": ["q", "r"]}`, `{"BCC": ["q"]}`),
		each('h', `{"CC": "q"}`, `{"BCC": "q"}`, `{"CC": [1]}`, `{"BCC": {"a": 1}}`, `{"CC": null}`))
}

func TestR30TimestampsOutsideFourDigitYearsAreNotSent(t *testing.T) {
	limits(t, each('s', "0", "253402300799"), each('s', "-1", "253402300800", "1.5", "now"))
}

// NUL passes: the protocol counts bytes.
func TestR31TextThatIsNotUTF8IsNotSent(t *testing.T) {
	limits(t,
		[]fields{{'k': "a\x00b", 't': "\x00", 'i': "ü\x00"}, {'h': `{"\u0000": "\u0000"}`}},
		append(each('k', "\xff", "a\xc3"), each('t', "\xed\xa0\x80")...))
}

// The protocol's flag for it closes the connection, so no message has it, whatever its
// envelope says.
func TestR33ImmediateIsNeverAskedFor(t *testing.T) {
	limits(t, append(each('f', "u", "pdai", "i"), fields{}), nil)
}
