package status

import "fmt"

// Size is a number of bytes for people, with three digits.
func Size(n float64) string {
	if n < 1024 {
		return fmt.Sprintf("%.0f B", n)
	}
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for n /= 1024; n >= 1024 && len(units) > 1; n /= 1024 {
		units = units[1:]
	}
	return fmt.Sprintf("%.3g %s", n, units[0])
}
