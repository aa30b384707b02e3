package testserver

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// processID names a process for good: a number alone is given to another process later,
// number and start time are not.
type processID struct {
	pid   int
	start uint64 // clock ticks since boot; 0 where the system does not tell
}

func thisProcess() processID {
	pid := os.Getpid()
	_, start, _ := processStat(pid) // start stays 0 without /proc
	return processID{pid, start}
}

func (id processID) String() string { return fmt.Sprintf("%d %d\n", id.pid, id.start) }

func parseProcessID(s string) (processID, error) {
	var id processID
	if n, err := fmt.Sscanf(s, "%d %d\n", &id.pid, &id.start); n != 2 || err != nil {
		return processID{}, fmt.Errorf("read process id %q: want two numbers", s)
	}
	return id, nil
}

// alive says that the process still runs. A zombie does not: pid 1 of a container can take
// long to collect one, or never do.
func (id processID) alive() bool {
	if id.start == 0 {
		return syscall.Kill(id.pid, 0) == nil
	}
	state, start, err := processStat(id.pid)
	return err == nil && start == id.start && state != "Z" && state != "X"
}

// suspended says that no thread of a process runs. So it is where the system does not tell, and when the process has ended.
func suspended(pid int) bool {
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, thread := range threads {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, thread.Name()))
		if err != nil {
			continue // it has ended since
		}
		_, rest, _ := cutLast(string(content), ") ")
		if rest != "" && !strings.ContainsRune("TtZX", rune(rest[0])) {
			return false
		}
	}
	return true
}

// processStat reads state and start time of a process from /proc.
func processStat(pid int) (state string, start uint64, err error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, err
	}
	// The second field is the program's name in parentheses and may itself hold blanks and
	// parentheses. After it, state is the 1st and start time the 20th.
	_, rest, _ := cutLast(string(content), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return "", 0, errors.New("read process state: unexpected format")
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return fields[0], start, err
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// childrenOf lists the direct children of pid.
func childrenOf(pid int) []processID {
	var all []processID
	files, _ := os.ReadDir("/proc")
	for _, f := range files {
		child, err := strconv.Atoi(f.Name())
		if err != nil {
			continue
		}
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		if err != nil {
			continue // it has ended since
		}
		_, rest, _ := cutLast(string(content), ") ")
		fields := strings.Fields(rest)
		if len(fields) < 20 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		if start, err := strconv.ParseUint(fields[19], 10, 64); err == nil {
			all = append(all, processID{child, start})
		}
	}
	return all
}
