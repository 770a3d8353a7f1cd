// Command testcount reads the output of several "go test -json", each from a file or a named pipe, as it comes, and prints it for people: what failed with its
// output, a line a package, and at the end how many tests passed, failed and were skipped. It exits 1 when one failed or none ran.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// read sends a file's lines to lines, and whether it could to done.
func read(name string, lines chan<- []byte, done chan<- error) {
	f, err := os.Open(name)
	if err != nil {
		done <- err
		return
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(make([]byte, 1<<20), 16<<20)
	for in.Scan() {
		lines <- bytes.Clone(in.Bytes())
	}
	done <- in.Err()
}

func main() {
	var passed, failed, skipped int
	broken := false
	output := map[string][]string{}
	lines, done := make(chan []byte), make(chan error)
	for _, name := range os.Args[1:] {
		go read(name, lines, done)
	}
	for open := len(os.Args) - 1; open > 0; {
		var line []byte
		select {
		case err := <-done:
			if open--; err != nil {
				fmt.Println("testcount:", err)
				broken = true
			}
			continue
		case line = <-lines:
		}
		var e event
		if json.Unmarshal(line, &e) != nil {
			fmt.Println(string(line)) // what the go command itself says
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			output[key] = append(output[key], e.Output)
			continue
		case "pass", "fail", "skip":
		default:
			continue
		}
		show := e.Action == "fail"
		switch {
		case e.Test == "" && e.Action == "fail":
			broken = true
			fmt.Printf("FAIL  %s (%.1f s)\n", e.Package, e.Elapsed)
		case e.Test == "" && e.Action == "skip": // it has no test files
			show = false
		case e.Test == "":
			fmt.Printf("%-5s %s (%.1f s)\n", e.Action, e.Package, e.Elapsed)
			show = false
		case e.Action == "pass":
			passed++
			if strings.HasSuffix(e.Package, "/qemu-tests") {
				fmt.Printf("      %s (%.1f s)\n", e.Test, e.Elapsed)
			}
		case e.Action == "skip":
			skipped++
			fmt.Printf("SKIP  %s %s\n", e.Package, e.Test)
			show = true
		default:
			failed++
			fmt.Printf("FAIL  %s %s (%.1f s)\n", e.Package, e.Test, e.Elapsed)
		}
		if show {
			fmt.Print(strings.Join(output[key], ""))
		}
		delete(output, key)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if failed > 0 || broken || passed == 0 {
		os.Exit(1)
	}
}
