package integration

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// startCollector returns the address of a collector, and what the daemon has sent to it, by the message's id.
func startCollector(t *testing.T) (url string, spans func() map[string]*trace.Span) {
	t.Helper()
	requests := make(chan *collector.ExportTraceServiceRequest, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &request) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		requests <- &request
	}))
	t.Cleanup(server.Close)
	return server.URL, func() map[string]*trace.Span {
		found := make(map[string]*trace.Span)
		for len(requests) > 0 {
			for _, resource := range (<-requests).GetResourceSpans() {
				for _, scope := range resource.GetScopeSpans() {
					for _, s := range scope.GetSpans() {
						found[attribute(s, "messaging.message.id")] = s
					}
				}
			}
		}
		return found
	}
}

func attribute(s *trace.Span, key string) string {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

func TestSpansOfMessageHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	url, spans := startCollector(t)
	d := w.start("--otlp-endpoint", url)
	const traceID, spanID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	publish := func(function, id, key, flags string) {
		w.exec(`select amqp.`+function+`(1, '', $1, 'm', message_id => $2, headers => jsonb_build_object('traceparent', $3::text))`,
			key, id, "00-"+traceID+"-"+spanID+"-"+flags)
	}
	before := time.Now().Add(-time.Minute) // the clock is one here
	publish("publish", "confirmed", "q", "01")
	publish("autonomous_publish", "alone", "q", "01")
	publish("publish", "unrouted", "nowhere", "01")
	publish("publish", "not sampled", "q", "00")
	w.exec(`select amqp.publish(1, '', 'q', 'no trace', message_id => 'untraced')`)
	w.waitDelivered()
	if code := d.stop(); code != 0 { // sends what it has
		t.Errorf("exit code %d", code)
	}
	got := spans()
	if len(got) != 3 {
		t.Errorf("%d spans, want 3: %v", len(got), got)
	}
	for _, id := range []string{"confirmed", "alone", "unrouted"} {
		s := got[id]
		if hex.EncodeToString(s.GetTraceId()) != traceID || hex.EncodeToString(s.GetParentSpanId()) != spanID {
			t.Errorf("%s: the span is not a part of the trace: %v", id, s)
		}
		begin, end := time.Unix(0, int64(s.GetStartTimeUnixNano())), time.Unix(0, int64(s.GetEndTimeUnixNano()))
		if begin.Before(before) || end.Before(begin) || end.After(time.Now()) {
			t.Errorf("%s: from %s to %s", id, begin, end)
		}
		if lsn := attribute(s, "pgamqp.lsn"); lsn == "" {
			t.Errorf("%s: no position", id)
		}
	}
	if s := got["confirmed"]; s.GetName() != "send q" || s.GetStatus().GetCode() == trace.Status_STATUS_CODE_ERROR {
		t.Errorf("the confirmed one: %v", s)
	}
	if s := got["unrouted"]; s.GetStatus().GetCode() != trace.Status_STATUS_CODE_ERROR || attribute(s, "error.type") != "unroutable" {
		t.Errorf("the dead letter: %v", s)
	}
}

// A collector that does not answer delays nothing.
func TestSpansOfMessageHeadersWithoutACollector(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	d := w.start("--otlp-endpoint", fmt.Sprint("http://127.0.0.1:", closedPort(t)))
	for range 3 {
		w.exec(`select amqp.publish(1, '', 'q', 'm', headers => '{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}')`)
	}
	w.waitDelivered()
	w.received(1, "q")
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	d.wantLog(`cannot send spans to the collector, some are lost|spans are lost`)
}
