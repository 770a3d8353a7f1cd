package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Connections of those that only ask, and of those whose answers wait for the disk: what many wait for at the same time is written together.
const (
	connections = 32
	writers     = 256
)

// request makes the body of the i-th request.
type request func(i int) []byte

const template = `<?xml version="1.0" encoding="UTF-8"?>
<request protocol="3.0" version="update_engine-0.4.10" updaterversion="update_engine-0.4.10" installsource="scheduler" ismachine="1">
    <os version="Chateau" platform="CoreOS" sp="%s_x86_64"></os>
    <app appid="{5e3e2f0a-9d1b-4c58-8f53-7d1f0c6b7a11}" version="%s" track="stable" bootid="{%s}" oem="qemu" oemversion="1.2.3" alephversion="1.0.0" machineid="%s" machinealias="" lang="en-US" board="amd64-usr" hardware_class="" delta_okay="false" >
        %s
    </app>
</request>
`

func body(version, machine string, poll bool, event string) []byte {
	inside := event
	if poll {
		inside = `<ping active="1"></ping>
        <updatecheck></updatecheck>
        <event eventtype="3" eventresult="2" previousversion=""></event>` + event
	}
	return fmt.Appendf(nil, template, version, version, machine, machine, inside)
}

func name(i int) string { return fmt.Sprintf("m%010d", i) }

// polls are of machines from to to, one after the other at first and then at random.
func polls(from, to int) request {
	return func(i int) []byte {
		n := i
		if i >= to-from {
			n = rand.IntN(to - from)
		}
		return body("1.0.0", name(from+n), true, "")
	}
}

// each is every one of the known machines once, in an order that has nothing to do with where they are on disk.
func each(version string, known int, poll bool, event string) request {
	return func(i int) []byte { return body(version, name(i*7919%known), poll, event) }
}

// result is what a load showed.
type result struct {
	rate     float64       // requests a second
	cpu      time.Duration // of the server, for each request
	p50, p99 time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("%7.0f/s  %5.3f ms of processor  p50 %5.2f ms  p99 %5.2f ms", r.rate, float64(r.cpu.Microseconds())/1000, ms(r.p50), ms(r.p99))
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// load asks for some time.
func load(p *process, long time.Duration, next request) (result, error) {
	return ask(p, connections, next, func(i int, begun time.Time) bool { return time.Since(begun) < long })
}

// loadOnce asks count times.
func loadOnce(p *process, next request, count int) (result, error) {
	return ask(p, writers, next, func(i int, _ time.Time) bool { return i < count })
}

func ask(p *process, connections int, next request, more func(i int, begun time.Time) bool) (result, error) {
	before, err := processorTime(p.cmd.Process.Pid)
	if err != nil {
		return result{}, err
	}
	var at atomic.Int64
	var group sync.WaitGroup
	took := make([][]time.Duration, connections)
	failed := make([]error, connections)
	begun := time.Now()
	for c := range connections {
		group.Go(func() {
			took[c], failed[c] = connection(p.address, func() []byte {
				i := int(at.Add(1)) - 1
				if !more(i, begun) {
					return nil
				}
				return next(i)
			})
		})
	}
	group.Wait()
	elapsed := time.Since(begun)
	if err := errors.Join(failed...); err != nil {
		return result{}, err
	}
	after, err := processorTime(p.cmd.Process.Pid)
	if err != nil {
		return result{}, err
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	n := len(all)
	if n == 0 {
		return result{}, errors.New("no request was answered")
	}
	return result{float64(n) / elapsed.Seconds(), (after - before) / time.Duration(n), all[n/2], all[n*99/100]}, nil
}

// connection sends one request after the other, with as little of the client's own work as can be.
func connection(address string, next func() []byte) (took []time.Duration, err error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	var out bytes.Buffer
	for b := next(); b != nil; b = next() {
		out.Reset()
		fmt.Fprintf(&out, "POST /v1/update/ HTTP/1.1\r\nHost: bench\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n", len(b))
		out.Write(b)
		begin := time.Now()
		if _, err := c.Write(out.Bytes()); err != nil {
			return nil, err
		}
		if err := readAnswer(r); err != nil {
			return nil, err
		}
		took = append(took, time.Since(begin))
	}
	return took, nil
}

func readAnswer(r *bufio.Reader) error {
	status, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	length := -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		if v, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(v))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("an answer without its length")
	}
	if !strings.Contains(status, " 200 ") {
		text, _ := io.ReadAll(io.LimitReader(r, int64(length)))
		return fmt.Errorf("the server answered %s: %s", strings.TrimSpace(status), text)
	}
	_, err = r.Discard(length)
	return err
}

// processorTime is what a process has used, in user and system mode.
func processorTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil // USER_HZ is 100
}

func resident(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmRSS")
}
