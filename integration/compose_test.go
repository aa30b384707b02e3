package integration

import (
	"bytes"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

const composeFolder = "../packaging"

// composeFile is what we use of a compose file; anything else is an error.
type composeFile struct {
	Name     string                    `yaml:"name"`
	Common   any                       `yaml:"x-pgamqp"`
	Services map[string]composeService `yaml:"services"`
	Volumes  map[string]struct{}       `yaml:"volumes"`
}

type composeService struct {
	Image string `yaml:"image"`
	Build struct {
		Context    string `yaml:"context"`
		Dockerfile string `yaml:"dockerfile"`
	} `yaml:"build"`
	Hostname    string            `yaml:"hostname"`
	Command     []string          `yaml:"command"`
	Environment map[string]string `yaml:"environment"`
	Ports       []string          `yaml:"ports"`
	Volumes     []string          `yaml:"volumes"`
	ReadOnly    bool              `yaml:"read_only"`
	CapDrop     []string          `yaml:"cap_drop"`
	SecurityOpt []string          `yaml:"security_opt"`
	Restart     string            `yaml:"restart"`
	StopGrace   time.Duration     `yaml:"stop_grace_period"`
	DependsOn   map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
	Healthcheck struct {
		Test     []string      `yaml:"test"`
		Interval time.Duration `yaml:"interval"`
		Timeout  time.Duration `yaml:"timeout"`
		Retries  int           `yaml:"retries"`
	} `yaml:"healthcheck"`
}

func readCompose(t *testing.T) composeFile {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(composeFolder, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c composeFile
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

// ours tells whether the program of a service is pgamqp.
func (s composeService) ours() bool { return strings.HasPrefix(s.Image, "pgamqp:") }

// TestComposeFileFitsTogether looks at all that needs no container.
func TestComposeFileFitsTogether(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	for name, s := range c.Services {
		wrong := func(format string, args ...any) {
			t.Helper()
			t.Errorf("service "+name+": "+format, args...)
		}
		if image, tag, found := strings.Cut(s.Image, ":"); !found || image == "" || tag == "" || tag == "latest" {
			wrong("image %q has no version", s.Image)
		}
		for _, port := range s.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				wrong("port %s is open to the network", port)
			}
		}
		for _, volume := range s.Volumes {
			source, _, _ := strings.Cut(volume, ":")
			if _, named := c.Volumes[source]; !named && strings.HasPrefix(source, ".") {
				if info, err := os.Stat(filepath.Join(composeFolder, source)); err != nil || !info.Mode().IsRegular() || !strings.HasSuffix(volume, ":ro") {
					wrong("volume %s: %v", volume, err)
				}
			} else if !named {
				wrong("volume %s is not declared", volume)
			}
		}
		for other, on := range s.DependsOn {
			o, exists := c.Services[other]
			switch {
			case !exists:
				wrong("depends on %s, which does not exist", other)
			case on.Condition == "service_healthy" && len(o.Healthcheck.Test) > 0 && o.Healthcheck.Test[0] == "CMD":
			case on.Condition == "service_completed_successfully" && o.Restart == "" && len(o.Healthcheck.Test) == 0:
			default:
				wrong("waits for %s to be %q", other, on.Condition)
			}
		}
		if s.ours() {
			if s.Build.Context != "../dist/image" || s.Build.Dockerfile != "Containerfile" || !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) {
				wrong("its image or what it may do: %+v", s)
			}
		}
	}
	if daemon := c.Services["pgamqp"]; daemon.StopGrace < 35*time.Second {
		t.Errorf("the daemon has %s to stop, which is not well above its shutdown_timeout", daemon.StopGrace)
	}

	// Prometheus finds its files where they are mounted, and asks the daemon where it listens.
	root := t.TempDir()
	for _, volume := range c.Services["prometheus"].Volumes {
		if parts := strings.Split(volume, ":"); strings.HasPrefix(parts[0], ".") {
			content, err := os.ReadFile(filepath.Join(composeFolder, parts[0]))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Dir(filepath.Join(root, parts[1])), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, parts[1]), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	settings := filepath.Join(root, "etc/prometheus/prometheus.yml") // where the image looks for it
	wantMatch(t, must(t, "promtool", "check", "config", settings), `SUCCESS: 1 rule files found`, `SUCCESS: \d\d rules found`)
	var prometheus struct {
		Jobs []struct {
			Name    string `yaml:"job_name"`
			Targets []struct {
				Targets []string `yaml:"targets"`
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	content, err := os.ReadFile(settings)
	if err == nil {
		err = yaml.Unmarshal(content, &prometheus)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(prometheus.Jobs); got != "[{pgamqp [{[pgamqp:9465]}]}]" {
		t.Errorf("Prometheus asks %s", got)
	}
}

// order returns the services such that each comes after those that it waits for.
func (c composeFile) order(t *testing.T) []string {
	t.Helper()
	var all []string
	for len(all) < len(c.Services) {
		before := len(all)
		for _, name := range slices.Sorted(maps.Keys(c.Services)) {
			waits := slices.ContainsFunc(slices.Collect(maps.Keys(c.Services[name].DependsOn)), func(other string) bool { return !slices.Contains(all, other) })
			if !waits && !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
		if len(all) == before {
			t.Fatalf("services wait for each other; only these can start: %v", all)
		}
	}
	return all
}

// onOurServers replaces the addresses in a text, by those of the servers that a test has.
func (w *world) onOurServers(text string) string {
	rabbit := fmt.Sprintf("(broker_id, host, port, vhost) values (1, '%s', %d, '%s')", w.rabbit.Host(), w.rabbit.Port(), w.vhosts[0])
	return strings.NewReplacer(
		"postgres://postgres:demo@postgres/shop", w.url(),
		"(broker_id, host, username, password) values (1, 'rabbitmq', 'demo', 'demo')", rabbit,
	).Replace(text)
}

// inContainer runs our program as a container would: nothing in its environment is ours but what is given.
func inContainer(t *testing.T, args []string, environment map[string]string) *daemon {
	t.Helper()
	cmd := exec.Command(shared.program, args...)
	cmd.Env = []string{"GORACE=halt_on_error=1 exitcode=66 atexit_sleep_ms=0"}
	for name, value := range environment {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return follow(t, cmd)
}

// TestComposeUpDeliversAMessage does what the services would, in the order of their dependencies, on other servers.
func TestComposeUpDeliversAMessage(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{}), bare: true})
	// The account in the connection string is the one that the service of PostgreSQL makes, and so is the database.
	given, err := url.Parse(c.Services["pgamqp"].Environment["PGAMQP_DATABASE_URL"])
	if err != nil {
		t.Fatal(err)
	}
	password, _ := given.User.Password()
	server := c.Services["postgres"].Environment
	if password != server["POSTGRES_PASSWORD"] || "/"+server["POSTGRES_DB"] != given.Path || given.User.Username() != "postgres" || given.Host != "postgres" {
		t.Errorf("the daemon connects to %s, the server has %v", given, server)
	}
	if got := c.Services["postgres"].Command; !slices.Contains(got, "wal_level=logical") {
		t.Errorf("PostgreSQL runs by %q", got)
	}

	var running *daemon
	for _, name := range c.order(t) {
		s := c.Services[name]
		environment := map[string]string{"PGAMQP_LISTEN": fmt.Sprintf(":%d", closedPort(t))} // of the image, with another port
		for variable, value := range s.Environment {
			environment[variable] = w.onOurServers(value)
		}
		switch {
		case name == "example":
			script, err := os.ReadFile(filepath.Join(composeFolder, "compose", "example.sql"))
			if err != nil || !slices.Contains(s.Command, "--file=/example.sql") {
				t.Fatalf("%q: %v", s.Command, err)
			}
			text := w.onOurServers(string(script))
			for range 2 { // `up` runs it each time
				if _, err := w.postgres.Psql(t.Context(), w.database, text); err != nil {
					t.Fatal(err)
				}
			}
			wantMatch(t, string(script), fmt.Sprintf("'%s', '%s', '%s'", "rabbitmq",
				c.Services["rabbitmq"].Environment["RABBITMQ_DEFAULT_USER"], c.Services["rabbitmq"].Environment["RABBITMQ_DEFAULT_PASS"]))
		case !s.ours():
		case len(s.Healthcheck.Test) == 0: // ends by itself
			for range 2 {
				if d := inContainer(t, s.Command, environment); d.wait(time.Minute) != 0 {
					t.Fatalf("service %s: %s", name, d.log.String())
				}
			}
		default:
			running = inContainer(t, s.Command, environment)
			await(t, startLimit, name+" is healthy", func() bool {
				return inContainer(t, s.Healthcheck.Test[2:], environment).wait(s.Healthcheck.Timeout) == 0
			})
		}
	}
	if running == nil {
		t.Fatal("no service runs the daemon")
	}
	runComposeCommands(t, c, w, running)
	if got := strings.Join(bodies(w.received(1, "orders")), " "); got != "composed" {
		t.Errorf("%q came", got)
	}
}

// runComposeCommands does what docs/operations.md says to do with the services.
func runComposeCommands(t *testing.T, c composeFile, w *world, d *daemon) {
	t.Helper()
	const compose = "docker compose --file packaging/compose.yaml "
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range linesOf(claimedBy(t, "TestComposeUpDeliversAMessage", "sh", "docs/operations.md")[0]) {
		words := strings.Fields(strings.TrimPrefix(line, compose))
		switch {
		case words[0] == "make":
			wantMatch(t, string(makefile), `(?m)^`+words[1]+`: `)
		case !strings.HasPrefix(line, compose):
			t.Errorf("nobody runs %q", line)
		case words[0] == "up", words[0] == "down": // what the test does
		case words[0] != "exec" || c.Services[words[1]].Image == "":
			t.Errorf("there is no service for %q", line)
		case words[2] == "psql":
			_, sql, _ := strings.Cut(line, `--command="`)
			w.exec(strings.TrimSuffix(sql, `"`))
			if user, database := words[3], words[4]; user != "--username=postgres" || database != "--dbname="+c.Services["postgres"].Environment["POSTGRES_DB"] {
				t.Errorf("other names than those of the service: %q", line)
			}
		case words[2] == "pgamqp":
			if code, out := pgamqp(t, append(words[3:], "--database-url", w.url(), "--listen", d.address())...); code != 0 {
				t.Errorf("%q: exit code %d\n%s", line, code, out)
			}
		case words[2] == "rabbitmqctl" && words[3] == "list_queues": // of the server, not ours
		default:
			t.Errorf("nobody runs %q", line)
		}
	}
}
