package metrics

import "github.com/prometheus/client_golang/prometheus"

// WALStatus is the column wal_status of pg_replication_slots.
type WALStatus string

// The values of wal_status, from safe to gone.
const (
	WALReserved   WALStatus = "reserved"   // within max_wal_size
	WALExtended   WALStatus = "extended"   // beyond it, kept for the slot
	WALUnreserved WALStatus = "unreserved" // no longer kept: the next checkpoint may remove it
	WALLost       WALStatus = "lost"       // removed, or the slot was invalidated otherwise
)

// Slot is what a look at pg_replication_slots shows. All are absent until the first look.
type Slot struct {
	LagBytes      *Reading // current WAL position minus confirmed_flush_lsn
	RetainedBytes *Reading // current WAL position minus restart_lsn
	// SafeBytes is safe_wal_size. Clear it when the server says NULL: WAL is kept without limit.
	SafeBytes *Reading
	WALStatus *OneHot[WALStatus]
	// DeadLetterMessages is the number of rows in amqp.dead_letter; one for the daemon, whatever the slot.
	DeadLetterMessages *Reading

	set *set
}

// NewSlot declares the metrics of one slot as the server sees it.
func NewSlot(reg prometheus.Registerer, slot string) *Slot {
	s := &set{reg: reg}
	constant := prometheus.Labels{"slot": slot}
	return &Slot{
		LagBytes: own(s, newReading("slot_lag_bytes",
			"WAL written since the position that the slot has confirmed, in bytes.", constant)),
		RetainedBytes: own(s, newReading("slot_retained_wal_bytes",
			"WAL that PostgreSQL keeps on disk for the slot, in bytes.", constant)),
		SafeBytes: own(s, newReading("slot_safe_wal_bytes",
			"WAL that may be written before the slot can be lost, in bytes; absent when the server sets no limit.", constant)),
		WALStatus: own(s, newOneHot("slot_wal_status", "State of the slot's WAL on the server: 1 for the current one.",
			"status", constant, WALReserved, WALExtended, WALUnreserved, WALLost)),
		DeadLetterMessages: shared(reg, newReading("dead_letter_messages",
			"Messages in amqp.dead_letter that wait for somebody to look at them.", nil)),
		set: s,
	}
}

// Clear makes everything unknown, for when the server cannot be asked.
func (s *Slot) Clear() {
	s.LagBytes.Clear()
	s.RetainedBytes.Clear()
	s.SafeBytes.Clear()
	s.WALStatus.Clear()
	s.DeadLetterMessages.Clear()
}

// Remove takes the slot's series out of the registry, for a slot that was dropped. The struct must not be used after.
func (s *Slot) Remove() { s.set.remove() }
