package main

import (
	"context"
	"sync/atomic"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/snapshot"
)

// trust is what signatures are checked by. It is shared by all streams.
//
// Invariant: no message that the functions have written is called forged for a key that is new. amqp.sign_messages
// makes a key and tells of it, in one transaction and signed with it; whoever signs with it otherwise has seen that
// transaction commit, and so comes behind it in every stream. Therefore it is enough to read anew at a message that
// tells of a key and was written by a transaction that the last reading has not shown. Each reading shows all
// transactions that have committed until then: forgers cannot ask for more readings than there is time for.
type trust struct {
	reading chan struct{}             // capacity 1: held while one reads, so that none replaces a newer one
	now     atomic.Pointer[knowledge] // as it was read last
	streams atomic.Int64              // how often a main stream has begun, each perhaps from another server
}

// knowledge is one reading.
type knowledge struct {
	decoder.Trust
	shown  snapshot.Visibility // the transactions that it shows,
	stream int64               // whose numbers mean the same only until another stream begins
}

func newTrust() *trust {
	t := &trust{reading: make(chan struct{}, 1)}
	t.now.Store(&knowledge{stream: -1})
	return t
}

// begin is called before definitions are read, and end behind that. It returns the number of the main stream.
func (t *trust) begin(ctx context.Context) (stream int64, err error) {
	select {
	case t.reading <- struct{}{}:
		return t.streams.Load(), nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

func (t *trust) end() { <-t.reading }

// learn replaces what is known by a reading that began with a stream.
func (t *trust) learn(s catalog.Signatures, stream int64) error {
	shown, err := snapshot.ParseVisibility(s.Snapshot)
	if err != nil {
		return err
	}
	t.now.Store(&knowledge{
		Trust: decoder.Trust{Keys: s.Keys, Required: s.Required, From: s.From}, shown: shown, stream: stream,
	})
	return nil
}

// open implements Open of publisher.Config.
func (t *trust) open(m decoder.Message) ([]byte, error) {
	err := t.now.Load().Open(&m)
	return m.Content, err
}

// outdated implements Outdated of publisher.Config.
func (t *trust) outdated(m decoder.Message) bool {
	now := t.now.Load()
	return decoder.TellsOfKey(&m) && (now.stream != t.streams.Load() || !now.shown.Shows(m.XID))
}
