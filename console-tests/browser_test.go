// Package consoletests drives the console in a real Chromium, headless, against a real server with simulated machines.
package consoletests

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is how long a page may take to show what it should.
const patience = 20 * time.Second

// browser is a window of its own, with its own cookies.
type browser struct {
	t    testing.TB
	ctx  context.Context
	base string

	started bool
	stop    func() // ends it before the test does

	mu       sync.Mutex
	troubles []string // errors that the pages reported
}

// start starts Chromium. It runs as root in tests, where its sandbox cannot.
func start(t testing.TB, base string) *browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("/usr/bin/chromium"), chromedp.NoSandbox, chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.UserDataDir(filepath.Join(t.TempDir(), "profile")), chromedp.WindowSize(1280, 900), chromedp.Flag("lang", "en-GB"))
	alloc, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx, base: base, stop: cancel}
	do(b, chromedp.Navigate("about:blank")) // starts it
	trouble := func(text string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.troubles = append(b.troubles, text)
	}
	go func() {
		for ev, err := range chromedp.Events(ctx, runtime.ExceptionThrown) {
			if err == nil {
				text, _ := json.Marshal(ev.ExceptionDetails)
				trouble(string(text))
			}
		}
	}()
	go func() {
		for ev, err := range chromedp.Events(ctx, runtime.ConsoleAPICalled) {
			if err == nil && ev.Type == "error" {
				text, _ := json.Marshal(ev.Args)
				trouble(string(text))
			}
		}
	}()
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, trouble := range b.troubles {
			t.Errorf("a page reported: %s", trouble)
		}
	})
	return b
}

// become gives the browser a session's cookie.
func (b *browser) become(c *http.Cookie) {
	b.t.Helper()
	do(b, func(ctx context.Context, t *chromedp.Target) (cdp.Empty, error) {
		return cdp.Call(ctx, t, network.SetCookie, network.SetCookieParams{Name: c.Name, Value: c.Value, URL: b.base})
	})
}

// do runs an action.
func do[T any](b *browser, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx := b.ctx
	if b.started { // the first action starts the browser, which lives as long as its context
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(b.ctx, patience)
		defer cancel()
	}
	b.started = true
	out, err := chromedp.Run(ctx, action)
	if err != nil {
		b.t.Fatalf("browser: %v", err)
	}
	return out
}

func (b *browser) open(path string) {
	b.t.Helper()
	do(b, chromedp.Navigate(b.base+path))
}

// js calls a function of arguments in the page.
func (b *browser) js(into any, function string, arguments ...any) {
	b.t.Helper()
	args := make([]string, len(arguments))
	for i, a := range arguments {
		text, err := json.Marshal(a)
		if err != nil {
			b.t.Fatal(err)
		}
		args[i] = string(text)
	}
	answer := do(b, chromedp.Evaluate[json.RawMessage]("(async () => JSON.stringify(("+function+")("+strings.Join(args, ",")+")) ?? 'null')()", chromedp.EvalAwaitPromise))
	var text string
	if err := json.Unmarshal(answer, &text); err != nil {
		b.t.Fatalf("the page answered %s: %v", answer, err)
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		b.t.Fatalf("the page answered %s: %v", text, err)
	}
}

// eventually waits until something holds.
func (b *browser) eventually(what string, holds func() bool) {
	b.t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			var text string
			b.js(&text, "() => location.href + '\\n' + document.body?.innerText")
			b.shot("failed")
			b.t.Fatalf("%s: not within %v; the page is\n%.3000s", what, patience, text)
		}
	}
}

// see waits until a text is on the page.
func (b *browser) see(text string) {
	b.t.Helper()
	b.eventually("see "+text, func() (seen bool) {
		b.js(&seen, "(t) => (document.body?.innerText ?? '').toLowerCase().includes(t.toLowerCase())", text)
		return seen
	})
}

// find returns where something is that can be clicked and has a name, in the dialog where one is open. Null: nowhere.
const find = `(name, kinds) => {
	const root = document.querySelector("dialog[open]") ?? document;
	const named = (e) => (e.getAttribute("aria-label") ?? e.innerText ?? "").trim() === name;
	const e = [...root.querySelectorAll(kinds)].find((e) => named(e) && !e.disabled && e.checkVisibility());
	if (!e) return null;
	e.scrollIntoView({ block: "center", behavior: "instant" });
	const r = e.getClientRects()[0] ?? e.getBoundingClientRect(); // of the first line: between two there is nothing to hit
	window.clicked = false;
	e.addEventListener("click", () => { window.clicked = true; }, { once: true, capture: true });
	return { x: r.left + r.width / 2, y: r.top + r.height / 2 };
}`

// click clicks what has a name, with the mouse. A page that still fills moves what is on it: it is clicked where it stays, and once more where it moved nevertheless.
func (b *browser) click(name string) {
	b.t.Helper()
	type place struct{ X, Y float64 }
	var at, before *place
	b.eventually("click "+name, func() (hit bool) {
		at = nil
		b.js(&at, find, name, "button, a, summary, label")
		still := at != nil && before != nil && *at == *before
		before = at
		if !still {
			return false
		}
		do(b, chromedp.MouseClickXY(at.X, at.Y))
		b.js(&hit, `() => window.clicked !== false`) // undefined: another document is there
		before = nil
		return hit
	})
}

