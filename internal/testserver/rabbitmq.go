package testserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	rabbitStartLimit = 90 * time.Second
	rabbitStopLimit  = 30 * time.Second
	epmdStartLimit   = 20 * time.Second
)

// RabbitMQOptions describes a RabbitMQ node. The zero value is a good one.
type RabbitMQOptions struct {
	// Version is the major version, 3 or 4; 0 is that of PGAMQP_TEST_RABBITMQ if set, else
	// whichever the machine has.
	Version int

	// Plugins are enabled besides rabbitmq_management.
	Plugins []string

	// Config holds more lines for rabbitmq.conf.
	Config []string

	// TLS, if set, adds a second listener, which TLSPort tells.
	TLS *TLS

	// Log also gets what the node prints. It must not block.
	Log io.Writer
}

// RabbitMQ is a RabbitMQ node with the management plugin, on disk, with user guest (password
// guest, administrator) and virtual host "/". Its methods may be called from any goroutine.
//
// It takes five seconds to start, so tests should share one and have a virtual host each.
type RabbitMQ struct {
	folder   string
	log      logFile
	as       *account
	options  RabbitMQOptions
	programs rabbitInstallation
	peers    []string // the nodes of its cluster; none: it is not in one

	mu     sync.Mutex // guards what is below, and one start or stop at a time
	ports  rabbitPorts
	epmd   *epmd    // that of the cluster if it is in one
	proc   *process // nil before the first start
	paused bool
}

// rabbitPorts are the ports of a node.
type rabbitPorts struct{ amqp, tls, management, distribution *portLease }

func leaseRabbitPorts() (rabbitPorts, error) {
	l, err := leasePorts(4)
	if err != nil {
		return rabbitPorts{}, err
	}
	return rabbitPorts{l[0], l[1], l[2], l[3]}, nil
}

func (p rabbitPorts) release() {
	releasePorts([]*portLease{p.amqp, p.tls, p.management, p.distribution})
}

// StartRabbitMQ makes a new node and starts it. The caller must Close it.
func StartRabbitMQ(o RabbitMQOptions) (*RabbitMQ, error) {
	r, err := newRabbitMQ(o)
	if err != nil {
		return nil, fmt.Errorf("start rabbitmq: %w", err)
	}
	if err := r.startAnywhere(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// startAnywhere configures and starts the node, on other ports if someone took one of its.
func (r *RabbitMQ) startAnywhere() error {
	for try := 1; ; try++ {
		err := r.configure()
		if err == nil {
			err = r.Start()
		}
		taken := errors.Is(err, errEpmdEnded) || portTaken(r.log.since(0))
		if err == nil || try == startTries || !taken {
			return err
		}
		if err := r.forget(); err != nil {
			return err
		}
	}
}

func newRabbitMQ(o RabbitMQOptions) (*RabbitMQ, error) {
	programs, err := findRabbitMQ(o.Version)
	if err != nil {
		return nil, err
	}
	as, err := serverAccount()
	if err != nil {
		return nil, err
	}
	ports, err := leaseRabbitPorts()
	if err != nil {
		return nil, err
	}
	folder, err := newFolder("rabbitmq")
	if err != nil {
		ports.release()
		return nil, err
	}
	r := &RabbitMQ{
		folder: folder, as: as, options: o, programs: programs, ports: ports,
		log: logFile{path: filepath.Join(folder, "log"), also: o.Log},
	}
	if r.epmd, err = newEpmd(r.epmdLog()); err != nil {
		ports.release()
		return nil, errors.Join(err, removeFolder(folder))
	}
	return r, nil
}

func (r *RabbitMQ) epmdLog() logFile { return logFile{path: filepath.Join(r.folder, "epmd.log")} }

// forget returns to the state of newRabbitMQ, with other ports: the node's name and so its
// data depend on them.
func (r *RabbitMQ) forget() error {
	if err := r.epmd.close(); err != nil {
		return err
	}
	other, err := newEpmd(r.epmdLog())
	if err != nil {
		return err
	}
	ports, err := leaseRabbitPorts()
	if err != nil {
		other.lease.release()
		return err
	}
	r.ports.release()
	r.ports, r.epmd = ports, other
	return errors.Join(removeFolder(r.home()), os.RemoveAll(r.log.path))
}

// Start starts a stopped node, with the same data and ports, and waits until a client can
// log in and the management API answers.
func (r *RabbitMQ) Start() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.proc.running() {
		return errors.New("start rabbitmq: it runs already")
	}
	if err := r.epmd.start(r); err != nil {
		return err
	}
	server, err := r.programs.find("rabbitmq-server")
	if err != nil {
		return err
	}
	cmd, as := r.command(context.Background(), server)
	proc, err := launch("rabbitmq", cmd, r.log, as, syscall.SIGKILL)
	if err != nil {
		return err
	}
	r.proc, r.paused = proc, false
	ctx, cancel := context.WithTimeout(context.Background(), rabbitStartLimit)
	defer cancel()
	err = await(ctx, proc, 50*time.Millisecond, func() bool { return r.ready(ctx) })
	if err == nil && len(r.peers) > 0 {
		// A virtual host that is added while a node of the cluster has opened its port but not
		// yet booted does not come to be on it, which the adding node waits a minute for.
		_, err = r.Ctl(ctx, "await_startup")
	}
	if err != nil {
		err = fmt.Errorf("wait until rabbitmq is ready: %w; its log ends with:\n%s", err, r.log.tail())
		if proc.running() {
			err = errors.Join(err, proc.end(syscall.SIGKILL, rabbitStopLimit, syscall.SIGKILL))
		}
		return err
	}
	return nil
}

// ready tries what tests do first. The AMQP port opens last.
func (r *RabbitMQ) ready(ctx context.Context) bool {
	c, err := net.DialTimeout("tcp", r.Addr(), time.Second)
	if err != nil {
		return false
	}
	_ = c.Close()
	conn, err := amqp.DialConfig(r.URL("/"), amqp.Config{Dial: amqp.DefaultDial(5 * time.Second)})
	if err != nil {
		return false
	}
	return conn.Close() == nil && r.API(ctx, "GET", "/overview", nil, nil) == nil
}

// Stop shuts the node down in order and waits for its end; data and ports stay for Start.
func (r *RabbitMQ) Stop() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.proc.running() {
		return nil
	}
	if err := r.resume(); err != nil {
		return err
	}
	return r.proc.end(syscall.SIGTERM, rabbitStopLimit, syscall.SIGKILL)
}

