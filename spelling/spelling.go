// Package spelling finds the word that was probably meant, for the errors that say so: "unknown key x: did you mean y?".
package spelling

import (
	"slices"
	"strings"
)

// Nearest returns up to n of the candidates that word was probably meant to be, best first: those within a third of its length in edits, and those that
// have it in their name. It returns none when nothing is near.
func Nearest(word string, candidates []string, n int) []string {
	type scored struct {
		name  string
		score int
	}
	limit := max(1, len(word)/3)
	var found []scored
	for _, c := range candidates {
		if d := Distance(word, c, limit); d <= limit {
			found = append(found, scored{c, d})
		} else if len(word) >= 4 && (strings.HasPrefix(c, word) || strings.HasSuffix(c, word)) {
			found = append(found, scored{c, limit + len(c) - len(word)})
		}
	}
	slices.SortFunc(found, func(a, b scored) int {
		if a.score != b.score {
			return a.score - b.score
		}
		return strings.Compare(a.name, b.name)
	})
	var names []string
	for _, f := range found {
		if len(names) < n && !slices.Contains(names, f.name) {
			names = append(names, f.name)
		}
	}
	return names
}

// Distance is the number of letters to insert, delete, replace or swap with their neighbour to make b of a (optimal string alignment), or some number
// above limit when it exceeds limit.
func Distance(a, b string, limit int) int {
	if d := len(a) - len(b); d > limit || -d > limit || len(a) > 128 || len(b) > 128 {
		return limit + 1
	}
	before, above, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row = above, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := above[j-1]
			if a[i-1] != b[j-1] {
				cost = 1 + min(cost, above[j], row[j-1])
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cost = min(cost, before[j-2]+1)
			}
			row[j] = cost
		}
		if min(slices.Min(row), slices.Min(above)) > limit { // a swap looks two rows back
			return limit + 1
		}
	}
	return row[len(b)]
}
