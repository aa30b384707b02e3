package rows

import (
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/decoder"
)

func TestPatternsMatchNames(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"orders", "orders", true},
		{"orders", "orders2", false},
		{"orders", "", false},
		{"*", "anything", true},
		{"*", "", true},
		{"order*", "orders", true},
		{"order*", "order", true},
		{"order*", "my_orders", false},
		{"*_log", "audit_log", true},
		{"*_log", "log", false},
		{"a*b*c", "a-b-b-c", true},
		{"a*b*c", "abc", true},
		{"a*b*c", "ac", false},
		{"a*a", "a", false},
		{"%", "x", false},
	} {
		if got := glob(c.pattern, c.name); got != c.want {
			t.Errorf("%q matches %q: %t", c.pattern, c.name, got)
		}
	}
}

func TestTemplatesAreFilled(t *testing.T) {
	rel := &decoder.Relation{Schema: "my.schema", Name: "orders", Columns: []decoder.Column{{Name: "id"}, {Name: "note"}, {Name: "gone"}, {Name: "unset"}}}
	text := func(s string) value { return value{Value: decoder.Value{State: decoder.Text, Text: []byte(s)}} }
	c := &change{
		relation: rel, operation: "update",
		before: []value{text("1"), text("old"), text("from the old row"), text("eu")},
		after:  []value{text("2"), text("a.b #*%\n"), {absent: true}, {Value: decoder.Value{State: decoder.Null}}},
	}
	for _, x := range []struct{ template, want string }{
		{"", ""},
		{"fixed.key", "fixed.key"},
		{"{schema}.{table}.{op}", "my%2Eschema.orders.update"},
		{"{column.id}", "2"},
		{"x.{column.note}.y", "x.a%2Eb%20%23%2A%25%0A.y"},
		{"{column.gone}", "from%20the%20old%20row"},
		{"{column.unset}", "null"},
		{"{column.unknown}", "null"},
	} {
		tmpl, err := parseTemplate(x.template)
		if err != nil {
			t.Errorf("%s: %v", x.template, err)
			continue
		}
		if got := tmpl.fill(c.place); got != x.want {
			t.Errorf("%s became %s, want %s", x.template, got, x.want)
		}
	}
	c.after[1] = text(strings.Repeat("ü", 200))
	tmpl, _ := parseTemplate("{column.note}.{column.note}.{column.note}")
	if got := tmpl.fill(c.place); len(got) > maxKey || got != strings.Repeat(strings.Repeat("ü", 50)+".", 2)+strings.Repeat("ü", 26) {
		t.Errorf("%d bytes: %s", len(got), got)
	}
}

func TestBadTemplatesAreRefused(t *testing.T) {
	for _, s := range []string{"{", "}", "a}b", "{unknown}", "{column.}", "{schema", "{{schema}}"} {
		if _, err := parseTemplate(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}
