// Package report turns the evidence of a run into one report: canonical JSON, and text and HTML as views of it.
//
// Build computes a Report from records and samples alone. Verify reads a bundle, computes the report again and
// compares every field with the report.json that is in it. Text and HTML print a Report; every number goes through
// the functions of format.go, so that each view shows the same one.
//
// Units: JSON gives exact seconds; the views round to hundredths, and phases so that they still add up.
// Errors: Verify returns *evidence.VerifyError, or *DiffError naming the file and the field that differs.
// Concurrency: pure functions.
// Sources: docs/spec/measurement.md for every quantity; Okabe and Ito's palette for the charts.
package report
