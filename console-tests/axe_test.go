package consoletests

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// axe is axe-core, as the lock in axe/ names it. It is installed once for all tests.
var axe = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "semper-axe-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"package.json", "package-lock.json", ".npmrc"} {
		content, err := os.ReadFile(filepath.Join("axe", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), content, 0o600)
		}
		if err != nil {
			return "", err
		}
	}
	c := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		return "", &installError{string(out), err}
	}
	script, err := os.ReadFile(filepath.Join(dir, "node_modules", "axe-core", "axe.min.js"))
	return string(script), err
})

type installError struct {
	out string
	err error
}

func (e *installError) Error() string {
	return "install axe-core (npm is in 'make packages'): " + e.err.Error() + "\n" + e.out
}

// check runs axe's rules in the page: WCAG 2.2 AA, and axe's own good practices. What it cannot decide, such as the contrast of a text on a picture, it leaves out.
const check = `axe.run(document, {
	%s, preload: false,
	resultTypes: ["violations"], elementRef: false, ancestry: false,
}).then((r) => JSON.stringify(r.violations.map((v) => ({
	rule: v.id, impact: v.impact, help: v.help, nodes: v.nodes.map((n) => ({ target: n.target.join(" "), html: n.html.slice(0, 300), why: n.failureSummary })),
}))))`

// rules are axe's: all that we keep to, those alone that colours decide, and all but the slow one of these.
const (
	allRules    = `runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]`
	colourRules = `runOnly: ["color-contrast", "link-in-text-block"]`
	shapeRules  = allRules + `, rules: { "color-contrast": { enabled: false } }`
)

// violation is a rule that a page breaks.
type violation struct {
	Rule, Impact, Help string
	Nodes              []struct{ Target, HTML, Why string }
}

// violations runs axe in a world of its own beside the page's scripts, which the page's policy does not reach: the page stays as strict as it is served.
func (b *browser) violations(rules string) (found []violation) {
	b.t.Helper()
	script, err := axe()
	if err != nil {
		b.t.Fatal(err)
	}
	text := do(b, func(ctx context.Context, t *chromedp.Target) (string, error) {
		tree, err := cdp.Call(ctx, t, page.GetFrameTree, cdp.Empty{})
		if err != nil {
			return "", err
		}
		world, err := cdp.Call(ctx, t, page.CreateIsolatedWorld, page.CreateIsolatedWorldParams{FrameID: tree.FrameTree.Frame.ID, WorldName: "axe"})
		if err != nil {
			return "", err
		}
		there := func(p *runtime.EvaluateParams) { p.ContextID = world.ExecutionContextID }
		if _, err := chromedp.Evaluate[bool](script+"\n;true", there)(ctx, t); err != nil {
			return "", err
		}
		return chromedp.Evaluate[string](fmt.Sprintf(check, rules), there, chromedp.EvalAwaitPromise)(ctx, t)
	})
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		b.t.Fatalf("axe answered %.200s: %v", text, err)
	}
	return found
}

// accessible fails the test where the page breaks a rule whose impact is serious or critical; the others are told. In the dark a page is other in its colours alone, and on a
// phone in all but these.
func (b *browser) accessible(what string, l look) {
	b.t.Helper()
	rules := allRules
	switch {
	case l.dark:
		rules = colourRules
	case l.width < 600:
		rules = shapeRules
	}
	for _, v := range b.violations(rules) {
		var nodes strings.Builder
		for _, n := range v.Nodes[:min(len(v.Nodes), 5)] {
			nodes.WriteString("\n\t" + n.Target + "\n\t\t" + n.HTML + "\n\t\t" + strings.ReplaceAll(n.Why, "\n", "\n\t\t"))
		}
		tell := b.t.Logf
		if v.Impact == "serious" || v.Impact == "critical" {
			tell = b.t.Errorf
		}
		tell("%s, %s: %s (%s, %s), at %d places%s", what, l.name, v.Help, v.Rule, v.Impact, len(v.Nodes), nodes.String())
	}
}
