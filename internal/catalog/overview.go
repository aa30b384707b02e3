package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Overview is what the database knows of the path from it to the brokers, whether a daemon runs or not.
type Overview struct {
	ServerVersion string
	Database      string
	Installation  Installation
	// Slots is the slot of the installation, or its name alone with Missing, and those of detached brokers.
	Slots   []OverviewSlot
	Brokers []Broker      // without their secrets
	Letters []LetterCount // by broker and reason
	// Snapshots are those that are not over, and those that have failed.
	Snapshots []Snapshot
	// OldestWriter is the transaction that keeps the server from removing WAL; see [OldestTransaction].
	OldestWriter string
}

// OverviewSlot is a slot, or one that should be there.
type OverviewSlot struct {
	SlotStatus
	Missing bool
}

// LetterCount is how many dead letters there are with the same broker and reason.
type LetterCount struct {
	BrokerID *int32    `json:"broker_id"` // nil for what could not be decoded
	Reason   string    `json:"reason"`
	Count    int64     `json:"count"`
	Oldest   time.Time `json:"oldest"`
}

// ReadOverview reads all of it, or [ErrNotInstalled]. slot is that of the daemon; empty is that of the installation.
func ReadOverview(ctx context.Context, conn *pgx.Conn, slot string) (Overview, error) {
	var o Overview
	s, err := readServer(ctx, conn)
	if err != nil {
		return o, err
	}
	o.ServerVersion, o.Database = s.versionName, s.database
	if o.Installation, err = ReadInstallation(ctx, conn); err != nil {
		return o, err
	}
	if slot == "" {
		slot = o.Installation.Slot
	}
	lanes, err := laneSlots(ctx, conn, slot)
	if err != nil {
		return o, err
	}
	for _, name := range append([]string{slot}, lanes...) {
		status, err := ReadSlot(ctx, conn, name)
		switch {
		case errors.Is(err, ErrNoSlot) && name != slot:
			continue // the broker is back
		case errors.Is(err, ErrNoSlot):
			o.Slots = append(o.Slots, OverviewSlot{SlotStatus: SlotStatus{Name: name}, Missing: true})
		case err != nil:
			return o, err
		default:
			o.Slots = append(o.Slots, OverviewSlot{SlotStatus: status})
		}
	}
	if o.Brokers, err = BrokersToSee(ctx, conn); err != nil {
		return o, err
	}
	if o.Letters, err = countLetters(ctx, conn); err != nil {
		return o, err
	}
	all, err := Snapshots(ctx, conn)
	if err != nil {
		return o, err
	}
	for _, snapshot := range all {
		if snapshot.State != "done" && snapshot.State != "canceled" {
			o.Snapshots = append(o.Snapshots, snapshot)
		}
	}
	o.OldestWriter, err = OldestTransaction(ctx, conn)
	return o, err
}

func countLetters(ctx context.Context, conn *pgx.Conn) ([]LetterCount, error) {
	rows, err := conn.Query(ctx, `
		select broker_id, reason, pg_catalog.count(*), pg_catalog.min(first_failed_at)
		  from amqp.dead_letter group by 1, 2 order by 1, 2`)
	if err == nil {
		var all []LetterCount
		if all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[LetterCount]); err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("count dead letters: %w", err)
}
