package bench

import (
	"os"
	"runtime"
	"strconv"
	"strings"
)

// machine describes what all of this runs on, as far as it can be told.
func machine() map[string]string {
	m := map[string]string{"CPUs": strconv.Itoa(runtime.NumCPU()), "system": runtime.GOOS + "/" + runtime.GOARCH, "Go": runtime.Version()}
	if name := field("/proc/cpuinfo", "model name"); name != "" {
		m["CPU"] = name
	}
	if size := field("/proc/meminfo", "MemTotal"); size != "" {
		m["memory"] = size
	}
	return m
}

// field returns the first value of a name in a file of lines "name : value".
func field(path, name string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(content)) {
		key, value, found := strings.Cut(line, ":")
		if found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
