package snippet

import (
	"reflect"
	"testing"
)

func TestBlocksAndTheTestsThatClaimThem(t *testing.T) {
	const text = "# Title\n\n```sh\nmake\n```\n## First\nwords <!-- test: TestA -->\n\n```sql\nselect 1;\n\n# no heading\n```\n" +
		"- a list\n\n  ```\n  plain\n  ```\n### Second\n<!-- test: TestB -->\n```go\n<!-- test: TestC -->\n```\n```yaml\n```\n"
	got, err := Parse("docs/x.md", text)
	if err != nil {
		t.Fatal(err)
	}
	want := []Block{
		{"docs/x.md", 3, "Title", "sh", "", "make\n"},
		{"docs/x.md", 9, "First", "sql", "TestA", "select 1;\n\n# no heading\n"},
		{"docs/x.md", 16, "First", "", "TestA", "  plain\n"},
		{"docs/x.md", 21, "Second", "go", "TestB", "<!-- test: TestC -->\n"},
		{"docs/x.md", 24, "Second", "yaml", "TestB", ""},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if _, err := Parse("x.md", "```sql\nselect 1;\n"); err == nil || err.Error() != "x.md:1: the block does not end" {
		t.Errorf("of a block without an end: %v", err)
	}
}

func TestDocumentsAreFound(t *testing.T) {
	names, err := Documents("../..")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"README.md": true, "docs/sql.md": true}
	for _, name := range names {
		if _, err := Read("../..", name); err != nil {
			t.Error(err)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("not found: %v", want)
	}
}