// Kill ends the node with SIGKILL and waits for its end; Start may follow.
func (r *RabbitMQ) Kill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.proc.running() {
		return nil
	}
	return r.proc.end(syscall.SIGKILL, rabbitStopLimit, syscall.SIGKILL)
}

// Pause stops the node's process in its tracks: connections stay open and nothing answers.
func (r *RabbitMQ) Pause() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.proc.running() {
		return errors.New("pause rabbitmq: it does not run")
	}
	r.paused = true
	return Suspend(r.proc.cmd.Process)
}

// Resume ends a pause.
func (r *RabbitMQ) Resume() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.resume()
}

func (r *RabbitMQ) resume() error {
	if !r.paused {
		return nil
	}
	r.paused = false
	return r.proc.signal(syscall.SIGCONT)
}

// Close ends the node at once and removes all it had. It may be called twice. A node of a
// cluster is closed with it.
func (r *RabbitMQ) Close() error {
	err := errors.Join(r.Kill(), r.epmd.close())
	r.ports.release()
	return errors.Join(err, removeFolder(r.folder))
}

// Host is the address the node listens on.
func (r *RabbitMQ) Host() string { return "127.0.0.1" }

// Port is the AMQP port.
func (r *RabbitMQ) Port() int { return r.ports.amqp.port }

// TLSPort is the port of the TLS listener; nothing listens there unless the options say so.
func (r *RabbitMQ) TLSPort() int { return r.ports.tls.port }

// Addr is host and AMQP port.
func (r *RabbitMQ) Addr() string { return net.JoinHostPort(r.Host(), strconv.Itoa(r.Port())) }

// URL is the AMQP address of a virtual host, for user guest.
func (r *RabbitMQ) URL(vhost string) string {
	return fmt.Sprintf("amqp://guest:guest@%s/%s", r.Addr(), url.PathEscape(vhost))
}

// PID is the process id of the node, 0 when it does not run.
func (r *RabbitMQ) PID() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.proc.running() {
		return 0
	}
	return r.proc.pid()
}

// LogTail returns the last lines of the node's log.
func (r *RabbitMQ) LogTail() string { return r.log.tail() }

// Ctl runs rabbitmqctl against the node and returns what it printed. A call takes half a
// second; the management API is quicker.
func (r *RabbitMQ) Ctl(ctx context.Context, args ...string) (string, error) {
	ctl, err := r.programs.find("rabbitmqctl")
	if err != nil {
		return "", err
	}
	return runTool(r.command(ctx, ctl, append([]string{"--quiet", "--node", r.Node()}, args...)...))
}

