package testserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
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

	"github.com/jackc/pgx/v5"
)

const (
	postgresStartLimit = 60 * time.Second
	postgresStopLimit  = 30 * time.Second
	initdbLimit        = 2 * time.Minute
	startTries         = 5
)

// PostgresOptions describes a PostgreSQL server. The zero value is a good one.
type PostgresOptions struct {
	// Version is the major version, one of Versions; 0 is that of DefaultVersion.
	Version int

	// Settings are added to postgresql.conf and win over the defaults of this package.
	// ALTER SYSTEM wins over them, as on any server.
	Settings map[string]string

	// Durable keeps fsync and full page writes on. A test that kills the server needs it to
	// mean anything about the data; everything else is faster without.
	Durable bool

	// TLS, if set, lets clients use TLS.
	TLS *TLS

	// HBA, if set, is the lines of pg_hba.conf; without it everybody is trusted.
	HBA []string

	// Extensions, if set, is a folder with control files and scripts that the server has in
	// addition to its own extensions.
	Extensions string

	// Log also gets what the server prints. It must not block.
	Log io.Writer
}

// StopMode says what a stopping server does with its clients.
type StopMode int

// The stop modes of PostgreSQL.
const (
	Smart     StopMode = iota // waits until the clients have left
	Fast                      // disconnects clients, then stops in order
	Immediate                 // drops everything; the next start recovers
)

func (m StopMode) signal() syscall.Signal {
	switch m {
	case Smart:
		return syscall.SIGTERM
	case Fast:
		return syscall.SIGINT
	default:
		return syscall.SIGQUIT
	}
}

// String returns the name that pg_ctl uses.
func (m StopMode) String() string {
	return [...]string{"smart", "fast", "immediate"}[m]
}

// Postgres is a PostgreSQL server ready for logical replication, with user postgres, no
// password and wal_level = logical. Its methods may be called from any goroutine.
type Postgres struct {
	version int
	bin     string
	folder  string
	log     logFile
	as      *account

	mu   sync.Mutex // guards what is below, and one start or stop at a time
	port *portLease
	proc *process // nil before the first start
}

