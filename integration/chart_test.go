package integration

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/pgamqp/pgamqp/internal/snippet"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

// chartPod is the pod of a Deployment or Job of the Helm chart, as far as it says what runs.
type chartPod struct {
	Args []string
	Env  []struct {
		Name, Value string
		ValueFrom   struct {
			SecretKeyRef struct{ Name, Key string } `yaml:"secretKeyRef"`
		} `yaml:"valueFrom"`
	}
}

// readManifests returns the pods of golden manifests by their kind, and the file that the ConfigMap holds.
func readManifests(t *testing.T, name string) (pods map[string]chartPod, settings string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "tools", "chart", "testdata", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	pods = make(map[string]chartPod)
	for documents := yaml.NewDecoder(bytes.NewReader(content)); ; {
		var object struct {
			Kind string
			Data map[string]string
			Spec struct {
				Template struct {
					Spec struct{ Containers []chartPod }
				}
			}
		}
		if err := documents.Decode(&object); errors.Is(err, io.EOF) {
			return pods, settings
		} else if err != nil {
			t.Fatal(err)
		}
		if containers := object.Spec.Template.Spec.Containers; len(containers) > 0 {
			pods[object.Kind] = containers[0]
		}
		settings += object.Data["pgamqp.yaml"]
	}
}

// environment is what the kubelet would give to the container, with the addresses of a test.
func (p chartPod) environment(url, file, authority string) map[string]string {
	given := make(map[string]string)
	for _, v := range p.Env {
		switch {
		case v.ValueFrom.SecretKeyRef.Name != "":
			given[v.Name] = url
		case v.Name == "PGSSLROOTCERT":
			given[v.Name] = authority
		case v.Name == "PGAMQP_CONFIG":
			given[v.Name] = file
		case v.Name == "PGAMQP_LISTEN":
			given[v.Name] = "127.0.0.1:0"
		default:
			given[v.Name] = v.Value
		}
	}
	return given
}

// claimedBy returns the blocks of a language of a document that say that a test runs them.
func claimedBy(t *testing.T, test, language, file string) []string {
	t.Helper()
	all, err := snippet.Read("..", file)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, b := range all {
		if b.Test == test && b.Language == language {
			blocks = append(blocks, b.Text)
		}
	}
	if len(blocks) == 0 {
		t.Fatalf("%s has no block of %s for %s", file, language, test)
	}
	return blocks
}

// linesOf returns the lines of a block; each is a statement or a command.
func linesOf(block string) []string { return strings.Split(strings.TrimSpace(block), "\n") }

// TestChartDeliversAMessage runs the containers of the golden manifests with the roles of docs/guides/kubernetes.md: the
// installation, two daemons of which one is a standby, and the rolling update in which it takes over.
func TestChartDeliversAMessage(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"minimal", "everything"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			certificate, err := testserver.SelfSigned()
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{TLS: certificate}), bare: true})
			w.queue(1, "q")
			pods, settings := readManifests(t, name)
			file, authority := filepath.Join(t.TempDir(), "pgamqp.yaml"), filepath.Join(t.TempDir(), "ca.crt")
			if err := errors.Join(os.WriteFile(file, []byte(settings), 0o600), os.WriteFile(authority, certificate.Certificate, 0o600)); err != nil {
				t.Fatal(err)
			}
			sql := claimedBy(t, "TestChartDeliversAMessage", "sql", "docs/guides/kubernetes.md")
			if len(sql) != 2 {
				t.Fatalf("the guide has statements for %d steps", len(sql))
			}
			w.script(linesOf(strings.Replace(sql[0], "database shop ", "database "+w.database+" ", 1))...)
			url := func(role string) string {
				if name == "everything" { // it has a volume with a certificate
					return strings.Replace(w.urlAs(role), "sslmode=disable", "sslmode=verify-full", 1)
				}
				return w.urlAs(role)
			}
			job, found := pods["Job"]
			if !found {
				job.Args = []string{"install", "--database-url", url("shop_owner")}
			}
			if d := inContainer(t, job.Args, job.environment(url("shop_owner"), file, authority)); d.wait(time.Minute) != 0 {
				t.Fatalf("install: %s", d.log.String())
			}
			deployment := pods["Deployment"]
			environment := deployment.environment(url("shop_pgamqp"), file, authority)
			if d := inContainer(t, deployment.Args, environment); d.wait(time.Minute) != 3 {
				t.Errorf("before the grant the exit code is not 3:\n%s", d.log.String())
			}
			owner := w.connectAs("shop_owner")
			for _, s := range linesOf(sql[1]) {
				run(t, owner, s)
			}
			w.exec(`insert into amqp.broker (broker_id, host, port, vhost) values (1, $1, $2, $3)`, w.rabbit.Host(), w.rabbit.Port(), w.vhosts[0])
			first := inContainer(t, deployment.Args, environment)
			first.waitReady()
			second := inContainer(t, deployment.Args, environment)
			second.waitStandby()
			if code := first.stop(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			second.waitReady()
			w.exec(`select amqp.publish(1, '', 'q', 'from a cluster')`)
			if got := strings.Join(bodies(w.received(1, "q")), " "); got != "from a cluster" {
				t.Errorf("%q came", got)
			}
		})
	}
}