// Save makes the node write to disk which queues and policies it has, and returns when that is done. By itself it does
// so within a second: a node that is killed before forgets a queue with all that it has confirmed, or keeps a quorum
// queue that never confirms anything again.
func (r *RabbitMQ) Save(ctx context.Context) error {
	_, err := r.Ctl(ctx, "eval", "mnesia:dump_log(), [ok = dets:sync(T) || T <- dets:all()], ok.")
	return err
}

// command prepares a program of the node's, to be started as the account that it returns.
func (r *RabbitMQ) command(ctx context.Context, program string, args ...string) (*exec.Cmd, *account) {
	return r.programs.command(ctx, r.folder, r.as, r.environment(), program, args...)
}

// Node is the name of the Erlang node. The port makes it unique; "localhost" spares every
// question about the name of the machine.
func (r *RabbitMQ) Node() string { return fmt.Sprintf("test%d@localhost", r.Port()) }

func (r *RabbitMQ) home() string { return filepath.Join(r.folder, "home") }

func (r *RabbitMQ) file(name string) string { return filepath.Join(r.home(), name) }

// seen is where the node sees a file, or its home if name is empty.
func (r *RabbitMQ) seen(name string) string {
	return filepath.Join(r.programs.seen(r.folder), "home", name)
}

// tlsLines configures the TLS listener.
func (r *RabbitMQ) tlsLines() []string {
	t := r.options.TLS
	if t == nil {
		return nil
	}
	lines := []string{
		fmt.Sprintf("listeners.ssl.1 = 127.0.0.1:%d", r.ports.tls.port),
		"ssl_options.certfile = " + r.seen("server.crt"),
		"ssl_options.keyfile = " + r.seen("server.key"),
	}
	if t.ClientCA == nil {
		return append(lines, "ssl_options.verify = verify_none", "ssl_options.fail_if_no_peer_cert = false")
	}
	return append(lines, "ssl_options.cacertfile = "+r.seen("clients.crt"),
		"ssl_options.verify = verify_peer", "ssl_options.fail_if_no_peer_cert = true")
}

// configure writes the files the node reads.
func (r *RabbitMQ) configure() error {
	if err := r.as.mkdir(r.home()); err != nil {
		return err
	}
	lines := []string{
		fmt.Sprintf("listeners.tcp.1 = %s", r.Addr()),
		"management.tcp.ip = 127.0.0.1",
		fmt.Sprintf("management.tcp.port = %d", r.ports.management.port),
		// Each step from a queue to the management API takes five seconds by default.
		"collect_statistics_interval = 1000",
		"management.sample_retention_policies.global.minute = 1",
		"management.sample_retention_policies.basic.minute = 1",
		"management.sample_retention_policies.detailed.minute = 1",
		"log.console = true",
		"log.file = false",
	}
	lines = slices.Concat(lines, r.tlsLines(), r.clusterLines(), r.options.Config)
	plugins := append([]string{"rabbitmq_management"}, r.options.Plugins...)
	files := map[string]string{
		"rabbitmq.conf":   strings.Join(lines, "\n") + "\n",
		"enabled_plugins": "[" + strings.Join(plugins, ",") + "].\n",
		"env.conf":        "", // keeps the one in /etc out
		".erlang.cookie":  "pgamqptest",
	}
	if t := r.options.TLS; t != nil {
		files["server.crt"], files["server.key"], files["clients.crt"] = string(t.Certificate), string(t.Key), string(t.ClientCA)
	}
	for name, content := range files {
		if err := r.as.write(r.file(name), []byte(content), 0o400); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

func (r *RabbitMQ) environment() []string {
	return environment(
		"HOME="+r.seen(""),
		"LC_ALL=C.UTF-8",
		"TZ=UTC",
		"RABBITMQ_NODENAME="+r.Node(),
		fmt.Sprintf("RABBITMQ_DIST_PORT=%d", r.ports.distribution.port),
		fmt.Sprintf("ERL_EPMD_PORT=%d", r.epmd.lease.port),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_CRASH_DUMP_SECONDS=0", // none, the log says enough
		"RABBITMQ_MNESIA_BASE="+r.seen("mnesia"),
		"RABBITMQ_LOG_BASE="+r.seen("log"),
		"RABBITMQ_CONFIG_FILE="+r.seen("rabbitmq.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+r.seen("enabled_plugins"),
		"RABBITMQ_CONF_ENV_FILE="+r.seen("env.conf"),
		// No epmd by the node, which would outlive all; no busy waiting, which two cores feel.
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false"+
			" +sbwt none +sbwtdcpu none +sbwtdio none",
		// With both, the script becomes the node by exec. Without, it stays as a shell that
		// traps signals, and killing it leaves the node running.
		"RABBITMQ_ALLOW_INPUT=1",
		"RABBITMQ_SERVER_START_ARGS=-noshell -noinput",
	)
}
