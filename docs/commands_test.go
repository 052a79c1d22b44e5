package docs_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/livefire-mesh/livefire/api"
)

const referencePage = "docs/reference/cli.md"

var (
	commandRE  = regexp.MustCompile("(?m)^##+ `livefire ([^`]*)`$")
	flagRE     = regexp.MustCompile("(?m)^\\| `(?:(-[a-z]), )?(--[a-z-]+)` \\|")
	callRE     = regexp.MustCompile(`(?:^|[\s$(>])livefire ((?:[a-z][a-z-]*)(?: .*)?)$`)
	inlineRE   = regexp.MustCompile("`(livefire [^`\n]+)`")
	blockRE    = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```")
	commentRE  = regexp.MustCompile(`(?:^|\s)#.*`)
	separators = regexp.MustCompile(`\s[|;&>]+(?:\s|$)|;\s|\)`)
)

// reference is what the generated page says: the flags of each command, "" for those of every command.
func reference(page string) map[string][]string {
	out := map[string][]string{}
	heads := commandRE.FindAllStringSubmatchIndex(page, -1)
	end := len(page)
	for _, h := range slices.Backward(heads) {
		var words []string
		for _, w := range strings.Fields(page[h[2]:h[3]]) {
			if strings.ToLower(w) != w || strings.ContainsAny(w, "-[|") && strings.HasPrefix(w, "-") {
				break
			}
			words = append(words, w)
		}
		out[strings.Join(words, " ")] = flagsOf(page[h[1]:end])
		end = h[0]
	}
	out[""] = append(flagsOf(page[:end]), "-h", "--help")
	return out
}

func flagsOf(text string) []string {
	var out []string
	for _, m := range flagRE.FindAllStringSubmatch(text, -1) {
		out = append(out, m[2])
		if m[1] != "" {
			out = append(out, m[1])
		}
	}
	return out
}

// unknownPart of a call: a command or a flag that the reference does not have; "" if it has all.
func unknownPart(ref map[string][]string, call string) string {
	words := strings.Fields(call)
	if len(words) > 0 && slices.Contains([]string{"help", "completion"}, words[0]) || strings.HasPrefix(call, "demo app ") {
		return "" // cobra's own; the sample service, which is hidden
	}
	command := ""
	for n := min(2, len(words)); n > 0 && command == ""; n-- {
		if _, ok := ref[strings.Join(words[:n], " ")]; ok {
			command = strings.Join(words[:n], " ")
		}
	}
	if command == "" {
		return call
	}
	for _, w := range words {
		if !strings.HasPrefix(w, "-") || w == "-" {
			continue
		}
		flag, _, _ := strings.Cut(w, "=")
		if !slices.Contains(ref[command], flag) && !slices.Contains(ref[""], flag) {
			return command + " " + flag
		}
	}
	return ""
}

// calls of livefire in a page: lines of its shell blocks, and inline code.
func calls(page string) []string {
	var out []string
	page = strings.ReplaceAll(page, "\\\n", " ")
	take := func(line string) {
		for _, part := range separators.Split(commentRE.ReplaceAllString(line, ""), -1) {
			if m := callRE.FindStringSubmatch(strings.TrimSpace(part)); m != nil {
				out = append(out, strings.Trim(m[1], " ."))
			}
		}
	}
	for _, m := range blockRE.FindAllStringSubmatch(page, -1) {
		if m[1] != "" && m[1] != "sh" {
			continue
		}
		for line := range strings.Lines(m[2]) {
			take(strings.TrimRight(line, "\n"))
		}
	}
	for _, m := range inlineRE.FindAllStringSubmatch(fenceRE.ReplaceAllString(page, ""), -1) {
		take(m[1])
	}
	return out
}

func TestEveryCommandOnThePagesExists(t *testing.T) {
	all := pages(t)
	ref := reference(all[referencePage])
	if len(ref) < 30 {
		t.Fatalf("only %d commands found in %s", len(ref), referencePage)
	}
	n := 0
	for from, page := range all {
		if from == referencePage {
			continue
		}
		for _, call := range calls(page) {
			n++
			if bad := unknownPart(ref, call); bad != "" {
				t.Errorf("%s: livefire %s: the reference has no %q", from, call, bad)
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d calls found", n)
	}
}

func TestAnUnknownCommandOrFlagIsSeen(t *testing.T) {
	ref := reference("| `--color` | auto | x |\n## `livefire apply -f FILE`\n| `-f, --file` | - | x |\n## `livefire drill`\n### `livefire drill run DRILL [--set K=V]`\n| `--set` | - | x |\n")
	for call, want := range map[string]string{
		"apply -f x --color=never": "", "drill run x --set a=b": "", "drill": "", "plan -f x": "plan -f x", "apply --all": "apply --all", "drill run -f x": "drill run -f",
	} {
		if got := unknownPart(ref, call); got != want {
			t.Errorf("unknownPart(%q) = %q, want %q", call, got, want)
		}
	}
	got := calls("`livefire status -w`\n```\nlivefire check ; livefire lint x  # livefire plan\nRUN=$(livefire drill list -o name | head -1)\nx 2>&1\n```\n```yaml\nlivefire no\n```\n")
	if want := []string{"check", "lint x", "drill list -o name", "status -w"}; !slices.Equal(got, want) {
		t.Errorf("calls = %q, want %q", got, want)
	}
}

// A block of YAML that begins with apiVersion is a whole file: it is one that apply would read.
func TestEveryWholeYAMLBlockDecodes(t *testing.T) {
	n := 0
	for from, page := range pages(t) {
		for i, m := range blockRE.FindAllStringSubmatch(page, -1) {
			if m[1] != "yaml" || !strings.HasPrefix(m[2], "apiVersion:") {
				continue
			}
			n++
			if _, err := api.Decode(fmt.Sprintf("%s, block %d", from, i+1), []byte(m[2])); err != nil {
				t.Errorf("%v", err)
			}
		}
	}
	if n < 3 {
		t.Errorf("only %d blocks found", n)
	}
}
