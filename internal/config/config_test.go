package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pgamqp/pgamqp/internal/config"
)

func TestDefaultsAreValid(t *testing.T) {
	if err := config.Default().Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidateReportsAllMistakes(t *testing.T) {
	c := config.Config{
		DatabaseURL: "db.example.com", Slot: strings.Repeat("x", 64), Publication: "a\x00", Listen: "here:99999",
		WindowMessages: 0, WindowBytes: 1000, ShutdownTimeout: 0, NackRetryTimeout: 25 * time.Hour, HeartbeatInterval: 0,
		DetachAfter: 200 * time.Millisecond, OTLPEndpoint: "collector:4317", SecretsDir: "secrets", DaemonURL: "other:1",
	}
	err := c.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, o := range config.Options() {
		switch o.Name {
		case "log_level", "log_format", "pg_headers", "web_config": // cannot be wrong once they are read
			continue
		}
		if !strings.Contains("\n"+err.Error(), "\n"+o.Name+": ") {
			t.Errorf("nothing about %s in\n%v", o.Name, err)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]string{
		"32MiB": "32MiB", "32 mib": "32MiB", "1GiB": "1GiB", "1048576": "1MiB", "100000B": "100000B", "1MB": "1000000B",
		"128 kb": "125KiB", "1025KiB": "1025KiB",
		"": "not a size", "MiB": "not a size", "1.5GiB": "not a size", "0x10": "not a size", "1 TiB": "not a size",
		"9999999999999GiB": "more than", "99999999999999999999": "more than",
		"-1GiB": "out of bounds", "0": "out of bounds",
	} {
		l, err := config.Load(config.Input{Flags: map[string]string{"window-bytes": text}})
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			var b strings.Builder
			_ = l.WriteYAML(&b)
			_, got, _ = strings.Cut(b.String(), "window_bytes: ")
			got, _, _ = strings.Cut(got, " ")
		}
		if err == nil && got != want || err != nil && !strings.Contains(got, want) {
			t.Errorf("%q gives %s, want %s", text, got, want)
		}
	}
}

func TestAnySizeThatIsShownReadsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := config.Default()
		c.WindowBytes = rapid.Int64Range(64<<10, 64<<30).Draw(t, "bytes")
		if rapid.Bool().Draw(t, "round") {
			c.WindowBytes = max(64<<10, c.WindowBytes&^int64(math.MaxUint16))
		}
		_, shown, _ := strings.Cut(c.String(), `window_bytes="`)
		shown, _, _ = strings.Cut(shown, `"`)
		l, err := config.Load(config.Input{Flags: map[string]string{"window-bytes": shown}})
		if err != nil || l.WindowBytes != c.WindowBytes {
			t.Fatalf("%d shows as %s and reads as %d, %v", c.WindowBytes, shown, l.WindowBytes, err)
		}
	})
}

func TestO06PasswordIsMaskedInWhateverForm(t *testing.T) {
	for in, want := range map[string]string{
		"":                               "",
		"postgres://db/orders":           "postgres://db/orders",
		"postgres://app@db/orders":       "postgres://app@db/orders",
		"postgres://app:s3cret@db/o":     "postgres://app:xxxxx@db/o",
		"postgresql://app:@db:5432,db2/": "postgresql://app:xxxxx@db:5432,db2/",
		"postgres://a:s3c@ret@db/o":      "postgres://a:xxxxx@db/o",
		"postgres://db/o?user=a&password=s3cret&sslmode=require": "postgres://db/o?user=a&password=xxxxx&sslmode=require",
		"postgres://db/o?%70assword=s3cret&sslpassword=s3cret":   "postgres://db/o?%70assword=xxxxx&sslpassword=xxxxx",
		"postgres://db/o?%zz=s3cret":                             "postgres://db/o?%zz=xxxxx",
		// Malformed, by characters of the password that should have been escaped.
		"postgres://app:s3/cret@db/o": "postgres://app:xxxxx@db/o",
		"postgres://app:s3?cret@db/o": "postgres://app:xxxxx@db/o",
		"postgres://app:s3#cret@db/o": "postgres://app:xxxxx@db/o",

		"host=db user=app":                                  "host=db user=app",
		"host=db password=s3cret user=app":                  "host=db password=xxxxx user=app",
		"password = 's3 cr\\'et'  user = 'a b' dbname=o":    "password=xxxxx user='a b' dbname=o",
		"user=a password=s3\\ cret sslpassword=s3cret db=o": "user=a password=xxxxx sslpassword=xxxxx db=o",
		"password='s3cret":                                  "password=xxxxx",
		"user='s3cret":                                      "user=xxxxx",
		"user=a s3cret":                                     "user=a xxxxx",
		"pass word=s3cret":                                  "xxxxx",
		"password=":                                         "password=xxxxx",
		"s3cret":                                            "xxxxx",
	} {
		if got := config.ConnString(in).String(); got != want {
			t.Errorf("%s is shown as %s, want %s", in, got, want)
		}
	}
}

func TestSecretIsNotPrintedByAnyWay(t *testing.T) {
	c := config.Default()
	c.DatabaseURL = "postgres://app:s3cret@db/orders"
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("starting", slog.Any("config", c), slog.Any("database", c.DatabaseURL))
	slog.New(slog.NewJSONHandler(&out, nil)).Info("starting", slog.Any("config", c), slog.Any("database", c.DatabaseURL))
	fmt.Fprintf(&out, "%v %+v %#v %s %q ", c.DatabaseURL, c.DatabaseURL, c.DatabaseURL, c.DatabaseURL, c.DatabaseURL)
	fmt.Fprintf(&out, "%v %+v %s %#v", c, c, c, c)
	if err := json.NewEncoder(&out).Encode(c); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "s3cret") {
		t.Error(out.String())
	}
	if n := strings.Count(out.String(), "app:xxxxx@db"); n != 14 {
		t.Errorf("the rest of the URL is shown %d times, want 14:\n%s", n, out.String())
	}
}

func TestPasswordOfAWellFormedStringNeverShows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		password := "SECRET" + rapid.StringOf(rapid.RuneFrom([]rune(`ab '\=@:/?#&%`+"\t"))).Draw(t, "rest") + "SECRET"
		quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(password)
		for _, c := range []string{
			"host=db password='" + quoted + "' user=app",
			"password =  '" + quoted + "'",
			"postgres://app:" + urlEscape(password) + "@db:5432/orders?sslmode=disable",
			"postgres://db/orders?password=" + urlEscape(password) + "&user=app",
		} {
			if shown := config.ConnString(c).String(); strings.Contains(shown, "SECRET") {
				t.Fatalf("%s is shown as %s", c, shown)
			}
		}
	})
}

// urlEscape escapes every byte that is not a letter or digit, which is right in every part of a URL.
func urlEscape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
