//! The rows of the table of attributes.

use super::table::{Default, Key, Row, Topic};

const FILE_RULE: &str = "a plain file name of at most 255 bytes: no slash, no leading `..`, no white space at its ends, \
     unlike the other file names";
const LIST_RULE: &str = "a list of texts without control characters";
const DURATION_RULE: &str = "a Go duration above zero, such as `24h` or `1h30m`";
const SWITCH_RULE: &str = "`true` or `false`";

/// Every attribute, in the order the documentation lists them.
pub(super) static TABLE: [Row; 38] = [
    Row::of(Key::Signer, Topic::Signer, "signer", "Who signs the certificate.", "`cert-manager`, `acm-pca` or `local`")
        .default_value("cert-manager")
        .certlet_only(),
    Row::of(
        Key::IssuerName,
        Topic::Signer,
        "issuer-name",
        "The cert-manager issuer that signs.",
        "the name of an issuer, with the signer `cert-manager` only",
    )
    .told("required with the signer `cert-manager`"),
    Row::of(
        Key::IssuerKind,
        Topic::Signer,
        "issuer-kind",
        "The issuer's kind.",
        "a kind such as `Issuer` or `ClusterIssuer`, with the signer `cert-manager` only",
    )
    .default_value("Issuer"),
    Row::of(
        Key::IssuerGroup,
        Topic::Signer,
        "issuer-group",
        "The API group of the issuer; that of an external issuer works as well.",
        "an API group such as `cert-manager.io`, with the signer `cert-manager` only",
    )
    .default_value("cert-manager.io"),
    Row::of(
        Key::CommonName,
        Topic::Names,
        "common-name",
        "The subject's common name.",
        "at most 64 characters, none of them a control character",
    )
    .templated(),
    Row::of(
        Key::DnsNames,
        Topic::Names,
        "dns-names",
        "DNS names of the certificate.",
        "a list of host names of at most 253 characters, labels of at most 63 letters, digits, `-` and `_`, the first \
         label may be `*`",
    )
    .templated(),
    Row::of(Key::IpSans, Topic::Names, "ip-sans", "IP addresses of the certificate.", "a list of IPv4 or IPv6 addresses"),
    Row::of(
        Key::UriSans,
        Topic::Names,
        "uri-sans",
        "URIs of the certificate, such as a SPIFFE ID.",
        "a list of absolute URIs (RFC 3986) such as `spiffe://example.org/ns/shop`, of at most 2,048 bytes, without `.` and `..` in the path and without an empty fragment",
    )
    .templated(),
    Row::of(
        Key::LiteralSubject,
        Topic::Names,
        "literal-subject",
        "The whole subject, its parts in the order you want. It excludes the other subject attributes.",
        "a distinguished name (RFC 4514) such as `CN=web,OU=Shop,O=Example` of `CN`, `C`, `L`, `ST`, `STREET`, `O`, `OU`, \
         `DC`, `UID`, `SERIALNUMBER` and dotted object identifiers",
    )
    .templated(),
    Row::of(Key::Organizations, Topic::Names, "organizations", "The subject's organizations.", LIST_RULE).templated(),
    Row::of(
        Key::OrganizationalUnits,
        Topic::Names,
        "organizationalunits",
        "The subject's organizational units.",
        LIST_RULE,
    )
    .templated(),
    Row::of(
        Key::Countries,
        Topic::Names,
        "countries",
        "The subject's countries.",
        "a list of country codes such as `DE`, of letters, digits, spaces and `'()+,-./:=?`",
    )
    .templated(),
    Row::of(Key::Provinces, Topic::Names, "provinces", "The subject's states or provinces.", LIST_RULE).templated(),
    Row::of(Key::Localities, Topic::Names, "localities", "The subject's localities.", LIST_RULE).templated(),
    Row::of(Key::StreetAddresses, Topic::Names, "streetaddresses", "The subject's street addresses.", LIST_RULE)
        .templated(),
    Row::of(Key::PostalCodes, Topic::Names, "postalcodes", "The subject's postal codes.", LIST_RULE).templated(),
    Row::of(
        Key::SerialNumber,
        Topic::Names,
        "serialnumber",
        "The subject's serial number (not the certificate's).",
        "letters, digits, spaces and `'()+,-./:=?`",
    )
    .templated(),
    Row::of(
        Key::Duration,
        Topic::Certificate,
        "duration",
        "The lifetime to ask for; the signer may give less.",
        DURATION_RULE,
    )
    .defaults(Default::Value("2160h"), Default::Value("24h")),
    Row::of(
        Key::RenewBefore,
        Topic::Certificate,
        "renew-before",
        "How long before it expires the certificate is renewed. At or over the lifetime it is ignored, and a certificate is used for a minute at least (`--min-renewal-interval`), or two thirds of its life.",
        DURATION_RULE,
    )
    .told("a third of the lifetime"),
    Row::of(Key::IsCa, Topic::Certificate, "is-ca", "Whether to ask for a CA certificate.", SWITCH_RULE)
        .default_value("false"),
    Row::of(
        Key::KeyUsages,
        Topic::Certificate,
        "key-usages",
        "Key usages and extended key usages.",
        "a list of `digital signature` (or `signing`), `content commitment`, `key encipherment`, `key agreement`, \
         `data encipherment`, `cert sign`, `crl sign`, `encipher only`, `decipher only`, `any`, `server auth`, \
         `client auth`, `code signing`, `email protection` (or `s/mime`), `ipsec end system`, `ipsec tunnel`, \
         `ipsec user`, `timestamping`, `ocsp signing`, `microsoft sgc`, `netscape sgc`",
    )
    .default_value("digital signature,key encipherment"),
    Row::of(
        Key::KeyAlgorithm,
        Topic::Key,
        "key-algorithm",
        "The private key's algorithm.",
        "`RSA`, `ECDSA` or `Ed25519`, in upper or lower case",
    )
    .defaults(Default::Value("RSA"), Default::Value("ECDSA")),
    Row::of(
        Key::KeySize,
        Topic::Key,
        "key-size",
        "The private key's size in bits.",
        "`2048`, `3072` or `4096` for RSA; `256`, `384` or `521` for ECDSA; nothing for Ed25519",
    )
    .told("`2048` for RSA, `256` for ECDSA"),
    Row::of(
        Key::KeyEncoding,
        Topic::Key,
        "key-encoding",
        "The encoding of the private key's file.",
        "`PKCS8`, or `PKCS1` for RSA, in upper or lower case",
    )
    .defaults(Default::Told("`PKCS1` for RSA, else `PKCS8`"), Default::Told("`PKCS8`")),
    Row::of(
        Key::ReusePrivateKey,
        Topic::Key,
        "reuse-private-key",
        "Whether a renewal keeps the private key instead of making a new one.",
        SWITCH_RULE,
    )
    .default_value("false"),
    Row::of(
        Key::CertificateFile,
        Topic::Files,
        "certificate-file",
        "The certificate, and the intermediates after it.",
        FILE_RULE,
    )
    .default_value("tls.crt"),
    Row::of(Key::PrivateKeyFile, Topic::Files, "privatekey-file", "The private key.", FILE_RULE)
        .default_value("tls.key"),
    Row::of(Key::CaFile, Topic::Files, "ca-file", "The trust anchors the signer names.", FILE_RULE)
        .default_value("ca.crt"),
    Row::of(
        Key::CombinedFile,
        Topic::Files,
        "combined-file",
        "One more file that holds the private key, then the certificate and intermediates.",
        FILE_RULE,
    )
    .certlet_only(),
    Row::of(
        Key::Pkcs12Enable,
        Topic::Files,
        "pkcs12-enable",
        "Whether to write a PKCS#12 keystore as well.",
        SWITCH_RULE,
    )
    .default_value("false"),
    Row::of(
        Key::Pkcs12Filename,
        Topic::Files,
        "pkcs12-filename",
        "The keystore. Only beside `pkcs12-enable`.",
        FILE_RULE,
    )
    .default_value("keystore.p12"),
    Row::of(
        Key::Pkcs12Password,
        Topic::Files,
        "pkcs12-password",
        "The keystore's password. Only beside `pkcs12-enable`.",
        "a password that is not empty",
    )
    .told("required when `pkcs12-enable` is `true`")
    .secret(),
    Row::of(
        Key::FsGroup,
        Topic::Files,
        "fs-group",
        "The group that may read the private key. Without it, the pod's `fsGroup`.",
        "a group id from 1 to 4294967294",
    ),
    Row::of(
        Key::CertificateAuthorityArn,
        Topic::PrivateCa,
        "certificate-authority-arn",
        "The private CA that signs.",
        "`arn:aws:acm-pca:REGION:ACCOUNT:certificate-authority/UUID` (or another partition, such as `aws-cn` and \
         `aws-us-gov`), with the signer `acm-pca` only",
    )
    .told("required with the signer `acm-pca`")
    .certlet_only(),
    Row::of(
        Key::SigningAlgorithm,
        Topic::PrivateCa,
        "signing-algorithm",
        "The algorithm the CA signs with; it must fit the CA's key.",
        "`SHA256WITHECDSA`, `SHA384WITHECDSA`, `SHA512WITHECDSA`, `SHA256WITHRSA`, `SHA384WITHRSA` or `SHA512WITHRSA`, \
         with the signer `acm-pca` only",
    )
    .told("the signer's choice")
    .certlet_only(),
    Row::of(
        Key::TemplateArn,
        Topic::PrivateCa,
        "template-arn",
        "The certificate template.",
        "`arn:aws:acm-pca:::template/NAME/V1` (or another partition), with the signer `acm-pca` only",
    )
    .told("the signer's choice")
    .certlet_only(),
    Row::of(
        Key::RoleArn,
        Topic::PrivateCa,
        "role-arn",
        "The IAM role to sign as.",
        "`arn:aws:iam::ACCOUNT:role/NAME` (or another partition), with the signer `acm-pca` only",
    )
    .certlet_only(),
    Row::of(
        Key::UsePodIdentity,
        Topic::PrivateCa,
        "use-pod-identity",
        "Whether to sign as the IAM role that EKS Pod Identity associates with the pod's service account. It excludes \
         `role-arn`.",
        "`true` or `false`, with the signer `acm-pca` only",
    )
    .default_value("false")
    .certlet_only(),
];
