package integration

import (
	"slices"
	"strings"
)

// The ledger is a second witness of what was committed, besides history: a table that
// transactions write their messages into. Whatever became of a COMMIT whose answer was lost, a
// message was committed if its row is there.

// enter is put in front of a statement that publishes $3 to broker $1.
const enter = `with entry as (insert into ledger values ($1, $3)) `

// createLedger makes the table.
func (w *world) createLedger() {
	w.t.Helper()
	w.exec(`create table ledger (broker int, body text primary key)`)
}

// checkLedger fails the test if history says something else than the table. The table does
// not have autonomous messages, which are not part of a transaction.
func (h *history) checkLedger() {
	h.w.t.Helper()
	for i := range h.w.vhosts {
		recorded := query[string](h.w, `select body from ledger where broker = $1 order by body collate "C"`, i+1)
		told := slices.DeleteFunc(h.bodies(i+1), func(body string) bool { return strings.HasSuffix(body, "autonomous") })
		slices.Sort(told)
		if !slices.Equal(told, recorded) {
			h.w.t.Errorf("broker %d: history tells of %d messages, the ledger of %d, and they differ", i+1, len(told), len(recorded))
		}
	}
}
