package testserver

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// tailBytes is how much of a log LogTail and errors show.
const tailBytes = 8 << 10

// logFile collects what a server prints, over all its starts.
type logFile struct {
	path string
	also io.Writer // may be nil
}

// open returns where a starting server shall write, and what launch closes after its end.
func (l logFile) open() (io.Writer, io.Closer, error) {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open server log: %w", err)
	}
	if l.also == nil {
		return f, f, nil // the server writes the file itself, nothing is copied
	}
	return io.MultiWriter(f, l.also), f, nil
}

// size is where the log ends now.
func (l logFile) size() int64 {
	info, err := os.Stat(l.path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// since returns the log from an offset on.
func (l logFile) since(offset int64) string {
	f, err := os.Open(l.path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	content, err := io.ReadAll(io.NewSectionReader(f, offset, 1<<40))
	if err != nil {
		return ""
	}
	return string(content)
}

// tail returns the last whole lines.
func (l logFile) tail() string {
	content := l.since(max(0, l.size()-tailBytes))
	if len(content) >= tailBytes {
		_, content, _ = strings.Cut(content, "\n")
	}
	return strings.TrimRight(content, "\n")
}
