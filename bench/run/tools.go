package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// toolRound is yardstick H in one round: the benchmarks that come with PostgreSQL and Redis.
type toolRound struct {
	CallRate, CallCPU float64 // pgbench: calls a second, PostgreSQL's CPU in microseconds a call
	GetRate, GetCPU   float64 // redis-benchmark: the same for GET
}

// pgbenchScript calls the function of yardstick G for a user of the same set.
const pgbenchScript = `\set n random(%d, %d)
SELECT * FROM accounts.get_user_by_identifier_v1('+7999' || lpad(:n::text, 7, '0'));
`

var pgbenchRate = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)[\s\S]*^tps = ([0-9.]+)`)

func (b *bench) measureTools(ctx context.Context, duration time.Duration) (t toolRound, err error) {
	script := filepath.Join(b.dir, "call.sql")
	first, last := b.data.cold[0].n, b.data.cold[len(b.data.cold)-1].n
	if err := os.WriteFile(script, fmt.Appendf(nil, pgbenchScript, first, last), 0o600); err != nil {
		return t, err
	}
	at, password, err := withoutPassword(b.urls.ReadURL)
	if err != nil {
		return t, err
	}
	seconds := strconv.Itoa(max(1, int(duration.Seconds())))
	out, cpu, err := b.tool(ctx, 1, exec.CommandContext(ctx, "pgbench", "-n", "-M", "prepared", "-c", strconv.Itoa(connections),
		"-T", seconds, "-f", script, at), "PGPASSWORD="+password)
	if err != nil {
		return t, err
	}
	found := pgbenchRate.FindStringSubmatch(out)
	if found == nil {
		return t, fmt.Errorf("pgbench says no rate:\n%s", out)
	}
	calls, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		return t, err
	}
	t.CallCPU = float64(cpu.Microseconds()) / calls
	if t.CallRate, err = strconv.ParseFloat(found[2], 64); err != nil {
		return t, err
	}

	u, err := url.Parse(b.cache.URL)
	if err != nil {
		return t, err
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		return t, err
	}
	const gets = 50_000
	secret, _ := u.User.Password()
	out, cpu, err = b.tool(ctx, 2, exec.CommandContext(ctx, "redis-benchmark", "-h", host, "-p", port, "-a", secret, "--dbnum", "1",
		"-c", strconv.Itoa(connections), "-n", strconv.Itoa(gets), "--csv", "GET", "yardstick:"+b.data.hot[0].id.String()))
	if err != nil {
		return t, err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	fields, err := csv.NewReader(strings.NewReader(lines[len(lines)-1])).Read()
	if err != nil || len(fields) < 2 {
		return t, fmt.Errorf("redis-benchmark says no rate:\n%s", out)
	}
	t.GetCPU = float64(cpu.Microseconds()) / gets
	t.GetRate, err = strconv.ParseFloat(fields[1], 64)
	return t, err
}

// tool runs a command and returns its output and what PostgreSQL (1) or Redis (2) used meanwhile.
func (b *bench) tool(ctx context.Context, of int, cmd *exec.Cmd, environment ...string) (string, time.Duration, error) {
	cmd.Env = append(os.Environ(), environment...)
	before, err := b.cpu(b.service)
	if err != nil {
		return "", 0, err
	}
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return "", 0, fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, problems.String())
	}
	after, err := b.cpu(b.service)
	return string(out), after[of] - before[of], err
}

// withoutPassword takes the password out of a connection string: arguments can be read by every user
// of the machine.
func withoutPassword(dsn string) (rest, password string, err error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return "", "", err
	}
	password, _ = u.User.Password()
	u.User = url.User(u.User.Username())
	return u.String(), password, nil
}
