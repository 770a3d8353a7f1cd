package modules

import (
	"errors"
	"fmt"
	"sync"
)

// Loader loads modules in the order that the index asks for, each at most once, from any number of goroutines.
type Loader struct {
	index  *Index
	insert func(file string, module Module) error

	mu    sync.Mutex
	state map[string]*loading
}

type loading struct {
	done chan struct{}
	err  error
}

// NewLoader returns a loader. Insert hands one module's file to the kernel (finit_module); a module that is there already must be no error.
func NewLoader(x *Index, insert func(file string, module Module) error) *Loader {
	return &Loader{index: x, insert: insert, state: map[string]*loading{}}
}

// Load loads a module and all that it needs; wishes are loaded without their own wishes, and their failure is no error. A second call, also at the same
// time, returns what the first one did.
func (l *Loader) Load(name string) error {
	m, ok := l.index.Lookup(name)
	if !ok {
		return fmt.Errorf("module %s: not in the initramfs", name)
	}
	return l.chain(m, true)
}

// chain inserts what m needs and then m. The needs are complete and in order, so that nothing recurses, and nothing waits while it holds a place.
func (l *Loader) chain(m Module, wishes bool) error {
	wish := func(names []string) {
		for _, n := range names {
			if w, ok := l.index.Lookup(n); ok && wishes {
				_ = l.chain(w, false)
			}
		}
	}
	for _, n := range m.Needs {
		need, _ := l.index.Lookup(n)
		wish(need.Before)
		if err := l.once(need); err != nil {
			return fmt.Errorf("module %s: %w", m.Name, err)
		}
	}
	wish(m.Before)
	if err := l.once(m); err != nil {
		return err
	}
	wish(m.After)
	return nil
}

func (l *Loader) once(m Module) error {
	l.mu.Lock()
	s, ok := l.state[m.Name]
	if !ok {
		s = &loading{done: make(chan struct{})}
		l.state[m.Name] = s
	}
	l.mu.Unlock()
	if ok {
		<-s.done
		return s.err
	}
	defer close(s.done)
	s.err = errors.New("interrupted") // what a waiter sees if insert panics
	s.err = l.insert(m.File, m)
	if s.err != nil {
		s.err = fmt.Errorf("module %s: %w", m.Name, s.err)
	}
	return s.err
}

// LoadFor loads, one after the other, the modules that a device with this modalias asks for. Their errors are joined: a device may ask for several
// modules of which one refuses it, which is no failure as long as the disk appears.
func (l *Loader) LoadFor(modalias string) (names []string, err error) {
	names = l.index.ForDevice(modalias)
	var errs []error
	for _, n := range names {
		errs = append(errs, l.Load(n))
	}
	return names, errors.Join(errs...)
}

// Loaded returns how many modules are in the kernel through this loader.
func (l *Loader) Loaded() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, s := range l.state {
		select {
		case <-s.done:
			if s.err == nil {
				n++
			}
		default:
		}
	}
	return n
}
