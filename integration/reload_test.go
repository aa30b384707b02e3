package integration

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestSettingsAreReadAgainAfterSIGHUP(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	path := filepath.Join(t.TempDir(), "pgamqp.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("log_level: info\n")
	d := w.start("--config", path, "--heartbeat-interval", "1s")
	reloaded := func(good float64) {
		t.Helper()
		await(t, 10*time.Second, "the settings are read again", func() bool { return d.reading("pgamqp_config_last_reload_successful") == good })
	}
	reloaded(1)
	write("log_level: debug\nwindow_messages: 7\n")
	d.signal(syscall.SIGHUP)
	d.waitLog(`msg="settings read again" log_level=DEBUG after_a_restart=window_messages`)
	d.waitLog(`level=DEBUG msg="heartbeat came through"`)
	d.waitLog(`level=DEBUG msg="position reported" confirmed=`)
	write("log_level: loud\n")
	d.signal(syscall.SIGHUP)
	d.waitLog(`"loud\" is not a log level`)
	reloaded(0)
	write("log_level: error\n")
	d.signal(syscall.SIGHUP)
	d.waitLog(`level=ERROR msg="settings read again" log_level=ERROR after_a_restart=""`)
	reloaded(1)
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
