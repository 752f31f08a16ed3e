package localservers

import (
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// Port is a TCP port of 127.0.0.1 that belongs to this process while a server that listens on it
// comes and goes: a socket stays bound to it without listening. The kernel then gives the port to
// nobody else, refuses connections while the server is down, and still lets the server bind it,
// because both sides set SO_REUSEADDR.
type Port struct {
	fd     int
	number int
}

// ReservePort takes the wanted port if nothing listens on it, else (or for 0) one that the kernel
// chooses.
func ReservePort(wanted int) (*Port, error) {
	if wanted != 0 {
		if p, err := bindPort(wanted); err == nil {
			return p, nil
		}
	}
	return bindPort(0)
}

func bindPort(number int) (*Port, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	address, err := bindReusable(fd, number)
	if err != nil {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	return &Port{fd: fd, number: address.Port}, nil
}

func bindReusable(fd, number int) (*syscall.SockaddrInet4, error) {
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return nil, err
	}
	local := &syscall.SockaddrInet4{Port: number, Addr: [4]byte{127, 0, 0, 1}}
	if err := syscall.Bind(fd, local); err != nil {
		return nil, err
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		return nil, err
	}
	return bound.(*syscall.SockaddrInet4), nil
}

// Address returns "127.0.0.1:port".
func (p *Port) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.number)) }

// Release gives the port back.
func (p *Port) Release() error { return syscall.Close(p.fd) }
