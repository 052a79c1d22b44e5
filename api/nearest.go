package api

import "strings"

// nearest is the known word closest to got, "" if none is close.
func nearest(got string, known []string) string {
	best, bestDistance := "", max(2, len(got)/3)+1
	for _, k := range known {
		if strings.EqualFold(got, k) {
			return k
		}
		if d := distance(strings.ToLower(got), strings.ToLower(k)); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// nearestHint names the closest known word, or all of them.
func nearestHint(got string, known []string) string {
	if n := nearest(got, known); n != "" && n != got {
		return "did you mean " + n + "?"
	}
	return "one of " + strings.Join(known, ", ")
}

// distance is the number of edits from a to b (Levenshtein), bytes being enough for our words.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
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
