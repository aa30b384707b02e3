package snapshot

import (
	"fmt"
	"strconv"
	"strings"
)

// Visibility is what a snapshot of the server shows: pg_snapshot, as text ("Transaction ID and
// Snapshot Information Functions" in PostgreSQL's documentation).
type Visibility struct {
	xmin, xmax uint64
	open       map[uint64]bool // that were in progress, between the two
}

// ParseVisibility reads a text such as 10:20:10,14,15.
func ParseVisibility(text string) (v Visibility, err error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return v, fmt.Errorf("%q is not a snapshot", text)
	}
	if v.xmin, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return v, fmt.Errorf("%q is not a snapshot: %w", text, err)
	}
	if v.xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return v, fmt.Errorf("%q is not a snapshot: %w", text, err)
	}
	v.open = make(map[uint64]bool)
	for _, one := range strings.FieldsFunc(parts[2], func(r rune) bool { return r == ',' }) {
		xid, err := strconv.ParseUint(one, 10, 64)
		if err != nil {
			return v, fmt.Errorf("%q is not a snapshot: %w", text, err)
		}
		v.open[xid] = true
	}
	return v, nil
}

// Shows tells whether a transaction that has committed is in the snapshot. The stream knows the
// lower half of its number; the rest follows from xmax, as two that run at a time are less than 2^31
// apart.
func (v Visibility) Shows(xid uint32) bool {
	behind := int32(xid - uint32(v.xmax))
	if behind >= 0 {
		return false
	}
	full := v.xmax - uint64(-int64(behind))
	return full < v.xmin || !v.open[full]
}
