package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Installation is what schema amqp says of itself.
type Installation struct {
	Version     int
	Slot        string
	Publication string
	InstalledAt time.Time
	UpgradedAt  *time.Time // nil while it has its first version
	Extension   bool       // made by CREATE EXTENSION amqp
}

// ErrNotInstalled means that this database has no schema amqp of ours.
var ErrNotInstalled = errors.New(`schema amqp is not installed in this database; run "pgamqp install"`)

// ReadInstallation returns the record of the installation, or [ErrNotInstalled].
func ReadInstallation(ctx context.Context, conn *pgx.Conn) (Installation, error) {
	var i Installation
	var present bool
	err := conn.QueryRow(ctx, `select pg_catalog.to_regclass('amqp.installation') is not null`).Scan(&present)
	if err != nil {
		return i, fmt.Errorf("look for schema amqp: %w", err)
	}
	if !present {
		return i, ErrNotInstalled
	}
	err = conn.QueryRow(ctx, `
		select version, slot_name, publication_name, installed_at, upgraded_at,
		       exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
		                  and d.objid = 'amqp.installation'::pg_catalog.regclass and d.deptype = 'e')
		  from amqp.installation`).
		Scan(&i.Version, &i.Slot, &i.Publication, &i.InstalledAt, &i.UpgradedAt, &i.Extension)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return i, ErrNotInstalled
	case err != nil:
		return i, fmt.Errorf("read amqp.installation: %w", err)
	}
	return i, nil
}
