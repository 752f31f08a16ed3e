// Package cluster drives the real cluster of docker-compose.yml: it starts one under a name and on
// ports of its own, does harm to its containers, keeps clients busy through the service's HTTP API
// while it does, and checks the history of what they were told. The failover suite is behind the
// build tag cluster (make test-cluster); make bench-replication uses the same pieces.
package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// upTimeout bounds a start with images that exist; that takes 20 s.
	upTimeout = 3 * time.Minute
	// commandTimeout bounds every other command; only a defect makes one last so long.
	commandTimeout = 90 * time.Second
	pollInterval   = 100 * time.Millisecond
)

// Nodes are the database nodes, Services the processes of the service, Stores those of etcd.
var (
	Nodes    = []string{"pg-node-1", "pg-node-2"}
	Services = []string{"accounts-1", "accounts-2"}
	Stores   = []string{"etcd-1", "etcd-2", "etcd-3"}
)

// Config says what to start.
type Config struct {
	// Root is the project's folder, Dir one for the environment file.
	Root, Dir string
	// Project names the containers; clusters of different names live side by side.
	Project string
	// Mode is REPLICATION_MODE.
	Mode string
	// Files are compose files besides docker-compose.yml, relative to Root.
	Files []string
	// Environment are more lines of the environment file.
	Environment []string
}

// Cluster is one that runs. Its methods may be called concurrently.
type Cluster struct {
	cfg  Config
	env  string
	URL  string // of the edge
	auth string
	// WritePort and ReadPort are HAProxy's on this host.
	WritePort, ReadPort int
	secrets             map[string]string
}

// Up builds the images and starts the cluster with empty volumes. It returns when everything is healthy.
func Up(ctx context.Context, cfg Config) (*Cluster, error) {
	c := &Cluster{cfg: cfg, env: filepath.Join(cfg.Dir, cfg.Project+".env"), secrets: map[string]string{}}
	_ = os.Remove(c.env)
	if _, err := run(ctx, cfg.Root, filepath.Join(cfg.Root, "scripts", "make-env"), c.env); err != nil {
		return nil, err
	}
	ports, err := freePorts(4)
	if err != nil {
		return nil, err
	}
	c.URL, c.WritePort, c.ReadPort = "http://127.0.0.1:"+strconv.Itoa(ports[0]), ports[1], ports[2]
	lines := append([]string{
		"COMPOSE_PROJECT_NAME=" + cfg.Project, "REPLICATION_MODE=" + cfg.Mode,
		"EDGE_PORT=" + strconv.Itoa(ports[0]), "POSTGRES_WRITE_PORT=" + strconv.Itoa(ports[1]),
		"POSTGRES_READ_PORT=" + strconv.Itoa(ports[2]), "HAPROXY_STATS_PORT=" + strconv.Itoa(ports[3]),
		// Clusters live side by side.
		fmt.Sprintf("NODES_PREFIX=10.214.%d", ports[3]%256),
	}, cfg.Environment...)
	if err := appendLines(c.env, lines); err != nil {
		return nil, err
	}
	if err := c.readSecrets(); err != nil {
		return nil, err
	}
	if _, err := c.Compose(ctx, "down", "--volumes", "--remove-orphans"); err != nil {
		return nil, err
	}
	if _, err := c.composeFor(ctx, time.Hour, "build", "--quiet"); err != nil {
		return nil, err
	}
	if err := c.Start(ctx); err != nil {
		return nil, err
	}
	token, err := c.Compose(ctx, "exec", "-T", Services[0], "/server", "token", "-ttl", "24h")
	c.auth = "Bearer " + strings.TrimSpace(token)
	return c, err
}

// Start starts what does not run and waits until everything is healthy.
func (c *Cluster) Start(ctx context.Context) error {
	_, err := c.composeFor(ctx, upTimeout, "up", "--detach", "--wait", "--quiet-pull")
	if err != nil {
		logs, _ := c.Compose(ctx, "logs", "--tail", "20", "configure", "migrate", "pg-node-1", "pg-node-2")
		return fmt.Errorf("%w\n%s", err, logs)
	}
	return nil
}

// Down removes everything, the volumes too.
func (c *Cluster) Down(ctx context.Context) error {
	_, err := c.Compose(ctx, "down", "--volumes", "--remove-orphans", "--timeout", "5")
	return err
}

// SetMode switches how the cluster replicates, as a DBA does: the variable, and up again.
func (c *Cluster) SetMode(ctx context.Context, mode string) error {
	if err := appendLines(c.env, []string{"REPLICATION_MODE=" + mode}); err != nil {
		return err
	}
	// Or Compose would make anew what depends on it, the service too.
	if _, err := c.Compose(ctx, "rm", "--force", "configure", "migrate"); err != nil {
		return err
	}
	if err := c.Start(ctx); err != nil {
		return err
	}
	return c.Await(ctx, time.Minute, "the mode "+mode, func(s State) bool {
		return s.Healthy() && (mode == "async") == (s.Sync == "")
	})
}

// Compose runs docker compose on this cluster.
func (c *Cluster) Compose(ctx context.Context, args ...string) (string, error) {
	return c.composeFor(ctx, commandTimeout, args...)
}

func (c *Cluster) composeFor(ctx context.Context, limit time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	command := []string{"docker", "compose", "--env-file", c.env, "-f", "docker-compose.yml"}
	for _, file := range c.cfg.Files {
		command = append(command, "-f", file)
	}
	return run(ctx, c.cfg.Root, append(command, args...)...)
}

