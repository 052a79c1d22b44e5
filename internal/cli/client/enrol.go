package client

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/identity"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// Enrol exchanges a one-time code for a context: the key is made here and stays here.
func Enrol(ctx context.Context, code string) (userapi.Context, error) {
	var none userapi.Context
	parts := strings.Split(strings.TrimSpace(code), ".")
	if len(parts) != 5 || parts[0] != "lfc1" {
		return none, api.Errorf(api.Invalid, "code", "is not an enrolment code").WithHint("copy the whole code that `livefire user add` printed")
	}
	server, err := base64.RawURLEncoding.DecodeString(parts[4])
	if err != nil {
		return none, api.Errorf(api.Invalid, "code", "is damaged: %v", err)
	}
	tlsConfig, err := identity.FingerprintTLS(parts[3])
	if err != nil {
		return none, err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return none, fmt.Errorf("make a key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return none, fmt.Errorf("make a certificate request: %w", err)
	}
	c := &Client{context: userapi.Context{Server: string(server)}, http: &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig}}}
	defer c.Close()
	resp, err := post[userapi.EnrolResponse](ctx, c, "/enrol", userapi.EnrolRequest{Code: strings.TrimSpace(code), CSR: csr})
	if err != nil {
		return none, err
	}
	return contextOf(resp, key)
}

func contextOf(resp userapi.EnrolResponse, key ed25519.PrivateKey) (userapi.Context, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return userapi.Context{}, fmt.Errorf("encode the key: %w", err)
	}
	block, _ := pem.Decode(resp.Certificate)
	if block == nil {
		return userapi.Context{}, api.Errorf(api.Internal, resp.API, "the server sent no certificate")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil || len(leaf.URIs) != 1 {
		return userapi.Context{}, api.Errorf(api.Internal, resp.API, "the server's certificate for us is not usable")
	}
	return userapi.Context{Server: resp.API, User: resp.User.Name, TrustDomain: leaf.URIs[0].Host,
		Key:         string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		Certificate: string(resp.Certificate), Roots: string(resp.Roots)}, nil
}
