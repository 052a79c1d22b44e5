// Package e2e holds the tests that run the shipped binaries as processes: the demo, its drills, and what must survive them.
//
// They have the build tag e2e and build livefire, livefire-proxy and the observer once per run:
//
//	go test -tags e2e -count 1 -timeout 20m ./e2e
//	LIVEFIRE_E2E_SOAK=1 go test -tags e2e -count 1 -timeout 3h ./e2e    # the long lists
//
// Every test has a directory and a mark of its own; the mark is in the environment of every process that it starts. After a
// test no process has it, none of its ports is open, and the empty directories that stood for HOME, XDG_* and TMPDIR are
// still empty. Tests run one after another: they measure times, on whatever machine there is.
//
// Concurrency: none between tests.
package e2e