// Docker runs a docker command on the container of a service: Docker(ctx, "kill", "pg-node-1").
// Options go before: Docker(ctx, "stop -t 60", ...).
func (c *Cluster) Docker(ctx context.Context, command, service string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	line := append([]string{"docker"}, strings.Fields(command)...)
	return run(ctx, c.cfg.Root, append(append(line, c.Container(service)), args...)...)
}

// Container is the name of a service's container.
func (c *Cluster) Container(service string) string { return c.cfg.Project + "-" + service + "-1" }

// Exec runs a shell command in a container.
func (c *Cluster) Exec(ctx context.Context, service, command string) (string, error) {
	return c.Docker(ctx, "exec", service, "sh", "-c", command)
}

// SQL runs statements as superuser on a node and returns unaligned rows.
func (c *Cluster) SQL(ctx context.Context, node, sql string) (string, error) {
	out, err := c.Docker(ctx, "exec", node, "psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-d", "accounts", "-c", sql)
	return strings.TrimSpace(out), err
}

// Netns runs a command in a container's network namespace, as root of this host.
func (c *Cluster) Netns(ctx context.Context, service string, command ...string) error {
	pid, err := c.Docker(ctx, "inspect -f {{.State.Pid}}", service)
	if err != nil {
		return err
	}
	_, err = run(ctx, c.cfg.Root, append([]string{"nsenter", "-t", strings.TrimSpace(pid), "-n"}, command...)...)
	return err
}

// Address is the fixed address of a node or a store.
func (c *Cluster) Address(service string) string {
	last := map[string]string{"etcd-1": ".11", "etcd-2": ".12", "etcd-3": ".13", "pg-node-1": ".21", "pg-node-2": ".22"}
	return c.secrets["NODES_PREFIX"] + last[service]
}

// Secret returns a variable of the environment file.
func (c *Cluster) Secret(name string) string { return c.secrets[name] }

// MigrateURL is how the migrator gets in through HAProxy on this host.
func (c *Cluster) MigrateURL(port int) string {
	return fmt.Sprintf("postgres://accounts_migrator:%s@127.0.0.1:%d/accounts?sslmode=disable", c.secrets["ACCOUNTS_MIGRATOR_PASSWORD"], port)
}

// State is what Patroni says of the cluster.
type State struct {
	Leader string // a primary that runs
	Sync   string // the synchronous standby
	// Standbys that stream; Timeline is the leader's.
	Standbys []string
	Timeline int
}

// Healthy means a primary and a streaming standby on its timeline.
func (s State) Healthy() bool { return s.Leader != "" && len(s.Standbys) == 1 }

// State asks the first node that answers.
func (c *Cluster) State(ctx context.Context) (State, error) {
	var text string
	var err error
	for _, node := range Nodes {
		if text, err = c.Docker(ctx, "exec", node, "curl", "-s", "-m", "2", "http://localhost:8008/cluster"); err == nil {
			break
		}
	}
	if err != nil {
		return State{}, err
	}
	var answer struct {
		Members []struct {
			Name, Role, State string
			Timeline          int
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return State{}, fmt.Errorf("parse what Patroni says: %w", err)
	}
	var s State
	for _, m := range answer.Members {
		if m.Role == "leader" && m.State == "running" {
			s.Leader, s.Timeline = m.Name, m.Timeline
		}
	}
	for _, m := range answer.Members {
		if m.Role != "leader" && m.State == "streaming" && m.Timeline == s.Timeline {
			s.Standbys = append(s.Standbys, m.Name)
			if m.Role == "sync_standby" {
				s.Sync = m.Name
			}
		}
	}
	return s, nil
}

// Promoted returns when the current timeline began; zero on the first.
func (c *Cluster) Promoted(ctx context.Context) (time.Time, error) {
	state, err := c.State(ctx)
	if err != nil || state.Timeline < 2 {
		return time.Time{}, err
	}
	out, err := c.SQL(ctx, state.Leader, fmt.Sprintf(
		"SELECT extract(epoch FROM modification) FROM pg_stat_file('pg_wal/%08X.history')", state.Timeline))
	if err != nil {
		return time.Time{}, err
	}
	seconds, err := strconv.ParseFloat(out, 64)
	return time.UnixMicro(int64(seconds * 1e6)), err
}

// Await polls until the state is as wanted.
func (c *Cluster) Await(ctx context.Context, limit time.Duration, what string, wanted func(State) bool) error {
	var last State
	err := Eventually(ctx, limit, func() (err error) {
		if last, err = c.State(ctx); err == nil && !wanted(last) {
			err = fmt.Errorf("the cluster is %+v", last)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: not within %s: %w", what, limit, err)
	}
	return nil
}

// Eventually repeats attempt until it succeeds, for at most limit.
func Eventually(ctx context.Context, limit time.Duration, attempt func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := attempt()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(pollInterval):
		}
	}
}

// Request sends one request to the edge with a token for everything.
func (c *Cluster) Request(ctx context.Context, client *http.Client, method, path string, body any) (*http.Response, []byte, error) {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, nil, err
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, reader)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Authorization", c.auth)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp, text, err
}

func (c *Cluster) readSecrets() error {
	text, err := os.ReadFile(c.env)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			c.secrets[name] = value
		}
	}
	return nil
}

func run(ctx context.Context, dir string, command ...string) (string, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir
	// The environment would override the cluster's own file.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "DOCKER_HOST=" + os.Getenv("DOCKER_HOST")}
	if os.Getenv("DOCKER_HOST") == "" {
		cmd.Env = cmd.Env[:2]
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		said := stderr.String()
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, said[max(0, len(said)-2000):])
	}
	return stdout.String(), nil
}

func appendLines(file string, lines []string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n" + strings.Join(lines, "\n") + "\n")
	return errors.Join(err, f.Close())
}

func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
