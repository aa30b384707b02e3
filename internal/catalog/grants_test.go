package catalog_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestPermissionsOfTheDaemonAreThoseOfTheDocument takes them all away and grants what the document says.
func TestPermissionsOfTheDaemonAreThoseOfTheDocument(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	snippet := regexp.MustCompile("(?s)<!-- test: TestPermissionsOfTheDaemonAreThoseOfTheDocument -->\n\n```sql\n(.*?)```").FindSubmatch(page)
	if snippet == nil {
		t.Fatal("docs/operations.md does not list them")
	}
	conn, _ := installed(t, server(t, 15))
	const granted = `
		select string_agg(a.privilege_type || ' on ' || o.name, E'\n' order by o.name, a.privilege_type)
		  from (select 'schema amqp', n.nspacl from pg_namespace n where n.nspname = 'amqp'
		        union all select c.oid::regclass::text, c.relacl from pg_class c where c.relnamespace = 'amqp'::regnamespace
		        union all select c.oid::regclass::text || '.' || t.attname, t.attacl from pg_class c join pg_attribute t on t.attrelid = c.oid where c.relnamespace = 'amqp'::regnamespace
		        union all select p.oid::regprocedure::text, p.proacl from pg_proc p where p.pronamespace = 'amqp'::regnamespace) o(name, acl),
		       aclexplode(o.acl) a
		 where a.grantee = 'pgamqp_daemon'::regrole`
	want := value[string](t, conn, granted)
	exec(t, conn, `revoke all on schema amqp from pgamqp_daemon; revoke all on all tables in schema amqp from pgamqp_daemon;
		revoke all on all functions in schema amqp from pgamqp_daemon`)
	exec(t, conn, string(snippet[1]))
	if got := value[string](t, conn, granted); got != want {
		t.Errorf("by the document:\n%s\nby install:\n%s", got, want)
	}
}
