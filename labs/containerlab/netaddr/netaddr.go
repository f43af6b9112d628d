// Package netaddr stands in for the module of that name when containerlab is built (labs/containerlab/build): not
// every Go module proxy has it. Only the template functions net.ParseIP, net.ParseIPPrefix and net.ParseIPRange
// are made of it, which topologies of this lab do not call; they fail.
package netaddr

import (
	"errors"
	"net"
)

var errAbsent = errors.New("this build of containerlab has no such template function")

// IP is an address that nobody can make.
type IP struct{}

// IPRange is a range of addresses that nobody can make.
type IPRange struct{}

// IPPrefix is a prefix that nobody can make.
type IPPrefix struct{}

// ParseIP fails.
func ParseIP(string) (IP, error) { return IP{}, errAbsent }

// ParseIPRange fails.
func ParseIPRange(string) (IPRange, error) { return IPRange{}, errAbsent }

// ParseIPPrefix fails.
func ParseIPPrefix(string) (IPPrefix, error) { return IPPrefix{}, errAbsent }

// Masked is the prefix itself.
func (p IPPrefix) Masked() IPPrefix { return p }

// IPNet is an empty network.
func (p IPPrefix) IPNet() *net.IPNet { return &net.IPNet{} }
