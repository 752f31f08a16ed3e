package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU time in /proc: USER_HZ, 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// process is what /proc says of one process.
type process struct {
	parent int
	cpu    time.Duration // user and system, of all its threads
	waited time.Duration // the same of its children that have ended
}

func readProcess(pid int) (process, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, err
	}
	// "pid (name) state ppid ...", where the name may hold anything.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const parent, user, waitedSystem = 1, 11, 14
	if len(fields) <= waitedSystem {
		return process{}, fmt.Errorf("/proc/%d/stat is malformed", pid)
	}
	var ticks [waitedSystem - user + 1]time.Duration
	for i := range ticks {
		n, err := strconv.ParseInt(fields[user+i], 10, 64)
		if err != nil {
			return process{}, err
		}
		ticks[i] = time.Duration(n) * tick
	}
	ppid, err := strconv.Atoi(fields[parent])
	return process{parent: ppid, cpu: ticks[0] + ticks[1], waited: ticks[2] + ticks[3]}, err
}

// treeCPU is the CPU time of processes and all their children, also of those that have ended.
func treeCPU(roots ...int) (time.Duration, error) {
	var sum time.Duration
	for _, root := range roots {
		p, err := readProcess(root)
		if err != nil {
			return 0, err
		}
		sum += p.cpu + p.waited
	}
	stats, _ := filepath.Glob("/proc/[0-9]*") // the only error is a bad pattern
	for _, path := range stats {
		pid, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			continue
		}
		p, err := readProcess(pid)
		if err != nil {
			continue // it has just ended
		}
		for _, root := range roots {
			if p.parent == root {
				sum += p.cpu
			}
		}
	}
	return sum, nil
}

// memory returns a line of /proc/PID/status, such as VmRSS or VmHWM, in MB.
func memory(pid int, name string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kB, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kB / 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", pid, name)
}

// resetPeak makes VmHWM start again from what the process has now.
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}