// StartPostgres makes a new cluster and starts it. The caller must Close it.
func StartPostgres(o PostgresOptions) (*Postgres, error) {
	p, err := newPostgres(o)
	if err != nil {
		return nil, fmt.Errorf("start postgresql: %w", err)
	}
	if err := p.startAnywhere(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// startAnywhere starts the server, on another port if someone took the one it has.
func (p *Postgres) startAnywhere() error {
	for try := 1; ; try++ {
		from := p.log.size()
		err := p.Start()
		if err == nil || try == startTries || !portTaken(p.log.since(from)) {
			return err
		}
		if err := p.changePort(); err != nil {
			return err
		}
	}
}

// newPostgres makes the cluster.
func newPostgres(o PostgresOptions) (*Postgres, error) {
	if o.Version == 0 {
		v, err := DefaultVersion()
		if err != nil {
			return nil, err
		}
		o.Version = v
	}
	bin, err := postgresPrograms(o.Version)
	if err != nil {
		return nil, err
	}
	as, err := serverAccount()
	if err != nil {
		return nil, err
	}
	port, err := leasePort()
	if err != nil {
		return nil, err
	}
	folder, err := newFolder(fmt.Sprintf("pg%d", o.Version))
	if err != nil {
		port.release()
		return nil, err
	}
	p := &Postgres{version: o.Version, bin: bin, folder: folder, as: as, port: port}
	p.log = logFile{path: filepath.Join(folder, "log"), also: o.Log}
	if err := p.initialize(o); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// initialize runs initdb and writes the configuration.
func (p *Postgres) initialize(o PostgresOptions) error {
	if o.Extensions != "" {
		bin, err := withExtensions(p.bin, filepath.Join(p.folder, "installation"), o.Extensions)
		if err != nil {
			return err
		}
		p.bin = bin
	}
	for _, dir := range []string{p.data(), p.SocketDir()} {
		if err := p.as.mkdir(dir); err != nil {
			return err
		}
	}
	// Clients of other users, such as psql run by root or by a plain user, use the socket too.
	if err := os.Chmod(p.SocketDir(), 0o755); err != nil {
		return err
	}
	args := []string{"-D", p.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions"}
	if !o.Durable {
		args = append(args, "--no-sync")
	}
	ctx, cancel := context.WithTimeout(context.Background(), initdbLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "initdb"), args...)
	cmd.Dir, cmd.Env = "/", p.environment()
	if _, err := runTool(cmd, p.as); err != nil {
		return err
	}
	return p.configure(o)
}

func (p *Postgres) configure(o PostgresOptions) error {
	settings := map[string]string{
		"wal_level":             "logical",
		"max_wal_senders":       "20",
		"max_replication_slots": "20",
		"shared_buffers":        "16MB",
		"log_line_prefix":       "%m [%p] %a ",
		// In the data folder rather than in /dev/shm, so that a killed server leaves nothing.
		"dynamic_shared_memory_type": "mmap",
	}
	if !o.Durable {
		settings["fsync"] = "off"
		settings["full_page_writes"] = "off"
	}
	if o.TLS != nil {
		for name, content := range map[string][]byte{"server.crt": o.TLS.Certificate, "server.key": o.TLS.Key} { // where PostgreSQL looks
			if err := p.as.write(filepath.Join(p.data(), name), content, 0o600); err != nil {
				return err
			}
		}
		settings["ssl"] = "on"
		if o.TLS.ClientCA != nil {
			if err := p.as.write(filepath.Join(p.data(), "root.crt"), o.TLS.ClientCA, 0o600); err != nil {
				return err
			}
			settings["ssl_ca_file"] = "root.crt"
		}
	}
	if o.HBA != nil {
		if err := p.as.write(filepath.Join(p.data(), "pg_hba.conf"), []byte(strings.Join(o.HBA, "\n")+"\n"), 0o600); err != nil {
			return err
		}
	}
	maps.Copy(settings, o.Settings)
	return p.appendSettings(settings)
}

// appendSettings adds to postgresql.conf; what comes later wins.
func (p *Postgres) appendSettings(settings map[string]string) error {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		value := strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(settings[name])
		fmt.Fprintf(&text, "%s = '%s'\n", name, value)
	}
	f, err := os.OpenFile(filepath.Join(p.data(), "postgresql.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n" + text.String())
	return errors.Join(err, f.Close())
}

func (p *Postgres) changePort() error {
	port, err := leasePort()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.port.release()
	p.port = port
	return nil
}

// Start starts a stopped server, with the same data and port, and waits until it accepts
// clients.
func (p *Postgres) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.proc.running() {
		return fmt.Errorf("start postgresql %d: it runs already", p.version)
	}
	// Left by a server that was killed; were its pid in use again, the new one would refuse.
	if err := os.Remove(p.pidFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("start postgresql %d: %w", p.version, err)
	}
	cmd := exec.Command(filepath.Join(p.bin, "postgres"), "-D", p.data(),
		"-h", "127.0.0.1", "-p", strconv.Itoa(p.port.port), "-k", p.SocketDir())
	cmd.Dir, cmd.Env = "/", p.environment()
	// SIGQUIT, as the postmaster must take its children with it.
	proc, err := launch(fmt.Sprintf("postgresql %d", p.version), cmd, p.log, p.as, syscall.SIGQUIT)
	if err != nil {
		return err
	}
	p.proc = proc
	ctx, cancel := context.WithTimeout(context.Background(), postgresStartLimit)
	defer cancel()
	if err := await(ctx, proc, 5*time.Millisecond, p.ready); err != nil {
		err = fmt.Errorf("wait until postgresql %d is ready: %w; its log ends with:\n%s", p.version, err, p.log.tail())
		if proc.running() {
			err = errors.Join(err, proc.end(syscall.SIGQUIT, postgresStopLimit, syscall.SIGKILL))
		}
		return err
	}
	return nil
}

// ready reads the postmaster's own word for it: the first line of its pid file is its pid,
// the eighth its state. A test by connecting would show up in the server's log.
func (p *Postgres) ready() bool {
	content, err := os.ReadFile(p.pidFile())
	if err != nil {
		return false
	}
	lines := strings.Split(string(content), "\n")
	return len(lines) >= 8 && lines[0] == strconv.Itoa(p.proc.pid()) && strings.TrimSpace(lines[7]) == "ready"
}

// Stop stops the server and waits for its end; the data stays for Start. A server that has
// not stopped after half a minute is stopped at once, with an error: in smart mode because a
// client stayed, in fast mode mostly because a replication client did not take its rest.
func (p *Postgres) Stop(mode StopMode) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.proc.running() {
		return nil
	}
	return p.proc.end(mode.signal(), postgresStopLimit, syscall.SIGQUIT)
}

// Restart is Stop and Start.
func (p *Postgres) Restart(mode StopMode) error {
	if err := p.Stop(mode); err != nil {
		return err
	}
	return p.Start()
}

// Kill ends the server like a power cut: SIGKILL to the postmaster, then to each of its
// processes. It returns when all are gone, so Start may follow.
func (p *Postgres) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.proc.running() {
		return nil
	}
	// Stopped first, so that it makes no new child between the list and its end.
	if err := Suspend(p.proc.cmd.Process); err != nil {
		return err
	}
	children := childrenOf(p.proc.pid())
	if err := p.proc.end(syscall.SIGKILL, postgresStopLimit, syscall.SIGKILL); err != nil {
		return err
	}
	for _, c := range children {
		if c.alive() {
			_ = syscall.Kill(c.pid, syscall.SIGKILL) // gone already is as good
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), postgresStopLimit)
	defer cancel()
	gone := func() bool { return !slices.ContainsFunc(children, processID.alive) }
	if err := await(ctx, nil, 2*time.Millisecond, gone); err != nil {
		return fmt.Errorf("kill postgresql %d: wait for its processes: %w", p.version, err)
	}
	return nil
}

