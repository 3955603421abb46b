// Package volume makes the files of a certlet volume a source of X509-SVIDs and X.509 bundles. Each use reads the files again,
// so that a renewal is seen without a restart.
package volume

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Volume is the mounted directory.
type Volume string

// GetX509SVID implements x509svid.Source.
func (v Volume) GetX509SVID() (*x509svid.SVID, error) {
	return read(v, func(generation string) (*x509svid.SVID, error) {
		return x509svid.Load(filepath.Join(generation, "tls.crt"), filepath.Join(generation, "tls.key"))
	})
}

// GetX509BundleForTrustDomain implements x509bundle.Source. The volume knows one trust domain, that of its own SVID.
func (v Volume) GetX509BundleForTrustDomain(domain spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return read(v, func(generation string) (*x509bundle.Bundle, error) {
		svid, err := x509svid.Load(filepath.Join(generation, "tls.crt"), filepath.Join(generation, "tls.key"))
		if err != nil {
			return nil, err
		}
		bundle, err := x509bundle.Load(svid.ID.TrustDomain(), filepath.Join(generation, "ca.crt"))
		if err != nil {
			return nil, err
		}
		return bundle.GetX509BundleForTrustDomain(domain)
	})
}

// read calls load with the directory of one generation, so that certificate and key belong together. A generation may be
// removed while it is read; then there is a newer one.
func read[T any](v Volume, load func(generation string) (T, error)) (T, error) {
	for {
		generation, err := filepath.EvalSymlinks(filepath.Join(string(v), "..data"))
		if err != nil {
			var none T
			return none, err
		}
		loaded, err := load(generation)
		now, _ := filepath.EvalSymlinks(filepath.Join(string(v), "..data"))
		if errors.Is(err, fs.ErrNotExist) && now != generation {
			continue
		}
		return loaded, err
	}
}
