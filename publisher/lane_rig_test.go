package publisher

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/fakeamqp"
	"github.com/pgamqp/pgamqp/metrics"
)

// rig is a Publisher with the test as its brokers, as the table of definitions and
// as the store of dead letters.
type rig struct {
	tb   fakeamqp.TB
	pub  *Publisher
	reg  *prometheus.Registry
	stop func() // ends Run, and waits for it

	mu      sync.Mutex // guards all below
	brokers []Broker
	failing error // what the store of dead letters returns
	tries   int   // to store one
	letters []DeadLetter
	done    map[int]int // calls for each message
	order   []int       // of the first calls
	sent    int         // messages made
}
