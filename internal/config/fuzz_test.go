package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgamqp/pgamqp/internal/config"
)

// FuzzFile: any file is read, or refused with an error, and what was read can be shown and read again.
func FuzzFile(f *testing.F) {
	for _, s := range []string{
		"", "---\n", "slot: a\n", "slot: [a, b]\n", "a: &a [*a]\n", "slot: &a b\npublication: *a\n", "slot: {a: 1}\n", "? [a]\n: b\n", "- a\n",
		"slot: !!null\n", "slot: !!binary aGk=\n", "slot: a\nslot: b\n", "<<: {slot: a}\n", "a: b\n---\nc: d\n", "database_url: 'postgres://u:p@h/d'\n",
		"window_bytes: 99999999999999999999GiB\n", "detach_after: 1e400s\n", "pg_headers: [lsn, [x]]\n", "slot: \"\\u0000\"\n", "\xff\xfe", "%YAML 9.9\n---\n",
	} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content []byte) {
		load := func(name string, content []byte) (config.Loaded, string, error) {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := config.Load(config.Input{File: path})
			var shown strings.Builder
			if err := l.WriteYAML(&shown); err != nil {
				t.Fatal(err)
			}
			return l, shown.String(), err
		}
		l, shown, err := load("first.yaml", content)
		if err != nil || string(l.DatabaseURL) != l.DatabaseURL.String() {
			return // wrong, or not shown as it is, for its password
		}
		again, _, err := load("second.yaml", []byte(shown))
		if diff := cmp.Diff(l.Config, again.Config, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("%q was shown as\n%s\n%v\n%s", content, shown, err, diff)
		}
	})
}

// FuzzConnString: the password that the driver finds in a connection string is never shown.
func FuzzConnString(f *testing.F) {
	for _, s := range []string{
		"postgres://user:Secret-1@h:5432/d?sslmode=disable", "postgresql://h/d?user=u&password=Secret-1", "host=h password=Secret-1 user=u",
		"host = h password = 'Secret\\'-1' user=u", "password='Secret 1'", "postgres://u:Secret%2d1@h,i/d?pass%77ord=Secret-2", "postgres://u:Secr:et@1@h/d",
		"user=u\x0bpassword=Secret-1", "host=h\tpassword\n=\rSecret-1", "password=Secret-1 password=Secret-2", "PASSWORD=Secret-1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := pgconn.ParseConfig(s)
		// Where the same text stands elsewhere, too, it cannot be told apart.
		if err != nil || len(c.Password) < 5 || strings.Count(s, c.Password) != 1 {
			return
		}
		if shown := config.ConnString(s).String(); strings.Contains(shown, c.Password) {
			t.Fatalf("%q is shown as %q", s, shown)
		}
	})
}