// Close stops the server at once and removes all it had. It may be called twice.
func (p *Postgres) Close() error {
	err := p.Stop(Immediate)
	p.port.release()
	return errors.Join(err, removeFolder(p.folder))
}

// Version is the major version.
func (p *Postgres) Version() int { return p.version }

// Port is the TCP port on 127.0.0.1.
func (p *Postgres) Port() int { return p.port.port }

// PID is the process id of the postmaster, 0 when it does not run.
func (p *Postgres) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.proc.running() {
		return 0
	}
	return p.proc.pid()
}

// SocketDir is the folder of the Unix socket.
func (p *Postgres) SocketDir() string { return filepath.Join(p.folder, "sock") }

// LogTail returns the last lines of the server's log.
func (p *Postgres) LogTail() string { return p.log.tail() }

// URL is the address of a database, for user postgres.
func (p *Postgres) URL(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.User("postgres"), Host: fmt.Sprintf("127.0.0.1:%d", p.Port()),
		Path: "/" + database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// CreateDatabase makes an empty database.
func (p *Postgres) CreateDatabase(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	if err != nil {
		err = fmt.Errorf("create database %s: %w", name, err)
	}
	return errors.Join(err, conn.Close(ctx))
}

// Psql runs a script with psql, which stops at the first error, and returns the output:
// unaligned rows without headers. Backslash commands work.
func (p *Postgres) Psql(ctx context.Context, database, script string) (string, error) {
	psql, err := findProgram("psql", p.bin, "/usr/lib/postgresql/15/bin")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, psql, "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", p.URL(database), "-f", "-")
	cmd.Env, cmd.Stdin = p.environment(), strings.NewReader(script)
	return runTool(cmd, nil)
}

func (p *Postgres) data() string    { return filepath.Join(p.folder, "data") }
func (p *Postgres) pidFile() string { return filepath.Join(p.data(), "postmaster.pid") }

func (p *Postgres) environment() []string {
	return environment("LC_ALL=C", "TZ=UTC")
}
