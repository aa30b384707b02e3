package snapshot

import (
	"encoding/json"
	"fmt"
)

// Outcome is what has become of a chunk at its place.
type Outcome int

// The outcomes.
const (
	Sent     Outcome = iota // its rows go to their brokers
	Again                   // it must be read again
	Detached                // a broker has a stream of its own now
	Unrouted                // no route takes rows of the table
)

// Settle says what has become of the chunk, once.
func (c *Chunk) Settle(o Outcome) { c.settled <- o }

// Place is the message that stands for a chunk in the stream.
type Place struct {
	Snapshot int32    `json:"snapshot"`
	Chunk    int64    `json:"chunk"`
	Schema   string   `json:"schema"`
	Table    string   `json:"table"`
	After    []string `json:"after"` // where the chunk begins; null at the start
	Rows     int64    `json:"rows"`
	End      bool     `json:"end"` // it is the last one
	Token    string   `json:"token"`
	// Moved are the keys of the rows, if they were read once more.
	Moved [][]string `json:"moved"`
}

// ParsePlace reads the body of such a message.
func ParsePlace(body []byte) (p Place, err error) {
	if err := json.Unmarshal(body, &p); err != nil {
		return p, fmt.Errorf("read the place of a snapshot's chunk: %w", err)
	}
	return p, nil
}
