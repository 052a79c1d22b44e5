package evidence

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	testresult "github.com/in-toto/attestation/go/predicates/test_result/v0"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/encoding/protojson"
)

// stockVerifier is the verifier that go-securesystemslib asks for.
type stockVerifier struct{ pub ed25519.PublicKey }

func (v stockVerifier) Verify(_ context.Context, data, sig []byte) error {
	if !ed25519.Verify(v.pub, data, sig) {
		return errors.New("invalid signature")
	}
	return nil
}
func (v stockVerifier) KeyID() (string, error)   { return KeyID(v.pub), nil }
func (v stockVerifier) Public() crypto.PublicKey { return v.pub }

func openStock(t *testing.T, b []byte, pub ed25519.PublicKey) []byte {
	t.Helper()
	var e dsse.Envelope
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	ev, err := dsse.NewEnvelopeVerifier(stockVerifier{pub})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ev.Verify(t.Context(), &e); err != nil {
		t.Fatalf("stock DSSE verifier: %v", err)
	}
	payload, err := e.DecodeB64Payload()
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func TestEnvelopesOpenWithStockDSSEAndInToto(t *testing.T) {
	f := newFixture(t, fixtureOptions{})
	files := filesOf(t, f.write(t))
	openStock(t, files[ApprovalFile("security")], publicOf(testKey("security")))

	var st intoto.Statement
	payload := openStock(t, files[FileStatement], f.log.signer.PublicKey())
	if err := protojson.Unmarshal(payload, &st); err != nil {
		t.Fatalf("in-toto statement: %v", err)
	}
	if err := st.Validate(); err != nil {
		t.Fatalf("in-toto statement: %v", err)
	}
	if st.GetSubject()[0].GetDigest()["sha256"] != digest(files[FileManifest]) || st.GetPredicateType() != TestResultType {
		t.Errorf("statement %v", &st)
	}
	raw, err := protojson.Marshal(st.GetPredicate())
	if err != nil {
		t.Fatal(err)
	}
	// "Consumers MUST ignore unrecognized fields": ours is one.
	var tr testresult.TestResult
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, &tr); err != nil {
		t.Fatalf("in-toto test-result: %v", err)
	}
	if tr.GetResult() != "PASSED" || len(tr.GetConfiguration()) != 1 || tr.GetPassedTests()[0] != "payments/rto" {
		t.Errorf("test-result %v", &tr)
	}
}

func TestEnvelopeOfStockDSSEIsOurs(t *testing.T) {
	key := testKey("stock")
	signer, err := dsse.NewEnvelopeSigner(stockSigner{stockVerifier{publicOf(key)}, key})
	if err != nil {
		t.Fatal(err)
	}
	a := Approval{Run: "r", ProposalSHA256: digest(nil), Group: "g", Decision: Approve, By: "b", At: epoch}
	payload, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	e, err := signer.SignPayload(t.Context(), ApprovalPayloadType, payload)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := VerifyApproval(append(b, '\n'), publicOf(key)); err != nil || got != a {
		t.Errorf("VerifyApproval = %+v, %v", got, err)
	}
}

type stockSigner struct {
	stockVerifier
	key ed25519.PrivateKey
}

func (s stockSigner) Sign(_ context.Context, data []byte) ([]byte, error) {
	return ed25519.Sign(s.key, data), nil
}

// A verifier that knows tlog and note only finds every record of the run in the log.
func TestTilesAndCheckpointProveInclusionWithStockTlog(t *testing.T) {
	f := newFixture(t, fixtureOptions{before: 300})
	files := filesOf(t, f.write(t))
	v, err := note.NewVerifier(f.log.signer.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(files[FileCheckpoint], note.VerifierList(v))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(n.Text, "\n")
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(f.log.records))
	reader := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, stockTiles(files))
	for _, r := range f.in.Records {
		line, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		proof, err := tlog.ProveRecord(size, r.Index, reader)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckRecord(proof, size, root, r.Index, tlog.RecordHash(line)); err != nil {
			t.Errorf("record %d: %v", r.Index, err)
		}
		if !bytes.Contains(files[FileRecords], append(line, '\n')) {
			t.Errorf("record %d is not a line of %s", r.Index, FileRecords)
		}
	}
}

// stockTiles serves the tiles of a bundle under the names of sumdb, which has the height in the path.
type stockTiles map[string][]byte

func (s stockTiles) Height() int { return 8 }

func (s stockTiles) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(tiles))
	for i, tile := range tiles {
		name := "log/" + strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		b, ok := s[name]
		if !ok {
			return nil, os.ErrNotExist
		}
		out[i] = b
	}
	return out, nil
}

func (s stockTiles) SaveTiles([]tlog.Tile, [][]byte) {}
