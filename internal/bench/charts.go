package bench

// charts returns what the sweep has measured, if it was asked for: one line for each size of
// transactions, over the window.
func (r *Report) charts() []Chart {
	for _, t := range r.Sections {
		if t.Name == "sweep" {
			return []Chart{
				t.chart("Throughput", "messages/s", colRate),
				t.chart("From publishing to the confirm, mean, at full load", "ms", colConfirm),
			}
		}
	}
	return nil
}

func (t *Table) chart(title, unit, key string) Chart {
	c := Chart{Title: title, XTitle: "window, messages", YTitle: unit, LogX: true}
	for _, perTx := range sweepTransactions() {
		line := Series{Name: perTransaction(perTx)}
		for _, window := range sweepWindows() {
			row := t.row(sweepName(window, perTx))
			if row == nil {
				continue
			}
			if s, ok := row.Summary[key]; ok {
				line.Points = append(line.Points, Point{X: float64(window), Y: s.Median, Low: s.Min, High: s.Max})
			}
		}
		c.Series = append(c.Series, line)
	}
	return c
}
