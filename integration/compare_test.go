package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// comparison is how what came differs from what was committed. A message is known by its
// body, so the bodies of a test must differ.
type comparison struct {
	committed, came int

	lost      []string // committed, never came
	phantom   []string // came, never committed
	repeated  []string // came again, under the same message_id
	renamed   []string // came again under another message_id
	shared    []string // two messages had the same message_id
	misplaced []string // came for the first time before something that was committed earlier
}

// compare finds the differences. committed is in the order of commits.
func compare(committed []string, got []amqp.Delivery) comparison {
	c := comparison{committed: len(committed), came: len(got)}
	known := make(map[string]bool, len(committed))
	for _, body := range committed {
		known[body] = true
	}
	ids, owners := make(map[string]string), make(map[string]string) // of a body; of a message_id
	var first []string
	for _, d := range got {
		body := string(d.Body)
		id, again := ids[body]
		switch {
		case !known[body]:
			c.phantom = append(c.phantom, body)
			continue
		case again && id == d.MessageId:
			c.repeated = append(c.repeated, body)
		case again:
			c.renamed = append(c.renamed, fmt.Sprintf("%s: %s, then %s", body, id, d.MessageId))
		default:
			ids[body] = d.MessageId
			first = append(first, body)
		}
		if owner, taken := owners[d.MessageId]; taken && owner != body {
			c.shared = append(c.shared, fmt.Sprintf("%s: %s and %s", d.MessageId, owner, body))
		}
		owners[d.MessageId] = body
	}
	var expected []string
	for _, body := range committed {
		if _, came := ids[body]; came {
			expected = append(expected, body)
		} else {
			c.lost = append(c.lost, body)
		}
	}
	for i, body := range first {
		if body != expected[i] {
			c.misplaced = append(c.misplaced, fmt.Sprintf("%s in the place of %s", body, expected[i]))
		}
	}
	return c
}

// wantExact fails the test for any difference: nothing has gone wrong.
func (c comparison) wantExact(t *testing.T) {
	t.Helper()
	c.want(t, "came twice", c.repeated)
	c.wantComplete(t)
}

// wantComplete fails the test for what must not happen whatever goes wrong. Repetitions
// are allowed.
func (c comparison) wantComplete(t *testing.T) {
	t.Helper()
	c.want(t, "was lost", c.lost)
	c.want(t, "came and was not committed", c.phantom)
	c.want(t, "came again under another message_id", c.renamed)
	c.want(t, "shared a message_id", c.shared)
	c.want(t, "came out of order", c.misplaced)
}

// wantRepeatedAtMost is wantComplete with a bound on the repetitions.
func (c comparison) wantRepeatedAtMost(t *testing.T, most int) {
	t.Helper()
	c.wantComplete(t)
	if n := len(c.repeated); n > most {
		t.Errorf("%d messages came again, more than %d", n, most)
	}
}

func (c comparison) want(t *testing.T, what string, which []string) {
	t.Helper()
	if len(which) > 0 {
		t.Errorf("%d of %d messages: %s: %s", len(which), c.committed, what,
			strings.Join(which[:min(len(which), 10)], "; "))
	}
}

func TestCompareFindsEveryDifference(t *testing.T) {
	t.Parallel()
	message := func(body, id string) amqp.Delivery { return amqp.Delivery{Body: []byte(body), MessageId: id} }
	committed := []string{"a", "b", "c", "d"}
	exact := []amqp.Delivery{message("a", "1"), message("b", "2"), message("c", "3"), message("d", "4")}
	for name, test := range map[string]struct {
		got  []amqp.Delivery
		want func(comparison) []string
	}{
		"lost":      {exact[:3], func(c comparison) []string { return c.lost }},
		"phantom":   {append(slices.Clone(exact), message("x", "5")), func(c comparison) []string { return c.phantom }},
		"repeated":  {append(slices.Clone(exact), exact[1]), func(c comparison) []string { return c.repeated }},
		"renamed":   {append(slices.Clone(exact), message("b", "5")), func(c comparison) []string { return c.renamed }},
		"shared":    {append(slices.Clone(exact[:3]), message("d", "1")), func(c comparison) []string { return c.shared }},
		"misplaced": {[]amqp.Delivery{exact[0], exact[1], exact[3], exact[2]}, func(c comparison) []string { return c.misplaced }},
	} {
		c := compare(committed, test.got)
		if len(test.want(c)) == 0 {
			t.Errorf("%s is not found: %+v", name, c)
		}
		found := 0
		for _, which := range [][]string{c.lost, c.phantom, c.repeated, c.renamed, c.shared, c.misplaced} {
			if len(which) > 0 {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%s is found as more than that: %+v", name, c)
		}
	}
	compare(committed, exact).wantExact(t)
}
