package bench

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Print writes the report for a person at a terminal.
func (r *Report) Print(w io.Writer) error {
	var b strings.Builder
	facts := r.facts()
	width := 0
	for _, f := range facts {
		width = max(width, textWidth(f.name))
	}
	for _, f := range facts {
		writeLine(&b, padRight(f.group, len("version")), padRight(f.name, width), f.value)
	}
	for _, t := range r.Sections {
		b.WriteString("\n" + t.Title + "\n\n")
		t.print(&b)
	}
	for _, note := range r.Notes {
		b.WriteString("\n" + note + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Markdown writes what Print does, as GitHub shows it.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	group := ""
	for _, f := range r.facts() {
		switch {
		case f.group != "":
			if group != "" {
				b.WriteByte('\n')
			}
			group = f.group
			b.WriteString("- " + group + ": ")
		default:
			b.WriteString(", ")
		}
		if f.name != "" {
			b.WriteString(f.name + " ")
		}
		b.WriteString("`" + f.value + "`")
	}
	b.WriteByte('\n')
	for _, t := range r.Sections {
		b.WriteString("\n### " + t.Title + "\n\n")
		t.markdown(&b)
	}
	for _, note := range r.Notes {
		b.WriteString("\n" + note + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// fact is a line of the head. Only the first one of a group names it.
type fact struct{ group, name, value string }

func (r *Report) facts() []fact {
	facts := []fact{{group: "version", value: r.Version}}
	add := func(group string, values map[string]string) {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			if values[name] != "" {
				facts = append(facts, fact{group, name, values[name]})
				group = ""
			}
		}
	}
	add("machine", r.Machine)
	add("options", r.Options)
	return facts
}

// figure is what a column shows of a row: the median, and how the samples are spread if that
// can be seen.
type figure struct{ median, spread string }

func (f figure) String() string {
	if f.spread == "" {
		return f.median
	}
	return f.median + " " + f.spread
}

// column is a column as it is shown, with a figure for each row of the table.
type column struct {
	title   string
	figures []figure
}

// columns returns what stands behind the name of a case: the columns of the section, and behind
// the compared one the ratios.
func (t *Table) columns() []column {
	var columns []column
	for _, c := range t.Columns {
		columns = append(columns, t.column(c.Title, c.Key, c.Digits, nil))
		if c.Key == t.Compared && slices.ContainsFunc(t.Rows, compared) {
			columns = append(columns, t.column("x "+t.Against, ratioKey, 2, compared))
		}
	}
	return columns
}

// compared tells whether a row has a ratio.
func compared(r *Row) bool {
	_, ok := r.Summary[ratioKey]
	return ok
}

// column shows one statistic of all rows; those that are not of the column stay empty.
func (t *Table) column(title, key string, digits int, has func(*Row) bool) column {
	c := column{title: title}
	for _, r := range t.Rows {
		var f figure
		if has == nil || has(r) {
			f = figureOf(r.Summary, key, digits)
		}
		c.figures = append(c.figures, f)
	}
	return c
}

func figureOf(summary map[string]Statistic, key string, digits int) figure {
	s, ok := summary[key]
	if !ok {
		return figure{median: "-"}
	}
	f := figure{median: show(s.Median, digits)}
	if low, high := show(s.Min, digits), show(s.Max, digits); low != high {
		f.spread = "[" + low + "-" + high + "]"
	}
	return f
}

// print writes a table whose medians stand below each other. Titles are broken into lines, so
// that a column is no wider than its figures need.
func (t *Table) print(b *strings.Builder) {
	name := 0
	for _, r := range t.Rows {
		name = max(name, textWidth(r.Name))
	}
	columns := t.columns()
	blocks := make([][]string, len(columns)) // title, rule, figures, padded to the same width
	height := 0
	for i, c := range columns {
		blocks[i] = c.lines()
		height = max(height, len(blocks[i]))
	}
	for y := range height {
		first := ""
		switch n := y - height + len(t.Rows); {
		case n >= 0:
			first = t.Rows[n].Name
		case n == -1:
			first = strings.Repeat("-", name)
		}
		cells := []string{padRight(first, name)}
		for _, block := range blocks {
			if n := y - height + len(block); n >= 0 {
				cells = append(cells, block[n])
			} else {
				cells = append(cells, strings.Repeat(" ", textWidth(block[0])))
			}
		}
		writeLine(b, cells...)
	}
}

// shortTitle is the length of a title up to which it is not broken.
const shortTitle = 12

// lines returns the title, a rule and the figures, all of the same width.
func (c column) lines() []string {
	spread, width := 0, min(textWidth(c.title), shortTitle)
	for _, f := range c.figures {
		spread = max(spread, textWidth(f.spread))
	}
	for _, word := range strings.Fields(c.title) {
		width = max(width, textWidth(word))
	}
	var figures []string
	for _, f := range c.figures {
		text := f.median
		if spread > 0 {
			text += " " + padRight(f.spread, spread)
		}
		figures = append(figures, text)
		width = max(width, textWidth(text))
	}
	lines := append(wrapWords(c.title, width), strings.Repeat("-", width))
	lines = append(lines, figures...)
	for i, l := range lines {
		lines[i] = padLeft(l, width)
	}
	return lines
}

func (t *Table) markdown(b *strings.Builder) {
	row := func(cells []string) {
		for i, c := range cells {
			cells[i] = strings.ReplaceAll(c, "|", `\|`)
		}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	columns := t.columns()
	head, rule := []string{"case"}, []string{"---"}
	for _, c := range columns {
		head, rule = append(head, c.title), append(rule, "---:")
	}
	row(head)
	row(rule)
	for i, r := range t.Rows {
		cells := []string{r.Name}
		for _, c := range columns {
			cells = append(cells, c.figures[i].String())
		}
		row(cells)
	}
}

// show writes a figure. A large one that has no digits behind the decimal point is rounded to
// three of its digits, as more are noise: 24137 is "24.1 k".
func show(v float64, digits int) string {
	if digits > 0 || math.Abs(v) < 9999.5 {
		return strconv.FormatFloat(v, 'f', digits, 64)
	}
	unit := ""
	for _, unit = range []string{"k", "M", "G"} {
		v /= 1000
		if math.Abs(v) < 999.5 {
			break
		}
	}
	switch a := math.Abs(v); {
	case a < 9.995:
		digits = 2
	case a < 99.95:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + " " + unit
}

// wrapWords breaks a text between words into lines of at most width, if the words allow it.
func wrapWords(text string, width int) []string {
	lines := []string{""}
	for _, word := range strings.Fields(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = word
		case textWidth(*last)+1+textWidth(word) <= width:
			*last += " " + word
		default:
			lines = append(lines, word)
		}
	}
	return lines
}

// writeLine writes cells with a gap between them, and nothing behind the last one.
func writeLine(b *strings.Builder, cells ...string) {
	b.WriteString(strings.TrimRight(strings.Join(cells, "  "), " ") + "\n")
}

func textWidth(s string) int { return utf8.RuneCountInString(s) }

func padRight(s string, width int) string { return fmt.Sprintf("%-*s", width, s) }

func padLeft(s string, width int) string { return fmt.Sprintf("%*s", width, s) }
