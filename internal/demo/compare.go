package demo

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"
)

// result is the table at the end.
type result struct {
	tried, committed, rolledBack int64
	delivered, duplicates        int
	missing, extra               []int64
	odd                          []string
	letters                      int64
	p50, p99                     time.Duration
	samples                      int
}

func (r *result) perfect() bool {
	return len(r.missing) == 0 && len(r.extra) == 0 && r.duplicates == 0 && len(r.odd) == 0 && r.letters == 0 && r.committed > 0
}

// compare holds what was seen against what was committed.
func (w *world) compare(ctx context.Context, s *seen) (*result, error) {
	r := &result{delivered: s.total, duplicates: s.total - len(s.odd) - len(s.first), odd: s.odd}
	if err := w.db.QueryRow(ctx, `select last_value, (select count(*) from amqp.dead_letter) from message_id`).
		Scan(&r.tried, &r.letters); err != nil {
		return nil, fmt.Errorf("count messages: %w", err)
	}
	rows, err := w.db.Query(ctx, `select id, kind <> 'autonomous', pg_xact_commit_timestamp(xmin) from expected`)
	if err != nil {
		return nil, fmt.Errorf("read what was committed: %w", err)
	}
	defer rows.Close()
	expected := make(map[int64]bool)
	var latencies []time.Duration
	for rows.Next() {
		var id int64
		var atCommit bool
		var committed *time.Time
		if err := rows.Scan(&id, &atCommit, &committed); err != nil {
			return nil, err
		}
		expected[id] = true
		arrived, ok := s.first[id]
		switch {
		case !ok:
			r.missing = append(r.missing, id)
		case atCommit && committed != nil:
			latencies = append(latencies, max(0, arrived.Sub(*committed)))
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for id := range s.first {
		if !expected[id] {
			r.extra = append(r.extra, id)
		}
	}
	r.committed = int64(len(expected))
	r.rolledBack = r.tried - r.committed
	r.samples = len(latencies)
	slices.Sort(latencies)
	r.p50, r.p99 = percentile(latencies, 50), percentile(latencies, 99)
	return r, nil
}

// percentile returns the smallest value that p percent do not exceed, 0 of none.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*p+99)/100-1]
}

func (r *result) print(out io.Writer) {
	row := func(name string, value any, note string) { fmt.Fprintf(out, "  %-34s %10v  %s\n", name, value, note) }
	fmt.Fprintln(out)
	row("messages committed", r.committed, "")
	row("messages rolled back", r.rolledBack, "must not arrive")
	row("messages delivered", r.delivered, "")
	row("duplicates", r.duplicates, "")
	row("missing", len(r.missing), first(r.missing))
	row("extra (rolled back, or unknown)", len(r.extra)+len(r.odd), first(r.extra))
	row("dead letters", r.letters, "")
	row("commit to consumer, p50", ms(r.p50), fmt.Sprintf("of %d", r.samples))
	row("commit to consumer, p99", ms(r.p99), "")
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1e3) }

// first shows some of the ids.
func first(ids []int64) string {
	if len(ids) == 0 {
		return ""
	}
	slices.Sort(ids)
	return fmt.Sprint(ids[:min(len(ids), 10)])
}
