package config

import "github.com/semper-os/semper/spelling"

// nearest returns the candidate that takes the fewest edits to reach from name, if it is near enough to be meant. A key in the wrong table, or without its
// table ("strategy"), is compared by the last part too; between equals, the whole name decides.
func nearest(name string, candidates []string) string {
	if len(name) > 64 {
		return ""
	}
	const limit = 2
	best, bestDistance, bestWhole := "", limit+1, 0
	_, last := split(name)
	for _, c := range candidates {
		_, lastOfC := split(c)
		whole := spelling.Distance(name, c, len(name)+len(c))
		d := min(whole, spelling.Distance(last, lastOfC, limit))
		if 2*d > len(last) {
			continue // in a short name everything is near
		}
		if d < bestDistance || (d == bestDistance && best != "" && whole < bestWhole) {
			best, bestDistance, bestWhole = c, d, whole
		}
	}
	return best
}
