// Package identity says who a process is, proves it with certificates that renew themselves, and refuses everybody else.
//
// An ID is a SPIFFE id of this mesh. The server's CA signs the public key of a certificate request; the node makes the
// key and keeps it (SVID, files 0600). A Source holds the certificate in force and Rotate replaces it at half its life.
// ClientTLS, ServerTLS and their siblings build TLS 1.3 configurations that read the Source at each handshake and check the
// chain and the exact SPIFFE id of the peer; host names play no part. TLS never looks at a certificate twice, so Listener and
// CloseAtExpiry close a connection when its peer's certificate ends.
//
// Units: spans are time.Duration; certificates have whole seconds, UTC; NotBefore is Backdate before the signing.
// Errors: *Refusal for a peer that is not accepted, with a Reason fit for an access log; *api.Error for what a person must mend.
// Concurrency: ID, CA and SVID are values that nobody changes; a Source is safe from any goroutine; Rotate has one caller.
// Sources: SPIFFE-ID and X509-SVID standards (github.com/spiffe/spiffe). Differs: a leaf that is not one of our four paths is
// refused, and a server's chain ends with the root, so that a joining node can compare it with the hash in its token.
package identity
