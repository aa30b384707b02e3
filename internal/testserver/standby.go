package testserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const backupLimit = time.Minute

// StandbyOptions describes a physical standby.
type StandbyOptions struct {
	// Name is that of the physical slot on the primary, and of the standby in
	// synchronized_standby_slots.
	Name string
	// Settings are added to postgresql.conf, behind the primary's own.
	Settings map[string]string
}

// StartStandby makes a physical standby of a running server and starts it. It streams by a
// slot of its own, so the primary keeps for it what it has not received, and gives feedback,
// as the synchronization of slots wants. The caller must Close it.
//
// It copies the files of the running primary between the two calls that a base backup
// consists of, because the programs from npm have no pg_basebackup.
func (p *Postgres) StartStandby(o StandbyOptions) (*Postgres, error) {
	s, err := p.copyAs(o)
	if err != nil {
		return nil, fmt.Errorf("make a standby: %w", err)
	}
	if err := s.startAnywhere(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (p *Postgres) copyAs(o StandbyOptions) (*Postgres, error) {
	port, err := leasePort()
	if err != nil {
		return nil, err
	}
	folder, err := newFolder(fmt.Sprintf("pg%d", p.version))
	if err != nil {
		port.release()
		return nil, err
	}
	s := &Postgres{version: p.version, bin: p.bin, folder: folder, as: p.as, port: port}
	s.log = logFile{path: filepath.Join(folder, "log")}
	err = s.as.mkdir(s.SocketDir())
	if err == nil {
		err = p.backup(s, o.Name)
	}
	if err == nil {
		err = s.follow(p, o)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// backup is a base backup of p into s, and a slot from which s can go on.
func (p *Postgres) backup(s *Postgres, slot string) error {
	ctx, cancel := context.WithTimeout(context.Background(), backupLimit)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, `select pg_create_physical_replication_slot($1, true)`, slot); err != nil {
		return err
	}
	begin, end := `select pg_backup_start('standby', true)`, `select labelfile from pg_backup_stop(false)`
	if p.version < 15 {
		begin, end = `select pg_start_backup('standby', true, false)`, `select labelfile from pg_stop_backup(false, false)`
	}
	if _, err := conn.Exec(ctx, begin); err != nil {
		return err
	}
	if err := s.as.copyTree(p.data(), s.data()); err != nil {
		return err
	}
	var label string
	if err := conn.QueryRow(ctx, end).Scan(&label); err != nil {
		return err
	}
	return s.as.write(filepath.Join(s.data(), "backup_label"), []byte(label), 0o600)
}

// follow makes p a standby of primary.
func (p *Postgres) follow(primary *Postgres, o StandbyOptions) error {
	settings := map[string]string{
		"primary_conninfo": fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres application_name=%s sslmode=disable",
			primary.Port(), o.Name),
		"primary_slot_name":            o.Name,
		"hot_standby_feedback":         "on",
		"wal_receiver_status_interval": "100ms",
		"wal_retrieve_retry_interval":  "100ms",
	}
	maps.Copy(settings, o.Settings)
	if err := p.appendSettings(settings); err != nil {
		return err
	}
	return p.as.write(filepath.Join(p.data(), "standby.signal"), nil, 0o600)
}

// Promote makes a primary of a standby and waits until it is one.
func (p *Postgres) Promote(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var promoted bool
	if err := conn.QueryRow(ctx, `select pg_promote(true, 30)`).Scan(&promoted); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	if !promoted {
		return errors.New("promote: it takes more than 30 seconds")
	}
	return nil
}

// leftOut are the parts of a data folder that belong to the running server, not to its
// data. Of the folders among them only the contents are left out. WAL comes by streaming.
func leftOut(path string) bool {
	switch path {
	case "postmaster.pid", "postmaster.opts", "backup_label":
		return true
	}
	switch filepath.Dir(path) {
	case "pg_wal":
		return path != "pg_wal/archive_status" && path != "pg_wal/summaries"
	case "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans":
		return true
	}
	return strings.HasPrefix(filepath.Base(path), "pgsql_tmp")
}

// copyTree copies a data folder while its server works. A file may disappear meanwhile:
// the WAL that is replayed over the copy says so, too.
func (a *account) copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		switch {
		case leftOut(relative) && d.IsDir():
			return fs.SkipDir
		case leftOut(relative):
			return nil
		case d.IsDir():
			return a.mkdir(target)
		case d.Type().IsRegular():
			return a.copyFile(path, target)
		}
		return nil // a link to a tablespace, which no test has
	})
}

func (a *account) copyFile(from, to string) error {
	in, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close(), a.own(to))
}
