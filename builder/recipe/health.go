package recipe

import "strings"

// HealthCheck is one of the recipe's [[health]].
type HealthCheck struct {
	Name    string
	Command []string // program and arguments, without a shell
}

// Script is the check as an executable file for /usr/lib/semper/health.d.
func (h HealthCheck) Script() string {
	words := make([]string, len(h.Command))
	for i, w := range h.Command {
		words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return "#!/bin/sh\nexec " + strings.Join(words, " ") + "\n"
}
