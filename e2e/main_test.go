//go:build e2e

package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

const module = "github.com/livefire-mesh/livefire"

// built are the binaries under test.
var built struct{ livefire, proxy, observer string }

// seed of every random choice; LIVEFIRE_E2E_SEED repeats a run.
var seed uint64

// soak says that the long lists are wanted.
var soak = os.Getenv("LIVEFIRE_E2E_SOAK") == "1"

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	seed = uint64(time.Now().UnixNano())
	if s := os.Getenv("LIVEFIRE_E2E_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			fmt.Fprintln(os.Stderr, "LIVEFIRE_E2E_SEED:", err)
			return 1
		}
	}
	fmt.Printf("seed %d (LIVEFIRE_E2E_SEED), soak %t (LIVEFIRE_E2E_SOAK)\n", seed, soak)
	if dir := os.Getenv("LIVEFIRE_E2E_BIN"); dir != "" { // binaries that are there already: a release, say
		built.livefire, built.proxy, built.observer = filepath.Join(dir, "livefire"), filepath.Join(dir, "livefire-proxy"), filepath.Join(dir, "observer")
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "livefire-e2e-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	for path, pkg := range map[*string]string{
		&built.livefire: "cmd/livefire", &built.proxy: "cmd/livefire-proxy", &built.observer: "e2e/observer",
	} {
		*path = filepath.Join(dir, filepath.Base(pkg))
		cmd := exec.Command("go", "build", "-o", *path, module+"/"+pkg)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n", pkg, err)
			return 1
		}
	}
	return m.Run()
}
