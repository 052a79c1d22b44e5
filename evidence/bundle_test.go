package evidence

import (
	"os"
	"testing"
)

func TestUntouchedBundleVerifiesInAnEmptyDirectory(t *testing.T) {
	f := newFixture(t, fixtureOptions{before: 300})
	dir := f.write(t)
	v, err := Verify(os.DirFS(dir), f.log.signer.VerifierKey())
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	if v.Run != testRun || len(v.Records) != len(f.in.Records) || len(v.Samples) != 3 || len(v.Approvals) != 2 {
		t.Errorf("run %q, %d records, %d samples, %d approvals", v.Run, len(v.Records), len(v.Samples), len(v.Approvals))
	}
}
