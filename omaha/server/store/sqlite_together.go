package store

import (
	"regexp"
	"strings"
	"sync"
	"unicode/utf8"
)

var (
	lookups     sync.Map // statements by those that they were made of
	lookupQuery = regexp.MustCompile(`(?s)^SELECT (.*) FROM (\w+) WHERE (\w+) = \? AND (\w+) = \?( ORDER BY .*)?$`)
)

// togetherRows is how many rows one statement inserts.
const togetherRows = 16

var inserts sync.Map // statements by those that they were made of

// insertTogether makes a statement that inserts a row into one that inserts togetherRows of them, whose arguments follow each other. It is empty where that cannot be done.
func insertTogether(query string) string {
	made, known := inserts.Load(query)
	if !known {
		text := ""
		if m := bulkInsert.FindStringSubmatch(query); m != nil && !numberedArgument.MatchString(query) {
			text = m[1] + "VALUES " + strings.Repeat("("+m[2]+"), ", togetherRows-1) + "(" + m[2] + ")" + m[3]
		}
		made, _ = inserts.LoadOrStore(query, text)
	}
	return made.(string)
}

var numberedArgument = regexp.MustCompile(`\?[0-9]`)

// lookupTogether makes a question that is asked for many rows of arguments into one, which SQLite answers several times as fast: its driver takes longer to ask than SQLite to
// answer. The first argument is the same in all rows, and the second one becomes a list. It is not ok where that cannot be done.
//
//	SELECT a FROM t WHERE b = ? AND c = ?
//	SELECT a FROM (SELECT value AS wanted FROM json_each(?2)) CROSS JOIN t WHERE b = ?1 AND c = wanted
func lookupTogether(query string, rows [][]any) (together string, args []any, ok bool) {
	if len(rows) < 2 || len(rows[0]) != 2 {
		return "", nil, false
	}
	wanted := make([]string, len(rows))
	for i, row := range rows {
		s, text := row[1].(string)
		if !text || row[0] != rows[0][0] || !utf8.ValidString(s) || strings.ContainsRune(s, 0) { // JSON cannot have it, or SQLite not keep it
			return "", nil, false
		}
		wanted[i] = s
	}
	made, known := lookups.Load(query)
	if !known {
		text := ""
		if m := lookupQuery.FindStringSubmatch(query); m != nil {
			text = "SELECT " + m[1] + " FROM (SELECT value AS wanted FROM json_each(?2)) CROSS JOIN " + m[2] + " WHERE " + m[3] + " = ?1 AND " + m[4] + " = wanted" + m[5]
		}
		made, _ = lookups.LoadOrStore(query, text)
	}
	together = made.(string)
	return together, []any{rows[0][0], inOne(wanted)}, together != ""
}
