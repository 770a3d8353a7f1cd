package initramfs

import (
	"errors"
	"fmt"
	"strings"
)

const frameWidth = 78

// Failure is an error with what a person in front of the console needs to know.
type Failure struct {
	What  string // "The system partition is damaged"
	Where string // "slot A, /dev/vda3 on disk /dev/vda"; may be empty
	Do    string // what the person can do; may be empty
	Err   error  // the cause
}

// Error joins what and cause.
func (f *Failure) Error() string {
	if f.Where == "" {
		return fmt.Sprintf("%s: %v", f.What, f.Err)
	}
	return fmt.Sprintf("%s (%s): %v", f.What, f.Where, f.Err)
}

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

const whatNext = "This machine restarts in a few seconds. The boot loader counts a failed try; when a new version has used up its tries, the one before it is started."

// message returns the lines of the frame for an error.
func message(err error) []string {
	var f *Failure
	if !errors.As(err, &f) {
		f = &Failure{What: "The system could not be started", Err: err}
	}
	lines := []string{"SEMPER CANNOT START THIS SYSTEM", ""}
	for _, part := range []struct{ name, text string }{
		{"What:  ", f.What + "."},
		{"Where: ", f.Where},
		{"Cause: ", f.Err.Error()},
		{"Help:  ", f.Do},
		{"Next:  ", whatNext},
	} {
		if part.text != "" {
			lines = append(lines, wrap(part.name, oneLine(part.text), frameWidth-4)...)
		}
	}
	return lines
}

// wrap breaks a text into lines of at most width bytes, the first of which begins with the given name and the others with as many spaces. A word that is
// too long is cut.
func wrap(name, text string, width int) []string {
	var lines []string
	line := name
	room := func() int { return width - len(line) }
	empty := true // the line has no word yet
	for _, word := range strings.Fields(text) {
		for !empty && len(word) >= room() || empty && len(word) > room() {
			if empty {
				lines = append(lines, line+word[:room()])
				word = word[room():]
			} else {
				lines = append(lines, line)
			}
			line, empty = strings.Repeat(" ", len(name)), true
		}
		if !empty {
			line += " "
		}
		line += word
		empty = false
	}
	return append(lines, line)
}
