package store

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// columnsOf turns rows of texts and numbers on their side: one []string or []int64 for each column.
func columnsOf(rows [][]any) ([]any, bool) {
	columns := make([]any, len(rows[0]))
	for i, first := range rows[0] {
		switch first.(type) {
		case string:
			column := make([]string, len(rows))
			for r, row := range rows {
				s, ok := row[i].(string)
				if !ok {
					return nil, false
				}
				column[r] = cleanText(s)
			}
			columns[i] = column
		case int64:
			column := make([]int64, len(rows))
			for r, row := range rows {
				n, ok := row[i].(int64)
				if !ok {
					return nil, false
				}
				column[r] = n
			}
			columns[i] = column
		default:
			return nil, false
		}
	}
	return columns, true
}

var bulks sync.Map // statements by those that they were made of

// The statements of which bulk can make one for many rows: those that this package gives to many.
var (
	bulkInsert = regexp.MustCompile(`(?s)^(INSERT INTO \w+ \([^()]*\)\s+)VALUES \(([^()]*)\)(.*)$`)
	bulkUpdate = regexp.MustCompile(`(?s)^(UPDATE \w+ SET .*?)(\sWHERE .*)$`)
	bulkSelect = regexp.MustCompile(`(?s)^SELECT `)
	bulkDelete = regexp.MustCompile(`(?s)^(DELETE FROM \w+)(\sWHERE .*)$`)
)

// bulk makes a statement for one row into one for many, each of whose arguments is a column. It is empty where it does not know how. No two rows may be about the same.
//
//	INSERT INTO t (a, b) VALUES (?, 0) ON CONFLICT …    INSERT INTO t (a, b) SELECT r.c1, 0 FROM unnest($1::text[]) AS r (c1) ON CONFLICT …
//	UPDATE t SET a = ? WHERE b = ?                      UPDATE t SET a = r.c1 FROM unnest($1::text[], $2::bigint[]) AS r (c1, c2) WHERE b = r.c2
//	DELETE FROM t WHERE a = ?                           DELETE FROM t USING unnest($1::text[]) AS r (c1) WHERE a = r.c1
//	SELECT a FROM t WHERE b = ?                         SELECT q.* FROM unnest($1::text[]) AS r (c1), LATERAL (SELECT a FROM t WHERE b = r.c1 OFFSET 0) AS q
//
// With OFFSET 0 the question is asked for each row, whatever the planner believes of the size of a table that it has not looked at for long.
func bulk(query string, columns []any) string {
	if made, ok := bulks.Load(query); ok {
		return made.(string)
	}
	var arguments, names []string
	for i, c := range columns {
		kind := "text"
		if _, ok := c.([]int64); ok {
			kind = "bigint"
		}
		arguments = append(arguments, fmt.Sprintf("$%d::%s[]", i+1, kind))
		names = append(names, fmt.Sprintf("c%d", i+1))
	}
	rows := "unnest(" + strings.Join(arguments, ", ") + ") AS r (" + strings.Join(names, ", ") + ")"
	named := numbered(query, "r.c")
	made := ""
	if m := bulkInsert.FindStringSubmatch(named); m != nil {
		made = m[1] + "SELECT " + m[2] + " FROM " + rows + m[3]
	} else if m := bulkUpdate.FindStringSubmatch(named); m != nil {
		made = m[1] + " FROM " + rows + m[2]
	} else if m := bulkDelete.FindStringSubmatch(named); m != nil {
		made = m[1] + " USING " + rows + m[2]
	}
	if made == "" && bulkSelect.MatchString(named) {
		made = "SELECT q.* FROM " + rows + ", LATERAL (" + named + " OFFSET 0) AS q"
	}
	bulks.Store(query, made)
	return made
}

// numbered gives each ? of a query its number, or the one that follows it, behind a prefix.
func numbered(query, prefix string) string {
	var out strings.Builder
	next := 1
	for i := 0; i < len(query); i++ {
		if query[i] != '?' {
			out.WriteByte(query[i])
			continue
		}
		out.WriteString(prefix)
		if i+1 < len(query) && query[i+1] >= '0' && query[i+1] <= '9' {
			continue // its number follows
		}
		out.WriteString(strconv.Itoa(next))
		next++
	}
	return out.String()
}
