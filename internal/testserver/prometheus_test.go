package testserver

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestPrometheusScrapesAndAlerts(t *testing.T) {
	t.Parallel()
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "answers{of=\"all\"} 42\n")
	}))
	defer target.Close()
	p, err := StartPrometheus(PrometheusOptions{
		Targets: []string{strings.TrimPrefix(target.URL, "http://")},
		Rules:   []string{`{groups: [{name: g, rules: [{alert: Answered, expr: answers == 42}]}]}`},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	some := func(s []Sample) bool { return len(s) > 0 }
	got, err := p.QueryUntil(ctx, "answers", some)
	if err != nil || got[0].Value != 42 || got[0].Labels["of"] != "all" || got[0].Labels["job"] != "pgamqp" {
		t.Errorf("answers is %v, %v", got, err)
	}
	if got, err := p.QueryUntil(ctx, `ALERTS{alertstate="firing"}`, some); err != nil || got[0].Labels["alertname"] != "Answered" {
		t.Errorf("alerts are %v, %v", got, err)
	}
	if got, err := p.Query(ctx, "1 + 1"); err != nil || got[0].Value != 2 {
		t.Errorf("1 + 1 is %v, %v", got, err)
	}
	if got, err := p.Query(ctx, "unknown"); err != nil || len(got) != 0 {
		t.Errorf("unknown is %v, %v", got, err)
	}
	if _, err := p.Query(ctx, "1 +"); err == nil || !strings.Contains(err.Error(), "parse error") {
		t.Errorf("half an expression: %v", err)
	}
}
