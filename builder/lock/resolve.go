package lock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/semper-os/semper/builder/recipe"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/spelling"
)

// Keyring is the file that Debian's package debian-archive-keyring brings.
const Keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Options change how a recipe is resolved.
type Options struct {
	Keyring      string // the keys that sign the archives; empty: Keyring
	AllowExpired bool   // accept indexes whose validity has ended, as an archive of old releases has them

	fewerRetries int // of three; tests need not wait for what will not come
}

// Resolve asks apt which packages the recipe's names stand for today. Nothing but indexes is downloaded.
//
//	image    the packages marked Essential, and the recipe's, with what they depend on
//	kernel   the concrete package that the recipe's kernel depends on, alone: an initramfs generator has no place in the image
//	tools    the recipe's tools with what they depend on, as if nothing was installed
//
// A name that does not exist is an error of kind Input with its line in the recipe; a mirror that does not answer is Network; one that cannot be believed, Verification.
func Resolve(ctx context.Context, r *recipe.Recipe, m Mirrors, o Options) (*Lock, error) {
	if o.Keyring == "" {
		o.Keyring = Keyring
	}
	if _, err := os.Stat(o.Keyring); err != nil {
		return nil, fault.New(fault.Input, "archive keys: %w (apt-get install debian-archive-keyring)", err)
	}
	dir, err := os.MkdirTemp("", "semper-lock-")
	if err != nil {
		return nil, fault.New(fault.IO, "resolve %s: %w", r.Name, err)
	}
	defer os.RemoveAll(dir)
	a, err := newAptRoot(dir, r.Suite, r.Arch.Debian, r.Components, m, o)
	if err != nil {
		return nil, fault.New(fault.IO, "resolve %s: %w", r.Name, err)
	}
	l := &Lock{Suite: r.Suite, Architecture: r.Arch.Debian, Components: r.Components, Wants: wants(r)}
	if err := l.resolve(ctx, a, r); err != nil {
		return nil, fmt.Errorf("resolve %s: %w", r.Name, err)
	}
	if err := l.checkRemoved(r); err != nil {
		return nil, err
	}
	// What was just made must be readable: a mirror's index is not ours, and a field that the lock cannot hold is refused now.
	if _, err := Parse("the new lock", l.Encode()); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Lock) resolve(ctx context.Context, a *aptRoot, r *recipe.Recipe) error {
	if err := a.update(ctx); err != nil {
		return err
	}
	x, err := a.index(ctx)
	if err != nil {
		return err
	}
	if err := x.check(r); err != nil {
		return err
	}
	if l.Releases, err = readReleases(filepath.Join(a.dir, "state/lists")); err != nil {
		return fault.Wrap(fault.Input, err)
	}
	image, err := a.install(ctx, x, append([]string{"?essential"}, r.Packages...))
	if err != nil {
		return fmt.Errorf("the image's packages: %w", err)
	}
	tools, err := a.install(ctx, x, r.Tools)
	if err != nil {
		return fmt.Errorf("the tools' packages: %w", err)
	}
	kernel, err := a.install(ctx, x, []string{r.Kernel.Package})
	if err != nil {
		return fmt.Errorf("the kernel's packages: %w", err)
	}
	one, err := concreteKernel(r.Kernel.Package, kernel)
	if err != nil {
		return fault.New(fault.Input, "%s: %w", r.Where("kernel.package"), err)
	}
	for _, g := range []struct {
		group Group
		list  []indexed
	}{{Image, image}, {Kernel, []indexed{one}}, {Tools, tools}} {
		for _, p := range g.list {
			if err := l.put(p.Package, g.group); err != nil {
				return fault.Wrap(fault.Input, err)
			}
		}
	}
	slices.SortFunc(l.Packages, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// put adds a package to a group. Groups share packages, and must share their versions too.
func (l *Lock) put(p Package, g Group) error {
	for i := range l.Packages {
		have := &l.Packages[i]
		if have.Name != p.Name {
			continue
		}
		if have.SHA256 != p.SHA256 {
			return fmt.Errorf("package %q is needed in version %s and in version %s", p.Name, have.Version, p.Version)
		}
		have.Groups = append(have.Groups, g)
		return nil
	}
	p.Groups = []Group{g}
	l.Packages = append(l.Packages, p)
	return nil
}

// index reads the Packages files that update downloaded.
func (a *aptRoot) index(ctx context.Context) (*index, error) {
	out, err := a.run(ctx, "apt-get", "indextargets", "--format", "$(RELEASE) $(FILENAME)", "Created-By: Packages")
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err)
	}
	x := newIndex()
	for l := range strings.Lines(out) {
		suite, file, _ := strings.Cut(strings.TrimSpace(l), " ")
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fault.New(fault.IO, "read index: %w", err)
		}
		from := Debian
		if strings.HasSuffix(suite, "-security") {
			from = Security
		}
		if err := x.add(string(text), from); err != nil {
			return nil, fault.New(fault.Input, "index of %s: %w", suite, err)
		}
	}
	return x, nil
}

