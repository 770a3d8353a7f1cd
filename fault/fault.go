// Package fault gives every error a kind, so that a program's exit code and its JSON tell the truth about what went wrong.
//
// A kind is attached once, where the cause is known, with New or Wrap; callers above add context with fmt.Errorf("…: %w").
// The kind nearest the top of the chain wins, so that a caller who knows better can say so.
//
//	kind           exit  JSON "kind"     meaning
//	Usage          2     "usage"         the command line is wrong
//	Input          1     "input"         a file or message the user gave is wrong
//	Network        1     "network"       a peer could not be reached or broke off
//	Verification   1     "verification"  a hash, signature or policy said no
//	IO             1     "io"            the disk or the operating system failed
//	Internal       1     "internal"      none of the above: a bug in Semper
package fault

import (
	"errors"
	"fmt"
)

// Kind is the class of a failure.
type Kind uint8

// The kinds, see the table in the package's documentation. The zero Kind is Internal.
const (
	Internal Kind = iota
	Usage
	Input
	Network
	Verification
	IO
)

// String returns the word that --json prints.
func (k Kind) String() string {
	switch k {
	case Usage:
		return "usage"
	case Input:
		return "input"
	case Network:
		return "network"
	case Verification:
		return "verification"
	case IO:
		return "io"
	default:
		return "internal"
	}
}

// ParseKind is String's reverse: errors cross sockets and pipes with their kind's word. What is no such word is Internal.
func ParseKind(word string) Kind {
	for k := Usage; k <= IO; k++ {
		if k.String() == word {
			return k
		}
	}
	return Internal
}

type kindError struct {
	kind Kind
	err  error
}

func (e *kindError) Error() string { return e.err.Error() }
func (e *kindError) Unwrap() error { return e.err }

// New returns an error of kind k. The format may hold %w, as in fmt.Errorf.
func New(k Kind, format string, args ...any) error {
	return &kindError{kind: k, err: fmt.Errorf(format, args...)}
}

// Wrap gives err the kind k without changing its text. Wrap(k, nil) is nil.
func Wrap(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &kindError{kind: k, err: err}
}

// KindOf returns the kind of err: the outermost one in its chain, or Internal where none was given.
func KindOf(err error) Kind {
	var e *kindError
	if errors.As(err, &e) {
		return e.kind
	}
	return Internal
}

// Is reports whether err has the kind k.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }

// ExitCode returns what a program exits with for err: 0 for nil, 2 for Usage, 1 for the rest.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case KindOf(err) == Usage:
		return 2
	default:
		return 1
	}
}
