package testserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	prometheusStartLimit = 30 * time.Second
	prometheusStopLimit  = 20 * time.Second
)

// PrometheusOptions describes a Prometheus server.
type PrometheusOptions struct {
	// Targets are scraped at /metrics: host:port each. Their job is "pgamqp".
	Targets []string

	// Interval is the time between scrapes and between evaluations of rules, in whole
	// seconds; 0 is one.
	Interval time.Duration

	// Rules holds rule files, as YAML texts.
	Rules []string

	// Log also gets what the server prints. It must not block.
	Log io.Writer
}

// Prometheus is a Prometheus server. Its methods may be called from any goroutine.
type Prometheus struct {
	folder string
	log    logFile
	as     *account
	port   *portLease
	proc   *process
}

// StartPrometheus starts a server without data. The caller must Close it.
func StartPrometheus(o PrometheusOptions) (*Prometheus, error) {
	for try := 1; ; try++ {
		p, err := newPrometheus(o)
		if err != nil {
			return nil, fmt.Errorf("start prometheus: %w", err)
		}
		if err = p.start(); err == nil {
			return p, nil
		}
		again := try < startTries && portTaken(p.log.since(0))
		if err = errors.Join(err, p.Close()); !again {
			return nil, err
		}
	}
}

func newPrometheus(o PrometheusOptions) (*Prometheus, error) {
	as, err := serverAccount()
	if err != nil {
		return nil, err
	}
	port, err := leasePort()
	if err != nil {
		return nil, err
	}
	folder, err := newFolder("prometheus")
	if err != nil {
		port.release()
		return nil, err
	}
	p := &Prometheus{folder: folder, as: as, port: port}
	p.log = logFile{path: filepath.Join(folder, "log"), also: o.Log}
	if err := p.configure(o); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// configure writes the configuration as JSON, which is YAML.
func (p *Prometheus) configure(o PrometheusOptions) error {
	if err := p.as.mkdir(p.home()); err != nil {
		return err
	}
	rules := []string{}
	for i, text := range o.Rules {
		path := filepath.Join(p.home(), fmt.Sprintf("rules%d.yml", i))
		if err := p.as.write(path, []byte(text), 0o400); err != nil {
			return err
		}
		rules = append(rules, path)
	}
	interval := fmt.Sprintf("%ds", max(1, int(o.Interval/time.Second)))
	config, err := json.Marshal(map[string]any{
		"global":     map[string]any{"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
		"rule_files": rules,
		"scrape_configs": []any{map[string]any{
			"job_name":       "pgamqp",
			"static_configs": []any{map[string]any{"targets": o.Targets}},
		}},
	})
	if err != nil {
		return err
	}
	return p.as.write(filepath.Join(p.home(), "prometheus.yml"), config, 0o400)
}

func (p *Prometheus) start() error {
	program, err := findProgram("prometheus")
	if err != nil {
		return err
	}
	cmd := exec.Command(program, "--config.file="+filepath.Join(p.home(), "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(p.home(), "data"), fmt.Sprintf("--web.listen-address=127.0.0.1:%d", p.port.port))
	cmd.Dir, cmd.Env = p.home(), environment("HOME="+p.home())
	if p.proc, err = launch("prometheus", cmd, p.log, p.as, syscall.SIGKILL); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), prometheusStartLimit)
	defer cancel()
	err = await(ctx, p.proc, 20*time.Millisecond, func() bool {
		_, err := p.get(ctx, "/-/ready")
		return err == nil
	})
	if err != nil {
		return fmt.Errorf("wait until prometheus is ready: %w; its log ends with:\n%s", err, p.log.tail())
	}
	return nil
}

// Close ends the server and removes all it had. It may be called twice.
func (p *Prometheus) Close() error {
	var err error
	if p.proc.running() {
		err = p.proc.end(syscall.SIGTERM, prometheusStopLimit, syscall.SIGKILL)
	}
	p.port.release()
	return errors.Join(err, removeFolder(p.folder))
}

// URL is the root of the server's pages.
func (p *Prometheus) URL() string { return fmt.Sprintf("http://127.0.0.1:%d", p.port.port) }

// LogTail returns the last lines of the server's log.
func (p *Prometheus) LogTail() string { return p.log.tail() }

// Sample is one element of a query's result.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// Query evaluates an expression now. The result is empty, not an error, when no data match,
// as in the first seconds.
func (p *Prometheus) Query(ctx context.Context, expression string) ([]Sample, error) {
	content, err := p.get(ctx, "/api/v1/query?query="+url.QueryEscape(expression))
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", expression, err)
	}
	samples, err := decodeSamples(content)
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", expression, err)
	}
	return samples, nil
}

// QueryUntil repeats a query until its result satisfies ok or ctx ends.
func (p *Prometheus) QueryUntil(ctx context.Context, expression string, ok func([]Sample) bool) ([]Sample, error) {
	var samples []Sample
	var failed error
	err := await(ctx, p.proc, 100*time.Millisecond, func() bool {
		samples, failed = p.Query(ctx, expression)
		return failed != nil || ok(samples)
	})
	if failed != nil {
		return nil, failed
	}
	if err != nil {
		return samples, fmt.Errorf("query %s until it is as wanted: %w; the last result was %v", expression, err, samples)
	}
	return samples, nil
}

// decodeSamples reads the reply to an instant query: a vector or a scalar.
func decodeSamples(content []byte) ([]Sample, error) {
	var reply struct {
		Data struct {
			ResultType string
			Result     json.RawMessage
		}
	}
	if err := json.Unmarshal(content, &reply); err != nil {
		return nil, err
	}
	var vector []struct {
		Metric map[string]string
		Value  [2]any // a time, and the number as a string
	}
	switch reply.Data.ResultType {
	case "vector":
		if err := json.Unmarshal(reply.Data.Result, &vector); err != nil {
			return nil, err
		}
	case "scalar":
		vector = append(vector, struct {
			Metric map[string]string
			Value  [2]any
		}{})
		if err := json.Unmarshal(reply.Data.Result, &vector[0].Value); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("results of type %q are not supported", reply.Data.ResultType)
	}
	samples := make([]Sample, len(vector))
	for i, v := range vector {
		value, err := strconv.ParseFloat(fmt.Sprint(v.Value[1]), 64)
		if err != nil {
			return nil, err
		}
		samples[i] = Sample{v.Metric, value}
	}
	return samples, nil
}

func (p *Prometheus) home() string { return filepath.Join(p.folder, "home") }

func (p *Prometheus) get(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL()+path, nil)
	if err != nil {
		return nil, err
	}
	request.Close = true // a kept connection is a goroutine that a leak check would see
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(reply.Body)
	if err = errors.Join(err, reply.Body.Close()); err != nil {
		return nil, err
	}
	if reply.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", reply.Status, strings.TrimSpace(string(content)))
	}
	return content, nil
}
