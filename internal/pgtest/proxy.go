package pgtest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/payment-services/accounts/internal/localservers"
)

// dialTimeout bounds the connection to the server behind a proxy.
const dialTimeout = 5 * time.Second

// Proxy forwards TCP connections to a server, until a test cuts or stalls it: one client is cut off
// while others still reach the server. It is safe for concurrent use.
type Proxy struct {
	target string
	port   *localservers.Port
	pumps  sync.WaitGroup

	// gate is read-locked for every write of a pump, and locked while the proxy is stalled.
	gate sync.RWMutex

	mu       sync.Mutex
	stalled  bool
	listener net.Listener // nil while cut
	open     map[net.Conn]struct{}
}

// NewProxy starts a proxy to the server at target ("127.0.0.1:port"), which ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	port, err := localservers.ReservePort(0)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	p := &Proxy{target: target, port: port, open: make(map[net.Conn]struct{})}
	t.Cleanup(func() {
		p.Resume()
		p.Cut()
		p.pumps.Wait()
		if err := port.Release(); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	if err := p.Heal(); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return p
}

// Address returns the proxy's own "127.0.0.1:port"; it stays the same.
func (p *Proxy) Address() string { return p.port.Address() }

// URL returns the connection string of a server with the proxy's address in place of the server's.
func (p *Proxy) URL(server string) (string, error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", errors.New("pgtest: not a connection string") // the cause would quote its password
	}
	u.Host = p.Address()
	return u.String(), nil
}

// Cut closes every connection and refuses new ones.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener == nil {
		return
	}
	_ = p.listener.Close()
	p.listener = nil
	for conn := range p.open {
		_ = conn.Close()
	}
}

// Heal accepts connections again after Cut.
func (p *Proxy) Heal() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		return nil
	}
	listener, err := net.Listen("tcp", p.Address())
	if err != nil {
		return fmt.Errorf("heal the proxy: %w", err)
	}
	p.listener = listener
	p.pumps.Go(func() { p.accept(listener) })
	return nil
}

// Stall passes nothing any more, in either direction: connections stay open and are still accepted,
// as behind a firewall that drops packets.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stalled {
		p.gate.Lock()
		p.stalled = true
	}
}

// Resume passes what was held back, and all that follows.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalled {
		p.gate.Unlock()
		p.stalled = false
	}
}

func (p *Proxy) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return // cut
		}
		p.pumps.Go(func() { p.forward(client, listener) })
	}
}

func (p *Proxy) forward(client net.Conn, listener net.Listener) {
	defer client.Close()
	server, err := net.DialTimeout("tcp", p.target, dialTimeout)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.register(listener, client, server) {
		return
	}
	defer p.unregister(client, server)
	var back sync.WaitGroup
	back.Go(func() { p.pump(client, server) })
	p.pump(server, client)
	back.Wait()
}

// pump copies until either side ends, and then ends both.
func (p *Proxy) pump(to, from net.Conn) {
	_, _ = io.Copy(gatedWriter{p, to}, from)
	_ = from.Close()
	p.gate.RLock() // a stalled proxy does not pass the end of a connection either
	defer p.gate.RUnlock()
	_ = to.Close()
}

type gatedWriter struct {
	proxy *Proxy
	to    io.Writer
}

func (w gatedWriter) Write(b []byte) (int, error) {
	w.proxy.gate.RLock()
	defer w.proxy.gate.RUnlock()
	return w.to.Write(b)
}

// register makes the connections known to Cut, unless it came first.
func (p *Proxy) register(listener net.Listener, conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != listener {
		return false
	}
	for _, conn := range conns {
		p.open[conn] = struct{}{}
	}
	return true
}

func (p *Proxy) unregister(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range conns {
		delete(p.open, conn)
	}
}
