package bench

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestShow(t *testing.T) {
	for _, test := range []struct {
		value  float64
		digits int
		want   string
	}{
		{0, 0, "0"},
		{0.126, 2, "0.13"},
		{12345.67, 1, "12345.7"},
		{9999, 0, "9999"},
		{9999.7, 0, "10.0 k"},
		{10000, 0, "10.0 k"},
		{24137, 0, "24.1 k"},
		{241370, 0, "241 k"},
		{999400, 0, "999 k"},
		{999700, 0, "1.00 M"},
		{1250000, 0, "1.25 M"},
		{12500000, 0, "12.5 M"},
		{3e9, 0, "3.00 G"},
		{4e12, 0, "4000 G"},
		{-24137, 0, "-24.1 k"},
	} {
		if got := show(test.value, test.digits); got != test.want {
			t.Errorf("show(%v, %d) = %q, want %q", test.value, test.digits, got, test.want)
		}
	}
}

// smallReport has ratios in its first section, and none in its second.
func smallReport() *Report {
	delivery := &Table{
		Title:    "How fast a backlog is delivered",
		Compared: "rate",
		Against:  "the limit, as it is",
		Columns: []Column{
			{Key: "rate", Title: "messages/s"},
			{Key: "cpu", Title: "CPU of the broker, µs/message", Digits: 1},
		},
		Rows: []*Row{
			{Name: "limit, 1/tx", Samples: []Sample{{"rate": 24000, "cpu": 8.25}, {"rate": 25000, "cpu": 9}, {"rate": 26000, "cpu": 10}}},
			{Name: "pgamqp, 1/tx", Base: "limit, 1/tx", Samples: []Sample{{"rate": 23040, "cpu": 12}, {"rate": 24500}, {"rate": 26260}}},
			{Name: "pgamqp|TLS", Base: "limit, 1/tx", Samples: []Sample{{"rate": 9216}}},
			{Name: "failed", Base: "limit, 1/tx"},
		},
	}
	memory := &Table{
		Title:   "Memory",
		Columns: []Column{{Key: "peak", Title: "peak, MiB"}},
		Rows:    []*Row{{Name: "µ", Samples: []Sample{{"peak": 31}, {"peak": 31}}}},
	}
	delivery.summarize()
	memory.summarize()
	return &Report{
		Version:  "1.2.3",
		Machine:  map[string]string{"system": "linux/amd64", "CPUs": "8"},
		Options:  map[string]string{"runs": "3", "environment": ""},
		Sections: []*Table{delivery, memory},
	}
}

func TestPrint(t *testing.T) {
	checkReport(t, (*Report).Print, `
version          1.2.3
machine  CPUs    8
         system  linux/amd64
options  runs    3

How fast a backlog is delivered

                                                             CPU of the
                                       x the limit, as          broker,
                          messages/s             it is       µs/message
------------  ----------------------  ----------------  ---------------
limit, 1/tx   25.0 k [24.0 k-26.0 k]                     9.0 [8.2-10.0]
pgamqp, 1/tx  24.5 k [23.0 k-26.3 k]  0.98 [0.96-1.01]  12.0
pgamqp|TLS      9216                  0.38                 -
failed             -                                       -

Memory

   peak, MiB
-  ---------
µ         31
`)
}

func TestMarkdown(t *testing.T) {
	checkReport(t, (*Report).Markdown, strings.ReplaceAll(`
- version: '1.2.3'
- machine: CPUs '8', system 'linux/amd64'
- options: runs '3'

### How fast a backlog is delivered

| case | messages/s | x the limit, as it is | CPU of the broker, µs/message |
| --- | ---: | ---: | ---: |
| limit, 1/tx | 25.0 k [24.0 k-26.0 k] |  | 9.0 [8.2-10.0] |
| pgamqp, 1/tx | 24.5 k [23.0 k-26.3 k] | 0.98 [0.96-1.01] | 12.0 |
| pgamqp\|TLS | 9216 | 0.38 | - |
| failed | - |  | - |

### Memory

| case | peak, MiB |
| --- | ---: |
| µ | 31 |
`, "'", "`"))
}

// checkReport compares what is written with want, which begins with a line break.
func checkReport(t *testing.T, write func(*Report, io.Writer) error, want string) {
	t.Helper()
	var b strings.Builder
	if err := write(smallReport(), &b); err != nil {
		t.Fatal(err)
	}
	if got := "\n" + b.String(); got != want {
		t.Errorf("got:%s\nwant:%s", got, want)
	}
	if err := write(smallReport(), brokenWriter{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error = %v, want that of the writer", err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
