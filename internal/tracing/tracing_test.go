package tracing

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/pgamqp/pgamqp/publisher"
)

const sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// recorded returns the span that is made of a message, nil if none is.
func recorded(m publisher.Settled) sdk.ReadOnlySpan {
	spans := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(spans), sdk.WithSampler(sampler()))
	(&Tracer{provider: provider, tracer: provider.Tracer("test")}).Settled(&m)
	if ended := spans.Ended(); len(ended) > 0 {
		return ended[0]
	}
	return nil
}

func TestSpanBeginsAtTheCommitUnlessTheClocksDiffer(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	accepted := at.Add(-time.Second)
	for name, c := range map[string]struct{ committed, want time.Time }{
		"commit":               {at.Add(-time.Minute), at.Add(-time.Minute)},
		"not in a transaction": {time.Time{}, accepted},
		"server's clock ahead": {at.Add(time.Minute), accepted},
	} {
		t.Run(name, func(t *testing.T) {
			s := recorded(publisher.Settled{Headers: amqp.Table{"traceparent": sampled}, Committed: c.committed, Accepted: accepted, At: at})
			if s == nil || !s.StartTime().Equal(c.want) || !s.EndTime().Equal(at) {
				t.Errorf("span %v, want one from %s to %s", s, c.want, at)
			}
		})
	}
}

func TestOnlySampledTracesHaveSpans(t *testing.T) {
	for name, value := range map[string]any{
		"none": nil, "no text": int64(1), "not sampled": strings.TrimSuffix(sampled, "1") + "0", "nonsense": "x", "zero": "00-00000000000000000000000000000000-0000000000000000-01",
	} {
		if s := recorded(publisher.Settled{Headers: amqp.Table{"traceparent": value}, At: time.Now()}); s != nil {
			t.Errorf("%s: a span", name)
		}
	}
}

func TestSpanOfARejectedMessageIsAnError(t *testing.T) {
	s := recorded(publisher.Settled{
		Exchange: "ex", RoutingKey: "key", Headers: amqp.Table{"traceparent": sampled}, At: time.Now(),
		Reason: publisher.ReasonUnroutable, Text: "NO_ROUTE",
	})
	if s.Name() != "send ex" || s.Status().Code != codes.Error || s.Status().Description != "NO_ROUTE" {
		t.Errorf("%q, %v", s.Name(), s.Status())
	}
}

func TestEqualComplaintsAreLoggedOnce(t *testing.T) {
	var log strings.Builder
	c := complaints{log: slog.New(slog.NewTextHandler(&log, nil))}
	for range 3 {
		c.Handle(errors.New("connection refused"))
	}
	if n := strings.Count(log.String(), "connection refused"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}
