package document

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
)

// readComments returns the comments on the struct types of packages, by the type's name, and on their fields, by type and field.
func readComments(folders ...string) (map[string]string, error) {
	out := map[string]string{}
	for _, folder := range folders {
		files, err := filepath.Glob(filepath.Join(folder, "*.go"))
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("no sources in %s (%w)", folder, err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
			if err != nil {
				return nil, err
			}
			for _, d := range f.Decls {
				if g, ok := d.(*ast.GenDecl); ok {
					readTypes(f.Name.Name, g, out)
				}
			}
		}
	}
	return out, nil
}

func readTypes(pkg string, g *ast.GenDecl, out map[string]string) {
	for _, spec := range g.Specs {
		t, ok := spec.(*ast.TypeSpec)
		if !ok {
			continue
		}
		s, ok := t.Type.(*ast.StructType)
		if !ok {
			continue
		}
		out[pkg+"."+t.Name.Name] = text(g.Doc)
		for _, f := range s.Fields.List {
			for _, name := range f.Names {
				if said := strings.TrimSpace(text(f.Doc) + " " + text(f.Comment)); said != "" {
					out[pkg+"."+t.Name.Name+"."+name.Name] = said
				}
			}
		}
	}
}

func text(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }
