// Package tracing tells a collector of OpenTelemetry how long messages took: a span for each
// from its commit to the verdict of its broker, as a part of the trace that the application has
// given it in the header traceparent. The header itself is not touched.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgamqp/pgamqp/internal/backoff"
	"github.com/pgamqp/pgamqp/publisher"
)

// scope names what makes the spans.
const scope = "github.com/pgamqp/pgamqp"

// Tracer sends spans. Its queue is bounded: what a collector does not take in time is dropped,
// and nothing waits for it.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	headers  propagation.TraceContext
}

// New makes a Tracer that sends to a collector by OTLP over HTTP, to a URL such as
// http://127.0.0.1:4318/v1/traces. More can be set by the variables that OpenTelemetry defines
// (OTEL_EXPORTER_OTLP_HEADERS, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_MAX_QUEUE_SIZE and so on). A
// collector that does not answer is no error; the log tells of it.
func New(ctx context.Context, url, version string, log *slog.Logger) (*Tracer, error) {
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(url))
	if err != nil {
		return nil, fmt.Errorf("trace to %s: %w", url, err)
	}
	// What the variables say wins.
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "pgamqp"), attribute.String("service.version", version)),
		resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("read OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	otel.SetErrorHandler(&complaints{log: log})
	provider := sdk.NewTracerProvider(
		sdk.WithBatcher(exporter),
		sdk.WithResource(about),
		sdk.WithSampler(sampler()))
	return &Tracer{provider: provider, tracer: provider.Tracer(scope, trace.WithInstrumentationVersion(version))}, nil
}

// sampler leaves the choice to the application, whose trace the spans are parts of.
func sampler() sdk.Sampler { return sdk.ParentBased(sdk.NeverSample()) }

// Settled makes a span of a message, if it carries a trace that is sampled. It does not block;
// any goroutine may call it.
func (t *Tracer) Settled(m *publisher.Settled) {
	parent := t.headers.Extract(context.Background(), carrier(m.Headers))
	if !trace.SpanContextFromContext(parent).IsSampled() {
		return
	}
	from := m.Committed
	if from.IsZero() || from.After(m.At) { // outside of any transaction; or the clocks differ
		from = m.Accepted
	}
	name := m.Exchange
	if name == "" {
		name = m.RoutingKey // the default exchange: the queue of that name
	}
	_, span := t.tracer.Start(parent, "send "+name,
		trace.WithSpanKind(trace.SpanKindProducer), trace.WithTimestamp(from), trace.WithAttributes(
			attribute.String("messaging.system", "rabbitmq"),
			attribute.String("messaging.operation.type", "send"),
			attribute.String("messaging.destination.name", m.Exchange),
			attribute.String("messaging.rabbitmq.destination.routing_key", m.RoutingKey),
			attribute.String("messaging.message.id", m.MessageID),
			attribute.Int("messaging.message.body.size", m.BodySize),
			attribute.Int("pgamqp.broker", int(m.Broker)),
			attribute.String("pgamqp.lsn", m.LSN.String())))
	if m.Reason != "" {
		span.SetAttributes(attribute.String("error.type", string(m.Reason)))
		span.SetStatus(codes.Error, m.Text)
	}
	span.End(trace.WithTimestamp(m.At))
}

// Close sends what is left; it returns when that is done, or with an error when ctx ends.
func (t *Tracer) Close(ctx context.Context) error {
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last spans: %w", err)
	}
	return nil
}

// carrier reads headers of a message as the library wants them; it changes none.
type carrier amqp.Table

func (c carrier) Get(key string) string {
	s, _ := c[key].(string)
	return s
}

func (carrier) Set(string, string) {}

func (carrier) Keys() []string { return nil }

// complaints writes the library's errors to the log, but not one for each batch.
type complaints struct {
	log *slog.Logger

	mu      sync.Mutex
	repeats backoff.Repeats
}

// Handle is called by the library, from any goroutine.
func (c *complaints) Handle(err error) {
	c.mu.Lock()
	worth := c.repeats.Worth(err.Error(), time.Now())
	c.mu.Unlock()
	if worth {
		c.log.Warn("cannot send spans to the collector, some are lost", slog.Any("error", err))
	}
}
