package config

// nearest returns the candidate that takes the fewest edits to reach from name, if it is near enough to be meant. A key in the wrong table, or without its
// table ("strategy"), is compared by the last part too; between equals, the whole name decides.
func nearest(name string, candidates []string) string {
	if len(name) > 64 {
		return ""
	}
	best, bestDistance, bestWhole := "", 3, 0
	_, last := split(name)
	for _, c := range candidates {
		_, lastOfC := split(c)
		whole := distance(name, c)
		d := min(whole, distance(last, lastOfC))
		if 2*d > len(last) {
			continue // in a short name everything is near
		}
		if d < bestDistance || (d == bestDistance && best != "" && whole < bestWhole) {
			best, bestDistance, bestWhole = c, d, whole
		}
	}
	return best
}

// distance is the number of single-byte insertions, deletions and replacements between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
