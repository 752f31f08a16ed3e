package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/payment-services/accounts/internal/localservers"
)

// tick is the unit of CPU time in /proc: USER_HZ, 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// readCPU returns the CPU time, user and system, of all threads of a process, and of its children that have
// ended.
func readCPU(pid int) (own, waited time.Duration, err error) {
	const user, waitedSystem = 11, 14
	stat := localservers.ProcessStat(pid)
	if len(stat) <= waitedSystem {
		return 0, 0, fmt.Errorf("process %d has ended", pid)
	}
	var ticks [waitedSystem - user + 1]time.Duration
	for i := range ticks {
		n, err := strconv.ParseInt(stat[user+i], 10, 64)
		if err != nil {
			return 0, 0, err
		}
		ticks[i] = time.Duration(n) * tick
	}
	return ticks[0] + ticks[1], ticks[2] + ticks[3], nil
}

// treeCPU is the CPU time of processes and all their children, also of those that have ended.
func treeCPU(roots ...int) (time.Duration, error) {
	var sum time.Duration
	for _, root := range roots {
		own, waited, err := readCPU(root)
		if err != nil {
			return 0, err
		}
		sum += own + waited
		for _, child := range localservers.Children(root) {
			if own, _, err := readCPU(child); err == nil { // else it has just ended
				sum += own
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