// confirm clicks a dialog's button, once it is open, and waits until it is closed.
func (b *browser) confirm(name string) {
	b.t.Helper()
	open := func() (is bool) {
		b.js(&is, `() => document.querySelector("dialog[open]") !== null`)
		return is
	}
	b.eventually("a dialog", open)
	b.click(name)
	b.eventually("done: "+name, func() bool { return !open() })
}

// answer types into a field of a dialog, once it is open.
func (b *browser) answer(label, text string) {
	b.t.Helper()
	b.eventually("a dialog", func() (is bool) {
		b.js(&is, `() => document.querySelector("dialog[open]") !== null`)
		return is
	})
	b.fill(label, text)
}

// can reports whether there is something of a name to click.
func (b *browser) can(name string) bool {
	b.t.Helper()
	var at *struct{ X, Y float64 }
	b.js(&at, find, name, "button, a, summary")
	return at != nil
}

// focus puts the cursor into the field with a label.
const focus = `(label) => {
	const root = document.querySelector("dialog[open]") ?? document;
	const begins = (e) => e.innerText.trim().startsWith(label);
	const l = [...root.querySelectorAll("label")].find((l) => begins(l) && l.control && l.checkVisibility());
	const e = l?.control ?? [...root.querySelectorAll("[aria-label]")].find((e) => e.getAttribute("aria-label") === label && "value" in e);
	if (!e) return "";
	e.scrollIntoView({ block: "center", behavior: "instant" });
	e.focus();
	e.select?.();
	return e.tagName;
}`

// fill types a text into the field with a label, in place of what is in it.
func (b *browser) fill(label, text string) {
	b.t.Helper()
	var tag string
	b.eventually("fill in "+label, func() bool {
		b.js(&tag, focus, label)
		return tag != ""
	})
	if tag == "SELECT" {
		var done bool
		b.eventually("choose "+text, func() bool {
			b.js(&done, `(text) => {
				const e = document.activeElement, o = [...e.options].find((o) => o.value === text || o.text === text);
				if (!o) return false;
				e.value = o.value;
				e.dispatchEvent(new Event("change", { bubbles: true }));
				return true;
			}`, text)
			return done
		})
		return
	}
	if text == "" {
		do(b, chromedp.KeyEvent("\b"))
		return
	}
	do(b, func(ctx context.Context, t *chromedp.Target) (cdp.Empty, error) {
		return cdp.Call(ctx, t, input.InsertText, input.InsertTextParams{Text: text})
	})
}

// press types a key.
func (b *browser) press(key string) {
	b.t.Helper()
	do(b, chromedp.KeyEvent(key))
}

// shot keeps a picture of the window, where somebody wants them.
func (b *browser) shot(name string) {
	b.t.Helper()
	dir := os.Getenv(picturesVariable)
	if dir == "" {
		return
	}
	picture := do(b, func(ctx context.Context, t *chromedp.Target) (page.CaptureScreenshotResult, error) {
		quality := int64(pictureQuality)
		return cdp.Call(ctx, t, page.CaptureScreenshot, page.CaptureScreenshotParams{Format: page.CaptureScreenshotFormatWebp, Quality: &quality})
	})
	if err := os.WriteFile(filepath.Join(dir, name+".webp"), picture.Data, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

const (
	pictureQuality = 80
	maxPicture     = 1500 // pixels of a page's height
)

// whole keeps a picture of the page in a window that is as high as the page.
func (b *browser) whole(name string, l look) {
	b.t.Helper()
	if os.Getenv(picturesVariable) == "" {
		return
	}
	height := func() (pixels int64) {
		b.js(&pixels, "() => Math.max(document.documentElement.scrollHeight, innerHeight)")
		return pixels
	}
	high := l
	high.height = min(height(), maxPicture)
	b.as(high)
	b.eventually("a window as high", func() (is bool) {
		b.js(&is, "(h) => innerHeight === h", high.height)
		return is
	})
	b.shot(name + "-" + l.name)
	b.as(l)
}

// picturesVariable names the folder that pictures of the pages are kept in; none are when it is empty.
const picturesVariable = "SEMPER_CONSOLE_PICTURES"

// look is how a page is looked at.
type look struct {
	name          string
	width, height int64
	dark          bool
}

var looks = []look{{"light", 1280, 900, false}, {"dark", 1280, 900, true}, {"phone", 390, 844, false}}

func (b *browser) as(l look) {
	b.t.Helper()
	scheme := "light"
	if l.dark {
		scheme = "dark"
	}
	do(b, func(ctx context.Context, t *chromedp.Target) (cdp.Empty, error) {
		if none, err := cdp.Call(ctx, t, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: l.width, Height: l.height, DeviceScaleFactor: 1, Mobile: l.width < 600}); err != nil {
			return none, err
		}
		return cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}},
		})
	})
}
