package archtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestWhoMayImportWhom(t *testing.T) {
	root := moduleRoot(t)
	m, err := readModule(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	if m["internal/testkit/archtest"] == nil {
		t.Fatalf("the module that was read, with %d packages, lacks this one", len(m))
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, b := range r.broken(m) {
				t.Error(b)
			}
		})
	}
	t.Run("6 the sidecar alone carries no etcd and no Kubernetes client", func(t *testing.T) {
		if m["cmd/livefire-proxy"] == nil {
			t.Fatal("there is no cmd/livefire-proxy")
		}
		list := exec.CommandContext(t.Context(), "go", "list", "-deps", "./cmd/livefire-proxy")
		list.Dir, list.Stderr = root, t.Output()
		out, err := list.Output()
		if err != nil {
			t.Fatalf("list the dependencies: %v", err)
		}
		deps := strings.Fields(string(out))
		if !slices.Contains(deps, modulePath+"/cmd/livefire-proxy") {
			t.Fatalf("the list of %d dependencies lacks the command itself", len(deps))
		}
		for _, b := range heavyAmong(deps) {
			t.Error(b)
		}
	})
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module "+modulePath+"\n") {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatalf("no go.mod of %s above the test", modulePath)
		}
		dir = up
	}
}

// made is a made-up module: from each file to its text after the package clause. Every package gets a good comment from a
// file of its own.
func made(t *testing.T, files map[string]string) module {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, rest := range files {
		dir := filepath.Dir(name)
		pkg := filepath.Base(dir)
		fsys[name] = &fstest.MapFile{Data: fmt.Appendf(nil, "package %s\n%s\n", pkg, rest)}
		fsys[dir+"/doc.go"] = &fstest.MapFile{Data: fmt.Appendf(nil, "// Package %s does one thing.\npackage %s\n", pkg, pkg)}
	}
	m, err := readModule(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func importing(paths ...string) string {
	var b strings.Builder
	for _, p := range paths {
		fmt.Fprintf(&b, "import _ %q\n", p)
	}
	return b.String()
}

func ours(paths ...string) string {
	for i := range paths {
		paths[i] = modulePath + "/" + paths[i]
	}
	return importing(paths...)
}

// Each rule finds what breaks it, and leaves in peace what is next to it.
func TestEachRuleCanFail(t *testing.T) {
	for _, tt := range []struct {
		rule  string
		files map[string]string
		want  []string
	}{
		{"1", map[string]string{"api/a.go": ours("evidence")}, []string{"api/a.go imports evidence"}},
		{"1", map[string]string{"evidence/a.go": ours("api")}, []string{"evidence/a.go imports api"}},
		{"1", map[string]string{"evidence/note/a.go": ours("internal/nodeapi")}, []string{"evidence/note/a.go imports internal/nodeapi"}},
		{"1", map[string]string{"api/a.go": ours("internal/recovery/route")}, []string{"api/a.go imports internal/recovery/route"}},
		{"1", map[string]string{"api/a.go": importing("os", "net/http"), "api/x/a.go": ours("api"), "evidence/a.go": ours("evidence/note"),
			"apis/a.go": ours("internal/cli"), "api/a_test.go": ours("evidence")}, nil},

		{"2", map[string]string{"internal/recovery/a.go": ours("internal/drill")}, []string{"internal/recovery/a.go imports internal/drill"}},
		{"2", map[string]string{"internal/recovery/a.go": ours("internal/drill/fault/x")}, []string{"internal/recovery/a.go imports internal/drill/fault/x"}},
		{"2", map[string]string{"internal/drill/a.go": ours("internal/recovery/pattern")}, []string{"internal/drill/a.go imports internal/recovery/pattern"}},
		{"2", map[string]string{"internal/drill/a.go": ours("proto/livefire/v1alpha1")}, []string{"internal/drill/a.go imports proto/livefire/v1alpha1"}},
		{"2", map[string]string{"internal/drill/x/a.go": ours("internal/nodeapi")}, []string{"internal/drill/x/a.go imports internal/nodeapi"}},
		{"2", map[string]string{"internal/drill/a.go": importing("context", "net", "net/http", "net/http/httptest", "os", "os/exec", "syscall",
			"log/slog", "google.golang.org/protobuf/proto")}, []string{
			"internal/drill/a.go imports context", "internal/drill/a.go imports net", "internal/drill/a.go imports net/http",
			"internal/drill/a.go imports net/http/httptest", "internal/drill/a.go imports os", "internal/drill/a.go imports os/exec",
			"internal/drill/a.go imports syscall", "internal/drill/a.go imports log/slog",
			"internal/drill/a.go imports google.golang.org/protobuf/proto"}},
		{"2", map[string]string{"internal/recovery/a.go": "import \"time\"\nfunc f(c *T) {\n_ = time.Now()\nx := time.Since\nc.time.Now()\ngo f(c)\n}"},
			[]string{"internal/recovery/a.go:4: time.Now", "internal/recovery/a.go:5: time.Since", "internal/recovery/a.go:7: go statement"}},
		{"2", map[string]string{"internal/recovery/a.go": "import clock \"time\"\nvar _ = []any{clock.After, clock.Tick, clock.NewTimer, clock.NewTicker,\nclock.AfterFunc, clock.Sleep, clock.Until}"},
			[]string{"internal/recovery/a.go:3: time.After", "internal/recovery/a.go:3: time.Tick", "internal/recovery/a.go:3: time.NewTimer",
				"internal/recovery/a.go:3: time.NewTicker", "internal/recovery/a.go:4: time.AfterFunc", "internal/recovery/a.go:4: time.Sleep",
				"internal/recovery/a.go:4: time.Until"}},
		{"2", map[string]string{"internal/recovery/a.go": "import . \"time\""}, []string{"internal/recovery/a.go:2: a dotted import of time hides its clock"}},
		{"2", map[string]string{"internal/recovery/a.go": ours("api", "evidence", "internal/recovery/x", "internal/drill/fault", "internal/drill/sample") +
			importing("net/netip", "net/url", "io", "io/fs", "html/template") + "import \"time\"\nvar _ = time.Second\nfunc f(time clock) { time.Now() }",
			"internal/drill/a.go":      ours("api", "evidence", "internal/drill/x", "internal/recovery/health", "internal/recovery/route"),
			"internal/drill/a_test.go": importing("os", "context") + ours("internal/recovery/pattern"),
			"internal/mesh/x/a.go":     importing("os") + "func f() { go f() }"}, nil},

		{"3", map[string]string{"internal/mesh/x/a.go": ours("internal/recovery/pattern")}, []string{"internal/mesh/x/a.go imports internal/recovery/pattern"}},
		{"3", map[string]string{"internal/mesh/x/a.go": ours("internal/drill")}, []string{"internal/mesh/x/a.go imports internal/drill"}},
		{"3", map[string]string{"internal/mesh/x/a.go": ours("internal/server/store")}, []string{"internal/mesh/x/a.go imports internal/server/store"}},
		{"3", map[string]string{"internal/mesh/agent/a.go": ours("internal/recovery/route/x")}, []string{"internal/mesh/agent/a.go imports internal/recovery/route/x"}},
		{"3", map[string]string{"internal/mesh/x/a.go": ours("api", "internal/nodeapi", "internal/recovery/health", "internal/recovery/route",
			"internal/drill/fault", "internal/drill/sample", "internal/mesh/x/y", "proto/livefire/v1alpha1"),
			"internal/mesh/x/a_test.go": ours("internal/server/store")}, nil},

		{"4", map[string]string{"internal/server/store/a.go": ours("internal/mesh/identity")},
			[]string{"internal/server/store/a.go imports internal/mesh/identity", "internal/server/store sees both mesh and server"}},
		{"4", map[string]string{"internal/server/ledger/x/a.go": ours("internal/mesh/probe")},
			[]string{"internal/server/ledger/x/a.go imports internal/mesh/probe", "internal/server/ledger/x sees both mesh and server"}},
		{"4", map[string]string{"internal/server/httpapi/a.go": ours("internal/mesh/identity")},
			[]string{"internal/server/httpapi/a.go imports internal/mesh/identity", "internal/server/httpapi sees both mesh and server"}},
		{"4", map[string]string{"internal/server/console/a.go": ours("internal/mesh/probe")}, []string{"internal/server/console sees both mesh and server"}},
		{"4", map[string]string{"internal/x/a.go": ours("internal/mesh/probe"), "internal/x/b.go": ours("internal/server/store")}, []string{"internal/x sees both mesh and server"}},
		{"4", map[string]string{"internal/server/a.go": ours("internal/mesh/xdsserver"), "internal/server/reconcile/a.go": ours("internal/mesh/xdsserver"),
			"internal/cli/a.go":  ours("internal/mesh/agent", "internal/server"),
			"internal/demo/a.go": ours("internal/mesh/agent", "internal/server"), "cmd/livefire/a.go": ours("internal/mesh/agent", "internal/server"),
			"internal/server/store/a.go": ours("api"), "internal/server/store/a_test.go": ours("internal/mesh/identity"),
			"internal/x/a.go": ours("internal/mesh/probe"), "internal/y/a.go": ours("internal/server/store")}, nil},

		{"5", map[string]string{"internal/mesh/proxy/a.go": ours("internal/mesh/identity")}, []string{"internal/mesh/proxy/a.go imports internal/mesh/identity"}},
		{"5", map[string]string{"internal/mesh/proxy/http1/a.go": ours("internal/mesh/xds")}, []string{"internal/mesh/proxy/http1/a.go imports internal/mesh/xds"}},
		{"5", map[string]string{"internal/mesh/xdsclient/a.go": ours("internal/mesh/xdsserver")}, []string{"internal/mesh/xdsclient/a.go imports internal/mesh/xdsserver"}},
		{"5", map[string]string{"internal/mesh/xds/a.go": ours("internal/mesh/xdsclient")}, []string{"internal/mesh/xds/a.go imports internal/mesh/xdsclient"}},
		{"5", map[string]string{"internal/mesh/supervise/a.go": ours("internal/mesh/hostfault")}, []string{"internal/mesh/supervise/a.go imports internal/mesh/hostfault"}},
		{"5", map[string]string{"internal/mesh/hostfault/a.go": ours("internal/mesh/probe")}, []string{"internal/mesh/hostfault/a.go imports internal/mesh/probe"}},
		{"5", map[string]string{"internal/mesh/sidecar/a.go": ours("internal/mesh/proxy", "internal/mesh/identity"), "internal/mesh/agent/a.go": ours("internal/mesh/probe"),
			"internal/mesh/envoy/a.go": ours("internal/mesh/supervise"), "internal/mesh/xdsserver/a.go": ours("internal/mesh/xds"),
			"internal/mesh/xdsclient/a.go": ours("internal/mesh/xds"), "internal/mesh/hostfault/a.go": ours("internal/mesh/supervise"),
			"internal/mesh/proxy/a.go": ours("internal/mesh/proxy/http1"), "internal/mesh/proxy/http1/a.go": ours("internal/mesh/proxy/balance"),
			"internal/mesh/proxy/a_test.go": ours("internal/mesh/identity")}, nil},
	} {
		i := slices.IndexFunc(rules, func(r rule) bool { return strings.HasPrefix(r.name, tt.rule+" ") })
		got := rules[i].broken(made(t, tt.files))
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("rule %s on %v (-want +got):\n%s", rules[i].name, tt.files, diff)
		}
	}
}

func TestSidecarRuleCanFail(t *testing.T) {
	deps := []string{"fmt", "google.golang.org/grpc", "go.etcd.io/bbolt", "go.etcd.io/etcd/client/v3", "k8s.io/client-go/rest", "example.org/k8s.io", "sigs.k8s.io/yaml"}
	want := []string{
		"cmd/livefire-proxy depends on go.etcd.io/bbolt",
		"cmd/livefire-proxy depends on go.etcd.io/etcd/client/v3",
		"cmd/livefire-proxy depends on k8s.io/client-go/rest",
	}
	if diff := cmp.Diff(want, heavyAmong(deps)); diff != "" {
		t.Errorf("heavyAmong (-want +got):\n%s", diff)
	}
}

func TestCommentRuleCanFail(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"one comment", map[string]string{"x/a.go": "// Package x does one thing.\n//\n// More.\npackage x", "x/b.go": "package x"}, nil},
		{"a command", map[string]string{"cmd/x/main.go": "// Command x does one thing.\npackage main"}, nil},
		{"only tests", map[string]string{"x/a_test.go": "// Package x tests one thing.\npackage x_test"}, nil},
		{"only generated", map[string]string{"x/a.pb.go": "// Code generated by x. DO NOT EDIT.\n\npackage x"}, nil},
		{"not ours to read", map[string]string{"testdata/a.go": "package x", ".git/a.go": "package x", "_x/a.go": "package x"}, nil},
		{"none", map[string]string{"x/a.go": "// Not attached.\n\npackage x"}, []string{"x has 0 package comments"}},
		{"only a build tag", map[string]string{"x/a.go": "//go:build linux\npackage x"}, []string{"x has 0 package comments"}},
		{"two", map[string]string{"x/a.go": "// Package x does one thing.\npackage x", "x/b.go": "// Package x does another.\npackage x"}, []string{"x has 2 package comments"}},
		{"a comment in the test does not count", map[string]string{"x/a.go": "package x", "x/a_test.go": "// Package x does one thing.\npackage x"}, []string{"x has 0 package comments"}},
		{"does not say its name", map[string]string{"x/a.go": "// This does one thing.\npackage x"}, []string{`x: the package comment does not open with a sentence "Package x ..."`}},
		{"not a sentence", map[string]string{"x/a.go": "// Package x does one thing\npackage x"}, []string{`x: the package comment does not open with a sentence "Package x ..."`}},
		{"a command that is called a package", map[string]string{"cmd/x/main.go": "// Package main does one thing.\npackage main"}, []string{`cmd/x: the package comment does not open with a sentence "Command x ..."`}},
	} {
		fsys := fstest.MapFS{}
		for name, text := range tt.files {
			fsys[name] = &fstest.MapFile{Data: []byte(text)}
		}
		m, err := readModule(fsys)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, oneComment(m)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestUnreadableFileIsAnError(t *testing.T) {
	if _, err := readModule(fstest.MapFS{"x/a.go": {Data: []byte("pakage x")}}); err == nil {
		t.Error("readModule of a file that is no Go = nil, want an error")
	}
}
