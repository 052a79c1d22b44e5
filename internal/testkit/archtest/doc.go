// Package archtest checks who may import whom: it is the section of that name in ARCHITECTURE.md, as an ordinary test.
//
// The test parses every Go file of the module, whatever its build tags, and applies seven rules, each a subtest by its name. A
// rule is a function from a parsed module to what breaks it, so that its own test can give it a made-up module. Imports and
// forbidden calls are looked for in the files of the product only; a test may import what it needs.
//
// Concurrency: nothing is shared.
package archtest
