// Command testcount reads the output of "go test -json" and prints it for people: what failed with its output, a line a
// package, and at the end how many tests passed, failed and were skipped. It exits 1 when one failed or none ran.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

func main() {
	var passed, failed, skipped int
	broken := false
	output := map[string][]string{}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 1<<20), 16<<20)
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text()) // what the go command itself says
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
	if failed > 0 || broken || passed == 0 || in.Err() != nil {
		os.Exit(1)
	}
}