// check refuses every name of the recipe that is not a package, with its line and the names that are near.
func (x *index) check(r *recipe.Recipe) error {
	var problems []string
	one := func(key, name string) {
		if len(x.packages[name]) > 0 {
			return
		}
		hint := ""
		if providers := slices.Compact(slices.Sorted(slices.Values(x.provided[name]))); len(providers) > 0 {
			hint = ": it is virtual, name one of " + strings.Join(providers[:min(5, len(providers))], ", ")
		} else if near := spelling.Nearest(name, x.names(), 3); len(near) > 0 {
			hint = ", did you mean " + strings.Join(near, " or ") + "?"
		}
		problems = append(problems, fmt.Sprintf("%s: no package %q in %s for %s%s", r.Where(key), name, r.Suite, r.Arch.Debian, hint))
	}
	for i, name := range r.Packages {
		one(fmt.Sprintf("packages[%d]", i), name)
	}
	one("kernel.package", r.Kernel.Package)
	for i, name := range r.Tools {
		one(fmt.Sprintf("tools.packages[%d]", i), name)
	}
	if len(problems) > 0 {
		return fault.New(fault.Input, "%s", strings.Join(problems, "\n"))
	}
	return nil
}

// installLine is what apt-get --simulate prints for each package: "Inst name (version origin, origin [arch])".
var installLine = regexp.MustCompile(`^Inst (\S+) \((\S+) .*\[(\S+)\]\)`)

// install asks apt what installing the names on an empty system brings.
func (a *aptRoot) install(ctx context.Context, x *index, names []string) ([]indexed, error) {
	out, err := a.run(ctx, "apt-get", append([]string{"install", "--simulate", "--yes"}, names...)...)
	var e *aptError
	if errors.As(err, &e) {
		reason := complaints(e.stderr)
		if _, unmet, ok := strings.Cut(e.stdout, "have unmet dependencies:"); ok {
			reason = "unmet dependencies: " + strings.Join(strings.Fields(unmet), " ")
		}
		return nil, fault.New(fault.Input, "apt cannot install them together: %s", reason)
	}
	if err != nil {
		return nil, err
	}
	var list []indexed
	for l := range strings.Lines(out) {
		m := installLine.FindStringSubmatch(l)
		if m == nil {
			continue
		}
		p, err := x.find(m[1], m[2], m[3])
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err)
		}
		list = append(list, p)
	}
	return list, nil
}

// concreteKernel picks from what a kernel's installation brings the package that holds the kernel: the one that a meta package depends on.
func concreteKernel(name string, list []indexed) (indexed, error) {
	byName := func(name string) int { return slices.IndexFunc(list, func(p indexed) bool { return p.Name == name }) }
	i := byName(name)
	if i < 0 {
		return indexed{}, fmt.Errorf("apt would not install %q", name)
	}
	for d := range dependencies(list[i].depends) {
		if strings.HasPrefix(d, "linux-image-") {
			if j := byName(d); j >= 0 {
				return list[j], nil
			}
		}
	}
	if !strings.HasPrefix(name, "linux-image-") {
		return indexed{}, fmt.Errorf("%q is no kernel: it depends on no linux-image package", name)
	}
	return list[i], nil
}
