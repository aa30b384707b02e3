package status

import "testing"

func TestSizesForPeople(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Size(0), "0 B"},
		{Size(1023), "1023 B"},
		{Size(1536), "1.5 KiB"},
		{Size(34 << 20), "34 MiB"},
		{Size(1 << 62), "4 EiB"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}
