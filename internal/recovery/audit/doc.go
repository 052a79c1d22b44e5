// Package audit checks whether each recovery endpoint would really take over.
package audit
