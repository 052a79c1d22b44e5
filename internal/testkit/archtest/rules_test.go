package archtest

import (
	"fmt"
	"go/doc"
	"slices"
	"strings"
)

// rule is one line of "Who may import whom". broken says what breaks it, one line each.
type rule struct {
	name   string
	broken func(module) []string
}

var rules = []rule{
	{"1 api and evidence import nothing of ours", wordsAlone},
	{"2 recovery and drill think", thinkersArePure},
	{"3 mesh imports words and values", meshImports},
	{"4 server and mesh meet only where they are wired", wiredApart},
	{"5 siblings in mesh do not import each other", siblingsApart},
	{"7 each directory has one package comment", oneComment},
}

// values are the packages of thinkers that hold nothing but values: importable by everybody, matched exactly.
var values = []string{"internal/recovery/health", "internal/recovery/route", "internal/drill/fault", "internal/drill/sample"}

// within reports that a package is a directory or below it.
func within(pkg string, dirs ...string) bool {
	for _, dir := range dirs {
		if pkg == dir || strings.HasPrefix(pkg, dir+"/") {
			return true
		}
	}
	return false
}

// imports reports every import of our own module, by the rooms that are in, which allowed does not agree to.
func (m module) imports(in func(pkg string) bool, allowed func(from, to string) bool) []string {
	var out []string
	for _, r := range m.sorted() {
		if !in(r.path) {
			continue
		}
		for _, f := range r.files {
			for _, to := range f.own {
				if !allowed(r.path, to) {
					out = append(out, fmt.Sprintf("%s imports %s", f.path, to))
				}
			}
		}
	}
	return out
}

func (m module) sorted() []*room {
	var out []*room
	for _, r := range m {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *room) int { return strings.Compare(a.path, b.path) })
	return out
}

func wordsAlone(m module) []string {
	return m.imports(
		func(pkg string) bool { return within(pkg, "api", "evidence") },
		func(from, to string) bool {
			return within(from, "api") && within(to, "api") || within(from, "evidence") && within(to, "evidence")
		})
}

// impure are the packages that a thinker may not import directly; those that end with a slash stand for all below them.
var impure = []string{
	"context", "net", "net/http", "net/http/", "os", "os/", "syscall", "syscall/", "log/slog", "golang.org/x/sys/",
	"google.golang.org/protobuf/", "github.com/golang/protobuf/",
}

func thinkersArePure(m module) []string {
	thinker := func(pkg string) bool { return within(pkg, "internal/recovery", "internal/drill") }
	out := m.imports(thinker, func(from, to string) bool {
		ownTree := within(from, "internal/recovery") && within(to, "internal/recovery") || within(from, "internal/drill") && within(to, "internal/drill")
		return to == "api" || to == "evidence" || slices.Contains(values, to) || ownTree
	})
	for _, r := range m.sorted() {
		if !thinker(r.path) {
			continue
		}
		for _, f := range r.files {
			for _, to := range f.foreign {
				if slices.ContainsFunc(impure, func(p string) bool { return to == p || strings.HasSuffix(p, "/") && strings.HasPrefix(to, p) }) {
					out = append(out, fmt.Sprintf("%s imports %s", f.path, to))
				}
			}
			out = append(out, f.acts...)
		}
	}
	return out
}

func meshImports(m module) []string {
	return m.imports(
		func(pkg string) bool { return within(pkg, "internal/mesh") },
		func(_, to string) bool {
			return to == "api" || to == "internal/nodeapi" || slices.Contains(values, to) ||
				within(to, "internal/mesh") || within(to, "proto") // the wire form of orders; siblings are rule 5
		})
}

func wiredApart(m module) []string {
	out := m.imports(
		func(pkg string) bool {
			return within(pkg, "internal/server/store", "internal/server/ledger", "internal/server/httpapi")
		},
		func(_, to string) bool { return !within(to, "internal/mesh") })
	for _, r := range m.sorted() {
		if r.path == "internal/server" || // the server's wiring
			within(r.path, "internal/server/reconcile", "internal/cli", "internal/demo", "cmd", "internal/testkit", "e2e") {
			continue
		}
		mesh, server := within(r.path, "internal/mesh"), within(r.path, "internal/server")
		for _, f := range r.files {
			mesh = mesh || slices.ContainsFunc(f.own, func(to string) bool { return within(to, "internal/mesh") })
			server = server || slices.ContainsFunc(f.own, func(to string) bool { return within(to, "internal/server") })
		}
		if mesh && server {
			out = append(out, fmt.Sprintf("%s sees both mesh and server", r.path))
		}
	}
	return out
}

func siblingsApart(m module) []string {
	return m.imports(
		func(pkg string) bool { return within(pkg, "internal/mesh") },
		func(from, to string) bool {
			a, b := sibling(from), sibling(to)
			switch {
			case b == "" || a == b:
				return true
			case a == "sidecar" || a == "agent" || a == "envoy" || a == "membership":
				return true // these wire
			case a == "xdsserver" || a == "xdsclient":
				return b == "xds"
			case a == "hostfault":
				return b == "supervise" // the watchdog starts again what a fault held down
			}
			return false
		})
}

// sibling is the room under mesh that a package is in, "" when it is elsewhere.
func sibling(pkg string) string {
	rest, ok := strings.CutPrefix(pkg, "internal/mesh/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// heavy are the modules that the sidecar alone must not carry.
var heavy = []string{"go.etcd.io/", "k8s.io/", "sigs.k8s.io/controller-runtime/"}

// heavyAmong is rule 6, on the dependencies that the go command lists.
func heavyAmong(deps []string) []string {
	var out []string
	for _, dep := range deps {
		if slices.ContainsFunc(heavy, func(p string) bool { return strings.HasPrefix(dep+"/", p) }) {
			out = append(out, "cmd/livefire-proxy depends on "+dep)
		}
	}
	return out
}

func oneComment(m module) []string {
	var out []string
	for _, r := range m.sorted() {
		var comments []string
		generated := true
		for _, f := range r.files {
			generated = generated && f.generated
			if f.comment != "" {
				comments = append(comments, f.comment)
			}
		}
		if generated {
			continue // its source is not Go
		}
		if len(comments) != 1 {
			out = append(out, fmt.Sprintf("%s has %d package comments", r.path, len(comments)))
			continue
		}
		opening := "Package " + r.name + " "
		if r.name == "main" {
			opening = "Command " + r.path[strings.LastIndexByte(r.path, '/')+1:] + " "
		}
		if first := new(doc.Package).Synopsis(comments[0]); !strings.HasPrefix(first, opening) || !strings.HasSuffix(first, ".") {
			out = append(out, fmt.Sprintf("%s: the package comment does not open with a sentence \"%s...\"", r.path, opening))
		}
	}
	return out
}
