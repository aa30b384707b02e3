package testserver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRabbitMQVersionThatCannotBeHadIsAnError(t *testing.T) {
	cache := t.TempDir()
	t.Setenv(cacheVariable, cache)
	t.Setenv(rabbitVariable, "5")
	for _, c := range []struct {
		name string
		find func() (rabbitInstallation, error)
		says string
	}{
		{"unknown", func() (rabbitInstallation, error) { return findRabbitMQ(0) }, `read PGAMQP_TEST_RABBITMQ: "5" is not one of [3 4]`},
		{"never there", func() (rabbitInstallation, error) { return findRabbitMQ(2) }, "run `make setup`"},
		{"not unpacked", findUnpacked, filepath.Join(cache, "rabbitmq-4") + "]; run `scripts/setup.sh rabbitmq4`"},
	} {
		if _, err := c.find(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: the error is %v", c.name, err)
		}
	}

	// What was unpacked is found by its version, not by its place.
	root := filepath.Join(cache, "rabbitmq-4")
	for version, found := range map[string]bool{"3.13.0": false, "4.0.5": os.Getuid() == 0} {
		server := filepath.Join(root, rabbitFolder, "lib", "rabbitmq_server-"+version)
		if err := os.MkdirAll(server, 0o700); err != nil {
			t.Fatal(err)
		}
		if i, err := findUnpacked(); (err == nil) != found || found && i.root != root {
			t.Errorf("%s: found %q: %v", version, i.root, err)
		}
		if err := os.Remove(server); err != nil {
			t.Fatal(err)
		}
	}
}
