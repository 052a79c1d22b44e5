//go:build e2e

// Package tutorial executes docs/tutorial.md as a reader would, without a terminal, and compares what it prints
// with what the page promises.
package tutorial_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// step is one block of commands of the page.
type step struct {
	line       int
	script     string
	skip       bool     // what the test does in another way
	background bool     // a process that stays in the foreground of its own terminal
	stop       bool     // Ctrl-C in all those terminals comes first
	promise    []string // lines that the output has, in this order
}

// readPage takes the ```sh blocks and the ```text blocks that follow them out of a page. A comment
// <!-- test: skip | background | stop --> before a block says how to treat it.
func readPage(page string) ([]step, error) {
	var steps []step
	var next step
	var block []string
	in := ""
	for i, line := range strings.Split(page, "\n") {
		switch {
		case in != "" && line == "```":
			if in == "sh" {
				next.script = strings.Join(block, "\n")
				steps, next = append(steps, next), step{}
			} else if len(steps) > 0 {
				last := &steps[len(steps)-1]
				last.promise = append(last.promise, block...)
			}
			in, block = "", nil
		case in != "":
			block = append(block, line)
		case strings.HasPrefix(line, "```"):
			in = strings.TrimPrefix(line, "```")
			if in != "sh" && in != "text" {
				return nil, fmt.Errorf("line %d: a block of %q, want sh or text", i+1, in)
			}
			if in == "sh" {
				next.line = i + 1
			}
		case strings.HasPrefix(line, "<!-- test: "):
			switch word := strings.TrimSuffix(strings.TrimPrefix(line, "<!-- test: "), " -->"); word {
			case "skip":
				next.skip = true
			case "background":
				next.background = true
			case "stop":
				next.stop = true
			default:
				return nil, fmt.Errorf("line %d: unknown directive %q", i+1, word)
			}
		}
	}
	return steps, nil
}

var (
	// Numbers that mean something stay as they are: "3 of 3", "6/6", "status 4", a lone 0, and those within a word (LF2101, dev1).
	exactRE  = regexp.MustCompile(`\d+ of (?:at most )?\d+|\d+/\d+|status \d+|(?:^| )0 `)
	numberRE = regexp.MustCompile(number)
)

const number = `(?:\d{4}-\d\d-\d\dT[\d:.]+Z|\d+(?:[.:]\d+)*)` // a time, or a number

// pattern of a promised line: white space may be of another width, numbers may be others.
func pattern(promised string) *regexp.Regexp {
	line := strings.Join(strings.Fields(promised), " ")
	var out strings.Builder
	for line != "" {
		exact, loose := exactRE.FindStringIndex(line), numberRE.FindStringIndex(line)
		switch {
		case exact != nil && (loose == nil || exact[0] <= loose[0]):
			out.WriteString(regexp.QuoteMeta(line[:exact[1]]))
			line = line[exact[1]:]
		case loose == nil:
			out.WriteString(regexp.QuoteMeta(line))
			line = ""
		default:
			out.WriteString(regexp.QuoteMeta(line[:loose[0]]))
			if before := strings.ToLower(line[:loose[0]]); before != "" && before[len(before)-1] >= 'a' && before[len(before)-1] <= 'z' {
				out.WriteString(regexp.QuoteMeta(line[loose[0]:loose[1]]))
			} else {
				out.WriteString(number)
			}
			line = line[loose[1]:]
		}
	}
	loose := strings.ReplaceAll(out.String(), " devel", ` \S+`) // the version that was built
	return regexp.MustCompile(strings.ReplaceAll(loose, " ", `[ \t]+`))
}

// missing is the first promised line that the output does not have after those before it; "" if none.
func missing(promise []string, output string) string {
	for _, line := range promise {
		at := pattern(line).FindStringIndex(output)
		if at == nil {
			return line
		}
		output = output[at[1]:]
	}
	return ""
}

func TestPromisesAreComparedWithoutTimesAndWidths(t *testing.T) {
	const output = "run x-20261121-2:  Proposed\n 3 of 3 proxies\nstatus 4\n1.37 s   0 executed twice\nLF2101 at 2026-11-21T10:00:01Z\n"
	for promised, want := range map[string]bool{
		"run x-20251120-1: Proposed":        true,
		"  1.79 s 0 executed twice":         true,
		"1.79 s 1 executed twice":           true, // only a lone 0 is a promise
		"LF2101 at 2025-01-01T00:00:00Z":    true,
		"LF2102 at 2025-01-01T00:00:00Z":    false,
		"2 of 3 proxies":                    false,
		"status 1":                          false,
		"run x-20251120-1: Closed":          false,
		"executed thrice":                   false,
		"run y-20251120-1: Proposed":        false,
		"3 of 3 proxies":                    true,
		"LF2101 at 2025-01-01T00:00:00Z ok": false,
	} {
		if got := missing([]string{promised}, output) == ""; got != want {
			t.Errorf("%q found = %v, want %v", promised, got, want)
		}
	}
	if got := missing([]string{"status 4", "3 of 3 proxies"}, output); got != "3 of 3 proxies" {
		t.Errorf("lines in the wrong order: missing = %q", got)
	}
	if got := missing([]string{"0 executed twice"}, "1 executed twice"); got == "" {
		t.Error("1 executed twice passes for 0")
	}
}
