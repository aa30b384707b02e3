package bench

import "testing"

// TestChartsShowTheSweep: each size of transactions is a line, each window that was measured a point.
func TestChartsShowTheSweep(t *testing.T) {
	table := &Table{Name: "sweep", Columns: []Column{{Key: colRate}, {Key: colConfirm}}, Rows: []*Row{
		{Name: sweepName(64, 10), Samples: []Sample{{colRate: 100, colConfirm: 1}, {colRate: 300, colConfirm: 3}}},
		{Name: sweepName(256, 10), Samples: []Sample{{colRate: 400}}},
	}}
	table.summarize()
	charts := (&Report{Sections: []*Table{{Name: "delivery"}, table}}).charts()
	if len(charts) != 2 {
		t.Fatalf("%d charts, want throughput and confirms", len(charts))
	}
	for n, want := range [][]Point{{{X: 64, Y: 200, Low: 100, High: 300}, {X: 256, Y: 400, Low: 400, High: 400}}, {{X: 64, Y: 2, Low: 1, High: 3}}} {
		for _, s := range charts[n].Series {
			if s.Name != "10/tx" {
				if len(s.Points) != 0 {
					t.Errorf("%s: %s has points %v", charts[n].Title, s.Name, s.Points)
				}
				continue
			}
			if len(s.Points) != len(want) {
				t.Fatalf("%s: %v, want %v", charts[n].Title, s.Points, want)
			}
			for i, p := range s.Points {
				if p != want[i] {
					t.Errorf("%s: point %v, want %v", charts[n].Title, p, want[i])
				}
			}
		}
	}
	if charts := (&Report{}).charts(); charts != nil {
		t.Error("there are charts without a sweep")
	}
}
