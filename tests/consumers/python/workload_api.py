"""Follows the X.509-SVID of a volume's socket.

    python3 workload_api.py unix:///spiffe/socket

For each line of input it prints the serial number of the current one (hexadecimal) and its SPIFFE ID, after it has verified the
one against the current trust bundle; or an error.
"""

import sys

from spiffe import X509Source


def current(source):
    context = source.get_x509_context()
    svid = context.default_svid
    anchors = source.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain).x509_authorities
    issuers = [anchor for anchor in anchors if anchor.subject == svid.leaf.issuer]
    errors = [error for error in (unverified(svid.leaf, issuer) for issuer in issuers)]
    if not issuers or all(errors):
        raise ValueError(f"no trust anchor issued it: {errors}")
    if svid.leaf.public_key() != svid.private_key.public_key():
        raise ValueError("the key is another certificate's")
    return f"{svid.leaf.serial_number:x} {svid.spiffe_id}"


def unverified(leaf, issuer):
    try:
        leaf.verify_directly_issued_by(issuer)
    except Exception as error:
        return error
    return None


with X509Source(socket_path=sys.argv[1], timeout_in_seconds=30) as source:
    for _ in sys.stdin:
        try:
            print(current(source), flush=True)
        except Exception as error:
            print(f"error: {error!r}", flush=True)
